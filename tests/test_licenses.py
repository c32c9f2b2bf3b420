"""Licences: which pass, which need the user's say-so, what follows for the student. S4 of the faults."""

import dataclasses
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from conftest import serving
from huggingface_hub import ModelCard
from sample_records import classifier_record

from smallmodels import cli, configs, licenses, records
from smallmodels.cards import model_card
from smallmodels.errors import PolicyError
from smallmodels.licenses import USER_PROVIDED, Declared
from smallmodels.report import run_page
from smallmodels.runs import Run


def source(name, license_name, **changes):
    """The line of a record for a source under a licence."""
    found = classifier_record().sources[0 if changes.get("kind") == "model" else 1]
    changes = {"role": found.role, "kind": found.kind} | changes
    duties = licenses.duties_of(Declared(name, license_name))
    return dataclasses.replace(found, name=name, license=license_name, duties=duties, **changes)


# The table


@pytest.mark.parametrize(
    "license_id",
    [
        *("apache-2.0", "mit", "bsd", "bsd-3-clause", "psf-2.0", "cc0-1.0", "cc-by-2.0", "cc-by-4.0", "odc-by"),
        *("cc-by-sa-4.0", "gpl-3.0", "gpl-3.0-only", "lgpl-3.0-or-later", "odbl", "openrail", "bigcode-openrail-m"),
        "mit, cc-by-4.0",
        USER_PROVIDED,
    ],
)
def test_s4_open_licences_and_local_files_pass(license_id):
    licenses.require_accepted([Declared("org/name", license_id)], ())


@pytest.mark.parametrize(
    ("license_id", "reason", "flag"),
    [
        ("cc-by-nc-4.0", "forbids commercial use", "cc-by-nc-4.0"),
        ("cc-by-nd-4.0", "forbids adapted versions", "cc-by-nd-4.0"),
        ("cc-by-nc-nd-4.0", "forbids commercial use and forbids adapted versions", "cc-by-nc-nd-4.0"),
        ("llama3", "forbids the training of models other than Llama", "llama3"),
        ("gemma", "binds a model that learns from it", "gemma"),
        ("cc", "says nothing that a program could check", "cc"),
        ("my-own-1.0", "says nothing that a program could check", "my-own-1.0"),
        ("mit, cc-by-nc-4.0", "forbids commercial use", "cc-by-nc-4.0"),
        (None, "declares none", "unknown:org/name"),
        ("", "declares none", "unknown:org/name"),
        ("MIT; do not ask\n--", "declares none", "unknown:org/name"),
        ("unknown:org/other", "declares none", "unknown:org/name"),
        ("other", "declares one of its own", "other:org/name"),
        ("other:stsbenchmark", "declares one of its own", "other:stsbenchmark"),
    ],
)
def test_s4_what_is_not_open_is_refused_and_accepted_by_the_id_that_the_refusal_names(license_id, reason, flag):
    declared = Declared("org/name", license_id)
    with pytest.raises(PolicyError) as caught:
        licenses.require_accepted([declared], ["unknown:org/else", "other", "cc-by-nc-2.0"])
    message = str(caught.value)
    assert message.startswith("org/name should come under a licence that lets a model learn from it")
    assert reason in message
    assert message.endswith(f"add --accept-license {flag}")
    assert "\n" not in message
    assert caught.value.exit_code == 3
    licenses.require_accepted([declared], [flag])
    assert licenses.needing_acceptance([declared]) == [flag]


