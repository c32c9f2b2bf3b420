"""Commands, flags, config files, exit codes and what a person reads, on throw-away recipes."""

import csv
import dataclasses
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Literal

import pytest
from sample_records import classifier_record, phase

from smallmodels import cli, configs, progress, records, text, usage
from smallmodels.energy import EnergyReading
from smallmodels.errors import InputError
from smallmodels.evaluation import Answer
from smallmodels.records import Component

RECIPE = '''
    """Do nothing, carefully, which takes a line of more than eighty columns to say as it should be said.

    Source:    none at all, but this line is longer than eighty columns as well, to see what becomes of it there.
    Run:       smallmodels run toy.py
    """
    import time
    from dataclasses import dataclass, replace
    from pathlib import Path
    from typing import Literal

    from smallmodels import cli, records
    from smallmodels.errors import InputError, RunInterruptedError, TrainingError
    from smallmodels.runs import Run

    @dataclass(frozen=True, kw_only=True)
    class TrainConfig:
        learning_rate: float = 0.1
        """Highest learning rate."""
        max_steps: int | None = None
        """Optimizer steps."""
        format: Literal["a", "b"] = "a"
        """A choice."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        dataset: str = "org/name"
        """Where texts come from."""
        temperature: float = 2.0
        """Softens; > 0."""
        fail: str = ""
        """How to fail."""
        dropout: bool = True
        """A switch."""
        layers: tuple[int, ...] = (0, 2)
        """Which to keep."""
        seed: int = 0
        """Of everything."""
        train: TrainConfig = TrainConfig()
        teacher_train: TrainConfig = TrainConfig(max_steps=3)

        def __post_init__(self) -> None:
            if self.temperature <= 0:
                raise ValueError(f"temperature must be > 0, got {self.temperature}")

    SMOKE = replace(Config(), train=replace(Config().train, max_steps=2))

    class Student:
        def save(self, folder: Path) -> None:
            (folder / "weights.bin").write_bytes(b"w")

    def train(config, context):
        is_slow = config.fail == "slow" and not Path("be-quick").exists()
        if is_slow:
            print("training", flush=True)
        for step in range(500 if is_slow else 1):
            if context.should_stop():
                raise RunInterruptedError("training stopped, has saved its work, and can resume")
            time.sleep(0.02 if is_slow else 0)
        return 1

    def main(config: Config, run: Run) -> None:
        run.phase("train", train, config)
        if config.fail == "training":
            raise TrainingError("the loss must be finite, but is not: lower the learning rate")
        if config.fail == "input":
            raise InputError("the data set should have rows, but is empty: choose another")
        if config.fail == "bug":
            raise KeyError("a bug with hf_abcdefghijklmnopqrstuvwxyz")
        if config.fail == "disk":
            raise OSError(28, "No space left on device")
        if config.fail == "forget":
            return
        quality = {"accuracy": records.Metric(value=0.9, low=0.8, high=0.95, n=10)}
        result = records.Result(role="student", split="test", metrics=quality, per_class=[], agreement=None,
                                calibration_error=None, built_by=["train"], teacher_phases=[])
        run.finish(Student(), title="A toy", task="text-classification", metric="accuracy", results=[result],
                   examples=[{"input": "where is it?", "answers": ["here", {"label": "there", "score": 0.25}]}])

    if __name__ == "__main__":
        cli.run_recipe(main, Config, SMOKE)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """A recipe file in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "toy.py"
    path.write_text(textwrap.dedent(RECIPE))
    return path


def run_toy(capsys, *flags: str, code: int = 0) -> Path:
    """Run the recipe; returns the run folder, which is the last line."""
    assert cli.main(["run", "toy.py", *flags]) == code
    return Path(capsys.readouterr().out.splitlines()[-1])


def refuse(capsys, *arguments: str, code: int = 2) -> str:
    """The one sentence of a refusal; no traceback, nothing on standard output."""
    assert cli.main(list(arguments)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("smallmodels: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("smallmodels: ")


# A run


def test_run_ends_with_its_folder_and_a_complete_record(toy, capsys):
    folder = run_toy(capsys)
    assert folder.parts[:2] == ("runs", "toy")
    assert folder.name.endswith("-s0")
    record = records.read_record(folder)
    assert (record.recipe, record.smoke, record.command) == ("toy", False, "smallmodels run toy")


def test_run_prints_table_summary_and_examples_within_80_columns(toy, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["run", "toy.py"]) == 0
    out = capsys.readouterr().out
    assert "90.0" in out
    assert "where is it?" in out
    assert "→ here" in out
    assert "0.25  there" in out
    assert max(map(len, out.splitlines())) <= 80


def test_run_twice_in_one_second_never_overwrites(toy, capsys):
    assert run_toy(capsys) != run_toy(capsys)


def test_flags_of_every_kind_reach_the_config(toy, capsys):
    folder = run_toy(
        capsys,
        *("--lr", "3e-5", "--temperature=4", "--max-steps", "None", "--format", "b", "--no-dropout", "--seed", "7"),
        *("--layers", "1", "3", "5", "--teacher-train.max-steps", "9", "--teacher_train.learning_rate", "-0.5"),
    )
    config = json.loads((folder / "config.json").read_text())["config"]
    assert config["train"] == {"learning_rate": 3e-5, "max_steps": None, "format": "b"}
    assert config["teacher_train"] == {"learning_rate": -0.5, "max_steps": 9, "format": "a"}
    assert (config["temperature"], config["dropout"], config["layers"], config["seed"]) == (4.0, False, [1, 3, 5], 7)
    assert folder.name.endswith("-s7")


def test_precedence_is_defaults_smoke_config_flags(toy, capsys, tmp_path):
    (tmp_path / "mine.json").write_text('{"temperature": 3.0, "train": {"learning_rate": 0.3}}')
    folder = run_toy(capsys, "--config", "mine.json", "--smoke", "--learning-rate", "0.4")
    record = records.read_record(folder)
    assert record.smoke
    assert record.config["temperature"] == 3.0  # from the file
    assert record.config["train"] == {"learning_rate": 0.4, "max_steps": 2, "format": "a"}  # flag, smoke, default


@pytest.mark.parametrize(
    ("flags", "file", "expected"),
    [
        ({}, {}, "simplified"),
        ({"dataset": "org/other"}, {}, None),
        ({"dataset": "org/other", "dataset_config": "simplified"}, {}, "simplified"),
        ({"dataset": "google-research-datasets/go_emotions@main"}, {}, "simplified"),
        ({}, {"dataset": "own.csv"}, None),
        ({"dataset": "own.csv"}, {"dataset": "org/other", "dataset_config": "some"}, None),
        ({"dataset": "org/other"}, {"dataset": "org/other", "dataset_config": "some"}, "some"),
        ({"dataset_config": "more"}, {"dataset": "org/other", "dataset_config": "some"}, "more"),
    ],
)
def test_default_configuration_goes_with_its_data_set_alone(flags, file, expected):
    recipe = cli.load_recipe("distill_multilabel_classifier")
    changes = {(name,): value for name, value in flags.items()}
    config = cli.resolve_config(recipe, changes, cli.RunOptions(), {"config": file} if file else None)
    assert config.dataset_config == expected


@pytest.mark.parametrize("shipped", [True, False])
def test_config_of_a_run_repeats_it_and_only_a_recipe_of_ones_own_has_to_be_named(toy, capsys, monkeypatch, shipped):
    if shipped:
        monkeypatch.setattr(cli.recipes, "recipe_folders", lambda: [toy.parent])
    first = run_toy(capsys, "--temperature", "5", "--smoke", "--device", "cpu")
    named = [] if shipped else ["toy.py"]
    assert cli.main(["run", *named, "--config", str(first / "config.json")]) == 0
    second = Path(capsys.readouterr().out.splitlines()[-1])
    assert second != first
    one, two = (json.loads((folder / "config.json").read_text()) for folder in (first, second))
    assert one["config"] == two["config"]
    assert (two["smoke"], two["device"]) == (True, "cpu")


def test_country_gives_grams(toy, capsys):
    carbon = records.read_record(run_toy(capsys, "--carbon-intensity", "56")).carbon
    assert carbon.intensity_g_per_kwh == 56
    assert records.read_record(run_toy(capsys)).carbon is None


def test_script_takes_the_same_flags(toy):
    command = [sys.executable, str(toy), "--smoke", "--seed", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert records.read_record(toy.parent / done.stdout.splitlines()[-1]).config["seed"] == 4
    refused = subprocess.run([*command, "--sed", "4"], capture_output=True, text=True, check=False, env=os.environ)
    assert refused.returncode == 2
    assert "did you mean --seed?" in refused.stderr


def test_recipe_loads_and_runs_from_python(toy, tmp_path):
    from smallmodels.runs import Run

    recipe = cli.load_recipe("toy.py")
    with Run(tmp_path / "r", meter="fake") as run:
        recipe.main(recipe.Config(seed=1), run)
    assert records.read_record(tmp_path / "r").config["seed"] == 1


# Help


def test_help_of_a_recipe_shows_docstrings_and_defaults_within_80_columns(toy, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["run", "toy.py", "--help"]) == 0
    out = capsys.readouterr().out
    shown = (
        "Do nothing, carefully,",
        "\n  Run:       smallmodels run toy.py\n",
        "Short: --lr.",
        "--learning-rate",
        "Highest learning rate.",
        "--teacher-train.max-steps",
        "--out",
    )
    for words in shown:
        assert words in out
    assert "--train." not in out
    assert max(map(len, out.splitlines())) <= 80


def test_help_and_list_name_every_command_and_recipe(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"smallmodels {command}" in out for command in cli.COMMANDS)
    assert max(map(len, out.splitlines())) <= 80
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.shipped_recipes())
    assert max(map(len, out.splitlines()), default=0) <= 80


@pytest.mark.parametrize(
    "command",
    [
        "list",
        "check",
        "shrink",
        "sweep",
        "show",
        "compare",
        "report",
        "predict",
        "search",
        "ask",
        "energy",
        "verify",
        "push",
    ],
)
def test_every_command_has_help(command, capsys):
    assert cli.main([command, "--help"]) == 0
    assert f"smallmodels {command}" in capsys.readouterr().out


# Refusals: one sentence, exit 2, nothing left behind


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--temprature", "3"], "--temprature is not a flag of toy: did you mean --temperature?"),
        (["--train.learning-rate", "1"], "did you mean --learning-rate?"),
        (["--zzz"], "`smallmodels run toy --help` lists its flags"),
        (["--lr", "abc"], "--learning-rate should be a number, got abc"),
        (["--lr"], "--learning-rate should be a number, got nothing"),
        (["--seed", "1.5"], "--seed should be a whole number, got 1.5"),
        (["--max-steps", "x"], "--max-steps should be a whole number or none, got x"),
        (["--format", "c"], "--format should be one of a, b, got c"),
        (["--device", "tpu"], "--device should be one of auto, cpu, cuda, mps, got tpu"),
        (["--temperature", "0"], "temperature must be > 0, got 0.0"),
        (["--lr", "nan"], "--learning-rate must be a finite number, got nan"),
        (["--lr", "inf"], "--learning-rate must be a finite number, got inf"),
        (["5"], "'5' stands alone: write a flag before it, such as --seed 1"),
        (["--seed", "1", "2"], "'2' stands alone"),
        (["--country", "XX"], "country must be a three-letter ISO code"),
        (["--country", "FRA", "--carbon-intensity", "50"], "drop one"),
        (["--carbon-intensity", "0.05"], "check the unit"),
        (["--out", "toy.py"], "toy.py is a file, so it cannot hold a run"),
        (["--out", "toy.py/below"], "toy.py is a file, so it cannot hold a run"),
        (["--fork"], "--fork starts from an earlier run: name it with --resume RUN"),
        (["--resume", "nowhere"], "nowhere should be the folder of a run, but has no config.json"),
        (["--config", "nowhere.json"], "the config file nowhere.json cannot be read"),
        (["--fail", "input"], "the data set should have rows, but is empty: choose another"),
    ],
)
def test_bad_flag_is_refused_in_one_sentence_c1_c2_c9(toy, capsys, flags, sentence):
    assert sentence in refuse(capsys, "run", "toy.py", *flags)
    assert [path.name for path in toy.parent.iterdir()] == ["toy.py"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"temprature": 1}', "the config has no key 'temprature': did you mean temperature?"),
        (b'{"train": {"lerning_rate": 1}}', "did you mean train.learning_rate?"),
        (b'{"learning_rate": 1}', "did you mean train.learning_rate?"),
        (b'{"temperature": "hot"}', 'temperature should be a number, found "hot"'),
        (b'{"seed": true}', "seed should be a whole number, found true"),
        (b'{"seed": 1.5}', "seed should be a whole number, found 1.5"),
        (b'{"train": 5}', "train"),
        (b'{"dropout": 1}', "dropout should be true or false, found 1"),
        (b'{"layers": [1, "x"]}', "layers should be a list, each a whole number"),
        (b'{"temperature": NaN}', "numbers must be finite, found NaN"),
        (b'{"temperature": 1e999}', "--temperature must be a finite number"),
        (b'{"temperature": 0}', "temperature must be > 0, got 0.0"),
        (b'{"seed": 1, "seed": 2}', "the key 'seed' stands there twice: keep one"),
        (b'{"train": {"max_steps": 1, "max_steps": 1}}', "the key 'max_steps' stands there twice"),
        (b"[1]", "should hold one JSON object, found list"),
        (b"{", "should be a JSON file, but line 1 is not"),
        (b'{"dataset": "\xff"}', "should be UTF-8 text, but is not"),
        (b"[" * 100_000, "cannot be used"),
        (b'{"recipe": "toy", "config": {}, "device": "tpu"}', "device should be one of auto, cpu, cuda, mps"),
    ],
)
def test_bad_config_file_is_refused_in_one_sentence_c1_c2_c5(toy, capsys, content, sentence):
    (toy.parent / "bad.json").write_bytes(content)
    assert sentence in refuse(capsys, "run", "toy.py", "--config", "bad.json")
    assert not (toy.parent / "runs").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\0" * 50_000_000, "below 1,000,000 bytes"),
        (b"\xff" * 50_000_000, "below 1,000,000 bytes"),
        (b"\xff" * 999_999, "should be UTF-8 text"),
        (b"{%s}" % b",".join(b'"k%d":1' % i for i in range(80_000)), "the config has no key 'k0'"),
        (b'{"seed": %s}' % (b"9" * 900_000), "cannot be used"),
        (b'{"seed": %s}' % (b"9" * 100), "--seed must be a number below 2^63, got one of 100 digits"),
        (b"[" * 999_999, "cannot be used"),
        ("{" + "\u202e" * 9 + "}", "line 1 is not"),
    ],
    ids=["zeros", "bytes", "latin", "keys", "digits", "number", "nested", "marks"],
)
def test_large_and_odd_config_files_are_refused_in_under_a_second_c5(toy, capsys, content, sentence):
    path = toy.parent / "huge.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    cli.main(["run", "toy.py", "--zzz"])  # what is imported once is not what is timed
    capsys.readouterr()
    began = time.process_time()
    assert sentence in refuse(capsys, "run", "toy.py", "--config", "huge.json")
    assert time.process_time() - began < 1


def test_config_that_is_no_file_is_refused_unread_c5(toy, capsys):
    os.mkfifo(toy.parent / "pipe.json")
    for name, sentence in (("pipe.json", "should be a file"), (str(toy.parent), "cannot be read")):
        assert sentence in refuse(capsys, "run", "toy.py", "--config", name)


@pytest.mark.parametrize("name", sorted(cli.shipped_recipes()))
def test_nonsense_in_any_number_of_a_recipe_is_refused_c2(name):
    recipe = cli.load_recipe(name)
    for leaf in configs.leaves(recipe.Config):
        for value in {float: (math.nan, math.inf, -math.inf, -1.0), int: (10**30,)}.get(leaf.kind, ()):
            with pytest.raises(InputError, match=leaf.path[-1].replace("_", "[_-]")):
                cli.resolve_config(recipe, {leaf.path: value}, cli.RunOptions(), None)


@pytest.mark.parametrize(
    ("name", "flags", "sentence"),
    [
        ("distill_text_classifier", ["--temperature", "0"], "temperature must be > 0, got 0.0"),
        ("distill_text_classifier", ["--soft-weight", "2"], "soft_weight must be in [0, 1], got 2.0"),
        ("finetune_text_classifier", ["--lr", "-1"], "learning_rate must be > 0, got -1.0"),
        ("finetune_text_classifier", ["--max-train", "0"], "max_train must be > 0, got 0"),
        ("quickstart", ["--lr", "nan"], "learning_rate must be > 0, got nan"),
    ],
)
def test_nonsense_is_refused_before_anything_is_fetched_c2(tmp_path, monkeypatch, capsys, name, flags, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    assert sentence in refuse(capsys, "run", name, *flags)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rnu"], "there is no command 'rnu': did you mean run?"),
        (["train"], "choose one of list, run"),
        (["run", "nothing.py"], "there is no recipe file nothing.py"),
        (["run", "zzz"], "there is no recipe 'zzz': choose one of"),
        (["run", "--seed", "1"], "name a recipe"),
        (["show", "nowhere"], "nowhere should be a run folder with a record.json, but has none"),
        (["show"], "`smallmodels show` needs RUN as well"),
        (["show", "x", "--jsno"], "--jsno is not a part of `smallmodels show`"),
        (["sweep", "nowhere.py"], "there is no sweep file nowhere.py: check the path"),
        (["sweep", "x", "--olny", "y"], "--olny is not a part of `smallmodels sweep`: did you mean --only?"),
        (["run", "toy.py", "--sweep", "no.json"], "no.json should be the file that a sweep wrote for its runs"),
        (["report", "nowhere", "--out", "x"], "nowhere should be a run folder"),
        (["report", "nowhere", "--otu", "x"], "--out"),
        (["predict", "nowhere", "text"], "nowhere should be the folder of a complete run, but holds no model"),
        (["predict", "nowhere", "no.csv"], "there is no file no.csv"),
        (["predict", "nowhere", " "], "the text to classify should have words, but is empty"),
        (["predict", "x", "y", "--batch-size", "0"], "should be 1 or more, got 0"),
        (["predict", "x", "y", "--output", "z.txt"], "--output should end in .csv or .jsonl, got z.txt"),
        (["search", "nowhere", "question"], "nowhere should be the folder of a complete run, but holds no model"),
        (["search", "nowhere", " "], "the question should have words, but is empty"),
        (["ask", "nowhere", "question"], "nowhere should be the folder of a complete run, but holds no model"),
        (["ask", "nowhere", " "], "the prompt should have words, but is empty"),
    ],
)
def test_bad_command_is_refused_in_one_sentence(toy, capsys, arguments, sentence):
    assert sentence in refuse(capsys, *arguments)


def test_mistyped_recipe_gets_the_nearest_name(capsys, monkeypatch, tmp_path):
    (tmp_path / "quickstart.py").write_text('"""Quick."""\n')
    monkeypatch.setattr(cli.recipes, "recipe_folders", lambda: [tmp_path])
    assert refuse(capsys, "run", "quikstart") == "there is no recipe 'quikstart': did you mean quickstart?"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("def (", "but line 1 is not"), ("x = 1\n", "should define a dataclass Config and a function main")],
)
def test_file_that_is_no_recipe_is_refused(capsys, tmp_path, content, sentence):
    path = tmp_path / "odd.py"
    path.write_text(content)
    assert sentence in refuse(capsys, "run", str(path))


def test_recipe_of_others_is_named_as_code_before_it_runs_s7(toy, capsys):
    toy.write_text('import sys\nprint("it runs", file=sys.stderr)\n' + toy.read_text())
    cli.main(["run", "toy.py", "--zzz"])
    warning, after = capsys.readouterr().err.splitlines()[:2]
    assert "toy.py, which is code: run only recipes that you trust" in warning
    assert after == "it runs"


@pytest.mark.parametrize("where", ["file", "recipe"])
def test_config_file_runs_nothing_s7(toy, capsys, where):
    toy.write_text(f"open({str(toy.parent / 'canary')!r}, 'w')\n" + toy.read_text())
    content = {"recipe": "quickstart", "config": {}} | {where: str(toy)}
    (toy.parent / "config.json").write_text(json.dumps(content))
    sentence = refuse(capsys, "run", "--config", "config.json")
    assert "toy.py, which is code: if you trust it, name that file before --config" in sentence
    assert not (toy.parent / "canary").exists()


def test_run_that_others_may_write_is_not_resumed_and_its_recipe_not_loaded_s12(toy, capsys):
    cli.main(["run", "toy.py", "--fail", "training"])
    folder = only_run(toy.parent)
    (folder / "config.json").chmod(0o666)
    toy.write_text(f"open({str(toy.parent / 'canary')!r}, 'w')\n" + toy.read_text())
    capsys.readouterr()
    for flags in ([], ["--fork"]):
        sentence = refuse(capsys, "run", "--resume", str(folder), *flags, code=3)
        assert "config.json should be yours to write alone, but every user may" in sentence
    assert not (toy.parent / "canary").exists()


def test_recipe_without_finish_is_told(toy, capsys):
    assert "should end with run.finish" in refuse(capsys, "run", "toy.py", "--fail", "forget", code=1)


# Failure and resume


def only_run(folder: Path) -> Path:
    [found] = (folder / "runs" / "toy").iterdir()
    return found


@pytest.mark.parametrize(
    ("how", "code", "sentence"),
    [
        ("training", 1, "the loss must be finite, but is not: lower the learning rate"),
        ("bug", 1, "KeyError: 'a bug with ***' (add --debug to see where)"),
        ("disk", 75, "the disk is full"),
    ],
)
def test_failure_has_its_exit_code_and_says_how_to_go_on_t9_s3(toy, capsys, how, code, sentence):
    assert cli.main(["run", "toy.py", "--fail", how]) == code
    err = capsys.readouterr().err
    assert f"smallmodels: {sentence}" in err
    assert "Traceback" not in err
    folder = only_run(toy.parent).relative_to(toy.parent)
    wanted = f"start anew from it with: smallmodels run --resume {folder} --fork"
    assert (wanted if how == "training" else f"go on with: smallmodels run --resume {folder}\n") in err


def test_debug_shows_the_traceback(toy, capsys):
    assert cli.main(["run", "toy.py", "--fail", "bug", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_resume_refuses_a_changed_config_and_fork_starts_a_new_run_c7(toy, capsys):
    cli.main(["run", "toy.py", "--fail", "training"])
    old = only_run(toy.parent)
    journal = (old / "journal.jsonl").read_bytes()
    capsys.readouterr()
    sentence = refuse(capsys, "run", "--resume", str(old), "--lr", "0.2")
    assert "train.learning_rate was 0.1 and is 0.2" in sentence
    assert (old / "journal.jsonl").read_bytes() == journal  # refused before anything was opened
    assert cli.main(["run", "--resume", str(old), "--fork", "--fail", ""]) == 0
    new = toy.parent / capsys.readouterr().out.splitlines()[-1]
    assert new != old
    assert not (old / "record.json").exists()
    assert records.read_record(new).config["fail"] == ""


@pytest.fixture
def failed(toy, capsys) -> Path:
    """A run that failed and may be gone on with."""
    cli.main(["run", "toy.py", "--fail", "training"])
    capsys.readouterr()
    return only_run(toy.parent)


def edit_config(folder: Path, **changes) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["config"] |= changes
    (folder / "config.json").write_text(json.dumps(content))


def test_c7_resume_refuses_a_config_that_was_edited_and_fork_takes_it(failed, capsys):
    edit_config(failed, temperature=3.0, fail="")
    assert "config.json should hold the config that the run began with" in refuse(
        capsys, "run", "--resume", str(failed)
    )
    assert cli.main(["run", "--resume", str(failed), "--fork"]) == 0
    assert records.read_record(failed.parent / Path(capsys.readouterr().out.splitlines()[-1]).name).smoke is False


def test_c7_resume_refuses_a_recipe_file_that_was_changed_and_fork_takes_it(failed, toy, capsys):
    toy.write_text(toy.read_text() + "\n# another line\n")
    assert "toy.py should be the recipe that this run began with" in refuse(capsys, "run", "--resume", str(failed))
    assert cli.main(["run", "--resume", str(failed), "--fork", "--fail", ""]) == 0


def test_c7_a_flag_with_underscores_is_compared_too(failed, capsys):
    sentence = refuse(capsys, "run", "--resume", str(failed), "--number_format", "fp32")
    assert "the run began with --number-format auto and has to keep it" in sentence


def test_c7_another_recipe_than_the_run_had_is_named(failed, capsys):
    sentence = refuse(capsys, "run", "quickstart", "--resume", str(failed))
    assert "is a run of toy, not of quickstart: leave the name out" in sentence


def test_c7_changed_flags_are_refused_for_a_complete_run_too(toy, capsys):
    folder = run_toy(capsys)
    sentence = refuse(capsys, "run", "--resume", str(folder), "--lr", "0.2")
    assert "train.learning_rate was 0.1 and is 0.2" in sentence


@pytest.mark.parametrize("flags", [["--out", "hf_CANARYabcdefghijkl"], ["--accept-license", "hf_CANARYabcdefghijkl"]])
def test_s3_a_token_in_a_flag_of_the_run_is_refused_before_anything_is_written(toy, capsys, flags):
    sentence = refuse(capsys, "run", "toy.py", *flags)
    assert "must hold no access token" in sentence
    assert "CANARY" not in sentence
    assert sorted(path.name for path in toy.parent.iterdir()) == ["toy.py"]


def test_resume_of_a_complete_run_does_nothing(toy, capsys):
    folder = run_toy(capsys)
    before = (folder / "record.json").read_bytes()
    (folder / ".lock").write_text("{}")  # of a process that was killed between the record and its end
    assert cli.main(["run", "--resume", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "complete" in out
    assert out.splitlines()[-1] == str(folder)
    assert (folder / "record.json").read_bytes() == before
    assert cli.main(["verify", str(folder)]) == 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--out", "x"], "--out has no effect on a run that is resumed"),
        (["--smoke"], "--smoke and the config of an earlier run both set every value"),
        (["--device", "cpu"], "the run began with --device auto and has to keep it"),
        (["--config", "toy.py"], "--resume and --config both name a config"),
    ],
)
def test_flag_that_a_resumed_run_cannot_follow_is_refused(toy, capsys, flags, sentence):
    cli.main(["run", "toy.py", "--fail", "training"])
    capsys.readouterr()
    assert sentence in refuse(capsys, "run", "--resume", str(only_run(toy.parent)), *flags)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)])
def test_signalled_run_exits_75_and_resumes_to_a_record_r2_r3(toy, number):
    command = [sys.executable, "-m", "smallmodels", "run"]
    process = subprocess.Popen(
        [*command, "toy.py", "--fail", "slow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "training\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 75
    assert out == ""
    assert "training stopped, has saved its work, and can resume" in err
    folder = only_run(toy.parent)
    (toy.parent / "be-quick").touch()  # the same run, allowed to end: its config may not change
    assert cli.main(["run", "--resume", str(folder)]) == 0
    record = records.read_record(folder)
    assert record.num_segments == 2
    assert not record.energy_truncated


# Records in the terminal


def test_show_and_report_read_a_run(toy, capsys):
    folder = run_toy(capsys)
    for name in (str(folder), str(folder / "record.json")):
        assert cli.main(["show", name]) == 0
        assert "A toy" in capsys.readouterr().out
    assert cli.main(["report", str(folder), "--out", "pages"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written
    assert all(path.is_file() for path in written)


def test_show_says_what_each_phase_took_within_80_columns(tmp_path, capsys):
    records.write_record(tmp_path, classifier_record())
    assert cli.main(["show", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = lines.index(progress.PHASE_HEAD)
    assert lines[head + 4].split() == [
        "train",
        "1:24",
        "min",
        "~2352.0",
        "J",
        "8.0k",
        "24",
        "%",
        "98",
        "%",
        "1.24",
        "GB",
    ]
    assert max(map(len, lines[head : head + 10])) <= 80


def test_show_of_an_unfinished_run_says_how_to_go_on(toy, capsys):
    cli.main(["run", "toy.py", "--fail", "training"])
    folder = only_run(toy.parent)
    capsys.readouterr()
    assert f"go on with `smallmodels run --resume {folder}`" in refuse(capsys, "show", str(folder))


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"schema_version": 1}', b"\xff\xfe"])
def test_show_of_a_damaged_record_exits_4(toy, capsys, content):
    folder = run_toy(capsys)
    (folder / "record.json").write_bytes(content)
    assert "record.json" in refuse(capsys, "show", str(folder), code=4)


def test_reader_that_goes_away_is_no_error(toy, capsys):
    folder = run_toy(capsys)
    command = f"{sys.executable} -m smallmodels show {folder} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


# Texts in, labels out


def test_texts_are_read_from_every_kind_of_file(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.txt").write_text("one\n\n two \n")
    (tmp_path / "a.csv").write_text('\ufefftext,x\n"one, 1",a\ntwo,b\n', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"sentence": "one"}\n{"sentence": "two"}\n')
    pq.write_table(pa.table({"note": ["one"], "text": ["two"]}), tmp_path / "a.parquet")
    assert usage.read_texts(str(tmp_path / "a.txt")) == ["one", " two "]
    assert usage.read_texts(str(tmp_path / "a.csv")) == ["one, 1", "two"]
    assert usage.read_texts(str(tmp_path / "a.jsonl")) == ["one", "two"]
    assert usage.read_texts(str(tmp_path / "a.parquet")) == ["two"]
    assert usage.read_texts(str(tmp_path / "a.parquet"), "note") == ["one"]
    assert usage.read_texts("just a text about report.csv") == ["just a text about report.csv"]
    assert usage.read_texts("x" * 100_000) == ["x" * 100_000]


def test_megabyte_cell_of_a_csv_is_read_d4(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "x" * 1_000_000 + "\n")
    assert len(usage.read_texts(str(tmp_path / "a.csv"))[0]) == 1_000_000


@pytest.mark.parametrize(
    ("name", "content", "column", "sentence"),
    [
        ("a.csv", "note,x\na,b\n", None, "should have a column called text, but has note, x: set --text-column"),
        ("a.csv", "text\na\n", "txt", "should have a column 'txt', but has text"),
        ("a.csv", "text\n", None, "should hold texts, but holds none"),
        ("a.txt", "\n", None, "should hold texts, but holds none"),
        ("a.jsonl", "[1]\n", None, "should have JSON objects, found int"),
        ("a.jsonl", "{\n", None, "line 1 is not JSON"),
        ("a.jsonl", '{"text": "a"}\n{"text": null}\n', None, "1 are empty (row 2 first)"),
        ("a.csv", "text;x\na;b\n;c\n", None, "1 are empty (row 2 first)"),
        ("a.parquet", "no", None, "should be a Parquet file"),
    ],
)
def test_file_without_texts_is_refused(tmp_path, name, content, column, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as refused:
        usage.read_texts(str(tmp_path / name), column)
    assert sentence in str(refused.value)


def answered(kind, texts, *answers, seconds=None):
    return usage.Answered(kind, texts, [[Answer(*parts) for parts in found] for found in answers], seconds)


def csv_rows(found):
    return list(csv.reader(usage.to_csv(found).splitlines(keepends=True)))


def test_csv_out_is_inert_for_a_spreadsheet_p3():
    both = [("@yes", 0.75), ("no", 0.25)], [("no", 0.9), ("@yes", 0.1)]
    rows = csv_rows(answered("classes", ["=1+1", "a,\n b"], *both))
    assert rows == [["text", "label", "probability"], ["'=1+1", "'@yes", "0.750000"], ["a,\n b", "no", "0.900000"]]


def test_jsonl_out_has_every_probability():
    found = answered("classes", ["é", "b"], [("yes", 0.75), ("no", 0.25)], [("no", 0.9), ("yes", 0.1)])
    rows = [json.loads(line) for line in usage.to_jsonl(found).splitlines()]
    assert rows[0] == {"text": "é", "label": "yes", "probability": 0.75, "probabilities": {"no": 0.25, "yes": 0.75}}


def test_answers_of_other_kinds_have_columns_and_objects_of_their_own(capsys):
    words = answered("words", ["give aspirin", "no"], [("drug", 0.8, "=aspirin")], [])
    assert csv_rows(words) == [["text", "spans"], ["give aspirin", "drug: =aspirin"], ["no", ""]]
    assert json.loads(usage.to_jsonl(words).splitlines()[0]) == {
        "text": "give aspirin",
        "spans": [{"type": "drug", "text": "=aspirin", "probability": 0.8}],
    }
    labels = answered("labels", ["x", "y"], [("joy", 0.7), ("love", 0.6)], [])
    assert csv_rows(labels)[1:] == [["x", "joy; love"], ["y", ""]]
    assert json.loads(usage.to_jsonl(labels).splitlines()[1]) == {"text": "y", "labels": [], "probabilities": {}}
    score = answered("score", ["x"], [("score", 3.25)], seconds=["z"])
    assert csv_rows(score) == [["text", "second", "score"], ["x", "z", "3.250000"]]
    assert json.loads(usage.to_jsonl(score)) == {"text": "x", "second": "z", "score": 3.25}
    usage._print_answers(answered("labels", ["x"], []))
    assert capsys.readouterr().out == "nothing found\n"


def test_cost_sentence_gives_joules_only_for_a_window_that_is_long_enough():
    def reading(duration_s, label="counter"):
        return EnergyReading(duration_s, 1.0, {"cpu": Component(energy_j=20.0, label=label)})

    assert "1,000 take 10.0 J (measured)" in usage.cost_sentence(2000, "text", reading(2.0))
    assert "an estimate, not a measurement" in usage.cost_sentence(2000, "text", reading(2.0, "modelled"))
    assert "too short" in usage.cost_sentence(1, "text", reading(0.01))


# Flags and words


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class Clashing:
    rate: float = 2.0
    train: Inner = Inner()


def test_two_flags_of_one_name_are_a_mistake_in_the_recipe():
    with pytest.raises(AssertionError, match="rate"):
        cli.recipe_leaves(Clashing)


@pytest.mark.parametrize("name", sorted(cli.shipped_recipes()))
def test_every_shipped_recipe_has_a_parser_without_clashes(name, capsys):
    recipe = cli.load_recipe(name)
    leaves = cli.recipe_leaves(recipe.Config)
    assert all(leaf.help for leaf in leaves), [leaf.flag for leaf in leaves if not leaf.help]
    assert not set(cli.SHORT_FLAGS) & {leaf.flag for leaf in leaves}
    assert cli.main(["run", name, "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"--{leaf.flag}" in out for leaf in leaves)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (float, [1, 0.5], [True, "1", None]),
        (int, [1], [1.0, True, "1"]),
        (bool, [True], [1, "true"]),
        (str, ["x"], [1, None]),
        (int | None, [1, None], ["x", 0.5]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0]),
        (tuple[int, ...], [[1, 2], []], [1, ["x"]]),
    ],
)
def test_fits_knows_types(kind, good, bad):
    assert all(configs.fits(kind, value) for value in good)
    assert not any(configs.fits(kind, value) for value in bad)


def test_printable_takes_the_power_from_escape_sequences():
    assert text.printable("a\x1b[2Jb\nc\u202ed\x00") == "a [2Jb c d"
    assert text.shorten("x" * 100, 10) == "x" * 9 + "…"


# Progress


def display(width: int, *, live: bool) -> tuple[progress.Display, "object"]:
    import io

    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=live, width=width, highlight=False, legacy_windows=False)
    reading = EnergyReading(10.0, 10.0, {"cpu": Component(energy_j=44_423.0, label="modelled")})
    return progress.Display(lambda: reading, console=console), buffer


def test_live_bar_fits_80_columns_with_loss_tokens_energy_and_time_left(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    seconds = iter([0.0, 1.0, 400.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds, 400.0))
    shown, buffer = display(80, live=True)
    shown.start("distil")
    shown.update(1, 5000, loss=0.08333, tokens_per_s=12345.0)
    shown.update(3000, 5000, loss=0.08333, tokens_per_s=12345.0)
    line = buffer.getvalue().splitlines()[-1].rpartition("\x1b[2K")[2]
    import re

    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)
    for words in ("distil", "3000/5000", "loss 0.083", "12.3k tokens/s", "~12.34 Wh", "4:26 left"):
        assert words in plain
    assert len(plain) <= 80
    assert "\n" not in plain


def test_plain_lines_come_seldom(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown, buffer = display(200, live=False)
    shown.start("train")
    for step in range(1, 61):
        now[0] = float(step)
        shown.update(step, 60, loss=0.5)
    shown.end(dataclasses.replace(phase("train", 60.0), energy_j=100.0, label="counter", peak_memory_mb=None))
    lines = buffer.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[1] == "train: 30 of 60, loss 0.5, ~12.34 Wh, 30.0 s left"
    assert lines[-2] == progress.PHASE_HEAD
    assert "1:00 min" in lines[-1]
    assert lines[-1].endswith(" 100.0 J")


def test_end_of_a_phase_is_one_line_in_80_columns_with_what_models_did():
    shown, buffer = display(80, live=False)
    work = {"num_tokens": 10_000_000, "num_processed_tokens": 10_010_000, "utilisation": 1.04, "peak_memory_mb": 98_760}
    for name, duration_s, joules, more in (
        ("setup", 1.0, None, {"peak_memory_mb": 840.4}),
        ("label_only_full_cost", 36_123.0, 987_654.0, work),
        ("cache", 59.0, 12.0, {"num_tokens": 590, "num_processed_tokens": 1180}),
    ):
        shown.start(name)
        shown.end(dataclasses.replace(phase(name, duration_s, **more), energy_j=joules))
    shown.kept("train")
    lines = buffer.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines] == [
        ["phase", "time", "energy", "tokens/s", "utilised", "real", "memory"],
        ["✓", "setup", "1.0", "s", "840", "MB"],
        ["✓", "label_only_full_cost", "10:02:03", "h", "~987.7", "kJ", "277", "104", "%", "100", "%", "98.76", "GB"],
        ["✓", "cache", "59.0", "s", "~12.0", "J", "10", "50", "%", "1.24", "GB"],
        ["✓", "train", "kept"],
    ]
    assert {len(line) for line in lines[:-1]} == {80}


# With a real, tiny model


@pytest.fixture(scope="module")
def classifier_run(tiny_model_folder, tmp_path_factory) -> Path:
    """A folder like that of a run, with a classifier that was not trained."""
    from smallmodels import models

    folder = tmp_path_factory.mktemp("classifier")
    model, _, _ = models.load_classifier(str(tiny_model_folder), ["@good", "bad\x1b[2J"])
    model.save(folder / "model")
    return folder


@pytest.fixture(scope="module")
def search_run(tiny_model_folder, tmp_path_factory) -> Path:
    from smallmodels import evaluation, models
    from smallmodels.data.splits import Split

    folder = tmp_path_factory.mktemp("search")
    model, _ = models.load_embedder(str(tiny_model_folder))
    model.save(folder / "model")
    documents = ["read a file", "run a command", "what is my card \x1b[31m number"]
    split = Split("corpus", ["a", "b", "c"], documents)
    evaluation.SearchIndex.build(model, split).save(folder / "index")
    return folder


def test_predict_prints_labels_with_probabilities(classifier_run, capsys):
    assert cli.main(["predict", str(classifier_run), "where is my card"]) == 0
    captured = capsys.readouterr()
    rows = [line.split(maxsplit=1) for line in captured.out.splitlines()]
    assert {label for _, label in rows} == {"@good", "bad [2J"}
    assert sum(float(probability) for probability, _ in rows) == pytest.approx(1.0, abs=0.002)
    assert "1 text took" in captured.err


@pytest.mark.parametrize("batch_size", ["1", "2", "100"])
def test_predict_writes_the_same_labels_in_any_batch(classifier_run, capsys, tmp_path, batch_size):
    texts = tmp_path / "texts.csv"
    texts.write_text('text\nwhere is my card\n"?"\nthe bank lost it\n' + "card " * 5000 + "\n=1+1\n")
    for name in ("out.csv", "out.jsonl"):
        arguments = ["predict", str(classifier_run), str(texts), "--output", str(tmp_path / name)]
        assert cli.main([*arguments, "--batch-size", batch_size]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / name)
    rows = list(csv.DictReader((tmp_path / "out.csv").open(newline="")))
    objects = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(rows) == len(objects) == 5
    assert rows[4]["text"] == "'=1+1"
    assert objects[4]["text"] == "=1+1"
    for row, line in zip(rows, objects, strict=True):
        assert (
            row["label"].removeprefix("'") == line["label"] == max(line["probabilities"], key=line["probabilities"].get)
        )
        assert float(row["probability"]) == pytest.approx(line["probability"], abs=1e-5)
    alone = usage_of(classifier_run, ["where is my card"])
    assert objects[0]["probability"] == pytest.approx(alone, abs=1e-3)


def usage_of(folder: Path, texts: list[str]) -> float:
    """Probability of the best label, straight from the model."""
    from smallmodels import evaluation
    from smallmodels.models import TextModel

    return max(row[0].score for row in evaluation.answer_texts(TextModel.load(folder / "model"), texts))


def test_search_prints_the_nearest_documents(search_run, capsys):
    assert cli.main(["search", str(search_run), "run a command", "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].split(maxsplit=1) == ["1.000", "run a command"]


def test_use_of_the_wrong_kind_of_run_names_the_right_command(classifier_run, search_run, capsys):
    assert f"use `smallmodels search {search_run} QUESTION`" in refuse(capsys, "predict", str(search_run), "text")
    assert f"use `smallmodels predict {classifier_run} TEXT`" in refuse(
        capsys, "search", str(classifier_run), "question"
    )


@pytest.fixture(scope="module")
def language_run(tiny_language_model_folder, tmp_path_factory) -> Path:
    from smallmodels import models

    folder = tmp_path_factory.mktemp("ask")
    models.load_language_model(str(tiny_language_model_folder), max_length=64)[0].save(folder / "model")
    return folder


def test_ask_prints_what_the_model_writes_in_the_form_of_its_training(language_run, capsys):
    from smallmodels import generation, models

    model = models.TextModel.load(language_run / "model")
    words = ["ask", str(language_run), "where is my card", "--max-new-tokens", "8"]
    (expected,) = generation.answer(model, ["where is my card"], template="plain", max_new_tokens=8).texts
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == expected.split()
    assert "1 answer took" in captured.err
    assert "choose --template plain" in refuse(capsys, *words, "--template", "chat")  # it has no chat template
    assert cli.main(words[:3]) == 0  # as much as there is room for
    assert "1 answer took" in capsys.readouterr().err
    written = [(cli.main([*words, "--temperature", "5", "--seed", seed]), capsys.readouterr().out) for seed in "112"]
    assert written[0] == written[1] != written[2]


def test_language_model_is_asked_and_others_are_not(language_run, classifier_run, search_run, capsys):
    for command in ("predict", "search"):
        said = refuse(capsys, command, str(language_run), "text")
        assert f"use `smallmodels ask {language_run} PROMPT`" in said
    assert f"use `smallmodels predict {classifier_run} TEXT`" in refuse(capsys, "ask", str(classifier_run), "text")
    assert f"use `smallmodels search {search_run} QUESTION`" in refuse(capsys, "ask", str(search_run), "text")


def test_an_embedder_without_an_index_is_for_sentence_transformers(search_run, capsys, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(search_run / "model", folder / "model")
    for command in ("predict", "search"):
        assert f'SentenceTransformer("{folder / "model"}")' in refuse(capsys, command, str(folder), "text")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a text", "--second-column", "b"], "--second-column needs a file with columns"),
        (["texts.txt", "--second-column", "b"], "--second-column needs a file with columns"),
        (["pairs.csv", "--second", "x", "--second-column", "b"], "--second or --second-column, not both"),
        (["pairs.csv", "--second-column", "c"], "but has text, b: set --second-column"),
    ],
)
def test_second_texts_come_from_one_place(classifier_run, capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("one\ntwo\n")
    Path("pairs.csv").write_text("text,b\none,two\n")
    assert sentence in refuse(capsys, "predict", str(classifier_run), *arguments)


def test_predict_refuses_to_write_over_its_input(classifier_run, capsys, tmp_path):
    texts = tmp_path / "texts.csv"
    texts.write_text("text\none\n")
    refuse(capsys, "predict", str(classifier_run), str(texts), "--output", str(texts))
    assert texts.read_text() == "text\none\n"
