"""Distil a language model into a smaller one, which learns from what the teacher said about each token of the texts.

Source:    soft targets: Hinton et al. 2015, arXiv:1503.02531; reverse KL: Gu et al. 2023, arXiv:2306.08543; generalised
           Jensen-Shannon: Agarwal et al. 2023, arXiv:2306.13649; skew KL: Ko et al. 2024, arXiv:2402.03898; universal
           logit distance: Boizard et al. 2024, arXiv:2402.12030.
Run:       smallmodels run distill_language_model --teacher runs/pretrain_language_model/…/model
Expected:  texts read eight times, 150 or 1,000 of them: better than the same student on the texts alone at equal cost.
           500 read twice at a soft weight of 0.5, or 6,480 of arithmetic read four times: worse. See the README.
Measured:  texts.jsonl: bits per byte 1.055 (teacher 0.987, labels alone 1.113), one seed, flags as in its record; 15
           min 08 s and 1,730 CPU-s on AMD EPYC, 2 cores, bf16.
Licences:  MedQuAD, questions and answers on health, is CC-BY-4.0, SmolLM2 Apache-2.0; a student inherits its teacher's.

The stored signal holds the k most likely tokens of each place and the mass of all others, some 130 bytes a token; a
live teacher says the same for each batch. A student with another tokenizer learns by the universal logit distance, at
those places where both have read the same characters.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, Literal

from torch import Tensor

from smallmodels import cli, data, distilling, generation, losses, models, perplexity, students, teachers, training
from smallmodels.data import Batch
from smallmodels.errors import InputError, require
from smallmodels.evaluation import Contender
from smallmodels.models import LanguageModel
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to distil, how small, and how the student is trained."""

    dataset: str = "lavita/MedQuAD"
    """Hub id (`org/name@revision` pins it), a local CSV, JSON Lines or Parquet file, or a folder of text files."""
    dataset_config: str | None = None
    """Configuration of a hub data set that has several, such as a language."""
    text_columns: tuple[str, ...] = ("question", "answer")
    """Columns whose texts make up one text, a line break between them."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str | None = None
    """Split to choose on; a tenth of train if there is none."""
    test_split: str = "test"
    """Split that is read once, at the end; a tenth of train if there is none."""
    drop_overlap: bool = True
    """Drop training texts that also stand in validation or test."""
    drop_bad_texts: bool = True
    """Leave out rows whose text is empty, null or a megabyte long, instead of refusing the data."""
    max_train: int | None = None
    """Train on so many texts only."""
    max_validation: int | None = 500
    """Validate on so many texts only; None is as many as are tested."""
    max_test: int | None = None
    """Test on so many texts only; None tests the whole split."""
    teacher: str = "HuggingFaceTB/SmolLM2-135M"
    """Causal language model, from the hub or a local folder."""
    student: str | None = None
    """Causal language model to train, which may have another tokenizer; without it, one is made of the teacher."""
    hidden_size: int | None = None
    """Width of a new student with random weights; without it, the student keeps layers of the teacher."""
    num_layers: int | None = None
    """Layers of a student that is made; without it, half of the teacher's."""
    num_heads: int = 4
    """Heads of attention of a new student."""
    max_length: int = 256
    """Tokens of a row; longer texts make several."""
    stride: int | None = None
    """Tokens by which rows move on in a text of validation or test: each token has at least `max_length` - `stride`
    before it; None is half of `max_length`."""
    k: int = 32
    """Most likely tokens of the teacher that are kept for each place."""
    teacher_signal: Literal["stored", "live"] = "stored"
    """The teacher reads the texts once, before, or each batch anew, which costs more and takes no room on the disk."""
    objective: Literal[
        "kl", "reverse_kl", "jensen_shannon", "skew_kl", "skew_reverse_kl", "universal_logit_distance"
    ] = "kl"
    """Divergence from the teacher; only the last fits a student with another tokenizer."""
    beta: float = 0.5
    """Weight of the teacher in the mixture of `jensen_shannon`, in (0, 1)."""
    skew: float = 0.1
    """Weight of the first distribution in the mixture of `skew_kl` and `skew_reverse_kl`, in [0, 1)."""
    temperature: float = 1.0
    """Softens both distributions; > 0, and 1 leaves them as they are, as `universal_logit_distance` needs it."""
    soft_weight: float = 0.9
    """Share of the divergence in the loss, in [0, 1]; the rest is cross-entropy with the next token."""
    seed: int = 0
    """Of a new student's weights and of the training."""
    split_seed: int = 0
    """Of the texts that are held out."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=8, batch_size=16)

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", "> 0", self.temperature)
        require(0 <= self.soft_weight <= 1, "soft_weight", "in [0, 1]", self.soft_weight)
        require(0 < self.beta < 1, "beta", "in (0, 1)", self.beta)
        require(0 <= self.skew < 1, "skew", "in [0, 1)", self.skew)
        if self.objective == "universal_logit_distance":
            require(self.temperature == 1, "temperature", "1 for universal_logit_distance", self.temperature)
        if self.student is not None:
            for name in ("hidden_size", "num_layers"):
                require(getattr(self, name) is None, name, "left out where a student is named", getattr(self, name))
        require(self.num_layers is None or self.num_layers > 0, "num_layers", "> 0", self.num_layers)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        fits = self.stride is None or 0 < self.stride < self.max_length
        require(fits, "stride", f"in 1 … {self.max_length - 1}, below max_length", self.stride)
        require(self.k > 0, "k", "> 0", self.k)


METRICS = ("bits_per_byte", "perplexity", "next_token_accuracy", "kl_from_teacher")
SMOKE = replace(
    Config(),
    max_train=100,
    max_validation=20,
    max_test=20,
    max_length=64,
    k=8,
    train=replace(Config().train, max_steps=2, num_evaluations=1),
)


def loss_of(config: Config) -> Callable[[Tensor, losses.TopK, Tensor], Tensor]:
    """The loss of each target, from a student's logits, what the teacher said, and the right token."""
    if config.objective == "universal_logit_distance":

        def with_distance(logits: Tensor, told: losses.TopK, labels: Tensor) -> Tensor:
            distance = losses.top_k_universal_logit_distance(logits, told)
            return config.soft_weight * distance + (1 - config.soft_weight) * losses.cross_entropy(logits, labels)

        return with_distance
    weights: dict[str, Any] = {
        "jensen_shannon": {"beta": config.beta},
        "skew_kl": {"skew": config.skew},
        "skew_reverse_kl": {"skew": config.skew},
    }
    divergence = partial(losses.DIVERGENCES[config.objective], **weights.get(config.objective, {}))
    return partial(
        losses.top_k_distillation_loss,
        divergence=divergence,
        temperature=config.temperature,
        soft_weight=config.soft_weight,
    )


