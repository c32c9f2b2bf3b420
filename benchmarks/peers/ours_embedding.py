"""Embedding distillation with us: six layers of MiniLM into three on Python's docstrings. A contender of versus_peers.

Source:    Reimers and Gurevych 2020, arXiv:2004.09813: the student's embeddings drawn to the teacher's by their MSE.
Run:       smallmodels run benchmarks/peers/ours_embedding.py
Expected:  benchmarks/results/versus_peers.md; the other side is sentence_transformers_embedding.py.
Licences:  the texts are part of Python (PSF-2.0), the teacher (all-MiniLM-L6-v2) is Apache-2.0; so is the student.

Counted are the phases `cache`, with the cutting of texts into tokens, which the other side cannot leave out either, and
`train`. The teacher's pass is made afresh in each run. Nobody validates while training; the last weights are taken.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from smallmodels import cli, data, evaluation, losses, models, sources, students, teachers, training
from smallmodels.data import Batch
from smallmodels.data.splits import Split
from smallmodels.evaluation import Contender
from smallmodels.models import Compute, Model, TextModel
from smallmodels.phases import NO_CONTEXT, Context
from smallmodels.runs import Run
from smallmodels.teachers import Signals
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """The job, the same for all contenders, and how we train."""

    max_entries: int | None = None
    """Use so many functions and classes of each split only."""
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence-embedding model with mean pooling: hub id or local folder."""
    num_layers: int = 3
    """Layers of the teacher that the student keeps."""
    max_length: int = 64
    """Tokens after which a text is cut."""
    seed: int = 0
    """Of the student's training."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=3, batch_size=64, train_embeddings=False)


SMOKE = replace(Config(), max_entries=100, train=replace(Config().train, max_steps=2))


def store(teacher: TextModel, texts: Split, compute: Compute, cache: Path, context: Context = NO_CONTEXT) -> Signals:
    """The counted phase before training: tokens, and one pass of the teacher over them."""
    split = texts.tokenize(teacher.tokenizer, max_length=teacher.max_length)
    return teachers.store_signals(teacher, split, compute=compute, cache=cache, context=context)


def main(config: Config, run: Run) -> None:
    """Store the teacher's embeddings, train the student on them, and test both."""
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
    compute = run.phase("setup", models.choose_compute, model=untrained, tokens=tokenized.train.tokens, **run.compute)

    # 2. The contender
    def loss_fn(model: Model, batch: Batch) -> Tensor:
        return losses.embedding_mse(model(**batch.inputs), batch.teacher)

    own_cache = run.folder / "signals"  # the shared one would give the next run what this one has paid for
    signals = run.phase("cache", store, teacher, splits.train, compute, own_cache)
    student = run.phase(
        "train",
        training.fit,
        untrained.copy(),
        tokenized.train.with_signals(signals),
        loss_fn,
        config.train,
        seed=config.seed,
        compute=compute,
    )

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
        title=f"{config.num_layers}-layer search model for Python's documentation, distilled with smallmodels",
        task="sentence-similarity",
        metric="mrr_at_10",
        results=[*tested.results, *chosen_on.results],
        predictions=tested.predictions,
        model=models.describe(student, compute),
        languages=splits.languages,
        limits=["Made to compare the cost of training, not for use."],
    )


def after_imports() -> None:
    """Nothing: the memory of this phase is what the imports take."""


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
