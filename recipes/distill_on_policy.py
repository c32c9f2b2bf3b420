"""Distil a language model on what the student writes itself, round by round: the teacher scores each of its tokens.

Source:    generalised knowledge distillation (GKD): Agarwal et al. 2023, arXiv:2306.13649, algorithm 1.
Run:       smallmodels run distill_on_policy
Expected:  a student nearer to its teacher on its own answers; what was generated, used and repeated is in the record.
           There the same student on the right answers, at equal cost, is better: compare both on your data.
Measured:  arithmetic.csv: exact match 54.0 % (teacher 67.6 %, labels alone 92.4 %), one seed, flags as in its record; 5
           min 50 s and 633 CPU-s on AMD EPYC, 2 cores, bf16.
Licences:  GSM8K is MIT, SmolLM2 Apache-2.0; a student inherits its teacher's.

In each round `generate_N` lets the student answer prompts, `cache_N` stores what the teacher says about their tokens,
`replay_N` chooses rows of earlier rounds to be repeated, and `train_N` goes on with the student of the round before, a
new optimizer, and a learning rate that rises and falls once. The share of repeated rows adapts: it is the student's
divergence on earlier rows over the sum of its divergences on earlier and on new ones, up to a largest share.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor

from smallmodels import (
    cli,
    data,
    distilling,
    generation,
    losses,
    models,
    perplexity,
    rounds,
    sources,
    students,
    teachers,
    training,
)
from smallmodels.data import Batch
from smallmodels.errors import InputError, require
from smallmodels.evaluation import Contender
from smallmodels.losses import TopK
from smallmodels.models import LanguageModel, TextModel
from smallmodels.records import CurvePoint
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the student is asked, who scores it, and for how many rounds."""

    dataset: str = "openai/gsm8k"
    """Hub id (`org/name@revision` pins it), or a local CSV, JSON Lines or Parquet file."""
    dataset_config: str | None = "main"
    """Configuration of a hub data set that has several; the default goes with the default data set alone."""
    prompt_column: str = "question"
    """Column with what the student is asked."""
    completion_column: str = "answer"
    """Column with the right answer: its number after `####`, or where it has none its words."""
    train_split: str = "train"
    """Split whose prompts the student answers."""
    validation_split: str | None = None
    """Split to choose on; a tenth of train if there is none."""
    test_split: str = "test"
    """Split that is read once, at the end; a tenth of train if there is none."""
    drop_overlap: bool = True
    """Drop training prompts that also stand in validation or test."""
    drop_bad_texts: bool = False
    """Leave out rows whose text is empty, null or a megabyte long, instead of refusing the data."""
    max_train: int | None = None
    """Take prompts from so many examples only."""
    max_test: int | None = 200
    """Validate and test on so many examples only, because each is answered; None takes all."""
    teacher: str = "HuggingFaceTB/SmolLM2-360M-Instruct"
    """Causal language model that scores, from the hub or a local folder."""
    student: str | None = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Causal language model with the teacher's tokenizer that can answer already; None keeps layers of the teacher."""
    num_layers: int | None = None
    """Layers of a student that is made of the teacher; without it, half of the teacher's."""
    template: data.Template = "chat"
    """`chat`: the model's own form of a dialogue; `plain`: prompt, line break, completion."""
    num_rounds: int = 4
    """How often the student writes and learns."""
    prompts_per_round: int = 500
    """Prompts of a round; the next round takes the next ones."""
    on_policy_share: float = 1.0
    """Share of the prompts that the student answers, in [0, 1]; the others keep the right answer of the data set."""
    max_replay_share: float = 0.5
    """Largest share of earlier rounds in a round's rows, in [0, 1); 0 repeats nothing."""
    sampling_temperature: float = 1.0
    """Of the student's draws; 0 takes the most likely token each time."""
    max_length: int = 384
    """Tokens after which an example is cut."""
    max_new_tokens: int = 256
    """Longest answer."""
    k: int = 32
    """Most likely tokens of the teacher that are kept for each place."""
    objective: Literal["jensen_shannon", "kl", "reverse_kl"] = "jensen_shannon"
    """Divergence from the teacher."""
    beta: float = 0.5
    """Weight of the teacher in the mixture of `jensen_shannon`, in (0, 1)."""
    temperature: float = 1.0
    """Softens both distributions in the loss; > 0, and 1 leaves them as they are."""
    seed: int = 0
    """Of prompts, samples and training."""
    split_seed: int = 0
    """Of the examples that are held out."""
    train: TrainConfig = TrainConfig(learning_rate=5e-5, num_epochs=1, batch_size=16, num_evaluations=2)

    def __post_init__(self) -> None:
        if self.student is not None:
            require(self.num_layers is None, "num_layers", "left out where a student is named", self.num_layers)
        require(self.num_layers is None or self.num_layers > 0, "num_layers", "> 0", self.num_layers)
        for name in ("num_rounds", "prompts_per_round", "max_new_tokens", "k", "temperature"):
            require(getattr(self, name) > 0, name, "> 0", getattr(self, name))
        require(0 < self.beta < 1, "beta", "in (0, 1)", self.beta)
        require(0 <= self.on_policy_share <= 1, "on_policy_share", "in [0, 1]", self.on_policy_share)
        require(0 <= self.max_replay_share < 1, "max_replay_share", "in [0, 1)", self.max_replay_share)
        require(self.sampling_temperature >= 0, "sampling_temperature", ">= 0", self.sampling_temperature)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)


