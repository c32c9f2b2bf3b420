"""The search for a small student: what is affordable, what is on the front, and a whole search in smoke size."""

import functools
from pathlib import Path

import pytest
import small_data

from smallmodels import cli, evaluation, records, search, verification
from smallmodels.cli import shrink
from smallmodels.errors import InputError


def test_affordable_steps_are_all_that_are_wanted_then_fewer_for_all_then_none_for_the_last():
    wanted, step_j = {"a": 100.0, "b": 100.0}, {"a": 1.0, "b": 3.0}
    assert search.affordable(wanted, step_j, 400.0) == {"a": 100, "b": 100}
    assert search.affordable(wanted, step_j, 200.0) == {"a": 50, "b": 50}
    assert search.affordable(wanted, step_j, 80.0) == {"a": 80}
    assert search.affordable(wanted, step_j, 24.0) == {}
    assert search.affordable(wanted, step_j, -1.0) == {}


def test_front_has_what_no_other_beats_in_both_cost_and_quality():
    points = {"dear": (9.0, 0.9), "cheap": (1.0, 0.5), "beaten": (2.0, 0.4), "equal": (1.0, 0.5), "dearer": (9.5, 0.9)}
    assert search.front(points) == ["dear", "cheap", "equal"]


def test_flags_of_shrink_are_those_of_its_recipe_by_other_names(capsys):
    words = shrink._as_of_the_recipe(["--budget-wh", "2", "--seed", "1", "--max-drop", "1.5"])
    assert words == ["--search-budget-wh", "2", "--seed", "1", "--margin", "0.015"]
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
        sum(phase.cpu_s for phase in record.phases if phase.name != "tfidf"), 0.2
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
    assert record.config["search_budget_wh"] == 5.0
    verification.verify(found)


@pytest.mark.slow
def test_search_without_a_budget_for_one_student_says_so(words, found, tmp_path, capsys):
    assert cli.main([*words, "--budget-wh", "1e-9", "--out", str(tmp_path)]) == 2  # the teacher is in the cache
    assert "should suffice to train one student, but is spent before" in capsys.readouterr().err
