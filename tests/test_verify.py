"""A run folder is what its record says, to the last byte, or verification fails and names the file."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_records import classifier_record
from transformers import BartConfig, BartForSequenceClassification

from smallmodels import cards, cli, files, finishing, folders, models, records, report, sources, verification
from smallmodels.errors import DamagedError, InputError, PolicyError
from smallmodels.runs import Run


@dataclasses.dataclass(frozen=True)
class Config:
    learning_rate: float = 1  # an integer where the schema says a number, as flags and files can bring it
    steps: tuple[int, ...] = (1, 2)
    seed: int = 3


class Student:
    def save(self, folder: Path) -> None:
        (folder / "weights.bin").write_bytes(bytes(range(256)))
        (folder / "2_Normalize").mkdir()  # empty, as an embedder has one


class Index:
    def save(self, folder: Path) -> None:
        (folder / "documents.json").write_text("{}")


def finish(run: Run, student: models.TextModel | None = None, **changes) -> records.RunRecord:
    """End a run with figures for every part of a page, drawings included."""
    sample = classifier_record()
    about = {name: getattr(sample, name) for name in ("title", "task", "metric", "results", "inference", "curve")}
    predictions = {"id": ["a", "b"], "student/score": np.array([0.5, 0.25])}
    return run.finish(
        student or Student(),
        examples=sample.examples,
        label_names=["no", "yes"],
        predictions=predictions,
        **(about | {"model": {"num_layers": np.int64(3)}} | changes),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A complete run; to be copied before anything is done to it."""
    folder = tmp_path_factory.mktemp("runs") / "a run"
    with Run(folder, meter="fake", carbon_intensity=56) as run:
        run.begin("toy", Config())
        run.phase("train", lambda: {"weights": np.arange(3)})
        run.keep("index", Index())
        run.log({"train/loss": 0.5})
        finish(run)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy", symlinks=True)


