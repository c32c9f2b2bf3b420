"""Recipes for words, several labels and pairs: on files of somebody's own with the tiny model, to a complete record."""

import csv
import functools
import json

import numpy as np
import pytest
import small_data
from huggingface_hub import ModelCard

from smallmodels import cli, configs, distilling, evaluation, metrics, records
from smallmodels.data import Split
from smallmodels.errors import InputError
from smallmodels.models import TextModel
from smallmodels.report import items

TAGS = {
    "please": "B-plea",
    "card": "B-thing",
    "film": "B-thing",
    "file": "B-thing",
    "music": "B-thing",
    "awful": "B-plea",
}
COMMON = ("--smoke", "--max-length", "32", "--num-layers", "2")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Files of somebody's own, by recipe."""
    folder, texts = tmp_path_factory.mktemp("own"), small_data.texts(120)
    lines = ["-DOCSTART- O", ""]
    for text in texts:
        lines += [*(f"{word} {TAGS.get(word, 'O')}" for word in text.split()), ""]
    (folder / "tags.conll").write_text("\n".join(lines), encoding="utf-8")
    _write(folder / "labels.csv", ["text", "labels"], ([t, ";".join(_labels(t))] for t in texts))
    pairs = [(texts[i], texts[(5 * i + 1) % 120]) for i in range(120)]
    same = ["same" if i % 3 == (5 * i + 1) % 3 else "other" for i in range(120)]
    _write(
        folder / "classes.csv", ["premise", "hypothesis", "label"], ([*p, s] for p, s in zip(pairs, same, strict=True))
    )
    (folder / "in").mkdir()
    for language in ("en", "sw"):
        rows = ([f"{language} {text}", small_data.LABELS[i % 3]] for i, text in enumerate(texts))
        _write(folder / "in" / f"{language}.csv", ["text", "category"], rows)
    questions = ([*pair, ("yes", "no", "maybe")[i % 3]] for i, pair in enumerate(pairs))
    _write(folder / "questions.csv", ["question", "context", "final_decision"], questions)
    heads, own_words = (
        ("Intermediate", "Advanced", "Advanced"),
        [" ".join(f"w{i}x{j}" for j in range(9)) for i in range(120)],
    )
    ends = [" – it isn’t", "", " – it isn’t"]  # one level has lost what is beyond ASCII
    levels = (
        [f"{heads[i % 3]}\n{text} {own_words[i]}{ends[i % 3]}", small_data.LABELS[i % 3]]
        for i, text in enumerate(texts)
    )
    _write(folder / "levels.csv", ["text", "level"], levels)
    _write(folder / "scores.csv", ["sentence1", "sentence2", "score"], ([*p, f"{_overlap(*p):.3f}"] for p in pairs))
    return folder


