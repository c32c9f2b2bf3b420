"""Make a text classifier of a few labelled texts of each class, and many texts without labels.

Source:    Tunstall et al. 2022, arXiv:2209.11055 (SetFit), and Khosla et al. 2020, arXiv:2004.11362, for the teacher;
           Hinton et al. 2015, arXiv:1503.02531, section 2, for the student.
Run:       smallmodels run few_shot_classifier
Expected:  the record under benchmarks/results/few_shot_classifier.
Measured:  PolyAI/banking77: accuracy 84.7 % (teacher 85.1 %, labels alone 76.8 %), one seed, flags as in its record; 24
           min 36 s and 1,410 CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16, which other work shared.
Licences:  Banking77 is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from smallmodels import cli, data, distilling, losses
from smallmodels.data import Batch
from smallmodels.errors import require
from smallmodels.models import Model
from smallmodels.runs import Run
from smallmodels.training import TrainConfig

PART_SIZE = 16
"""Texts that go through the teacher together when it is tuned: sorted by length, they have half of the padding."""


@dataclass(frozen=True, kw_only=True)
class Config(distilling.Config):
    """How many labels, and what to make of them."""

    dataset: str = "PolyAI/banking77"
    """Texts with labels: hub id or local file. Those beside the labelled ones that are drawn go without theirs; rows
    that have none are left out, so give them with `unlabelled`."""
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the labels: strings, integers or named classes; without it, the first of the usual names."""
    num_shots: int = 8
    """Labelled texts of each class, 8 to 64; the labels of all other texts are not used."""
    unlabelled: str | None = None
    """More texts without labels, in a column of the same name: a local file, of which every text is used, or a hub id,
    of which the train split is."""
    validation_split: str | None = None
    """Split that is added to train: nothing is chosen, each training takes all its steps and keeps its last weights."""
    max_train: int | None = None
    """Use so many texts without labels only."""
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence-embedding model: hub id or local folder."""
    num_layers: int = 3
    """Layers of the teacher that the student keeps."""
    trim_vocabulary: bool = False
    """Keep only the tokens that the texts need; half of a MiniLM is its token table."""
    contrast_temperature: float = 0.1
    """Of the teacher's tuning, > 0: a smaller one looks at the nearest texts alone."""
    teacher_train: TrainConfig = TrainConfig(
        learning_rate=1e-4, num_epochs=10, batch_size=64, dropout=True, train_embeddings=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_layers > 0, "num_layers", "> 0", self.num_layers)
        require(8 <= self.num_shots <= 64, "num_shots", "from 8 to 64", self.num_shots)
        require(self.contrast_temperature > 0, "contrast_temperature", "> 0", self.contrast_temperature)


METRICS = ("accuracy", "macro_f1")
SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Tune an embedder on the labels, let it label all other texts, distil, and compare with what is cheaper."""
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    unlabelled_name = run.pin((config.unlabelled, "dataset"))[0] if config.unlabelled else None
    splits, unlabelled = distilling.load_shots(
        run,
        config,
        config.num_shots,
        dataset_name=dataset_name,
        unlabelled_name=unlabelled_name,
        text_column=config.text_column,
        label_column=config.label_column,
    )

    # Teacher: an embedder learns which labelled texts belong together, and a linear head to tell classes apart
    contrast_temperature, temperature = config.contrast_temperature, config.temperature

    def contrast(model: Model, batch: Batch) -> Tensor:
        embeddings = torch.cat([model(**part.inputs) for part in batch.split(PART_SIZE)])
        return losses.supervised_contrastive(embeddings, batch.labels, temperature=contrast_temperature)

    # Student: the teacher's soft labels for all texts, and the labels that there are; its control has the labels alone
    def soft_loss(model: Model, batch: Batch) -> Tensor:
        logits = model(**batch.inputs).logits
        soft = losses.kl_divergence(logits, batch.teacher, temperature=temperature)
        hard = losses.cross_entropy(logits, batch.labels.clamp(min=0)) * (batch.labels != data.NO_LABEL)
        return config.soft_weight * soft + (1 - config.soft_weight) * hard

    done = distilling.distil_shots(
        run,
        config,
        splits,
        unlabelled,
        contrast,
        soft_loss,
        teacher_name=teacher_name,
        num_layers=config.num_layers,
        trim_vocabulary=config.trim_vocabulary,
    )
    about = {
        **done.about,
        "title": f"{done.about['title']} with {config.num_shots} labels a class",
        "limits": [
            *done.about["limits"],
            f"Made of {config.num_shots} labelled texts of each class, and no more: other texts would give another "
            "model, and how far it would differ was not tried.",
            "Nothing was chosen on validation: each model has the last weights of its training.",
        ],
    }
    run.finish(done.student, **about)


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
