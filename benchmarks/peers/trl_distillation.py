"""Language-model distillation with TRL's GKD and a live teacher. A contender of versus_peers.

Source:    Agarwal et al. 2023, arXiv:2306.13649, as `trl.experimental.gkd` does it, on given texts alone (lmbda 0).
Run:       smallmodels run benchmarks/peers/trl_distillation.py
Expected:  benchmarks/results/versus_peers.md; the other side is ours_lm_distillation.py.
Licences:  GSM8K is MIT; the models have random weights, so the result inherits nothing.

Its divergence is KL to the teacher (beta 0) over the whole vocabulary, on completions alone. Ours is over the most
likely tokens, and half of its loss is cross-entropy with the next token, which GKD does not have. What makes it
faster is switched on: no gradient checkpointing, which TRL has as its default, batches of similar length, fused AdamW,
the machine's number format. Counted is the phase `train`, from the trainer's making to its last step; checkpoints and
reports are off because they are no part of the job. Examples are given as tokens, the same as on the other side. Nobody
validates while training, and the last weights are taken.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import trl
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from trl.experimental.gkd import GKDConfig, GKDTrainer

from smallmodels import cli, data, losses, models, perplexity, teachers
from smallmodels.data.splits import Split
from smallmodels.evaluation import Contender
from smallmodels.models import Compute, LanguageModel, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """The job, the same for all contenders, and how the trainer is tuned."""

    dataset: str = "openai/gsm8k"
    """Hub id, or a local file, with columns `question` and `answer`."""
    dataset_config: str | None = "main"
    """Configuration of a hub data set that has several."""
    max_train: int | None = None
    """Train on so many examples only; the tokenizer is made of all."""
    max_test: int | None = 100
    """Validate and test on so many examples only."""
    vocabulary_size: int = 30_522
    """Tokens of the tokenizer that is made of the texts; where they have too few, the rest are spare ones."""
    teacher_layers: int = 12
    """Depth of the teacher."""
    teacher_width: int = 576
    """Its width."""
    teacher_heads: int = 9
    """Its heads of attention."""
    num_layers: int = 6
    """Depth of the student."""
    width: int = 384
    """Its width."""
    num_heads: int = 6
    """Its heads of attention."""
    max_length: int = 512
    """Tokens after which an example is cut."""
    learning_rate: float = 1e-3
    """Highest learning rate; falls linearly to zero."""
    batch_size: int = 8
    """Examples per optimizer step."""
    gradient_checkpointing: bool = False
    """Compute the student's layers twice instead of keeping what they gave: slower, in less memory."""
    num_epochs: int = 3
    """Passes over the training split."""
    max_steps: int = -1
    """Optimizer steps, instead of `num_epochs`; -1 leaves it to the epochs."""
    seed: int = 0
    """Of the student's weights and its training."""
    teacher_seed: int = 0
    """Of the teacher's weights and its training."""
    teacher_train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=5, batch_size=4, num_evaluations=1)


SMOKE = replace(
    Config(),
    max_train=8,
    max_test=4,
    vocabulary_size=2000,
    teacher_layers=1,
    teacher_width=32,
    teacher_heads=2,
    num_layers=1,
    width=16,
    num_heads=2,
    teacher_train=replace(Config().teacher_train, max_steps=2),
    max_steps=2,
)


class CountingTrainer(GKDTrainer):  # type: ignore[misc]  # trl has no types
    """TRL's trainer, which counts the tokens that it sees, for the record."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lengths: list[Tensor] = []
        self.num_processed = 0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **options: Any) -> Any:
        """The trainer's own loss: the divergence from the teacher."""
        self.lengths.append(inputs["attention_mask"].sum(1))
        self.num_processed += inputs["input_ids"].numel()
        return super().compute_loss(model, inputs, *args, **options)


