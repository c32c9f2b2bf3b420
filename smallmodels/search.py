"""Which student is small enough and still good enough: candidates are tried inside a budget, and the best halves go on.

The teacher is tuned and asked once for all of them. What a use of a student costs follows from its shape, so it is
measured before any is trained; then each rung trains the candidates that are left for twice as many steps as the one
before, the last as the recipes do, and keeps those that no other beats in both quality on validation and cost of a use.

The budget is that of the run (see `limits`), and no rung is planned by it: because steps double, a search that it ends
has the best of shorter trainings, and goes on with a larger one as if it had never ended.

Source: successive halving: Jamieson and Talwalkar 2016, arXiv:1502.07943, algorithm 1.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from smallmodels import distilling, evaluation, models, records, training
from smallmodels.data import Splits
from smallmodels.distilling import Distilled, LayersConfig, Lesson, Maker
from smallmodels.errors import InputError
from smallmodels.evaluation import Contender
from smallmodels.models import TextModel
from smallmodels.report import fronts
from smallmodels.report.figures import Point
from smallmodels.runs import Run
from smallmodels.students import Student
from smallmodels.tasks import Task

SHARES = (0.25, 0.5, 1.0)
"""Of the steps that the recipes take, for each rung."""
_DEPTHS = (1 / 2, 1 / 3, 1 / 6)
"""Of the teacher's layers."""


@dataclass(frozen=True)
class Candidate:
    """A student worth trying."""

    name: str
    """Its role, and a part of the names of its phases."""
    maker: Maker
    config: distilling.Config
    """How it is trained."""


@dataclass
class Trained:
    """A candidate on its way."""

    candidate: Candidate
    untrained: Student
    splits: Splits
    """In its own tokens, with the teacher's rows."""
    cost: float
    """Of a use: joules where they are counted, else CPU-seconds."""
    phases: list[str]
    """That were paid for it alone."""
    student: TextModel | None = None
    """The best so far on validation; None before the first rung."""
    value: float = -math.inf
    """Of the metric there."""

    @property
    def used(self) -> Any:
        """As it is saved."""
        assert self.student is not None, "a candidate is trained before it is used"
        return self.candidate.maker.as_used(self.student)


def candidates(run: Run, config: distilling.Config, lesson: Lesson) -> list[Candidate]:
    """What is worth trying: fewer layers, at half the width, with all tokens or those that are needed, and static.

    Half, a third and a sixth of the layers have the tokens that they need; the deepest of them is tried with all tokens
    too, and at half the width. The last candidate has one vector per token.

    Args:
        run: Gets the phases in which students are made.
        config: Of data, teacher and training.
        lesson: What there is.
    """
    own: Any = lesson.base.transformer.config
    depths = list(dict.fromkeys(max(1, round(share * own.num_hidden_layers)) for share in _DEPTHS))
    found = [_of_layers(run, config, f"layers_{depth}_trimmed", num_layers=depth) for depth in depths]
    found.append(_of_layers(run, config, f"layers_{depths[0]}", num_layers=depths[0], trim_vocabulary=False))
    if own.num_attention_heads > 1 and _is_of_known_family(lesson.base):
        head_size = own.hidden_size // own.num_attention_heads
        sizes = {
            "hidden_size": own.num_attention_heads // 2 * head_size,
            "intermediate_size": own.intermediate_size // 2,
        }
        found.append(_of_layers(run, config, f"layers_{depths[0]}_narrow", num_layers=depths[0], **sizes))
    static = replace(
        config,
        temperature=distilling.STATIC_TEMPERATURE,
        soft_weight=distilling.STATIC_SOFT_WEIGHT,
        train=replace(distilling.STATIC_TRAIN, num_epochs=config.train.num_epochs, max_steps=config.train.max_steps),
    )
    dimensions = min(distilling.STATIC_DIMENSIONS, own.hidden_size)
    maker = distilling.static_maker(run, lesson.splits.label_names, dimensions=dimensions, seed=config.seed)
    return [*found, Candidate("static", maker, static)]


def _of_layers(
    run: Run, config: distilling.Config, name: str, *, trim_vocabulary: bool = True, **sizes: Any
) -> Candidate:
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(distilling.Config)}
    own = LayersConfig(**shared, trim_vocabulary=trim_vocabulary, **sizes)
    return Candidate(name, distilling.layers_maker(run, own), own)


def _is_of_known_family(model: TextModel) -> bool:
    try:
        models.encoder_family(model.model)
    except InputError:
        return False
    return True


