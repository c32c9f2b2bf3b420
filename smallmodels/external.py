"""Evaluate the model of a finished run on tasks of lm-eval, and add what came out to its record. The home of lm-eval.

lm-eval (EleutherAI's Language Model Evaluation Harness) is an optional extra. It is given the model that our own loader
has read and checked, in float32, so a figure does not depend on what the machine is fast in. Its tasks bring code with
them (`!function` in a YAML file): those that it ships are trusted as any installed package is, and of local ones only
the files run that the user named. Metrics whose code would come from the hub are refused. Data come from the cache of
the hub or, unless HF_HUB_OFFLINE is set, from the hub.

Nothing in this package makes a tensor of batch, length and vocabulary. This is the exception: where answers are scored,
lm-eval asks the model of transformers for the logits of all tokens of its requests, and `batch_size` is what bounds it.
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from smallmodels import (
    configs,
    energy,
    environment,
    finishing,
    models,
    privacy,
    records,
    sources,
    verification,
)
from smallmodels.data.completions import Template, require_chat_template
from smallmodels.errors import InputError, PolicyError
from smallmodels.models import Compute, LanguageModel, TextModel
from smallmodels.text import printable, shorten

HARNESS = "lm-eval"
INSTALL = "pip install 'smallmodels[eval]'"
_NUMBER_FORMAT = "fp32"
_BOOTSTRAPS = 1000
"""Draws for the standard errors that have no formula; lm-eval itself takes a hundred times as many."""


def evaluate_run(
    folder: Path,
    tasks: Sequence[str],
    *,
    include_path: Path | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    template: Template | None = None,
    batch_size: int = 8,
) -> records.ExternalEvaluation:
    """Evaluate the language model of a run on tasks of lm-eval; record, card and page say what came out.

    The run is verified first. Nothing in it changes before all tasks are through.

    Args:
        folder: Of a complete run.
        tasks: Names of tasks and groups of lm-eval, or YAML files that define one.
        include_path: Folder with YAML files whose tasks can be named too, before those of lm-eval.
        limit: Look at the first so many items of each task, ≥ 1; None looks at all.
        num_fewshot: Solved items in front of each, ≥ 0; None is what each task says.
        template: `chat` writes each request in the model's own form of a dialogue, `plain` as lm-eval has it; None is
            as the run wrote prompts in training.
        batch_size: Requests at once. Where answers are scored, lm-eval itself makes the logits of all their tokens,
            twice batch_size × tokens × vocabulary numbers in float32, so a smaller one is what bounds the memory.

    Returns: What was added to the record.

    Raises:
        InputError: lm-eval is not installed; there is no complete run, or it has no causal language model; a task is
            unknown, cannot be loaded, or does not take `num_fewshot`.
        PolicyError: The run is in use, or a task runs code that the model writes or that comes from the hub.
        DamagedError: The run is not what its record says.
    """
    _require_installed()
    _require_tasks(tasks, include_path)
    with verification.changing(folder) as record:
        in_chat = (template or record.template) == "chat"
        found = _evaluate(folder, tasks, include_path, limit, num_fewshot, in_chat, batch_size)
        finishing.amend(folder, record, external_evaluations=[*record.external_evaluations, found])
    return found


def is_installed() -> bool:
    """Whether lm-eval is there; it is not imported."""
    return importlib.util.find_spec("lm_eval") is not None


def _require_installed() -> None:
    if not is_installed():
        raise InputError(f"evaluation on tasks needs {HARNESS}, which is not installed: {INSTALL}")


def _require_tasks(tasks: Sequence[str], include_path: Path | None) -> None:
    if not tasks or not all(task.strip() for task in tasks):
        raise InputError("--tasks should name tasks with commas between them, such as arc_easy,piqa, but names none")
    for task in tasks:
        if _is_file(task) and not Path(task).is_file():
            raise InputError(f"there is no file {task}: check the path")
    if include_path is not None and not include_path.is_dir():
        raise InputError(f"--include-path should be a folder with YAML files of tasks, got {include_path}")


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


def _evaluate(
    folder: Path,
    tasks: Sequence[str],
    include_path: Path | None,
    limit: int | None,
    num_fewshot: int | None,
    in_chat: bool,
    batch_size: int,
) -> records.ExternalEvaluation:
    started = records.now()
    with _only_warnings() as warnings, energy.Meter() as meter:
        with meter.phase("setup"):
            model = _load_model(folder)
            if in_chat:
                require_chat_template(model.tokenizer)
            compute = models.choose_compute(number_format=_NUMBER_FORMAT)
            meter.set_synchronize(compute.synchronize)
            manager = _task_manager(tasks, include_path)
            with _no_metrics_of_the_hub():
                loaded = _load_tasks(manager, tasks, num_fewshot)
        options = {"task_manager": manager, "limit": limit, "num_fewshot": num_fewshot, "apply_chat_template": in_chat}
        with _no_metrics_of_the_hub(), meter.phase("evaluate"):
            said = _ask(model, loaded, compute, batch_size=batch_size, **options)
        reading, contended = meter.read(fresh=True), meter.contended
    machine = environment.environment(energy_labels=meter.labels, tracking_mode=meter.tracking_mode)
    return records.ExternalEvaluation(
        harness=HARNESS,
        harness_version=importlib.metadata.version("lm_eval"),
        started_utc=started,
        limit=limit,
        device=compute.device,
        number_format=compute.number_format,
        duration_s=reading.duration_s,
        cpu_s=reading.cpu_s,
        energy_j=reading.energy_j,
        label=reading.label,
        components=reading.components,
        contended=contended,
        fingerprint=machine.fingerprint,
        warnings=warnings.sentences(),
        results=list(_results(said)),
        in_chat=in_chat,
    )


def _load_model(folder: Path) -> TextModel:
    model = TextModel.load(folder / "model")
    if not isinstance(model.model, LanguageModel):
        raise InputError(
            f"{folder} should be the run of a causal language model, but holds a {type(model.model).__name__}: "
            f"{HARNESS} has tasks for language models alone"
        )
    return model


def _ask(model: TextModel, tasks: list[Any], compute: Compute, *, batch_size: int, **options: Any) -> dict[str, Any]:
    """What lm-eval says of a model on tasks that are loaded."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    compute.place(model.model).eval()
    wrapped = HFLM(
        pretrained=model.transformer,
        tokenizer=model.tokenizer,
        backend="causal",
        batch_size=batch_size,
        trust_remote_code=False,
    )
    try:
        said: dict[str, Any] = lm_eval.simple_evaluate(
            model=wrapped, tasks=tasks, log_samples=False, bootstrap_iters=_BOOTSTRAPS, **options
        )
    except AssertionError as error:  # it has no other word for texts that are too long to be cut
        print(file=sys.stderr)  # its bar is still on the line
        raise InputError(
            f"the answers of a task should fit into the {wrapped.max_length:,} tokens that this model reads, but do not"
            f"{f' ({printable(str(error))})' if str(error) else ''}: choose another task"
        ) from error
    return said


