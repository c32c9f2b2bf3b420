"""`smallmodels eval`: a local task of lm-eval on a tiny language model, against a calculation by hand; refusals."""

import copy
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from sample_records import classifier_record

from smallmodels import cli, external, files, finishing, folders, models, publishing, records, verification
from smallmodels.errors import DamagedError
from smallmodels.runs import Run

needs_lm_eval = pytest.mark.skipif(not external.is_installed(), reason="needs lm-eval: pip install -e '.[eval]'")

QUESTIONS = [
    {"question": question, "choices": choices, "answer": i % len(choices)}
    for i, (question, choices) in enumerate(
        [
            ("the bank lost", ["card", "money number"]),
            ("open and", ["close", "read a file", "run"]),
            ("a great", ["film", "awful error time"]),
            ("where is", ["my music", "it", "the list of names"]),
            ("run a", ["command", "day"]),
            ("what time", ["is it", "number"]),
            ("please help", ["me", "the bank"]),
        ]
    )
]
TASK = """
task: own_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 2.0
"""


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0


def make_run(folder: Path, student: models.TextModel, **changes) -> Path:
    sample = classifier_record()
    about = {"title": "A tiny one", "task": "text-generation", "metric": "accuracy", "results": sample.results}
    with Run(folder, meter="fake") as run:
        run.begin("toy", Config())
        run.phase("train", lambda: 1)
        run.finish(student, **(about | changes))
    return folder


@pytest.fixture(scope="module")
def student(tiny_language_model_folder) -> models.TextModel:
    return models.load_language_model(str(tiny_language_model_folder), max_length=32)[0]


@pytest.fixture(scope="module")
def finished(student, tmp_path_factory) -> Path:
    """A complete run; to be copied before anything is done to it."""
    return make_run(tmp_path_factory.mktemp("runs") / "a run", student)


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """A folder with a task and its data."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    (folder / "own.yaml").write_text(TASK.format(data=folder / "questions.jsonl"))
    return folder


@pytest.fixture(scope="module")
def evaluated(finished, tasks, tmp_path_factory) -> Path:
    """A run that was evaluated; only read."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("evaluated") / "run")
    assert cli.main(["eval", str(folder), "--tasks", str(tasks / "own.yaml")]) == 0
    return folder


def refuse(capsys, *words: str, code: int = 2) -> str:
    """The one sentence of a refusal; nothing on standard output."""
    assert cli.main(["eval", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("smallmodels: ")]
    return line.removeprefix("smallmodels: ")


def by_hand(model: models.TextModel) -> dict[str, float]:
    """Shares of questions whose right choice has the highest log-probability, as it is and per character."""
    right = {"acc": 0, "acc_norm": 0}
    for row in QUESTIONS:
        context = model.tokenizer(row["question"])["input_ids"]
        sums = []
        for choice in row["choices"]:
            ids = torch.tensor([model.tokenizer(f"{row['question']} {choice}")["input_ids"]])
            with torch.no_grad():
                logits = model.model.output_layer(model.model(input_ids=ids))[0].double()
            log_probs = logits.log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
            sums.append(float(log_probs[len(context) - 1 :].sum()))
        per_character = [value / len(choice) for value, choice in zip(sums, row["choices"], strict=True)]
        right["acc"] += sums.index(max(sums)) == row["answer"]
        right["acc_norm"] += per_character.index(max(per_character)) == row["answer"]
    return {name: count / len(QUESTIONS) for name, count in right.items()}


# What comes out


@needs_lm_eval
def test_values_are_those_of_a_calculation_by_hand(evaluated, student):
    expected = by_hand(student)
    assert 0 < expected["acc"] < 1
    assert expected["acc"] != expected["acc_norm"]
    (evaluation,) = records.read_record(evaluated).external_evaluations
    assert evaluation.warnings == []
    assert {result.metric: result.value for result in evaluation.results} == pytest.approx(expected)
    for result in evaluation.results:
        p, n = expected[result.metric], len(QUESTIONS)
        assert (result.task, result.task_version, result.filter) == ("own_choice", "2.0", None)
        assert (result.n, result.num_fewshot, result.higher_is_better) == (n, 0, True)
        assert result.stderr == pytest.approx((p * (1 - p) / (n - 1)) ** 0.5)


@needs_lm_eval
def test_evaluated_run_is_whole_and_says_what_it_cost(evaluated, finished):
    before, after = records.read_record(finished), verification.verify(evaluated)
    (evaluation,) = after.external_evaluations
    assert evaluation.cpu_s > 0
    assert evaluation.duration_s > 0
    assert evaluation.components
    assert (evaluation.device, evaluation.number_format, evaluation.limit) == (models.pick_device(), "fp32", None)
    unchanged = dataclasses.replace(after, external_evaluations=[], files={}, record_sha256=None)
    assert unchanged == records.statement(before)
    changed = {name for name in before.files if after.files[name] != before.files[name]}
    assert changed == {records.CARD_NAME, records.PAGE_NAME}
    assert set(after.files) == set(before.files)


@needs_lm_eval
def test_card_page_report_and_terminal_show_the_results(evaluated, tmp_path, capsys):
    assert cli.main(["show", str(evaluated)]) == 0
    assert cli.main(["report", str(evaluated), "--out", str(tmp_path / "report")]) == 0
    record = records.read_record(evaluated)
    value = next(r.value for r in record.external_evaluations[0].results if r.metric == "acc")
    texts = [(evaluated / name).read_text() for name in (records.CARD_NAME, records.PAGE_NAME)]
    texts += [(tmp_path / "report" / "report.md").read_text(), capsys.readouterr().out]
    for text in texts:
        plain = text.replace("\\", "")
        assert "own_choice (version 2.0)" in plain
        assert f"{value:.4g}" in plain
        assert "lm-eval" in plain


CHAT = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}{% if add_generation_prompt %} says{% endif %}"


