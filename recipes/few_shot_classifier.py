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

from smallmodels import baselines, cli, data, distilling, evaluation, losses, models, students, teachers, training
from smallmodels.data import Batch, Split
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.models import Model, TextModel
from smallmodels.runs import Run
from smallmodels.students import Student
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
    """More texts without labels: hub id or local file, in a column of the same name; its test split is left out."""
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


SMOKE = distilling.smoke(Config())


def main(config: Config, run: Run) -> None:
    """Tune an embedder on the labels, let it label all other texts, distil, and compare with what is cheaper."""
    # 1. Data and models
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    more_names = run.pin((config.unlabelled, "dataset")) if config.unlabelled else []
    options = {**distilling.split_options(config), "max_train": None}
    columns = {"text_column": config.text_column, "label_column": config.label_column}
    splits = run.phase("data", data.load_text_classification, dataset_name, **columns, **options)
    more: list[Split] = []
    for name in more_names:
        column = config.text_column or splits.notes["text_column_guessed"]
        texts = {"text_columns": (column,), "drop_bad_texts": config.drop_bad_texts}
        found = run.phase("unlabelled", data.load_texts, name, **texts)
        run.add_source(found.source)
        more = [found.train, found.validation]
    splits, unlabelled = data.draw_shots(
        splits, config.num_shots, more=more, split_seed=config.split_seed, max_unlabelled=config.max_train
    )
    run.add_source(splits.source)
    num_classes, everything = len(splits.label_names), splits.train.join(unlabelled)
    run.say(teachers.require_space(len(everything), num_classes, run.folder))
    embedder, fetched = models.load_embedder(teacher_name, max_length=config.max_length)
    run.add_source(fetched.source)
    base, _, _ = models.load_classifier(
        teacher_name, splits.label_names, max_length=config.max_length, seed=config.seed
    )

    def smaller(model: TextModel) -> Student:
        student = students.keep_layers(model, config.num_layers)
        return students.trim_vocabulary(student, everything.texts) if config.trim_vocabulary else student

    small_base = smaller(base)
    distilling.say_change(run, base, small_base)
    splits = splits.tokenize(embedder.tokenizer, max_length=embedder.max_length)
    everything = everything.tokenize(embedder.tokenizer, max_length=embedder.max_length)
    compute = run.phase("setup", models.choose_compute, model=base, tokens=everything.tokens, **run.compute)
    tfidf = run.phase("tfidf", baselines.TfidfClassifier.fit, splits.train, num_classes=num_classes)
    majority = run.phase("majority", baselines.MajorityClassifier.fit, splits.train, num_classes=num_classes)

    # 2. Teacher: an embedder learns which labelled texts belong together, and a linear head to tell classes apart
    contrast_temperature, temperature = config.contrast_temperature, config.temperature

    def contrast(model: Model, batch: Batch) -> Tensor:
        embeddings = torch.cat([model(**part.inputs) for part in batch.split(PART_SIZE)])
        return losses.supervised_contrastive(embeddings, batch.labels, temperature=contrast_temperature)

    tuned = run.phase(
        "teacher",
        teachers.fine_tune,
        embedder.copy(),
        splits.train,
        contrast,
        config.teacher_train,
        seed=config.teacher_seed,
        plan=data.plan_by_class,
        compute=compute,
    )
    of_head = {"num_classes": num_classes, "compute": compute}
    head = run.phase("head", teachers.fit_head, tuned, splits.train, **of_head)
    untuned_head = run.phase("untuned_head", teachers.fit_head, embedder, splits.train, **of_head)
    teacher, untuned = teachers.with_head(tuned, head), teachers.with_head(embedder, untuned_head)
    signals = run.phase("cache", teachers.store_signals, teacher, everything, compute=compute)

    # 3. Student: the teacher's soft labels for all texts, and the labels that there are; and the labels alone
    def soft_loss(model: Model, batch: Batch) -> Tensor:
        logits = model(**batch.inputs).logits
        soft = losses.kl_divergence(logits, batch.teacher, temperature=temperature)
        hard = losses.cross_entropy(logits, batch.labels.clamp(min=0)) * (batch.labels != data.NO_LABEL)
        return config.soft_weight * soft + (1 - config.soft_weight) * hard

    def hard_loss(model: Model, batch: Batch) -> Tensor:
        return losses.cross_entropy(model(**batch.inputs).logits, batch.labels)

    untrained = smaller(students.with_encoder_of(base, tuned))
    everything, shots = everything.with_signals(signals), splits.train
    if config.trim_vocabulary:  # the student's own tokens; the teacher's rows stay with their texts
        everything, shots = (
            split.tokenize(untrained.tokenizer, max_length=untrained.max_length) for split in (everything, shots)
        )
    of_training = {"seed": config.seed, "compute": compute}
    student = run.phase("train", training.fit, untrained.copy(), everything, soft_loss, config.train, **of_training)

    paid_for = {"label_only": ["cache", "train"]}
    if config.full_cost_control:
        paid_for["label_only_full_cost"] = ["teacher", "head", "cache", "train"]
    controls = distilling.train_controls(
        run,
        paid_for,
        student=student,
        of_student=distilling.Training(untrained, everything, soft_loss, config.train),
        of_control=distilling.Training(small_base, shots, hard_loss, config.train),
        probe="probe_soft",  # a step on the labels has other texts, and fewer where the classes are few
        **of_training,
    )

    # 4. The test split is read here, once
    of_teacher = ("teacher", "head")
    contenders = {
        "teacher": Contender(teacher, built_by=of_teacher),
        "untuned_teacher": Contender(untuned, built_by=("untuned_head",)),
        "student": Contender(student, built_by=("cache", "train"), teacher_phases=of_teacher),
        "untrained_student": Contender(untrained, teacher_phases=of_teacher),
        **{role: Contender(model, built_by=(role,)) for role, model in controls.items()},
        "tfidf": Contender(tfidf, built_by=("tfidf",)),
        "majority": Contender(majority, built_by=("majority",)),
    }
    result = run.phase(
        "evaluate", evaluation.evaluate_classifiers, contenders, splits.test, splits.label_names, compute=compute
    )
    costs = run.phase("inference", evaluation.measure_inference, contenders, splits.test, compute=compute)
    run.finish(
        student,
        title=f"{config.num_layers}-layer text classifier for {splits.source.name}, distilled from "
        f"{fetched.source.name} with {config.num_shots} labels a class",
        task="text-classification",
        metric="accuracy",
        margin=config.margin,
        results=result.results,
        inference=costs.inference,
        predictions=result.predictions,
        examples=evaluation.example_predictions(result, splits),
        model=models.describe(student, compute),
        languages=splits.languages,
        limits=[
            f"Tested on {splits.source.name} only; texts of another kind or language were not tried.",
            f"Made of {config.num_shots} labelled texts of each class, and no more: other texts would give another "
            "model, and how far it would differ was not tried.",
            "Nothing was chosen on validation: each model has the last weights of its training.",
        ],
        label_names=splits.label_names,
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
