import dataclasses
import itertools

import pytest
from sample_records import classifier_record, compared_records, counted_record, retriever_record

from smallmodels.records import RunRecord
from smallmodels.report import axes, figures, kinds, origins, pictures, several, single
from smallmodels.report.drawing import COLOURS, HEIGHT, PALETTE, Box, Drawing, Line, Sign, text_width
from smallmodels.report.page import MAX_BYTES, Page, Picture, Row, Section, Table, to_html


def tables(page: Page) -> dict[str, Table]:
    blocks = [block for section in page.sections for block in section.blocks]
    found = [b.table if isinstance(b, Picture) else b for b in blocks]
    return {table.caption: table for table in found if isinstance(table, Table)}


def drawing_of(page: Page, name: str) -> Drawing:
    return next(panel.figure for panel in page.panels() if panel.name == name)


def with_metric(record: RunRecord, **changes: object) -> RunRecord:
    results = [dataclasses.replace(r, **changes) if r.role == "student" else r for r in record.results]
    return dataclasses.replace(record, results=results)


# --- names ------------------------------------------------------------------------------------------------------------


def test_kinds_are_told_apart_by_the_settings_that_differ() -> None:
    found = kinds.kinds_of(compared_records())
    assert [(kind.difference, len(kind.records)) for kind in found] == [("temperature 2", 3), ("temperature 4", 3)]
    assert found[0].name == "temperature 2"


def test_kinds_of_other_recipes_need_no_settings() -> None:
    found = kinds.kinds_of([classifier_record(), retriever_record()])
    assert [kind.difference for kind in found] == ["recipe distill_text_classifier", "recipe quickstart"]


def test_kinds_of_one_kind_are_called_by_their_recipe() -> None:
    found = kinds.kinds_of(compared_records((2.0,)))
    assert [(kind.difference, kind.name) for kind in found] == [("", "distill_text_classifier")]


def test_seed_names_add_the_id_only_where_a_seed_repeats() -> None:
    runs = compared_records((2.0,))
    assert kinds.seed_names(runs) == ["seed 0", "seed 1", "seed 2"]
    twice = [dataclasses.replace(r, config=r.config | {"seed": 0}, run_id=f"run-{i:06}") for i, r in enumerate(runs)]
    assert kinds.seed_names(twice) == ["seed 0 000000", "seed 0 000001", "seed 0 000002"]


# --- axes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[3.0, 3.1], [1.0, 50.0], [2e-6, 3e5], [0.0, 4.0, 7.0], [5.0], [0.0]], ids=str)
def test_logarithmic_axis_holds_its_values_and_names_some(values: list[float]) -> None:
    scale = axes.logarithmic(values, start=10.0, end=110.0)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(10 <= place <= 110 for place in places)
    assert 2 <= len(scale.ticks) <= 7
    ticks = [scale.place(tick) for tick in scale.ticks]
    assert all(b - a > 5 for a, b in itertools.pairwise(ticks))


def test_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    scale = axes.logarithmic([1.0, 1000.0], start=0.0, end=300.0)
    steps = [scale.place(10.0 ** (i + 1)) - scale.place(10.0**i) for i in range(3)]
    assert steps == pytest.approx([steps[0]] * 3)


# --- phases -----------------------------------------------------------------------------------------------------------


def test_bars_are_as_long_as_their_costs_and_sum_to_the_run() -> None:
    record = classifier_record()
    drawing = drawing_of(single.page(record), "phases-cpu-s")
    boxes = {m.says.partition(" ")[0]: m.items[0] for m in drawing.marks() if isinstance(m.items[0], Box)}
    costs = {phase.name: phase.cpu_s for phase in record.phases}
    assert set(boxes) == {"setup", "teacher", "train", "train_label_only", "evaluate", "inference", "everything"}
    per_second = {name: (box.width + 0.7) / costs[name] for name, box in boxes.items() if name in costs}
    assert per_second["train"] == pytest.approx(per_second["teacher"])
    whole = sum(box.width + 0.7 for box in boxes.values())
    assert whole == pytest.approx(per_second["train"] * record.cpu_s, rel=0.02)


