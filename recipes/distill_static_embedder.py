"""Distil a text classifier into one vector per token and a linear layer: no transformer, no torch to use it.

Source:    Arora et al. 2017, "A Simple but Tough-to-Beat Baseline for Sentence Embeddings" (weights of tokens); token
           vectors from a sentence encoder as in model2vec; soft targets of Hinton et al. 2015, arXiv:1503.02531.
Run:       smallmodels run distill_static_embedder
Expected:  the record under benchmarks/results/distill_static_embedder.
Licences:  Banking77 is CC-BY-4.0, the teacher (all-MiniLM-L6-v2) Apache-2.0; a student inherits its teacher's.
"""

from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from smallmodels import baselines, cli, data, evaluation, models, students, tasks, teachers, training
from smallmodels.data import Batch
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.models import Model, TextModel
from smallmodels.runs import Run
from smallmodels.students import Student
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to distil, from what, into what."""

    dataset: str = "PolyAI/banking77"
    """Hub id (`org/name@revision` pins it), or a local CSV, JSON Lines or Parquet file."""
    dataset_config: str | None = None
    """Configuration of a hub data set that has several, such as a language."""
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the labels: strings, integers or named classes; without it, the first of the usual names."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str | None = None
    """Split to choose on; a tenth of train if there is none."""
    test_split: str = "test"
    """Split that is read once, at the end; a fifth of train if there is none."""
    drop_overlap: bool = False
    """Drop training texts that also stand in validation or test."""
    drop_bad_texts: bool = False
    """Leave out rows whose text is empty, null or a megabyte long, instead of refusing the data."""
    max_train: int | None = None
    """Train on so many texts only, drawn so that classes keep their shares."""
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or local folder: fine-tuned for these labels, or a base model that is fine-tuned first."""
    dimensions: int = 256
    """Of a token's vector; at most the teacher's width."""
    hidden_size: int | None = None
    """Width of a hidden layer between embedding and labels; without it, one linear layer."""
    trim_vocabulary: bool = True
    """Keep only the tokens that the training texts need, and those that other texts fall back on."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    temperature: float = 1.0
    """Softens both distributions; > 0, and 1, which leaves them as they are, suits so simple a student best."""
    soft_weight: float = 0.5
    """Share of the soft targets in the loss, in [0, 1]; the rest is cross-entropy with the labels."""
    margin: float = 0.01
    """Accuracy that the student may lose against the teacher and still do its job."""
    seed: int = 0
    """Of the student's training."""
    teacher_seed: int = 0
    """Of the teacher's fine-tuning; apart, so that runs with other seeds share the teacher."""
    split_seed: int = 0
    """Of the rows that are held out."""
    teacher_train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=6, dropout=True, train_embeddings=False)
    train: TrainConfig = TrainConfig(learning_rate=1e-2, num_epochs=10, batch_size=64, weight_decay=0.0, dropout=True)

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", "> 0", self.temperature)
        require(0 <= self.soft_weight <= 1, "soft_weight", "in [0, 1]", self.soft_weight)
        require(self.dimensions > 0, "dimensions", "> 0", self.dimensions)
        require(self.hidden_size is None or self.hidden_size > 0, "hidden_size", "> 0", self.hidden_size)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.max_train is None or self.max_train > 0, "max_train", "> 0", self.max_train)
        require(self.margin >= 0, "margin", ">= 0", self.margin)


SMOKE = replace(
    Config(),
    max_train=1000,
    teacher_train=replace(Config().teacher_train, max_steps=2, num_evaluations=1),
    train=replace(Config().train, max_steps=2, num_evaluations=1),
)


