"""Make a classifier of a few labelled texts: an embedder is tuned on them, gets a head, and teaches a student the rest.

Source: Tunstall et al. 2022, arXiv:2209.11055 (SetFit), for the teacher.
"""

from dataclasses import dataclass
from typing import Any

from smallmodels import data, models, students, tasks, teachers
from smallmodels.data import Split, Splits
from smallmodels.distilling.classifiers import Config, losses_of, split_options
from smallmodels.distilling.controls import Training, train_with_controls
from smallmodels.distilling.outcome import Distilled, compare_classifiers, say_change
from smallmodels.errors import flags_named
from smallmodels.evaluation import Contender
from smallmodels.models import Compute, TextModel
from smallmodels.runs import Run
from smallmodels.students import Student
from smallmodels.training import LossFn

_OF_TEACHER = ("teacher", "head")


def load_shots(
    run: Run,
    config: Config,
    num_shots: int,
    *,
    dataset_name: str,
    unlabelled_name: str | None,
    text_column: str | None,
    label_column: str | None,
) -> tuple[Splits, Split]:
    """The phases `data` and, where there are more texts, `unlabelled`, and the draw of the texts that keep their label.

    Args:
        run: Notes where all came from.
        config: Of the recipe; its `max_train` is of the texts without labels.
        num_shots: Labelled texts of each class.
        dataset_name: Texts with labels, as `run.pin` gave it.
        unlabelled_name: More texts, likewise; None is none.
        text_column: Of both; None is the first of the usual names.
        label_column: Likewise.

    Returns: As `data.draw_shots`.
    """
    options = {**split_options(config), "max_train": None}
    columns = {"text_column": text_column, "label_column": label_column}
    splits = run.phase("data", data.load_text_classification, dataset_name, **columns, **options)
    more: list[Split] = []
    if unlabelled_name is not None:
        column = text_column or splits.notes["text_column_guessed"]
        more = [_load_unlabelled(run, config, unlabelled_name, column, splits.test)]
    splits, unlabelled = data.draw_shots(
        splits, num_shots, more=more, split_seed=config.split_seed, max_unlabelled=config.max_train
    )
    run.add_source(splits.source)
    return splits, unlabelled


def _load_unlabelled(run: Run, config: Config, name: str, text_column: str, test: Split) -> Split:
    """Every text of a local file, or of the train split on the hub, once; those that test has too are counted."""
    with (
        flags_named({"--dataset-config": None, "--train-split": None}, "choose another --unlabelled"),
        flags_named({"--text-columns": None}, "name its column of texts like that of --dataset"),
    ):
        found = run.phase(
            "unlabelled",
            data.load_sentences,
            name,
            text_columns=(text_column,),
            held_out=test.texts,
            drop_overlap=config.drop_overlap,
            drop_bad_texts=config.drop_bad_texts,
        )
    run.add_source(found.source)
    return found.train


