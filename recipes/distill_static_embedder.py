"""Distil a text classifier into one vector per token and a linear layer: no transformer, no torch to use it.

Source:    Arora et al. 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings" (weights of tokens); token
           vectors from a sentence encoder as in model2vec; soft targets of Hinton et al. 2015, arXiv:1503.02531.
Run:       smallmodels run distill_static_embedder
Expected:  the record under benchmarks/results/distill_static_embedder.
Measured:  PolyAI/banking77: accuracy 91.1 % (teacher 92.7 %, labels alone 90.6 %), one seed; 25 min 17 s and 1,490
           CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16, which other work shared.
Licences:  Banking77 is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.

What is left gives labels, not embeddings: for these there is distill_static_search, which also learns on texts alone.
"""

from dataclasses import dataclass

from smallmodels import cli, data, distilling, tasks
from smallmodels.errors import require
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(distilling.Config):
    """What to distil, from what, into what."""

    dataset: str = "PolyAI/banking77"
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the labels: strings, integers or named classes; without it, the first of the usual names."""
    dimensions: int = distilling.STATIC_DIMENSIONS
    """Of a token's vector; at most the teacher's width."""
    head_size: int | None = None
    """Width of a hidden layer between embedding and labels; without it, one linear layer."""
    trim_vocabulary: bool = True
    """Keep only the tokens that the training texts need, and those that other texts fall back on."""
    temperature: float = distilling.STATIC_TEMPERATURE
    """Softens both distributions; > 0, and 1, which leaves them as they are, suits so simple a student best."""
    soft_weight: float = distilling.STATIC_SOFT_WEIGHT
    train: TrainConfig = distilling.STATIC_TRAIN

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.dimensions > 0, "dimensions", "> 0", self.dimensions)
        require(self.head_size is None or self.head_size > 0, "head_size", "> 0", self.head_size)


METRICS = ("accuracy", "macro_f1")
SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Fine-tune a teacher if need be, let it read every token alone, distil, and compare with what is cheaper."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_text_classification,
        dataset_name,
        text_column=config.text_column,
        label_column=config.label_column,
        **distilling.split_options(config),
    )

    # The student: the teacher's vector of each token alone, its main directions, rare tokens weighing more, and a head
    maker = distilling.static_maker(
        run,
        splits.label_names,
        dimensions=config.dimensions,
        head_size=config.head_size,
        trim_vocabulary=config.trim_vocabulary,
        seed=config.seed,
    )
    done = distilling.distil_classifier(
        run,
        config,
        tasks.CLASSES,
        splits,
        maker,
        teacher_name=teacher_name,
        noun="Static text classifier",
    )
    about, limit = done.about, "The order of words does not count: who does what to whom is not seen."
    model = {**about["model"], **done.student.facts}
    run.finish(done.student, **{**about, "model": model, "limits": [*about["limits"], limit]})


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
