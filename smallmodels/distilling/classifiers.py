"""Distil a classifier for any task: the steps that its recipes share, from splits to a finished student."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor

from smallmodels import models, sources, students, teachers, training
from smallmodels.data import Batch, Split, Splits
from smallmodels.distilling.controls import Training, train_with_controls
from smallmodels.distilling.outcome import Distilled, compare_classifiers, say_change, teacher_on_validation
from smallmodels.errors import InputError, require
from smallmodels.evaluation import Contender
from smallmodels.models import Compute, Model, TextModel
from smallmodels.runs import Run
from smallmodels.static import StaticModel
from smallmodels.students import Student
from smallmodels.tasks import Task
from smallmodels.training import TrainConfig

NUM_LAYERS = 3
"""That a student keeps where nothing else is said."""
STATIC_DIMENSIONS = 256
STATIC_TEMPERATURE, STATIC_SOFT_WEIGHT = 1.0, 0.5
STATIC_TRAIN = TrainConfig(learning_rate=1e-2, num_epochs=10, batch_size=64, weight_decay=0.0, dropout=True)
"""What suits a student with one vector per token best."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What all these recipes ask for: data, teacher, student and training."""

    dataset: str
    """Hub id (`org/name@revision` pins it), or a local CSV, JSON Lines or Parquet file."""
    dataset_config: str | None = None
    """Configuration of a hub data set that has several, such as a language; a default goes with the default data set
    alone."""
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
    max_length: int = 128
    """Tokens after which a text is cut."""
    temperature: float = 2.0
    """Softens both distributions; > 0, and 1 leaves them as they are."""
    soft_weight: float = 0.9
    """Share of the teacher in the loss, in [0, 1]; the rest is that of the labels."""
    margin: float = 0.01
    """How much of the metric the student may lose against the teacher and still do its job."""
    full_cost_control: bool = True
    """Compare with a student that learns from labels alone for as long as teacher, its pass and training cost together,
    too; often half of what a run costs."""
    seed: int = 0
    """Of the student's training."""
    teacher_seed: int = 0
    """Of the teacher's fine-tuning; apart, so that runs with other seeds share the teacher."""
    split_seed: int = 0
    """Of the rows that are held out."""
    teacher_train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=6, dropout=True, train_embeddings=False)
    train: TrainConfig = TrainConfig(learning_rate=5e-4, num_epochs=10, train_embeddings=False)

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", "> 0", self.temperature)
        require(0 <= self.soft_weight <= 1, "soft_weight", "in [0, 1]", self.soft_weight)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.max_train is None or self.max_train > 0, "max_train", "> 0", self.max_train)
        require(self.margin >= 0, "margin", ">= 0", self.margin)


@dataclass(frozen=True, kw_only=True)
class LayersConfig(Config):
    """And for students that are made of the teacher's layers."""

    num_layers: int | None = None
    """Layers of the teacher that the student keeps, evenly spaced; 3 unless --kept-layers names them."""
    kept_layers: tuple[int, ...] = ()
    """Numbers of the layers that it keeps instead, the first one being 0, such as 0 2 5."""
    hidden_size: int | None = None
    """Width of the student: the dimensions and heads of the teacher that do most are kept; without it, all are."""
    intermediate_size: int | None = None
    """Feed-forward units of each layer of the student, likewise."""
    trim_vocabulary: bool = False
    """Keep only the tokens that the training texts need; half of a MiniLM is its token table."""
    objective: Literal["soft_targets", "hidden_states", "attention_relations"] = "soft_targets"
    """What the student learns of the teacher: its answers, or beside them what its layers make of each token, or how
    tokens relate to each other in its last one; both of these have it run along."""
    layer_weight: float = 1.0
    """Weight of the hidden states or relations beside the rest of the loss; ≥ 0."""
    num_relation_heads: int = 12
    """Heads between which the relations of tokens are compared; a divisor of both widths."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "hidden_size", "intermediate_size"):
            require((value := getattr(self, name)) is None or value > 0, name, "> 0", value)
        if self.kept_layers and self.num_layers is not None:
            raise InputError("layers to keep are named by --kept-layers or spaced by --num-layers: give one of both")
        require(self.layer_weight >= 0, "layer_weight", ">= 0", self.layer_weight)

    @property
    def layers(self) -> int | tuple[int, ...]:
        """To keep, as `students.keep_layers` takes them."""
        return self.kept_layers or self.num_layers or NUM_LAYERS


@dataclass(frozen=True)
class Maker:
    """How a student is made of a model: of the teacher for itself, of the base model for its controls."""

    make: Callable[[TextModel, Split, Compute, str], Student]
    """Of a model, the texts to learn on, how models run, and what its phases' names begin with."""
    phases: tuple[str, ...] = ()
    """That `make` adds to the run."""
    objective: Callable[[training.LossFn, Student, TextModel, Compute], training.LossFn] = lambda loss_fn, *_: loss_fn
    """What is learned, of a loss on the answers, the student and the teacher; the loss itself by default."""
    as_used: Callable[[Student], Any] = lambda student: student
    """A trained student as it is saved and used."""


