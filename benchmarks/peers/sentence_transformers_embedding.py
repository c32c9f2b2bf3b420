"""Embedding distillation with sentence-transformers and its MSELoss. A contender of versus_peers.

Source:    sentence-transformers, "Model Distillation" in its documentation: model_distillation_layer_reduction.py.
Run:       smallmodels run benchmarks/peers/sentence_transformers_embedding.py
Expected:  benchmarks/results/versus_peers.md; the other side is ours_embedding.py.
Licences:  the texts are part of Python (PSF-2.0), the teacher (all-MiniLM-L6-v2) is Apache-2.0; so is the student.

Counted are the phases `cache`, the teacher's embeddings as labels, and `train`. Batches, warm-up and the rest are those
of the documentation, the number format is the machine's, the learning rate was chosen. Checkpoints, reports and
validations while training are off, because they are no part of the job; the last weights are taken.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import sentence_transformers
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MSELoss
from torch import Tensor, nn

from smallmodels import cli, data, evaluation, models, sources, students
from smallmodels.evaluation import Contender
from smallmodels.models import Compute, Embedder, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run


@dataclass(frozen=True, kw_only=True)
class Config:
    """The job, the same for all contenders, and how sentence-transformers trains."""

    max_entries: int | None = None
    """Use so many functions and classes of each split only."""
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence-embedding model with mean pooling: hub id or local folder."""
    num_layers: int = 3
    """Layers of the teacher that the student keeps."""
    max_length: int = 64
    """Tokens after which a text is cut."""
    inference_batch_size: int = 128
    """Texts that the teacher embeds at once, as in the documentation."""
    batch_size: int = 64
    """Examples per optimizer step, as in the documentation."""
    learning_rate: float = 5e-4
    """Highest learning rate; rises during a tenth of the steps and falls linearly to zero."""
    num_epochs: int = 3
    """Passes over the training texts."""
    max_steps: int = -1
    """Optimizer steps, instead of `num_epochs`; -1 leaves it to the epochs."""
    seed: int = 0
    """Of the student's training."""


SMOKE = replace(Config(), max_entries=100, max_steps=2)


class CountingTrainer(SentenceTransformerTrainer):  # type: ignore[misc]  # follows transformers, which has no types
    """A trainer that counts the tokens that it sees, for the record."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lengths: list[Tensor] = []
        self.num_processed = 0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """The loss that the trainer was given."""
        mask = inputs["sentence_attention_mask"]
        self.lengths.append(mask.sum(1))
        self.num_processed += mask.numel()
        return super().compute_loss(model, inputs, *args, **options)


def embed(
    teacher: SentenceTransformer, texts: list[str], batch_size: int, context: Context = NO_CONTEXT
) -> npt.NDArray[np.float32]:
    """The counted phase before training: the teacher's embeddings, which become labels."""
    context.counts.num_examples = len(texts)
    return np.asarray(teacher.encode(texts, batch_size=batch_size, show_progress_bar=False), dtype=np.float32)


def train(
    student: SentenceTransformer,
    untrained: TextModel,
    rows: Dataset,
    config: Config,
    compute: Compute,
    context: Context = NO_CONTEXT,
) -> TextModel:
    """The counted phase: everything from the trainer's making to its last step."""
    assert context.folder is not None
    trainer = CountingTrainer(
        model=student,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(context.folder / "trainer"),
            learning_rate=config.learning_rate,
            warmup_steps=0.1,
            num_train_epochs=config.num_epochs,
            max_steps=config.max_steps,
            per_device_train_batch_size=config.batch_size,
            bf16=compute.number_format == "bf16",
            fp16=compute.number_format == "fp16",
            seed=config.seed,
            use_cpu=compute.device == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        loss=MSELoss(model=student),
    )
    trainer.train()
    trained = replace(untrained, model=Embedder(student.transformers_model).eval())
    lengths = np.concatenate([part.cpu().numpy() for part in trainer.lengths])
    context.counts.add(
        examples=len(lengths),
        tokens=int(lengths.sum()),
        processed=trainer.num_processed,
        operations=3 * models.num_operations(trained.model, lengths),
    )
    return trained


def main(config: Config, run: Run) -> None:
    """Embed the texts with the teacher, teach the student to do the same, and test both."""
    # 1. What all contenders share: data, teacher, untrained student
    run.phase("imports", after_imports)
    (teacher_name,) = run.pin((config.teacher, "model"))
    splits = run.phase("data", data.load_python_docs, max_entries=config.max_entries)
    run.add_source(splits.source)
    fetched = sources.fetch_model(teacher_name)
    run.add_source(fetched.source)
    teacher, _ = models.load_embedder(fetched, max_length=config.max_length)
    untrained = students.keep_layers(teacher, config.num_layers)
    tokenized = splits.tokenize(teacher.tokenizer, max_length=teacher.max_length)
    compute = run.phase("setup", models.choose_compute, **run.compute)

    # 2. The contender: the same teacher and student in the hands of sentence-transformers
    formats = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    their_teacher, their_student = (
        SentenceTransformer(
            str(fetched.folder), device=compute.device, local_files_only=True, model_kwargs={"dtype": number_format}
        )
        for number_format in (formats[compute.number_format], torch.float32)
    )
    for model in (their_teacher, their_student):
        model.max_seq_length = teacher.max_length
    keep_layers(their_student, untrained.notes["kept_layers"])
    labels = run.phase("cache", embed, their_teacher, splits.train.texts, config.inference_batch_size)
    rows = Dataset.from_dict({"sentence": splits.train.texts, "label": list(labels)})
    student = run.phase("train", train, their_student, untrained, rows, config, compute)

    # 3. What it learned; the learning rate was chosen on validation
    contenders = {
        "teacher": Contender(teacher),
        "student": Contender(student, built_by=("cache", "train")),
        "untrained_student": Contender(untrained),
    }
    chosen_on, tested = (
        run.phase(name, evaluation.evaluate_retrieval, contenders, split, compute=compute)
        for name, split in (("validate", tokenized.validation), ("evaluate", tokenized.test))
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer search model for Python's documentation, distilled with "
        "sentence-transformers",
        task="sentence-similarity",
        metric="mrr_at_10",
        results=[*tested.results, *chosen_on.results],
        predictions=tested.predictions,
        model=models.describe(student, compute)
        | {"made_with": f"sentence-transformers {sentence_transformers.__version__}"},
        languages=splits.languages,
        limits=["Made to compare the cost of training, not for use."],
    )


def keep_layers(model: SentenceTransformer, kept: list[int]) -> None:
    """Take out all layers but these."""
    transformer: Any = model.transformers_model
    transformer.encoder.layer = nn.ModuleList([transformer.encoder.layer[i] for i in kept])
    transformer.config.num_hidden_layers = len(kept)


def after_imports() -> None:
    """Nothing: the memory of this phase is what the imports take."""


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
