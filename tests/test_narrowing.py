"""Students of other shapes, of every known family: what is cut, how they are saved, and that they can be trained."""

import copy
import dataclasses
import re

import numpy as np
import pytest
import small_tokenizers
import torch
from small_data import FP32, assert_same_bits, split, weights
from small_tokenizers import ENCODERS
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, BertForTokenClassification

from smallmodels import models, students, training, values
from smallmodels.errors import InputError
from smallmodels.models import Embedder, TextModel
from smallmodels.students import Importance
from smallmodels.training import TrainConfig

TEXTS = small_tokenizers.sentences()[::30]
LAYERS, HEADS, WIDTH, UNITS = 2, 2, 16, 24


def tiny(kind, *, embeds=False, **changes):
    """A random model of four heads and 32 dimensions, whose weights are large enough to matter."""
    names = {"num_heads": "n_heads", "hidden_size": "dim", "intermediate_size": "hidden_dim", "num_layers": "n_layers"}
    if kind != "DistilBERT":
        names = {name: name for name in names} | {
            "num_heads": "num_attention_heads",
            "num_layers": "num_hidden_layers",
        }
    sizes = {"num_heads": 4, "hidden_size": 32, **changes}
    config = {names.get(name, name): value for name, value in sizes.items()}
    if "deberta" in kind.lower():
        config["pooler_hidden_size"] = sizes["hidden_size"]
    if kind == "ModernBERT":
        config["layer_types"] = (["full_attention"] + 2 * ["sliding_attention"])[: sizes.get("num_layers", 2)]
        config["local_attention"] = 8
    cls = type(small_tokenizers.tiny(kind).transformer.base_model) if embeds else None
    made = small_tokenizers.tiny(kind, cls=cls, **config)
    with models.seeded(1):
        for parameter in made.model.parameters():
            nn.init.normal_(parameter, std=0.2) if parameter.ndim > 1 else parameter.data.add_(
                0.1 * torch.randn_like(parameter)
            )
    return dataclasses.replace(made, model=Embedder(made.model).eval()) if embeds else made


def answers(model, texts=TEXTS):
    return models.forward_texts(model, texts, compute=FP32)


def plainly_read(student, folder):
    """What transformers alone makes of the files, in the student's wrapper."""
    student.save(folder)
    auto = AutoModel if isinstance(student.model, Embedder) else AutoModelForSequenceClassification
    read, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    read = copy.deepcopy(read).eval()  # out of the mapped file
    return TextModel(Embedder(read) if auto is AutoModel else read, student.tokenizer, {}, student.max_length)


def test_an_embedder_keeps_its_pooling_and_dense_layers():
    teacher = tiny("BERT", embeds=True)
    with models.seeded(2):
        layers = [models.Dense(32, 12, activation="tanh"), models.Dense(12, 5, bias=False)]
    teacher.model.pooling, teacher.model.projection = "cls", models.projection_of(layers)
    whole = students.narrow(teacher, measured(teacher))
    np.testing.assert_allclose(answers(whole), answers(teacher), atol=1e-6)
    small = students.narrow(teacher, measured(teacher), hidden_size=16)
    first, second = small.model.dense_layers
    kept = [column.tolist() for column in layers[0].weight.detach().T]
    assert all(column.tolist() in kept for column in first.weight.detach().T)
    assert torch.equal(second.weight, layers[1].weight)
    for student in (small, students.fresh(teacher, hidden_size=16)):
        assert (student.model.pooling, answers(student).shape[1]) == ("cls", 5)
        assert [layer.activation for layer in student.model.dense_layers] == ["tanh", "identity"]


def importance_of(heads, units, hidden, pooled):
    return Importance(*(np.asarray(part, dtype=np.float32) for part in (heads, units, hidden, pooled)))


def measured(model):
    return students.measure_importance(model, TEXTS, compute=FP32)