@needs_lm_eval
def test_requests_are_written_as_the_run_wrote_its_prompts(student, tasks, tmp_path, capsys):
    talking = dataclasses.replace(student, tokenizer=copy.deepcopy(student.tokenizer))
    talking.tokenizer.chat_template = CHAT
    folder = make_run(tmp_path / "run", talking, model={"template": "chat"})
    found = [
        external.evaluate_run(folder, [str(tasks / "own.yaml")], template=name) for name in (None, "chat", "plain")
    ]
    assert [evaluation.in_chat for evaluation in found] == [True, True, False]
    values = [[result.value for result in evaluation.results] for evaluation in found]
    assert values[0] == values[1] != values[2]
    assert values[2] == pytest.approx(list(by_hand(student).values()))
    assert "in the model's chat template" in (folder / records.CARD_NAME).read_text()
    plain = make_run(tmp_path / "plain", student)
    assert "has none: choose --template plain" in refuse(
        capsys, str(plain), "--tasks", str(tasks / "own.yaml"), "--template", "chat"
    )


@needs_lm_eval
def test_published_record_keeps_the_results(evaluated):
    record = records.read_record(evaluated)
    made = publishing.published_files(evaluated, record, "me/tiny", with_examples=False)
    published = records.from_json(records.RunRecord, json.loads(made[records.RECORD_NAME]))
    assert published.external_evaluations == record.external_evaluations


@needs_lm_eval
def test_limit_shots_and_a_folder_of_tasks_are_used_and_a_second_evaluation_is_added(
    evaluated, tasks, tmp_path, capsys
):
    folder = shutil.copytree(evaluated, tmp_path / "run")
    options = ["--include-path", str(tasks), "--limit", "3", "--num-fewshot", "1", "--batch-size", "2"]
    assert cli.main(["eval", str(folder), "--tasks", "own_choice", *options]) == 0
    captured = capsys.readouterr()
    assert "the first 3 items of each task only" in captured.out
    first, second = verification.verify(folder).external_evaluations
    assert [first] == records.read_record(evaluated).external_evaluations
    assert second.limit == 3
    assert {(result.n, result.num_fewshot) for result in second.results} == {(3, 1)}


