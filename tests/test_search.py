"""The search for a small student: what is on the front, its budget, and a whole search in smoke size."""

import dataclasses
import functools
from pathlib import Path

import pytest
import small_data
import torch

from smallmodels import cli, data, distilling, energy, evaluation, records, search, tasks, verification
from smallmodels.cli import shrink
from smallmodels.cli.flags import parse_flags
from smallmodels.errors import BudgetError, InputError
from smallmodels.limits import Limits
from smallmodels.runs import Run


def test_front_has_what_no_other_beats_in_both_cost_and_quality():
    points = {"dear": (9.0, 0.9), "cheap": (1.0, 0.5), "beaten": (2.0, 0.4), "equal": (1.0, 0.5), "dearer": (9.5, 0.9)}
    assert search.front(points) == ["dear", "cheap", "equal"]


def test_flags_of_shrink_are_those_of_its_recipe_by_other_names(capsys):
    words = shrink._as_of_the_recipe(["--budget-wh", "2", "--seed", "1", "--max-drop", "1.5"])
    assert words == ["--budget-wh", "2", "--seed", "1", "--margin", "0.015"]
    with pytest.raises(InputError, match="--max-drop should be a number of percentage points, got x"):
        shrink._as_of_the_recipe(["--max-drop", "x"])
    assert cli.main(["shrink", "--teacher", "t", "--dataset=d"]) == 2
    assert "`smallmodels shrink` needs --budget-wh as well" in capsys.readouterr().err