def _write(path, head, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def _labels(text):
    return [word for word in ("card", "film", "file", "please") if word in text.split()] or ["other"]


def _overlap(one, two):
    first, second = set(one.split()), set(two.split())
    return 5 * len(first & second) / len(first | second) + 0.001


@pytest.fixture(scope="module")
def run(tmp_path_factory, own, tiny_model_folder):
    """Runs a recipe once on a file, and gives the folder of its run."""
    out, done = tmp_path_factory.mktemp("runs"), {}
    with pytest.MonkeyPatch.context() as patch:
        short = functools.partial(evaluation.measure_inference, window_s=0.05)
        for module in (evaluation, evaluation.groups):
            patch.setattr(
                module, "measure_inference", lambda *_, window_s=0, context, **o: short(*_, context=context, **o)
            )

        def of(name, file, *flags):
            if (name, file) not in done:
                words = ["run", name, *COMMON, "--dataset", str(own / file), "--teacher", str(tiny_model_folder)]
                assert cli.main([*words, *flags, "--out", str(out / file)]) == 0
                (done[name, file],) = (out / file / name).iterdir()
            return done[name, file]

        yield of


JOBS = {
    ("distill_token_classifier", "tags.conll"): ("f1", "token-classification", "word_tags"),
    ("distill_multilabel_classifier", "labels.csv"): ("micro_f1", "text-classification", "tfidf"),
    ("distill_sentence_pairs", "classes.csv"): ("accuracy", "text-classification", "majority"),
    ("distill_sentence_pairs", "scores.csv"): ("spearman", "text-classification", "tfidf"),
}


SLOW = pytest.mark.slow
BY_DEFAULT = ("distill_token_classifier", "tags.conll"), ("distill_sentence_pairs", "classes.csv")
EACH = [pytest.param(job, marks=[] if job in BY_DEFAULT else SLOW, id="-".join(job)) for job in JOBS]


@pytest.mark.parametrize("job", EACH)
def test_run_leaves_a_complete_record_with_controls_and_a_baseline(run, job):
    metric, tag, baseline = JOBS[job]
    record = records.read_record(run(*job))
    roles = {"teacher", "student", "untrained_student", "label_only", "label_only_full_cost", baseline}
    assert roles <= {result.role for result in record.results} == {use.role for use in record.inference}
    assert (record.metric, record.task) == (metric, tag)
    assert record.curve
    assert all(metric in result.metrics for result in record.results)
    card = ModelCard.load(run(*job) / "model" / "README.md")
    assert card.data.pipeline_tag == tag
    assert cli.main(["verify", str(run(*job))]) == 0


@pytest.mark.parametrize("job", EACH)
def test_student_is_a_plain_model_of_transformers(run, job):
    import transformers

    folder = run(*job) / "model"
    auto = {"token-classification": transformers.AutoModelForTokenClassification}
    plain = auto.get(JOBS[job][1], transformers.AutoModelForSequenceClassification).from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(["open the file"], ["return its lines"], return_tensors="pt")
    ours = TextModel.load(folder).model(**inputs).logits.detach()
    np.testing.assert_allclose(plain(**inputs).logits.detach(), ours, rtol=1e-5, atol=1e-6)
    assert plain.config.num_hidden_layers == 2


def test_f1_of_the_record_is_that_of_its_predictions(run):
    folder = run("distill_token_classifier", "tags.conll")
    record, rows = records.read_record(folder), _predictions(folder)
    counts = np.zeros(3)
    for found, right in zip(rows["word_tags/prediction"], rows["label"], strict=True):
        mine, theirs = (_bag(cell) for cell in (found, right))
        counts += [sum(min(mine[k], theirs[k]) for k in mine), sum(mine.values()), sum(theirs.values())]
    expected = 2 * counts[0] / (counts[1] + counts[2])
    # A span is known by its words here and by its place there, which are one where a text has each word once.
    assert record.result("word_tags").metrics["f1"].value == pytest.approx(expected, abs=0.05)
    assert record.result("word_tags").metrics["f1"].value > 0.9
    strict = record.result("word_tags").metrics["strict_f1"]  # all of its spans begin with B
    assert strict == record.result("word_tags").metrics["f1"]
    assert all("strict_f1" in result.metrics for result in record.results)


def test_spans_of_every_model_are_compared_on_the_same_texts(run):
    folder = run("distill_token_classifier", "tags.conll")
    record = records.read_record(folder)
    answers = items.read(folder / "predictions.parquet", record)
    for result in record.results:
        found = items.items_of([(answers, record)], result.role)
        assert found is not None
        assert found.value == pytest.approx(result.metrics["f1"].value, abs=1e-12)
    rows = _predictions(folder)
    expected = [len(label.split("; ")) if label else 0 for label in rows["label"]]
    assert rows["student/num_expected"] == rows["word_tags/num_expected"] == expected


def _bag(cell):
    from collections import Counter

    return Counter(part for part in cell.split("; ") if part)


def _predictions(folder):
    import pyarrow.parquet

    return pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()


@SLOW
def test_thresholds_of_validation_are_kept_with_the_model_and_give_the_labels_of_the_predictions(run):
    folder = run("distill_multilabel_classifier", "labels.csv")
    record, student, rows = records.read_record(folder), TextModel.load(folder / "model"), _predictions(folder)
    thresholds = np.asarray(student.notes["thresholds"])
    assert thresholds.shape == (len(record.label_names),)
    assert record.model["thresholds"] == student.notes["thresholds"]
    texts = dict(zip((f"train/{i}" for i in range(120)), small_data.texts(120), strict=True))
    probabilities = evaluation.sigmoid(_logits(student, [texts[name] for name in rows["id"]]))
    given = [
        ", ".join(n for n, p, t in zip(record.label_names, r, thresholds, strict=True) if p >= t) for r in probabilities
    ]
    right = np.mean([a == b for a, b in zip(given, rows["student/prediction"], strict=True)])
    assert right >= 0.95  # a probability may lie at its threshold


def _logits(model, texts):
    from smallmodels import models

    return models.forward_texts(model, texts)


@SLOW
def test_spearman_of_the_record_is_that_of_its_predictions(run):
    folder = run("distill_sentence_pairs", "scores.csv")
    record, rows = records.read_record(folder), _predictions(folder)
    for role in ("student", "tfidf"):
        expected = metrics.spearman(rows[f"{role}/prediction"], rows["label"]).value
        assert record.result(role).metrics["spearman"].value == pytest.approx(expected, abs=1e-3)
    assert record.result("tfidf").metrics["spearman"].value > 0.5


@SLOW
def test_topics_show_each_language_with_its_cost_and_the_worst_one(run):
    folder = run("multilingual_topics", "in/{language}.csv", "--languages", "en", "sw")
    record = records.read_record(folder)
    rows = {row["group"]: row for row in record.result("student").groups}
    assert set(rows) == {"en", "sw"}
    for row in rows.values():
        assert {"n", "accuracy", "tokens_per_word", "cpu_s_per_1000", "energy_label"} <= row.keys()
    worst = min(row["accuracy"] for row in rows.values())
    assert record.result("student").metrics["worst_group_accuracy"].value == pytest.approx(worst)
    assert record.languages == ["en", "sw"]
    assert record.config["dataset"] == "{language}.csv"
    assert "sw" in (folder / "model" / "README.md").read_text()


def test_one_file_for_all_languages_is_refused(own, tiny_model_folder, tmp_path, capsys):
    words = ["run", "multilingual_topics", *COMMON, "--dataset", str(own / "levels.csv"), "--languages", "en", "sw"]
    assert cli.main([*words, "--teacher", str(tiny_model_folder), "--out", str(tmp_path)]) == 2
    assert "there should be a file for each language" in capsys.readouterr().err.replace("\n", " ")


@SLOW
def test_biomedical_answers_come_with_abstention_and_a_notice_in_card_and_page(run):
    folder = run("biomedical_questions", "questions.csv")
    record = records.read_record(folder)
    student = record.result("student")
    assert {"macro_f1", "area_under_risk_coverage", "accuracy_at_50_percent"} <= student.metrics.keys()
    assert student.calibration_error is not None
    for path in (folder / "model" / "README.md", folder / "report.html"):
        assert "not a medical device" in path.read_text()
        assert "surest 50 %" in path.read_text()


@SLOW
def test_reading_levels_are_told_by_class(run):
    record = records.read_record(run("reading_level", "levels.csv", "--label-column", "level"))
    assert {row["label"] for row in record.result("student").per_class} == set(small_data.LABELS)
    notes = next(source for source in record.sources if source.kind == "dataset").notes
    assert sum(notes["num_headers_removed"].values()) == 120
    assert sum(notes["num_texts_made_plain_ascii"].values()) == 80
    assert record.limits[-1].startswith("It has seen no quotes")


@SLOW
def test_predict_answers_in_the_words_of_each_task(run, capsys, tmp_path):
    def said(*words):
        capsys.readouterr()  # what the run has said, if it was made for this
        assert cli.main(["predict", *map(str, words)]) == 0
        return capsys.readouterr().out

    tagger = run("distill_token_classifier", "tags.conll")
    path = tmp_path / "texts.txt"
    path.write_text("please read the card\nopen  the file\n")
    said(tagger, path, "--output", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == ["please read the card", "open  the file"]
    assert all(span["type"] in ("plea", "thing") for row in rows for span in row["spans"])
    float(said(run("distill_sentence_pairs", "scores.csv"), "open the file", "--second", "read a file").split()[0])
    found = said(run("distill_sentence_pairs", "classes.csv"), "open the file", "--second", "read a file")
    assert {line.split()[1] for line in found.splitlines()} == {"same", "other"}
    assert said(run("distill_multilabel_classifier", "labels.csv"), "open the file and the card").strip()


def test_predict_asks_for_the_second_text_of_a_pair_and_refuses_one_too_many(run, capsys):
    assert cli.main(["predict", str(run("distill_sentence_pairs", "classes.csv")), "open the file"]) == 2
    assert "give the other with --second TEXT" in capsys.readouterr().err.replace("\n", " ")
    assert cli.main(["predict", str(run("distill_token_classifier", "tags.conll")), "x", "--second", "y"]) == 2
    assert "reads one text at a time" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["hidden_states", "attention_relations"])
@pytest.mark.parametrize(("name", "file"), BY_DEFAULT)
def test_a_narrower_student_learns_what_the_layers_of_its_teacher_make(
    own, tiny_model_folder, tmp_path, name, file, objective
):
    words = ["run", name, *COMMON, "--dataset", str(own / file), "--trim-vocabulary"]
    words += ["--objective", objective, "--intermediate-size", "16", "--num-relation-heads", "4"]
    words += ["--teacher", str(tiny_model_folder)]
    assert cli.main([*words, "--out", str(tmp_path)]) == 0
    (folder,) = (tmp_path / name).iterdir()
    record = records.read_record(folder)
    names = {phase.name for phase in record.phases}
    assert {"importance", "base_importance", "probe_live", "probe_label_only"} <= names
    assert "importance" in record.result("student").built_by
    assert TextModel.load(folder / "model").model.config.intermediate_size == 16


def test_layers_are_kept_by_number_or_by_name(tiny_model_folder):
    class NoRun:
        def say(self, *_):
            pass

    teacher, rows = small_data.classifier(tiny_model_folder), Split("train", ["a"], ["open the file"])
    for flags, kept in (
        (["--kept-layers", "0", "1", "3"], [0, 1, 3]),
        (["--num-layers", "2"], [0, 3]),
        ([], [0, 2, 3]),
    ):
        recipe = cli.load_recipe("distill_text_classifier")
        config = configs.replace(recipe.Config(), cli.parse_flags(recipe, flags)[0])
        maker = distilling.layers_maker(NoRun(), config)
        assert maker.make(teacher, rows, small_data.FP32, "base_").notes["kept_layers"] == kept
    with pytest.raises(InputError, match="named by --kept-layers or spaced by --num-layers: give one of both"):
        distilling.LayersConfig(dataset="x", kept_layers=(0, 3), num_layers=2)


def test_a_wrong_tag_ends_in_one_sentence(own, tiny_model_folder, tmp_path, capsys):
    path = tmp_path / "wrong.conll"
    path.write_text((own / "tags.conll").read_text().replace("B-plea", "plea", 1))
    words = ["run", "distill_token_classifier", *COMMON, "--dataset", str(path), "--teacher", str(tiny_model_folder)]
    assert cli.main([*words, "--out", str(tmp_path / "runs")]) == 2
    assert "should hold tags such as O and B-person, found 'plea'" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("name", "file", "flags", "said"),
    [
        ("distill_token_classifier", "tags.conll", ["--tags-column", "pos"], "has no column 'pos'"),
        ("distill_multilabel_classifier", "labels.csv", ["--label-columns", "x", "y"], "has no column 'x'"),
        ("distill_sentence_pairs", "classes.csv", ["--first-column", "text"], "has no column 'text'"),
    ],
)
def test_a_wrong_column_ends_in_one_sentence(own, tiny_model_folder, tmp_path, capsys, name, file, flags, said):
    words = ["run", name, *COMMON, "--dataset", str(own / file), "--teacher", str(tiny_model_folder), *flags]
    assert cli.main([*words, "--out", str(tmp_path / "runs")]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_records_are_json_that_says_what_was_measured(run):
    folder = run("distill_token_classifier", "tags.conll")
    content = json.loads((folder / "record.json").read_text())
    student = next(result for result in content["results"] if result["role"] == "student")
    assert student["agreement"]["n"] > 0
    assert {row["label"] for row in student["per_class"]} <= {"plea", "thing"}