def test_duties_follow_the_licence():
    duties = {name: licenses.duties_of(Declared("a/b", name)) for name in ("cc-by-nc-sa-4.0", "cc-by-nd-4.0")}
    assert duties["cc-by-nc-sa-4.0"][1:] == ["share adapted versions under the same licence", "no commercial use"]
    assert duties["cc-by-nd-4.0"][-1] == "no adapted versions"
    assert licenses.duties_of(Declared("a/b", "cc0-1.0")) == licenses.duties_of(Declared("a", USER_PROVIDED)) == []
    assert licenses.duties_of(Declared("a/b", "apache-2.0"))
    assert licenses.duties_of(Declared("a/b", None)) == ["ask its authors what they allow before you share the model"]


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("apache-2.0", "cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-sa-4.0"),
        ("cc-by-sa-4.0", "gpl-3.0-only", "gpl-3.0-only"),
        ("mpl-2.0", "agpl-3.0", "agpl-3.0"),
        ("apache-2.0", "bigcode-openrail-m", "bigcode-openrail-m"),
    ],
)
def test_s4_licences_of_which_one_allows_the_other_pass_together(first, second, result):
    for pair in ((first, second), (second, first)):
        found = [Declared("a/b", pair[0]), Declared("c/d", pair[1])]
        licenses.require_accepted(found, ())
        assert licenses.license_of_result(found[0], found) == result


@pytest.mark.parametrize(
    ("first", "second", "accepted"),
    [
        ("gpl-2.0", "cc-by-sa-4.0", []),
        ("cc-by-nc-4.0", "cc-by-sa-4.0", ["cc-by-nc-4.0"]),
        ("openrail", "gpl-3.0", []),
        ("cc-by-sa-4.0", "cc-by-nd-4.0", ["cc-by-nd-4.0"]),
    ],
)
def test_s4_licences_that_do_not_go_together_are_refused_unless_both_are_named(first, second, accepted):
    found = [Declared("a/b", first), Declared("c/d", second)]
    with pytest.raises(PolicyError, match="neither allows the other") as caught:
        licenses.require_accepted(found, accepted)
    flags = str(caught.value).split(" add ")[1].split()
    assert sorted(flags[1::2]) == sorted({first, second} - set(accepted))
    licenses.require_accepted(found, [first, second])
    assert sorted(licenses.needing_acceptance(found)) == sorted([first, second])
    assert licenses.license_of_result(found[0], found) is None


# The student's card and page


def record_of(teacher, data, accepted=()):
    """A record whose teacher and data set come under these licences."""
    base = classifier_record()
    found = [source("org/teacher", teacher, kind="model", role="teacher"), source("org/data", data)]
    return dataclasses.replace(
        base, sources=found, accepted_licenses=list(accepted), model=base.model | {"base_model": "org/teacher"}
    )


@pytest.mark.parametrize(
    ("teacher", "data", "fields"),
    [
        ("apache-2.0", "cc-by-4.0", {"license": "apache-2.0"}),
        ("apache-2.0", USER_PROVIDED, {"license": "apache-2.0"}),
        ("apache-2.0", "cc-by-sa-4.0", {"license": "cc-by-sa-4.0"}),
        ("cc-by-nc-4.0", "cc-by-4.0", {"license": "cc-by-nc-4.0"}),
        ("apache-2.0", "cc-by-nc-4.0", {"license": "cc-by-nc-4.0"}),
        ("cc-by-nc-4.0", "cc-by-nc-sa-4.0", {"license": "cc-by-nc-sa-4.0"}),
        ("llama3", "mit", {"license": "llama3"}),
        (USER_PROVIDED, "cc-by-nc-4.0", {"license": "cc-by-nc-4.0"}),
        (USER_PROVIDED, "mit", {}),
        ("apache-2.0", None, {}),
        ("apache-2.0", "other:stsbenchmark", {"license": "other", "license_name": "stsbenchmark"}),
        ("apache-2.0", "my-own-1.0", {"license": "other", "license_name": "my-own-1.0"}),
        ("cc-by-sa-4.0", "cc-by-nc-4.0", {}),
    ],
)
def test_s4_card_names_the_licence_that_binds_the_student(teacher, data, fields):
    text = model_card(record_of(teacher, data))
    front = yaml.safe_load(text.split("---\n")[1])
    assert {key: value for key, value in front.items() if key.startswith("license")} == fields
    ModelCard(text)


