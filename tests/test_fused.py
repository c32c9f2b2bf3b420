"""Layers of Llama-like models with fewer operations: the states, gradients and tokens of transformers' own."""

import copy

import pytest
import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from smallmodels.models import LanguageModel, fused

SIZES = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
KINDS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "shared heads": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)),
    "wide heads": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=10)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=6)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=8)),
}


def pair(kind="shared heads", attention="eager", dtype=torch.float64):
    """A model with transformers' own layers, and the same one fused."""
    torch.manual_seed(0)
    plain = LanguageModel(KINDS[kind]()).eval()
    for weight in plain.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    plain.to(dtype)
    plain.transformer.set_attn_implementation(attention)
    other = copy.deepcopy(plain)
    fused.fuse(other)
    return plain, other


def padded(num_rows=4, length=24):
    ids = torch.randint(0, 64, (num_rows, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1:, -7:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def packed():
    ids = padded()["input_ids"]
    return {"input_ids": ids, "position_ids": torch.cat([torch.arange(10), torch.arange(14)]).expand(4, -1)}


def states_and_gradients(model, inputs, autocast=False):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        states = model(**inputs)
    real = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    ((states[real].double() - 0.1) ** 2).sum().backward()
    gradients = {n: w.grad for n, w in model.named_parameters() if "lm_head" not in n}  # which the loss does not read
    return states[real].detach(), gradients


def assert_close(found, expected):
    """In what transformers' norms leave of float64: they compute in float32."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def distance(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inputs", [padded(), packed()], ids=["padded", "packed"])
def test_states_and_gradients_are_those_of_transformers(kind, inputs):
    plain, other = pair(kind)
    expected, expected_gradients = states_and_gradients(plain, inputs)
    found, gradients = states_and_gradients(other, inputs)
    assert not torch.equal(found, expected)  # it did compute in another way
    assert_close(found, expected)
    assert_close(gradients, expected_gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bf16_it_is_as_near_to_float64_as_transformers_own(kind):
    exact, gradients = states_and_gradients(pair(kind)[0], padded())
    errors = []
    for model in pair(kind, dtype=torch.float32):
        states, found = states_and_gradients(model, padded(), autocast=True)
        assert all(gradient.dtype == torch.float32 for gradient in found.values())
        errors.append((distance(states, exact), max(distance(found[name], gradients[name]) for name in found)))
    (of_states, of_gradients), (fused_states, fused_gradients) = errors
    assert fused_states < 1.3 * of_states < 0.1
    assert fused_gradients < 1.3 * of_gradients < 0.2


def test_only_weights_that_are_trained_get_a_gradient():
    _, model = pair()
    layer = model.transformer.model.layers[0]
    layer.self_attn.k_proj.weight.requires_grad_(False)
    layer.input_layernorm.weight.requires_grad_(False)
    _, gradients = states_and_gradients(model, padded())
    without = {name for name, gradient in gradients.items() if gradient is None}
    of_layer = "transformer.model.layers.0."
    assert without == {
        f"{of_layer}self_attn.k_proj.weight",
        f"{of_layer}input_layernorm.weight",
    }


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_generated_tokens_and_weights_are_the_same(attention):
    plain, other = pair(attention=attention, dtype=torch.float32)
    prompt = padded(num_rows=3)["input_ids"]
    expected, found = (
        m.transformer.generate(prompt, max_new_tokens=6, do_sample=False, pad_token_id=0) for m in (plain, other)
    )
    assert torch.equal(found, expected)
    assert plain.state_dict().keys() == other.state_dict().keys()


def test_attentions_that_are_asked_for_are_given():
    plain, other = pair()
    asked = {**padded(), "use_cache": False, "output_attentions": True}
    expected, found = (model.transformer(**asked).attentions for model in (plain, other))
    assert_close(found, expected)


def test_who_looks_at_a_part_still_sees_what_it_gives():
    plain, other = pair()
    seen = []
    for model in (plain, other):
        layer = model.transformer.model.layers[0]
        for part in (layer.self_attn.q_proj, layer.mlp.up_proj):
            part.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
        model.transformer.model.layers[1].self_attn.register_forward_hook(lambda _, __, output: seen.append(output[1]))
        model(**padded())
    half = len(seen) // 2
    assert_close(seen[half:], seen[:half])


def test_adapters_compute_as_ever():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    results = []
    for model in pair():
        torch.manual_seed(3)
        adapted = LanguageModel(peft.get_peft_model(model.transformer, config))
        results.append(adapted(**padded()))
    assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_and_rows_without_a_real_token_stay_finite(dtype):
    inputs = padded()
    inputs["attention_mask"][1] = 0
    states, gradients = states_and_gradients(pair("mistral", dtype=dtype)[1], inputs)
    assert states.dtype == dtype
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_dropout_of_attention_is_left_to_transformers():
    results = []
    for model in pair():
        for layer in model.transformer.model.layers:
            layer.self_attn.attention_dropout = 0.5
        torch.manual_seed(0)
        results.append(model.train()(**padded()))
    assert_close(*results)


def test_a_copy_is_a_model_of_its_own():
    _, model = pair()
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.transformer.model.layers[0].mlp.up_proj.weight.zero_()
    assert not torch.equal(model(**padded()), other(**padded()))


def test_a_family_that_is_not_known_stays_as_it_is():
    model = LanguageModel(GemmaForCausalLM(GemmaConfig(**SIZES, num_key_value_heads=2, head_dim=6)))
    fused.fuse(model)
    assert not any("forward" in vars(module) for module in model.modules())
