"""Distil a classifier that gives a text any number of labels, with the sigmoid of each label as a soft target.

Source:    Hinton et al. 2015, arXiv:1503.02531, section 2, label by label.
Run:       smallmodels run distill_multilabel_classifier
Expected:  a student near its teacher in micro F1: over three seeds of `go_emotions` in benchmarks/cpu_small.py it is
           level with it and above the same student on labels alone.
Measured:  google-research-datasets/go_emotions: micro F1 0.534 (teacher 0.532, labels alone 0.500), one seed, flags as
           in its record; 10 min 10 s and 1,070 CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16.
Licences:  GoEmotions is Apache-2.0, and so is the teacher (all-MiniLM-L6-v2); a student inherits its teacher's.
"""

from dataclasses import dataclass

from smallmodels import cli, data, distilling, tasks
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(distilling.LayersConfig):
    """What to distil, from what, into what."""

    dataset: str = "google-research-datasets/go_emotions"
    dataset_config: str | None = "simplified"
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the labels: a list, or a string with `;`, `|` or `,` between them."""
    label_columns: tuple[str, ...] = ()
    """Columns of 0 and 1, one for each label, in place of one column."""
    max_length: int = 64
    teacher_train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=3, dropout=True, train_embeddings=False)
    train: TrainConfig = TrainConfig(learning_rate=5e-4, num_epochs=4, train_embeddings=False)


METRICS = ("micro_f1", "macro_f1", "average_precision")
SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Fine-tune a teacher, store its logits, distil, choose thresholds on validation, and compare."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_multilabel_classification,
        dataset_name,
        text_column=config.text_column,
        label_column=config.label_column,
        label_columns=config.label_columns,
        **distilling.split_options(config),
    )
    done = distilling.distil_layers(
        run, config, tasks.LABELS, splits, teacher_name=teacher_name, noun="classifier of several labels"
    )
    run.finish(done.student, **done.about)


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