def require_fitting_tokens(config: Config) -> None:
    """Refuse what needs a student that cuts texts as its teacher does.

    Raises: InputError.
    """
    found = f"{config.student} cuts texts otherwise than {config.teacher}"
    if config.objective != "universal_logit_distance":
        raise InputError(
            f"{config.objective} should compare models token by token, but {found}: choose --objective "
            "universal_logit_distance, or learn from what the teacher writes, with distill_sequence_level"
        )
    if config.teacher_signal == "live":
        raise InputError(
            f"a live teacher should read the student's own tokens, but {found}: choose --teacher-signal stored"
        )


def main(config: Config, run: Run) -> None:
    """Hear what the teacher says, train the student on it, and compare it with one that had the texts alone."""
    # 1. Texts, teacher, and student
    names = [config.teacher] if config.student is None else [config.teacher, config.student]
    dataset_name, teacher_name, *student_name = run.pin((config.dataset, "dataset"), *((n, "model") for n in names))
    splits = run.phase(
        "data",
        data.load_texts,
        dataset_name,
        config=config.dataset_config,
        text_columns=config.text_columns,
        train_split=config.train_split,
        validation_split=config.validation_split,
        test_split=config.test_split,
        split_seed=config.split_seed,
        drop_overlap=config.drop_overlap,
        drop_bad_texts=config.drop_bad_texts,
        max_train=config.max_train,
        max_validation=config.max_validation,
        max_test=config.max_test,
    )
    run.add_source(splits.source)
    teacher, fetched = models.load_language_model(teacher_name, max_length=config.max_length)
    run.add_source(fetched.source)
    if student_name:
        untrained, own = models.load_language_model(student_name[0], max_length=config.max_length, role="base_model")
        run.add_source(own.source)
    else:
        untrained = students.smaller_language_model(
            teacher,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            seed=config.seed,
        )
        distilling.say_change(run, teacher, untrained)
    tokens_fit = data.cuts_alike(untrained.tokenizer, teacher.tokenizer)
    if not tokens_fit:
        require_fitting_tokens(config)
    max_length = min(untrained.max_length, teacher.max_length) if tokens_fit else untrained.max_length
    for model in (teacher, untrained):
        perplexity.require_stride(model, config.stride)
    rows = data.cut_into_rows(splits.train, untrained.tokenizer, max_length=max_length)
    options = dict(run.compute)
    if config.teacher_signal == "live" and not models.keeps_texts_apart(teacher.model):
        options["layout"] = "padded"  # it reads the student's rows
    compute = run.phase(
        "setup",
        models.choose_compute,
        model=untrained,
        tokens=rows.tokens,
        batch_size=config.train.batch_size,
        **options,
    )
    unigrams = perplexity.Unigrams.fit(rows, untrained.tokenizer)

    # 2. What the teacher says about each token: stored once, or asked for with each batch
    own_classes, num_classes = (models.vocabulary_size(model) for model in (untrained, teacher))
    if tokens_fit:  # one of a family may have spare rows
        own_classes = num_classes = min(own_classes, num_classes)
    packing = teachers.Packing(config.k, (config.temperature,), num_classes)
    told_rows, paid = rows, ["train"]
    if config.teacher_signal == "live":
        hear: Callable[[Batch], losses.TopK | teachers.LiveTopK] = teachers.LiveTeacher(teacher, packing, compute)
        run.event("live teacher", "the teacher reads every batch, so what it costs is a part of the phase train")
    else:
        hear = attrgetter("teacher_top_k")
        teacher_rows = rows
        if not tokens_fit:
            teacher_rows = data.cut_into_rows(splits.train, teacher.tokenizer, max_length=teacher.max_length)
        run.say(teachers.require_space_for_tokens(teacher_rows, packing, run.folder))
        signals = run.phase(
            "cache", teachers.store_token_signals, teacher, teacher_rows, packing=packing, compute=compute
        )
        if tokens_fit:
            told_rows, paid = rows.with_signals(signals), ["cache", "train"]
        else:
            places = run.phase("pair", data.pair_targets, splits.train, untrained.tokenizer, teacher.tokenizer)
            paired = teachers.PairedSignals(signals, places, rows)
            told_rows, paid = rows.with_signals(paired), ["cache", "pair", "train"]

    # 3. The student, and the same one without a teacher at equal cost
    of_tokens = loss_of(config)

    def soft_loss(model: LanguageModel, batch: Batch) -> Tensor:
        states, labels = losses.next_tokens(model(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        told = hear(batch)

        def of_chunk(logits: Tensor, chunk: slice) -> Tensor:
            return of_tokens(logits, told[chunk], labels[chunk])

        return losses.by_chunks(states, model.output_layer.cut(own_classes), of_chunk)

    validate = perplexity.validation_of_texts(splits.validation, stride=config.stride, compute=compute)
    how: dict[str, Any] = {"seed": config.seed, "validate": validate, "compute": compute}
    reached = distilling.teacher_on_validation(run, teacher, validate)
    student = run.phase("train", training.fit, untrained.copy(), told_rows, soft_loss, config.train, **how)
    controls = distilling.train_controls(
        run,
        {"label_only": paid},
        student=student,
        of_student=distilling.Training(untrained, told_rows, soft_loss, config.train),
        of_control=distilling.Training(untrained, rows, losses.next_token_loss, config.train),
        probe="probe_soft",  # a step with the teacher's signal costs its own
        **how,
    )

    # 4. The test split is read here, once
    contenders = {
        "teacher": Contender(teacher),
        "student": Contender(student, built_by=tuple(paid)),
        "untrained_student": Contender(untrained),
        **{role: Contender(model, built_by=(role,)) for role, model in controls.items()},
        "unigrams": Contender(unigrams),
    }
    result = run.phase(
        "evaluate",
        perplexity.evaluate_language_models,
        contenders,
        splits.test,
        stride=config.stride,
        compute=compute,
    )
    costs = run.phase(
        "inference", generation.measure_inference, contenders, splits.test, template=None, compute=compute
    )
    described = models.describe(student, compute)
    run.finish(
        student,
        title=f"{described['num_layers']}-layer language model of {splits.source.name}, "
        f"distilled from {fetched.source.name}",
        task="text-generation",
        metric="bits_per_byte",
        results=result.results,
        inference=costs.inference,
        predictions=result.predictions,
        curve=training.curve(student),
        teacher_on_validation=reached,
        model={**described, "evaluation_stride": perplexity.stride_of(student, config.stride)},
        languages=splits.languages,
        limits=[
            f"Tested on {splits.source.name} only; it says false things in good language.",
            *data.tested_in_part(splits),
            "Not a medical device, and no source of advice.",
            perplexity.stride_sentence(student, config.stride),
        ],
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
