"""What a report of several runs says: each rule on small made-up records with the verdict that is expected."""

import csv
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hostile import MARKUP, with_attack
from sample_records import classifier_record, counted_record, metric, phase, result
from test_report import cells, table_of

from smallmodels import cli, energy, files, finishing, metrics, records, report, sweeps
from smallmodels.cli import gathering
from smallmodels.records import CurvePoint, Metric, Phase, RunRecord, Unfinished
from smallmodels.report import Evidence, items, learning, paying, several, systems
from smallmodels.report.page import Page, Picture, Table, Text

N_ITEMS = 1000
QUALITIES = {"teacher": 0.920, "student": 0.918, "label_only": 0.880, "tfidf": 0.800}
"""Of a case in which it pays to distil, with a margin of 0.01."""


def runs(
    qualities: Mapping[str, float] = QUALITIES,
    *,
    count: int = 3,
    sd: float = 0.001,
    make: Callable[..., RunRecord] = classifier_record,
    n_items: int = N_ITEMS,
    **changes: Any,
) -> list[RunRecord]:
    """Runs with a seed each, whose students and controls differ a little, and whose teacher and baseline do not."""
    built_by = {"teacher": ["teacher"], "student": ["cache", "train"], "label_only": ["train_label_only"],
                "tfidf": ["baseline"]}  # fmt: skip
    found = []
    for seed in range(count):
        luck = dict.fromkeys(("student", "label_only"), sd * (seed - 1))
        base = make(**changes)
        results = [
            dataclasses.replace(
                result(role, value, built_by.get(role, []), ["teacher"] if role == "student" else []),
                metrics={"accuracy": metric(value + luck.get(role, 0.0), n_items)},
            )
            for role, value in qualities.items()
        ]
        uses = [
            dataclasses.replace(i, protocol="full", cpu_s_per_1000=i.cpu_s_per_1000 * (1 + 0.01 * seed))
            for i in base.inference
            if i.role in qualities
        ]
        payback = base.payback and dataclasses.replace(
            base.payback, build=base.payback.build + seed, build_without_shared=base.payback.build + seed - 100,
            saved_per_use=0.0031 + 0.0001 * seed,
        )  # fmt: skip
        config = base.config | {"seed": seed}
        found.append(
            dataclasses.replace(
                base, run_id=f"run-{seed}", results=results, inference=uses, payback=payback, config=config
            )
        )
    return found


def answers(record: RunRecord, folder: Path, wrong: Mapping[str, Sequence[int]]) -> tuple[RunRecord, Path]:
    """The record with the accuracy of predictions that are right but for these items, and their file."""
    labels = [f"class {i % 7}" for i in range(N_ITEMS)]
    columns: dict[str, Any] = {"id": [f"t{i}" for i in range(N_ITEMS)], "label": labels}
    results = []
    for each in record.results:
        given = list(labels)
        for i in wrong[each.role]:
            given[i] = "another class"
        columns |= {f"{each.role}/prediction": given, f"{each.role}/score": [0.9] * N_ITEMS}
        share = 1 - len(wrong[each.role]) / N_ITEMS
        results.append(dataclasses.replace(each, metrics={"accuracy": metric(share, N_ITEMS)}))
    path = folder / record.run_id / "predictions.parquet"
    path.parent.mkdir(parents=True)
    finishing.save_predictions(path, columns)
    changed = dataclasses.replace(record, results=results, files={"predictions.parquet": files.sha256_file(path)})
    return changed, path


def group_of(found: Sequence[RunRecord], evidence: Evidence = report.NO_EVIDENCE) -> several.Group:
    (group,) = several.analysed(found, evidence)
    return group


def system(group: several.Group, role: str) -> systems.System:
    return next(s for s in group.systems if s.role == role)


def verdict(group: several.Group, ours: str, theirs: str) -> str:
    return group.comparisons.verdict(system(group, ours), system(group, theirs))


def every_table(page: Page, caption: str) -> list[Table]:
    found = [b.table if isinstance(b, Picture) else b for s in page.sections for b in s.blocks]
    return [each for each in found if isinstance(each, Table) and each.caption == caption]


def advice(page: Page) -> str:
    """Of a page of one run a section, of a comparison what its summary begins with."""
    for section in page.sections:
        if section.title == several.ADVICE_TITLE:
            assert isinstance(section.blocks[0], Text)
            return section.blocks[0].text.replace("\u00a0", " ")
    return page.summary.partition(" These ")[0].replace("\u00a0", " ")


# --- mean, spread, interval, n ----------------------------------------------------------------------------------------


def test_systems_table_has_mean_sd_interval_and_n_for_quality_and_cost() -> None:
    table = table_of(several.page(runs({"teacher": 0.92, "student": 0.9})), "Mean over seeds")
    plain = {key: {k: v.replace("\u00a0", " ") for k, v in cells(table, key).items()} for key in table.head[1:]}
    assert plain["accuracy"]["Student"] == "90.0 %"
    assert plain["SD"]["Student"] == "0.1 points"
    assert plain["95 % interval".replace(" %", "\u00a0%")]["Student"] == "89.8–90.2 %"
    assert plain["seeds"]["Student"] == "3"
    assert plain["CPU-s per 1,000 uses"]["Student"] == "3.33 (SD 0.033, 3.25–3.41, n 3)"


def test_a_model_that_all_seeds_share_has_the_interval_over_items() -> None:
    table = table_of(several.page(runs()), "Mean over seeds")
    bounds = cells(table, "95\u00a0% interval")
    assert bounds["Teacher"] == "90.3–93.7\u00a0%†"
    assert not bounds["Student"].endswith("†")


def test_repeats_of_a_seed_are_averaged_before_the_interval() -> None:
    found = runs()
    again = [dataclasses.replace(found[0], run_id="again")]
    student = system(group_of([*found, *again]), "student")
    quality = student.quality()
    assert quality is not None
    assert (quality.n, quality.value) == (3, pytest.approx(0.918))


# --- better, indistinguishable, worse ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("student", "expected"),
    [(0.990, "better"), (0.932, "indistinguishable"), (0.920, "indistinguishable"), (0.800, "worse")],
)
def test_verdict_needs_the_whole_interval_beyond_the_margin(student: float, expected: str) -> None:
    group = group_of(runs({"teacher": 0.92, "student": student}))
    assert verdict(group, "student", "teacher").partition(":")[0] == expected


def test_verdict_of_equals_says_that_they_are_equal_within_the_margin() -> None:
    group = group_of(runs({"teacher": 0.92, "student": 0.92}, n_items=100_000))
    assert verdict(group, "student", "teacher") == "indistinguishable: equal within the margin"
    group = group_of(runs({"teacher": 0.92, "student": 0.912}, n_items=30_000))
    assert "different, but not shown to be by more than the margin" in verdict(group, "student", "teacher")


@pytest.mark.parametrize("count", [1, 2])
def test_no_verdict_and_no_winner_from_fewer_than_three_seeds(count: int) -> None:
    found = runs({"teacher": 0.92, "student": 0.5}, count=count)
    assert verdict(group_of(found), "student", "teacher").startswith(f"no verdict: {count} seed")
    page = several.page(found) if count > 1 else several.page_of_one(found[0])
    said = [str(cell) for s in page.sections for b in s.blocks for t in tables_of(b) for row in t.rows for cell in row]
    assert not [cell for cell in said if "is better" in cell or cell in ("better", "worse")]
    assert advice(page).startswith(f"From {count} seed")


