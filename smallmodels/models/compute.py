"""Where and how models run: the device, and the choices that are measured on it once and written down."""

import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from smallmodels import files, losses, memory
from smallmodels.data import batches
from smallmodels.data.packing import LAYOUTS, PACKED, PADDED
from smallmodels.data.splits import Tokens
from smallmodels.errors import InputError
from smallmodels.models import first_token, fused
from smallmodels.models.language_model import LanguageModel, keeps_texts_apart
from smallmodels.models.loading import Embedder, TextModel

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_MASKED = "sdpa_masked"
"""`sdpa` that is always given a mask: to look whether it needs one, as transformers does, makes a GPU wait."""
_ATTENTIONS = {"cpu": ("eager", "sdpa"), "cuda": ("eager", _MASKED), "mps": ("eager", "sdpa")}
"""Implementations of attention to choose from; which one is faster depends on device and length."""
_TOKENS_PER_PASS = {"cpu": (512, 1024, 2048, 4096), "cuda": (4096, 8192, 16384, 32768), "mps": (2048, 4096, 8192)}
"""Candidates, the second being tried first. Large passes fill a GPU; on a processor they leave its cache."""
_WORTH_IT = 0.97
"""A choice is left for another one that takes at most this share of its time: less is noise."""
_MEASURE_S = 5.0
"""After so long the best choice so far is kept."""


@dataclass(frozen=True)
class Compute:
    """The device of a run and how models run on it, chosen once and written down."""

    device: str
    """`cpu`, `cuda` or `mps`."""
    number_format: str
    """`bf16`, `fp16` or `fp32`: of the matrix products; weights and sums stay in fp32."""
    num_threads: int
    operations_per_s: float
    """Matmul rate measured on this device in this number format."""
    attention: str = "sdpa"
    """Attention of transformers: `eager`, `sdpa`, or `sdpa_masked`, which is that of GPUs."""
    tokens_per_pass: int = 1024
    """Processed tokens that go through a model at once, one example at least."""
    layout: str = PADDED
    """`padded` or `packed`: whether a language model is trained on rows that may hold several texts."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the number format."""
        return _DTYPES[self.number_format]

    def save(self, folder: Path) -> None:
        """Write `compute.json`."""
        files.write_json(folder / "compute.json", dataclasses.asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Compute":
        """Read what `save` wrote."""
        return cls(**files.read_json(folder / "compute.json"))

    @property
    def choices(self) -> dict[str, Any]:
        """What a repeat of the run takes over: all that moves the last bits of a sum."""
        names = ("device", "number_format", "num_threads", "attention", "tokens_per_pass", "layout")
        return {name: getattr(self, name) for name in names}

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, with the chosen attention, and a last layer that computes what the head reads."""
        transformer: Any = model.transformer if isinstance(model, (Embedder, LanguageModel)) else model
        if hasattr(transformer, "set_attn_implementation"):
            if self.attention == _MASKED:
                _register_masked()
            has_choice = getattr(transformer, "_supports_sdpa", True)  # Gemma 2 has not
            transformer.set_attn_implementation(self.attention if has_choice else "eager")
        if self.device == "cpu":
            memory.keep_freed()
            fused.fuse(model)
        first_token.shorten(model)
        return model.to(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Run the block's matrix products in the number format; the outermost block casts trained weights once."""
        if self.number_format == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)

    def use_threads(self) -> None:
        """Use as many threads as when this was chosen: a sum over other threads has other last bits."""
        if torch.get_num_threads() != self.num_threads:
            torch.set_num_threads(self.num_threads)

    def synchronize(self) -> None:
        """Wait until the device has done what was asked of it."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()


def _register_masked() -> None:
    """Make `sdpa_masked` known to transformers."""
    AttentionInterface.register(_MASKED, ALL_ATTENTION_FUNCTIONS["sdpa"])
    AttentionMaskInterface.register(_MASKED, _whole_mask)


def _whole_mask(*args: Any, **options: Any) -> Any:
    unread = {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    return ALL_MASK_ATTENTION_FUNCTIONS["sdpa"](*args, **{**options, **unread})


def pick_device(name: str = "auto") -> str:
    """`cuda`, `mps` or `cpu`: the named one, or with `auto` the fastest that is there.

    Raises: InputError if the named one is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, there in available.items() if there)
    if not available.get(name, False):
        there = ", ".join(device for device, is_there in available.items() if is_there)
        raise InputError(f"--device {name} is not available here: choose auto or one of {there}")
    return name