@needs_lm_eval
def test_group_is_there_beside_its_tasks_and_no_code_of_others_runs(run, tasks, tmp_path):
    folder = shutil.copytree(tasks, tmp_path / "tasks")
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\ndef texts(row): return row")
    other = (tasks / "own.yaml").read_text().replace("own_choice", "other_choice")
    (folder / "other.yaml").write_text(other.replace('"{{question}}"', "!function code.texts"))
    group = "group: own_group\ntask: [own_choice]\naggregate_metric_list: [{metric: acc}]\n"
    (folder / "group.yaml").write_text(group)
    found = external.evaluate_run(run, ["own_group"], include_path=folder, limit=2)
    values = {(result.task, result.metric): (result.value, result.n) for result in found.results}
    assert values["own_group", "acc"] == values["own_choice", "acc"]
    assert not (tmp_path / "ran").exists()


@needs_lm_eval
def test_texts_that_were_cut_are_told_of(run, tasks, tmp_path, capsys):
    rows = [{**row, "question": "open and close a file " * 20} for row in QUESTIONS]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(TASK.format(data=tmp_path / "long.jsonl"))
    assert cli.main(["eval", str(run), "--tasks", str(tmp_path / "own.yaml")]) == 0
    captured = capsys.readouterr()
    (evaluation,) = verification.verify(run).external_evaluations
    (warning,) = evaluation.warnings
    assert "exceeds model's maximum length (32). Truncating" in warning
    num_choices = sum(len(row["choices"]) for row in QUESTIONS)
    assert warning.endswith(f"({num_choices} times)")
    assert f"It warned: {warning}" in captured.out
    assert "Truncating" not in captured.err
    assert "Truncating" in (run / records.CARD_NAME).read_text()


@needs_lm_eval
def test_answers_that_do_not_fit_are_refused(run, tasks, tmp_path, capsys):
    rows = [{**row, "choices": ["open and close a file " * 20, "it"], "answer": 0} for row in QUESTIONS]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(TASK.format(data=tmp_path / "long.jsonl"))
    sentence = refuse(capsys, str(run), "--tasks", str(tmp_path / "own.yaml"))
    assert "should fit into the 32 tokens that this model reads" in sentence


# A killed evaluation


@pytest.mark.parametrize("num_written", [0, 1])
def test_amend_that_was_killed_between_its_files_is_mended(run, monkeypatch, num_written):
    names, write = [], files.write_text

    def killed(path: Path, text: str) -> None:
        if len(names) == num_written:
            raise KeyboardInterrupt
        names.append(path.relative_to(run).as_posix())
        write(path, text)

    record = records.read_record(run)
    with monkeypatch.context() as patched:
        patched.setattr(files, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            finishing.amend(run, record, title="Another")
    with pytest.raises(DamagedError):
        verification.verify(run)
    (run / ".report.html.4242.tmp").write_text("half")
    assert finishing.mend(run) == [name for name in (records.CARD_NAME, records.PAGE_NAME) if name not in names]
    assert verification.verify(run).title == "Another"
    assert finishing.mend(run) == []


@needs_lm_eval
def test_evaluation_after_a_killed_one_says_what_it_mended(evaluated, finished, tasks, tmp_path, capsys):
    folder = shutil.copytree(evaluated, tmp_path / "run")
    shutil.copy(finished / records.PAGE_NAME, folder / records.PAGE_NAME)  # the record is new, and this one old
    (folder / folders.LOCK_NAME).touch()
    assert cli.main(["eval", str(folder), "--tasks", str(tasks / "own.yaml"), "--limit", "1"]) == 0
    assert "report.html was not what the record says, and was written again" in capsys.readouterr().err
    assert len(verification.verify(folder).external_evaluations) == 2


def test_mend_leaves_alone_what_it_cannot_know(run):
    (run / "model" / "config.json").write_text("{}")
    record = json.loads((run / "record.json").read_text())
    files.write_json(run / "record.json", record | {"title": "edited"})
    (run / records.PAGE_NAME).write_text("edited")
    assert finishing.mend(run) == []
    assert (run / records.PAGE_NAME).read_text() == "edited"


# Refusals


def test_without_lm_eval_the_command_says_what_to_install(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert "pip install 'smallmodels[eval]'" in refuse(capsys, str(run), "--tasks", "piqa")


@needs_lm_eval
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--tasks", " , "], "--tasks should name tasks"),
        (["--tasks", "nothing.yaml"], "there is no file nothing.yaml"),
        (["--tasks", "own_choice", "--include-path", "nowhere"], "--include-path should be a folder"),
        (["--tasks", "own_choice", "--limit", "0"], "should be 1 or more, got 0"),
        (["--tasks", "own_choice", "--num-fewshot", "-1"], "should be 0 or more, got -1"),
        ([], "needs --tasks as well"),
    ],
)
def test_bad_options_are_refused(run, capsys, words, sentence):
    before = (run / records.RECORD_NAME).read_bytes()
    assert sentence in refuse(capsys, str(run), *words)
    assert (run / records.RECORD_NAME).read_bytes() == before


