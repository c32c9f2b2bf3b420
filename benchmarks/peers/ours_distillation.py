"""Encoder distillation with us: the teacher's pass stored once, then one loop over it. A contender of versus_peers.

Source:    Hinton et al. 2015, arXiv:1503.02531, section 2; layers kept as in Sanh et al. 2019, arXiv:1910.01108.
Run:       smallmodels run benchmarks/peers/ours_distillation.py
Expected:  benchmarks/results/versus_peers.md; the others are trainer_distillation.py and its tuned twin.
Licences:  Banking77 is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.

Counted are the phases `cache` and `train`. The fine-tuned teacher is the same for all contenders and not counted; its
pass is made afresh in each run. Nobody validates while training, and the last weights are taken.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from smallmodels import cli, data, evaluation, losses, models, students, teachers, training
from smallmodels.data import Batch
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.models import Model, TextModel
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """The job, the same for all contenders, and how we train."""

    dataset: str = "PolyAI/banking77"
    """Hub id, or a local CSV, JSON Lines or Parquet file."""
    max_train: int | None = None
    """Train on so many texts only, drawn so that classes keep their shares."""
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Base model that is fine-tuned first."""
    num_layers: int = 3
    """Layers of the teacher that the student keeps."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    temperature: float = 2.0
    """Softens both distributions; > 0, and 1 leaves them as they are."""
    soft_weight: float = 0.9
    """Share of the soft targets in the loss, in [0, 1]; the rest is cross-entropy with the labels."""
    seed: int = 0
    """Of the student's training."""
    teacher_seed: int = 0
    """Of the teacher's fine-tuning."""
    teacher_train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=6, dropout=True, train_embeddings=False)
    train: TrainConfig = TrainConfig(learning_rate=1.5e-3, num_epochs=3, batch_size=128, train_embeddings=False)

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", "> 0", self.temperature)
        require(0 <= self.soft_weight <= 1, "soft_weight", "in [0, 1]", self.soft_weight)


SMOKE = replace(
    Config(),
    max_train=300,
    teacher_train=replace(Config().teacher_train, max_steps=2, num_evaluations=1),
    train=replace(Config().train, max_steps=2),
)


def main(config: Config, run: Run) -> None:
    """Store the teacher's signal, train the student on it, and test both."""
    # 1. What all contenders share: data, base model, fine-tuned teacher
    run.phase("imports", after_imports)
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase("data", data.load_text_classification, dataset_name, max_train=config.max_train)
    run.add_source(splits.source)
    base, fetched, _ = models.load_classifier(
        teacher_name, splits.label_names, max_length=config.max_length, seed=config.teacher_seed
    )
    run.add_source(fetched.source)
    splits = splits.tokenize(base.tokenizer, max_length=base.max_length)
    shape = students.keep_layers(base, config.num_layers)
    compute = run.phase("setup", models.choose_compute, model=shape, tokens=splits.train.tokens, **run.compute)

    def hard_loss(model: Model, batch: Batch) -> Tensor:
        return losses.cross_entropy(model(**batch.inputs).logits, batch.labels)

    def validate(model: TextModel) -> dict[str, float]:
        return {"accuracy": evaluation.accuracy(model, splits.validation, compute=compute)}

    teacher = run.phase(
        "teacher",
        teachers.fine_tune,
        base,
        splits.train,
        hard_loss,
        config.teacher_train,
        seed=config.teacher_seed,
        validation=splits.validation,
        validate=validate,
        compute=compute,
    )
    del base  # else it is part of the memory of what follows
    student = students.keep_layers(teacher, config.num_layers)

    # 2. The contender
    def soft_loss(model: Model, batch: Batch) -> Tensor:
        logits = model(**batch.inputs).logits
        soft = losses.kl_divergence(logits, batch.teacher, temperature=config.temperature)
        return config.soft_weight * soft + (1 - config.soft_weight) * losses.cross_entropy(logits, batch.labels)

    own_cache = run.folder / "signals"  # the shared one would give the next run what this one has paid for
    signals = run.phase("cache", teachers.store_signals, teacher, splits.train, compute=compute, cache=own_cache)
    student = run.phase(
        "train",
        training.fit,
        student,
        splits.train.with_signals(signals),
        soft_loss,
        config.train,
        seed=config.seed,
        compute=compute,
    )

    # 3. What it learned; the learning rate was chosen on validation
    contenders = {
        "teacher": Contender(teacher, built_by=("teacher",)),
        "student": Contender(student, built_by=("cache", "train"), teacher_phases=("teacher",)),
    }
    chosen_on, tested = (
        run.phase(name, evaluation.evaluate_classifiers, contenders, split, splits.label_names, compute=compute)
        for name, split in (("validate", splits.validation), ("evaluate", splits.test))
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer text classifier for {splits.source.name}, distilled with smallmodels",
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
