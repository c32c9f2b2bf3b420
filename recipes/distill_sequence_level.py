"""Distil a language model by what it writes: the teacher answers, a filter keeps what is right, a student learns it.

Source:    Kim and Rush 2016, arXiv:1606.07947, section 3.2; the filter: Zelikman et al. 2022, arXiv:2203.14465.
Run:       smallmodels run distill_sequence_level
Expected:  as many right answers as the teacher's own allow; how many were written, kept and used is in the record.
           There the same student on the answers of the data set, at equal cost, is better: where right answers are
           at hand, learn from these.
Measured:  arithmetic.csv: exact match 43.2 % (teacher 67.6 %, labels alone 54.8 %), one seed, flags as in its record; 5
           min 01 s and 560 CPU-s on AMD EPYC, 2 cores, bf16.
Licences:  GSM8K is MIT, SmolLM2 Apache-2.0; a student inherits its teacher's.
"""

from dataclasses import dataclass, replace
from typing import Any

from smallmodels import (
    cli,
    data,
    distilling,
    generation,
    losses,
    models,
    perplexity,
    rounds,
    students,
    teachers,
    training,
)
from smallmodels.errors import InputError, require
from smallmodels.evaluation import Contender
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the teacher is asked, and who learns from its answers."""

    dataset: str = "openai/gsm8k"
    """Hub id (`org/name@revision` pins it), or a local CSV, JSON Lines or Parquet file."""
    dataset_config: str | None = "main"
    """Configuration of a hub data set that has several; the default goes with the default data set alone."""
    prompt_column: str = "question"
    """Column with what the teacher is asked."""
    completion_column: str = "answer"
    """Column with the right answer: its number after `####`, or where it has none its words; the student that it is
    compared with learns it."""
    train_split: str = "train"
    """Split whose prompts the teacher answers."""
    validation_split: str | None = None
    """Split to choose on; a tenth of train if there is none."""
    test_split: str = "test"
    """Split that is read once, at the end; a tenth of train if there is none."""
    drop_overlap: bool = True
    """Drop training prompts that also stand in validation or test."""
    drop_bad_texts: bool = False
    """Leave out rows whose text is empty, null or a megabyte long, instead of refusing the data."""
    max_train: int | None = 2000
    """Ask the teacher so many prompts only."""
    max_test: int | None = 200
    """Validate and test on so many examples only, because each is answered; None takes all."""
    teacher: str = "HuggingFaceTB/SmolLM2-360M-Instruct"
    """Causal language model that answers, from the hub or a local folder."""
    student: str | None = None
    """Causal language model to train, which may have another tokenizer; without it, one is made of the teacher."""
    hidden_size: int | None = None
    """Width of a new student with random weights; without it, the student keeps layers of the teacher."""
    num_layers: int | None = None
    """Layers of a student that is made; without it, half of the teacher's."""
    num_heads: int = 4
    """Heads of attention of a new student."""
    template: data.Template = "chat"
    """`chat`: the model's own form of a dialogue; `plain`: prompt, line break, completion."""
    keep_wrong: bool = False
    """Learn from wrong answers too: what the filter is worth shows beside it."""
    max_length: int = 384
    """Tokens after which an example is cut."""
    max_new_tokens: int = 256
    """Longest answer."""
    seed: int = 0
    """Of a new student's weights and of the training."""
    split_seed: int = 0
    """Of the examples that are held out."""
    train: TrainConfig = TrainConfig(learning_rate=5e-4, num_epochs=3, batch_size=16)

    def __post_init__(self) -> None:
        if self.student is not None:
            for name in ("hidden_size", "num_layers"):
                require(getattr(self, name) is None, name, "left out where a student is named", getattr(self, name))
        require(self.num_layers is None or self.num_layers > 0, "num_layers", "> 0", self.num_layers)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.max_new_tokens > 0, "max_new_tokens", "> 0", self.max_new_tokens)


METRICS = ("exact_match", "perplexity", "next_token_accuracy", "kl_from_teacher")
SMOKE = replace(
    Config(),
    max_train=16,
    max_test=4,
    max_new_tokens=8,
    keep_wrong=True,
    train=replace(Config().train, max_steps=2, num_evaluations=1),
)