def smoke(config: Any) -> Any:
    """The same config for a few steps on a thousand texts."""
    few = {name: replace(getattr(config, name), max_steps=2, num_evaluations=1) for name in ("teacher_train", "train")}
    return replace(config, max_train=1000, **few)


def split_options(config: Config) -> dict[str, Any]:
    """What every loader in `data` takes of a config."""
    return {
        "config": config.dataset_config,
        "train_split": config.train_split,
        "validation_split": config.validation_split,
        "test_split": config.test_split,
        "split_seed": config.split_seed,
        "drop_overlap": config.drop_overlap,
        "drop_bad_texts": config.drop_bad_texts,
        "max_train": config.max_train,
    }


@dataclass(frozen=True)
class Lesson:
    """What there is before a student is made: data, models, how they run, and what is to be learned."""

    splits: Splits
    """Cut into the base model's tokens."""
    base: TextModel
    """The teacher as it was fetched."""
    fetched: sources.ModelFiles
    is_tuned: bool
    """Whether it was fine-tuned for these labels by others."""
    compute: Compute
    baselines: Mapping[str, Any]
    """By role; each is a phase of that name."""
    hard_loss: training.LossFn
    """Of the labels."""
    soft_loss: training.LossFn
    """Of the teacher's answers and the labels."""
    validate: training.Validate


def prepare(run: Run, config: Config, task: Task, splits: Splits, *, teacher_name: str) -> Lesson:
    """Models with their licences checked, how they run, baselines, and losses.

    Args: As `distil_classifier`.
    """
    run.add_source(splits.source)
    run.say(teachers.require_space(task.num_signal_rows(splits.train), len(task.outputs(splits)), run.folder))
    base, fetched, is_tuned = task.load_model(
        teacher_name, task.outputs(splits), max_length=config.max_length, seed=config.teacher_seed
    )
    run.add_source(fetched.source)
    if not is_tuned:
        task.begin(base, splits.train)
    splits = splits.tokenize(base.tokenizer, max_length=base.max_length)
    compute = run.phase("setup", models.choose_compute, model=base, tokens=splits.train.tokens, **run.compute)
    num_classes = len(splits.label_names)
    baselines = {
        role: run.phase(role, fit, splits.train, num_classes=num_classes) for role, fit in task.baselines.items()
    }
    hard_loss, soft_loss = losses_of(task, config)
    return Lesson(
        splits, base, fetched, is_tuned, compute, baselines, hard_loss, soft_loss, validation_of(task, splits, compute)
    )


def losses_of(task: Task, config: Config) -> tuple[training.LossFn, training.LossFn]:
    """What a student learns from labels alone, and from them and the teacher."""
    of_labels, of_teacher, logits_of = task.hard_loss, task.soft_loss, task.logits

    def hard_loss(model: Model, batch: Batch) -> Tensor:
        return of_labels(logits_of(model, batch), batch.labels)

    def soft_loss(model: Model, batch: Batch) -> Tensor:
        logits = logits_of(model, batch)
        soft = of_teacher(logits, batch.teacher, temperature=config.temperature)
        return config.soft_weight * soft + (1 - config.soft_weight) * of_labels(logits, batch.labels)

    return hard_loss, soft_loss