MADE = {
    "keep_layers": lambda teacher: students.keep_layers(teacher, [0]),
    "share_layers": lambda teacher: students.share_layers(teacher, 1),
    "narrow": lambda teacher: students.narrow(teacher, measured(teacher), hidden_size=16, intermediate_size=10),
    "fresh": lambda teacher: students.fresh(teacher, num_layers=3, hidden_size=24, num_heads=3, intermediate_size=20),
    "trim_vocabulary": lambda teacher: students.trim_vocabulary(teacher, TEXTS),
    "all": lambda teacher: students.share_layers(
        students.trim_vocabulary(
            students.narrow(kept := students.keep_layers(teacher, [0, 2]), measured(kept), hidden_size=24), TEXTS
        ),
        1,
    ),
}


@pytest.mark.parametrize(
    ("how", "embeds"),
    [
        pytest.param(how, embeds, id=f"{how}-{'embedder' if embeds else 'classifier'}", marks=marks)
        for how in MADE
        for embeds, marks in ((False, ()), (True, () if how == "all" else pytest.mark.slow))
    ],
)
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_student_loads_with_plain_transformers_and_gives_the_same(kind, how, embeds, tmp_path):
    teacher = tiny(kind, embeds=embeds, num_layers=3)
    before, notes, config = weights(teacher), dict(teacher.notes), teacher.model.config.to_dict()
    student = MADE[how](teacher)
    expected = answers(student)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(answers(plainly_read(student, tmp_path)), expected)
    if how == "all":
        read = TextModel.load(tmp_path)
        assert read.weights_sha256() == student.weights_sha256()
        assert read.notes == student.notes
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1.0)
    assert_same_bits(weights(teacher), before)
    assert (teacher.notes, teacher.model.config.to_dict()) == (notes, config)


# Narrow


def kinds_of_axes(name):
    """What each axis of a weight counts, by the weight's name: heads' rows, units, dimensions, or the head's vector."""
    found = re.search(r"(?:layer|layers)\.(\d+)\.", name)
    layer = f".{found[1]}" if found else ""
    if re.search(r"relative_attention_bias", name):
        return ("", "one_head")
    if re.search(r"embeddings\.(word|position|token_type|tok)_?embeddings|rel_embeddings", name):
        return ("", "hidden")
    if re.search(r"Wqkv", name):
        return ("3 heads" + layer, "hidden")
    if re.search(r"attention.*(query|key|value|q_lin|k_lin|v_lin|attn\.[qkv]|pos_key_proj|pos_query_proj)", name):
        return ("heads" + layer, "hidden")
    if re.search(r"attn\.Wo|attention\.output\.dense|attention\.out_lin|attn\.o\.", name):
        return ("hidden", "heads" + layer)
    if re.search(r"mlp\.Wi", name):
        return ("2 units" + layer, "hidden")
    if re.search(r"intermediate\.dense|ffn\.lin1", name):
        return ("units" + layer, "hidden")
    if re.search(r"mlp\.Wo|layer\.\d+\.output\.dense|ffn\.lin2", name):
        return ("hidden", "units" + layer)
    if re.search(r"head\.norm", name):
        return ("pooled",)
    if re.search(r"(pooler\.dense|classifier\.dense|pre_classifier|head\.dense)", name):
        return ("pooled", "hidden")
    if re.search(r"classifier", name):
        return ("", "pooled")
    assert re.search(r"[nN]orm", name), name
    return ("hidden",)


