"""Distil one classifier of topics for 20 languages, and show what each language costs.

Source:    Adelani et al. 2024, arXiv:2309.07445 (the data); Hinton et al. 2015, arXiv:1503.02531, section 2.
Run:       smallmodels run multilingual_topics
Expected:  the record under benchmarks/results/multilingual_topics, with a row for each language.
Measured:  Davlan/sib200: accuracy 35.2 % (teacher 36.4 %, labels alone 36.0 %), one seed, flags as in its record; 7 min
           47 s and 770 CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16.
Licences:  SIB-200 is CC-BY-SA-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.
"""

from dataclasses import dataclass, replace

from smallmodels import cli, data, distilling, evaluation, tasks
from smallmodels.errors import InputError
from smallmodels.evaluation import Contenders, Evaluation
from smallmodels.models import Compute
from smallmodels.phases import Context
from smallmodels.runs import Run

LANGUAGES = (
    *("amh_Ethi", "arb_Arab", "ben_Beng", "deu_Latn", "eng_Latn", "fra_Latn", "hau_Latn", "hin_Deva", "jpn_Jpan"),
    *("quy_Latn", "rus_Cyrl", "spa_Latn", "swh_Latn", "tam_Taml", "tha_Thai", "ukr_Cyrl", "vie_Latn", "yor_Latn"),
    *("zho_Hans", "zul_Latn"),
)


@dataclass(frozen=True, kw_only=True)
class Config(distilling.LayersConfig):
    """What to distil, from what, into what, for whom."""

    dataset: str = "Davlan/sib200"
    """Hub id (`org/name@revision` pins it) of a data set with a configuration for each language, or local CSV, JSON
    Lines or Parquet files with `{language}` in their path."""
    languages: tuple[str, ...] = LANGUAGES
    """Configurations of the data set, or what stands in the place of `{language}`; all have the same labels."""
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the topics; without it, the first of the usual names."""
    max_train: int | None = None
    """Train on so many texts of each language only, drawn so that topics keep their shares."""
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or local folder of an encoder, fine-tuned first; the default reads English best, and shows what that
    costs the others: choose a multilingual one for use."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dataset_config is not None:
            raise InputError(
                f"the configurations of the data set are its languages, got --dataset-config {self.dataset_config}: "
                "name them with --languages"
            )


METRICS = ("accuracy", "macro_f1", "worst_group_accuracy", "spread_of_groups")
SMOKE = replace(distilling.smoke(Config()), languages=("eng_Latn", "swh_Latn", "tha_Thai"), max_train=100)


def main(config: Config, run: Run) -> None:
    """One student for all languages; accuracy, tokens per word and energy for each."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    options = distilling.split_options(config)
    del options["config"]
    splits = run.phase(
        "data",
        data.load_in_languages,
        dataset_name,
        config.languages,
        text_column=config.text_column,
        label_column=config.label_column,
        **options,
    )

    def evaluate(contenders: Contenders, splits: data.Splits, compute: Compute, context: Context) -> Evaluation:
        found = evaluation.evaluate_classifiers(
            contenders, splits.test, splits.label_names, compute=compute, context=context
        )
        return evaluation.by_group(found, data.languages_of_rows(splits.test), "accuracy")

    done = distilling.distil_layers(
        run,
        config,
        replace(tasks.CLASSES, evaluate=evaluate),
        splits,
        teacher_name=teacher_name,
        noun="topic classifier in many languages",
    )
    # The same sentences in each language: what differs is the tokens that a word takes, and so the energy
    costs = run.phase(
        "languages",
        evaluation.language_costs,
        done.student,
        data.by_language(splits.test),
        compute=done.compute,
    )
    results = evaluation.with_group_rows(done.evaluation.results, "student", costs)
    run.finish(done.student, **{**done.about, "results": results})


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