def _results(said: Mapping[str, Any]) -> Iterator[records.ExternalResult]:
    """Every metric that lm-eval gives, in its order."""
    for task, values in said["results"].items():
        for key, value in values.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, str):
                continue
            stderr = values.get(f"{metric}_stderr,{chosen}")
            version = said["versions"].get(task)
            yield records.ExternalResult(
                task=task,
                task_version=None if version in (None, "N/A", "Yaml") else str(version),
                metric=metric,
                filter=None if chosen == "none" else chosen,
                value=_finite(value),
                stderr=_finite(stderr),
                higher_is_better=said["higher_is_better"].get(task, {}).get(metric),
                n=int(values["sample_len"]),
                num_fewshot=int(said["n-shot"].get(task, 0)),
            )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


# Tasks


def _task_manager(tasks: Sequence[str], include_path: Path | None) -> Any:
    """What knows the tasks. Those that lm-eval ships are read only if one is named: that takes it ten seconds.

    Raises: InputError if there is no task of some name.
    """
    from lm_eval.tasks import TaskManager

    def manager(*, include_defaults: bool) -> Any:
        folder = None if include_path is None else str(include_path)
        return TaskManager(include_path=folder, include_defaults=include_defaults)

    known = manager(include_defaults=False)
    if not all(_is_file(task) or task in known.all_tasks for task in tasks):
        known = manager(include_defaults=True)
    for task in tasks:
        if not _is_file(task) and task not in known.all_tasks:
            hint = configs.suggestion(task, known.all_tasks) or ": name one of `lm_eval ls tasks`, or a YAML file"
            raise InputError(f"{HARNESS} has no task {printable(task)!r}{hint}")
    return known