def every_file(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refuse(folder: Path) -> str:
    with pytest.raises(DamagedError) as refused:
        verification.verify(folder)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 4
    return str(refused.value)


def flip(path: Path, place: int) -> None:
    """Change one bit, wherever the place is in the file."""
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(content)


def reseal(folder: Path, change: Callable[[dict], object]) -> None:
    """Edit the record as somebody would who knows of its own hash, and leave the other files alone."""
    value = json.loads((folder / "record.json").read_text())
    change(value)
    value["record_sha256"] = None
    value["record_sha256"] = files.sha256_bytes(files.json_bytes(value))
    files.write_json(folder / "record.json", value)
    assert records.is_sealed((folder / "record.json").read_bytes())


# A whole run


def test_whole_run_is_verified_by_the_command_in_one_line(whole, capsys):
    before = {name: (whole / name).stat().st_mtime_ns for name in every_file(whole)}
    assert cli.main(["verify", str(whole)]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 1
    assert f"{whole} is whole" in captured.out
    assert captured.err == ""
    assert {name: (whole / name).stat().st_mtime_ns for name in every_file(whole)} == before


def test_record_lists_every_other_file_of_the_run(whole):
    record = verification.verify(whole)
    assert sorted([*record.files, "record.json"]) == every_file(whole)
    assert "phases/train/result.json" in record.files
    assert {"index/documents.json", "config.json", "journal.jsonl", "metrics.jsonl"} <= set(record.files)


def test_run_that_was_resumed_after_a_kill_is_whole_and_without_leftovers(tmp_path):
    folder = tmp_path / "r"

    def interrupted():
        with Run(folder, meter="fake") as run:
            run.begin("toy", Config())
            run.phase("train", lambda: 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (folder / ".model.4242.tmp").mkdir()
    (folder / ".model.4242.tmp" / "weights.bin").write_bytes(b"half")
    (folder / ".record.json.4242.tmp").write_text("{")
    (folder / "phases" / "train" / ".result.json.4242.tmp").write_text("{")
    (folder / "phases" / "train" / ".value.4242.tmp").mkdir()
    (folder / ".index.old.4242.tmp").mkdir()
    (folder / "notes.4242.tmp").write_text("not ours")
    with Run(folder, meter="fake", resume=True) as run:
        run.begin("toy", Config())
        run.phase("train", pytest.fail)
        run.keep("index", Index())
        finish(run)
    assert "notes.4242.tmp" in verification.verify(folder).files
    assert [path.name for path in folder.rglob("*4242*")] == ["notes.4242.tmp"]


def test_k7_names_like_leftovers_that_no_run_gives_stay(tmp_path):
    folder = tmp_path / "r"
    with Run(folder, meter="fake") as run:
        run.begin("toy", Config())
        run.phase("train", lambda: 1)
        foreign_files = [
            ".notes.17.tmp",
            ".model.17.tmp",  # a file, where we write a folder
            ".result.json.17.tmp",  # of a phase, not of a run
            ".config.json.x.tmp",
            ".record.json.017.tmp",
            "mine/.record.json.17.tmp",
            "phases/train/.record.json.17.tmp",
            "phases/train/mine/.value.17.tmp",
        ]
        foreign_folders = [".record.json.17.tmp", ".mine.18.tmp", "phases/train/.model.18.tmp", ".value.18.tmp"]
        for name in [*foreign_files, *(f"{name}/notes.txt" for name in foreign_folders)]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("mine")
        (tmp_path / "elsewhere").mkdir()
        (folder / ".model.19.tmp").symlink_to(tmp_path / "elsewhere")
        before = {path for path in folder.rglob("*") if "tmp" in path.as_posix().removeprefix(tmp_path.as_posix())}
        finish(run)
    assert [path for path in before if not os.path.lexists(path)] == []


def test_k7_every_name_that_a_run_writes_is_known_to_its_clean_up(whole):
    """Else what a kill leaves of a new file would stay."""
    appended = {"journal.jsonl", "metrics.jsonl"}
    top = {path.name for path in whole.iterdir() if path.is_file()}
    assert top - appended <= finishing._FILES
    phase = {path.name for path in (whole / "phases" / "train").iterdir()}
    assert phase <= finishing._PHASE_FILES | finishing._PHASE_FOLDERS


def test_copy_that_lost_empty_folders_is_whole(folder):
    (folder / "model" / "2_Normalize").rmdir()
    (folder / "new and empty").mkdir()
    verification.verify(folder)


def test_fresh_process_under_other_settings_renders_the_same_card_and_page(whole, tmp_path):
    style = tmp_path / "matplotlibrc"
    style.write_text("grid.linestyle: --\naxes.linewidth: 5\nfont.size: 30\n")
    code = "import sys; from smallmodels import cli; sys.exit(cli.main(sys.argv[1:]) or 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "verify", str(whole)]
    settings = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "COLUMNS": "20", "MATPLOTLIBRC": str(style)}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# S9: any file added, removed, renamed or altered


def test_s9_one_bit_of_any_file_is_found_and_the_file_named(whole, folder):
    for name in every_file(whole):
        size = (whole / name).stat().st_size
        for place in {0, size // 2, size - 1}:
            flip(folder / name, place)
            assert re.search(rf"{re.escape(str(folder / name))}[ :]", refuse(folder)), (name, place)
            shutil.copy2(whole / name, folder / name)
    verification.verify(folder)


def test_s9_any_byte_of_the_record_is_found(whole, folder):
    """Also where the JSON means the same afterwards, such as a blank more or a key of another order."""
    content = (whole / "record.json").read_bytes()
    path = folder / "record.json"
    for altered in (
        content + b"\n",
        content[:-1],
        content.replace(b": 3", b": 3.0", 1),
        content.replace(b"\n  ", b"\n   ", 1),
        content.replace(b'"smoke": false', b'"smoke": true, "smoke": false'),
        b"\xef\xbb\xbf" + content,
        json.dumps(json.loads(content)).encode(),
        files.json_bytes(dict(reversed(json.loads(content).items()))),
    ):
        assert altered != content
        path.write_bytes(altered)
        assert "record.json" in refuse(folder)
    path.write_bytes(content)
    step = len(content) // 59
    for place in range(0, len(content), step):
        flip(path, place)
        assert "record.json" in refuse(folder), place
        path.write_bytes(content)


def test_s9_removed_file_is_named_and_others_counted(whole, folder):
    for name in every_file(whole):
        if name == "record.json":
            continue
        (folder / name).unlink()
        assert f"{folder / name} should be there and is missing:" in refuse(folder)
        shutil.copy2(whole / name, folder / name)
    for name in ("model/weights.bin", "config.json", "predictions.parquet"):
        (folder / name).unlink()
    assert f"{folder / 'config.json'} should be there and is missing (and 2 more files)" in refuse(folder)


@pytest.mark.parametrize(
    "name",
    ["x", ".hidden", "model/extra.json", "phases/train/x", ".x.tmp", ".lock", "new/deep/x", "phases/y/result.json"],
)
def test_s9_added_file_is_named(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    assert f"{folder / name} is there and not in record.json" in refuse(folder)


def test_s9_renamed_file_is_named(folder):
    (folder / "model" / "weights.bin").rename(folder / "model" / "weights.safetensors")
    assert "weights.bin should be there and is missing (and 1 more file)" in refuse(folder)


def test_s9_swapped_files_are_found(folder):
    one, two = folder / "config.json", folder / "metrics.jsonl"
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)
    assert "config.json should have SHA-256" in refuse(folder)


@pytest.mark.parametrize("name", ["config.json", "record.json", "report.html"])
def test_s9_link_to_the_same_bytes_is_no_file_of_the_run(folder, tmp_path, name):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name} should be a file and is a link" in refuse(folder)


def test_s9_links_and_special_files_beside_the_others_are_named(folder, tmp_path):
    for name, make in {
        "dangling": lambda path: path.symlink_to("nowhere"),
        "loop": lambda path: path.symlink_to(folder),
        "away": lambda path: path.symlink_to(tmp_path),
        "fifo": os.mkfifo,
        ".lock": os.mkfifo,
    }.items():
        make(folder / name)
        assert f"{folder / name} is there and not in record.json" in refuse(folder)
        (folder / name).unlink()


def test_s9_record_cannot_send_verification_outside_its_folder(folder, tmp_path):
    (tmp_path / "outside").write_bytes(b"x")
    reseal(folder, lambda value: value["files"].update({"../outside": files.sha256_bytes(b"x")}))
    assert "outside should be there and is missing" in refuse(folder)


def test_file_whose_name_is_no_text_is_listed_and_found(tmp_path):
    folder = tmp_path / "r"
    with Run(folder, meter="fake") as run:
        run.begin("toy", Config())
        Path(os.fsdecode(bytes(folder) + b"/b\xff")).touch()
        finish(run)
    verification.verify(folder)
    Path(os.fsdecode(bytes(folder) + b"/c\xff")).touch()
    assert "c? is there and not in record.json" in refuse(folder)


def test_s9_name_with_control_characters_stays_one_line(folder):
    (folder / "a\nb\x1b[2J").touch()
    assert "a b [2J is there and not in record.json" in refuse(folder)


# Card and page say what the record says


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["results"][1]["metrics"]["accuracy"].update(value=0.99),
        lambda value: value.update(energy_j=1.0),
        lambda value: value["environment"].update(memory_mb=1),
        lambda value: value["sources"].clear() or value.update(margin=0.5),
        lambda value: value["curve"][0].update(step=7),
        lambda value: value.update(label_names=["yes", "no"]),
    ],
    ids=["quality", "energy", "memory", "margin", "curve", "labels"],
)
def test_s9_record_that_was_edited_and_given_its_hash_anew_is_not_what_card_and_page_say(folder, change):
    reseal(folder, change)
    assert "model/README.md does not say what record.json says (and 1 more file)" in refuse(folder)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("report.html", "92.1", "99.1"),
        ("report.html", "<path", "<path class='x'"),
        ("model/README.md", "92.1", "99.1"),
        ("report.html", "</footer>", "</footer><script>alert(1)</script>"),
    ],
)
def test_s9_page_or_card_that_was_edited_and_listed_anew_is_found(folder, name, before, after):
    text = (folder / name).read_text()
    assert before in text
    (folder / name).write_text(text.replace(before, after, 1))
    reseal(folder, lambda value: value["files"].update({name: files.sha256_file(folder / name)}))
    assert f"{name} does not say what record.json says:" in refuse(folder)


