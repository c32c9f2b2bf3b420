"""Language-model fine-tuning with TRL's SFTTrainer and packing. A contender of versus_peers.

Source:    trl, "SFT Trainer" and "Reducing memory usage" (packing) in its documentation.
Run:       smallmodels run benchmarks/peers/trl_finetuning.py
Expected:  benchmarks/results/versus_peers.md; the other side is ours_lm_finetuning.py.
Licences:  GSM8K is MIT; the models have random weights, so the result inherits nothing.

What makes it faster is switched on: packing (its default, `bfd`, which keeps examples whole, without padding), no
gradient checkpointing, which TRL has as its default, fused AdamW, the machine's number format. A packed row holds about
as many tokens as a step of the other side. Counted is the phase `train`, from the trainer's making to its last step;
checkpoints and reports are off because they are no part of the job. Examples are given as tokens, the same as on the
other side. Nobody validates while training, and the last weights are taken.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import trl
from datasets import Dataset
from torch import Tensor, nn
from trl import SFTConfig, SFTTrainer

from smallmodels import cli, data, models, perplexity
from smallmodels.data.splits import Split
from smallmodels.evaluation import Contender
from smallmodels.models import Compute, LanguageModel, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run


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
    num_layers: int = 6
    """Depth of the model."""
    width: int = 384
    """Its width."""
    num_heads: int = 6
    """Its heads of attention."""
    max_length: int = 512
    """Tokens after which an example is cut."""
    learning_rate: float = 1e-3
    """Highest learning rate; falls linearly to zero."""
    packed_length: int = 1024
    """Tokens of a packed row; TRL's default."""
    batch_size: int = 1
    """Packed rows per optimizer step."""
    gradient_checkpointing: bool = False
    """Compute the layers twice instead of keeping what they gave: slower, in less memory."""
    num_epochs: int = 3
    """Passes over the training split."""
    max_steps: int = -1
    """Optimizer steps, instead of `num_epochs`; -1 leaves it to the epochs."""
    seed: int = 0
    """Of the weights and the training."""


SMOKE = replace(
    Config(),
    max_train=8,
    max_test=4,
    vocabulary_size=2000,
    num_layers=1,
    width=16,
    num_heads=2,
    max_steps=2,
)


class CountingTrainer(SFTTrainer):  # type: ignore[misc]  # trl has no types
    """TRL's trainer, which counts the tokens that it sees, for the record."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lengths: list[npt.NDArray[np.int64]] = []
        self.num_processed = 0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **options: Any) -> Any:
        """The trainer's own loss: cross-entropy with the completions."""
        begins = (inputs["position_ids"].flatten() == 0).nonzero().flatten().tolist()
        self.lengths.append(np.diff([*begins, inputs["input_ids"].numel()]))
        self.num_processed += inputs["input_ids"].numel()
        return super().compute_loss(model, inputs, *args, **options)


def train(
    student: TextModel, rows: Dataset, config: Config, compute: Compute, context: Context = NO_CONTEXT
) -> TextModel:
    """The counted phase: everything from the trainer's making to its last step."""
    assert context.folder is not None
    assert isinstance(student.model, LanguageModel)
    trainer = CountingTrainer(
        model=student.model.transformer,
        args=SFTConfig(
            output_dir=str(context.folder / "trainer"),
            packing=True,
            max_length=config.packed_length,
            completion_only_loss=True,
            gradient_checkpointing=config.gradient_checkpointing,
            learning_rate=config.learning_rate,
            num_train_epochs=config.num_epochs,
            max_steps=config.max_steps,
            per_device_train_batch_size=config.batch_size,
            bf16=compute.number_format == "bf16",
            fp16=compute.number_format == "fp16",
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
    lengths = np.concatenate(trainer.lengths)
    context.counts.add(
        examples=len(lengths),
        tokens=int(lengths.sum()),
        processed=trainer.num_processed,
        operations=3 * models.num_operations(student.model, lengths),
    )
    student.model.eval()
    return student


def as_dataset(split: Split) -> Dataset:
    """Tokens of a split, and which of them are completions, as a data set of `datasets`."""
    tokens = split.require_tokens()
    assert tokens.targets is not None
    rows, masks = (np.split(values, tokens.offsets[1:-1]) for values in (tokens.ids, tokens.targets))
    return Dataset.from_dict(
        {
            "input_ids": [row.tolist() for row in rows],
            "completion_mask": [mask.astype(int).tolist() for mask in masks],
        }
    )


def main(config: Config, run: Run) -> None:
    """Fine-tune on completions, and test."""
    # 1. What all contenders share: data, tokenizer, new model
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
    student = models.new_language_model(
        tokenizer,
        hidden_size=config.width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        max_length=config.max_length,
        seed=config.seed,
    )
    compute = run.phase("setup", models.choose_compute, **run.compute)

    # 2. The contender
    student = run.phase("train", train, student, as_dataset(train_rows), config, compute)

    # 3. What it learned; the learning rate was chosen on validation
    contenders = {"student": Contender(student, built_by=("train",))}
    chosen_on, tested = (
        run.phase(name, perplexity.evaluate_rows, contenders, split, compute=compute)
        for name, split in (("validate", validation), ("evaluate", test))
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer language model of {splits.source.name}, fine-tuned with TRL",
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
