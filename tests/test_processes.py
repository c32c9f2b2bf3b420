"""Several processes that train together: real launches by torchrun over gloo, killed and stopped for real."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import small_data

from smallmodels import processes, records
from smallmodels.errors import InputError

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
STEPS = 120
DEADLINE_S = 60


# Alone


@pytest.fixture
def clean(monkeypatch):
    """No launcher's variables."""
    for name in list(os.environ):
        if name.startswith("ACCELERATE_") or name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_share_and_gather_alone_give_the_value_at_once(clean):
    value = object()
    processes.join()
    assert processes.share(lambda: value) is value
    assert processes.gather(7) == [7]
    assert (processes.rank(), processes.count()) == (0, 1)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "asks for FSDP"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "asks for DeepSpeed"),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}, "asked for several processes, but started"),
        ({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, "2 of 4 are on this one"),
    ],
)
def test_x9_a_launch_that_is_not_what_it_seems_is_refused(clean, variables, message):
    for name, value in variables.items():
        clean.setenv(name, value)
    with pytest.raises(InputError, match=message) as caught:
        processes.join()
    assert caught.value.exit_code == 2


# Launches


@pytest.fixture(scope="module")
def words(tmp_path_factory, tiny_model_folder):
    """A run of the recipe without a teacher, with dropout, in fp32."""
    path = tmp_path_factory.mktemp("own") / "texts.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((text, small_data.LABELS[i % 3]) for i, text in enumerate(small_data.texts(160)))
    return [
        *("run", "finetune_text_classifier", "--smoke", "--device", "cpu", "--number-format", "fp32", "--dropout"),
        *("--dataset", str(path), "--base-model", str(tiny_model_folder), "--max-length", "32", "--batch-size", "8"),
        *("--max-steps", str(STEPS), "--checkpoint-steps", "10", "--num-evaluations", "2", "--learning-rate", "1e-3"),
    ]


