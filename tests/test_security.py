"""Whole runs with secrets and hostile text in every place, and without a network: nothing leaks, nothing runs."""

import csv
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import no_network
import pytest
import small_data
import yaml
from hostile import Reader
from markdown_it import MarkdownIt

from smallmodels import cli, privacy, records
from smallmodels.errors import InputError

CANARY = "hf_CANARY" + "aB3dE6gH9" * 3
PASSWORD = "open-sesame-and-more"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def run_apart(arguments, folder: Path, **changes: str) -> subprocess.CompletedProcess:
    """`smallmodels` in a fresh process without a network, with secrets in its environment."""
    environment = no_network.environment(folder, os.environ) | {
        "SMALLMODELS_CACHE": str(folder / "cache"),
        "HF_TOKEN": CANARY,
        "MY_SERVICE_PASSWORD": PASSWORD,
        "HF_ENDPOINT": f"https://me:{CANARY}@hub.example",
        "HTTPS_PROXY": f"http://me:{CANARY}@proxy.example:8080",
    }
    command = [sys.executable, "-m", "smallmodels", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment | changes, capture_output=True, text=True, timeout=300, check=False
    )


def places_of(secrets: list[str], folder: Path, *outputs: str) -> list[str]:
    """Files and outputs in which one of the secrets stands, as text or as the bytes of a file."""
    found = [f"output {number}" for number, text in enumerate(outputs) if any(secret in text for secret in secrets)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return found + [str(path) for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]


# What is a secret


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CANARY, "***"),
        ("hf_CANARY", "***"),
        (f"column_{CANARY}", "column_***"),
        ("Bearer sk-ant-api03-Ab9dE7", "Bearer ***"),
        ("ghp_" + "a1" * 18, "***"),
        ("glpat-" + "x" * 20, "***"),
        (f"https://me:{PASSWORD}@host/x", "https://host/x"),
        ("hf-internal-testing/tiny-random-bert", "hf-internal-testing/tiny-random-bert"),
        ("sk-learn-data/hf_datasets.csv", "sk-learn-data/hf_datasets.csv"),
        ("a.task-Specific_name", "a.task-Specific_name"),
    ],
)
def test_s3_secrets_are_told_from_names(text, expected):
    assert privacy.without_secrets(text) == expected
    assert privacy.masked({text: [text, 1]}) == {expected: [expected, 1]}


def test_s3_secrets_of_the_environment_are_known_whatever_they_look_like(monkeypatch):
    monkeypatch.setenv("MY_SERVICE_PASSWORD", PASSWORD)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "not a secret of mine")
    monkeypatch.setenv("SHORT_TOKEN", "word")
    assert privacy.without_secrets(f"{PASSWORD} is not a secret of mine, word") == "*** is not a secret of mine, word"


def test_s3_a_setting_with_a_secret_is_refused_by_name():
    for value in (CANARY, f"https://me:{PASSWORD}@host/data.csv", ["a", {"b": CANARY}]):
        with pytest.raises(InputError, match=r"\Aconfig\.train\.dataset.* must hold no access token") as refused:
            privacy.require_no_secrets({"train": {"dataset": value}}, "config")
        assert CANARY not in str(refused.value)
        assert PASSWORD not in str(refused.value)
    privacy.require_no_secrets({"train": {"dataset": "hf-internal-testing/tiny", "seed": 1, "x": None}}, "config")