@pytest.mark.parametrize("kind", [*ENCODERS, "DeBERTa-v2"])
def test_narrow_finds_a_small_model_inside_a_wide_one(kind):
    """All that should go is not a number; heads and units are elsewhere in each layer, but MPNet's heads are not."""
    small, wide = tiny(kind, hidden_size=WIDTH, num_heads=HEADS), tiny(kind, hidden_size=32, intermediate_size=40)
    generator = np.random.default_rng(0)
    hidden, pooled = (np.sort(generator.permutation(32)[:WIDTH]) for _ in range(2))
    heads = [np.sort(generator.permutation(4)[:HEADS]) for _ in range(LAYERS)]
    heads = [heads[0], heads[0] if kind == "MPNet" else heads[1]]
    units = [np.sort(generator.permutation(40)[:UNITS]) for _ in range(LAYERS)]
    places = {"": slice(None), "hidden": hidden, "pooled": pooled, "one_head": heads[0]}
    for layer in range(LAYERS):
        rows = (heads[layer][:, None] * 8 + np.arange(8)).ravel()
        places |= {f"heads.{layer}": rows, f"3 heads.{layer}": np.concatenate([rows, 32 + rows, 64 + rows])}
        both = np.concatenate([units[layer], 40 + units[layer]])
        places |= {f"units.{layer}": units[layer], f"2 units.{layer}": both}
    inside = small.model.state_dict()
    with torch.no_grad():
        for name, target in wide.model.state_dict().items():
            target.fill_(float("nan"))
            axes = [places[axis] for axis in kinds_of_axes(name)][: target.ndim]
            index = [np.arange(size)[axis] for size, axis in zip(target.shape, axes, strict=True)]
            target[np.ix_(*index)] = inside[name]

    def marked(size, chosen):
        return np.isin(np.arange(size), chosen).astype(np.float32) + 0.01 * generator.random(size)

    importance = importance_of(
        [marked(4, chosen) for chosen in heads],
        [marked(40, chosen) for chosen in units],
        marked(32, hidden),
        marked(32, pooled),
    )
    student = students.narrow(wide, importance, hidden_size=WIDTH, intermediate_size=UNITS)
    assert_same_bits(weights(student), weights(small))
    assert not student.model.training
    sizes = {"hidden_size": WIDTH, "num_heads": HEADS, "intermediate_size": UNITS}
    assert {**sizes, "teacher_hidden_size": 32, "teacher_num_heads": 4, "teacher_intermediate_size": 40}.items() <= (
        student.notes.items()
    )
    np.testing.assert_array_equal(answers(student), answers(small))


@pytest.mark.parametrize("kind", ENCODERS)
def test_narrow_that_leaves_all_gives_the_same_weights(kind):
    teacher = tiny(kind)
    assert_same_bits(weights(students.narrow(teacher, measured(teacher))), weights(teacher))


def test_narrow_of_layers_that_share_weights_leaves_them_shared():
    teacher = students.share_layers(tiny("ModernBERT", num_layers=3), 2)
    student = students.narrow(teacher, measured(teacher), hidden_size=16, intermediate_size=10)
    assert models.tied_layers(student.model) == [[0, 1], [2]]
    assert student.model.model.layers[0].mlp.Wi.weight is student.model.model.layers[1].mlp.Wi.weight


def importance_of_a_quarrel(model):
    """Its first layer would keep the first two heads and twelve units, the second one the others, and more strongly."""
    early = np.arange(24) < 12
    heads, units = ([rows[0], 3 * ~rows[0]] for rows in ([early[10:14]], [early]))
    return importance_of(heads, units, np.ones(32), np.ones(32 if students.importance.pooled_name(model.model) else 0))


def test_narrow_keeps_the_same_heads_in_all_layers_of_mpnet_which_share_a_table_of_them():
    teacher = tiny("MPNet")
    student = students.narrow(teacher, importance_of_a_quarrel(teacher), hidden_size=16)
    biases = [model.model.mpnet.encoder.relative_attention_bias.weight for model in (teacher, student)]
    assert torch.equal(biases[1], biases[0][:, 2:])
    for old, new in zip(*(models.layers_of(model.model) for model in (teacher, student)), strict=True):
        assert torch.equal(new.attention.attn.q.bias, old.attention.attn.q.bias[16:])
    units = students.narrow(teacher, importance_of_a_quarrel(teacher), intermediate_size=12)
    for old, new, kept in zip(
        *(models.layers_of(model.model) for model in (teacher, units)), [slice(12), slice(12, 24)], strict=True
    ):
        assert torch.equal(new.intermediate.dense.bias, old.intermediate.dense.bias[kept])


