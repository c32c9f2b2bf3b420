"""Distil a text classifier into a student with fewer layers, with soft targets.

Source:    Hinton et al. 2015, arXiv:1503.02531, section 2; layers kept as in Sanh et al. 2019, arXiv:1910.01108.
Run:       smallmodels run distill_text_classifier
Expected:  the record under benchmarks/results/distill_text_classifier, which the table in README.md is made from.
Measured:  PolyAI/banking77: accuracy 92.4 % (teacher 92.3 %, labels alone 91.7 %), one seed; 16 min 46 s and 1,970
           CPU-s on AMD EPYC, 2 cores, bf16.
Licences:  Banking77 is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.
"""

from dataclasses import dataclass

from smallmodels import cli, data, distilling, tasks
from smallmodels.runs import Run


@dataclass(frozen=True, kw_only=True)
class Config(distilling.LayersConfig):
    """What to distil, from what, into what."""

    dataset: str = "PolyAI/banking77"
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the labels: strings, integers or named classes; without it, the first of the usual names."""


METRICS = ("accuracy", "macro_f1")
SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Fine-tune a teacher, store its logits, distil, and compare with what is cheaper."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_text_classification,
        dataset_name,
        text_column=config.text_column,
        label_column=config.label_column,
        **distilling.split_options(config),
    )
    # fine_tune, store_signals, keep_layers, fit on `losses.kl_divergence`, the same without a teacher, evaluate
    done = distilling.distil_layers(
        run, config, tasks.CLASSES, splits, teacher_name=teacher_name, noun="text classifier"
    )
    run.finish(done.student, **done.about)


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