@pytest.mark.parametrize("name", ["report.html", "model/README.md"])
def test_s9_run_without_card_or_page_is_not_whole(folder, name):
    (folder / name).unlink()
    reseal(folder, lambda value: value["files"].pop(name))
    assert f"{name} should be there and listed in record.json" in refuse(folder)


def test_card_and_page_by_another_version_are_held_to_the_hash_of_what_the_record_says(folder):
    """Another version says the same in other words; that it speaks of this record shows in the hash that it carries."""
    record = records.read_record(folder)
    digest = records.statement_sha256(record)
    for name in ("report.html", "model/README.md"):
        (folder / name).write_text(f"In other words, of the record {digest}.")
        reseal(folder, lambda value, name=name: value["files"].update({name: files.sha256_file(folder / name)}))
    verification.verify(folder)
    reseal(folder, lambda value: value.update(energy_j=1.0))
    assert "does not say what record.json says" in refuse(folder)


def test_run_of_a_version_whose_records_had_fewer_fields_is_verified(folder):
    record = json.loads((folder / "record.json").read_text())
    digest = records.statement_sha256(records.read_record(folder))
    for phase in record["phases"]:
        del phase["tokens_per_s"], phase["real_token_fraction"]
    before = records.written_statement_sha256(record)
    for name in ("report.html", "model/README.md"):
        text = (folder / name).read_text().replace(digest, before)
        (folder / name).write_text(text.replace(report.writer(), "smallmodels 0.0.1 (0123456789ab)"))
        record["files"][name] = files.sha256_file(folder / name)
    reseal(folder, lambda value: value.update(record))
    verification.verify(folder)
    reseal(folder, lambda value: value.update(energy_j=1.0))
    assert "does not say what record.json says" in refuse(folder)