def main(config: Config, run: Run) -> None:
    """Let the teacher write, keep what is right, and train the student on it."""
    # 1. Prompts and models
    names = [config.teacher] if config.student is None else [config.teacher, config.student]
    dataset_name, teacher_name, *student_name = run.pin((config.dataset, "dataset"), *((n, "model") for n in names))
    splits = run.phase(
        "data",
        data.load_texts,
        dataset_name,
        config=config.dataset_config,
        text_columns=(config.prompt_column,),
        completion_column=config.completion_column,
        train_split=config.train_split,
        validation_split=config.validation_split,
        test_split=config.test_split,
        split_seed=config.split_seed,
        drop_overlap=config.drop_overlap,
        drop_bad_texts=config.drop_bad_texts,
        max_train=config.max_train,
        max_test=config.max_test,
    )
    run.add_source(splits.source)
    teacher, fetched = models.load_language_model(teacher_name, max_length=config.max_length)
    run.add_source(fetched.source)
    if student_name:
        untrained, own = models.load_language_model(student_name[0], max_length=config.max_length, role="base_model")
        run.add_source(own.source)
    else:
        untrained = students.smaller_language_model(
            teacher,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            seed=config.seed,
        )

    writing: dict[str, Any] = {"template": config.template, "max_length": untrained.max_length}
    rightful = distilling.cut_answers(run, splits, untrained.tokenizer, **writing)
    room: dict[str, Any] = {"template": config.template, "max_new_tokens": config.max_new_tokens}
    generation.require_room([teacher], [*splits.train.texts, *splits.test.texts], **room)
    generation.require_room([untrained], splits.test.texts, **room)
    compute = run.phase(
        "setup",
        models.choose_compute,
        model=untrained,
        tokens=rightful.validation.tokens,
        batch_size=config.train.batch_size,
        **run.compute,
    )

    # 2. What the teacher writes, and what of it is right
    written = run.phase(
        "write",
        teachers.write_answers,
        teacher,
        splits.train.texts[:],
        template=config.template,
        max_new_tokens=config.max_new_tokens,
        compute=compute,
    )
    told = replace(splits.train, completions=written.texts)
    right = generation.right_answers(written.texts, splits.train.completions or ())
    kept = [i for i, text in enumerate(written.texts) if text.strip() and (config.keep_wrong or right[i])]
    if not kept:
        raise InputError(
            f"the teacher should answer some of {len(right)} prompts rightly, but did not: choose another teacher, "
            "a longer --max-new-tokens, or --keep-wrong"
        )
    rows = data.cut_completions(told.take(kept), untrained.tokenizer, **writing)
    run.event(
        "answers",
        f"the teacher wrote {len(right)} answers, {sum(right)} of them right; {len(kept)} were kept, {len(rows)} used",
        num_written=len(right),
        num_right=sum(right),
        num_kept=len(kept),
        num_used=len(rows),
        num_cut=distilling.num_cut(rows, untrained.tokenizer),
        num_written_tokens=sum(written.num_new_tokens),
        num_kept_tokens=sum(written.num_new_tokens[i] for i in kept),
        num_used_tokens=rounds.num_targets(rows),
    )

    # 3. The student, and the same one on the data set's own answers at equal cost
    validate = perplexity.validation_of_rows(rightful.validation, compute=compute)
    how: dict[str, Any] = {"seed": config.seed, "validate": validate, "compute": compute}
    student = run.phase("train", training.fit, untrained.copy(), rows, losses.next_token_loss, config.train, **how)

    def first_guess() -> int:
        length, own_length = (float(part.require_tokens().lengths.mean()) for part in (rows, rightful.train))
        ratio = run.cost_ratio(["write", "train"], to=["train"]) * length / own_length  # a longer row costs more
        return training.steps_at_cost(student, ratio=ratio)

    learning = distilling.Training(untrained, rightful.train, losses.next_token_loss, config.train)
    controls = distilling.train_control(run, "label_only", ["write", "train"], learning, first_guess, **how)

    # 4. The test split is read here, once
    contenders = {
        "teacher": Contender(teacher),
        "student": Contender(student, built_by=("write", "train")),
        **{role: Contender(model, built_by=(role,)) for role, model in controls.items()},
        "untrained_student": Contender(untrained),
    }
    compared = distilling.compare_answers(
        run,
        contenders,
        splits,
        rightful.test,
        template=config.template,
        max_new_tokens=config.max_new_tokens,
        compute=compute,
    )
    described = models.describe(student, compute)
    run.finish(
        student,
        title=f"{described['num_layers']}-layer language model, taught by the answers of {fetched.source.name} "
        f"to {splits.source.name}",
        curve=training.curve(student),
        curve_of="perplexity",
        model={**described, "template": config.template},
        **compared,
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