def test_bars_differ_in_pattern_as_well_as_in_colour() -> None:
    drawing = drawing_of(single.page(classifier_record()), "phases-cpu-s")
    styles = [(box.colour, box.pattern) for mark in drawing.marks() for box in mark.items if isinstance(box, Box)]
    assert len({pattern for _, pattern in styles}) == len({colour for colour, _ in styles}) == len(styles)


def test_phases_of_several_runs_have_a_bar_and_a_row_for_each() -> None:
    runs = compared_records()
    page = several.page(runs)
    marks = drawing_of(page, "group1-phases-cpu-s").marks()
    assert list(dict.fromkeys(mark.row for mark in marks)) == [run.run_id for run in runs]
    table = tables(page)["Cost by phase, run by run"]
    assert [row[0] for row in table.rows] == [run.run_id for run in runs]
    assert "train, CPU-s" in table.head
    assert "estimated J, whole run" in table.head


def test_phases_of_counted_energy_are_drawn_in_joules_alone() -> None:
    assert [p.name for p in pictures.phases.panels_of_one(counted_record())] == ["phases-j"]


def test_phases_of_very_many_runs_are_means_over_seeds() -> None:
    runs = compared_records(tuple(float(t) for t in range(1, 12)))
    section = pictures.phases.section(runs, "", "x")
    assert section is not None
    picture = section.blocks[1]
    assert isinstance(picture, Picture)
    labels = {mark.says.partition(":")[0] for mark in picture.panels[0].figure.marks()}
    assert len(labels) == 11
    assert len(picture.table.rows) == 33


def test_phase_without_joules_draws_no_joules() -> None:
    phases = [dataclasses.replace(p, energy_j=None) for p in classifier_record().phases]
    record = classifier_record(phases=phases, energy_j=None)
    assert [p.name for p in pictures.phases.panels_of_one(record)] == ["phases-cpu-s"]


# --- payback ----------------------------------------------------------------------------------------------------------


def test_payback_lines_meet_where_the_record_says() -> None:
    record = classifier_record()
    drawing = drawing_of(single.page(record), "payback")
    student, teacher, meeting = [mark.touch for mark in drawing.marks()]
    x = meeting[0][0]
    assert record.payback is not None
    for line in (student, teacher):
        (x1, y1), (x2, y2) = line[0], line[-1]
        assert y1 + (y2 - y1) * (x - x1) / (x2 - x1) == pytest.approx(meeting[0][1], abs=1.0)
    assert "about 120,000 uses" in drawing.marks()[2].says


def test_payback_never_draws_the_lines_and_says_why() -> None:
    page = single.page(retriever_record())
    panel = next(p for p in page.panels() if p.name == "payback")
    assert "but never: the student's quality is not close enough" in panel.alt.replace("\u00a0", " ")
    assert len(panel.figure.marks()) == 2
    assert len(tables(page)["CPU-seconds after so many uses"].rows) == 4


def test_payback_of_several_has_a_line_for_each_row_that_crosses_where_the_table_says() -> None:
    page = several.page(compared_records())
    drawing = drawing_of(page, "group1-payback")
    marks = drawing.marks()
    rows = tables(page)["Uses until the student has paid for itself"].rows
    assert [mark.row for mark in marks] == [row[0] for row in rows]
    level = next(i for i in drawing.items if isinstance(i, Line) and i.dash == (5, 4)).places[0][1]
    for mark, row in zip(marks, rows, strict=True):
        assert f"after about {row[4]} uses" in mark.says
        depths = [y for _, y in mark.touch]
        assert depths == sorted(depths)  # the more uses, the cheaper each
        (sign,) = [item for item in mark.items if isinstance(item, Sign)]
        assert sign.y == pytest.approx(level, abs=0.1)