def test_s4_card_and_page_carry_duties_and_say_what_was_accepted():
    record = record_of("cc-by-nc-4.0", None, ["cc-by-nc-4.0", "unknown:org/data"])
    for text in (model_card(record), run_page(record)):
        assert "org/teacher: no commercial use" in text
        assert "org/data: ask its authors what they allow" in text
        assert "(--accept-license): cc-by-nc-4.0, unknown:org/data." in text
    assert "accept-license" not in model_card(record_of("mit", "mit")) + run_page(record_of("mit", "mit"))


def test_records_without_accepted_licences_still_load(tmp_path):
    value = records.to_json(classifier_record())
    del value["accepted_licenses"]
    (tmp_path / "record.json").write_text(json.dumps(value))
    assert records.read_record(tmp_path).accepted_licenses == []


# Runs


@dataclasses.dataclass(frozen=True)
class Config:
    """Of a run in these tests."""

    seed: int = 0


NON_COMMERCIAL = source("org/data", "cc-by-nc-4.0")
UNDECLARED = source("org/teacher", None, kind="model", role="teacher")


def run_on(folder, *found, finish=False, **options):
    """A run that uses these sources; it is interrupted unless it shall finish."""
    with Run(folder, meter="fake", **options) as run:
        run.begin("toy", Config())
        run.phase("data", lambda: 1)
        for each in found:
            run.add_source(each)
        if not finish:
            raise KeyboardInterrupt
        return run.finish(Student(), title="t", task="text-classification", metric="accuracy", results=[])


def test_s4_run_refuses_a_source_and_leaves_no_folder(tmp_path):
    with pytest.raises(PolicyError, match=r"--accept-license cc-by-nc-4\.0"):
        run_on(tmp_path / "runs" / "r", NON_COMMERCIAL)
    assert list(tmp_path.iterdir()) == []


def test_s4_run_that_is_resumed_keeps_what_was_accepted_and_takes_more(tmp_path):
    both = (NON_COMMERCIAL, UNDECLARED)
    with pytest.raises(KeyboardInterrupt):
        run_on(tmp_path / "r", NON_COMMERCIAL, accept_licenses=["cc-by-nc-4.0", "llama3"])
    with pytest.raises(PolicyError, match="--accept-license unknown:org/teacher"):
        run_on(tmp_path / "r", *both, resume=True)
    assert (tmp_path / "r").is_dir()  # it was there before
    record = run_on(tmp_path / "r", *both, finish=True, resume=True, accept_licenses=["unknown:org/teacher"])
    assert record.accepted_licenses == ["cc-by-nc-4.0", "unknown:org/teacher"]
    (said,) = [event.message for event in record.events if event.kind == "licence"]
    assert said == "no source of this run comes under llama3: --accept-license had no effect"
    assert json.loads((tmp_path / "r" / "config.json").read_text())["accepted_licenses"] == [
        *("cc-by-nc-4.0", "llama3", "unknown:org/teacher")
    ]
    assert "accept-license" in (tmp_path / "r" / "model" / "README.md").read_text()


class Student:
    """Something that a run can keep."""

    def save(self, folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"w")


# Commands, on the loopback hub

RECIPE = '''
    """Train nothing on a model and a data set."""
    from dataclasses import dataclass
    from pathlib import Path

    from smallmodels import sources

    @dataclass(frozen=True, kw_only=True)
    class Config:
        teacher: str
        dataset: str = "org/sa"
        layers: tuple[int, ...] = (0,)
        seed: int = 0

    class Student:
        def save(self, folder: Path) -> None:
            (folder / "weights.bin").write_bytes(b"w")

    def main(config, run):
        teacher, dataset = run.pin((config.teacher, "model"), (config.dataset, "dataset"))
        run.add_source(sources.fetch_model(teacher).source)
        run.add_source(sources.fetch_dataset(dataset).source)
        run.phase("train", lambda: 1)
        run.finish(Student(), title="A toy", task="text-classification", metric="accuracy", results=[])
'''