def environment(**more):
    """Of a launcher: one thread a process, no rank of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | more


def launch(words, *, launcher=LAUNCH, **more):
    command = [*launcher, "-m", "smallmodels", *words]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment(**more))


def finish(process, *, timeout=200):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out + err


def run_folder(out):
    (folder,) = (out / "finetune_text_classifier").iterdir()
    return folder


def facts(folder):
    """What has to be the same: weights, the examples in their order."""
    record = records.read_record(folder / records.RECORD_NAME)
    notes = json.loads((folder / "model" / "smallmodels.json").read_text())["notes"]["training"]
    return record.model["weights_sha256"], notes["examples_sha256"]


@pytest.fixture(scope="module")
def uninterrupted(words, tmp_path_factory):
    """Two processes, to the end; the port that launchers like is taken meanwhile."""
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 29500))
        taken.listen()
        code, said = finish(launch([*words, "--out", str(out)]))
    assert code == 0, said
    return run_folder(out), said


@pytest.fixture(scope="module")
def started(words, tmp_path_factory):
    """Starts a launch, waits until it trains and has saved, and gives it with its run folder."""

    def start():
        out = tmp_path_factory.mktemp("out")
        process = launch([*words, "--out", str(out)])
        deadline = time.monotonic() + DEADLINE_S
        while not list(out.glob("*/*/phases/train/checkpoints/step-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process, run_folder(out)

    return start


def worker(process, rank):
    """The process of that rank."""
    found = [p for p in psutil.Process(process.pid).children(recursive=True) if p.environ().get("RANK") == str(rank)]
    return found[0]


@pytest.mark.faults
def test_x7_x8_two_processes_leave_one_record_whatever_port_is_taken(uninterrupted):
    folder, said = uninterrupted
    record = records.read_record(folder / records.RECORD_NAME)
    assert json.loads((folder / "config.json").read_text())["run_id"] == record.run_id
    assert (record.num_processes, record.num_segments) == (2, 1)
    assert said.count("The model with its card") == 1
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines].count("open") == 1


@pytest.mark.faults
@pytest.mark.parametrize("rank", [0, 1])
def test_x1_x3_killing_one_of_two_ends_the_launch_and_it_resumes(started, uninterrupted, tmp_path, rank):
    process, folder = started()
    worker(process, rank).send_signal(signal.SIGKILL)
    began = time.monotonic()
    code, said = finish(process, timeout=DEADLINE_S)
    assert code != 0, said
    assert time.monotonic() - began < DEADLINE_S
    assert "one has ended" in said
    assert not (folder / records.RECORD_NAME).exists()
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    code, said = finish(launch(["run", "--resume", str(folder)]))
    assert code == 0, said
    assert facts(folder) == facts(uninterrupted[0])
    assert records.read_record(folder / records.RECORD_NAME).num_segments == 2
    # One process goes on with the work of two: the same examples, other last bits, and it says so.
    code, said = finish(launch(["run", "--resume", str(copy)], launcher=[sys.executable]))
    assert code == 0, said
    assert facts(copy)[1] == facts(uninterrupted[0])[1]
    work = [records.read_record(f / records.RECORD_NAME).phase("train") for f in (uninterrupted[0], folder, copy)]
    assert len({(phase.num_examples, phase.num_tokens, phase.num_operations) for phase in work}) == 1
    events = records.read_record(copy / records.RECORD_NAME).events
    assert any(e.kind == "not bitwise" and "num_processes was 2 and is 1" in e.message for e in events)


@pytest.mark.faults
def test_x2_sigterm_to_the_launcher_saves_and_it_resumes(started, uninterrupted):
    process, folder = started()
    process.terminate()
    code, said = finish(process, timeout=DEADLINE_S)
    assert code != 0, said
    steps = [path.name for path in (folder / "phases" / "train" / "checkpoints").iterdir()]
    code, said = finish(launch(["run", "--resume", str(folder)]))
    assert code == 0, said
    assert facts(folder) == facts(uninterrupted[0])
    events = records.read_record(folder / records.RECORD_NAME).events
    (stopped,) = [event for event in events if event.kind == "interrupted"]
    step = int(stopped.message.split("after step ")[1].split(" ")[0])
    assert f"step-{step:08d}" in steps


@pytest.mark.faults
def test_budget_stops_two_processes_after_the_same_step_and_they_go_on(words, uninterrupted, tmp_path):
    whole = records.read_record(uninterrupted[0])
    later = sum(phase.duration_s for phase in whole.phases if phase.name in ("evaluate", "inference", "export"))
    minutes = (whole.duration_s - later - 0.4 * whole.phase("train").duration_s) / 60
    code, said = finish(launch([*words, "--out", str(tmp_path), "--budget-minutes", f"{minutes:.4f}"]))
    assert code == 0, said
    folder = run_folder(tmp_path)
    (stop,) = records.read_record(folder).stops
    assert 0 < stop.num_steps < stop.planned_steps == STEPS
    code, said = finish(launch(["run", "--resume", str(folder)]))
    assert code == 0, said
    assert facts(folder) == facts(uninterrupted[0])


SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[2])
import torch
from small_data import FP32, classifier, cross_entropy, split
from smallmodels import processes, training
from smallmodels.phases import Context
torch.set_num_threads(1)
processes.join()
seen = []
model = classifier(sys.argv[1])
train = split(model.tokenizer, 28)  # the last batch of an epoch is of 4, and its share of one odd
config = training.TrainConfig(learning_rate=1e-2, max_steps=9, batch_size=9, micro_batch_size=3)
loop_step = training.logger.StepLogger.step
training.logger.StepLogger.step = lambda self, step, loss, norm, rate: seen.append((loss, norm))
trained = training.fit(model, train, cross_entropy, config, compute=FP32, validate=lambda m: {"x": float(len(seen))})
notes = trained.notes["training"]
weights = [p.double().sum().item() for p in trained.model.parameters()]
with open(f"{sys.argv[3]}/{processes.rank()}.json", "w") as file:
    json.dump([processes.rank(), seen, notes["examples_sha256"], weights], file)
"""