@needs_lm_eval
def test_run_that_is_not_there_is_refused(tmp_path, capsys):
    assert "should be a run folder" in refuse(capsys, str(tmp_path / "nowhere"), "--tasks", "piqa")


@needs_lm_eval
def test_unknown_task_is_refused_with_the_nearest_name(run, tasks, capsys, monkeypatch):
    from lm_eval import tasks as harness

    whole = harness.TaskManager
    monkeypatch.setattr(
        harness, "TaskManager", lambda *, include_defaults, **more: whole(include_defaults=False, **more)
    )
    words = (str(run), "--tasks", "own_choise", "--include-path", str(tasks))
    assert refuse(capsys, *words) == "lm-eval has no task 'own_choise': did you mean own_choice?"
    assert not (run / folders.LOCK_NAME).exists()
    verification.verify(run)


@needs_lm_eval
def test_classifier_is_refused(tiny_model_folder, tasks, tmp_path, capsys):
    classifier = models.load_classifier(str(tiny_model_folder), ["no", "yes"], max_length=32)[0]
    folder = make_run(tmp_path / "run", classifier, task="text-classification", label_names=["no", "yes"])
    assert "should be the run of a causal language model" in refuse(
        capsys, str(folder), "--tasks", str(tasks / "own.yaml")
    )


@needs_lm_eval
def test_altered_run_is_not_evaluated(run, tasks, capsys):
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    assert "model.safetensors" in refuse(capsys, str(run), "--tasks", str(tasks / "own.yaml"), code=4)


@needs_lm_eval
def test_run_in_use_is_refused(run, tasks, capsys):
    lock = folders.FolderLock(run)
    lock.acquire()
    try:
        assert "is in use by" in refuse(capsys, str(run), "--tasks", str(tasks / "own.yaml"), code=3)
    finally:
        lock.release()


@needs_lm_eval
@pytest.mark.parametrize(
    ("change", "options", "sentence", "code"),
    [
        ("num_fewshot: 0\n", ["--num-fewshot", "2"], "own_choice fixes the number of solved items at 0", 2),
        ("unsafe_code: true\n", [], "own_choice runs code that the model writes", 3),
        ("metric_list: [{metric: bertscore, hf_evaluate: true}]\n", [], "takes the metric bertscore from the hub", 3),
        ("test_split: absent\n", [], "should load with its data, but", 2),
    ],
)
def test_task_that_cannot_be_run_as_asked_is_refused(run, tasks, tmp_path, capsys, change, options, sentence, code):
    (tmp_path / "own.yaml").write_text((tasks / "own.yaml").read_text() + change)
    assert sentence in refuse(capsys, str(run), "--tasks", str(tmp_path / "own.yaml"), *options, code=code)


@needs_lm_eval
def test_task_whose_data_are_neither_local_nor_in_the_cache_is_refused_offline(run, tasks, tmp_path, capsys):
    text = (tasks / "own.yaml").read_text().replace("dataset_path: json", "dataset_path: nobody/nothing")
    start = text.index("dataset_kwargs")
    (tmp_path / "own.yaml").write_text(text[:start] + text[text.index("test_split") :])
    assert "HF_HUB_OFFLINE is set" in refuse(capsys, str(run), "--tasks", str(tmp_path / "own.yaml"))