def test_narrow_lets_layers_that_share_weights_choose_together():
    teacher = students.share_layers(tiny("BERT"), 1)
    student = students.narrow(teacher, importance_of_a_quarrel(teacher), hidden_size=16, intermediate_size=12)
    old, new = (models.layers_of(model.model)[0] for model in (teacher, student))
    assert torch.equal(new.attention.self.query.bias, old.attention.self.query.bias[16:])
    assert torch.equal(new.intermediate.dense.bias, old.intermediate.dense.bias[12:])


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 20}, "hidden_size must be a multiple of 8, the width of a head, up to 32, got 20"),
        ({"hidden_size": 40}, "hidden_size must be a multiple of 8, the width of a head, up to 32, got 40"),
        ({"hidden_size": 0}, "hidden_size must be a multiple of 8, the width of a head, up to 32, got 0"),
        ({"intermediate_size": 25}, "intermediate_size must be from 1 to 24, got 25"),
        ({"intermediate_size": 0}, "intermediate_size must be from 1 to 24, got 0"),
    ],
)
def test_narrow_refuses_sizes_that_cannot_be(sizes, message):
    teacher = tiny("BERT")
    with pytest.raises(InputError, match=message):
        students.narrow(teacher, measured(teacher), **sizes)


def test_narrow_refuses_the_importance_of_another_model():
    teacher = tiny("BERT")
    with pytest.raises(InputError, match="of 1 layers, 4 heads, 24 units and 32 dimensions, got one of 2, 4, 24, 32"):
        students.narrow(students.keep_layers(teacher, 1), measured(teacher))
    with pytest.raises(InputError, match="measure it on this very student"):
        students.narrow(tiny("ModernBERT"), measured(tiny("ModernBERT", embeds=True)))


@pytest.mark.parametrize(
    "function",
    [
        lambda model: students.measure_importance(model, TEXTS, compute=FP32),
        lambda model: students.narrow(model, importance_of([[1]], [[1]], [1], []), hidden_size=8),
        lambda model: students.fresh(model, num_layers=1),
    ],
)
@pytest.mark.parametrize("kind", ["ALBERT", "Llama 2"])
def test_a_family_that_is_not_known_is_refused_with_those_that_are(kind, function):
    with pytest.raises(
        InputError, match=r"known .* of bert, roberta, .*modernbert, deberta-v2, but not of (albert|llama)"
    ):
        function(small_tokenizers.tiny(kind))


def test_keeping_layers_of_a_model_that_shares_one_is_refused():
    with pytest.raises(InputError, match=r"should keep its 2 layers in one list, but AlbertFor.* one of bert, roberta"):
        students.keep_layers(small_tokenizers.tiny("ALBERT"), 1)


def test_narrow_refuses_a_head_that_it_does_not_know():
    from transformers import BertForMaskedLM

    model = small_tokenizers.tiny("BERT", cls=BertForMaskedLM)
    importance = importance_of(np.ones((2, 2)), np.ones((2, 24)), np.ones(16), [])
    with pytest.raises(InputError, match=r"but cls.predictions\S* of BertForMaskedLM is not"):
        students.narrow(model, importance, hidden_size=8)


# Importance


