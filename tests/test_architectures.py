"""Every architecture gives in batches what it gives text by text: logits, embeddings, gradients."""

import dataclasses

import numpy as np
import pytest
import small_tokenizers
import torch
import transformers as t
from small_data import FP32, cross_entropy

from smallmodels import models
from smallmodels.data import batches
from smallmodels.data.splits import Split, Tokens
from smallmodels.models import Embedder, TextModel, first_token

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
FEED = {"intermediate_size": 48}
CONFIGS = {
    "bert": t.BertConfig(**SMALL, **FEED),
    "distilbert": t.DistilBertConfig(vocab_size=60, dim=32, n_layers=3, n_heads=4, hidden_dim=48),
    "roberta": t.RobertaConfig(**SMALL, **FEED, pad_token_id=1),
    "xlm-roberta": t.XLMRobertaConfig(**SMALL, **FEED, pad_token_id=1),
    "electra": t.ElectraConfig(**SMALL, **FEED, embedding_size=32),
    "camembert": t.CamembertConfig(**SMALL, **FEED, pad_token_id=1),
    "mpnet": t.MPNetConfig(**SMALL, **FEED, pad_token_id=1),
    "modernbert": t.ModernBertConfig(**SMALL, **FEED, pad_token_id=1, local_attention=8, global_attn_every_n_layers=2),
    "deberta": t.DebertaV2Config(
        **SMALL, **FEED, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8
    ),
    "llama": t.LlamaConfig(**SMALL, **FEED, num_key_value_heads=2, pad_token_id=0),
}
SHORTENED = {"bert", "distilbert", "roberta", "xlm-roberta", "electra", "camembert"}
LENGTHS = np.array([3, 12, 5, 7, 4, 9, 6, 11, 3, 8])
NUM_LABELS = 5


def network(name, kind="classifier"):
    auto = t.AutoModelForSequenceClassification if kind == "classifier" else t.AutoModel
    with models.seeded(0):
        made = auto.from_config(CONFIGS[name].__class__(**{**CONFIGS[name].to_dict(), "num_labels": NUM_LABELS}))
        for parameter in made.parameters():  # else so near to zero that everything is equal to everything
            torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    return (made if kind == "classifier" else Embedder(made)).eval()


def tokens(name):
    generator = np.random.default_rng(0)
    ids = generator.integers(5, 60, LENGTHS.sum()).astype(np.int32)
    return Tokens(ids, np.concatenate([[0], np.cumsum(LENGTHS)]), CONFIGS[name].pad_token_id or 0, 32)


def model(name, kind="classifier"):
    return TextModel(network(name, kind), tokenizer=None, max_length=32)


def one_by_one(name, kind):
    """Of the model as transformers has it, text by text, so without padding, masks and short cuts."""
    plain, rows = network(name, kind), tokens(name)
    outputs = []
    for i in range(len(LENGTHS)):
        with torch.no_grad():
            output = plain(**batches.pad(rows, np.array([i])))
        outputs.append(output if kind == "embedder" else output.logits)
    return torch.cat(outputs).numpy()