def choose_compute(
    device: str = "auto",
    number_format: str = "auto",
    *,
    num_threads: int | None = None,
    attention: str = "auto",
    tokens_per_pass: int | None = None,
    layout: str = "auto",
    model: TextModel | None = None,
    tokens: Tokens | None = None,
    batch_size: int | None = None,
) -> Compute:
    """Choose how models run on this machine; what is given is taken as it is.

    On a processor, bf16 is taken where its measured matmul rate is at least 1.5 times that of fp32: processors
    without bf16 units emulate it, a hundred times slower. GPUs use bf16 where they have it, else fp16 (CUDA) or fp32.
    Attention, size of a pass and layout are those with which the model trains fastest on typical texts.

    Args:
        device: `cpu`, `cuda`, `mps` or `auto`.
        number_format: `bf16`, `fp16`, `fp32` or `auto`.
        num_threads: Of a processor; those that torch would take if None, one for each core.
        attention: `auto`, `eager`, or on GPUs `sdpa_masked` and elsewhere `sdpa`.
        tokens_per_pass: Processed tokens that go through a model at once; measured if None.
        layout: `padded`, `packed` (several texts in a row, for language models that keep them apart), or `auto`.
        model: What shall be trained; without it, attention, size of a pass and layout are usual ones.
        tokens: Of the texts to train on.
        batch_size: Texts of an optimizer step; passes that have room for more than one step are not tried.

    Raises: InputError if the device is not there, a number format, attention or layout does not exist, or the layout
        is not for this model.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    chosen = pick_device(device)
    number_format, rate = _format_and_rate(chosen, number_format)
    known = _ATTENTIONS[chosen]
    if attention not in ("auto", *known):
        raise InputError(f"the attention must be auto, {' or '.join(known)}, got {attention}")
    attentions = known if attention == "auto" else (attention,)
    sizes = _TOKENS_PER_PASS[chosen] if tokens_per_pass is None else (tokens_per_pass,)
    if tokens_per_pass is None and tokens is not None and batch_size is not None:
        sizes = _sizes_for(batch_size * float(tokens.lengths.mean()), sizes)
    layouts = _layouts(layout, model)
    usual = Compute(chosen, number_format, torch.get_num_threads(), rate, attentions[-1], sizes[:2][-1], layouts[0])
    if model is None or tokens is None or len(attentions) == len(sizes) == len(layouts) == 1:
        return usual
    return fastest(usual, attentions, sizes, _Passes(model, tokens), layouts)


def _sizes_for(step_tokens: float, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of a pass up to the first that holds a whole step: to try larger ones takes time and memory for nothing."""
    too_small = sum(size < step_tokens for size in sizes)
    return sizes[: too_small + 1]


def _layouts(asked: str, model: TextModel | None) -> tuple[str, ...]:
    """The layouts to choose from for a model."""
    if asked not in ("auto", *LAYOUTS):
        raise InputError(f"the layout must be auto, {' or '.join(LAYOUTS)}, got {asked}")
    if asked != "auto":
        require_layout(asked, model)
        return (asked,)
    return LAYOUTS if model is not None and keeps_texts_apart(model.model) else (PADDED,)


def require_layout(layout: str, model: TextModel | None) -> None:
    """Refuse packed rows for a model in which one text would see another.

    Raises: InputError.
    """
    if layout == PACKED and model is not None and not keeps_texts_apart(model.model):
        raise InputError(
            "the layout packed needs a language model that keeps the texts of a row apart, but "
            f"{type(model.model.config).__name__.removesuffix('Config')} does not: choose the layout padded"
        )