def main(config: Config, run: Run) -> None:
    """Fine-tune a teacher if need be, let it read every token alone, distil, and compare with what is cheaper."""
    # 1. Data and teacher: names to commits, licences checked, then everything is read
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_text_classification,
        dataset_name,
        config=config.dataset_config,
        text_column=config.text_column,
        label_column=config.label_column,
        train_split=config.train_split,
        validation_split=config.validation_split,
        test_split=config.test_split,
        split_seed=config.split_seed,
        drop_overlap=config.drop_overlap,
        drop_bad_texts=config.drop_bad_texts,
        max_train=config.max_train,
    )
    run.add_source(splits.source)
    run.say(teachers.require_space(len(splits.train), len(splits.label_names), run.folder))
    base, fetched, is_tuned = models.load_classifier(
        teacher_name, splits.label_names, max_length=config.max_length, seed=config.teacher_seed
    )
    run.add_source(fetched.source)
    splits = splits.tokenize(base.tokenizer, max_length=base.max_length)
    compute = run.phase("setup", models.choose_compute, model=base, tokens=splits.train.tokens, **run.compute)
    num_classes = len(splits.label_names)
    tfidf = run.phase("tfidf", baselines.TfidfClassifier.fit, splits.train, num_classes=num_classes)
    majority = baselines.MajorityClassifier.fit(splits.train, num_classes=num_classes)

    # Word for word those of `distilling`, so that the fine-tuned teacher in the cache is the same
    of_labels, of_teacher, logits_of = tasks.CLASSES.hard_loss, tasks.CLASSES.soft_loss, tasks.CLASSES.logits
    metric, measure = tasks.CLASSES.metric, tasks.CLASSES.validate

    def hard_loss(model: Model, batch: Batch) -> Tensor:
        return of_labels(logits_of(model, batch), batch.labels)

    def soft_loss(model: Model, batch: Batch) -> Tensor:
        logits = logits_of(model, batch)
        soft = of_teacher(logits, batch.teacher, temperature=config.temperature)
        return config.soft_weight * soft + (1 - config.soft_weight) * of_labels(logits, batch.labels)

    def validate(model: TextModel) -> dict[str, float]:
        return {metric: measure(model, splits, compute=compute)}

    # 2. Vectors of a base model, before the teacher is paid for: where the control without a teacher starts
    def static_student(phase: str, model: TextModel) -> Student:
        texts = splits.train.whole_texts
        small = students.trim_vocabulary(model, texts) if config.trim_vocabulary else model
        vectors = run.phase(phase, students.token_vectors, small, compute=compute)
        centred = vectors - vectors.mean(0)
        vectors = centred @ students.principal_axes(centred, config.dimensions)
        embedder = students.static_embedder(small, vectors, texts=texts)
        return students.add_classifier(embedder, splits.label_names, hidden_size=config.hidden_size, seed=config.seed)

    without_teacher = static_student("base_vectors", base)

    # 3. Teacher: fine-tuned once, and its logits stored once; other runs find both in the cache
    teacher = base
    if not is_tuned:
        teacher = run.phase(
            "teacher",
            teachers.fine_tune,
            base.copy(),
            splits.train,
            hard_loss,
            config.teacher_train,
            seed=config.teacher_seed,
            validation=splits.validation,
            validate=validate,
            compute=compute,
        )
    signals = run.phase("cache", teachers.store_signals, teacher, splits.train, compute=compute)

    # 4. Student, and the same student without a teacher at equal cost
    untrained = static_student("vectors", teacher)
    splits = replace(splits, train=splits.train.with_signals(signals))
    splits = splits.tokenize(untrained.tokenizer, max_length=untrained.max_length)
    student = run.phase(
        "train",
        training.fit,
        untrained.copy(),
        splits.train,
        soft_loss,
        config.train,
        seed=config.seed,
        validate=validate,
        compute=compute,
    )
    paid_for = {"label_only": ["cache", "train"], "label_only_full_cost": ["teacher", "cache", "train"]}
    if is_tuned:
        del paid_for["label_only_full_cost"]  # what its fine-tuning cost is not known
        run.event(
            "control", "the teacher came fine-tuned, so the control without it starts from its vectors all the same"
        )

    def steps_at_cost_of(phases: list[str]) -> int:
        return training.steps_at_cost(splits.train, config.train, ratio=run.cost_ratio(phases, to=["train"]))

    controls = {}
    for role, phases in paid_for.items():
        controls[role] = run.phase(
            role,
            training.fit,
            without_teacher.copy(),
            splits.train,
            hard_loss,
            replace(config.train, max_steps=run.choose(f"{role}_steps", partial(steps_at_cost_of, phases))),
            seed=config.seed,
            validate=validate,
            compute=compute,
        )

    # 5. The test split is read here, once, by models as they are saved: numpy, a table in fp16
    of_teacher_phase = () if is_tuned else ("teacher",)
    saved = models.to_numpy(student).in_fp16()
    contenders = {
        "teacher": Contender(teacher, built_by=of_teacher_phase),
        "student": Contender(saved, built_by=("vectors", "cache", "train"), teacher_phases=of_teacher_phase),
        "untrained_student": Contender(
            models.to_numpy(untrained).in_fp16(), built_by=("vectors",), teacher_phases=of_teacher_phase
        ),
        **{
            role: Contender(models.to_numpy(model).in_fp16(), built_by=("base_vectors", role))
            for role, model in controls.items()
        },
        "tfidf": Contender(tfidf, built_by=("tfidf",)),
        "majority": Contender(majority),
    }
    result = run.phase(
        "evaluate", evaluation.evaluate_classifiers, contenders, splits.test, splits.label_names, compute=compute
    )
    costs = run.phase(
        "inference",
        evaluation.measure_inference,
        contenders,
        splits.test,
        protocol="smoke" if run.smoke else "indicative",
        compute=compute,
    )
    run.finish(
        saved,
        title=f"Static text classifier for {splits.source.name}, distilled from {fetched.source.name}",
        task="text-classification",
        metric="accuracy",
        margin=config.margin,
        results=result.results,
        inference=costs.inference,
        predictions=result.predictions,
        curve=training.curve(student),
        examples=evaluation.example_predictions(result, splits),
        model={**models.describe(student, compute), **saved.facts},
        languages=splits.languages,
        limits=[
            f"Tested on {splits.source.name} only; texts of another kind or language were not tried.",
            "The order of words does not count: who does what to whom is not seen.",
        ],
        label_names=splits.label_names,
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