def tables_of(block: Any) -> list[Table]:
    table = getattr(block, "table", block)
    return [table] if isinstance(table, Table) else []


def test_without_a_declared_margin_the_page_says_so_and_does_not_advise() -> None:
    page = several.page(runs(margin=None))
    assert "no margin was declared" in advice(page)
    assert advice(page).endswith("Until one is, use the teacher.")
    assert verdict(group_of(runs({"teacher": 0.92, "student": 0.8}, margin=None)), "student", "teacher") == "worse"


def test_lower_is_better_metrics_are_compared_the_other_way_round() -> None:
    found = []
    for each in runs({"teacher": 1.0, "student": 2.0}):
        results = [
            dataclasses.replace(r, metrics={"bits_per_byte": Metric(value=v, low=v - 0.02, high=v + 0.02, n=90)})
            for r, v in zip(each.results, (1.0, 2.0 + 0.01 * each.config["seed"]), strict=True)
        ]
        found.append(dataclasses.replace(each, metric="bits_per_byte", results=results, payback=None))
    assert verdict(group_of(found), "student", "teacher") == "worse"
    assert (
        cells(table_of(several.page(found), "Against the model that is replaced"), "difference")["Student"] == "-1.010"
    )


# --- paired on the same items -----------------------------------------------------------------------------------------


def with_answers(
    tmp_path: Path, wrong: Callable[[int], Mapping[str, Sequence[int]]]
) -> tuple[list[RunRecord], Evidence]:
    pairs = [answers(r, tmp_path, wrong(i)) for i, r in enumerate(runs({"teacher": 0.92, "student": 0.9}))]
    found = [record for record, _ in pairs]
    return found, Evidence(predictions={record.run_id: path for record, path in pairs})


def test_paired_items_tell_apart_what_separate_intervals_cannot(tmp_path: Path) -> None:
    """The student is wrong wherever the teacher is, and on some 33 items more."""
    found, evidence = with_answers(
        tmp_path, lambda seed: {"teacher": range(300), "student": [*range(300), *range(400 + seed, 433 + seed)]}
    )
    assert verdict(group_of(found), "student", "teacher") == "indistinguishable"
    paired = group_of(found, evidence)
    assert verdict(paired, "student", "teacher") == "worse"
    difference = paired.comparisons.difference(system(paired, "student"), system(paired, "teacher"))
    assert difference is not None
    assert (difference.is_paired, difference.num_items, difference.num_seeds) == (True, N_ITEMS, 3)
    table = table_of(several.page(found, evidence), "Against the model that is replaced")
    assert cells(table, "n items")["Student"] == "1,000 paired"


@pytest.mark.parametrize(
    ("name", "labels", "guesses", "value"),
    [
        ("micro_f1", ["joy, love", "", "anger"], ["joy", "", "anger, fear"], 2 * 2 / 6),
        ("spearman", [1.0, 2.0, 3.0], [0.1, 0.3, 0.2], 0.5),
    ],
)
def test_labels_and_scores_of_items_are_paired_if_they_give_the_metric_of_the_record(
    tmp_path, name, labels, guesses, value
) -> None:
    path = tmp_path / "predictions.parquet"
    finishing.save_predictions(path, {"id": ["a", "b", "c"], "label": labels, "student/prediction": guesses})
    for stated, is_used in ((value, True), (value + 0.01, False)):
        found = dataclasses.replace(result("student", 0.0, []), metrics={name: metric(stated, 3)})
        record = classifier_record(metric=name, results=[found], files={path.name: files.sha256_file(path)})
        assert (items.items_of([(items.read(path, record), record)], "student") is not None) == is_used


@pytest.mark.parametrize(("name", "value"), [("f1", 2 / 5), ("precision", 1 / 2), ("recall", 1 / 3)])
def test_spans_of_items_are_paired_by_their_counts_where_words_do_not_tell_their_place(tmp_path, name, value) -> None:
    """One text has the same word twice, and the student finds it at the wrong place."""
    path = tmp_path / "predictions.parquet"
    columns = {
        "id": ["a", "b"],
        "label": ["drug: aspirin", "drug: iron; illness: a cold"],
        "student/prediction": ["drug: aspirin", "drug: iron"],
    }
    counts = {"student/num_right": [0, 1], "student/num_found": [1, 1], "student/num_expected": [1, 2]}
    for given, is_used in ((columns | counts, True), (columns, False)):
        finishing.save_predictions(path, given)
        found = dataclasses.replace(result("student", 0.0, []), metrics={name: metric(value, 2)})
        record = classifier_record(metric=name, results=[found], files={path.name: files.sha256_file(path)})
        made = items.items_of([(items.read(path, record), record)], "student")
        assert (made is not None) == is_used
        if made is not None:
            assert made.value == pytest.approx(value)


def test_predictions_that_are_not_those_of_the_record_are_not_used(tmp_path: Path) -> None:
    found, evidence = with_answers(tmp_path, lambda _: {"teacher": range(300), "student": range(340)})
    altered = [dataclasses.replace(found[0], files={"predictions.parquet": "00" * 32}), *found[1:]]
    other = [dataclasses.replace(r, results=[r.results[0], result("student", 0.9, [])]) for r in found]
    for records_, expected in ((found, True), (altered, False), (other, False)):
        group = group_of(records_, evidence)
        difference = group.comparisons.difference(system(group, "student"), system(group, "teacher"))
        assert difference is not None
        assert difference.is_paired == expected


def test_one_run_with_predictions_is_compared_on_its_items_without_a_verdict(tmp_path: Path) -> None:
    found, evidence = with_answers(tmp_path, lambda _: {"teacher": range(300), "student": range(340)})
    table = table_of(several.page_of_one(found[0], evidence), "Against the model that is replaced")
    assert cells(table, "verdict") == {"Student": "no verdict: 1 seed, 3 needed"}
    assert cells(table, "difference") == {"Student": "-4.0 points"}


def test_items_are_drawn_for_pairs_that_the_values_leave_open_and_not_for_all(tmp_path: Path, monkeypatch) -> None:
    """Of 24 students beside a teacher and their controls there are more than a thousand pairs."""
    drawn, of_pair = [], metrics.paired_bootstrap
    monkeypatch.setattr(metrics, "paired_bootstrap", lambda *pair, **how: drawn.append(pair) or of_pair(*pair, **how))
    found, paths = [], {}
    for i in range(24):
        qualities = {"teacher": 0.92, "student": 0.9 - 0.0001 * i, "label_only": 0.9 - 0.0002 * i}
        for seed, record in enumerate(runs(qualities, sd=0.0)):
            wrong = {role: range(seed, seed + round(N_ITEMS * (1 - value))) for role, value in qualities.items()}
            named = dataclasses.replace(record, run_id=f"{i}-{seed}", config=record.config | {"temperature": float(i)})
            answered, paths[named.run_id] = answers(named, tmp_path, wrong)
            found.append(answered)
    page = several.page(found, Evidence(predictions=paths))
    against = cells(table_of(page, "Against the model that is replaced"), "n items")
    assert against["Student (temperature 23)"] == "1,000 paired"
    assert 48 <= len(drawn) <= 10 * 24


