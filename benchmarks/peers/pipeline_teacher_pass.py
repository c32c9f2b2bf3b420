"""A teacher's pass with transformers' pipeline: the scores of 10,003 short texts. A contender of versus_peers.

Source:    transformers, "Pipelines" in its documentation, its section on batching.
Run:       smallmodels run benchmarks/peers/pipeline_teacher_pass.py
Expected:  benchmarks/results/versus_peers.md; the other side is ours_teacher_pass.py.
Licences:  Banking77 is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0.

Counted is the phase `cache`: the pipeline's making, and its call on a list of texts, 32 at once, for the raw scores of
all classes. The fine-tuned teacher is the same for all contenders and not counted; it stays in its own number format,
as a pipeline leaves it. Labels are compared with the classes of the data set.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers
from torch import Tensor
from transformers import pipeline

from smallmodels import cli, data, evaluation, losses, metrics, models, records, teachers
from smallmodels.data import Batch
from smallmodels.data.splits import Split
from smallmodels.models import Compute, Model, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """The job, the same for all contenders."""

    dataset: str = "PolyAI/banking77"
    """Hub id, or a local CSV, JSON Lines or Parquet file."""
    max_train: int | None = None
    """Take so many texts of the training split only."""
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Base model that is fine-tuned first."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    batch_size: int = 32
    """Texts that go through the teacher at once."""
    seed: int = 0
    """Tells repeats apart; nothing is drawn."""
    teacher_seed: int = 0
    """Of the teacher's fine-tuning."""
    teacher_train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=6, dropout=True, train_embeddings=False)


SMOKE = replace(Config(), max_train=300, teacher_train=replace(Config().teacher_train, max_steps=2, num_evaluations=1))


def scores(
    teacher: TextModel, texts: Split, batch_size: int, compute: Compute, context: Context = NO_CONTEXT
) -> npt.NDArray[np.float32]:
    """The counted phase: raw scores of shape (num_texts, num_classes)."""
    classify = pipeline("text-classification", model=teacher.model, tokenizer=teacher.tokenizer, device=compute.device)
    answers = classify(
        texts.texts,
        batch_size=batch_size,
        top_k=None,
        function_to_apply="none",
        truncation=True,
        max_length=teacher.max_length,
    )
    config: Any = teacher.model.config
    class_of = config.label2id
    values = np.zeros((len(texts), len(class_of)), dtype=np.float32)
    for row, answer in zip(values, answers, strict=True):
        for line in answer:  # best first
            row[class_of[line["label"]]] = line["score"]
    context.counts.num_examples = len(texts)
    return values


def main(config: Config, run: Run) -> None:
    """Label the texts, and see how often the label is right."""
    # 1. What all contenders share: data, base model, fine-tuned teacher
    run.phase("imports", after_imports)
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase("data", data.load_text_classification, dataset_name, max_train=config.max_train)
    run.add_source(splits.source)
    base, fetched, _ = models.load_classifier(
        teacher_name, splits.label_names, max_length=config.max_length, seed=config.teacher_seed
    )
    run.add_source(fetched.source)
    texts = joined(splits.train, splits.validation)
    splits = splits.tokenize(base.tokenizer, max_length=base.max_length)
    compute = run.phase("setup", models.choose_compute, **run.compute)

    def hard_loss(model: Model, batch: Batch) -> Tensor:
        return losses.cross_entropy(model(**batch.inputs).logits, batch.labels)

    def validate(model: TextModel) -> dict[str, float]:
        return {"accuracy": evaluation.accuracy(model, splits.validation, compute=compute)}

    teacher = run.phase(
        "teacher",
        teachers.fine_tune,
        base,
        splits.train,
        hard_loss,
        config.teacher_train,
        seed=config.teacher_seed,
        validation=splits.validation,
        validate=validate,
        compute=compute,
    )
    del base  # else it is part of the memory of what follows

    # 2. The contender
    logits = run.phase("cache", scores, teacher, texts, config.batch_size, compute)

    # 3. Whether its labels are right
    run.finish(
        teacher,
        title=f"labels of {splits.source.name}'s texts, made with a pipeline",
        task="text-classification",
        metric="accuracy",
        results=[result(logits.argmax(1), texts)],
        model=models.describe(teacher, compute) | {"made_with": f"transformers {transformers.__version__}"},
        languages=splits.languages,
        limits=["Made to compare the cost of a teacher's pass, not for use."],
        label_names=splits.label_names,
    )


def joined(first: Split, second: Split) -> Split:
    """The texts of both, with their labels."""
    labels = np.concatenate([first.class_labels, second.class_labels])
    return Split("train", [*first.ids, *second.ids], [*first.texts, *second.texts], labels)


def result(predicted: npt.NDArray[np.int64], texts: Split) -> records.Result:
    """How often the teacher's label is that of the data set."""
    return records.Result(
        role="student",
        split=texts.name,
        metrics={"accuracy": metrics.accuracy(predicted, texts.class_labels)},
        per_class=[],
        agreement=None,
        calibration_error=None,
        built_by=["cache"],
        teacher_phases=["teacher"],
    )


def after_imports() -> None:
    """Nothing: the memory of this phase is what the imports take."""


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