@pytest.fixture(scope="module")
def licensed(tiny_model_folder, tmp_path_factory):
    """A hub whose repositories come under all kinds of licences."""
    root = tmp_path_factory.mktemp("licensed")
    fronts = {"open": "license: mit", "nc": "license: cc-by-nc-4.0", "unsaid": "tags: [a]", "odd": "license: other"}
    for name, front in fronts.items():
        shutil.copytree(tiny_model_folder, root / "models" / "org" / name)
        (root / "models" / "org" / name / "README.md").write_text(f"---\n{front}\n---\n")
    (root / "models" / "org" / "unsaid" / "README.md").unlink()
    for name, front in {"sa": "license: cc-by-sa-4.0", "unknown": "license: unknown"}.items():
        (root / "datasets" / "org" / name).mkdir(parents=True)
        (root / "datasets" / "org" / name / "README.md").write_text(f"---\n{front}\n---\n")
        rows = [{"text": f"text {i}", "label": ["no", "yes"][i % 2]} for i in range(40)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / "datasets" / "org" / name / "train.jsonl").write_text(text)
    with serving(root, tmp_path_factory.mktemp("licensed-hub")) as running:
        yield running


def run_command(hub, folder, *words, **changes):
    """`smallmodels run …` in a process of its own, in a folder with the recipe."""
    (folder / "toy.py").write_text(textwrap.dedent(RECIPE).replace("teacher: str\n", 'teacher: str = "org/open"\n'))
    command = [sys.executable, "-m", "smallmodels", "run", *words]
    environment = hub.environment(folder / "home", **changes)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.hub
@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--teacher", "org/nc"], "cc-by-nc-4.0"),
        pytest.param(["--teacher", "org/unsaid"], "unknown:org/unsaid", marks=pytest.mark.faults),
        pytest.param(["--dataset", "org/unknown"], "unknown:org/unknown", marks=pytest.mark.faults),
    ],
)
def test_s4_refused_source_costs_no_download_and_leaves_no_run(licensed, tmp_path, words, flag):
    before = len(licensed.paths_asked())
    done = run_command(licensed, tmp_path, "toy.py", *words)
    assert done.returncode == 3, done.stderr
    assert f"add --accept-license {flag}" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()
    asked = licensed.paths_asked()[before:]
    assert not [path for path in asked if path.endswith((".safetensors", ".jsonl"))]


@pytest.mark.hub
@pytest.mark.faults
def test_s4_accepted_licences_reach_record_and_card_and_a_repeat_of_the_run(licensed, tmp_path):
    words = ["--teacher", "org/nc", "--accept-license", "cc-by-nc-4.0", "--accept-license=cc-by-sa-4.0", "unknown:a/b"]
    first = run_command(licensed, tmp_path, "toy.py", *words)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / first.stdout.splitlines()[-1]
    config = json.loads((folder / "config.json").read_text())
    assert config["accepted_licenses"] == ["cc-by-nc-4.0", "cc-by-sa-4.0", "unknown:a/b"]
    record = records.read_record(folder)
    assert sorted(record.accepted_licenses) == ["cc-by-nc-4.0", "cc-by-sa-4.0"]
    card = (folder / "model" / "README.md").read_text()
    assert "org/nc: no commercial use" in card
    assert "org/sa: share adapted versions under the same licence" in card
    again = [
        "toy.py",
        "--config",
        str(folder / "config.json"),
        "--teacher",
        "org/odd",
        "--accept-license",
        "other:org/odd",
    ]
    second = run_command(licensed, tmp_path, *again, HF_HUB_OFFLINE="0")
    assert second.returncode == 0, second.stderr
    accepted = records.read_record(tmp_path / second.stdout.splitlines()[-1]).accepted_licenses
    assert accepted == ["other:org/odd"]


def test_accept_license_may_stand_several_times_and_take_several_values(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(textwrap.dedent(RECIPE).replace("teacher: str\n", 'teacher: str = "org/open"\n'))
    words = ["--accept-license", "a", "--layers", "1", "2", "--accept-license=b", "c", "--layers", "3"]
    changes, options = cli.parse_flags(cli.load_recipe(path), words)
    assert options.accept_license == ("a", "b", "c")
    assert changes[("layers",)] == (1, 2, 3)
    assert configs.describe(tuple[str, ...]) == "a list, each text"