def test_payback_of_several_tells_models_by_colour_and_ways_of_counting_by_dash() -> None:
    lines = [mark.items[0] for mark in drawing_of(several.page(compared_records()), "group1-payback").marks()]
    styles = [(line.colour, line.dash) for line in lines if isinstance(line, Line)]
    assert len({colour for colour, _ in styles}) == 2
    assert len(set(styles)) == len(styles) == len(lines)


def test_payback_needs_what_a_use_costs() -> None:
    assert pictures.payback.panel_of_one(classifier_record(inference=[])) is None
    assert pictures.payback.panel_of_one(classifier_record(smoke=True)) is None
    page = several.page([classifier_record(inference=[], run_id=name) for name in "ab"])
    assert "group1-payback" not in {panel.name for panel in page.panels()}


# --- names of lines ---------------------------------------------------------------------------------------------------


def drawn_lines(names: tuple[str, ...], heights: tuple[float, ...] = ()) -> Drawing:
    x, y = axes.linear(0.0, 1.0, start=58.0, end=386.0), axes.linear(0.0, 1.0, start=274.0, end=26.0)
    series = [
        figures.Series(label=name, xs=[0.0, 1.0], ys=[0.1 * i, 0.2 * i], says=name, style=i)
        for i, name in enumerate(names)
    ]
    levels = [(f"level {height}", height) for height in heights]
    return figures.lines(series, x_label="cost", y_label="quality", x=x, y=y, levels=levels)


def test_short_names_stand_at_their_lines_and_long_ones_in_a_key_inside_the_picture() -> None:
    assert drawn_lines(("Student", "Teacher")).height == HEIGHT
    names = (*(f"Student (recipe distill_text_classifier, temperature {i})" for i in range(14)), "x" * 100)
    drawing = drawn_lines(names)
    beneath = [words for words in drawing.words() if words.y > HEIGHT]
    assert [words.text for words in beneath] == [*names[:12], "and 3 more"]
    assert max(words.y for words in beneath) <= drawing.height
    assert all(words.x + text_width(words.text, words.size) <= drawing.width for words in beneath)
    (cut,) = [words.text for words in drawn_lines(("Student", "x" * 100)).words() if words.text.startswith("xx")]
    assert cut.endswith("x…")


def test_names_of_levels_that_would_cover_each_other_are_left_out() -> None:
    shown = [words.text for words in drawn_lines(("a",), (0.5, 0.51, 0.9)).words()]
    assert [name for name in shown if name.startswith("level")] == ["level 0.5", "level 0.9"]


def test_name_of_a_level_stands_at_the_end_where_no_line_is() -> None:
    def anchor(heights: list[float]) -> str:
        x, y = axes.linear(0.0, 1.0, start=58.0, end=386.0), axes.linear(0.0, 1.0, start=274.0, end=26.0)
        series = [figures.Series(label="a", xs=[0.0, 0.5, 1.0], ys=heights, says="a")]
        drawing = figures.lines(series, x_label="x", y_label="y", x=x, y=y, levels=[("level", 0.5)])
        return next(words.anchor for words in drawing.words() if words.text == "level")

    assert anchor([0.5, 0.55, 1.0]) == "end"
    assert anchor([0.0, 0.45, 0.52]) == "start"


# --- parts and origins ------------------------------------------------------------------------------------------------


def test_classes_over_several_runs_are_means_worst_first() -> None:
    rows = [{"label": "good", "f1": 0.9, "support": 5}, {"label": "bad", "f1": 0.4, "support": 5}]
    other = [{"label": "good", "f1": 0.8, "support": 5}, {"label": "bad", "f1": 0.6, "support": 5}]
    runs = [with_metric(r, per_class=c) for r, c in zip(compared_records((2.0,), 2), (rows, other), strict=True)]
    table = tables(several.page(runs))["F1 of each class, the worst first"]
    assert table.rows == [["bad", "0.500"], ["good", "0.850"]]