@pytest.fixture(scope="module")
def words(tmp_path_factory, tiny_model_folder):
    """A search in smoke size on a small file, with a tiny model; what a use costs is measured for a moment only."""
    folder = tmp_path_factory.mktemp("shrink")
    rows = [f"{text},{small_data.LABELS[i % 3]}" for i, text in enumerate(small_data.texts(150))]
    (folder / "tickets.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        short = functools.partial(evaluation.measure_inference, window_s=0.05)
        patch.setattr(evaluation, "measure_inference", short)
        yield ["shrink", "--smoke", "--teacher", str(tiny_model_folder), "--dataset", str(folder / "tickets.csv")]


@pytest.fixture(scope="module")
def found(words, tmp_path_factory) -> Path:
    """The run of such a search."""
    out = tmp_path_factory.mktemp("runs")
    assert cli.main([*words, "--budget-wh=5", "--max-drop", "100", "--out", str(out)]) == 0
    (run,) = (out / "shrink_text_classifier").iterdir()
    return run


@pytest.mark.slow
def test_search_halves_its_candidates_and_pays_for_all_of_them(found):
    record = records.read_record(found)
    rungs = [[phase.name for phase in record.phases if phase.name.startswith(f"rung_{i}_")] for i in range(3)]
    names = {name.removeprefix("rung_0_") for name in rungs[0]}
    assert names == {"layers_2_trimmed", "layers_1_trimmed", "layers_2", "layers_2_narrow", "static"}
    assert [len(rung) for rung in rungs] == [5, 3, 2]
    student = record.result("student")
    assert {*(name for rung in rungs for name in rung), "uses", "cache", "layers_2_narrow_importance"} <= set(
        student.built_by
    )
    assert set(student.built_by) <= {phase.name for phase in record.phases}
    assert record.payback.build == pytest.approx(
        sum(phase.cpu_s for phase in record.phases if phase.name not in ("tfidf", "inference")), 0.2
    )


@pytest.mark.slow
def test_search_recommends_the_cheapest_that_is_good_enough_and_names_the_front(found):
    record = records.read_record(found)
    event = next(event for event in record.events if event.kind == "recommended")
    costs = {use.role: use.cpu_s_per_1000 for use in record.inference}
    others = {role for role in costs if role.startswith(("layers", "static"))}
    assert event.details["recommended"] not in others  # it is the student
    assert len(others) == 1
    assert {"majority", event.details["recommended"]} & {point["role"] for point in event.details["front"]}
    assert record.margin == 1.0
    assert (record.stopped_by, record.stops) == ("end", [])
    verification.verify(found)


def test_budget_of_a_search_is_that_of_its_run_by_either_name_and_no_part_of_the_config():
    recipe = cli.load_recipe(shrink.RECIPE)
    for flag in ("--budget-wh", "--search-budget-wh"):
        changes, options = parse_flags(recipe, [flag, "3", "--seed", "1"])
        assert (list(changes), options.limits) == ([("seed",)], Limits(budget_wh=3.0))


# The budget of a search: each step of a training takes 1 Wh, those of the teacher too, and all else takes nothing.


@dataclasses.dataclass
class Toy:
    """A search in a folder of its own: two steps of a teacher, then 2, 4 and 8 of each student in rungs of 5, 3 and 2.

    Energy is scripted.
    """

    folder: Path
    teacher: Path
    num_steps: int = 0

    def clock(self) -> float:
        """Seconds, which pass in steps alone."""
        return 6.0 * self.num_steps

    def logits(self, model, batch):
        self.num_steps += torch.is_grad_enabled()
        return tasks.CLASSES.logits(model, batch)

    def start(self, *, resume: bool = False, **limits: float) -> records.RunRecord:
        """Begin the run or go on with it, in what would be a process of its own."""
        few, usual = {"batch_size": 8, "micro_batch_size": 8, "num_evaluations": 1}, distilling.Config(dataset="")
        config = dataclasses.replace(
            usual,
            dataset=str(self.folder.parent / "tickets.csv"),
            max_length=32,
            teacher_train=dataclasses.replace(usual.teacher_train, max_steps=2, **few),
            train=dataclasses.replace(usual.train, max_steps=8, **few),
        )
        backend = energy.FakeBackend({"cpu": 600.0}, clock=self.clock)
        meter = energy.Meter(backend, journal=self.folder / "journal.jsonl", clock=self.clock, tick_s=3600)
        how = {"meter": meter, "device": "cpu", "number_format": "fp32", "num_threads": 1, "quiet": True}
        with Run(self.folder, resume=resume, limits=Limits(**limits), **how) as run:
            run.begin("toy", config)
            how = distilling.split_options(config)
            splits = run.phase("data", data.load_text_classification, config.dataset, **how)
            task = dataclasses.replace(tasks.CLASSES, logits=self.logits)
            found = search.shrink(run, config, task, splits, teacher_name=str(self.teacher), max_drop=1.0)
            return run.finish(found.student, **found.about)


@pytest.fixture
def toy(tmp_path, tiny_model_folder, monkeypatch) -> Toy:
    monkeypatch.setenv("SMALLMODELS_CACHE", str(tmp_path / "cache"))
    as_others = dataclasses.replace(distilling.STATIC_TRAIN, batch_size=8, micro_batch_size=8)
    monkeypatch.setattr(distilling, "STATIC_TRAIN", as_others)
    short = functools.partial(evaluation.measure_inference, window_s=0.01)
    monkeypatch.setattr(evaluation, "measure_inference", short)
    rows = [f"{text},{small_data.LABELS[i % 3]}" for i, text in enumerate(small_data.texts(40))]
    (tmp_path / "tickets.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return Toy(tmp_path / "run", tiny_model_folder)


@pytest.mark.slow
def test_r15_search_that_has_spent_its_budget_keeps_the_best_so_far_and_goes_on_with_a_larger_one(toy):
    with pytest.raises(BudgetError, match="spent after 1 of 2 steps of the teacher's fine-tuning"):
        toy.start(budget_wh=1)
    with pytest.raises(BudgetError, match="was spent before the first step of the student's training"):
        toy.start(resume=True, budget_wh=2)
    assert (toy.num_steps, (toy.folder / "record.json").exists()) == (2, False)

    record = toy.start(resume=True, budget_wh=5)  # the second of five students is cut short
    assert (record.stopped_by, toy.num_steps) == ("budget", 5)
    assert [(stop.num_steps, stop.planned_steps) for stop in record.stops] == [(1, 2), *4 * [(0, None)]]
    assert {"student", "teacher", "tfidf"} < {result.role for result in record.results}
    assert {event.details["recommended"] for event in record.events if event.kind == "recommended"}
    verification.verify(toy.folder)
    with pytest.raises(InputError, match="has spent its budget of 5 Wh, so it cannot go on: give it more"):
        toy.start(resume=True, budget_wh=5)

    record = toy.start(resume=True, budget_wh=100)
    assert (record.stopped_by, record.stops) == ("end", [])
    assert toy.num_steps == 2 + 5 * 2 + 3 * 4 + 2 * 8  # none was taken twice
    assert (toy.folder / "record-1.json").exists()
    verification.verify(toy.folder)