# --- what is never ranked together ------------------------------------------------------------------------------------


def test_another_fingerprint_label_or_thread_count_is_shown_and_never_ranked() -> None:
    environment = classifier_record().environment
    others = {
        "machine": {"environment": dataclasses.replace(environment, fingerprint="ab" * 32)},
        "threads": {"environment": dataclasses.replace(environment, num_threads=4)},
        "joules are": {"energy_label": "constant"},
    }
    other_memory = dataclasses.replace(environment, fingerprint="cd" * 32, memory_mb=64_000)
    found = table_of(several.page([*runs(), *runs(environment=other_memory)]), "What differs")
    assert found.head == ["Group", "runs", "machine", "memory"]
    assert [row[3] for row in found.rows] == ["8,341 MB", "64,000 MB"]
    for change in others.values():
        groups = several.analysed([*runs(), *runs(**change)])
        assert [len(group.records) for group in groups] == [3, 3]
    together = [*runs(), *(r for change in others.values() for r in runs(**change))]
    page = several.page(together)
    assert page.title == "12 runs in 4 groups"
    assert table_of(page, "What differs").head == ["Group", "runs", *others]
    assert len(table_of(page, "Runs").rows) == 12
    seen = [
        len(t.rows) for s in page.sections for b in s.blocks for t in tables_of(b) if t.caption == "Mean over seeds"
    ]
    assert seen == [4] * 8  # four groups with two costs each, none with a model of another


def test_joules_of_a_use_under_another_label_are_not_ranked_with_the_students() -> None:
    found = [
        dataclasses.replace(
            r, inference=[dataclasses.replace(i, label="modelled") if i.role == "tfidf" else i for i in r.inference]
        )
        for r in runs(make=counted_record)
    ]
    places = cells(table_of(several.page(found), "Mean over seeds"), "place")
    assert places["TF-IDF"] == "not comparable: joules are modelled, not counter"
    assert "not comparable" not in places["Student"]
    one = cells(table_of(several.page_of_one(found[0]), "Cost of 1,000 uses"), "place in this run")
    assert one["TF-IDF"] == "not comparable: joules are modelled, not counter"


# --- the front --------------------------------------------------------------------------------------------------------


def test_overlapping_points_of_the_front_are_called_indistinguishable() -> None:
    places = cells(table_of(several.page(runs()), "Mean over seeds"), "place")
    assert places["Teacher"] == "on the front, but indistinguishable from Student, which costs less"
    assert places["Student"] == "on the front"
    assert places["Labels only"] == "Student is better and costs the same"


def test_run_on_a_shared_machine_leaves_ranked_what_has_three_seeds_without_it() -> None:
    found = [
        dataclasses.replace(r, run_id=f"{r.run_id}-{n}", config=r.config | {"num_layers": n}, contended=contended)
        for n in (3, 2)
        for i, r in enumerate(runs(QUALITIES | {"student": 0.88 + 0.01 * n}))
        for contended in [n == 3 and i == 0]
    ]
    page = several.page(found)
    table = table_of(page, "Mean over seeds")
    places = cells(table, "place")
    assert places["Student (num layers 3)"] == "not comparable: shared machine"
    assert "not comparable" not in places["Teacher"]
    assert places["TF-IDF"] == "on the front: no ranked model is cheaper"
    assert "Runs that shared their machine are left out of the costs" in table.note
    teacher = system(group_of(found), "teacher")
    assert (len(teacher.records), len(teacher.costed), teacher.seeds()) == (6, 5, 3)
    assert (
        cells(table_of(several.page(runs()), "Mean over seeds"), "place")["TF-IDF"]
        == "on the front: nothing is cheaper"
    )


def test_costs_whose_intervals_overlap_are_not_told_apart_either() -> None:
    found = [
        dataclasses.replace(
            r,
            inference=[
                dataclasses.replace(i, cpu_s_per_1000=i.cpu_s_per_1000 + 0.001 * (i.role == "label_only"))
                for i in r.inference
            ],
        )
        for r in runs()
    ]
    places = cells(table_of(several.page(found), "Mean over seeds"), "place")
    assert places["Labels only"] == "Student is better and costs the same within the intervals"


# --- cost to come near the teacher ------------------------------------------------------------------------------------


def test_cost_to_reach_a_share_of_the_teacher_is_that_of_the_first_validation() -> None:
    curve = [
        CurvePoint(step=i, energy_j=100.0 * i, cpu_s=10.0 * i, value=v) for i, v in enumerate((0.5, 0.83, 0.9, 0.88), 1)
    ]
    record = runs({"teacher": 0.99, "student": 0.9}, curve=curve, make=counted_record, teacher_on_validation=0.92)[0]
    found = learning.reached(record, "J")
    assert [each.training for each in found] == [200.0, 300.0, None]  # 0.828, 0.874, 0.9108
    before = sum(p.energy_j or 0.0 for p in record.phases if p.name in ("teacher", "cache"))
    assert found[0].whole == pytest.approx(200.0 + before)
    assert learning.reached(dataclasses.replace(record, teacher_on_validation=None), "J") == []


def test_curve_on_validation_is_never_compared_with_the_teachers_result_on_test() -> None:
    old = [dataclasses.replace(r, teacher_on_validation=None) for r in runs()]
    page = several.page(old)
    (row,) = table_of(page, "Cost to come near the teacher").rows
    assert row[:4] == ["Student", "a share of the teacher: not known", "–", "–"]
    said = "What the teacher reaches on validation is not known of these runs"
    assert any(said in b.text for s in page.sections for b in s.blocks if isinstance(b, Text))
    assert "is not known of this run" in report.run_page(old[0])
    assert learning.run_sentence(old[0], "CPU-s") == ""


def test_older_records_take_the_teachers_validation_from_the_metrics_of_the_run_that_trained_it(tmp_path) -> None:
    read_back = records.Event(
        time_utc="2026-03-01T10:15:03Z", kind="cache", message="fine-tuned teacher read back", details={}
    )
    old = [dataclasses.replace(r, teacher_on_validation=None) for r in runs(sd=0.0, count=4)]
    old[1], old[2] = (dataclasses.replace(r, events=[read_back]) for r in old[1:3])
    old[2] = dataclasses.replace(old[2], config=old[2].config | {"teacher_seed": 1})  # another teacher
    for record in old:  # the last one has neither trained nor read one back
        (tmp_path / record.run_id).mkdir()
        records.write_record(tmp_path / record.run_id, record)
    lines = ['{"phase": "teacher", "validation/accuracy": 0.87}', '{"phase": "teacher", "validation/accuracy": 0.86}']
    lines += ['{"phase": "train", "validation/accuracy": 0.99}', '{"torn']
    (tmp_path / "run-0" / "metrics.jsonl").write_text("\n".join(lines))
    found, evidence = gathering.gather([str(tmp_path)])
    levels = {r.run_id: learning.teacher_level(r) for r in learning.with_teachers(found, evidence)}
    assert levels == {"run-0": 0.87, "run-1": 0.87, "run-2": None, "run-3": None}
    (student,) = (s for s in group_of(found[:2], evidence).systems if s.role == "student")
    assert [learning.teacher_level(r) for r in student.records] == [0.87, 0.87]