@pytest.mark.parametrize("attention", ["eager", "sdpa", "sdpa_masked"])
@pytest.mark.parametrize("kind", ["classifier", "embedder"])
@pytest.mark.parametrize("name", CONFIGS)
def test_batches_by_token_budget_give_what_single_texts_give(name, kind, attention):
    compute = dataclasses.replace(FP32, attention=attention, tokens_per_pass=36)
    in_batches = models.forward_all(model(name, kind), tokens(name), compute=compute)
    expected = one_by_one(name, kind)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(in_batches, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_batches_are_those_of_single_texts(name, attention):
    labels = np.arange(len(LENGTHS), dtype=np.int64) % NUM_LABELS
    ids = [str(i) for i in range(len(LENGTHS))]
    rows = Split("train", ids, ids, labels, tokens(name))
    whole, single = network(name), network(name)
    placed = dataclasses.replace(FP32, attention=attention).place(whole)
    cross_entropy(placed, batches.collate(rows, np.arange(len(LENGTHS)))).sum().backward()
    for i in range(len(LENGTHS)):
        cross_entropy(single, batches.collate(rows, np.array([i]))).sum().backward()
    expected = {key: p.grad for key, p in single.named_parameters() if p.grad is not None}
    found = {key: p.grad for key, p in whole.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-5 * largest)


# The last layer


@pytest.mark.parametrize("name", CONFIGS)
def test_the_last_layer_is_shortened_where_the_head_reads_the_first_token(name):
    classifier, embedder = FP32.place(network(name)), FP32.place(network(name, "embedder"))
    assert first_token.is_shortened(classifier) == (name in SHORTENED)
    assert not first_token.is_shortened(embedder)


def outputs_of_last_layer(placed, **options):
    seen = []
    handle = first_token.last_layer(placed).register_forward_hook(lambda _, __, output: seen.append(output.shape))
    with torch.no_grad():
        output = placed(**batches.pad(tokens("bert"), np.arange(4)), **options)
    handle.remove()
    return seen, output


def test_a_call_for_hidden_states_gets_those_of_every_token():
    placed = FP32.place(network("bert"))
    seen, output = outputs_of_last_layer(placed)
    assert seen == [(4, 1, 32)]
    seen, full = outputs_of_last_layer(placed, output_hidden_states=True)
    assert seen == [(4, 12, 32)] == [full.hidden_states[-1].shape]
    torch.testing.assert_close(output.logits, full.logits)


def test_a_call_of_the_base_model_gets_every_token_even_after_a_failed_call_of_the_whole():
    placed = FP32.place(network("bert"))
    inputs = batches.pad(tokens("bert"), np.arange(4))
    placed(**inputs)
    assert placed.bert(**inputs).last_hidden_state.shape == (4, 12, 32)
    with pytest.raises(ValueError, match="batch_size"):
        placed(**inputs, labels=torch.zeros(3, dtype=torch.int64))
    assert placed.bert(**inputs).last_hidden_state.shape == (4, 12, 32)


def test_a_shortened_model_is_saved_copied_and_placed_again_as_it_was(tmp_path):
    placed = FP32.place(FP32.place(network("bert")))
    assert len(placed._forward_pre_hooks) == 1
    placed.save_pretrained(tmp_path)
    read = t.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    copied = TextModel(placed, tokenizer=None).copy().model
    with torch.no_grad():
        inputs = batches.pad(tokens("bert"), np.arange(4))
        torch.testing.assert_close(read(**inputs).logits, placed(**inputs).logits)
        first_token.last_layer(placed).output.dense.weight.zero_()
        torch.testing.assert_close(read(**inputs).logits, copied(**inputs).logits)


def test_an_architecture_without_an_attention_keeps_its_own():
    placed = dataclasses.replace(FP32, attention="sdpa").place(network("deberta"))
    assert placed.config._attn_implementation == "eager"


# Long texts

ROOM = {"bert": 66, "distilbert": 66, "electra": 66, "roberta": 64, "xlm-roberta": 64, "camembert": 64, "mpnet": 64}
"""Tokens of a text, of models with 66 positions: some have none for the padding and what is before it."""


@pytest.mark.parametrize("max_length", [20, 512])
@pytest.mark.parametrize("name", ROOM)
def test_a_long_text_is_cut_to_the_positions_of_the_model(name, max_length, tmp_path):
    tokenizer, *_ = small_tokenizers.parts("RoBERTa")
    changes = {"vocab_size": len(tokenizer), "max_position_embeddings": 66, "pad_token_id": tokenizer.pad_token_id}
    config = CONFIGS[name].__class__(**{**CONFIGS[name].to_dict(), **changes})
    t.AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found, _ = models.load_embedder(str(tmp_path), max_length=max_length)
    assert found.max_length == min(max_length, ROOM[name])
    long_text = "the end of the file " * 100
    assert len(found.tokenizer(long_text)["input_ids"]) > 66
    (row,) = models.forward_texts(found, [long_text], compute=FP32)
    assert np.isfinite(row).all()
