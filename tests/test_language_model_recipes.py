"""Recipes of language models in SMOKE size on a local file: records, models, pages."""

import json

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from smallmodels import cli, records
from smallmodels.models import TextModel


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """A JSON Lines file of somebody's own: 60 texts in two columns, one of them blank in a row."""
    path = tmp_path_factory.mktemp("own") / "notes.jsonl"
    rows = [{"title": f"note {i}", "body": f"on day {i} the cat saw {i * 7 % 23} birds. " * 3} for i in range(60)]
    rows[5]["body"] = ""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(out, name, *words):
    assert cli.main(["run", name, "--smoke", "--out", str(out), *map(str, words)]) == 0
    (folder,) = (out / name).iterdir()
    return folder


@pytest.fixture(scope="module")
def pretrained(notes, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return run(out, "pretrain_language_model", "--dataset", notes, "--text-columns", "title", "body")


@pytest.fixture(scope="module")
def distilled(notes, pretrained, tmp_path_factory):
    out, data = tmp_path_factory.mktemp("runs"), ("--dataset", notes, "--text-columns", "title", "body")
    return run(out, "distill_language_model", *data, "--teacher", pretrained / "model", "--temperature", 2)


def values(record):
    return {result.role: result.metrics["bits_per_byte"].value for result in record.results}


def test_pretraining_leaves_a_complete_record_and_a_model_that_plain_transformers_load(pretrained):
    record = records.read_record(pretrained)
    assert set(values(record)) == {"student", "untrained_student", "unigrams"}
    assert values(record)["student"] < values(record)["untrained_student"]
    assert record.metric == "bits_per_byte"
    assert all(point.value < 0 for point in record.curve)  # larger is better
    (data,) = record.sources
    assert data.notes["num_dropped"] == {"train/blank_text": 1}
    assert record.model["loader"] == "AutoModelForCausalLM"
    assert [phase.name for phase in record.phases if phase.num_tokens] == ["train", "evaluate"]
    ours = TextModel.load(pretrained / "model")
    plain = AutoModelForCausalLM.from_pretrained(pretrained / "model")
    inputs = AutoTokenizer.from_pretrained(pretrained / "model")("the cat", return_tensors="pt")
    options = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(plain.generate(**inputs, **options), ours.model.transformer.generate(**inputs, **options))
    card = ModelCard.load(pretrained / "model" / "README.md")
    assert card.data.pipeline_tag == "text-generation"
    assert "bits per byte" in (pretrained / "report.html").read_text()


def test_distillation_stores_a_signal_and_has_its_control(distilled):
    record = records.read_record(distilled)
    assert set(values(record)) == {"teacher", "student", "untrained_student", "label_only", "unigrams"}
    assert {phase.name for phase in record.phases} >= {"data", "setup", "cache", "train", "label_only", "evaluate"}
    assert record.phase("cache").num_tokens > 0
    assert record.model["num_layers"] == 1
    assert {source.role for source in record.sources} >= {"teacher"}
    student = record.result("student")
    assert 0 <= student.agreement.value <= 1
    assert student.metrics["kl_from_teacher"].value > 0
    for result in record.results:
        for name in ("perplexity", "next_token_accuracy"):
            assert np.isfinite(result.metrics[name].value)


@pytest.mark.parametrize("objective", ["reverse_kl", "jensen_shannon", "skew_kl", "skew_reverse_kl"])
def test_every_objective_runs_with_a_new_student(notes, pretrained, tmp_path, objective):
    words = ("--dataset", notes, "--text-columns", "body", "--teacher", pretrained / "model", "--max-train", 20)
    sizes = ("--hidden-size", 16, "--num-heads", 2, "--objective", objective)
    record = records.read_record(run(tmp_path, "distill_language_model", *words, *sizes))
    assert record.model["hidden_size"] == 16
    assert record.config["objective"] == objective


def test_encoder_as_a_teacher_of_language_is_refused_in_a_sentence(notes, tiny_model_folder, tmp_path, capsys):
    words = ["run", "distill_language_model", "--smoke", "--out", str(tmp_path), "--dataset", str(notes)]
    code = cli.main([*words, "--text-columns", "body", "--teacher", str(tiny_model_folder)])
    assert code in (2, 4)
    assert capsys.readouterr().err.count("smallmodels: ") == 1