def test_committed_runs_that_read_a_teacher_back_all_know_its_validation() -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu_small"
    found, evidence = gathering.gather([str(folder / name) for name in ("banking77", "bc5cdr", "sst2")])
    assert not [r.run_id for r in learning.with_teachers(found, evidence) if learning.lacks_teacher(r)]


def test_committed_sst2_students_do_not_reach_99_percent_of_their_teacher() -> None:
    folder = Path(__file__).parents[1] / "benchmarks" / "results" / "cpu_small" / "sst2"
    found, evidence = gathering.gather([str(folder)])
    rows = table_of(several.page(found, evidence), "Cost to come near the teacher").rows
    teacher = 0.865924276169265  # the best validation of the one that trained it
    best = [max(p.value for p in r.curve) for r in found]
    expected = [f"{sum(b >= share * teacher for b in best)} of {len(best)}" for share in learning.SHARES]
    assert [row[3] for row in rows] == expected


def test_curves_of_every_run_are_drawn_with_the_levels_in_a_table() -> None:
    curves = [
        [CurvePoint(step=i, energy_j=10.0 * i * (1 + seed), cpu_s=1.0 * i, value=0.8 + 0.03 * i) for i in range(1, 5)]
        for seed in range(3)
    ]
    found = [dataclasses.replace(r, curve=c) for r, c in zip(runs(make=counted_record), curves, strict=True)]
    page = several.page(found)
    table = table_of(page, "Cost to come near the teacher")
    assert [row[3] for row in table.rows] == ["3 of 3", "3 of 3", "3 of 3"]
    assert table.rows[0][4] == "20.0 (SD 10, 0–44.8, n 3)"  # no cost is below nothing
    panel = next(p for p in page.panels() if p.name == "group1-curve-j")
    assert "a line for each of 3 runs" in panel.alt
    assert [len(mark.touch) for mark in panel.figure.marks()] == [4, 4, 4]


def test_curves_of_other_metrics_have_axes_of_their_own() -> None:
    curve = [CurvePoint(step=i, energy_j=10.0 * i, cpu_s=1.0 * i, value=0.8 + 0.03 * i) for i in range(1, 5)]
    losses = [dataclasses.replace(point, value=-2.0 / point.step) for point in curve]
    plain = [dataclasses.replace(r, curve=curve) for r in runs(make=counted_record)]
    other = [
        dataclasses.replace(
            r, run_id=f"other-{i}", recipe="other", curve=losses, curve_of="divergence", command="smallmodels run other"
        )
        for i, r in enumerate(runs(make=counted_record))
    ]
    panels = {p.name: p for p in several.page([*plain, *other]).panels() if "curve" in p.name}
    assert {p.heading.split(" against")[0] for p in panels.values()} == {"Validation accuracy", "Validation divergence"}
    for panel in panels.values():
        assert "a line for each of 3 runs" in panel.alt


def test_curves_without_a_line_are_counted(monkeypatch) -> None:
    monkeypatch.setattr(learning, "MAX_LINES", 2)
    said = [b.text for s in several.page(runs()).sections for b in s.blocks if isinstance(b, Text)]
    assert any("Of 3 runs, the first 2 have a line; the table is of all." in text for text in said)


def test_levels_of_a_metric_in_which_less_is_better_lie_above_the_teachers_value() -> None:
    base = runs({"teacher": 1.0, "student": 1.1})[0]
    results = [
        dataclasses.replace(r, metrics={"bits_per_byte": Metric(value=1.0, low=None, high=None, n=9)})
        for r in base.results
    ]
    curve = [CurvePoint(step=i, energy_j=1.0 * i, cpu_s=1.0 * i, value=-v) for i, v in enumerate((1.2, 1.10, 1.02), 1)]
    changes: dict[str, Any] = {"metric": "bits_per_byte", "results": results, "curve": curve}
    found = learning.reached(dataclasses.replace(base, teacher_on_validation=-1.0, **changes), "CPU-s")
    assert [round(each.level, 4) for each in found] == [1.1111, 1.0526, 1.0101]
    assert [each.training for each in found] == [2.0, 3.0, None]


# --- controls and baselines -------------------------------------------------------------------------------------------


def test_controls_are_shown_with_what_they_cost_beside_the_student() -> None:
    table = table_of(several.page(runs()), "The student against the same student without a teacher")
    assert cells(table, "cost of the control") == {"Student": "1.02 times"}
    assert cells(table, "verdict") == {"Student": "better"}
    phases = [phase(p.name, 60.0 if p.name == "train_label_only" else p.duration_s) for p in classifier_record().phases]
    table = table_of(several.page(runs(phases=phases)), "The student against the same student without a teacher")
    assert cells(table, "cost of the control") == {"Student": "0.665 times, not equal"}


@pytest.mark.parametrize(("gains", "won"), [((0.01, 0.01, -0.01), "2 of 3"), ((0.01, 0.0, -0.01), "1 of 3")])
def test_student_that_beats_its_control_in_fewer_than_two_of_three_seeds_is_said_not_to_be_helped(
    gains: tuple[float, ...], won: str
) -> None:
    found = []
    for run, gain in zip(runs(sd=0.0), gains, strict=True):
        control = run.result("label_only")
        assert control is not None
        quality = metric(control.metrics["accuracy"].value + gain, N_ITEMS)
        results = [
            dataclasses.replace(r, metrics={"accuracy": quality}) if r.role == "student" else r for r in run.results
        ]
        found.append(dataclasses.replace(run, results=results))
    page = several.page(found)
    table = table_of(page, "The student against the same student without a teacher")
    assert cells(table, "seeds won") == {"Student": won}
    said = [b.text for s in page.sections for b in s.blocks if isinstance(b, Text) and "did not help here" in b.text]
    assert len(said) == (won == "1 of 3")


# --- payback ----------------------------------------------------------------------------------------------------------


def paybacks(found: Sequence[RunRecord], evidence: Evidence = report.NO_EVIDENCE) -> dict[str, paying.Counted]:
    return {each.way: each for each in group_of(found, evidence).counted}


def test_payback_is_counted_with_and_without_the_shared_cache_and_over_all_runs() -> None:
    unfinished = Unfinished(run_id="x", recipe="distill_text_classifier", sweep_id=None, energy_j=9.0, cpu_s=31.0)
    found = paybacks(runs(), Evidence(unfinished=[unfinished]))
    assert [*found] == [
        "one run, caches included",
        "one run, caches that runs share left out",
        "all 3 runs here and 1 that never ended",
    ]
    alone, free, everything = found.values()
    assert alone.build == pytest.approx(370.0)
    assert free.build == pytest.approx(270.0)
    assert everything.build == pytest.approx(269.0 + 270.0 + 271.0 + 31.0)
    for each in found.values():
        assert each.estimate.uses == pytest.approx(each.build / 0.0032)
        assert each.estimate.low is not None
        assert each.estimate.high is not None
        assert each.estimate.low < each.estimate.uses < each.estimate.high