def importance_reference(model):
    """Of a BERT, text by text without padding, in plain loops over what its modules give."""
    encoder, sums, seen = model.model.bert.encoder, {}, {}

    def add(name, amounts):
        sums.setdefault(name, []).append(np.abs(amounts.detach()[0].double().numpy()).mean(0))

    for text in TEXTS:
        handles = [
            part.register_forward_hook(lambda _, __, output, key=key: seen.__setitem__(key, output))
            for number, layer in enumerate(encoder.layer)
            for key, part in {
                ("heads", number): layer.attention.self,
                ("units", number): layer.intermediate,
                ("between", number): layer.attention.output,
            }.items()
        ]
        inputs = model.tokenizer(text, return_tensors="pt", truncation=True, max_length=model.max_length)
        with torch.no_grad():
            states = model.model(**inputs, output_hidden_states=True).hidden_states
            sums.setdefault("pooled", []).append(
                np.abs(model.model.bert.pooler.dense(states[-1][0, 0]).double().numpy())
            )
        for number in range(LAYERS):
            mixed = seen["heads", number][0]
            add(("heads", number), mixed.view(*mixed.shape[:2], 4, 8).norm(dim=-1))
            add(("units", number), seen["units", number])
            add(("before", number), states[number])
            add(("between", number), seen["between", number])
        for handle in handles:
            handle.remove()
    roots = {key: np.sqrt(np.square(rows).sum(0)) for key, rows in sums.items()}
    hidden = sum(roots[where, number] for where in ("before", "between") for number in range(LAYERS))
    by_layer = [[roots[name, number] for number in range(LAYERS)] for name in ("heads", "units")]
    return importance_of(*by_layer, hidden, roots["pooled"])


def test_measure_importance_equals_the_slow_reference():
    model = tiny("BERT")
    expected = importance_reference(model)
    placed = dataclasses.replace(model, model=FP32.place(copy.deepcopy(model.model)))  # its last layer is shortened
    for compute in (FP32, dataclasses.replace(FP32, tokens_per_pass=40)):
        for subject in (model, placed):
            found = students.measure_importance(subject, TEXTS, compute=compute)
            for name in ("heads", "units", "hidden", "pooled"):
                np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4)


def test_measure_importance_of_a_token_classifier_does_not_depend_on_how_texts_are_passed():
    model = small_tokenizers.tiny("BERT", cls=BertForTokenClassification)
    found, expected = (
        students.measure_importance(model, TEXTS, compute=dataclasses.replace(FP32, tokens_per_pass=num_tokens))
        for num_tokens in (40, 4096)
    )
    np.testing.assert_allclose(found.units, expected.units, rtol=1e-5)
    np.testing.assert_allclose(found.hidden, expected.hidden, rtol=1e-5)


@pytest.mark.parametrize("embeds", [False, True], ids=["classifier", "embedder"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_measure_importance_sees_parts_that_do_nothing(kind, embeds):
    teacher = tiny(kind, embeds=embeds)
    family, layer = models.encoder_family(teacher.model), models.layers_of(teacher.model)[1]
    into_values, into_units = (layer.get_submodule(name) for name in (family.into_heads[-1], family.into_units))
    with torch.no_grad():
        for part, rows in ((into_values, slice(-16, -8)), (into_units, [5])):  # the third head, the sixth unit
            for parameter in part.parameters():
                parameter[rows] = 0.0
    importance = measured(teacher)
    assert importance.heads.shape == (2, 4)
    assert importance.units.shape == (2, 24)
    assert importance.hidden.shape == (32,)
    assert np.argwhere(importance.heads == 0).tolist() == [[1, 2]]
    assert np.argwhere(importance.units == 0).tolist() == [[1, 5]]
    assert (importance.hidden > 0).all()
    assert len(importance.pooled) == (32 if students.importance.pooled_name(teacher.model) else 0)


@pytest.mark.parametrize("kind", ENCODERS)
def test_narrow_without_what_does_nothing_gives_the_same(kind):
    teacher = tiny(kind)
    family = models.encoder_family(teacher.model)
    with torch.no_grad():
        for layer in models.layers_of(teacher.model):
            for parameter in layer.get_submodule(family.into_units).parameters():
                parameter[[3, 4, 20]] = 0.0
    student = students.narrow(teacher, measured(teacher), intermediate_size=21)
    np.testing.assert_allclose(answers(student), answers(teacher), rtol=1e-5, atol=1e-6)


def test_measure_importance_reads_texts_from_everywhere_and_leaves_no_hook(tmp_path):
    model = tiny("BERT")
    many = [*TEXTS[:9], "a", *TEXTS[10:]]
    picked = [many[i] for i in np.linspace(0, len(many) - 1, 4).astype(int)]
    found = students.measure_importance(model, many, num_texts=4, compute=FP32)
    expected = students.measure_importance(model, picked, compute=FP32)
    np.testing.assert_array_equal(found.hidden, expected.hidden)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.modules())
    read = values.decode(values.encode(found, tmp_path), tmp_path)  # as a phase of a run keeps it
    for field in dataclasses.fields(Importance):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(found, field.name))
    with pytest.raises(InputError, match="on texts, found none"):
        students.measure_importance(model, [], compute=FP32)


