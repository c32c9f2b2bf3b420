"""Distil a model of sentence embeddings: the steps that its recipes share, from a teacher to a finished student."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from smallmodels import data, evaluation, losses, models, sources, teachers, training
from smallmodels.data import Batch, Split
from smallmodels.distilling.controls import LABEL_ONLY, Training, say_tuned, train_controls
from smallmodels.distilling.judges import Judge
from smallmodels.distilling.outcome import Distilled, say_change, teacher_on_validation
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.models import Compute, Model, TextModel
from smallmodels.runs import Run
from smallmodels.training import LossFn, TrainConfig


@dataclass(frozen=True, kw_only=True)
class EmbedderConfig:
    """What recipes of embedders ask for: teacher, student and training."""

    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence-embedding model: hub id or local folder."""
    num_layers: int = 3
    """Layers of the teacher that the student keeps."""
    max_length: int = 64
    """Tokens after which a text is cut."""
    pair_weight: float = 10.0
    """Weight of the similarities between the texts of a batch, beside the distance to the teacher's embeddings; ≥ 0."""
    margin: float
    """How much of the metric the student may lose against the teacher and still do its job."""
    seed: int = 0
    """Of the student's training."""
    train: TrainConfig

    def __post_init__(self) -> None:
        require(self.num_layers > 0, "num_layers", "> 0", self.num_layers)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.pair_weight >= 0, "pair_weight", ">= 0", self.pair_weight)
        require(self.margin >= 0, "margin", ">= 0", self.margin)


def load_embedding_teacher(run: Run, name: str, *, num_texts: int, max_length: int) -> tuple[TextModel, str]:
    """The teacher, its licence checked, and its name; refused where there is no room for its embeddings.

    Args:
        run: Notes where it came from.
        name: As `run.pin` gave it.
        num_texts: That it will embed.
        max_length: Tokens after which a text is cut.
    """
    fetched = sources.fetch_model(name)
    run.add_source(fetched.source)
    run.say(teachers.require_space(num_texts, models.embedding_width(fetched), run.folder))
    teacher, _ = models.load_embedder(fetched, max_length=max_length)
    return teacher, fetched.source.name


def distil_embedder(
    run: Run,
    train: Split,
    loss_fn: LossFn,
    judge: Judge,
    *,
    teacher: TextModel,
    untrained: TextModel,
    config: TrainConfig,
    seed: int,
    compute: Compute,
    scored: Split | None = None,
    untrained_built_by: tuple[str, ...] = (),
    compared_as: Callable[[TextModel], Any] = lambda model: model,
    others: Mapping[str, Contender | TextModel] | None = None,
) -> Distilled:
    """Train a student on what the teacher said, and compare it with the teacher and what is cheaper.

    Args:
        run: Has the phases `setup` and `cache` behind it.
        train: With the teacher's rows and the student's tokens.
        loss_fn: The method.
        judge: How embedders are compared.
        teacher: Whose rows they are.
        untrained: The student; it is not changed.
        config: Of the training.
        seed: Of the training.
        compute: As `setup` chose it.
        scored: Pairs with scores, of the texts that the student learns on: what the control without a teacher learns;
            None where there are none, and no control.
        untrained_built_by: Phases that the student needs before it is trained.
        compared_as: What a student is judged as, where that is not the model that is trained.
        others: Further models to compare, by role.
    """
    say_change(run, teacher, untrained)

    def validate(model: TextModel) -> dict[str, float]:
        return {judge.metric: judge.validate(model, compute=compute)}

    how: dict[str, Any] = {"seed": seed, "validate": validate, "compute": compute}
    reached = teacher_on_validation(run, teacher, validate)
    student = run.phase("train", training.fit, untrained.copy(), train, loss_fn, config, **how)
    controls: dict[str, TextModel] = {}
    if scored is not None:
        say_tuned(run)
        controls = train_controls(
            run,
            {LABEL_ONLY: [name for name in ("cache", "train") if name not in untrained_built_by]},
            student=student,
            of_student=Training(untrained, train, loss_fn, config),
            of_control=learning_of_scores(untrained, scored, config),
            probe="probe_soft",
            **how,
        )
    baselines = {role: Contender(run.phase(role, make), built_by=(role,)) for role, make in judge.baselines.items()}
    # The test split is read here, once
    contenders = {
        "teacher": Contender(teacher),
        "student": Contender(
            compared_as(student), built_by=tuple(dict.fromkeys((*untrained_built_by, "cache", "train")))
        ),
        "untrained_student": Contender(compared_as(untrained), built_by=untrained_built_by),
        **{
            role: Contender(compared_as(model), built_by=(*untrained_built_by, role))
            for role, model in controls.items()
        },
        **(others or {}),
        **baselines,
    }
    result = run.phase("evaluate", partial(judge.evaluate, contenders), compute=compute)
    costs = run.phase(
        "inference",
        evaluation.measure_inference,
        contenders,
        judge.uses,
        compute=compute,
    )
    about = {
        "task": "sentence-similarity",
        "metric": judge.metric,
        "results": result.results,
        "inference": costs.inference,
        "predictions": result.predictions,
        "curve": training.curve(student),
        "teacher_on_validation": reached,
        "model": models.describe(student, compute),
    }
    return Distilled(student, result, about, compute)


def learning_of_scores(untrained: TextModel, pairs: Split, config: TrainConfig) -> Training:
    """How an embedder learns the scores of pairs without a teacher: the cosine of a pair shall be its score.

    Args:
        untrained: It is not changed.
        pairs: With scores; the least of them becomes the cosine 0 and the greatest 1.
        config: Of a training on texts; a batch has as many texts here, so half as many pairs.

    Source: As `losses.cosine_score_error`.
    """
    scores_N = evaluation.scores_of(pairs)
    least, greatest = float(scores_N.min()), float(scores_N.max())
    scaled_N = ((scores_N - least) / ((greatest - least) or 1.0)).astype(np.float32)
    train = data.tokenize_apart(replace(pairs, labels=scaled_N), untrained.tokenizer, max_length=untrained.max_length)

    def loss_fn(model: Model, batch: Batch) -> Tensor:
        first, second = model(**data.both_texts(batch.inputs)).chunk(2)
        return losses.cosine_score_error(first, second, batch.labels)

    return Training(untrained, train, loss_fn, replace(config, batch_size=max(1, config.batch_size // 2)))