def test_who_paid_for_a_cache_is_counted_without_it_as_those_are_who_read_it() -> None:
    payer, *readers = runs()
    assert payer.payback is not None
    teacher = payer.phase("teacher")
    assert teacher is not None
    payer = dataclasses.replace(
        payer, payback=dataclasses.replace(payer.payback, build_without_shared=payer.payback.build)
    )
    owing = [
        dataclasses.replace(
            r,
            phases=[
                dataclasses.replace(p, cpu_s=0.0, shared_cpu_s=teacher.cpu_s) if p.name == "teacher" else p
                for p in r.phases
            ],
        )
        for r in readers
    ]
    found = paybacks([payer, *owing])
    without = found["one run, caches that runs share left out"]
    assert without.build == pytest.approx((369.0 - teacher.cpu_s + 270.0 + 271.0) / 3)


def test_a_bill_with_an_unknown_part_is_called_the_least_it_can_be() -> None:
    unknown = Unfinished(run_id="x", recipe="r", sweep_id=None, energy_j=None, cpu_s=31.0)
    found = runs(make=counted_record)
    bill, what = paying.whole_bill(found, [unknown], "J")
    assert bill == pytest.approx(sum(r.payback.build_without_shared for r in found if r.payback))
    assert what == "all 3 runs here and 1 that never ended, at least: the cost of 1 is not known"


def test_payback_is_never_where_the_saving_is_within_the_noise_or_the_margin_is_missed() -> None:
    noisy = [
        dataclasses.replace(r, payback=r.payback and dataclasses.replace(r.payback, saved_per_use=saved))
        for r, saved in zip(runs(), (0.0001, 0.003, 0.006), strict=True)
    ]
    far = runs({"teacher": 0.92, "student": 0.9})
    for found, why in ((noisy, "within what 3 runs differ by"), (far, "quality is not close enough")):
        table = table_of(several.page(found), "Uses until the student has paid for itself")
        assert {row[4] for row in table.rows} == {"never"}
        assert all(why in str(row[-1]) for row in table.rows)


def sharing(found: Sequence[RunRecord], count: int) -> list[RunRecord]:
    """The runs, of which the first so many have one measurement of uses: that of the first."""
    first = found[0]
    assert first.payback is not None
    uses = [dataclasses.replace(use, measured_in=first.run_id) for use in first.inference]
    saved = first.payback.saved_per_use
    taken = [
        dataclasses.replace(
            r, inference=uses, payback=r.payback and dataclasses.replace(r.payback, saved_per_use=saved)
        )
        for r in found[1:count]
    ]
    return [first, *taken, *found[count:]]


def test_payback_of_runs_that_share_one_measurement_has_its_interval_over_the_windows() -> None:
    found = paybacks(sharing(runs(), 3))
    teacher, student = ([cost * each / 1000 for each in (0.97, 1.0, 1.05)] for cost in (6.4, 3.3))
    saved = metrics.unpaired_difference(teacher, student)
    assert saved.low is not None
    half, bill = saved.value - saved.low, found["all 3 runs here"]
    assert (bill.estimate.low, bill.estimate.high) == pytest.approx(
        (bill.build / (0.0031 + half), bill.build / (0.0031 - half))
    )
    runs_differ = found["one run, caches included"].estimate
    assert runs_differ.low is not None
    assert runs_differ.high is not None
    assert runs_differ.low < 370 / (0.0031 + half) < 370 / (0.0031 - half) < runs_differ.high


def test_payback_of_runs_of_which_two_share_a_measurement_is_over_both_measurements() -> None:
    bill = paybacks(sharing(runs(), 2))["all 3 runs here"]
    half = 12.7062 * (0.0033 - 0.0031) / 2  # Student-t with n - 1 = 1 of 0.0031 and 0.0033
    assert bill.estimate.uses == pytest.approx(bill.build / 0.0032)
    assert (bill.estimate.low, bill.estimate.high) == pytest.approx(
        (bill.build / (0.0032 + half), bill.build / (0.0032 - half)), rel=1e-4
    )


def test_payback_is_never_where_windows_of_the_shared_measurement_do_not_tell_the_saving_from_none() -> None:
    first, *others = runs()
    uses = [
        dataclasses.replace(
            use,
            windows=[
                dataclasses.replace(w, cpu_s=w.cpu_s * each) for w, each in zip(use.windows, (0.1, 1, 2), strict=True)
            ],
        )
        for use in first.inference
    ]
    found = paybacks(sharing([dataclasses.replace(first, inference=uses), *others], 3))
    assert {each.estimate.uses for each in found.values()} == {None}
    assert all("within the noise of the measurement" in each.estimate.reason for each in found.values())


def test_saving_is_measured_once_where_runs_share_that_of_the_teacher_alone() -> None:
    found = runs()
    mixed = [
        dataclasses.replace(
            r,
            inference=[u if u.role == "teacher" else dataclasses.replace(u, measured_in=None) for u in r.inference],
            payback=own.payback,
        )
        for r, own in zip(sharing(found, 3), found, strict=True)
    ]
    bill, teacher = paybacks(mixed)["all 3 runs here"], metrics.spread([0.0064 * each for each in (0.97, 1.0, 1.05)])
    assert teacher.high is not None
    half = teacher.high - teacher.value  # made-up windows of the students do not differ from run to run
    assert (bill.estimate.low, bill.estimate.high) == pytest.approx(
        (bill.build / (0.0032 + half), bill.build / (0.0032 - half))
    )


def test_payback_that_quality_hinders_says_by_how_much_and_what_was_allowed() -> None:
    (row, *_) = table_of(
        several.page(runs(QUALITIES | {"student": 0.85})), "Uses until the student has paid for itself"
    ).rows
    assert row[4] == "never"
    assert re.search(r"It is -7\.0 points from it \(95\xa0% interval -.* to -.*\), and the margin is", str(row[-1]))


def test_payback_in_days_follows_the_rate() -> None:
    for rate, head, days in ((None, "at 1,000 uses a day", "3.8 months"), (50_000.0, "at 50,000 uses a day", "3 days")):
        page = several.page(runs(), Evidence(uses_per_day=rate))
        assert table_of(page, "Uses until the student has paid for itself").rows[0][6] == days
        assert head in table_of(page, "Uses until the student has paid for itself").head


def test_payback_says_where_quality_within_the_margin_is_not_shown() -> None:
    rows = table_of(several.page(runs(n_items=200)), "Uses until the student has paid for itself").rows
    assert "within the margin is not shown" in str(rows[0][-1])


def test_what_runs_share_is_counted_both_ways() -> None:
    found = runs()
    assert not [s for s in several.page(found).sections if "share" in s.title]
    owing = [
        dataclasses.replace(
            r,
            phases=[
                dataclasses.replace(p, cpu_s=1.0, shared_cpu_s=182.4, shared_energy_j=2688.0)
                if p.name == "teacher"
                else p
                for p in r.phases
            ],
        )
        for r in found[1:]
    ]
    rows = {
        row[0]: row[1:4]
        for row in table_of(several.page([found[0], *owing]), "Two ways of counting what runs share").rows
    }
    assert rows["run-0"] == ["596", "0", "596"]
    assert rows["run-1"] == ["415", "182", "597"]
    assert rows["All runs"] == ["1,430", "365", "1,790"]
    assert paying.outside_debts([found[0], *owing], "CPU-s") == []  # the first run has paid
    assert paying.outside_debts(owing, "CPU-s") == [182.4]  # somebody else has, once for both
    other_teacher = [with_teacher(r, cpu_s=90.0) for r in found[:1]]
    assert paying.outside_debts([*other_teacher, *owing], "CPU-s") == [182.4]  # that one has paid for another


