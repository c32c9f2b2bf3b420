"""The full protocol of inference: long windows of every model in turn, for one text at a time and for its best batch.

For each distinct shape of model: ten windows of five seconds or more with typical texts in the number format of the
run, one text at a time and in the batch that gave the most texts per second; three windows of a second or more with the
shortest tenth of the texts, with the longest, and with typical ones in the other number formats of this machine; and
the time that a new process takes until its first answer. Of a model whose use has parts that are told apart, such as
reading and writing, each part has ten windows too, in that batch. Windows of all models and kinds follow each other in
turn, every other time in reverse, after a warm-up.

A measurement is kept in the cache, so that runs with models of the same shape on the same machine find it.

Source: the rules of Zeus and ML.ENERGY on windows (steady state, counters that move every 100 ms).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from smallmodels import entries, models, records, trials
from smallmodels.data.splits import Split
from smallmodels.errors import RunInterruptedError
from smallmodels.evaluation import kept_costs, start_up, windows
from smallmodels.evaluation.shapes import shape_key
from smallmodels.evaluation.windows import Use, Windows
from smallmodels.models import Compute, TextModel
from smallmodels.phases import Context

BATCH_SIZES = (1, 4, 16, 64, 256)
WINDOW_S = 5.0
NUM_STARTS = 3
_SHORT_S = 1.0
_NUM_WINDOWS, _NUM_SHORT = 10, 3
_TRY_FRACTION = 0.1
"""Of a window, for each size of batch that is tried."""
_WARM_UP = 3
"""Calls before the first window, until threads, memory and machine code are there."""


@dataclass(frozen=True)
class Asked:
    """How much is measured."""

    max_examples: int
    """Of each kind of texts."""
    batch_sizes: tuple[int, ...]
    """That are tried, in rising order."""
    window_s: float
    """Shortest window with typical texts in the number format of the run; of others it is at most a second."""
    num_starts: int
    """Of new processes; 0 leaves the start-up time unknown."""

    @property
    def short_s(self) -> float:
        """Shortest window of all others."""
        return min(_SHORT_S, self.window_s)


@dataclass(frozen=True)
class Subject:
    """A model as it is measured."""

    model: Any
    """A model or a baseline."""
    uses: Callable[[Compute, Context], Sequence[Use]]
    """Its use on a device in a number format, and after it parts of that use that are measured in windows of their
    own."""
    key: Mapping[str, Any]
    """Equal for models whose uses cost the same, as JSON values."""
    num_tokens: Callable[[Split], float | None]
    """That a use reads, on average over examples; None of what has no tokens."""
    tokens: Callable[[Sequence[Windows]], records.TokenCosts | None] = lambda _: None
    """What a token costs, by the windows of the use and of its parts in the best batch."""

    @classmethod
    def of(cls, model: Any) -> "Subject":
        """One that answers texts."""

        def num_tokens(split: Split) -> float | None:
            if not isinstance(model, TextModel):
                return None
            tokenised = split.tokenize(model.tokenizer, max_length=model.max_length)
            return float(tokenised.require_tokens().lengths.mean())

        return cls(model, lambda *how: [windows.use_of(model, *how)], shape_key(model), num_tokens)


@dataclass
class _Series:
    """Windows of one model on texts of one kind, in one number format, so many at once."""

    role: str
    subject: Subject
    texts: records.TextsKind
    split: Split
    compute: Compute
    batch_size: int
    num_windows: int
    window_s: float
    context: Context
    part: int = 0
    """Of the use: 0 is the whole of it."""
    found: Windows = field(default_factory=Windows)

    def __post_init__(self) -> None:
        self.use = self.subject.uses(self.compute, self.context)[self.part]
        self.parts = _full_parts(self.split, self.batch_size)

    def take(self, number: int) -> None:
        """One more window; in a trial a short one that stands for all."""
        how = (self.window_s, self.num_windows, self.compute, self.context)
        self.found.add(windows.take_or_try(self.use, self.parts, number, *how))

    def variant(self) -> records.InferenceVariant:
        """What the windows say."""
        return records.InferenceVariant(
            texts=self.texts,
            mean_characters=float(np.mean([len(text) for text in self.split.whole_texts])),
            mean_tokens=self.subject.num_tokens(self.split),
            number_format=windows.number_format_of(self.subject.model, self.compute),
            batch_size=self.batch_size,
            **windows.percentiles(self.found.calls_s),
            **self.found.rates,
            num_windows=len(self.found.windows),
            duration_s=self.found.duration_s,
        )


def measure(
    subjects: Mapping[str, Subject], split: Split, asked: Asked, compute: Compute, context: Context, cache: Path | None
) -> dict[str, records.Inference]:
    """The cost of a use of each model by role: from the cache where it is known, else measured and kept there.

    Args:
        subjects: By role, one of each shape.
        split: Texts as they come.
        asked: How much is measured.
        compute: Device and number format of the run.
        context: Of the run; without one nothing is kept, because the machine is not known.
        cache: Folder of the cache; `entries.cache_folder()` if None.

    Raises: RunInterruptedError if the run was asked to stop.
    """
    texts = _kinds_of_texts(split, asked.max_examples)
    kept = kept_costs.KeptCosts(_measured_how(texts, split, asked), compute, context, cache)
    found = kept.read({role: subject.key for role, subject in subjects.items()})
    missing = {role: subject for role, subject in subjects.items() if role not in found}
    shares = {role: entries.Share(context) for role in missing}
    for role, inference in _measured(missing, texts, asked, compute, context, shares).items():
        kept.keep(missing[role].key, inference, shares[role])
        found[role] = inference
    return found


def _measured_how(texts: Mapping[records.TextsKind, Split], split: Split, asked: Asked) -> dict[str, Any]:
    """What moves the numbers beside model and machine."""
    return {
        "texts": kept_costs.texts_sha256(texts.values()),
        "pairs": split.seconds is not None,
        "asked": dataclasses.asdict(asked),
        "num_windows": [_NUM_WINDOWS, _NUM_SHORT],
    }


def _kinds_of_texts(split: Split, max_examples: int) -> dict[records.TextsKind, Split]:
    """Typical texts, the shortest tenth, and the longest one by characters; of each so many, spread over it."""
    by_length = np.argsort([len(text) for text in split.whole_texts], kind="stable")
    tenth = max(1, len(split) // 10)
    few = dataclasses.replace(split, tokens=None, teacher=None)
    return {
        "typical": windows.spread(split, max_examples),
        "short": windows.spread(few.take(by_length[:tenth]), max_examples),
        "long": windows.spread(few.take(by_length[-tenth:]), max_examples),
    }


def _full_parts(split: Split, size: int) -> list[Split]:
    """Parts of exactly so many examples, some of which come again where there are too few."""
    num_parts = -(-len(split) // size)
    return windows.cut(split.take(np.resize(np.arange(len(split)), num_parts * size)), size)


def _measured(
    subjects: Mapping[str, Subject],
    texts: Mapping[records.TextsKind, Split],
    asked: Asked,
    compute: Compute,
    context: Context,
    shares: Mapping[str, entries.Share],
) -> dict[str, records.Inference]:
    """What a use of each model costs, of models that the cache does not know."""
    others = _other_formats(compute) if any(isinstance(s.model, TextModel) for s in subjects.values()) else []
    series: dict[str, list[_Series]] = {}
    starts_s: dict[str, float | None] = {}
    for role, subject in subjects.items():
        with shares[role].paying():
            best = _best_batch(subject.uses(compute, context)[0], texts["typical"], asked, compute, context)
            series[role] = _series_of(role, subject, texts, best, asked, (compute, *others), context)
            starts_s[role] = start_up.start_up_s(subject.model, texts["typical"], asked.num_starts, compute, context)
            for each in series[role]:
                _warm_up(each.use, each.parts, compute)
    _take_in_turn([each for found in series.values() for each in found], context, shares)
    return {role: _inference(subject, compute, series[role], starts_s[role]) for role, subject in subjects.items()}


def _other_formats(compute: Compute) -> list[Compute]:
    """The same device in fp32 and in bf16, where it has units for it and does not emulate it; not the run's own."""
    chosen = models.choose_compute(compute.device).number_format
    formats = ["fp32", *(["bf16"] if chosen == "bf16" else [])]
    return [dataclasses.replace(compute, number_format=f) for f in formats if f != compute.number_format]


