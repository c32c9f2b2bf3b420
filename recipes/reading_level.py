"""Distil a classifier of reading level: is a text for elementary, intermediate or advanced learners of English?

Source:    Vajjala and Lučić 2018, doi:10.18653/v1/W18-0535 (the data); Hinton et al. 2015, arXiv:1503.02531.
Run:       smallmodels run reading_level
Expected:  the record under benchmarks/results/reading_level.
Measured:  iastate/onestop_english: accuracy 78.9 % (teacher 74.6 %, labels alone 81.6 %), one seed, flags as in its
           record; 8 min 57 s and 896 CPU-s on Intel(R) Xeon(R) Processor, 2 cores, fp32, which other work shared.
Licences:  OneStopEnglish is CC-BY-SA-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.
"""

from dataclasses import dataclass

from smallmodels import cli, data, distilling, tasks
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(distilling.LayersConfig):
    """What to distil, from what, into what."""

    dataset: str = "iastate/onestop_english"
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the levels; without it, the first of the usual names."""
    max_length: int = 256
    """Tokens after which a text is cut; how a text is written shows in its beginning."""
    margin: float = 0.03
    teacher_train: TrainConfig = TrainConfig(
        learning_rate=2e-4, num_epochs=12, batch_size=16, dropout=True, train_embeddings=False
    )
    train: TrainConfig = TrainConfig(learning_rate=5e-4, num_epochs=20, batch_size=16, train_embeddings=False)


METRICS = ("accuracy", "macro_f1")
SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Take out what gives the level away, keep an article's versions together, distil, and compare."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_reading_levels,
        dataset_name,
        text_column=config.text_column,
        label_column=config.label_column,
        **distilling.split_options(config),
    )
    done = distilling.distil_layers(
        run, config, tasks.CLASSES, splits, teacher_name=teacher_name, noun="classifier of reading level"
    )
    limits = ["It knows newspaper articles that were rewritten for learners; it judges texts, never their readers."]
    if "num_texts_made_plain_ascii" in splits.source.notes:
        limits.append(
            "It has seen no quotes, no apostrophes and nothing beyond ASCII, which one level of its data has lost: "
            "take them out of the texts that it is to judge."
        )
    run.finish(done.student, **{**done.about, "limits": [*done.about["limits"], *limits]})


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