def with_teacher(record: RunRecord, **costs: float) -> RunRecord:
    """The run with other costs of the phase that made its teacher."""
    phases = [dataclasses.replace(p, **costs) if p.name == "teacher" else p for p in record.phases]  # type: ignore[arg-type]
    return dataclasses.replace(record, phases=phases)


def runs_of_one_teacher(*, contended: bool = False) -> list[RunRecord]:
    """Four seeds; the first has paid for the teacher, maybe beside other work, and the others read it."""
    payer, *others = runs(count=4)
    paid = next(p.cpu_s for p in payer.phases if p.name == "teacher")
    owing = {"cpu_s": 0.1, "shared_cpu_s": 0.999 * paid}
    return [dataclasses.replace(payer, contended=contended), *(with_teacher(r, **owing) for r in others)]


def test_bill_that_runs_share_is_one_measurement() -> None:
    shared, own = system(group_of(runs_of_one_teacher()), "teacher"), system(group_of(runs(count=4)), "teacher")
    assert shared.build("CPU-s").n == 1
    assert shared.build("CPU-s").low is None  # nothing is known of the chance in it
    assert own.build("CPU-s").n == 4
    student = system(group_of(runs_of_one_teacher()), "student")
    assert student.build("CPU-s").n == 4  # it was trained anew for each seed
    small = [
        with_teacher(r, cpu_s=3.5) if i == 0 else with_teacher(r, cpu_s=0.1, shared_cpu_s=3.1)
        for i, r in enumerate(runs())
    ]
    assert system(group_of(small), "teacher").build("CPU-s").n == 1
    assert paying.outside_debts(small, "CPU-s") == []  # opening and reading it cost the payer something too
    assert shared.build("CPU-s", caches=False).n == 4  # what each has paid itself


def test_what_a_run_on_a_shared_machine_made_for_others_is_not_ranked_by_its_cost() -> None:
    of_use, of_build = [
        cells(t, "place") for t in every_table(several.page(runs_of_one_teacher(contended=True)), "Mean over seeds")
    ]
    assert of_build["Teacher"] == "not comparable: a shared machine made what it has from the cache"
    assert of_build["TF-IDF"].startswith("on the front")
    assert "shared machine" not in of_use["Teacher"]
    quiet = every_table(several.page(runs_of_one_teacher()), "Mean over seeds")[1]
    assert "not comparable" not in cells(quiet, "place")["Teacher"]


def test_number_formats_are_systems_of_their_own_and_devices_are_never_ranked_together() -> None:
    model = classifier_record().model
    bf16, fp32 = ({**model, "device": "cpu", "number_format": found} for found in ("bf16", "fp32"))
    systems = group_of([*runs(model=fp32), *runs(model=bf16)]).systems
    assert [(s.label, len(s.records)) for s in systems if s.role == "student"] == [
        ("Student (number format fp32)", 3),
        ("Student (number format bf16)", 3),
    ]
    page = several.page([*runs(model=fp32), *runs(model={**fp32, "device": "cuda"})])
    assert page.title == "6 runs in 2 groups"
    assert table_of(page, "What differs").head == ["Group", "runs", "device"]


def test_run_without_a_record_that_fits_no_group_is_in_no_bill() -> None:
    other = runs(task="token-classification", recipe="distill_token_classifier")
    failed = Unfinished(run_id="x", recipe="pretrain_language_model", sweep_id=None, energy_j=9.0, cpu_s=1e6)
    groups = several.analysed([*runs(), *other], Evidence(unfinished=[failed]))
    assert [list(group.evidence.unfinished) for group in groups] == [[], []]
    (alone,) = several.analysed(runs(), Evidence(unfinished=[failed]))
    assert list(alone.evidence.unfinished) == [failed]


# --- should you distil? -----------------------------------------------------------------------------------------------


def test_the_cheapest_is_not_named_where_another_simple_model_beats_a_teacher_at_chance_level() -> None:
    def with_majority(**changes: Any) -> RunRecord:
        record = classifier_record(**changes)
        use = next(use for use in record.inference if use.role == "tfidf")
        cheaper = dataclasses.replace(use, role="majority", cpu_s_per_1000=0.01 * (use.cpu_s_per_1000 or 0.0))
        return dataclasses.replace(record, inference=[*record.inference, cheaper])

    chance = {"teacher": 0.300, "student": 0.300, "majority": 0.300}
    for tfidf, named in ((0.350, "TF-IDF"), (0.305, "the majority class")):
        found = runs(chance | {"tfidf": tfidf}, make=with_majority, n_items=10_000_000)
        assert advice(several.page(found)).startswith(f"Do not distil: {named} is within the margin")


@pytest.mark.parametrize(
    ("qualities", "expected"),
    [
        (
            QUALITIES,
            "Distil: the student is within the margin (1.0 points) of the teacher at 52 % of the processor time of a "
            "use, and it has paid for itself after 120,000 uses: ship that.",
        ),
        (
            QUALITIES | {"tfidf": 0.919},
            "Do not distil: TF-IDF is within the margin (1.0 points) of the teacher at 1.7 % of the processor time of "
            "a use: ship that.",
        ),
        (
            QUALITIES | {"label_only": 0.918},
            "Do not distil: the same student trained on labels alone at equal cost is within the margin (1.0 points) "
            "of the distilled one: ship that.",
        ),
        (
            QUALITIES | {"student": 0.80},
            "Do not distil like this: the student misses the margin (1.0 points) against the teacher (-12.0 points, "
            "95 % interval -12.3 to -11.7): use the teacher, or train another student.",
        ),
        (
            QUALITIES | {"student": 0.911},
            "Do not distil on this evidence: that the student is within the margin (1.0 points) of the teacher is not "
            "shown (-0.9 points, 95 % interval -1.1 to -0.7): more seeds or test items would tell; until then, use the "
            "teacher.",
        ),
        (
            QUALITIES | {"student": 0.80, "label_only": 0.918},
            "Do not distil like this: the student misses the margin (1.0 points) against the teacher (-12.0 points, "
            "95 % interval -12.3 to -11.7): use the student on labels alone, which is within it at 52 % of the "
            "processor time of a use, or train another student.",
        ),
        (
            {role: QUALITIES[role] for role in ("student", "tfidf")} | {"tfidf": 0.917},
            "No student here replaces another model: TF-IDF is within the margin (1.0 points) of the best, the "
            "student, at 3.3 % of the processor time of a use: ship that.",
        ),
    ],
)
def test_advice_follows_from_the_numbers(qualities: dict[str, float], expected: str) -> None:
    assert advice(several.page(runs(qualities, n_items=10_000_000))) == expected