def test_groups_over_several_kinds_have_a_column_each() -> None:
    groups = [{"group": "de", "n": 9, "accuracy": 0.9}, {"group": "sw", "n": 9, "accuracy": 0.5}]
    runs = [with_metric(r, groups=groups) for r in compared_records((2.0, 4.0), 1)]
    table = tables(several.page(runs))["Accuracy of each group, the worst first"]
    assert table.head == ["Group", "temperature 2", "temperature 4"]
    assert table.rows == [["sw", "50.0\u00a0%", "50.0\u00a0%"], ["de", "90.0\u00a0%", "90.0\u00a0%"]]


def test_every_row_can_be_repeated() -> None:
    runs = compared_records()
    table = tables(several.page(runs))["Where each row comes from"]
    assert [row[0] for row in table.rows] == [run.run_id for run in runs]
    assert [row[1] for row in table.rows] == [run.command for run in runs]
    assert {row[4] for row in table.rows} == {runs[0].environment.fingerprint[:12]}


def test_limits_say_how_many_runs_they_hold_for() -> None:
    runs = [classifier_record(run_id="a", limits=["x", "y"]), classifier_record(run_id="b", limits=["y"])]
    section = origins.sections(runs)[0]
    lines = [line for block in section.blocks for line in getattr(block, "lines", [])]
    assert lines[:2] == ["In 1 of 2 runs: x", "y"]
    assert any(line.startswith("modelled: ") for line in lines)


def test_sections_of_a_group_share_a_link() -> None:
    other = [dataclasses.replace(r, task="another", run_id=f"x{r.run_id}") for r in compared_records()]
    page = several.page([*compared_records(), *other])
    titles = [section.title for section in page.sections]
    links, names = page.links(), ["PolyAI/banking77 (1)", "PolyAI/banking77 (2)"]
    assert [*links][:4] == ["Should you distil at all?", "Why they are not ranked together", *names]
    assert titles[links[names[1]] - 1].startswith(f"{names[1]}: ")
    assert not titles[links[names[1]] - 2].startswith(f"{names[1]}: ")
    assert to_html(page).count('href="#s') == 1 + len(links)


# --- colours ----------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    bright, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks_for(theme: int) -> None:
    colours = {name: pair[theme] for name, pair in PALETTE.items()}
    for name in ("ink", "soft", "student"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    assert contrast(colours["soft"], colours["back"]) >= 4.5
    for name in COLOURS:
        assert contrast(colours[name], colours["paper"]) >= 3, name


def test_page_of_many_groups_stays_small_and_says_what_is_left_out() -> None:
    runs = []
    for i in range(12):
        other = dataclasses.replace(classifier_record().environment, fingerprint=f"{i:02}" * 32)
        runs += [dataclasses.replace(r, environment=other, run_id=f"{i}-{r.run_id}") for r in compared_records()]
    page = several.page(runs)
    text = to_html(page)
    assert len(text.encode()) < MAX_BYTES
    assert text.count("<svg viewBox") < len(page.panels())
    left_out = [p.name for p in page.panels() if f"ends in {p.name}.svg" in text]
    assert left_out
    assert text.count("<svg viewBox") + len(left_out) == len(page.panels())
    ranked = [p.name for p in page.panels() if p.heading.endswith(", ranked")]
    assert ranked[0] not in left_out
    assert "more rows are left out here to keep the page small" in text


def test_sum_at_the_end_of_a_table_stays_where_rows_are_left_out() -> None:
    rows: list[Row] = [*([f"run {i}", "x" * 1900] for i in range(400)), ["All runs", "the sum"]]
    table = Table(caption="What runs share", head=["Run", "cost"], rows=rows, strong=(400,))
    text = to_html(Page(title="", kicker="", summary="", sections=[Section("", [table])]))
    assert "201 more rows are left out here to keep the page small" in text
    assert ("run 198<" in text, "run 199<" in text) == (True, False)
    assert '<tr class="strong"><th scope="row">All runs</th>' in text
