"""Find the smallest text classifier that does the job: try students of a teacher inside a budget of energy.

Source:    successive halving: Jamieson and Talwalkar 2016, arXiv:1502.07943; soft targets: Hinton et al. 2015.
Run:       smallmodels run shrink_text_classifier --budget-wh 10
Expected:  a student within the given drop of its teacher, and the front of quality against the cost of a use.
Measured:  PolyAI/banking77: accuracy 89.5 % (teacher 90.7 %), one seed, flags as in its record; 9 min 11 s and 969
           CPU-s on Intel(R) Xeon(R) Processor, 2 cores, fp32, which other work shared.
Licences:  Banking77 is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.
"""

from dataclasses import dataclass

from smallmodels import cli, data, distilling, search, tasks
from smallmodels.runs import Run


@dataclass(frozen=True, kw_only=True)
class Config(distilling.Config):
    """What to shrink, and by how much; at which cost is the budget of the run."""

    dataset: str = "PolyAI/banking77"
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the labels: strings, integers or named classes; without it, the first of the usual names."""


METRICS = ("accuracy", "macro_f1")
SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Try students of a teacher that is tuned and asked once, and keep the cheapest that is good enough."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_text_classification,
        dataset_name,
        text_column=config.text_column,
        label_column=config.label_column,
        **distilling.split_options(config),
    )
    found = search.shrink(
        run,
        config,
        tasks.CLASSES,
        splits,
        teacher_name=teacher_name,
        max_drop=config.margin,
    )
    run.finish(found.student, **found.about)


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