def test_advice_of_a_student_that_never_pays_back_names_the_reason() -> None:
    found = [
        dataclasses.replace(r, payback=r.payback and dataclasses.replace(r.payback, saved_per_use=-0.001))
        for r in runs(n_items=10_000_000)
    ]
    said = advice(several.page(found))
    assert said.startswith("Distil for size or speed only: the student is within the margin")
    assert "never pays for itself, because a use of the student costs 0.001 CPU-s more than one of the teacher" in said


def test_advice_from_one_run_is_a_hint_and_a_smoke_run_gets_none() -> None:
    one = runs(count=1, n_items=10_000_000)[0]
    assert advice(several.page_of_one(one)).startswith("From 1 seed, so a hint and no verdict: distil: the student")
    few_items = advice(several.page_of_one(runs(count=1)[0]))  # one rule, however many seeds: the interval decides
    assert few_items.startswith(
        "From 1 seed, so a hint and no verdict: do not distil on this evidence: that the student"
    )
    assert "hint" in report.run_page(one)
    page = several.page_of_one(dataclasses.replace(one, smoke=True))
    assert several.ADVICE_TITLE not in {s.title for s in page.sections}


def with_layers(num_layers: int, quality: float, cost: float = 1.0, count: int = 3) -> list[RunRecord]:
    """Runs with a student of so many layers, a use of which costs so many times what it usually does."""
    return [
        dataclasses.replace(
            r,
            run_id=f"{r.run_id}-{num_layers}",
            config=r.config | {"num_layers": num_layers},
            inference=[
                dataclasses.replace(i, cpu_s_per_1000=cost * i.cpu_s_per_1000) if i.role == "student" else i
                for i in r.inference
            ],
        )
        for r in runs(QUALITIES | {"student": quality}, n_items=10_000_000, count=count)
    ]


def test_advice_is_for_a_student_with_seeds_enough_where_there_is_one() -> None:
    lucky = with_layers(2, 0.925, cost=0.6, count=1)
    said = advice(several.page([*with_layers(3, 0.915), *lucky]))
    assert said.startswith("Distil: the student (num layers 3) is within the margin")
    assert advice(several.page(lucky)).startswith("From 1 seed, so a hint and no verdict: distil: the student is")


def test_advice_is_for_a_simple_model_that_beats_a_cheaper_student() -> None:
    found = [*with_layers(1, 0.935, cost=0.01)]
    better = [
        dataclasses.replace(r, results=[*r.results[:-1], dataclasses.replace(
            r.results[-1], metrics={"accuracy": metric(0.96, 10_000_000)})])
        for r in found
    ]  # fmt: skip
    assert [r.results[-1].role for r in found] == ["tfidf"] * 3
    assert advice(several.page(found)).startswith("Distil: the student")
    assert advice(several.page(better)).startswith("Do not distil: TF-IDF is within the margin (1.0 points) of the")


def test_best_student_is_chosen_on_validation_and_not_on_test() -> None:
    def validated(found: Sequence[RunRecord], value: float) -> list[RunRecord]:
        return [dataclasses.replace(r, curve=[dataclasses.replace(r.curve[-1], value=value)]) for r in found]

    three, two = with_layers(3, 0.915), with_layers(2, 0.918)
    for on_validation, chosen in ((0.93, 3), (0.91, 2)):
        said = advice(several.page([*validated(three, on_validation), *validated(two, 0.92)]))
        assert said.startswith(f"Distil: the student (num layers {chosen}) is within the margin")


def test_advice_says_where_the_cost_of_a_use_was_measured_indicatively() -> None:
    indicative = [
        dataclasses.replace(r, inference=[dataclasses.replace(i, protocol="indicative") for i in r.inference])
        for r in runs(n_items=10_000_000)
    ]
    assert "% of the processor time of a use (indicative), and" in advice(several.page(indicative))
    assert "(indicative)" not in advice(several.page(runs(n_items=10_000_000)))


def test_advice_is_for_the_cheapest_student_that_is_good_enough() -> None:
    said = advice(several.page([*with_layers(3, 0.921, 1.0), *with_layers(2, 0.917, 0.6)]))
    assert said.startswith("Distil: the student (num layers 2) is within the margin (1.0 points) of the teacher at 31")
    assert "cheaper to use than the best, the student (num layers 3)" in said
    for quality, cost in ((0.905, 0.6), (0.917, 0.999)):  # not good enough; not cheaper beyond chance
        said = advice(several.page([*with_layers(3, 0.921, 1.0), *with_layers(2, quality, cost)]))
        assert said.startswith("Distil: the student (num layers 3)")


def with_control(record: RunRecord, quality: float) -> RunRecord:
    """The run with another quality of the student that learned from labels alone."""
    results = [
        dataclasses.replace(r, metrics={"accuracy": metric(quality, 10_000_000)}) if r.role == "label_only" else r
        for r in record.results
    ]
    return dataclasses.replace(record, results=results)


def test_advice_never_praises_a_teacher_that_did_not_help() -> None:
    found = runs(n_items=10_000_000)
    noisy = [with_control(r, q) for r, q in zip(found, (0.95, 0.919, 0.935), strict=True)]
    page = several.page(noisy)
    assert "beats the same student on labels alone at equal cost in 0 of 3 seeds" in report_text(page)
    assert advice(page).startswith(
        "Do not distil on this evidence: the student is better than the same one trained on labels alone at equal cost "
        "in 0 of 3 seeds, so that its teacher has helped is not shown: more seeds or test items would tell; until "
        "then, use the student, which is within it at"
    )
    dear = [dataclasses.replace(r, phases=[of_control(p, 1.2) for p in r.phases]) for r in noisy]
    assert "on labels alone at 1.22 times its cost in 0 of 3 seeds" in advice(several.page(dear))


def of_control(found: Phase, factor: float) -> Phase:
    """A phase, that of the control at so many times its cost."""
    return dataclasses.replace(found, cpu_s=factor * found.cpu_s) if found.name == "train_label_only" else found


def report_text(page: Page) -> str:
    return " ".join(b.text for s in page.sections for b in s.blocks if isinstance(b, Text)).replace("\u00a0", " ")


def test_summary_of_several_groups_counts_where_distilling_is_advised() -> None:
    other = dataclasses.replace(classifier_record().environment, fingerprint="ab" * 32)
    found = [*runs(n_items=10_000_000), *runs(QUALITIES | {"tfidf": 0.92}, n_items=10_000_000, environment=other)]
    page = several.page(found)
    assert page.summary.startswith("Of 2 groups with a student, distilling is advised in 1 and advised against in 1:")
    assert page.sections[0].title == several.ADVICE_TITLE
    assert "which model to ship now in each" in page.summary


# --- files and terminal -----------------------------------------------------------------------------------------------


@pytest.fixture
def sweep_folder(tmp_path: Path) -> Path:
    """Three complete runs with predictions, one that failed and one that was only a smoke run."""
    for i, each in enumerate(runs({"teacher": 0.92, "student": 0.9})):
        changed, path = answers(each, tmp_path / "sweep", {"teacher": range(80), "student": range(88 + i)})
        records.write_record(path.parent, changed)
    for name, smoke in (("failed", False), ("smoke", True)):
        folder = tmp_path / "sweep" / "deep" / name
        folder.mkdir(parents=True)
        about = {"run_id": name, "recipe": "distill_text_classifier", "smoke": smoke, "sweep": None}
        files.write_json(folder / "config.json", about)
        meter = energy.Meter("fake", journal=folder / "journal.jsonl", run_id=name)
        meter.start()
        meter.stop()
    return tmp_path / "sweep"


