"""Encoder fine-tuning without a teacher, with us. A contender of versus_peers.

Source:    Devlin et al. 2019, arXiv:1810.04805, section 4; layers kept as in Sanh et al. 2019, arXiv:1910.01108.
Run:       smallmodels run benchmarks/peers/ours_finetuning.py
Expected:  benchmarks/results/versus_peers.md; the other side is trainer_finetuning_tuned.py.
Licences:  Banking77 is CC-BY-4.0, the base model (all-MiniLM-L6-v2) Apache-2.0; the result inherits the latter.

Counted is the phase `train`. Nobody validates while training, and the last weights are taken.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from smallmodels import cli, data, evaluation, losses, models, students, training
from smallmodels.data import Batch
from smallmodels.evaluation import Contender
from smallmodels.models import Model
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """The job, the same for all contenders, and how we train."""

    dataset: str = "PolyAI/banking77"
    """Hub id, or a local CSV, JSON Lines or Parquet file."""
    max_train: int | None = None
    """Train on so many texts only, drawn so that classes keep their shares."""
    base_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or local folder of an encoder."""
    num_layers: int = 3
    """Layers of the base model that are kept."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    seed: int = 0
    """Of the new head and the training."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=3, train_embeddings=False)


SMOKE = replace(Config(), max_train=300, train=replace(Config().train, max_steps=2))


def main(config: Config, run: Run) -> None:
    """Fine-tune on labels, and test."""
    # 1. What all contenders share: data, base model with a new head
    run.phase("imports", after_imports)
    dataset_name, base_name = run.pin((config.dataset, "dataset"), (config.base_model, "model"))
    splits = run.phase("data", data.load_text_classification, dataset_name, max_train=config.max_train)
    run.add_source(splits.source)
    base, fetched, _ = models.load_classifier(
        base_name, splits.label_names, max_length=config.max_length, seed=config.seed, role="base_model"
    )
    run.add_source(fetched.source)
    splits = splits.tokenize(base.tokenizer, max_length=base.max_length)
    student = students.keep_layers(base, config.num_layers)
    compute = run.phase("setup", models.choose_compute, model=student, tokens=splits.train.tokens, **run.compute)

    # 2. The contender
    def loss_fn(model: Model, batch: Batch) -> Tensor:
        return losses.cross_entropy(model(**batch.inputs).logits, batch.labels)

    student = run.phase(
        "train", training.fit, student, splits.train, loss_fn, config.train, seed=config.seed, compute=compute
    )

    # 3. What it learned; the learning rate was chosen on validation
    contenders = {"student": Contender(student, built_by=("train",))}
    chosen_on, tested = (
        run.phase(name, evaluation.evaluate_classifiers, contenders, split, splits.label_names, compute=compute)
        for name, split in (("validate", splits.validation), ("evaluate", splits.test))
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer text classifier for {splits.source.name}, fine-tuned with smallmodels",
        task="text-classification",
        metric="accuracy",
        results=[*tested.results, *chosen_on.results],
        predictions=tested.predictions,
        model=models.describe(student, compute),
        languages=splits.languages,
        limits=["Made to compare the cost of training, not for use."],
        label_names=splits.label_names,
    )


def after_imports() -> None:
    """Nothing: the memory of this phase is what the imports take."""


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