def distil_shots(
    run: Run,
    config: Config,
    splits: Splits,
    unlabelled: Split,
    contrast: LossFn,
    soft_loss: LossFn,
    *,
    teacher_name: str,
    num_layers: int,
    trim_vocabulary: bool,
) -> Distilled:
    """Tune a teacher on the labels, let it label all other texts, distil, and compare with what is cheaper.

    Args:
        run: Has the phase `data` behind it.
        config: Of the recipe.
        splits: As `load_shots` gave them.
        unlabelled: Likewise.
        contrast: What the embedder learns of labelled texts.
        soft_loss: What the student learns of all texts, of which those without a label have `data.NO_LABEL`.
        teacher_name: As `run.pin` gave it.
        num_layers: Of the teacher, that the student keeps.
        trim_vocabulary: Whether it keeps only the tokens that the texts need.
    """
    # 1. Models: licences checked, and what cannot be had refused before anything is paid
    num_classes, everything = len(splits.label_names), splits.train.join(unlabelled)
    run.say(teachers.require_space(len(everything), num_classes, run.folder))
    embedder, fetched = models.load_embedder(teacher_name, max_length=config.max_length)
    run.add_source(fetched.source)
    base, _, _ = models.load_classifier(
        teacher_name, splits.label_names, max_length=config.max_length, seed=config.seed
    )

    def smaller(model: TextModel) -> Student:
        student = students.keep_layers(model, num_layers)
        return students.trim_vocabulary(student, everything.texts) if trim_vocabulary else student

    small_base = smaller(base)
    say_change(run, base, small_base)
    splits = splits.tokenize(embedder.tokenizer, max_length=embedder.max_length)
    everything = everything.tokenize(embedder.tokenizer, max_length=embedder.max_length)
    compute = run.phase("setup", models.choose_compute, model=base, tokens=everything.tokens, **run.compute)
    baselines = {
        role: run.phase(role, fit, splits.train, num_classes=num_classes)
        for role, fit in tasks.CLASSES.baselines.items()
    }

    # 2. Teacher, and what it says of all texts
    tuned = _tune(run, config, embedder, splits.train, contrast, num_classes=num_classes, compute=compute)
    everything = everything.with_signals(
        run.phase("cache", teachers.store_signals, tuned.teacher, everything, compute=compute)
    )

    # 3. Student, and the same student on the labels alone at equal cost
    untrained, shots = smaller(students.with_encoder_of(base, tuned.embedder)), splits.train
    if trim_vocabulary:  # the student's own tokens; the teacher's rows stay with their texts
        everything, shots = (
            split.tokenize(untrained.tokenizer, max_length=untrained.max_length) for split in (everything, shots)
        )
    hard_loss, _ = losses_of(tasks.CLASSES, config)
    student, controls = train_with_controls(
        run,
        Training(untrained, everything, soft_loss, config.train),
        Training(small_base, shots, hard_loss, config.train),
        tuning=_OF_TEACHER,
        full_cost=config.full_cost_control,
        probe="probe_soft",  # a step on the labels has other texts, and fewer where the classes are few
        seed=config.seed,
        compute=compute,
    )

    # 4. The test split is read here, once
    contenders = {
        "teacher": Contender(tuned.teacher, built_by=_OF_TEACHER),
        "untuned_teacher": Contender(tuned.untuned_teacher, built_by=("untuned_head",)),
        "student": Contender(student, built_by=("cache", "train"), teacher_phases=_OF_TEACHER),
        "untrained_student": Contender(untrained, teacher_phases=_OF_TEACHER),
        **{role: Contender(model, built_by=(role,)) for role, model in controls.items()},
        **{role: Contender(model, built_by=(role,)) for role, model in baselines.items()},
    }
    return compare_classifiers(
        run,
        tasks.CLASSES,
        splits,
        contenders,
        student,
        title=f"{num_layers}-layer text classifier for {splits.source.name}, distilled from {fetched.source.name}",
        margin=config.margin,
        reached=None,  # nothing is validated
        compute=compute,
    )


@dataclass(frozen=True)
class _Tuned:
    """An embedder, and classifiers of what it and the one before it give."""

    embedder: TextModel
    teacher: TextModel
    untuned_teacher: TextModel


def _tune(
    run: Run,
    config: Config,
    embedder: TextModel,
    shots: Split,
    contrast: LossFn,
    *,
    num_classes: int,
    compute: Compute,
) -> _Tuned:
    """An embedder learns which labelled texts belong together, and a linear head to tell classes apart."""
    tuned = run.phase(
        "teacher",
        teachers.fine_tune,
        embedder.copy(),
        shots,
        contrast,
        config.teacher_train,
        seed=config.teacher_seed,
        plan=data.plan_by_class,
        compute=compute,
    )
    of_head: dict[str, Any] = {"num_classes": num_classes, "compute": compute}
    head = run.phase("head", teachers.fit_head, tuned, shots, **of_head)
    untuned_head = run.phase("untuned_head", teachers.fit_head, embedder, shots, **of_head)
    return _Tuned(tuned, teachers.with_head(tuned, head), teachers.with_head(embedder, untuned_head))
