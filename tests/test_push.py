"""Publishing a run: all of it in one commit or nothing, private, nothing that says who made it. On the loopback hub."""

import dataclasses
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import Hub, serving
from huggingface_hub import ModelCard
from sample_records import classifier_record, dataset
from small_data import FP32

from smallmodels import cli, licenses, models, privacy, publishing, records, verification
from smallmodels.errors import InputError
from smallmodels.runs import Run

LABELS = ["no", "yes"]
EXAMPLE = "My card still has not arrived"
"""Begins an example of the record, which is a text of the data."""


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0


def make_run(folder: Path, student: models.TextModel, *, smoke: bool = False, **changes) -> Path:
    """A complete run of a model, with figures of a sample."""
    sample = classifier_record()
    about = {name: getattr(sample, name) for name in ("title", "metric", "results", "inference", "curve", "examples")}
    about |= {"task": "text-classification", "label_names": LABELS, "predictions": {"id": ["secret id"]}}
    with Run(folder, meter="fake", smoke=smoke, accept_licenses=changes.pop("accepted", ())) as run:
        run.begin("toy", Config())
        for source in changes.pop("sources", sample.sources):
            run.add_source(source)
        run.phase("train", lambda: 1)
        run.finish(student, **(about | changes))
    return folder


@pytest.fixture(scope="module")
def student(tiny_model_folder) -> models.TextModel:
    return models.load_classifier(str(tiny_model_folder), LABELS, max_length=32)[0]


@pytest.fixture(scope="module")
def run(student, tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "a run", student)


# A hub that takes uploads, and a process that pushes to it


