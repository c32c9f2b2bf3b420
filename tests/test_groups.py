"""Groups of test items, such as languages: what each costs, and how page and card show them."""

import dataclasses

import pytest
from markdown_it import MarkdownIt
from sample_records import classifier_record
from small_data import FP32, classifier, embedder, split

from smallmodels import evaluation, records
from smallmodels.cards import model_card
from smallmodels.data.splits import Split
from smallmodels.report import single
from smallmodels.report.groups import extremes, table_of

ROWS = [
    {
        "group": "de",
        "n": 1379,
        "spearman": 0.7123,
        "spearman_low": 0.69,
        "spearman_high": 0.73,
        "tokens_per_word": 1.52,
        "energy_wh_per_1000": 0.0321,
        "energy_label": "modelled",
        "cpu_s_per_1000": 4.25,
    },
    {"group": "zh|x", "n": 1379, "spearman": None, "tokens_per_word": 0.93, "energy_wh_per_1000": None},
]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" … !? ", 0),
        ("A plane is taking off.", 5),
        ("Don't, l’homme 3 times", 4),
        ("हिन्दी भाषा", 2),  # vowel signs are marks, which a regular expression takes for the end of a word
        ("一架飞机。", 4),
        ("A4 纸", 2),
        ("Самолет взлетает.", 2),
    ],
)
def test_num_words_counts_words_and_characters_of_scripts_without_spaces(text, count):
    assert evaluation.num_words(text) == count


@pytest.mark.parametrize("make", [classifier, embedder])
def test_language_costs_are_of_each_language_by_the_models_own_tokens(tiny_model_folder, make):
    model = make(tiny_model_folder)
    short = Split("test", ["a", "b"], ["good film", "bad film"])
    long = Split("test", ["c", "d"], ["mm mm mm film", "mmm film " * 30])  # cut off at 32 tokens, and counted whole
    rows = evaluation.language_costs(model, {"en": short, "mm": long}, protocol="smoke", window_s=0.02, compute=FP32)
    assert [row["group"] for row in rows] == ["en", "mm"]
    assert (rows[0]["tokens_per_text"], rows[0]["tokens_per_word"]) == (2, 1)
    assert rows[1]["tokens_per_text"] == (3 * 2 + 1 + 30 * (3 + 1)) / 2
    assert rows[1]["tokens_per_word"] == rows[1]["tokens_per_text"] * 2 / (4 + 60)
    assert all(row["cpu_s_per_1000"] > 0 for row in rows)
    assert [row["unknown_fraction"] for row in rows] == [0, 0]


def test_a_script_that_the_tokenizer_cannot_write_is_not_taken_for_a_cheap_one(tiny_model_folder):
    model = embedder(tiny_model_folder)
    few = {"am": Split("test", ["a"], ["ሰላም ዓለም"]), "en": Split("test", ["b"], ["good ሰላም"])}
    rows = evaluation.language_costs(model, few, protocol="smoke", window_s=0.01, compute=FP32)
    assert [row["tokens_per_word"] for row in rows] == [1, 1]
    assert [row["unknown_fraction"] for row in rows] == [1, 0.5]
    table = table_of(rows)
    assert [row[table.head.index("unknown tokens")] for row in table.rows] == ["100.0\u00a0%", "50.0\u00a0%"]
    assert "a text is not read" in " ".join(table.notes)


def test_language_costs_without_a_meter_are_not_known_and_not_zero(tiny_model_folder):
    model = embedder(tiny_model_folder)
    few = split(model.tokenizer, 4)
    (row,) = evaluation.language_costs(model, {"en": few}, protocol="smoke", window_s=0.01, compute=FP32)
    assert row["energy_wh_per_1000"] is None


def with_groups(rows):
    base = classifier_record()
    results = [dataclasses.replace(r, groups=rows) if r.role in ("student", "teacher") else r for r in base.results]
    return dataclasses.replace(base, results=results)


def test_table_has_a_column_for_each_thing_known_with_intervals_beside_values():
    table = table_of(ROWS)
    assert table.head[:4] == ["Group", "test items", "spearman", "tokens per word"]
    assert table.head[4:] == ["estimated Wh per 1,000 texts", "joules are", "CPU-s per 1,000 texts"]
    assert table.rows[0][1:4] == ["1,379", "0.712 (0.690–0.730)", "1.52"]
    assert table.rows[1][2] == table.rows[1][4] == "–"
    assert table.text_columns == (5,)
    assert table_of([{"group": "a", "energy_wh_per_1000": 1.0, "energy_label": "counter"}]).head[1][:2] == "Wh"


def test_page_and_card_show_the_groups_of_the_student_first():
    record = with_groups(ROWS)
    section = next(s for s in single.page(record).sections if s.title == "Group by group")
    assert [table.caption for table in section.blocks] == ["Student, group by group", "Teacher, group by group"]
    card = model_card(record)
    assert "zh\\|x" in card
    assert "estimated Wh" in MarkdownIt("commonmark").enable("table").render(card)
    assert "Group by group" not in model_card(classifier_record())


def test_records_without_groups_are_read_and_groups_are_read_back(tmp_path):
    record = with_groups(ROWS)
    records.write_record(tmp_path, record)
    assert records.read_record(tmp_path).result("student").groups == ROWS
    value = records.to_json(classifier_record().results[0])
    del value["groups"]
    assert records.from_json(records.Result, value).groups == []


SHARES = (("deu", 0.8), ("quy", 0.471), ("eng", 0.9))


def test_page_and_card_name_the_worst_and_the_best_group():
    rows = [{"group": name, "accuracy": a, "accuracy_low": a - 0.1, "accuracy_high": a + 0.1} for name, a in SHARES]
    said = "Accuracy is worst in quy (47.1\u00a0%) and best in eng (90.0\u00a0%)."
    record = with_groups(rows)
    assert extremes(rows) == [said]
    assert said in model_card(record)
    section = next(s for s in single.page(record).sections if s.title == "Group by group")
    assert all(said in table.note for table in section.blocks)
    assert extremes(rows[:1]) == extremes(ROWS) == []