def _format_and_rate(device: str, number_format: str) -> tuple[str, float]:
    """The number format, `auto` resolved, and its matmul rate on the device."""
    rates = {"fp32": matmul_rate(device, "fp32")}
    if number_format == "auto" and device == "cuda":
        number_format = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    elif number_format == "auto" and device == "mps":
        number_format = "fp32"
    elif number_format == "auto":
        rates["bf16"] = matmul_rate(device, "bf16")
        number_format = "bf16" if rates["bf16"] >= 1.5 * rates["fp32"] else "fp32"
    if number_format not in _DTYPES:
        raise InputError(f"--number-format must be auto, bf16, fp16 or fp32, got {number_format}")
    return number_format, rates.get(number_format) or matmul_rate(device, number_format)


def matmul_rate(device: str, number_format: str) -> float:
    """Floating-point operations per second of a linear layer of a small model, best of several short repeats."""
    rows, width, dtype = (512 if device == "cpu" else 8192), 768, _DTYPES[number_format]
    x, w = (torch.randn(n, width, device=device, dtype=dtype) for n in (rows, width))
    compute = Compute(device, number_format, 1, 0.0)
    best, deadline = float("inf"), time.perf_counter() + 0.15
    while True:
        compute.synchronize()
        begin = time.perf_counter()
        nn.functional.linear(x, w)
        compute.synchronize()
        best = min(best, time.perf_counter() - begin)
        if time.perf_counter() > deadline:
            return 2 * rows * width * width / best


def fastest(
    compute: Compute,
    attentions: Sequence[str],
    sizes: Sequence[int],
    seconds_per_token: Callable[[Compute], float],
    layouts: Sequence[str] = (),
    *,
    limit_s: float = _MEASURE_S,
) -> Compute:
    """The attention, size of a pass and layout that take the least time per token: one after the other.

    Args:
        compute: With the size and layout to begin with.
        attentions: To choose from; tried in turn, twice, so that a machine that slows down slows all of them.
        sizes: To choose from, in rising order; tried from the first one upwards and downwards as long as it pays.
        seconds_per_token: Runs a pass as it is told; infinite where the memory does not suffice.
        layouts: To choose from, last.
        limit_s: After so long the best so far is taken.
    """
    deadline, best_s = time.monotonic() + limit_s, {compute: float("inf")}

    def try_out(candidates: Sequence[Compute]) -> None:
        for candidate in candidates:
            if time.monotonic() < deadline:
                best_s[candidate] = min(seconds_per_token(candidate), best_s.get(candidate, float("inf")))

    with_attention = [dataclasses.replace(compute, attention=attention) for attention in attentions]
    try_out([*with_attention, *reversed(with_attention)])
    best = min(best_s, key=best_s.__getitem__)
    larger = [{"tokens_per_pass": size} for size in sizes if size > best.tokens_per_pass]
    smaller = [{"tokens_per_pass": size} for size in reversed(sizes) if size < best.tokens_per_pass]
    others = [{"layout": layout} for layout in layouts if layout != best.layout]
    directions: list[list[dict[str, Any]]] = [larger, smaller, others]
    for direction in directions:
        for change in direction:
            other = dataclasses.replace(best, **change)
            try_out([other])
            if best_s.get(other, float("inf")) > _WORTH_IT * best_s[best]:
                break
            try_out([best, other])
            if best_s[other] > _WORTH_IT * best_s[best]:
                break
            best = other
    return best


def _thinned(model: nn.Module) -> tuple[nn.Module, float]:
    """A copy with the first and the last layer alone, and how many times as deep the model itself is.

    The layers between them take as long, so they tell nothing new.
    """
    depth = int(getattr(model.config, "num_hidden_layers", 0))
    stacks = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == depth > 2]
    memo: dict[int, Any] = {id(layer): nn.Identity() for stack in stacks[:1] for layer in stack[1:-1]}
    left_out, copied = list(memo.values()), copy.deepcopy(model, memo)
    for stack in copied.modules():
        if isinstance(stack, nn.ModuleList):
            kept = [layer for layer in stack if not any(layer is other for other in left_out)]
            if len(kept) < len(stack):
                del stack[:]
                stack.extend(kept)
    return copied, depth / 2 if stacks else 1.0