LEAKY = '''
    """Put secrets into everything that a run writes, and fail with one."""
    import os
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Config:
        dataset: str = "org/name"
        """Where texts come from."""
        seed: int = 0
        """Of everything."""

    class Student:
        def save(self, folder):
            (folder / "weights.bin").write_bytes(b"w")

    def work(context):
        token = os.environ["HF_TOKEN"]
        context.log({"loss": 1.0, "note": f"from https://me:{token}@host/x"})
        context.event("warning", f"tried {token}", url=f"https://me:{token}@host/x", headers={token: [token]})

    def main(config, run):
        run.phase("train", work)
        token = os.environ["HF_TOKEN"]
        if config.seed == 0:
            from smallmodels import records
            quality = {"accuracy": records.Metric(value=0.9, low=0.8, high=0.95, n=10)}
            row = {"label": f"class {token}", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 10}
            result = records.Result(role="student", split="test", metrics=quality, per_class=[row], agreement=None,
                                    calibration_error=None, built_by=["train"], teacher_phases=[])
            run.finish(Student(), title=f"Of {token}", task="text-classification", metric="accuracy", results=[result],
                       examples=[{"input": token, "answers": [token]}], limits=[f"Not for {token}."],
                       model={token: token})
            return
        try:
            raise OSError(f"GET https://me:{token}@host/x: 401")
        except OSError as error:
            raise RuntimeError(f"no answer for {token}") from error
'''


