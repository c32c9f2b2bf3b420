"""Distil a model that answers biomedical questions with yes, no or maybe from an abstract, and that may abstain.

Source:    Jin et al. 2019, arXiv:1909.06146 (the data); El-Yaniv and Wiener 2010, JMLR 11 (risk against coverage).
Run:       smallmodels run biomedical_questions
Expected:  the record under benchmarks/results/biomedical_questions.
Measured:  qiaojin/PubMedQA: macro F1 0.237 (teacher 0.237, labels alone 0.272), one seed, flags as in its record; 10
           min 57 s and 1,060 CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16.
Licences:  PubMedQA is MIT, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.
"""

from dataclasses import dataclass, replace

from smallmodels import cli, data, distilling, evaluation, tasks
from smallmodels.evaluation import Contenders, Evaluation
from smallmodels.models import Compute
from smallmodels.phases import Context
from smallmodels.runs import Run
from smallmodels.training import TrainConfig

NOTICE = (
    "This is not a medical device. It was not made or tested to diagnose, treat or advise anybody; do not act on its "
    "answers."
)


@dataclass(frozen=True, kw_only=True)
class Config(distilling.LayersConfig):
    """What to distil, from what, into what."""

    dataset: str = "qiaojin/PubMedQA"
    dataset_config: str | None = "pqa_labeled"
    first_column: str | None = None
    """Column with the questions; without it, that of the first pair of the usual names."""
    second_column: str | None = None
    """Column with what the answer follows from, likewise."""
    label_column: str | None = None
    """Column with the answers; without it, the first of the usual names."""
    max_length: int = 384
    margin: float = 0.03
    teacher_train: TrainConfig = TrainConfig(
        learning_rate=1e-4, num_epochs=10, batch_size=16, dropout=True, train_embeddings=False
    )
    train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=15, batch_size=16, train_embeddings=False)


METRICS = ("macro_f1", "accuracy", "accuracy_at_50_percent", "accuracy_at_80_percent", "area_under_risk_coverage")
SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Macro F1, calibration, and how often the model is wrong where it answers only what it is sure of."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_text_pairs,
        dataset_name,
        first_column=config.first_column,
        second_column=config.second_column,
        label_column=config.label_column,
        regression=False,
        **distilling.split_options(config),
    )

    def evaluate(contenders: Contenders, splits: data.Splits, compute: Compute, context: Context) -> Evaluation:
        found = evaluation.evaluate_classifiers(
            contenders, splits.test, splits.label_names, compute=compute, context=context
        )
        return evaluation.with_abstention(found)

    # Most answers are yes, so accuracy would praise a model that says nothing else
    task = replace(tasks.CLASSES, metric="macro_f1", validate=tasks.validate_macro_f1, evaluate=evaluate)
    done = distilling.distil_layers(
        run, config, task, splits, teacher_name=teacher_name, noun="model of answers to biomedical questions"
    )
    run.finish(done.student, **{**done.about, "limits": [NOTICE, *done.about["limits"]]})


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
