"""The hub as it answers, and as it fails: names to commits, hashes, retries, offline use. On the loopback hub."""

import json
import shutil
import subprocess
import sys
import time

import datasets
import pyarrow.parquet as pq
import pytest
from conftest import serving

pytestmark = pytest.mark.hub

QUICK = "sources.asking.RETRY_SECONDS, sources.asking.FIRST_WAIT_S = 5.0, 0.05"
"""Waits as short as tests need; what is bounded is the same."""

MODEL = "vars(sources.fetch_model({name!r}).source)"
DATASET = "vars(sources.fetch_dataset({name!r}).source)"
SUMMARY = (
    "(lambda s: [s.source.splits, s.label_names, s.languages, s.source.license, s.source.revision, s.notes])"
    "(data.load_text_classification({arguments}))"
)


def load(arguments):
    return SUMMARY.format(arguments=arguments)


@pytest.fixture(scope="module")
def root(tiny_model_folder, tmp_path_factory):
    """A hub of small repositories: plain ones, gated ones, and ones that must be refused."""
    root = tmp_path_factory.mktemp("root")
    for name in ("tiny", "gated", "pickled", "remote"):
        shutil.copytree(tiny_model_folder, root / "models" / "org" / name)
        (root / "models" / "org" / name / "README.md").write_text("---\nlicense: mit\nlanguage: en\n---\n")
    (root / "models" / "org" / "gated" / ".gated").touch()
    (root / "models" / "org" / "tiny" / "modeling_evil.py").write_text("raise SystemExit")
    pickled = root / "models" / "org" / "pickled"
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    remote = root / "models" / "org" / "remote" / "config.json"
    remote.write_text(json.dumps(json.loads(remote.read_text()) | {"auto_map": {"AutoModel": "modeling.Evil"}}))
    rows = [{"text": f"text {i}", "label": ["no", "yes"][i % 2]} for i in range(40)]
    for name in ("rows", "rows@v1", "parquet", "script", "script@refs%2Fconvert%2Fparquet"):
        (root / "datasets" / "org" / name).mkdir(parents=True)
    write_rows(root / "datasets" / "org" / "rows" / "train.jsonl", rows)
    write_rows(root / "datasets" / "org" / "rows@v1" / "train.jsonl", rows[:20])
    datasets.Dataset.from_list(rows).to_parquet(root / "datasets" / "org" / "parquet" / "train.parquet")
    (root / "datasets" / "org" / "script" / "script.py").write_text("raise SystemExit('ran')")
    (root / "datasets" / "org" / "script" / "README.md").write_text("---\nlicense: mit\nlanguage: sw\n---\n")
    converted = root / "datasets" / "org" / "script@refs%2Fconvert%2Fparquet"
    for config, part in (("first", rows[:20]), ("second", rows)):
        (converted / config / "train").mkdir(parents=True)
        datasets.Dataset.from_list(part).to_parquet(converted / config / "train" / "0000.parquet")
    (root / "datasets" / "org" / "bare" / "all" / "train").mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(root / "datasets" / "org" / "bare" / "all" / "train" / "0000.parquet")
    return root


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def small_hub(root, tmp_path_factory):
    with serving(root, tmp_path_factory.mktemp("small-hub")) as running:
        yield running


@pytest.fixture
def faulty(small_hub):
    """The hub of small repositories; whatever a test breaks is mended after it."""
    yield small_hub
    small_hub.set_faults()


def refused(outcome, *parts, error="InputError", exit_code=2):
    assert (outcome.error, outcome.exit_code) == (error, exit_code), outcome
    assert "\n" not in outcome.message
    for part in parts:
        assert part in outcome.message


# Real data sets