def _best_batch(use: Use, split: Split, asked: Asked, compute: Compute, context: Context) -> int:
    """The size that gives the most texts per second; larger ones are not tried once a call takes half a window."""
    rates: dict[int, float] = {}
    for size in asked.batch_sizes:
        parts = _full_parts(split, size)
        use(parts[-1])  # the first call of a shape waits for memory and machine code
        taken = windows.take_or_try(use, parts, 0, _TRY_FRACTION * asked.window_s, 1, compute, context)
        rates[size] = taken.window.num_examples / taken.window.duration_s
        if max(taken.calls_s) > asked.window_s / 2:
            break
    return max(rates, key=rates.__getitem__)


def _series_of(
    role: str,
    subject: Subject,
    texts: Mapping[records.TextsKind, Split],
    best: int,
    asked: Asked,
    computes: Sequence[Compute],
    context: Context,
) -> list[_Series]:
    """What is to be measured of a model; the first number format is that of the run."""
    own, found = computes[0], list[_Series]()
    for size in dict.fromkeys((1, best)):
        for kind, split in texts.items():
            long = kind == "typical"
            num_windows, window_s = (_NUM_WINDOWS, asked.window_s) if long else (_NUM_SHORT, asked.short_s)
            found.append(_Series(role, subject, kind, split, own, size, num_windows, window_s, context))
        for other in computes[1:] if isinstance(subject.model, TextModel) else ():
            split = texts["typical"]
            found.append(_Series(role, subject, "typical", split, other, size, _NUM_SHORT, asked.short_s, context))
    for part in range(1, len(subject.uses(own, context))):
        how = (own, best, _NUM_WINDOWS, asked.window_s, context, part)
        found.append(_Series(role, subject, "typical", texts["typical"], *how))
    return found