def test_s9_success_says_that_card_and_page_by_another_version_were_not_compared(folder, capsys):
    page = folder / "report.html"
    text = page.read_text()
    assert report.writer() in text
    page.write_text(text.replace(report.writer(), "smallmodels 0.0.1 (0123456789ab)"))
    reseal(folder, lambda value: value["files"].update({"report.html": files.sha256_file(page)}))
    assert cli.main(["verify", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "written by another version, so what they say was not compared" in said
    assert "and what card and page say" not in said
    assert said.count("\n") == 1


# Weights


def tiny_classifier(folder: Path) -> models.TextModel:
    return models.load_classifier(str(folder), ["no", "yes"], max_length=32)[0]


def tiny_embedder(folder: Path) -> models.TextModel:
    return models.load_embedder(str(folder), max_length=32)[0]


def half(folder: Path) -> models.TextModel:
    model = tiny_classifier(folder)
    model.model.to(torch.bfloat16)
    return model


def run_of(student: models.TextModel, folder: Path) -> Path:
    with Run(folder, meter="fake") as run:
        run.begin("toy", Config())
        finish(run, student=student, model={"weights_sha256": student.weights_sha256()})
    return folder


@pytest.mark.parametrize("make", [tiny_classifier, tiny_embedder, half])
def test_s9_weights_that_were_altered_and_listed_anew_are_not_those_of_the_record(
    tiny_model_folder, tmp_path, monkeypatch, make
):
    folder = run_of(make(tiny_model_folder), tmp_path / "r")
    with monkeypatch.context() as patched:
        patched.setattr(models.TextModel, "load", pytest.fail)  # the files alone tell
        verification.verify(folder)
    name = "model/model.safetensors"
    flip(folder / name, -1)
    reseal(folder, lambda value: value["files"].update({name: files.sha256_file(folder / name)}))
    assert re.search(
        r"model\.safetensors should hold the weights with SHA-256 \w{12}…, and holds others", refuse(folder)
    )
    (folder / name).write_bytes(b"no weights")
    reseal(folder, lambda value: value["files"].update({name: files.sha256_file(folder / name)}))
    assert "and holds others" in refuse(folder)
    (folder / name).unlink()
    reseal(folder, lambda value: value["files"].pop(name))
    assert "model should hold the weights that record.json names" in refuse(folder)


def test_weights_that_are_tied_are_compared_as_the_model_loads_them(tiny_model_folder, tmp_path):
    base = tiny_classifier(tiny_model_folder)
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = BartConfig(vocab_size=len(base.tokenizer), num_labels=3, **sizes, **heads)
    student = models.TextModel(BartForSequenceClassification(config).eval(), base.tokenizer)
    folder = run_of(student, tmp_path / "r")
    paths = [folder / "model" / "model.safetensors"]
    assert sources.weights_sha256(paths) != student.weights_sha256()
    verification.verify(folder)
    flip(paths[0], -1)
    digest = files.sha256_file(paths[0])
    reseal(folder, lambda value: value["files"].update({"model/model.safetensors": digest}))
    assert "and holds others" in refuse(folder)


def test_s9_words_and_drawings_of_a_page_are_compared_alike(folder):
    page = folder / "report.html"
    text = page.read_text()
    for before, after in (
        ('class="hit" cx="', 'class="hit" cx="1'),
        ('aria-label="Accuracy', 'aria-label="Inaccuracy'),
    ):
        page.write_text(text.replace(before, after, 1))
        assert page.read_text() != text
        reseal(folder, lambda value: value["files"].update({"report.html": files.sha256_file(page)}))
        assert "report.html does not say what record.json says" in refuse(folder)


def test_record_survives_the_round_trip_exactly(whole):
    record = records.read_record(whole)
    assert records.as_read(record) == record
    assert records.sealed(record) == record
    assert record.config["learning_rate"] == 1
    assert cards.model_card(records.statement(record)) == (whole / "model" / "README.md").read_text()
    assert report.run_page(records.statement(record)) == (whole / "report.html").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("report", "{run}", "--out", "{run}"),
        ("report", "{run}", "--out", "{run}/new/deep"),
        ("predict", "{run}", "a text", "--output", "{run}/model/answers.csv"),
        ("run", "quickstart", "--out", "{run}"),
    ],
)
def test_commands_write_nothing_into_a_complete_run(folder, capsys, words):
    assert cli.main([word.format(run=folder) for word in words]) == 2
    assert "lies in a complete run, where nothing may change: choose another with --out" in capsys.readouterr().err
    verification.verify(folder)


