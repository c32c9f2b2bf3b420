"""Distil a model that finds entities into a student with fewer layers, with soft targets for each word.

Source:    Hinton et al. 2015, arXiv:1503.02531, section 2; the first sub-word speaks for its word, as in Devlin et al.
           2019, arXiv:1810.04805, section 5.3.
Run:       smallmodels run distill_token_classifier
Expected:  the records under benchmarks/results/cpu_small/bc5cdr, of which benchmarks/results/cpu_small.md is made.
Measured:  ghadeermobasher/BC5CDR-Chemical-Disease: F1 0.756 (teacher 0.786, labels alone 0.730), one seed, flags as in
           its record; 9 min 13 s and 947 CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16.
Licences:  BC5CDR is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.

With --objective hidden_states or attention_relations, what the teacher's layers make of a text's tokens, those without
a label too, is learned beside the answers.
"""

from dataclasses import dataclass

from smallmodels import cli, data, distilling, tasks
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(distilling.LayersConfig):
    """What to distil, from what, into what."""

    dataset: str = "ghadeermobasher/BC5CDR-Chemical-Disease"
    """Hub id (`org/name@revision` pins it), or a local CoNLL, CSV, JSON Lines or Parquet file."""
    words_column: str | None = None
    """Column with lists of words, in CSV as JSON or with spaces between; without it, the first of the usual names."""
    tags_column: str | None = None
    """Column with a list of tags, one for each word, likewise; without it, the first of the usual names."""
    teacher_train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=6, dropout=True)
    train: TrainConfig = TrainConfig(learning_rate=5e-4, num_epochs=10)


METRICS = ("f1", "precision", "recall", "macro_f1")
SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Fine-tune a teacher, store its logits for each word, distil, and compare with what is cheaper."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_token_classification,
        dataset_name,
        words_column=config.words_column,
        tags_column=config.tags_column,
        **distilling.split_options(config),
    )
    done = distilling.distil_layers(run, config, tasks.WORDS, splits, teacher_name=teacher_name, noun="entity finder")
    run.finish(done.student, **done.about)


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