def shrink(
    run: Run,
    config: distilling.Config,
    task: Task,
    splits: Splits,
    *,
    teacher_name: str,
    max_drop: float,
) -> Distilled:
    """Search the cheapest student that loses no more than it may, and compare what is left at the end on test.

    Args:
        run: Has the phase `data` behind it. Once its budget is spent, the best so far are compared.
        config: Of data, teacher and training.
        task: Classes for texts.
        splits: Not tokenised.
        teacher_name: As `run.pin` gave it.
        max_drop: What the student may lose against the teacher, as a difference of the metric; ≥ 0.

    Returns: The recommended student. Where a baseline without a network does the job at less cost, an event says so,
        and it is kept beside the student.

    Raises: BudgetError if the budget of the run is spent before the first step of a student; it can go on.
    """
    lesson = distilling.prepare(run, config, task, splits, teacher_name=teacher_name)
    teacher, signals = distilling.teach(run, config, lesson)
    taught = replace(lesson.splits, train=lesson.splits.train.with_signals(signals))
    search = _Search(run, task, lesson, teacher, taught, max_drop)
    search.make(candidates(run, config, lesson))
    finalists = search.halve()
    return search.compare(finalists)


class _Search:
    """Candidates, and what the search knows of them."""

    def __init__(
        self,
        run: Run,
        task: Task,
        lesson: Lesson,
        teacher: TextModel,
        splits: Splits,
        max_drop: float,
    ) -> None:
        self.run, self.task, self.lesson, self.teacher = run, task, lesson, teacher
        self.splits, self.max_drop = splits, max_drop
        self.compute = lesson.compute
        self.trained: dict[str, Trained] = {}
        self.values: dict[str, float] = {}
        """On validation, of teacher and baselines."""
        self.costs: dict[str, float] = {}
        """Of a use, of teacher and baselines."""
        self.phases: list[str] = []
        """That the search paid for all candidates together."""

    # Before training

    def make(self, found: Sequence[Candidate]) -> None:
        """Make the students, and measure what a use of each costs."""
        made: dict[str, tuple[Candidate, Student, Splits]] = {}
        for candidate in found:
            name = candidate.name
            student = candidate.maker.make(self.teacher, self.splits.train, self.compute, f"{name}_")
            made[name] = candidate, student, distilling.in_tokens_of(student, self.teacher, self.splits)
        others = {"teacher": self.teacher, **self.lesson.baselines}
        uses = self.run.phase(
            "uses",
            evaluation.measure_inference,
            {**others, **{name: candidate.maker.as_used(student) for name, (candidate, student, _) in made.items()}},
            self.lesson.splits.validation,
            protocol="smoke",
            compute=self.compute,
        )
        costs = _costs(uses.inference, in_joules=records.is_counted(self.run.meter.labels))
        self.costs = {role: costs[role] for role in others}
        self.values = self.judge("judge_others", others)
        self.phases += ["uses"]
        for name, (candidate, student, splits) in made.items():
            own = [f"{name}_{phase}" for phase in candidate.maker.phases]
            self.trained[name] = Trained(candidate, student, splits, costs[name], own)

    def judge(self, phase: str, contenders: Mapping[str, Any]) -> dict[str, float]:
        """The metric of each on validation."""
        on_validation = replace(self.splits, test=self.splits.validation)
        found = self.run.phase(phase, self.task.evaluate, contenders, on_validation, compute=self.compute)
        self.phases.append(phase)
        return {result.role: result.metrics[self.task.metric].value for result in found.results}

    # Rungs

    def halve(self) -> list[Trained]:
        """Train in rungs until the last one, or the budget is spent; gives those that are left, the best first."""
        alive = sorted(self.trained, key=lambda name: self.trained[name].cost)  # a small budget is for those
        finalists: list[str] = []
        for number, share in enumerate(SHARES):
            if not self._train_rung(number, share, alive):
                break
            finalists = self._ranked([name for name in alive if self.trained[name].student is not None])
            alive = finalists[: math.ceil(len(finalists) / 2)]
        return [self.trained[name] for name in finalists]

    def _train_rung(self, number: int, share: float, names: Sequence[str]) -> bool:
        """Train candidates for a share of the recipes' steps; each keeps the better of this training and those before.

        Returns: Whether the budget sufficed for a step of one of them.

        Raises: BudgetError if it does not, and none has a student.
        """
        students: dict[str, TextModel] = {}
        for name in names:
            phase, is_first = f"rung_{number}_{name}", number == 0 and not students
            if is_first or self.run.affords(phase):
                student = self._fit(phase, self.trained[name], share)
                if student.notes["training"]["num_steps"]:
                    students[name] = student
        if not students:
            return False
        used = {name: self.trained[name].candidate.maker.as_used(student) for name, student in students.items()}
        for name, value in self.judge(f"judge_rung_{number}", used).items():
            trained = self.trained[name]
            if value >= trained.value:
                trained.student, trained.value = students[name], value
        return True

    def _fit(self, phase: str, trained: Trained, share: float) -> TextModel:
        """Train a candidate from the beginning, as a phase that is paid for it alone."""
        candidate, config = trained.candidate, trained.candidate.config.train
        _, soft_loss = distilling.losses_of(self.task, candidate.config)
        loss_fn = candidate.maker.objective(soft_loss, trained.untrained, self.teacher, self.compute)
        steps = max(1, round(share * training.num_steps(len(trained.splits.train), config)))
        trained.phases.append(phase)
        return self.run.phase(
            phase,
            training.fit,
            trained.untrained.copy(),
            trained.splits.train,
            loss_fn,
            replace(config, max_steps=steps),
            seed=candidate.config.seed,
            validate=distilling.validation_of(self.task, trained.splits, self.compute),
            compute=self.compute,
        )

    def _ranked(self, names: Sequence[str]) -> list[str]:
        """Those first that nothing beats in both quality and cost, then those that only these beat, and so on."""
        points = {name: (self.trained[name].cost, self.trained[name].value) for name in names}
        points |= {role: (self.costs[role], self.values[role]) for role in self.lesson.baselines}
        ranked: list[str] = []
        while points:
            layer = front(points)
            ranked += sorted((name for name in layer if name in names), key=lambda name: -points[name][1])
            points = {name: point for name, point in points.items() if name not in layer}
        return ranked

    # After it

    def compare(self, finalists: Sequence[Trained]) -> Distilled:
        """Recommend one by validation, and read the test split once for all that are left."""
        best = self._recommended(finalists)
        self._tell(best, finalists)
        tuning = () if self.lesson.is_tuned else ("teacher",)
        searched = [*self.phases, *(phase for one in self.trained.values() for phase in one.phases)]
        contenders = {
            "teacher": Contender(self.teacher, built_by=tuning),
            "student": Contender(best.used, built_by=("cache", *searched), teacher_phases=tuning),
            **{
                one.candidate.name: Contender(one.used, built_by=("cache", *one.phases), teacher_phases=tuning)
                for one in finalists
                if one is not best
            },
            **{role: Contender(model, built_by=(role,)) for role, model in self.lesson.baselines.items()},
        }
        result = self.run.phase("evaluate", self.task.evaluate, contenders, self.splits, compute=self.compute)
        costs = self.run.phase(
            "inference",
            evaluation.measure_inference,
            contenders,
            self.splits.test,
            compute=self.compute,
        )
        assert best.student is not None
        model = models.describe(best.student, self.compute)
        about = {
            "title": f"{best.candidate.name.replace('_', ' ')}: the text classifier for {self.splits.source.name} that "
            f"was found by trying {len(self.trained)} students of {self.lesson.fetched.source.name}",
            "task": self.task.tag,
            "metric": self.task.metric,
            "margin": self.max_drop,
            "results": result.results,
            "inference": costs.inference,
            "predictions": result.predictions,
            "curve": training.curve(best.student),
            "teacher_on_validation": self.values["teacher"],
            "examples": evaluation.example_predictions(result, self.splits),
            "model": {**model, **getattr(best.used, "facts", {})},
            "languages": self.splits.languages,
            "limits": [f"Tested on {self.splits.source.name} only; texts of another kind or language were not tried."],
            "label_names": self.splits.label_names,
        }
        return Distilled(best.used, result, about, self.compute)

    def _recommended(self, finalists: Sequence[Trained]) -> Trained:
        """The cheapest to use of those that are good enough on validation; the best where none is."""
        good = [one for one in finalists if one.value >= self.values["teacher"] - self.max_drop]
        if good:
            return min(good, key=lambda one: one.cost)
        return max(finalists, key=lambda one: one.value)

    def _tell(self, best: Trained, finalists: Sequence[Trained]) -> None:
        """Say which models are on the front on validation, which one is recommended, and why; keep a baseline."""
        points = {one.candidate.name: (one.cost, one.value) for one in finalists}
        points |= {role: (self.costs[role], self.values[role]) for role in ("teacher", *self.lesson.baselines)}
        on_front = sorted(front(points), key=lambda name: points[name][0])
        least = self.values["teacher"] - self.max_drop
        reason = "the cheapest to use of those" if best.value >= least else "the best, and none is"
        self.run.event(
            "recommended",
            f"{best.candidate.name} is recommended: {reason} within {self.max_drop:.3g} of the teacher's "
            f"{self.task.metric} on validation; on the front of quality and cost are {', '.join(on_front)}",
            recommended=best.candidate.name,
            front=[{"role": name, "cost": points[name][0], "value": points[name][1]} for name in on_front],
        )
        enough = [role for role in self.lesson.baselines if self.values[role] >= least and self.costs[role] < best.cost]
        if enough:
            role = min(enough, key=self.costs.__getitem__)
            self.run.keep(role, self.lesson.baselines[role])
            self.run.event(
                "recommended",
                f"{role} needs no network, is good enough on validation too, and cheaper to use: it is kept in {role}/",
                recommended=role,
            )


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of those that no other beats: none is at least as cheap and as good, and better in one of the two.

    Args:
        points: Cost and quality by name.
    """
    on_front = fronts.pareto_front([Point(label=name, role=name, x=x, y=y) for name, (x, y) in points.items()])
    return [name for name, is_on_it in zip(points, on_front, strict=True) if is_on_it]


def _costs(uses: Sequence[records.Inference], *, in_joules: bool) -> dict[str, float]:
    """Of a use, by role: in joules where all are known, else in CPU-seconds."""
    joules = {use.role: use.energy_j_per_1000 for use in uses}
    if in_joules and None not in joules.values():
        return {role: value / 1000 for role, value in joules.items() if value is not None}
    return {use.role: use.cpu_s_per_1000 / 1000 for use in uses}
