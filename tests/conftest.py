"""Shared by all tests: no network, caches of their own, a tiny random model, and the loopback hub where it is."""

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest_plugins = ["faults_report"]

# Read when huggingface_hub is imported, so set before any test module is.
_HOME = tempfile.TemporaryDirectory(prefix="smallmodels-tests-")
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": f"{_HOME.name}/hf",
    "SMALLMODELS_CACHE": f"{_HOME.name}/smallmodels",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
os.environ.pop("HF_ENDPOINT", None)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing by threads, which also spin beside each other


LONGEST_FIRST = (
    *("test_training", "test_cli", "test_recipes", "test_teacher_cache", "test_narrowing", "test_encoder_recipes"),
    *("test_language_model_recipes", "test_runs", "test_hub_faults", "test_sweeps", "test_completions"),
    *("test_students", "test_report", "test_kill_and_resume", "test_limits", "test_eval"),
)
"""Files that take longest: begun first, so that no process is left with one of them when the others have ended."""


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # modules stay for good; looking through them at every collection took a tenth of the time


def pytest_unconfigure():
    _HOME.cleanup()


# The loopback hub


@dataclass
class Outcome:
    """What a process that used the hub ended with: a value, or an error of ours."""

    value: object
    error: str
    message: str
    exit_code: int
    output: str

    def get(self) -> object:
        """The value, of a process that must not have failed."""
        assert not self.error, f"{self.error}: {self.message}"
        return self.value


@dataclass
class Hub:
    """A running server and the processes that talk to it."""

    url: str
    log: Path
    process: subprocess.Popen

    def set_faults(self, **faults) -> None:
        """Replace all faults; none ends them."""
        body = json.dumps(faults).encode()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self.url}/_faults", body) as answer:
            assert answer.status == 200

    def paths_asked(self) -> list[str]:
        """Path of every request so far."""
        return [json.loads(line)["path"] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def environment(self, home: Path, **changes: str) -> dict[str, str]:
        """Environment of a process whose clients use this hub and an HF_HOME of their own."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        names = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONWARNINGS": "ignore"}
        names |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "SMALLMODELS_CACHE": str(home / "smallmodels")}
        return clean | names | changes

    def evaluate(self, expression: str, home: Path, *, before: str = "", **changes: str) -> Outcome:
        """Evaluate an expression over `data` and `sources` in a fresh process; its value must be JSON-able."""
        done = subprocess.run(
            [sys.executable, "-c", _EVALUATE, before, expression],
            env=self.environment(home, **changes),
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return Outcome(**json.loads(done.stdout.splitlines()[-1]), output=done.stdout + done.stderr)


_EVALUATE = """
import json, sys
from smallmodels import data, sources
from smallmodels.errors import SmallmodelsError
answer = {"value": None, "error": "", "message": "", "exit_code": 0}
exec(sys.argv[1])
try:
    answer["value"] = eval(sys.argv[2])
except SmallmodelsError as error:
    answer |= {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
print(json.dumps(answer))
"""


def _shared_folder() -> Path | None:
    """The folder that holds `hub/` and `mirror/`: named by the environment, or beside the clone."""
    named = os.environ.get("SMALLMODELS_TEST_HUB")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if (folder / "hub" / "serve.py").is_file() else None


@contextlib.contextmanager
def serving(root: Path, scratch: Path, *options: str) -> Iterator[Hub]:
    """Serve a folder of models and data sets until the block ends; options are those of the server's command line."""
    shared = _shared_folder()
    if shared is None:
        pytest.skip("no loopback hub: no hub/serve.py in ../shared or in $SMALLMODELS_TEST_HUB")
    ready, log = scratch / "url", scratch / "log.jsonl"
    command = [sys.executable, str(shared / "hub" / "serve.py"), "--root", str(root), "--ready-file", str(ready)]
    process = subprocess.Popen([*command, "--log", str(log), "--die-with-parent", *options], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None, "the loopback hub did not start"
            assert time.monotonic() < deadline, "the loopback hub did not get ready"
            time.sleep(0.02)
        yield Hub(ready.read_text(), log, process)
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """The loopback hub over the mirror of real data sets; use it without faults."""
    shared = _shared_folder()
    if shared is None or not (shared / "mirror").is_dir():
        pytest.skip("no loopback hub: no hub/ and mirror/ in ../shared or in $SMALLMODELS_TEST_HUB")
    with serving(shared / "mirror", tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="session")
def hub_home(tmp_path_factory):
    """An HF_HOME that the tests of a session share, so that what one fetched the next one has."""
    return tmp_path_factory.mktemp("hf-home")


# Processes that may be killed


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    """Starts functions of `children` in processes of their own."""
    import forking

    with forking.serving(tmp_path_factory.mktemp("forking")) as running:
        yield running


# A tiny model

WORDS = """
i want to know how my card works please help me the bank lost it when will money arrive read a file and return its
lines run command capture output list of names open close write good bad great awful film music number error time day
where why what is not can you
"""


@pytest.fixture(scope="session")
def tiny_language_model_folder(tmp_path_factory):
    """A random Llama with two layers of width 32 and a byte-level tokenizer of its own; safetensors."""
    import torch

    from smallmodels import models

    tokenizer = models.new_tokenizer([WORDS], vocabulary_size=300)
    made = models.new_language_model(tokenizer, hidden_size=32, num_layers=2, num_heads=2, max_length=32)
    with torch.no_grad():
        made.model.transformer.model.embed_tokens.weight.mul_(20)  # else it holds all tokens for equally likely
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    made.transformer.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def talker(tmp_path_factory):
    """A folder of a random model that writes something else after each prompt."""
    import torch

    from smallmodels import models

    tokenizer = models.new_tokenizer(["what is the cat and on day"], vocabulary_size=280)
    made = models.new_language_model(tokenizer, hidden_size=32, num_layers=2, num_heads=2, max_length=64)
    with torch.no_grad():
        for matrix in (p for p in made.model.parameters() if p.ndim > 1):
            matrix.mul_(20)
    folder = tmp_path_factory.mktemp("models") / "talker"
    made.transformer.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory):
    """A random BERT with four layers of width 32 and a word-piece tokenizer of its own; safetensors."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    words, letters = sorted(set(WORDS.split())), sorted(set("".join(WORDS.split())))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}  # a trained one has other ids each time
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=64)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
