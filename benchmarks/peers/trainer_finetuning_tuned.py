"""Encoder fine-tuning without a teacher, with a tuned transformers' Trainer. A contender of versus_peers.

Source:    transformers, "Fine-tuning" and "GPU" in its documentation.
Run:       smallmodels run benchmarks/peers/trainer_finetuning_tuned.py
Expected:  benchmarks/results/versus_peers.md; the other side is ours_finetuning.py.
Licences:  Banking77 is CC-BY-4.0, the base model (all-MiniLM-L6-v2) Apache-2.0; the result inherits the latter.

What makes the Trainer faster is switched on: the machine's number format, batches of similar length, fused AdamW, its
best batch size. Counted is the phase `train`, from the Trainer's making to its last step. Checkpoints and reports are
off because they are no part of the job; nobody validates while training, and the last weights are taken.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import transformers
from datasets import Dataset
from torch import Tensor, nn
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from smallmodels import cli, data, evaluation, models, students
from smallmodels.data.splits import Split
from smallmodels.evaluation import Contender
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run


@dataclass(frozen=True, kw_only=True)
class Config:
    """The job, the same for all contenders, and how the Trainer is tuned."""

    dataset: str = "PolyAI/banking77"
    """Hub id, or a local CSV, JSON Lines or Parquet file."""
    max_train: int | None = None
    """Train on so many texts only, drawn so that classes keep their shares."""
    base_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or local folder of an encoder."""
    num_layers: int = 3
    """Layers of the base model that are kept."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    learning_rate: float = 1e-3
    """Highest learning rate; falls linearly to zero."""
    batch_size: int = 64
    """Examples per optimizer step; the fastest of 8, 16, 32 and 64."""
    num_epochs: int = 3
    """Passes over the training split."""
    max_steps: int = -1
    """Optimizer steps, instead of `num_epochs`; -1 leaves it to the epochs."""
    seed: int = 0
    """Of the new head and the training."""


SMOKE = replace(Config(), max_train=300, max_steps=2)


class CountingTrainer(Trainer):  # type: ignore[misc]  # transformers has no types
    """A Trainer that counts the tokens that it sees, for the record."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lengths: list[Tensor] = []
        self.num_processed = 0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **options: Any) -> Any:
        """The Trainer's own loss: cross-entropy with the labels."""
        self.lengths.append(inputs["attention_mask"].sum(1))
        self.num_processed += inputs["input_ids"].numel()
        return super().compute_loss(model, inputs, *args, **options)


def train(
    student: TextModel, rows: Dataset, config: Config, compute: Compute, context: Context = NO_CONTEXT
) -> TextModel:
    """The counted phase: everything from the Trainer's making to its last step."""
    assert context.folder is not None
    trainer = CountingTrainer(
        model=student.model,
        args=TrainingArguments(
            output_dir=str(context.folder / "trainer"),
            learning_rate=config.learning_rate,
            num_train_epochs=config.num_epochs,
            max_steps=config.max_steps,
            per_device_train_batch_size=config.batch_size,
            bf16=compute.number_format == "bf16",
            fp16=compute.number_format == "fp16",
            train_sampling_strategy="group_by_length",
            optim="adamw_torch_fused",
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
    context.counts.add(
        examples=len(lengths),
        tokens=int(lengths.sum()),
        processed=trainer.num_processed,
        operations=3 * models.num_operations(student.model, lengths),
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
    """Fine-tune on labels, and test."""
    # 1. What all contenders share: data, base model with a new head
    run.phase("imports", after_imports)
    dataset_name, base_name = run.pin((config.dataset, "dataset"), (config.base_model, "model"))
    splits = run.phase("data", data.load_text_classification, dataset_name, max_train=config.max_train)
    run.add_source(splits.source)
    base, fetched, _ = models.load_classifier(
        base_name, splits.label_names, max_length=config.max_length, seed=config.seed, role="base_model"
    )
    run.add_source(fetched.source)
    splits = splits.tokenize(base.tokenizer, max_length=base.max_length)
    compute = run.phase("setup", models.choose_compute, **run.compute)
    student = students.keep_layers(base, config.num_layers)

    # 2. The contender
    student = run.phase("train", train, student, as_dataset(splits.train), config, compute)

    # 3. What it learned; the learning rate was chosen on validation
    contenders = {"student": Contender(student, built_by=("train",))}
    chosen_on, tested = (
        run.phase(name, evaluation.evaluate_classifiers, contenders, split, splits.label_names, compute=compute)
        for name, split in (("validate", splits.validation), ("evaluate", splits.test))
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer text classifier for {splits.source.name}, fine-tuned with a tuned Trainer",
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