# What cannot be verified


def test_unfinished_run_says_how_to_go_on(folder, capsys):
    for name in ("record.json", "report.html", "model/README.md"):
        (folder / name).unlink()
    assert cli.main(["verify", str(folder)]) == 2
    assert f"is not complete: go on with `smallmodels run --resume {folder}`" in capsys.readouterr().err


@pytest.mark.parametrize("gone", ["", "report.html", "model/README.md", "config.json"])
def test_s9_record_that_was_removed_or_renamed_is_missed(folder, capsys, gone):
    if gone:
        (folder / gone).unlink()
    (folder / "record.json").rename(folder / "record.bak")
    assert cli.main(["verify", str(folder)]) == 4
    said = capsys.readouterr().err
    assert f"{folder / 'record.json'} is missing" in said
    assert said.count("\n") == 1


def test_s9_record_of_a_published_model_is_missed(folder, tmp_path):
    copy = shutil.copytree(folder / "model", tmp_path / "published")
    shutil.copy(folder / "report.html", copy)
    assert "record.json is missing" in refuse(copy)


def test_folder_of_a_report_is_no_run(tmp_path):
    (tmp_path / "report.html").touch()
    with pytest.raises(InputError, match="should be a run folder"):
        verification.verify(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_folder_without_a_run_is_bad_input(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="should be a run folder"):
        verification.verify(tmp_path / name)


def test_record_alone_says_nothing_of_the_files(folder):
    with pytest.raises(InputError, match="a record alone"):
        verification.verify(folder / "record.json")


def test_record_of_an_older_version_loads_and_cannot_be_verified(folder):
    value = json.loads((folder / "record.json").read_text())
    for name in ("label_names", "published_as", "record_sha256"):
        del value[name]
    files.write_json(folder / "record.json", value)
    assert records.read_record(folder).record_sha256 is None
    assert "record.json should carry its own SHA-256 and has none" in refuse(folder)


@pytest.mark.parametrize("folder_name", ["quickstart", "distill_text_classifier"])
def test_records_that_are_kept_still_load(folder_name):
    kept = Path(__file__).parents[1] / "benchmarks" / "results" / folder_name
    assert records.read_record(kept).files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"schema_version": 2}', "should have schema version 1, found 2"),
        (b"", "should be a readable JSON file"),
        (b"[" * 100_000, "should be a readable JSON file"),
        (b"\xff", "should be a readable JSON file"),
        (b"[]", "should have schema version 1, found None"),
    ],
)
def test_record_that_cannot_be_read_is_one_sentence(folder, content, words):
    (folder / "record.json").write_bytes(content)
    assert words in refuse(folder)


def test_run_that_is_in_use_is_refused(folder):
    lock = folders.FolderLock(folder)
    lock.acquire()
    try:
        with pytest.raises(PolicyError, match=f"in use by process {os.getpid()}"):
            verification.verify(folder)
    finally:
        lock.release()
    verification.verify(folder)


def test_lock_that_a_killed_process_left_is_named_as_such(folder):
    (folder / ".lock").write_text('{"pid": 1, "host": "x"}')
    assert "left by a process that was killed: it can be removed" in refuse(folder)