def _warm_up(use: Use, parts: Sequence[Split], compute: Compute) -> None:
    for number in range(_WARM_UP):
        use(parts[number % len(parts)])
    compute.synchronize()


def _take_in_turn(series: Sequence[_Series], context: Context, shares: Mapping[str, entries.Share]) -> None:
    """Window after window of all series, so that a machine that slows down slows all of them."""
    num_rounds = max((each.num_windows for each in series), default=0) if trials.current() is None else 1
    for number in range(num_rounds):
        for each in series[:: -1 if number % 2 else 1]:
            if number >= each.num_windows:
                continue
            if context.should_stop():
                raise RunInterruptedError("the measurement of inference was stopped, and starts again on resume")
            with shares[each.role].paying():
                each.take(number)
        context.progress(number + 1, num_rounds)


def _inference(
    subject: Subject, compute: Compute, series: Sequence[_Series], start_s: float | None
) -> records.Inference:
    """The line of a record: latency of one typical text, and what a use costs in the best batch."""
    whole, parts = [each for each in series if not each.part], [each for each in series if each.part]
    typical = [each for each in whole if each.texts == "typical" and each.compute is compute]
    one, best = typical[0], typical[-1]
    return records.Inference(
        role=one.role,
        **windows.sizes_of(subject.model),
        **windows.percentiles(one.found.calls_s),
        batch_size=best.batch_size,
        **best.found.rates,
        windows=best.found.windows,
        number_format=windows.number_format_of(subject.model, compute),
        protocol="full",
        start_up_s=start_s,
        variants=[each.variant() for each in whole],
        tokens=subject.tokens([best.found, *(part.found for part in parts)]),
    )