@pytest.fixture
def leaky(tmp_path, monkeypatch):
    """A recipe file in an empty working folder, with secrets in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    (tmp_path / "leaky.py").write_text(textwrap.dedent(LEAKY))
    return tmp_path / "runs"


def test_s3_what_a_recipe_says_is_written_without_its_secrets(leaky, capsys):
    assert cli.main(["run", "leaky.py"]) == 0
    folder = next((leaky / "leaky").iterdir())
    for command in (["show", str(folder)], ["report", str(folder), "--out", str(leaky / "report")]):
        assert cli.main(command) == 0
    captured = capsys.readouterr()
    assert places_of([CANARY], leaky, captured.out, captured.err) == []
    assert "Of ***" in (folder / "report.html").read_text()
    assert "tried ***" in captured.err


@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_s3_a_run_that_fails_with_a_secret_keeps_it(leaky, capsys, flags):
    assert cli.main(["run", "leaky.py", "--seed", "1", *flags]) == 1
    captured = capsys.readouterr()
    assert places_of([CANARY], leaky, captured.out, captured.err) == []
    assert "RuntimeError: no answer for ***" in captured.err
    assert ("GET https://host/x: 401" in captured.err) == bool(flags)


@pytest.mark.parametrize("value", [CANARY, f"https://me:{PASSWORD}@host/data.csv"])
def test_s3_a_run_with_a_secret_in_its_config_leaves_nothing(leaky, capsys, value):
    (leaky.parent / "mine.json").write_text(json.dumps({"dataset": value}))
    for flags in (["--dataset", value], ["--config", "mine.json"]):
        assert cli.main(["run", "leaky.py", *flags]) == 2
        captured = capsys.readouterr()
        assert "config.dataset must hold no access token or password" in captured.err
        assert not {CANARY, PASSWORD} & set(re.split(r"[/:@\s]", captured.out + captured.err))
        assert not leaky.exists()


# A whole run

HOSTILE_LABELS = [
    f'=HYPERLINK("http://evil.example","{BIDI}bank")',
    "<script>alert(1)</script></script><img src=x onerror=alert(1)>",
    "a | b [x](javascript:alert(1)) ![y](http://evil.example/p.png) `code` <b onmouseover=alert(1)>",
]
HOSTILE_TEXTS = [
    "+1+cmd|' /C calc'!A0 {}",
    '"><svg onload=alert(1)> {} </script><script>alert(1)</script>',
    f"@SUM(1) {{}} [click](javascript:alert(1)) | {BIDI}",
]
FILE_NAME = "=tickets <img src=x onerror=alert(1)> [x](javascript:alert(1)) \u202e.csv"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory, tiny_model_folder):
    """A smoke run on hostile data in a fresh process without a network, with secrets in its environment."""
    folder = tmp_path_factory.mktemp("hostile")
    with (folder / FILE_NAME).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["message", "team"])
        for i, text in enumerate(small_data.texts(120)):
            writer.writerow([HOSTILE_TEXTS[i // 3 % 3].format(text), HOSTILE_LABELS[i % 3]])
    words = [*("run", "distill_text_classifier", "--smoke", "--max-length", "32", "--num-layers", "2")]
    words += ["--dataset", FILE_NAME, "--text-column", "message", "--label-column", "team"]
    done = run_apart([*words, "--teacher", str(tiny_model_folder)], folder)
    assert done.returncode == 0, done.stderr[-3000:]
    run = Path(done.stdout.splitlines()[-1])
    reported = run_apart(["report", str(run), "--out", "report"], folder)
    assert reported.returncode == 0, reported.stderr[-3000:]
    answers = ["predict", str(run), FILE_NAME, "--text-column", "message", "--output", "answers.csv"]
    predicted = run_apart(answers, folder)
    assert predicted.returncode == 0, predicted.stderr[-3000:]
    return folder, folder / run, "".join(d.stdout + d.stderr for d in (done, reported, predicted))


@pytest.mark.faults
def test_s8_a_whole_run_opens_no_connection(hostile_run):
    folder, run, _ = hostile_run
    assert no_network.connections(folder) == ""
    assert {result.role for result in records.read_record(run).results} >= {"teacher", "student", "tfidf"}


@pytest.mark.faults
def test_s8_the_process_without_a_network_has_none(tmp_path):
    (tmp_path / "dial.py").write_text("import socket; socket.create_connection(('127.0.0.1', 9))")
    done = run_apart(["run", "dial.py"], tmp_path)
    assert done.returncode == 1
    assert "this process has no network" in done.stderr
    assert "127.0.0.1" in no_network.connections(tmp_path)


@pytest.mark.faults
def test_s3_no_file_and_no_output_of_a_whole_run_holds_a_secret(hostile_run):
    folder, _, output = hostile_run
    assert places_of([CANARY, PASSWORD], folder, output) == []


@pytest.mark.faults
def test_p1_hostile_data_is_inert_in_the_pages_of_a_whole_run(hostile_run):
    folder, run, _ = hostile_run
    for path in (run / "report.html", *(folder / "report").glob("*.html")):
        page = Reader(path.read_text(encoding="utf-8"))
        assert page.unsafe() == []
        assert not {"img", "iframe", "b"} & set(page.tags)
        assert page.tags["script"] == 1
        assert not set(BIDI) & set(page.text)
        assert "<img src=x onerror=alert(1)>" in page.text  # shown as text, so the attack did arrive
    assert not set(BIDI) & set((run / "model" / "README.md").read_text(encoding="utf-8"))


@pytest.mark.faults
def test_p2_hostile_data_stays_in_its_cells_in_the_markdown_of_a_whole_run(hostile_run):
    folder, run, _ = hostile_run
    parser = MarkdownIt("commonmark").enable("table")
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    assert "script" not in str(yaml.safe_load(front).get("tags"))
    for text in (body, *(path.read_text(encoding="utf-8") for path in (folder / "report").glob("*.md"))):
        page = Reader(parser.render(text))
        own = [value for tag, name, value in page.attributes if name == "src"]
        assert all((folder / "report" / value).is_file() for value in own)
        assert not any("javascript:" in value or "evil" in value for _, _, value in page.attributes)
        assert not {"script", "svg", "b"} & set(page.tags)
        assert "javascript:alert(1)" in page.text
        for table in text.split("\n\n"):
            rows = [line for line in table.splitlines() if line.startswith("|")]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1


@pytest.mark.faults
def test_p3_no_cell_of_a_whole_run_is_a_formula(hostile_run):
    folder, _, _ = hostile_run
    tables = [folder / "answers.csv", *(folder / "report").glob("*.csv")]
    assert len(tables) == 2
    for path in tables:
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert len(cells) > 20
        assert [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@") and not is_number(cell)] == []
    with (folder / "answers.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert {row["label"].removeprefix("'") for row in rows} <= set(HOSTILE_LABELS)


def is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell) is not None