@pytest.mark.parametrize(
    ("arguments", "splits", "num_labels", "label", "languages"),
    [
        pytest.param(
            "'PolyAI/banking77'",
            {"train": 9003, "validation": 1000, "test": 3080},
            77,
            "activate_my_card",
            ["en"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "'Davlan/sib200', config='swh_Latn', label_column='category'",
            {"train": 701, "validation": 99, "test": 204},
            7,
            "entertainment",
            ["sw"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "'SetFit/sst2', text_column='text', label_column='label'",
            {"train": 6920, "validation": 872, "test": 1821},
            2,
            "negative",
            ["en"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_hub_data_sets_become_splits_and_h1_again_offline(
    hub, hub_home, arguments, splits, num_labels, label, languages
):
    online = hub.evaluate(load(arguments), hub_home)
    assert online.get()[0] == splits
    assert (len(online.get()[1]), online.get()[1][0], online.get()[2]) == (num_labels, label, languages)
    assert len(online.get()[4]) == 40
    offline = hub.evaluate(load(arguments), hub_home, HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.get() == online.get()


def test_h6_minilm_is_resolved_to_a_commit_once_and_read_at_it(hub, hub_home):
    before = len(hub.paths_asked())
    got = hub.evaluate(MODEL.format(name="sentence-transformers/all-MiniLM-L6-v2@main"), hub_home).get()
    assert got["sha256"]["model.safetensors"].startswith("53aa51172d142c89")
    assert (got["license"], got["notes"]["revision"]) == ("apache-2.0", "main")
    asked = [path for path in hub.paths_asked()[before:] if "all-MiniLM-L6-v2" in path]
    assert sum("main" in path for path in asked) == 1
    resolved = [path for path in asked if "/resolve/" in path]
    assert resolved
    assert all(f"/resolve/{got['revision']}/" in path for path in resolved)
    assert not [path for path in asked if path.endswith((".gitattributes", "data_config.json"))]


@pytest.mark.slow
def test_a_data_set_with_an_unlabelled_test_split_says_so(hub, hub_home):
    notes = hub.evaluate(load("'stanfordnlp/sst2'"), hub_home).get()[5]
    assert notes["num_dropped"] == {"test/unlabelled": 1821}
    assert "--test-split" in notes["test_split"]


@pytest.mark.slow
def test_several_configurations_are_named(hub, hub_home):
    refused(hub.evaluate(load("'Davlan/sib200'"), hub_home), "--dataset-config", "eng_Latn", "swh_Latn")
    wrong = hub.evaluate(load("'Davlan/sib200', config='swahili'"), hub_home)
    refused(wrong, "no configuration 'swahili'", "swh_Latn")


# Names that lead nowhere


@pytest.mark.faults
def test_unknown_ids_and_revisions_are_one_sentence_each(small_hub, tmp_path):
    refused(small_hub.evaluate(MODEL.format(name="org/absent"), tmp_path), "the hub has no model org/absent")
    refused(small_hub.evaluate(DATASET.format(name="org/absent"), tmp_path), "the hub has no dataset org/absent")
    refused(small_hub.evaluate(MODEL.format(name="org/tiny@v9"), tmp_path), "org/tiny has no revision 'v9'")
    refused(small_hub.evaluate(MODEL.format(name=f"org/tiny@{'0' * 40}"), tmp_path), "no revision '0000")


@pytest.mark.faults
def test_h8_gated_repository_names_its_page_and_s3_no_token(small_hub, tmp_path):
    expression = MODEL.format(name="org/gated")
    for number, token in enumerate((None, "hf_CANARY")):
        changes = {"HF_TOKEN": token} if token else {}
        outcome = small_hub.evaluate(expression, tmp_path / str(number), **changes)
        refused(outcome, "org/gated is gated", "https://huggingface.co/org/gated", "HF_TOKEN")
        assert "CANARY" not in outcome.output
    assert small_hub.evaluate(expression, tmp_path, HF_TOKEN="hf_test").get()["license"] == "mit"


@pytest.mark.faults
def test_h6_a_revision_is_read_as_it_was(small_hub, tmp_path):
    old, new = (small_hub.evaluate(load(f"'org/rows{at}'"), tmp_path).get() for at in ("@v1", ""))
    assert (sum(old[0].values()), sum(new[0].values())) == (20, 40)
    assert old[4] != new[4]
    assert small_hub.evaluate(load(f"'org/rows@{old[4]}'"), tmp_path).get()[0] == old[0]


# What is not loaded


@pytest.mark.faults
def test_m1_m2_refused_models_cost_no_download_of_weights(small_hub, tmp_path):
    before = len(small_hub.paths_asked())
    pickled = small_hub.evaluate(MODEL.format(name="org/pickled"), tmp_path)
    refused(pickled, "found only pytorch_model.bin", error="PolicyError", exit_code=3)
    remote = small_hub.evaluate(MODEL.format(name="org/remote"), tmp_path)
    refused(remote, "'auto_map'", error="PolicyError", exit_code=3)
    asked = small_hub.paths_asked()[before:]
    assert not [path for path in asked if path.endswith((".bin", ".safetensors", ".py"))]


def test_m2_code_in_a_repository_is_not_downloaded(small_hub, tmp_path):
    assert "modeling_evil.py" not in small_hub.evaluate(MODEL.format(name="org/tiny"), tmp_path).get()["sha256"]
    assert not list(tmp_path.rglob("modeling_evil.py"))


@pytest.mark.faults
def test_d10_a_data_set_with_a_script_names_its_parquet_revision_which_loads(small_hub, tmp_path):
    outcome = small_hub.evaluate(load("'org/script'"), tmp_path)
    refused(outcome, "org/script@refs/convert/parquet", "script")
    assert "ran" not in outcome.output
    several = small_hub.evaluate(load("'org/script@refs/convert/parquet'"), tmp_path)
    refused(several, "--dataset-config", "first, second")
    expression = load("'org/script@refs/convert/parquet', config='first'")
    got = small_hub.evaluate(expression, tmp_path).get()
    assert (sum(got[0].values()), got[1]) == (20, ["no", "yes"])
    assert got[2:4] == [["sw"], "mit"]  # of the card that the copy itself lacks
    assert small_hub.evaluate(expression, tmp_path, HF_HUB_OFFLINE="1").get() == got


@pytest.mark.faults
def test_d10_parquet_revision_is_read_by_its_commit_with_the_licence_of_the_main_one(small_hub, tmp_path):
    got = small_hub.evaluate(load("'org/script@refs/convert/parquet', config='first'"), tmp_path).get()
    pinned = "sources.pinned_name('org/script@refs/convert/parquet', 'dataset')"
    assert small_hub.evaluate(f"sources.declared_license({pinned}, 'dataset').license", tmp_path).get() == "mit"
    commit = small_hub.evaluate(pinned, tmp_path).get()
    for home in (tmp_path, tmp_path / "elsewhere"):  # as a run reads it, and another machine that repeats the run
        assert small_hub.evaluate(load(f"'{commit}', config='first'"), home).get()[:5] == got[:5]


@pytest.mark.slow
def test_data_set_without_a_card_that_looks_like_a_copy_declares_no_licence(small_hub, tmp_path):
    assert small_hub.evaluate("sources.declared_license('org/bare', 'dataset').license", tmp_path).get() is None
    assert sum(small_hub.evaluate(load("'org/bare'"), tmp_path).get()[0].values()) == 40


# Servers and networks that fail


@pytest.mark.parametrize("status", [429, 503])
def test_h3_errors_that_pass_are_waited_for(faulty, tmp_path, status):
    faulty.set_faults(match="/api/", error_every=1, error_status=status, only_first=2)
    assert faulty.evaluate(MODEL.format(name="org/tiny"), tmp_path, before=QUICK).get()["license"] == "mit"


@pytest.mark.faults
def test_h3_errors_that_stay_end_in_one_sentence_after_bounded_attempts(faulty, tmp_path):
    faulty.set_faults(match="/api/", error_every=1, error_status=500)
    before, start = len(faulty.paths_asked()), time.monotonic()
    outcome = faulty.evaluate(MODEL.format(name="org/tiny"), tmp_path, before=QUICK)
    refused(outcome, "the hub should give the model org/tiny", "answered 500", "5 attempts")
    assert time.monotonic() - start < 30
    assert sum("org/tiny" in path for path in faulty.paths_asked()[before:]) == 5


@pytest.mark.faults
def test_h3_answers_that_come_too_late_are_asked_for_again(faulty, tmp_path):
    faulty.set_faults(match="resolve.*config.json", delay_s=3, only_first=2)
    patience = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
    assert faulty.evaluate(MODEL.format(name="org/tiny"), tmp_path, before=QUICK, **patience).get()["license"] == "mit"


RECIPE = '''
"""Train nothing."""
from dataclasses import dataclass
from smallmodels import sources

sources.asking.RETRY_SECONDS, sources.asking.FIRST_WAIT_S = 5.0, 0.05

@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0

def main(config, run):
    model, dataset = run.pin(("org/tiny", "model"), ("org/rows", "dataset"))
    run.add_source(sources.fetch_model(model).source)
    run.add_source(sources.fetch_dataset(dataset).source)
    raise AssertionError("training began")
'''


@pytest.mark.parametrize(
    "way",
    # The hub's client itself asks for 20 seconds before it gives a file up.
    ["offline", *(pytest.param(way, marks=pytest.mark.faults) for way in ("unreachable", "failing weights"))],
)
def test_h2_h3_run_that_lacks_an_input_ends_before_it_began_and_leaves_nothing(faulty, tmp_path, way):
    (tmp_path / "toy.py").write_text(RECIPE)
    changes = {"offline": {"HF_HUB_OFFLINE": "1"}, "unreachable": {"HF_ENDPOINT": "http://127.0.0.1:9"}}.get(way, {})
    faulty.set_faults(match="resolve.*safetensors", error_every=1, error_status=500)
    done = subprocess.run(
        [sys.executable, "-m", "smallmodels", "run", "toy.py", "--accept-license", "unknown:org/rows"],
        cwd=tmp_path,
        env=faulty.environment(tmp_path / "home", **changes),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 2, done.stderr
    assert "org/tiny" in done.stderr.splitlines()[-1]
    if way == "offline":
        assert "the model org/tiny: the list of its files; of the dataset org/rows: the list" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.faults
def test_h2_offline_run_names_the_missing_files_of_all_its_sources(faulty, tmp_path):
    (tmp_path / "toy.py").write_text(RECIPE)
    run = [sys.executable, "-m", "smallmodels", "run", "toy.py", "--accept-license", "unknown:org/rows"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 180}
    done = subprocess.run(run, env=faulty.environment(tmp_path / "home"), **options)
    assert "training began" in done.stderr
    for name in ("model.safetensors", "tokenizer.json", "train.jsonl"):
        next(tmp_path.rglob(f"snapshots/*/{name}")).unlink()
    done = subprocess.run(run, env=faulty.environment(tmp_path / "home", HF_HUB_OFFLINE="1"), **options)
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert "of the model org/tiny: model.safetensors, tokenizer.json; of the dataset org/rows: train.jsonl" in said


def test_h9_more_to_download_than_the_disk_has_room_for_is_refused_up_front(faulty, tmp_path):
    """The list of files that the hub gave says so; nothing is asked for."""
    before = (
        "pin = sources.hub.Pin('org/tiny', 'model', None, '0' * 40, {'config.json': sources.hub.File(10, None, None), "
        "'model.safetensors': sources.hub.File(10**16, None, None)}, 'http://127.0.0.1', '2026-01-01T00:00:00Z'); "
        "sources.hub.write_pin(pin)"
    )
    asked = len(faulty.paths_asked())
    expression = (
        f"str(sources.hub.download(sources.hub.resolve('org/tiny', '{'0' * 40}', 'model'), ['model.safetensors']))"
    )
    outcome = faulty.evaluate(expression, tmp_path, before=before)
    refused(outcome, "org/tiny needs 10000000000 MB of disk", "make room, or point HF_HOME to a larger disk")
    assert len(faulty.paths_asked()) == asked


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a disk of its own: unshare and tmpfs of Linux")
def test_h9_disk_that_fills_up_under_a_download_is_one_sentence(faulty, tmp_path):
    """On a real small disk, behind the back of the estimate."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "evaluate.py").write_text(
        "from smallmodels import sources\n"
        "from smallmodels.errors import SmallmodelsError\n"
        "sources.hub._check_space = lambda *_: None\n"
        "try:\n    sources.fetch_model('org/tiny')\n"
        "except SmallmodelsError as error:\n    print(error.exit_code, error)\n"
    )
    mount = f"mount -t tmpfs -o size=100k tmpfs {tmp_path}/disk && exec {sys.executable} {tmp_path}/evaluate.py"
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", mount],
        env=faulty.environment(tmp_path / "disk"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "permission" in done.stderr.lower() or "not permitted" in done.stderr.lower():
        pytest.skip("this system lets nobody mount a small disk")
    assert done.stdout.startswith("2 the disk is full while org/tiny is downloaded"), done.stderr[-2000:]


@pytest.mark.parametrize("user", ["", "user:hf_CANARY@"])
def test_h11_s3_mirror_is_recorded_without_user_and_port(small_hub, tmp_path, user):
    endpoint = small_hub.url.replace("://", f"://{user}")
    outcome = small_hub.evaluate(MODEL.format(name="org/tiny"), tmp_path, HF_ENDPOINT=endpoint)
    assert outcome.get()["notes"]["endpoint"] == "http://127.0.0.1"
    assert "CANARY" not in outcome.output
    assert not any("CANARY" in path.read_text(errors="replace") for path in tmp_path.rglob("*.json"))


@pytest.mark.faults
def test_h4_a_cut_connection_is_taken_up_again_and_the_bytes_are_right(faulty, root, tmp_path):
    faulty.set_faults(match=r"resolve.*safetensors", cut_after=5000, only_first=3)
    got = faulty.evaluate(MODEL.format(name="org/tiny"), tmp_path, before=QUICK).get()
    (weights,) = tmp_path.rglob("snapshots/*/model.safetensors")
    assert weights.read_bytes() == (root / "models" / "org" / "tiny" / "model.safetensors").read_bytes()
    assert got["sha256"]["model.safetensors"]


def test_h3_a_hub_that_is_not_there_is_one_sentence(small_hub, tmp_path):
    outcome = small_hub.evaluate(
        DATASET.format(name="org/rows"), tmp_path, before=QUICK, HF_ENDPOINT="http://user:hf_CANARY@127.0.0.1:9"
    )
    refused(outcome, "the hub should give the dataset org/rows", "check the network")
    assert "CANARY" not in outcome.message


@pytest.mark.faults
def test_h2_cold_cache_offline_names_every_missing_file(faulty, tmp_path):
    refused(
        faulty.evaluate(DATASET.format(name="org/rows"), tmp_path, HF_HUB_OFFLINE="1"),
        "HF_HUB_OFFLINE is set",
        "org/rows",
    )
    assert faulty.evaluate(MODEL.format(name="org/tiny"), tmp_path).get()
    for name in ("model.safetensors", "tokenizer.json"):
        next(tmp_path.rglob(f"snapshots/*/{name}")).unlink()
    outcome = faulty.evaluate(MODEL.format(name="org/tiny"), tmp_path, HF_HUB_OFFLINE="1")
    refused(outcome, "model.safetensors", "tokenizer.json", "HF_HUB_OFFLINE")


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.faults
def test_h1_h3_what_was_fetched_is_used_when_the_hub_is_gone(faulty, tmp_path, kind):
    expression = MODEL.format(name="org/tiny") if kind == "model" else load("'org/rows'")
    online = faulty.evaluate(expression, tmp_path)
    assert online.get()
    faulty.set_faults(error_every=1, error_status=503)
    gone = faulty.evaluate(expression, tmp_path)
    offline = faulty.evaluate(expression, tmp_path, HF_HUB_OFFLINE="1")
    if kind == "model":
        for outcome in (gone, offline):
            assert outcome.get()["notes"].pop("commit_resolved_utc")
    assert gone.get() == offline.get() == online.get()


# Bytes that are not what they should be


@pytest.mark.parametrize("kind", ["model", pytest.param("dataset", marks=pytest.mark.faults)])
def test_h7_other_bytes_than_listed_are_refused_and_thrown_away(faulty, tmp_path, kind):
    expression = MODEL.format(name="org/tiny") if kind == "model" else load("'org/rows'")
    name = "model.safetensors" if kind == "model" else "train.jsonl"
    faulty.set_faults(match=f"resolve.*{name}", corrupt=True)
    outcome = faulty.evaluate(expression, tmp_path)
    refused(outcome, f"{name} of org/", "not what the hub lists", error="DamagedError", exit_code=4)
    faulty.set_faults()
    assert faulty.evaluate(expression, tmp_path).get()


CACHED = {
    "model": (MODEL.format(name="org/tiny"), "model.safetensors"),
    "rows": (load("'org/rows'"), "train.jsonl"),
    "parquet": (load("'org/parquet'"), "train.parquet"),
}


def damaged_in_cache(faulty, home, kind, damage):
    expression, name = CACHED[kind]
    before = faulty.evaluate(expression, home).get()
    (cached,) = home.rglob(f"snapshots/*/{name}")
    cached.resolve().write_bytes(damage(cached.read_bytes()))
    refused(faulty.evaluate(expression, home, HF_HUB_OFFLINE="1"), name)
    assert faulty.evaluate(expression, home).get() == before


@pytest.mark.parametrize("kind", ["parquet", "model", "rows"])
@pytest.mark.faults
def test_d7_an_altered_file_in_the_cache_is_found_and_fetched_again(faulty, tmp_path, kind):
    damaged_in_cache(faulty, tmp_path, kind, lambda content: altered(content, kind))


def altered(content, kind):
    """The content with one bit flipped, in Parquet inside a text, where readers notice nothing."""
    place = content.index(b"text 0") + 2 if kind == "parquet" else len(content) - 3
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_d7_pyarrow_itself_reads_an_altered_file_in_silence(root, tmp_path):
    whole = root / "datasets" / "org" / "parquet" / "train.parquet"
    (tmp_path / "train.parquet").write_bytes(altered(whole.read_bytes(), "parquet"))
    rows = [pq.read_table(path)["text"].to_pylist() for path in (whole, tmp_path / "train.parquet")]
    assert len(rows[0]) == len(rows[1])
    assert rows[0] != rows[1]


@pytest.mark.faults
@pytest.mark.parametrize("kind", CACHED)
def test_d8_a_cut_file_in_the_cache_is_found_and_fetched_again(faulty, tmp_path, kind):
    damaged_in_cache(faulty, tmp_path, kind, lambda content: content[: len(content) // 2])


@pytest.mark.faults
def test_d9_the_commit_that_was_recorded_is_what_a_later_run_gets(root, tmp_path):
    moved = tmp_path / "root"
    shutil.copytree(root / "datasets" / "org" / "rows", moved / "datasets" / "org" / "rows")
    with serving(moved, tmp_path) as hub:
        commit = hub.evaluate(load("'org/rows'"), tmp_path / "home").get()[4]
        write_rows(
            moved / "datasets" / "org" / "rows" / "train.jsonl",
            [{"text": f"new {i}", "label": i % 2} for i in range(10)],
        )
        assert hub.evaluate(load(f"'org/rows@{commit}'"), tmp_path / "home").get()[4] == commit
        gone = hub.evaluate(load(f"'org/rows@{commit}'"), tmp_path / "other home")
        refused(gone, "has no revision")
        assert hub.evaluate(load("'org/rows'"), tmp_path / "home").get()[4] != commit
