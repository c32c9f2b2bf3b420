"""Distil a search model: six layers of MiniLM into three, on the docstrings of your Python.

Source:    Reimers and Gurevych 2020, arXiv:2004.09813 (embeddings); Park et al. 2019, arXiv:1904.05068 (pairs).
Run:       smallmodels run quickstart
Expected:  the record under benchmarks/results/quickstart, which the table in README.md is made from.
Measured:  docstrings of the Python standard library: MRR@10 0.498 (teacher 0.519), one seed; 2 min 27 s and 283 CPU-s
           on AMD EPYC, 2 cores, bf16.
Licences:  the texts are part of Python (PSF-2.0), the teacher (all-MiniLM-L6-v2) is Apache-2.0; so is the student.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from smallmodels import cli, data, distilling, evaluation, losses, models, students, teachers
from smallmodels.data import Batch
from smallmodels.errors import require
from smallmodels.models import Model
from smallmodels.runs import Run
from smallmodels.training import TrainConfig

QUESTIONS = (
    "run a command and capture its output",
    "how many seconds have passed since the program started",
    "remove a folder and everything in it",
)


@dataclass(frozen=True, kw_only=True)
class Config(distilling.EmbedderConfig):
    """What to distil and how."""

    max_entries: int | None = None
    """Use so many functions and classes of each split only."""
    margin: float = 0.03
    """MRR@10 that the student may lose against the teacher and still do its job."""
    split_seed: int = 0
    """Of which modules are held out."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=12, batch_size=64, train_embeddings=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_entries is None or self.max_entries > 0, "max_entries", "> 0", self.max_entries)


METRICS = ("mrr_at_10", "recall_at_1", "recall_at_10")
SMOKE = replace(Config(), max_entries=100, train=replace(Config().train, max_steps=2, num_evaluations=1))


def main(config: Config, run: Run) -> None:
    """Embed the texts with the teacher once, teach the student to do the same, and compare what both find."""
    # 1. Data and models
    (teacher_name,) = run.pin((config.teacher, "model"))
    splits = run.phase("data", data.load_python_docs, split_seed=config.split_seed, max_entries=config.max_entries)
    run.add_source(splits.source)
    teacher, name = distilling.load_embedding_teacher(
        run, teacher_name, num_texts=len(splits.train), max_length=config.max_length
    )
    splits = splits.tokenize(teacher.tokenizer, max_length=teacher.max_length)
    untrained = students.keep_layers(teacher, config.num_layers)
    compute = run.phase("setup", models.choose_compute, model=untrained, tokens=splits.train.tokens, **run.compute)

    # 2. The teacher's embeddings, paid once
    signals = run.phase("cache", teachers.store_signals, teacher, splits.train, compute=compute)

    # 3. The student, the search engine that it must beat, and what each finds on the test split
    def loss_fn(model: Model, batch: Batch) -> Tensor:
        return losses.distance_and_pairs(model(**batch.inputs), batch.teacher, pair_weight=config.pair_weight)

    done = distilling.distil_embedder(
        run,
        splits.train.with_signals(signals),
        loss_fn,
        distilling.judge_by_search(splits),
        teacher=teacher,
        untrained=untrained,
        config=config.train,
        seed=config.seed,
        compute=compute,
    )

    # 4. Use it
    index = run.phase("index", evaluation.SearchIndex.build, done.student, splits.corpus, compute=compute)
    run.keep("index", index)
    run.finish(
        done.student,
        title=f"{config.num_layers}-layer search model for Python's documentation, distilled from {name}",
        margin=config.margin,
        examples=evaluation.example_answers(done.student, index, QUESTIONS, compute=compute),
        languages=splits.languages,
        limits=[
            "Trained and tested on short English sentences about Python's standard library; "
            "other topics, longer texts and other languages were not tried."
        ],
        **done.about,
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
