"""What the benchmark of language models says of small records whose answer is known."""

import dataclasses
import json

import pytest
import sample_records

from benchmarks import language_models
from smallmodels import files, records
from smallmodels.cli import gathering
from smallmodels.errors import InputError

BITS = {"teacher": 1.5, "student": 1.8, "label_only": 1.9, "untrained_student": 3.2, "unigrams": 2.9}


def record(seed=0, recipe="distill_language_model", max_train=150, **bits):
    sizes = {"max_train": max_train, "max_test": 150, "max_length": 256}
    config = {"seed": seed, **sizes, "soft_weight": 0.9, "train": {"num_epochs": 8}}
    results = [
        dataclasses.replace(
            sample_records.result(role, 0.5, []), metrics={"bits_per_byte": sample_records.metric(value, 200)}
        )
        for role, value in (BITS | bits).items()
    ]
    phases = [sample_records.phase(name, duration_s) for name, duration_s in TIMES.items()]
    return sample_records.classifier_record(
        recipe=recipe, config=config, results=results, phases=phases, metric="bits_per_byte"
    )


TIMES = {"cache": 10.0, "train": 30.0, "label_only": 50.0}


def line(phase, value, cpu_s):
    return {"phase": phase, language_models.VALIDATION: value, "cpu_s": cpu_s, "energy_j": 28.0 * cpu_s}


def trial(lines=(), **bits):
    return language_models.Trial(record(**bits), lines)


def test_gain_and_gap_are_of_the_plain_student():
    assert trial().gain == pytest.approx(0.1)
    assert trial().gap_closed == pytest.approx(0.25)
    assert trial(teacher=1.95).gap_closed is None  # a teacher that is worse leaves no gap


def test_cost_to_match_counts_the_teachers_pass_and_ends_at_the_first_validation_that_is_no_worse():
    plain = [line("label_only", -2.2, 40.0), line("label_only", -1.9, 100.0)]
    lines = [line("train", -2.0, 20.0), line("train", -1.85, 40.0), line("train", -1.8, 60.0), *plain]
    cached, whole = (trial().cost(phases, "cpu_s") for phases in (("cache",), ("label_only",)))
    assert trial(lines).cost_to_match("cpu_s") == pytest.approx((cached + 40.0) / whole)
    assert trial([line("train", -1.95, 20.0), *plain]).cost_to_match("cpu_s") is None


@pytest.mark.parametrize(
    ("gains", "words"),
    [
        ([0.10, 0.12, 0.11], "the distilled student is better by 0.110 bits"),
        ([-0.10, -0.12, -0.11], "distillation loses"),
        ([0.10, -0.12, 0.01], "cannot be told apart"),
        ([0.10, 0.12], "no verdict"),
    ],
)
def test_verdict_is_over_seeds(gains, words):
    assert words in language_models.verdict(gains)


def test_records_are_kept_and_read_back_into_a_table(tmp_path):
    with pytest.raises(InputError, match="holds none"):
        gathering.keep_all(tmp_path, tmp_path / "results", language_models.kept_name, language_models.unfinished_name)
    for seed in (0, 1, 2):
        write(tmp_path / "runs" / str(seed), record(seed))
    write(tmp_path / "runs" / "other", record(max_train=77))  # no part of the benchmark
    write(tmp_path / "runs" / "teacher", record(recipe="pretrain_language_model"))
    (tmp_path / "runs" / "failed").mkdir()
    about = {
        "run_id": "failed",
        "recipe": "distill_language_model",
        "sweep": {"sweep_id": "few_texts-20261128T120000Z-a"},
    }
    files.write_json(tmp_path / "runs" / "failed" / "config.json", about)
    assert language_models.main([str(tmp_path / "runs"), "--root", str(tmp_path)]) == 0
    text = (tmp_path / language_models.TABLE).read_text()
    assert "| share of the gap to the teacher closed | 0.2500 | 0.2500 | 0.2500 |" in text
    assert "## Few texts: 150 texts, 8 epochs, soft weight 0.9" in text
    assert "## Many texts\n\nNot measured." in text
    assert "The teacher, of" in text
    assert "Runs without a record: 1, whose costs are not known" in text


def write(folder, found):
    folder.mkdir(parents=True)
    files.write_json(folder / records.RECORD_NAME, records.to_json(found))
    (folder / "metrics.jsonl").write_text(json.dumps(line("train", -1.8, 60.0)) + "\n")
    (folder / "journal.jsonl").write_text("")