def _load_tasks(manager: Any, tasks: Sequence[str], num_fewshot: int | None) -> list[Any]:
    """Tasks and groups with their data, in the form that lm-eval takes."""
    loaded = [_load_task(manager, task) for task in tasks]
    for name, task in (item for part in loaded for item in part["tasks"].items()):
        _require_runnable(name, task, num_fewshot)
    return [top for part in loaded for top in _tops(part)]


def _load_task(manager: Any, task: str) -> Mapping[str, Any]:
    try:
        loaded: Mapping[str, Any] = manager.load([task])
    except Exception as error:
        offline = " (HF_HUB_OFFLINE is set, so only what is in the cache can be read)" if sources.is_offline() else ""
        reason = next(iter(str(error).strip().splitlines()), "") or "no reason given"
        raise InputError(
            f"the task {printable(task)} should load with its data, but {type(error).__name__}: {printable(reason)}"
            f"{offline}: mend its YAML file or choose another task"
        ) from error
    return loaded


def _require_runnable(name: str, task: Any, num_fewshot: int | None) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise PolicyError(f"{name} runs code that the model writes, which is not done here: leave it out of --tasks")
    if getattr(task, "MULTIMODAL", False):
        raise InputError(f"{name} needs a model that sees pictures, and this one reads text: leave it out of --tasks")
    if num_fewshot and task.get_config("num_fewshot") == 0:  # lm-eval would pass over the option in silence
        raise InputError(f"{name} fixes the number of solved items at 0: leave out --num-fewshot, or the task")


def _tops(loaded: Mapping[str, Any]) -> list[Any]:
    """What was named, without the parts that groups hold."""
    inner = {name for children in loaded.get("group_map", {}).values() for name in children}
    found = {**loaded["tasks"], **loaded.get("groups", {})}
    return [part for name, part in found.items() if name not in inner]


@contextlib.contextmanager
def _no_metrics_of_the_hub() -> Iterator[None]:
    """Refuse what `evaluate.load` does: bring a Python file of the hub, or of the working folder, and run it.

    Raises: PolicyError at the end of the block, because lm-eval goes on after any error of that function.
    """
    import evaluate

    asked: list[str] = []

    def refuse(name: object, *_: Any, **__: Any) -> NoReturn:
        asked.append(printable(str(name)))
        raise PolicyError(f"the code of the metric {asked[-1]} is not run")

    evaluate.load, load = refuse, evaluate.load
    try:
        yield
    finally:
        evaluate.load = load
        if asked:
            raise PolicyError(
                f"a task takes the metric {asked[0]} from the hub with its code, which is not run here: leave that "
                "task out of --tasks"
            )


# What it says besides


_EXPECTED = ("`pretrained` model kwarg", "Passed an already-initialized model", "Overwriting default num_fewshot")
"""Warnings of what we do on purpose."""
_MAX_WARNINGS, _MAX_CHARACTERS = 20, 300


class _Warnings(logging.Handler):
    """Keeps each kind of warning once, numbers left out of account, and counts it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        message = printable(record.getMessage())
        if not message.startswith(_EXPECTED):
            kind = re.sub(r"[0-9]+", "", message)
            first = self._first.setdefault(kind, message)
            self.counts[first] = self.counts.get(first, 0) + 1

    def sentences(self) -> list[str]:
        """The first of each kind, without folders."""
        return [
            shorten(privacy.without_folders(message), _MAX_CHARACTERS) + (f" ({count:,} times)" if count > 1 else "")
            for message, count in list(self.counts.items())[:_MAX_WARNINGS]
        ]


@contextlib.contextmanager
def _only_warnings() -> Iterator[_Warnings]:
    """Collect what lm-eval warns of, and keep what it prints off standard output, which is for results."""
    log, warnings = logging.getLogger("lm_eval"), _Warnings()
    log.addHandler(warnings)
    log.propagate, propagated = False, log.propagate
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield warnings
    finally:
        log.propagate = propagated
        log.removeHandler(warnings)