def validation_of(task: Task, splits: Splits, compute: Compute) -> training.Validate:
    """The task's metric of a model on validation."""
    metric, measure = task.metric, task.validate

    def validate(model: TextModel) -> dict[str, float]:
        return {metric: measure(model, splits, compute=compute)}

    return validate


def teach(run: Run, config: Config, lesson: Lesson) -> tuple[TextModel, teachers.Signals]:
    """The teacher, fine-tuned once, and its logits, stored once; other runs find both in the cache."""
    teacher, splits, compute = lesson.base, lesson.splits, lesson.compute
    if not lesson.is_tuned:
        teacher = run.phase(
            "teacher",
            teachers.fine_tune,
            lesson.base.copy(),
            splits.train,
            lesson.hard_loss,
            config.teacher_train,
            seed=config.teacher_seed,
            validation=splits.validation,
            validate=lesson.validate,
            compute=compute,
        )
    return teacher, run.phase("cache", teachers.store_signals, teacher, splits.train, compute=compute)


def in_tokens_of(student: TextModel, teacher: TextModel, splits: Splits) -> Splits:
    """Splits for a student that may have tokens of its own; the teacher's rows stay with their texts."""
    if student.tokenizer is teacher.tokenizer:
        return splits
    return splits.tokenize(student.tokenizer, max_length=student.max_length)


def distil_classifier(
    run: Run,
    config: Config,
    task: Task,
    splits: Splits,
    maker: Maker,
    *,
    teacher_name: str,
    noun: str,
) -> Distilled:
    """Fine-tune a teacher if need be, store its signal, distil, and compare with what is cheaper.

    Args:
        run: Has the phase `data` behind it.
        config: Of the recipe.
        task: What kind of labels the splits have.
        splits: Not tokenised.
        maker: How the student is made.
        teacher_name: As `run.pin` gave it.
        noun: What the student is, for the title: `3-layer text classifier`.
    """
    # 1. Models: licences checked, and what cannot be had refused before anything is paid
    lesson = prepare(run, config, task, splits, teacher_name=teacher_name)
    splits, base, compute, baselines = lesson.splits, lesson.base, lesson.compute, lesson.baselines
    hard_loss, soft_loss = lesson.hard_loss, lesson.soft_loss
    is_tuned, fetched = lesson.is_tuned, lesson.fetched
    small_base = maker.make(base, splits.train, compute, "base_")
    maker.objective(soft_loss, small_base, base, compute)  # refuses what does not fit, before the teacher is paid

    # 2. Teacher: fine-tuned once, and its logits stored once
    teacher, signals = teach(run, config, lesson)
    reached = teacher_on_validation(run, teacher, lesson.validate)

    # 3. Student, and the same student without a teacher at equal cost
    untrained = maker.make(teacher, splits.train, compute, "")
    splits = in_tokens_of(untrained, teacher, replace(splits, train=splits.train.with_signals(signals)))
    loss_fn = maker.objective(soft_loss, untrained, teacher, compute)
    tuning = () if is_tuned else ("teacher",)
    student, controls = train_with_controls(
        run,
        Training(untrained, splits.train, loss_fn, config.train),
        Training(small_base, splits.train, hard_loss, config.train),
        tuning=tuning,
        full_cost=config.full_cost_control,
        probe="probe_live" if loss_fn is not soft_loss else None,  # no phase has steps without the teacher yet
        seed=config.seed,
        validate=validation_of(task, splits, compute),
        compute=compute,
    )

    # 4. The test split is read here, once
    of_control = tuple(f"base_{phase}" for phase in maker.phases)
    contenders = {
        "teacher": Contender(teacher, built_by=tuning),
        "student": Contender(maker.as_used(student), built_by=(*maker.phases, "cache", "train"), teacher_phases=tuning),
        "untrained_student": Contender(maker.as_used(untrained), built_by=maker.phases, teacher_phases=tuning),
        **{role: Contender(maker.as_used(m), built_by=(*of_control, role)) for role, m in controls.items()},
        **{role: Contender(model, built_by=(role,)) for role, model in baselines.items()},
    }
    return compare_classifiers(
        run,
        task,
        splits,
        contenders,
        student,
        title=f"{noun} for {splits.source.name}, distilled from {fetched.source.name}",
        margin=config.margin,
        reached=reached,
        compute=compute,
    )