class _Passes:
    """Passes with gradients over typical texts, to time; the model itself stays as it is."""

    def __init__(self, model: TextModel, tokens: Tokens) -> None:
        thinned, self.times_thinned = _thinned(model.model)
        self.network, self.tokens = thinned.train(False).requires_grad_(True), tokens
        by_length = np.argsort(tokens.lengths, kind="stable")
        middle = int(np.searchsorted(np.cumsum(tokens.lengths[by_length]), tokens.lengths.sum() / 2))
        self.typical_first = np.roll(by_length, -middle)
        self.warm: set[Compute] = set()
        self.target_share = 1.0 if tokens.targets is None else float(np.mean(tokens.targets))
        self.vocabulary_s: dict[int, list[float]] = {}
        """For so many targets, of the passes that were timed."""

    def __call__(self, compute: Compute) -> float:
        """Seconds per token; infinite where the memory does not suffice, or there is nothing to pack."""
        batch = self._batch(compute)
        if compute.layout == PACKED and not batch.is_packed:
            return float("inf")
        try:
            network = compute.place(self.network)
            if compute not in self.warm:  # the first products of a shape wait for machine code to be made for it
                self._pass(network, batch, compute)
                self.warm.add(compute)
            return self._pass(network, batch, compute) / batch.num_tokens
        except (MemoryError, RuntimeError) as error:
            if not memory.is_exhausted(error):
                raise
            return float("inf")
        finally:
            self.network.zero_grad(set_to_none=True)

    def _pass(self, network: nn.Module, batch: batches.Batch, compute: Compute) -> float:
        """Seconds of a pass: of the layers as if none were left out, and of a language model's vocabulary."""
        begin = time.perf_counter()
        with compute.autocast():
            output = network(**batch.inputs)
        values = output if isinstance(output, Tensor) else output.logits
        values.float().sum().backward()
        compute.synchronize()
        layers_s = time.perf_counter() - begin
        of_vocabulary = self._vocabulary_s(network, values, batch, compute) if isinstance(network, LanguageModel) else 0
        return self.times_thinned * layers_s + of_vocabulary

    def _vocabulary_s(self, network: LanguageModel, states: Tensor, batch: batches.Batch, compute: Compute) -> float:
        """Of as many cross-entropies as so many tokens have targets: for small models the larger part of a pass.

        Attention does not change them, so they are made twice for each number of targets, the first time to warm up.
        """
        num_targets = max(1, round(self.target_share * batch.num_tokens))
        known = self.vocabulary_s.setdefault(num_targets, [])
        if len(known) < 2:
            begin = time.perf_counter()

            def loss(logits: Tensor, _: slice) -> Tensor:
                return losses.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))

            with compute.autocast():
                of_targets = states.detach().requires_grad_().flatten(0, 1)[:num_targets]
                found = losses.by_chunks(of_targets, network.output_layer, loss)
            torch.autograd.backward(found.sum())
            compute.synchronize()
            known.append(time.perf_counter() - begin)
        return min(known)

    def _batch(self, compute: Compute) -> batches.Batch:
        """So many of the typical texts as a pass takes, again and again where there are too few."""
        length = max(1, int(self.tokens.lengths[self.typical_first[0]]))
        rows = np.resize(self.typical_first, max(1, compute.tokens_per_pass // length))
        lengths = self.tokens.lengths[rows]
        taken = lengths.cumsum() if compute.layout == PACKED else lengths.max() * np.arange(1, len(rows) + 1)
        texts = rows[: max(1, int((taken <= compute.tokens_per_pass).sum()))]
        batch = batches.Batch(batches.pad(self.tokens, texts), texts.astype(str).tolist(), self.tokens.lengths[texts])
        return (batch.packed() if compute.layout == PACKED else batch).to(compute.device)