# Layers that share weights


@pytest.mark.parametrize("kind", ENCODERS)
def test_share_layers_lets_neighbours_have_the_weights_of_the_first(kind):
    teacher = tiny(kind, num_layers=3)
    student = students.share_layers(teacher, 2)
    assert student.notes["shared_layers"] == [[0, 1], [2]] == models.tied_layers(student.model)
    layers = models.layers_of(student.model)
    first, second = (dict(layer.named_parameters()) for layer in layers[:2])
    common = first.keys() & second.keys()
    assert len(common) >= len(first) - 1
    assert all(first[name] is second[name] for name in common)
    expected = teacher.copy()
    with torch.no_grad():
        mine = dict(models.layers_of(expected.model)[1].named_parameters())
        for name in common:
            mine[name].copy_(first[name])
    np.testing.assert_array_equal(answers(student), answers(expected))
    saved = sum(p.numel() for name, p in second.items() if name in common)
    assert models.num_parameters(teacher.model) - models.num_parameters(student.model) == saved
    assert models.size_bytes(student.model) == models.size_bytes(teacher.model)
    assert models.tied_layers(student.copy().model) == [[0, 1], [2]]


def test_share_layers_trains_one_set_of_weights_and_keeps_it_equal(tmp_path):
    student = students.share_layers(tiny("BERT", num_layers=3), 2)
    train = split(student.tokenizer, 12)
    seen = []

    def loss_fn(model, batch):
        seen.append(sum(1 for _ in model.parameters()))
        return nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels, reduction="none")

    before = weights(student)
    trained = training.fit(student, train, loss_fn, TrainConfig(max_steps=2, batch_size=4), compute=FP32)
    read = plainly_read(trained, tmp_path)
    first, second, third = (dict(layer.named_parameters()) for layer in models.layers_of(read.model))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], before[f"bert.encoder.layer.0.{name}"]) for name in first)
    assert not any(torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("num_groups", [0, 4])
def test_share_layers_refuses_what_cannot_be(num_groups):
    with pytest.raises(InputError, match=f"num_groups must be from 1 to the 3 layers, got {num_groups}"):
        students.share_layers(tiny("BERT", num_layers=3), num_groups)


def test_adapters_and_shared_layers_refuse_each_other():
    with pytest.raises(InputError, match="found layers that share them: train such a student without adapters"):
        models.add_lora(students.share_layers(tiny("BERT"), 1), rank=2)
    adapted = models.add_lora(tiny("BERT"), rank=2)
    with pytest.raises(InputError, match="should have no adapters, found some: merge them first"):
        students.share_layers(adapted, 1)
    with pytest.raises(InputError, match="should have no adapters to be narrowed, found some: merge them first"):
        students.narrow(adapted, measured(tiny("BERT")))


# New ones


@pytest.mark.parametrize("kind", ENCODERS)
def test_fresh_has_the_sizes_that_were_asked_for_and_weights_of_its_seed(kind):
    teacher = tiny(kind)
    sizes = {"num_layers": 4, "hidden_size": 24, "num_heads": 3, "intermediate_size": 20}
    one, same, other = (students.fresh(teacher, **sizes, seed=seed) for seed in (0, 0, 1))
    assert one.weights_sha256() == same.weights_sha256() != other.weights_sha256()
    config = one.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (4, 24, 3)
    assert len(models.layers_of(one.model)) == 4
    assert one.notes == {"made_from": "random weights", "seed": 0, **sizes}
    assert one.tokenizer is teacher.tokenizer
    assert one.model.num_labels == teacher.model.num_labels
    assert models.num_parameters(students.fresh(teacher).model) == models.num_parameters(teacher.model)


def test_fresh_refuses_sizes_that_do_not_fit():
    with pytest.raises(InputError, match="hidden_size must be a multiple of 3, got 32"):
        students.fresh(tiny("BERT"), num_heads=3)
    with pytest.raises(InputError, match="hidden_size must be a multiple of 6, got 27"):
        students.fresh(tiny("ModernBERT"), hidden_size=27, num_heads=3)
    with pytest.raises(InputError, match="num_layers must be >= 1, got 0"):
        students.fresh(tiny("BERT"), num_layers=0)


# Adapters, and what was done


@pytest.mark.parametrize("kind", ENCODERS)
def test_adapters_go_on_a_narrow_student_and_are_folded_in(kind, tmp_path):
    teacher = tiny(kind)
    student = students.narrow(teacher, measured(teacher), hidden_size=16)
    train = split(student.tokenizer, 8)

    def loss_fn(model, batch):
        return nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels, reduction="none")

    adapted = models.add_lora(student, rank=2)
    config = TrainConfig(max_steps=2, batch_size=4, learning_rate=1e-2)
    trained = training.fit(adapted, train, loss_fn, config, compute=FP32)
    assert not np.allclose(answers(trained), answers(student))
    np.testing.assert_allclose(answers(plainly_read(trained, tmp_path)), answers(trained), rtol=1e-5, atol=1e-6)
    assert trained.notes["hidden_size"] == 16