def test_report_takes_a_folder_of_runs_with_predictions_and_failures(sweep_folder, tmp_path, capsys) -> None:
    assert cli.main(["report", str(sweep_folder), "--out", str(tmp_path / "out"), "--uses-per-day", "500"]) == 0
    names = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert {"index.html", "report.md", "results.csv", "group1-use-cpu-s.svg", "group1-use-cpu-s.png"} <= names
    text = (tmp_path / "out" / "report.md").read_text()
    assert "1,000 paired" in text
    assert "all 3 runs here and 1 that never ended" in text
    assert "at 500 uses a day" in text
    assert "| failed | distill" in text


@pytest.fixture
def shared_sweep(tmp_path: Path) -> Path:
    """Three cells of a sweep on workers: two on one machine at the same time, and one after them."""
    spans = ("2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z"), ("2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z")
    for each, (start, end) in zip(runs(make=counted_record), (spans[0], spans[0], spans[1]), strict=True):
        cell = tmp_path / "sweep" / f"x,{each.run_id}"
        ran = dataclasses.replace(each, started_utc=start, ended_utc=end)
        (cell / "x" / each.run_id).mkdir(parents=True)
        records.write_record(cell / "x" / each.run_id, ran)
        stay = sweeps.Stay(cell=cell.name, node="n", owns_energy=True, started_utc=start, ended_utc=end)
        files.write_json(cell / "stay-1.json", records.to_json(stay))
    earlier = sweeps.Stay(cell="x,run-2", node="n", owns_energy=False, started_utc=spans[0][0], ended_utc=spans[0][1])
    files.write_json(tmp_path / "sweep" / "x,run-2" / "stay-0.json", records.to_json(earlier))  # a run that failed
    return tmp_path / "sweep"


def test_cells_that_shared_a_machine_are_marked_and_their_joules_not_ranked(shared_sweep, tmp_path, capsys) -> None:
    found, evidence = gathering.gather([str(shared_sweep)])
    assert evidence.beside == {"run-0": ["x,run-1", "x,run-2"], "run-1": ["x,run-0", "x,run-2"]}
    assert [r.contended for r in evidence.marked(found)] == [True, True, False]
    page = report.page_of(found, evidence)
    assert {*cells(table_of(page, "Mean over seeds"), "place").values()} == {"not comparable: shared machine"}
    assert "not comparable" not in str(table_of(report.page_of(found), "Mean over seeds").rows)  # but for the notes
    assert [row[8] for row in table_of(page, "Runs").rows] == ["counter, machine shared"] * 2 + ["counter"]
    assert table_of(page, "Runs that shared a machine").rows == [
        ["run-0", "of all that ran there", "x,run-1, x,run-2"],
        ["run-1", "of all that ran there", "x,run-0, x,run-2"],
    ]
    assert "In 2 of 3 runs: other work shared the machine" in " ".join(page.notices)
    assert verdict(group_of(evidence.marked(found), evidence), "student", "tfidf") == "better"  # of quality

    assert cli.main(["compare", str(shared_sweep)]) == 0
    assert "Who shared a machine" in capsys.readouterr().out
    (one,) = shared_sweep.glob("*/x/run-1")
    assert cli.main(["report", str(one), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "not comparable: shared machine" in text
    assert "| run-1 | of all that ran there | x,run-0, x,run-2 |" in text
    with (tmp_path / "out" / "results.csv").open() as lines:
        assert {row["contended"] for row in csv.DictReader(lines)} == {"True"}


def test_compare_prints_the_report_in_80_columns(sweep_folder, capsys) -> None:
    assert cli.main(["compare", *sorted(map(str, sweep_folder.glob("run-*")))]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for said in ("Do not distil", "Against the model that is replaced", "Mean over seeds", "1,000 paired"):
        assert said in out
    assert "…" not in out


def test_compare_refuses_what_holds_no_complete_run(sweep_folder, tmp_path, capsys) -> None:
    assert cli.main(["compare", str(sweep_folder / "deep")]) == 2
    assert "at least one run should be complete" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["compare", str(tmp_path / "empty")]) == 2
    assert "should be a run folder with a record.json, but has none" in capsys.readouterr().err
    assert cli.main(["compare", str(sweep_folder), "--uses-per-day", "0"]) == 2
    assert "should be more than 0" in capsys.readouterr().err


def test_show_says_whether_to_distil_and_what_it_took(tmp_path, capsys) -> None:
    records.write_record(tmp_path, classifier_record())
    assert cli.main(["show", str(tmp_path), "--uses-per-day", "2000"]) == 0
    out = " ".join(capsys.readouterr().out.replace("\u00a0", " ").split())
    assert "From 1 seed, so a hint and no verdict:" in out
    assert "of training to a share of the teacher's quality: 90 %: 48.0" in out
    assert "At 2,000 uses a day, building the student is repaid after 60 days." in out


def test_runs_with_other_training_rows_and_the_same_test_rows_are_compared() -> None:
    def with_rows(train: str, test: str) -> list[RunRecord]:
        notes = {"split_fingerprints": {"train": train, "test": test}}
        sources = [dataclasses.replace(s, fingerprint=train + test, notes=notes) for s in classifier_record().sources]
        return runs(sources=sources)

    assert len(several.analysed([*with_rows("a", "t"), *with_rows("b", "t")])) == 1
    assert len(several.analysed([*with_rows("a", "t"), *with_rows("a", "u")])) == 2


def test_systems_of_several_recipes_are_named_by_recipe_and_by_what_varies_within_it() -> None:
    one = [dataclasses.replace(r, config=r.config | {"temperature": t}) for t in (1.0, 2.0) for r in runs()]
    other = [dataclasses.replace(r, recipe="finetune", config={"seed": r.config["seed"], "rate": 0.1}) for r in runs()]
    names = [s.label for s in group_of([*one, *other]).systems if s.role == "student"]
    assert names == [
        "Student (recipe distill_text_classifier, temperature 1)",
        "Student (recipe distill_text_classifier, temperature 2)",
        "Student (recipe finetune)",
    ]


def test_students_of_many_recipes_are_compared_with_each_other() -> None:
    found = [
        dataclasses.replace(r, recipe=f"recipe_{i}", run_id=f"{r.run_id}-{i}")
        for i in range(4)
        for r in runs(QUALITIES | {"student": 0.85 + 0.02 * i})
    ]
    table = table_of(several.page(found), "Pair by pair")
    assert [str(row[0]) for row in table.rows] == [f"{i + 1} · Student (recipe recipe_{i})" for i in range(4)]
    assert table.rows[3][1:] == ["better", "better", "indistinguishable", "–"]


def test_p1_hostile_strings_are_inert_in_the_terminal(capsys) -> None:
    from smallmodels.cli import terminal

    terminal.compare([with_attack(r, MARKUP + "[red]x[/red]\x1b[31m\n") for r in runs()], report.NO_EVIDENCE)
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert not set("\x1b\x00\u202e") & set(out)
    assert max(map(len, out.splitlines())) <= 80
