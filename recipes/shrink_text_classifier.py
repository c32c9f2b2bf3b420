"""Find the smallest text classifier that does the job: try students of a teacher inside a budget of energy.

Source:    successive halving: Jamieson and Talwalkar 2016, arXiv:1502.07943; soft targets: Hinton et al. 2015.
Run:       smallmodels run shrink_text_classifier
Expected:  a student within the given drop of its teacher, and the front of quality against the cost of a use.
Licences:  Banking77 is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.
"""

from dataclasses import dataclass, replace

from smallmodels import cli, data, distilling, search, tasks
from smallmodels.errors import require
from smallmodels.runs import Run


@dataclass(frozen=True, kw_only=True)
class Config(distilling.Config):
    """What to shrink, by how much, and at which cost."""

    dataset: str = "PolyAI/banking77"
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the labels: strings, integers or named classes; without it, the first of the usual names."""
    search_budget_wh: float = 10.0
    """Of the whole run, teacher, search and comparison included; `smallmodels shrink` calls it --budget-wh."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.search_budget_wh > 0, "search_budget_wh", "> 0", self.search_budget_wh)


SMOKE = replace(distilling.smoke(Config()), search_budget_wh=100.0)


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
        budget_wh=config.search_budget_wh,
    )
    run.finish(found.student, **found.about)


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