def train(
    student: TextModel,
    teacher: TextModel,
    rows: Dataset,
    config: Config,
    compute: Compute,
    context: Context = NO_CONTEXT,
) -> TextModel:
    """The counted phase: everything from the trainer's making to its last step."""
    assert context.folder is not None
    assert isinstance(student.model, LanguageModel)
    assert isinstance(teacher.model, LanguageModel)
    trainer = CountingTrainer(
        model=student.model.transformer,
        teacher_model=teacher.model.transformer,
        args=GKDConfig(
            output_dir=str(context.folder / "trainer"),
            lmbda=0.0,
            beta=0.0,
            max_length=config.max_length,
            gradient_checkpointing=config.gradient_checkpointing,
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


def as_dataset(split: Split, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Tokens of a split, and which of them are completions, as a data set of `datasets`."""
    tokens = split.require_tokens()
    assert tokens.targets is not None
    rows, masks = (np.split(values, tokens.offsets[1:-1]) for values in (tokens.ids, tokens.targets))
    return Dataset.from_dict(
        {
            "input_ids": [row.tolist() for row in rows],
            "completion_mask": [mask.astype(int).tolist() for mask in masks],
            "prompt": [tokenizer.decode(row[mask == 0]) for row, mask in zip(rows, masks, strict=True)],
        }
    )


def main(config: Config, run: Run) -> None:
    """Train the student beside the live teacher, and test both."""
    # 1. What all contenders share: data, tokenizer, teacher that learned a little, new student
    run.phase("imports", after_imports)
    (dataset_name,) = run.pin((config.dataset, "dataset"))
    splits = run.phase(
        "data",
        data.load_texts,
        dataset_name,
        config=config.dataset_config,
        text_columns=("question",),
        completion_column="answer",
        drop_overlap=True,
        max_test=config.max_test,
    )
    run.add_source(splits.source)
    texts = [*splits.train.texts, *(splits.train.completions or ())]
    tokenizer = models.new_tokenizer(texts, vocabulary_size=config.vocabulary_size)
    tokenizer.add_tokens([f"<|spare {i}|>" for i in range(config.vocabulary_size - len(tokenizer))])

    def rows_of(split: data.Split) -> data.Split:
        return data.cut_completions(split, tokenizer, template="plain", max_length=config.max_length)

    train_rows, validation, test = (
        rows_of(split)
        for split in (splits.train.take(range(len(splits.train))[: config.max_train]), splits.validation, splits.test)
    )
    base = models.new_language_model(
        tokenizer,
        hidden_size=config.teacher_width,
        num_layers=config.teacher_layers,
        num_heads=config.teacher_heads,
        max_length=config.max_length,
        seed=config.teacher_seed,
    )
    student = models.new_language_model(
        tokenizer,
        hidden_size=config.width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        max_length=config.max_length,
        seed=config.seed,
    )
    compute = run.phase("setup", models.choose_compute, **run.compute)

    teacher = run.phase(
        "teacher",
        teachers.fine_tune,
        base,
        train_rows,
        losses.next_token_loss,
        config.teacher_train,
        seed=config.teacher_seed,
        validation=validation,
        validate=perplexity.validation_of_rows(validation, compute=compute),
        compute=compute,
    )
    del base  # else it is part of the memory of what follows

    # 2. The contender
    rows = as_dataset(train_rows, tokenizer)
    student = run.phase("train", train, student, teacher, rows, config, compute)

    # 3. What it learned; the learning rate was chosen on validation
    contenders = {
        "teacher": Contender(teacher, built_by=("teacher",)),
        "student": Contender(student, built_by=("train",), teacher_phases=("teacher",)),
    }
    chosen_on, tested = (
        run.phase(name, perplexity.evaluate_rows, contenders, split, compute=compute)
        for name, split in (("validate", validation), ("evaluate", test))
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer language model of {splits.source.name}, distilled with TRL",
        task="text-generation",
        metric="perplexity",
        results=[*tested.results, *chosen_on.results],
        predictions={},
        model=models.describe(student, compute) | {"made_with": f"trl {trl.__version__}"},
        languages=splits.languages,
        limits=["Made to compare the cost of training, not for use."],
    )


def after_imports() -> None:
    """Nothing: the memory of this phase is what the imports take."""


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