METRICS = ("exact_match", "perplexity", "next_token_accuracy", "kl_from_teacher")
SMOKE = replace(
    Config(),
    max_train=16,
    max_test=4,
    student=None,
    num_rounds=2,
    prompts_per_round=8,
    max_new_tokens=8,
    k=8,
    train=replace(Config().train, max_steps=2, num_evaluations=1),
)


def main(config: Config, run: Run) -> None:
    """Let the student write, the teacher score it, and the student learn from that, in rounds."""
    # 1. Prompts and models
    names: list[tuple[str, sources.Kind]] = [(config.dataset, "dataset"), (config.teacher, "model")]
    if config.student is not None:
        names.append((config.student, "model"))
    dataset_name, teacher_name, *student_name = run.pin(*names)
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
    if not student_name:
        untrained = students.smaller_language_model(teacher, num_layers=config.num_layers)
    else:
        untrained, found = models.load_language_model(student_name[0], max_length=config.max_length, role="base_model")
        run.add_source(found.source)
        if not data.cuts_alike(untrained.tokenizer, teacher.tokenizer):
            raise InputError(
                f"{found.source.name} should cut texts as {fetched.source.name} does, which scores its tokens, but "
                "does not: choose a student of the teacher's family, --student None to keep layers of the teacher, or "
                "distill_language_model --objective universal_logit_distance or distill_sequence_level, which take "
                "any tokenizer"
            )
    writing: dict[str, Any] = {
        "template": config.template,
        "max_length": min(teacher.max_length, untrained.max_length),
    }
    own = distilling.cut_answers(run, splits, untrained.tokenizer, **writing)
    room: dict[str, Any] = {"template": config.template, "max_new_tokens": config.max_new_tokens}
    generation.require_room([teacher], splits.test.texts, **room)
    asked = splits.train.texts if config.on_policy_share > 0 else ()
    generation.require_room([untrained], [*asked, *splits.test.texts], **room)
    compute = run.phase(
        "setup",
        models.choose_compute,
        model=untrained,
        tokens=own.validation.tokens,
        batch_size=config.train.batch_size,
        **run.compute,
    )
    num_classes = min(models.vocabulary_size(model) for model in (teacher, untrained))  # one may have spare rows
    packing = teachers.Packing(config.k, (config.temperature,), num_classes)

    # 2. The loss, on what the teacher said about each token that the student wrote
    weights: dict[str, Any] = {"beta": config.beta} if config.objective == "jensen_shannon" else {}
    objective = partial(losses.DIVERGENCES[config.objective], **weights)

    def divergence(model: LanguageModel, states: Tensor, told: TopK) -> Tensor:
        def of_chunk(logits: Tensor, chunk: slice) -> Tensor:
            return losses.top_k_divergence(logits, told[chunk], objective, temperature=config.temperature)

        return losses.by_chunks(states, model.output_layer.cut(num_classes), of_chunk)

    def loss_fn(model: LanguageModel, batch: Batch) -> Tensor:
        states, _ = losses.next_tokens(model(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        return divergence(model, states, batch.teacher_top_k)

    def scored(phase: str, rows: data.Split) -> data.Split:
        teachers.require_space_for_tokens(rows, packing, run.folder)
        signals = run.phase(phase, teachers.store_token_signals, teacher, rows, packing=packing, compute=compute)
        return rows.with_signals(signals)

    held_out = scored("cache", own.validation)

    def validate(model: TextModel) -> dict[str, float]:
        return {"minus_divergence": -rounds.mean_divergence(model, held_out, divergence, compute=compute)}

    # 3. Rounds
    student, best, earlier, phases = untrained, untrained, None, ["cache"]
    curve: list[CurvePoint] = []
    num_steps = 0
    totals = dict.fromkeys(("num_generated_tokens", "num_used_tokens", "num_replayed_tokens"), 0)
    for number in range(config.num_rounds):
        if number and not run.affords(f"generate_{number}"):
            break
        seed = rounds.seed_of(config.seed, number)
        written = run.phase(
            f"generate_{number}",
            rounds.write,
            student,
            rounds.prompts_of(splits.train, number, size=config.prompts_per_round, seed=config.seed),
            on_policy_share=config.on_policy_share,
            max_new_tokens=config.max_new_tokens,
            temperature=config.sampling_temperature,
            num_classes=num_classes,
            seed=seed,
            compute=compute,
            **writing,
        )
        new = rows = scored(f"cache_{number}", written.rows)
        totals["num_generated_tokens"] += written.num_generated_tokens
        totals["num_used_tokens"] += written.num_used_tokens
        phases += [f"generate_{number}", f"cache_{number}"]
        if earlier is not None:
            repeated = run.phase(
                f"replay_{number}",
                rounds.replay,
                student,
                new,
                earlier,
                divergence,
                at_most=config.max_replay_share,
                seed=seed,
                compute=compute,
            )
            rows = new.join(earlier.take(repeated.places))
            totals["num_replayed_tokens"] += repeated.num_tokens
            phases.append(f"replay_{number}")
        student = run.phase(
            f"train_{number}",
            training.fit,
            student.copy(),
            rows,
            loss_fn,
            config.train,
            seed=seed,
            validate=validate,
            compute=compute,
        )
        before = [run.paid_for(name) for name in phases[1:]]  # the first is what the validations are made with
        curve += training.curve(student, num_steps=num_steps, before=before)
        num_steps += student.notes["training"]["num_steps"]
        phases.append(f"train_{number}")
        earlier = new if earlier is None else earlier.join(new)
        best = max(best, student, key=training.best_value)
    student = best  # the last round is not always the best one, least of all one that a budget cut

    # 4. The same student on the data set's own answers, at equal cost
    controls: dict[str, TextModel] = {}
    how: dict[str, Any] = {"seed": config.seed, "compute": compute}
    if run.affords("label_only"):
        num_probed = run.phase(
            "probe_label_only", training.probe, untrained, own.train, losses.next_token_loss, config.train, **how
        )

        def first_guess() -> int:
            return max(1, round(num_probed * run.cost_ratio(phases, to=["probe_label_only"])))

        of_answers = perplexity.validation_of_rows(own.validation, compute=compute)
        learning = distilling.Training(untrained, own.train, losses.next_token_loss, config.train)
        controls = distilling.train_control(
            run, "label_only", phases, learning, first_guess, validate=of_answers, **how
        )

    # 5. The test split is read here, once
    contenders = {
        "teacher": Contender(teacher),
        "student": Contender(student, built_by=tuple(phases)),
        **{role: Contender(model, built_by=(role,)) for role, model in controls.items()},
        "untrained_student": Contender(untrained),
    }
    compared = distilling.compare_answers(
        run,
        contenders,
        splits,
        own.test,
        template=config.template,
        max_new_tokens=config.max_new_tokens,
        compute=compute,
    )
    run.finish(
        student,
        title=f"language model, taught by {fetched.source.name} on its own answers to {splits.source.name}",
        curve=curve,
        curve_of="divergence",
        model={**models.describe(student, compute), "template": config.template, **totals},
        **compared,
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