def test_describe_change_says_what_was_done_in_a_table():
    teacher = tiny("BERT")
    student = students.narrow(
        students.keep_layers(teacher, 1), measured(students.keep_layers(teacher, 1)), hidden_size=8
    )
    lines = students.describe_change(teacher, student).splitlines()
    assert max(map(len, lines)) <= 60
    assert [line.split()[0] for line in lines] == ["layers", "width", "tokens", "parameters", "bytes", "operations"]
    assert lines[0].split() == ["layers", "2", "→", "1", "(-50", "%)"]
    assert lines[2].endswith(f"{len(teacher.tokenizer):,}")
    before, after = (students.Size.of(model) for model in (teacher, student))
    assert before.num_parameters == sum(p.numel() for p in teacher.model.parameters())
    assert after.size_bytes == 4 * after.num_parameters
    head, layer = 32 * 32 + 32 * 3, 4 * 32 * 32 + 2 * 32 * 24
    assert before.operations_per_token == pytest.approx(2 * 2 * layer + 4 * 32 * 32 * 2 + 2 * head / 32)
    assert lines[3].split()[1:4] == [f"{before.num_parameters:,}", "→", f"{after.num_parameters:,}"]


def operations_of_matmuls(model, tokens):
    """Two for each multiplication in linear layers and batched products, as torch itself counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    model.model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model.model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    return counter.get_total_flops()


@pytest.mark.parametrize("narrowed", [False, True], ids=["whole", "narrow"])
@pytest.mark.parametrize("embeds", [False, True], ids=["classifier", "embedder"])
@pytest.mark.parametrize("kind", [*ENCODERS, "DeBERTa-v2"])
def test_operations_are_those_that_torch_counts(kind, embeds, narrowed):
    model = tiny(kind, embeds=embeds)
    if narrowed:
        model = students.narrow(model, measured(model), hidden_size=24, intermediate_size=12)
    model.transformer.set_attn_implementation("eager")
    tokens = torch.randint(5, 100, (3, 17), generator=torch.Generator().manual_seed(0))
    found = models.num_operations(model.model, np.full(3, 17))
    expected = operations_of_matmuls(model, tokens)
    if "DeBERTa" in kind:  # the places' own keys and queries, once for the batch
        num_places = len(model.transformer.base_model.encoder.rel_embeddings.weight)
        expected -= 2 * LAYERS * 2 * num_places * model.model.config.hidden_size**2
    assert found == expected