class Relay(ThreadingHTTPServer):
    """Passes requests on to the loopback hub; remembers what was sent, and what is private, as the hub would."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.target = ""
        self.sent: list[tuple[str, str, bytes]] = []
        self.private: set[str] = set()

    def created(self) -> list[dict]:
        return [json.loads(body) for _, path, body in self.sent if path == "/api/repos/create"]

    def commits(self) -> list[dict]:
        """The header of every commit that was asked for."""
        return [json.loads(body.splitlines()[0])["value"] for _, path, body in self.sent if "/commit/" in path]


class Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Relay

    def answer(self) -> None:
        relay, body = self.server, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        relay.sent.append((self.command, self.path, body))
        if not relay.target:
            self.close_connection = True
            return
        to = http.client.HTTPConnection(urlsplit(relay.target).netloc, timeout=60)
        to.request(self.command, self.path, body, dict(self.headers))
        answer = to.getresponse()
        content = answer.read()
        if self.path == "/api/repos/create" and answer.status == 200 and asks_for_private(json.loads(body)):
            relay.private.add("{organization}/{name}".format(**json.loads(body)))
        if self.path.removeprefix("/api/models/") in relay.private and answer.status == 200:
            content = json.dumps(json.loads(content) | {"private": True}).encode()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name != "Content-Length":
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 (the server's names)


def asks_for_private(wanted: dict) -> bool:
    """Whether a request makes a private repository; clients of different versions say so differently."""
    return wanted.get("private") is True or wanted.get("visibility") == "private"


@dataclasses.dataclass
class Uploads:
    """A hub with a folder for uploads behind a relay, and a process whose client uses it."""

    hub: Hub
    relay: Relay
    folder: Path
    process: subprocess.Popen

    def push(self, *words: str, **environment: str) -> tuple[int, str, str]:
        """Run `smallmodels push`; its exit code and what it printed."""
        self.process.stdin.write(json.dumps([["push", *map(str, words)], environment]) + "\n")
        self.process.stdin.flush()
        code, out, err = json.loads(self.process.stdout.readline())
        assert "hf_test" not in out + err
        assert "Traceback" not in err
        return code, out, err

    def refused(self, *words: str, **environment: str) -> tuple[int, str]:
        code, out, err = self.push(*words, **environment)
        lines = [line for line in err.splitlines() if line.startswith("smallmodels: ")]
        assert (out, len(lines)) == ("", 1), err
        return code, lines[0]

    def main_of(self, name: str) -> dict[str, bytes]:
        """The files of a repository at main."""
        folder = self.folder / "models" / name
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def copy(self, name: str, to: Path) -> Path:
        return shutil.copytree(self.folder / "models" / name, to)


_DRIVER = """
import contextlib, io, json, os, sys
from smallmodels import cli
from smallmodels.sources import asking
asking.RETRY_SECONDS, asking.FIRST_WAIT_S = 5.0, 0.02
environment = dict(os.environ)
for line in sys.stdin:
    words, changes = json.loads(line)
    os.environ.clear()
    os.environ.update(environment | changes)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(words)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Uploads]:
    scratch = tmp_path_factory.mktemp("uploads")
    folder = scratch / "uploads"
    (scratch / "root").mkdir()
    folder.mkdir()
    relay = Relay()
    threading.Thread(target=relay.serve_forever, args=(0.05,), daemon=True).start()
    with serving(scratch / "root", scratch, "--uploads", str(folder)) as hub:
        environment = dataclasses.replace(hub, url=relay.url).environment(scratch / "home", HF_TOKEN="hf_test")
        with subprocess.Popen(
            [sys.executable, "-c", _DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            yield Uploads(hub, relay, folder, process)
            process.stdin.close()
    relay.shutdown()
    relay.server_close()


@pytest.fixture
def uploads(server) -> Iterator[Uploads]:
    """The hub without faults and without memory of what others sent."""
    server.relay.target, server.relay.sent = server.hub.url, []
    yield server
    server.hub.set_faults()


PUBLISHED = {
    "README.md", "config.json", "model.safetensors", "record.json", "report.html", "smallmodels.json",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


# A push


@pytest.mark.hub
def test_h10_push_is_one_commit_to_a_private_repository_and_a_copy_of_it_is_whole(uploads, run, tmp_path):
    code, out, err = uploads.push(run, "org/whole")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"org/whole: published 8 files, private, commit {out.split('commit ')[1][:12]}",
        f"{uploads.hub.url}/org/whole",
    ]
    assert set(uploads.main_of("org/whole")) == PUBLISHED
    assert len(uploads.relay.commits()) == 1
    assert [asks_for_private(wanted) for wanted in uploads.relay.created()] == [True]
    record = verification.verify(uploads.copy("org/whole", tmp_path / "copy"))
    assert record.published_as == "org/whole"
    assert record.results == records.read_record(run).results
    assert set(record.files) == PUBLISHED - {"record.json"}
    (tmp_path / "copy" / ".gitattributes").touch()  # the hub's own
    verification.verify(tmp_path / "copy")
    with (tmp_path / "copy" / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    assert cli.main(["verify", str(tmp_path / "copy")]) == 4


@pytest.mark.hub
def test_published_card_is_a_hub_card_that_names_the_repository(uploads, run):
    uploads.push(run, "org/card")
    card = ModelCard(uploads.main_of("org/card")["README.md"].decode())
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert 'pipeline("text-classification", model="org/card")' in card.content
    assert "path/to/this/folder" not in card.content
    assert 'model="path/to/this/folder"' in (run / "model" / "README.md").read_text()


@pytest.mark.hub
def test_texts_of_the_data_are_published_only_if_asked_for(uploads, run):
    assert EXAMPLE in (run / "report.html").read_text()
    assert EXAMPLE in (run / "record.json").read_text()
    uploads.push(run, "org/texts")
    assert not [name for name, content in uploads.main_of("org/texts").items() if EXAMPLE.encode() in content]
    code, _, _ = uploads.push(run, "org/texts", "--with-examples")
    assert code == 0
    found = [name for name, content in uploads.main_of("org/texts").items() if EXAMPLE.encode() in content]
    assert sorted(found) == ["record.json", "report.html"]


@pytest.mark.hub
def test_same_run_pushed_again_changes_nothing(uploads, run):
    _, first, _ = uploads.push(run, "org/again")
    before = uploads.main_of("org/again")
    code, second, _ = uploads.push(run, "org/again")
    assert code == 0
    assert "was published before; no change" in second
    assert uploads.main_of("org/again") == before
    assert first.split("commit ")[1] == second.split("commit ")[1]


@pytest.mark.hub
@pytest.mark.faults
def test_another_run_replaces_what_was_pushed_and_leaves_the_files_of_others(uploads, run, student, tmp_path):
    other = make_run(tmp_path / "other", student, title="Another run")
    (tmp_path / "other" / "model" / "notes.json").write_text("{}")
    with_notes = records.read_record(other)
    with_notes.files["model/notes.json"] = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    records.write_record(other, with_notes)
    assert uploads.push(other, "org/moved")[0] == 0
    assert "notes.json" in uploads.main_of("org/moved")
    (uploads.folder / "models" / "org" / "moved" / "LICENSE").write_text("by hand")
    assert uploads.push(run, "org/moved")[0] == 0
    assert set(uploads.main_of("org/moved")) == PUBLISHED | {"LICENSE"}
    assert b"Another run" not in uploads.main_of("org/moved")["README.md"]
    assert len({commit.get("parentCommit") for commit in uploads.relay.commits()}) == 2


@pytest.mark.hub
@pytest.mark.parametrize("name", ["weights.bin", "record.json", "README.md"])
def test_repository_with_files_of_others_is_refused(uploads, run, name):
    folder = uploads.folder / "models" / "org" / f"foreign-{name}"
    folder.mkdir(parents=True)
    (folder / name).write_text('{"schema_version": 1}')
    code, sentence = uploads.refused(run, f"org/foreign-{name}", "--public")
    assert code == 3
    assert f"should be new or hold an earlier push of smallmodels, found {name}: choose another name" in sentence
    assert set(uploads.main_of(f"org/foreign-{name}")) == {name}


@pytest.mark.hub
@pytest.mark.faults
def test_file_that_somebody_added_is_not_overwritten(uploads, run, student, tmp_path):
    uploads.push(run, "org/added")
    (uploads.folder / "models" / "org" / "added" / "1_Pooling").mkdir()
    (uploads.folder / "models" / "org" / "added" / "1_Pooling" / "config.json").write_text("by hand")
    embedder = models.TextModel(models.Embedder(student.model.bert), student.tokenizer, {}, 32)
    other = make_run(tmp_path / "other", embedder, task="sentence-similarity")
    code, sentence = uploads.refused(other, "org/added")
    assert code == 3
    assert "found 1_Pooling/config.json" in sentence


@pytest.mark.hub
@pytest.mark.faults
def test_existing_repository_is_seen_by_those_who_should(uploads, run):
    uploads.push(run, "org/seen")
    code, sentence = uploads.refused(run, "org/seen", "--public")
    assert (code, "org/seen exists and is private: leave out --public" in sentence) == (2, True)
    assert uploads.push(run, "org/open", "--public")[0] == 0
    assert not asks_for_private(uploads.relay.created()[-1])
    code, sentence = uploads.refused(run, "org/open")
    assert (code, "org/open exists and is public: add --public" in sentence) == (2, True)


# Refused before anything is sent


@pytest.mark.hub
def test_h10_s9_altered_run_is_not_pushed(uploads, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    with (copy / "phases" / "train" / "result.json").open("a") as file:
        file.write(" ")
    code, sentence = uploads.refused(copy, "org/altered")
    assert code == 4
    assert "phases/train/result.json should have SHA-256" in sentence
    assert uploads.relay.sent == []


def refuse(capsys, *words: str) -> tuple[int, str]:
    code = cli.main(["push", *map(str, words)])
    return code, capsys.readouterr().err


def test_smoke_run_is_not_pushed(student, tmp_path, capsys):
    code, sentence = refuse(capsys, make_run(tmp_path / "r", student, smoke=True), "org/name")
    assert (code, "is a smoke run, whose model and numbers mean nothing" in sentence) == (3, True)


def test_unfinished_run_is_not_pushed(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "record.json").unlink()
    code, sentence = refuse(capsys, copy, "org/name")
    assert (code, "record.json is missing" in sentence) == (4, True)
    for name in ("report.html", "model/README.md"):
        (copy / name).unlink()
    code, sentence = refuse(capsys, copy, "org/name")
    assert (code, "is not complete: go on with" in sentence) == (2, True)


@pytest.mark.parametrize(
    "name", ["name", "", "org/name@main", "../x/y", "a/b/c", "org/na me", "/abs/path", "org/..", "C:\\x", "org/a\0"]
)
def test_s1_name_that_is_none_on_the_hub_is_refused(run, capsys, name):
    code, sentence = refuse(capsys, run, name)
    assert (code, "a model is pushed to a name like my-name/my-model" in sentence) == (2, True)


def test_offline_is_said_at_once(run, capsys):
    code, sentence = refuse(capsys, run, "org/name")
    assert (code, "HF_HUB_OFFLINE is set, so nothing can be pushed: unset it" in sentence) == (2, True)


@pytest.mark.parametrize(
    ("declared", "license_id"), [("cc-by-nc-nd-4.0", "cc-by-nc-nd-4.0"), (None, "unknown:org/texts")]
)
def test_s4_model_of_a_licence_that_forbids_sharing_stays_private(student, tmp_path, capsys, declared, license_id):
    source = dataset("org/texts", declared, {"train": 3})
    folder = make_run(tmp_path / "r", student, sources=[source], accepted=[license_id])
    assert records.read_record(folder).accepted_licenses == [license_id]  # for training
    code, sentence = refuse(capsys, folder, "org/name", "--public")
    assert (code, f"{license_id} does not say so: leave out --public" in sentence) == (3, True)
    assert f"add --accept-license {license_id}" in sentence
    for words in (["--public", "--accept-license", license_id], []):
        code, sentence = refuse(capsys, folder, "org/name", *words)
        assert (code, "HF_HUB_OFFLINE" in sentence) == (2, True)  # it got as far as the hub


@pytest.mark.parametrize(
    ("declared", "forbidding"),
    [
        (["apache-2.0", "cc-by-sa-4.0", "user-provided, not checked"], []),
        (["cc-by-nc-4.0", "apache-2.0"], []),  # may be shared, with its duties
        (["gemma", "mit"], []),
        (["apache-2.0", "cc-by-nd-4.0"], ["cc-by-nd-4.0"]),
        ([None, "other"], ["unknown:org/0", "other:org/1"]),
        (["gpl-2.0", "cc-by-sa-4.0"], ["cc-by-sa-4.0", "gpl-2.0"]),  # each wants the model for itself
    ],
)
def test_s4_licences_that_forbid_sharing_are_told_from_those_that_ask_for_something(declared, forbidding):
    found = [licenses.Declared(f"org/{i}", license_id) for i, license_id in enumerate(declared)]
    assert sorted(licenses.forbidding_sharing(found)) == sorted(forbidding)


def test_copy_of_a_published_model_is_not_pushed(run, tmp_path, capsys):
    for name, content in publishing.published_files(
        run, records.read_record(run), "org/a", with_examples=False
    ).items():
        target = tmp_path / "copy" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    verification.verify(tmp_path / "copy")
    code, sentence = refuse(capsys, tmp_path / "copy", "org/b")
    assert (code, "is a copy of org/a, not a run" in sentence) == (2, True)


# What the hub refuses


@pytest.mark.hub
@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "a push needs a token of the hub: set HF_TOKEN"),
        ("hf_CANARYCANARYCANARY", "the hub does not know the token"),
    ],
)
def test_s3_push_without_a_good_token_is_one_sentence_without_it(uploads, run, token, words):
    code, sentence = uploads.refused(run, "org/token", HF_TOKEN=token)
    assert (code, words in sentence) == (2, True)
    assert "CANARY" not in sentence
    assert uploads.main_of("org/token") == {}


@pytest.mark.hub
def test_push_without_permission_is_one_sentence(uploads, run):
    uploads.hub.set_faults(match="/api/repos/create|/preupload/", error_every=1, error_status=403)
    code, sentence = uploads.refused(run, "org/forbidden")
    assert (code, "the token may not write to org/forbidden" in sentence) == (2, True)


@pytest.mark.hub
def test_name_that_is_taken_by_something_else_is_one_sentence(uploads, run):
    (uploads.folder / "models" / "org").mkdir(parents=True, exist_ok=True)
    (uploads.folder / "models" / "org" / "taken").write_text("not a model")
    code, sentence = uploads.refused(run, "org/taken")
    assert (code, "org/taken is taken on the hub and is no model" in sentence) == (2, True)


@pytest.mark.hub
def test_h3_hub_that_is_not_there_is_one_sentence(uploads, run):
    uploads.relay.target = ""
    start = time.monotonic()
    code, sentence = uploads.refused(run, "org/unreachable")
    assert (code, "the hub should take the model org/unreachable, but the connection failed" in sentence) == (2, True)
    assert time.monotonic() - start < 30


@pytest.mark.hub
@pytest.mark.faults
def test_h3_errors_that_pass_are_waited_for(uploads, run):
    uploads.hub.set_faults(match="/preupload/|/commit/", error_every=1, error_status=503, only_first=2)
    assert uploads.push(run, "org/patient")[0] == 0
    assert set(uploads.main_of("org/patient")) == PUBLISHED


# H10: a push that is cut off


@pytest.mark.hub
@pytest.mark.parametrize(("step", "status"), [("/preupload/", 422), ("/commit/", 500)])  # the client retries others
def test_h10_push_that_fails_leaves_nothing_and_can_be_repeated(uploads, run, step, status):
    name = f"org/fails-{step.strip('/')}"
    uploads.hub.set_faults(match=step, error_every=1, error_status=status)
    code, sentence = uploads.refused(run, name)
    assert (code, f"answered {status}" in sentence) == (2, True)
    assert uploads.main_of(name) == {}
    uploads.hub.set_faults()
    assert uploads.push(run, name)[0] == 0
    assert set(uploads.main_of(name)) == PUBLISHED


@pytest.mark.hub
@pytest.mark.faults
def test_h10_push_over_an_earlier_one_that_fails_leaves_the_earlier_one(uploads, run, student, tmp_path):
    name = "org/stays"
    uploads.push(run, name)
    before = uploads.main_of(name)
    other = make_run(tmp_path / "other", student, title="Another run")
    uploads.hub.set_faults(match="/commit/", error_every=1, error_status=500)
    assert uploads.refused(other, name)[0] == 2
    assert uploads.main_of(name) == before


@pytest.mark.hub
@pytest.mark.faults
@pytest.mark.parametrize("step", ["/api/repos/create", "/preupload/", "lfs/objects/batch", "/lfs/", "/commit/"])
def test_h10_killed_push_leaves_all_or_nothing_and_can_be_repeated(run, tmp_path, step):
    """Large files go ahead of the commit; kill -9 while the hub is working on each request in turn."""
    uploads = tmp_path / "uploads"
    for name in ("uploads", "root"):
        (tmp_path / name).mkdir()
    with serving(tmp_path / "root", tmp_path, "--uploads", str(uploads), "--lfs") as hub:
        environment = hub.environment(tmp_path / "home", HF_TOKEN="hf_test", HF_HUB_DISABLE_XET="1")
        command = [sys.executable, "-m", "smallmodels", "push", str(run), "org/killed", "--public"]
        hub.set_faults(match=step, delay_s=3.0)
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        wait_for_request_before(hub, step)
        time.sleep(0.5)  # the request under way, the hub still thinking about it
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        time.sleep(3.5)  # whatever the hub makes of what it got
        main = uploads / "models" / "org" / "killed"
        there = {path.name for path in main.rglob("*")} if main.exists() else set()
        assert there in (set(), PUBLISHED)
        if step != "/commit/":
            assert there == set()
        hub.set_faults()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        verification.verify(shutil.copytree(main, tmp_path / "copy"))


BEFORE = {
    "/api/repos/create": "/api/models/org/killed",
    "/preupload/": "/api/models/org/killed",
    "lfs/objects/batch": "/preupload/",
    "/lfs/": "/preupload/",
    "/commit/": "/lfs/",
}
"""The request that is answered just before each."""


def wait_for_request_before(hub: Hub, step: str) -> None:
    deadline = time.monotonic() + 60
    while not any(BEFORE[step] in path for path in hub.paths_asked()):
        assert time.monotonic() < deadline, f"no request before {step}"
        time.sleep(0.05)


# The model comes back


@pytest.mark.hub
@pytest.mark.faults
def test_pushed_models_load_back_from_the_hub(uploads, run, student, tmp_path):
    embedder = models.TextModel(models.Embedder(student.model.bert), student.tokenizer, {"base_model": "tiny"}, 32)
    searcher = make_run(tmp_path / "searcher", embedder, task="sentence-similarity")
    assert uploads.push(run, "org/classifier")[0] == 0
    assert uploads.push(searcher, "org/embedder")[0] == 0
    outcome = uploads.hub.evaluate(
        "[use_classifier(), use_pipeline(), use_embedder(), use_sentence_transformers()]",
        tmp_path / "home",
        before=LOAD_BACK,
    )
    tuned, (first, second), ours, theirs = outcome.get()
    assert tuned is True
    assert first == pytest.approx(second, abs=1e-5)
    assert first == pytest.approx(
        models.forward_texts(student, ["where is my card"], compute=FP32)[0].tolist(), abs=1e-5
    )
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours == pytest.approx(
        models.forward_texts(embedder, ["where is my card"], compute=FP32)[0].tolist(), abs=1e-5
    )


LOAD_BACK = """
from smallmodels import models
from huggingface_hub import ModelCard
FP32 = models.Compute(device="cpu", number_format="fp32", num_threads=1, operations_per_s=1e9)
def use_classifier():
    global classifier
    classifier, fetched, tuned = models.load_classifier("org/classifier", ["no", "yes"], max_length=32)
    assert ModelCard.load("org/classifier").data.pipeline_tag == "text-classification"
    return tuned
def use_pipeline():
    from transformers import pipeline
    import numpy as np
    classify = pipeline("text-classification", model="org/classifier", top_k=None, function_to_apply="none")
    (answers,) = classify(["where is my card"])
    scores = {answer["label"]: answer["score"] for answer in answers}
    ours = models.forward_texts(classifier, ["where is my card"], compute=FP32)[0].tolist()
    return ours, [scores["no"], scores["yes"]]
def use_embedder():
    embedder, fetched = models.load_embedder("org/embedder", max_length=32)
    return models.forward_texts(embedder, ["where is my card"], compute=FP32)[0].tolist()
def use_sentence_transformers():
    from sentence_transformers import SentenceTransformer
    return SentenceTransformer("org/embedder", device="cpu").encode(["where is my card"])[0].tolist()
"""


# E11: nothing says who made it, and where


TELLING = "telling"


@pytest.mark.faults
def test_e11_record_card_page_and_published_files_name_no_folder_user_or_host(tiny_model_folder, tmp_path):
    """A smoke run of a real recipe; folders, user and, where the system lets us, host have telling names."""
    home = tmp_path / f"{TELLING} home"
    for name in ("runs", "cache", "data"):
        (home / f"{TELLING} {name}").mkdir(parents=True)
    table = home / f"{TELLING} data" / "tickets.csv"
    rows = [f"{word} number {i},{'ab'[i % 2]}" for i, word in enumerate(["bank", "film"] * 40)]
    table.write_text("\n".join(["text,label", *rows]))
    model = shutil.copytree(tiny_model_folder, home / f"{TELLING} data" / "tiny-bert")
    settings = {"USER": f"{TELLING}user", "LOGNAME": f"{TELLING}user", "HOSTNAME": f"{TELLING}host", "HOME": str(home)}
    settings |= {"SMALLMODELS_CACHE": str(home / f"{TELLING} cache"), "TMPDIR": str(home / f"{TELLING} cache")}
    command = [sys.executable, "-m", "smallmodels", "run", "finetune_text_classifier", "--smoke", "--device", "cpu"]
    command += ["--dataset", str(table), "--base-model", str(model), "--max-length", "32"]
    command += ["--out", str(home / f"{TELLING} runs")]
    environment = os.environ | settings | {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run(
        [*under_host(f"{TELLING}host"), *command],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (home / f"{TELLING} runs" / "finetune_text_classifier").iterdir()
    record = verification.verify(folder)
    published = publishing.published_files(folder, record, "org/name", with_examples=True)
    contents = {name: c if isinstance(c, bytes) else c.read_bytes() for name, c in published.items()}
    contents |= {f"run: {name}": (folder / name).read_bytes() for name in ("record.json", "report.html")}
    contents["run: card"] = (folder / "model" / "README.md").read_bytes()
    for name, content in contents.items():
        assert TELLING.encode() not in content, (name, content[max(content.find(b"telling") - 80, 0) :][:200])
        assert str(tmp_path).encode() not in content, name
    assert record.config["dataset"] == "tickets.csv"


def test_e11_folders_with_blanks_that_the_environment_names_are_taken_out_of_sentences(monkeypatch):
    for variable in ("SMALLMODELS_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, f"/mnt/{TELLING} disk/my {TELLING} {variable}")
        sentence = f"/mnt/{TELLING} disk/my {TELLING} {variable}/signals/ab/shard-0 is damaged: it is made again"
        assert privacy.without_folders(sentence) == "signals/ab/shard-0 is damaged: it is made again"


def under_host(name: str) -> list[str]:
    """The start of a command that runs under another name of the machine, where the system lets us."""
    words = ["unshare", "--user", "--map-root-user", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
    try:
        done = subprocess.run([*words, "hostname"], capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return []
    return words if done.stdout.strip() == name else []


def test_errors_of_visibility_say_what_to_do():
    publishing.require_visibility("org/name", is_private=True, public=False)
    publishing.require_visibility("org/name", is_private=False, public=True)
    with pytest.raises(InputError, match="leave out --public"):
        publishing.require_visibility("org/name", is_private=True, public=True)
