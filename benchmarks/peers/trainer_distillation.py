"""Encoder distillation with transformers' Trainer and a live teacher, at its defaults. A contender of versus_peers.

Source:    transformers, "Knowledge Distillation for Computer Vision" in its documentation: a Trainer whose
           compute_loss asks the teacher under no_grad; here with the loss of ours_distillation.py.
Run:       smallmodels run benchmarks/peers/trainer_distillation.py
Expected:  benchmarks/results/versus_peers.md; the other side is ours_distillation.py.
Licences:  Banking77 is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.

Counted is the phase `train`. The fine-tuned teacher is the same for all contenders and not counted. Everything that
TrainingArguments decides stays at its default (8 rows a step, random order, fp32, dropout as the model has it, fused
AdamW since torch 2.8), but for the learning rate, and checkpoints and reports, which are off because they are no part
of the job. Nobody validates while training, and the last weights are taken.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that every PyTorch reader knows
import transformers
from datasets import Dataset
from torch import Tensor, nn
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from smallmodels import cli, data, evaluation, losses, models, students, teachers
from smallmodels.data import Batch
from smallmodels.data.splits import Split
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.models import Compute, Model, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """The job, the same for all contenders, and the one value of the Trainer that a user has to choose."""

    dataset: str = "PolyAI/banking77"
    """Hub id, or a local CSV, JSON Lines or Parquet file."""
    max_train: int | None = None
    """Train on so many texts only, drawn so that classes keep their shares."""
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Base model that is fine-tuned first."""
    num_layers: int = 3
    """Layers of the teacher that the student keeps."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    temperature: float = 2.0
    """Softens both distributions; > 0, and 1 leaves them as they are."""
    soft_weight: float = 0.9
    """Share of the soft targets in the loss, in [0, 1]; the rest is cross-entropy with the labels."""
    learning_rate: float = 2e-4
    """Highest learning rate; falls linearly to zero."""
    num_epochs: int = 3
    """Passes over the training split."""
    max_steps: int = -1
    """Optimizer steps, instead of `num_epochs`; -1 leaves it to the epochs."""
    seed: int = 0
    """Of the student's training."""
    teacher_seed: int = 0
    """Of the teacher's fine-tuning."""
    teacher_train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=6, dropout=True, train_embeddings=False)

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", "> 0", self.temperature)
        require(0 <= self.soft_weight <= 1, "soft_weight", "in [0, 1]", self.soft_weight)


SMOKE = replace(
    Config(),
    max_train=300,
    max_steps=2,
    teacher_train=replace(Config().teacher_train, max_steps=2, num_evaluations=1),
)


class DistillationTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """A Trainer whose loss compares the student with a teacher that sees the same batch."""

    def __init__(self, *, teacher: nn.Module, temperature: float, soft_weight: float, **options: Any) -> None:
        super().__init__(**options)
        self.teacher = teacher.to(self.args.device).eval()
        self.temperature, self.soft_weight = temperature, soft_weight
        self.lengths: list[Tensor] = []
        self.num_processed = 0

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """Weighted sum of KL to the softened teacher, times temperature squared, and cross-entropy with labels."""
        self.lengths.append(inputs["attention_mask"].sum(1))
        self.num_processed += inputs["input_ids"].numel()
        outputs = model(**inputs)
        with torch.no_grad():
            wanted = self.teacher(**inputs).logits
        soft = self.temperature**2 * F.kl_div(
            F.log_softmax(outputs.logits / self.temperature, dim=-1),
            F.softmax(wanted / self.temperature, dim=-1),
            reduction="batchmean",
        )
        loss = self.soft_weight * soft + (1 - self.soft_weight) * outputs.loss
        return (loss, outputs) if return_outputs else loss


def train(
    student: TextModel,
    teacher: TextModel,
    rows: Dataset,
    config: Config,
    compute: Compute,
    context: Context = NO_CONTEXT,
) -> TextModel:
    """The counted phase: everything from the Trainer's making to its last step."""
    assert context.folder is not None
    trainer = DistillationTrainer(
        teacher=teacher.model,
        temperature=config.temperature,
        soft_weight=config.soft_weight,
        model=student.model,
        args=TrainingArguments(
            output_dir=str(context.folder / "trainer"),
            learning_rate=config.learning_rate,
            num_train_epochs=config.num_epochs,
            max_steps=config.max_steps,
            seed=config.seed,
            use_cpu=compute.device == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        processing_class=student.tokenizer,
        data_collator=DataCollatorWithPadding(student.tokenizer),
    )
    trainer.train()
    lengths = np.concatenate([part.cpu().numpy() for part in trainer.lengths])
    learned, asked = (models.num_operations(model.model, lengths) for model in (student, teacher))
    context.counts.add(
        examples=len(lengths),
        tokens=int(lengths.sum()),
        processed=trainer.num_processed,
        operations=3 * learned + asked,
    )
    student.model.eval()
    return student


def as_dataset(split: Split) -> Dataset:
    """Tokens and labels of a split as a data set of `datasets`."""
    tokens = split.require_tokens()
    rows = [row.tolist() for row in np.split(tokens.ids, tokens.offsets[1:-1])]
    return Dataset.from_dict(
        {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows], "labels": split.class_labels.tolist()}
    )


def main(config: Config, run: Run) -> None:
    """Train the student beside the live teacher, and test both."""
    # 1. What all contenders share: data, base model, fine-tuned teacher
    run.phase("imports", after_imports)
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase("data", data.load_text_classification, dataset_name, max_train=config.max_train)
    run.add_source(splits.source)
    base, fetched, _ = models.load_classifier(
        teacher_name, splits.label_names, max_length=config.max_length, seed=config.teacher_seed
    )
    run.add_source(fetched.source)
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
    student = students.keep_layers(teacher, config.num_layers)

    # 2. The contender
    student = run.phase("train", train, student, teacher, as_dataset(splits.train), config, compute)

    # 3. What it learned; the learning rate was chosen on validation
    contenders = {
        "teacher": Contender(teacher, built_by=("teacher",)),
        "student": Contender(student, built_by=("train",), teacher_phases=("teacher",)),
    }
    chosen_on, tested = (
        run.phase(name, evaluation.evaluate_classifiers, contenders, split, splits.label_names, compute=compute)
        for name, split in (("validate", splits.validation), ("evaluate", splits.test))
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer text classifier for {splits.source.name}, distilled with the Trainer",
        task="text-classification",
        metric="accuracy",
        results=[*tested.results, *chosen_on.results],
        predictions=tested.predictions,
        model=models.describe(student, compute) | {"made_with": f"transformers {transformers.__version__}"},
        languages=splits.languages,
        limits=["Made to compare the cost of training, not for use."],
        label_names=splits.label_names,
    )


def after_imports() -> None:
    """Nothing: the memory of this phase is what the imports take."""


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
