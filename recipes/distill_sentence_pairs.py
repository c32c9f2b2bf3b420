"""Distil a model that reads two texts at once: classes such as entailment or paraphrase, or a score of likeness.

Source:    Hinton et al. 2015, arXiv:1503.02531, section 2; both texts in one row as in Devlin et al. 2019,
           arXiv:1810.04805, section 3.
Run:       smallmodels run distill_sentence_pairs --accept-license other:stsbenchmark
Expected:  the record under benchmarks/results/distill_sentence_pairs.
Measured:  PhilipMay/stsb_multi_mt: spearman 0.377 (teacher 0.398, labels alone 0.335), one seed, flags as in its
           record; 3 min 39 s and 369 CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16.
Licences:  the STS benchmark's texts have terms of their own, some for research only, which --accept-license names;
           the teacher (all-MiniLM-L6-v2) is Apache-2.0.
"""

from dataclasses import dataclass

from smallmodels import cli, data, distilling, tasks
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(distilling.LayersConfig):
    """What to distil, from what, into what."""

    dataset: str = "PhilipMay/stsb_multi_mt"
    dataset_config: str | None = "en"
    first_column: str | None = None
    """Column with the first text; without it, that of the first pair of the usual names."""
    second_column: str | None = None
    """Column with the second text, likewise."""
    label_column: str | None = None
    """Column with classes or with scores; without it, the first of the usual names."""
    regression: bool | None = None
    """Whether labels are scores; without it, they are where one has a fraction."""
    temperature: float = 2.0
    """Softens both distributions over classes; > 0. Scores have none, so it does nothing there."""
    teacher_train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=6, dropout=True, train_embeddings=False)
    train: TrainConfig = TrainConfig(learning_rate=5e-4, num_epochs=10, train_embeddings=False)


METRICS = ("spearman", "pearson", "accuracy", "macro_f1")
SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Fine-tune a teacher, store its logits or scores, distil, and compare with what is cheaper."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_text_pairs,
        dataset_name,
        first_column=config.first_column,
        second_column=config.second_column,
        label_column=config.label_column,
        regression=config.regression,
        **distilling.split_options(config),
    )
    task, noun = (tasks.CLASSES, "classifier") if splits.label_names else (tasks.SCORES, "scorer")
    done = distilling.distil_layers(
        run, config, task, splits, teacher_name=teacher_name, noun=f"{noun} of pairs of texts"
    )
    run.finish(done.student, **done.about)


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