def distil_layers(
    run: Run, config: LayersConfig, task: Task, splits: Splits, *, teacher_name: str, noun: str
) -> Distilled:
    """`distil_classifier` with a student that is made of the teacher's layers.

    Args: As there; noun without the number of layers.
    """
    noun = f"{len(config.kept_layers) or config.layers}-layer {noun}"
    return distil_classifier(run, config, task, splits, layers_maker(run, config), teacher_name=teacher_name, noun=noun)


def layers_maker(run: Run, config: LayersConfig) -> Maker:
    """Students of a model's layers, as the config asks for them."""
    is_narrow = config.hidden_size is not None or config.intermediate_size is not None
    return Maker(
        make=partial(_of_layers, run, config, is_narrow),
        phases=("importance",) if is_narrow else (),
        objective=partial(_objective, config),
    )


def static_maker(
    run: Run,
    label_names: Sequence[str],
    *,
    dimensions: int = STATIC_DIMENSIONS,
    head_size: int | None = None,
    trim_vocabulary: bool = True,
    seed: int = 0,
) -> Maker:
    """Students with one vector per token: the teacher's of each token alone, its main directions, and a head.

    Args:
        run: Gets the phase `vectors`.
        label_names: Of the classes.
        dimensions: Of a vector; at most the teacher's width.
        head_size: Width of a hidden layer between embedding and labels; without it, one linear layer.
        trim_vocabulary: Keep only the tokens that the training texts need, and those that others fall back on.
        seed: Of the head.
    """

    def make(model: TextModel, train: Split, compute: Compute, prefix: str) -> Student:
        small = students.trim_vocabulary(model, train.whole_texts) if trim_vocabulary else model
        vectors = run.phase(f"{prefix}vectors", students.token_vectors, small, compute=compute)
        centred = vectors - vectors.mean(0)
        vectors = centred @ students.principal_axes(centred, dimensions)
        embedder = students.static_embedder(small, vectors, texts=train.whole_texts)
        student = students.add_classifier(embedder, label_names, hidden_size=head_size, seed=seed)
        if prefix:  # once is enough
            say_change(run, model, student)
        return student

    def as_used(student: Student) -> StaticModel:
        return models.to_numpy(student).in_fp16()

    return Maker(make, phases=("vectors",), as_used=as_used)


def _of_layers(
    run: Run, config: LayersConfig, is_narrow: bool, model: TextModel, train: Split, compute: Compute, prefix: str
) -> Student:
    """The student that the config asks for, of the weights of a model."""
    student = students.keep_layers(model, config.layers)
    if is_narrow:
        texts = train.whole_texts
        importance = run.phase(f"{prefix}importance", students.measure_importance, student, texts, compute=compute)
        student = students.narrow(
            student, importance, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size
        )
    if config.trim_vocabulary:
        student = students.trim_vocabulary(student, train.whole_texts)
    if prefix:  # once is enough
        say_change(run, model, student)
    return student


def _objective(
    config: LayersConfig, loss_fn: training.LossFn, student: Student, teacher: TextModel, compute: Compute
) -> training.LossFn:
    """The loss, or one with the teacher's layers beside it."""
    if config.objective == "soft_targets":
        return loss_fn
    alike: dict[str, Any] = {"weight": config.layer_weight, "compute": compute}
    if config.objective == "hidden_states":
        return teachers.HiddenStatesLoss(loss_fn, student, teacher.copy(), seed=config.seed, **alike)
    heads = config.num_relation_heads
    return teachers.AttentionRelationsLoss(loss_fn, student, teacher.copy(), num_relation_heads=heads, **alike)