@pytest.mark.faults
def test_fit_of_several_processes_gives_the_losses_of_one(tiny_model_folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    words = [str(script), str(tiny_model_folder), str(Path(__file__).parent)]
    found = {}
    for count in (1, 2, 3):
        launcher, out = [*LAUNCH[:-1], str(count)], tmp_path / str(count)
        out.mkdir()
        done = subprocess.run(
            [*launcher, *words, str(out)], capture_output=True, text=True, env=environment(), timeout=120
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[count] = [json.loads(path.read_text()) for path in sorted(out.iterdir())]
        assert [row[0] for row in found[count]] == list(range(count))
    _, losses, examples, weights = found[1][0]
    assert len(losses) == 9
    for count in (2, 3):
        for row in found[count]:
            assert row[2] == examples
            for (loss, norm), (expected, expected_norm) in zip(row[1], losses, strict=True):
                assert loss == pytest.approx(expected, abs=1e-5)
                assert norm == pytest.approx(expected_norm, rel=1e-3)
            assert row[3] == found[count][0][3]  # every process holds the same bits
            assert row[3] == pytest.approx(weights, abs=1e-3)


BACK_OFF = """
import sys
sys.path.insert(0, sys.argv[2])
import torch
from small_data import FP32, Events, assert_same_bits, classifier, cross_entropy, split, weights
from smallmodels import errors, processes, training
from smallmodels.phases import Context
torch.set_num_threads(1)
processes.join()
model = classifier(sys.argv[1])
train = split(model.tokenizer, 40)
config = training.TrainConfig(learning_rate=1e-2, max_steps=8, batch_size=16, dropout=True)
events, asked = Events(), []

def loss_fn(model, batch):
    if processes.rank() == int(sys.argv[3]) and len(batch) > 3:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return cross_entropy(model, batch)

def fit(folder=None, **options):
    from pathlib import Path
    context = Context(folder=Path(folder) if folder else None, event=events, **options)
    return training.fit(model.copy(), train, loss_fn, config, compute=FP32, context=context)

expected = fit()
try:
    fit(sys.argv[4], should_stop=lambda: asked.append(1) or len(asked) == 3)
    raise SystemExit("should have stopped")
except errors.RunInterruptedError:
    pass
resumed = fit(sys.argv[4])
assert_same_bits(weights(resumed), weights(expected))
assert resumed.notes["training"]["micro_batch_size"] == 2
if processes.rank() == 0:
    print("same bits", events.kinds.count("out of memory"))
"""


@pytest.mark.faults
@pytest.mark.parametrize("rank", [0, 1])
def test_r8_memory_that_one_process_lacks_changes_the_micro_batch_of_all(tiny_model_folder, tmp_path, rank):
    script = tmp_path / "script.py"
    script.write_text(BACK_OFF)
    words = [str(script), str(tiny_model_folder), str(Path(__file__).parent), str(rank), str(tmp_path / "run")]
    done = subprocess.run([*LAUNCH, *words], capture_output=True, text=True, env=environment(), timeout=120)
    assert "same bits 2" in done.stdout, done.stdout + done.stderr[-3000:]


SLOW = """
import sys, time
from smallmodels import cli, processes, runs
processes.WAIT_S = 3.0

def wait():
    with runs.Run(sys.argv[1], meter="fake") as run:
        run.begin("slow", {"seed": 0})
        run.phase("data", time.sleep, 20)
    return 0

sys.exit(cli.exits.guarded(wait, debug=False))
"""


@pytest.mark.faults
def test_x4_waiting_too_long_for_the_first_process_ends_in_a_sentence(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW))
    began = time.monotonic()
    done = subprocess.run(
        [*LAUNCH, str(script), str(tmp_path / "run")], capture_output=True, text=True, env=environment(), timeout=100
    )
    assert done.returncode != 0
    assert "one did not answer within 3 s" in done.stderr
    assert time.monotonic() - began < DEADLINE_S


@pytest.mark.faults
def test_x9_accelerate_that_starts_one_process_for_two_is_refused(words, tmp_path):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    code, said = finish(launch([*words, "--out", str(tmp_path / "out")], launcher=launcher))
    assert code != 0
    assert "accelerate was asked for several processes, but started one" in said
    assert not (tmp_path / "out").exists()
