"""Students from teachers: which layers stay, and that the teacher does."""

import pytest
import torch
from small_data import FP32, assert_same_bits, classifier, embedder, split, weights
from torch import nn
from transformers import AutoModelForSequenceClassification

from smallmodels import models, students
from smallmodels.errors import InputError
from smallmodels.models import TextModel


@pytest.fixture(scope="module")
def teacher(tiny_model_folder):
    return classifier(tiny_model_folder)


def deep(num_layers, *, embeds=False):
    """A random BERT with so many layers."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 30}
    config = BertConfig(num_hidden_layers=num_layers, num_labels=3, **sizes)
    with models.seeded(0):
        model = models.Embedder(BertModel(config)) if embeds else BertForSequenceClassification(config)
    return TextModel(model.eval(), None)


def layer_weights(model, index):
    return {n.split(f"layer.{index}.")[1]: w for n, w in weights(model).items() if f"encoder.layer.{index}." in n}


def others(model):
    return {name: w for name, w in weights(model).items() if "encoder.layer." not in name}


@pytest.mark.parametrize("embeds", [False, True])
@pytest.mark.parametrize(
    ("available", "num_layers", "kept"),
    [
        (6, 1, [0]),
        (6, 2, [0, 5]),
        (6, 3, [0, 3, 5]),
        (6, 6, [0, 1, 2, 3, 4, 5]),
        (12, 6, [0, 2, 4, 7, 9, 11]),
        (1, 1, [0]),
    ],
)
def test_keep_layers_copies_evenly_spaced_layers_and_all_the_rest(available, num_layers, kept, embeds):
    teacher = deep(available, embeds=embeds)
    student = students.keep_layers(teacher, num_layers)
    assert student.notes["kept_layers"] == kept
    for new, old in enumerate(kept):
        assert_same_bits(layer_weights(student, new), layer_weights(teacher, old))
        assert len(layer_weights(student, new)) == 16
    assert not layer_weights(student, num_layers)
    assert_same_bits(others(student), others(teacher))
    assert student.model.config.num_hidden_layers == num_layers


def test_keep_layers_leaves_the_teacher_as_it_is(teacher):
    before, notes = weights(teacher), dict(teacher.notes)
    student = students.keep_layers(teacher, 2)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1.0)
    student.model.config.num_labels = 7
    student.notes["x"] = 1
    assert_same_bits(weights(teacher), before)
    assert teacher.notes == notes
    assert (teacher.model.config.num_hidden_layers, teacher.model.config.num_labels) == (4, 3)


def test_keep_layers_of_all_layers_gives_the_teachers_answers(teacher):
    tokens = split(teacher.tokenizer, 6).tokens
    same = students.keep_layers(teacher, 4)
    fewer = students.keep_layers(teacher, 3)
    expected = torch.from_numpy(models.forward_all(teacher, tokens, compute=FP32))
    assert torch.equal(torch.from_numpy(models.forward_all(same, tokens, compute=FP32)), expected)
    assert not torch.allclose(torch.from_numpy(models.forward_all(fewer, tokens, compute=FP32)), expected)


@pytest.mark.parametrize("num_layers", [0, -1, 5, 7])
def test_keep_layers_refuses_too_few_and_too_many(teacher, num_layers):
    with pytest.raises(InputError, match=f"from 1 to the teacher's 4, got {num_layers}") as caught:
        students.keep_layers(teacher, num_layers)
    assert caught.value.exit_code == 2


def test_keep_layers_composes():
    teacher = deep(6)
    student = students.keep_layers(students.keep_layers(teacher, 4), 2)
    assert student.model.config.num_hidden_layers == 2
    assert_same_bits(layer_weights(student, 0), layer_weights(teacher, 0))
    assert_same_bits(layer_weights(student, 1), layer_weights(teacher, 5))


@pytest.mark.parametrize("make", [classifier, embedder])
def test_keep_layers_gives_a_student_that_is_saved_and_read_back(tiny_model_folder, tmp_path, make):
    student = students.keep_layers(make(tiny_model_folder), 2)
    student.save(tmp_path)
    read = TextModel.load(tmp_path)
    assert read.weights_sha256() == student.weights_sha256()
    assert read.notes["kept_layers"] == [0, 3]


def test_keep_layers_student_loads_with_plain_transformers(teacher, tmp_path):
    students.keep_layers(teacher, 2).save(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert plain.config.num_hidden_layers == 2
    assert len(plain.bert.encoder.layer) == 2


def test_keep_layers_refuses_a_model_without_a_list_of_layers():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = deep(2).model.config

    with pytest.raises(InputError, match="should keep its 2 layers in one list, but Flat does not"):
        students.keep_layers(TextModel(Flat(), None), 1)
