"""Metrics to the trackers that people already use, through accelerate: TensorBoard, trackio, Weights & Biases, MLflow.

What is tracked is every line of `metrics.jsonl`, with the joules and CPU-seconds of the phase and of the whole run so
far. Everything stays in `trackers/` of the run folder, and nothing is sent, unless a variable of the tracker says
otherwise (`WANDB_MODE`, `MLFLOW_TRACKING_URI`). A tracker that fails ends, and the run goes on.
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from smallmodels import privacy, records
from smallmodels.energy import EnergyReading
from smallmodels.errors import InputError

Name = Literal["tensorboard", "trackio", "wandb", "mlflow"]

FOLDER = "trackers"
"""In a run folder."""
_CLASSES: dict[Name, str] = {
    "tensorboard": "TensorBoardTracker",
    "trackio": "TrackioTracker",
    "wandb": "WandBTracker",
    "mlflow": "MLflowTracker",
}
_QUIET = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
"""Variables that keep trackers from sending anything, where the user has not set them."""


def require_installed(name: Name) -> None:
    """Refuse a tracker whose package is not there; it is not imported.

    Raises: InputError that says how to install it.
    """
    if importlib.util.find_spec(name) is None:
        raise InputError(f"--log-with {name} needs the package {name}: pip install 'smallmodels[{name}]'")


class Steps:
    """One axis for all phases of a run, on which trackers that know one position only never go back."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}
        self._last = 0

    def of(self, phase: str, step: float | None) -> int:
        """Where a step of a phase lies; the last place for what has no step."""
        if step is None:
            return self._last
        before = self._before.setdefault(phase, self._last)
        self._last = max(self._last, before + int(step))
        return before + int(step)


class Tracker:
    """Sends lines of metrics to a tracker.

    Args:
        name: Of the tracker.
        folder: Of the run.
        run_id: How the run is called there.
        recipe: Name of the project or experiment.
        config: Of the run.
        failed: Told once, in a sentence, if the tracker fails.
    """

    def __init__(
        self, name: Name, folder: Path, *, run_id: str, recipe: str, config: Any, failed: Callable[[str], None]
    ) -> None:
        self.name = name
        self._folder = folder / FOLDER
        self._failed = failed
        self._steps = Steps()
        self._tracker: Any = None
        self._try(self._open, run_id, recipe, _plain(privacy.values(privacy.masked(records.to_json(config)))))

    def continue_after(self, lines: list[Mapping[str, Any]]) -> None:
        """Place the steps that follow behind those of before an interruption."""
        for line in lines:
            self._steps.of(str(line.get("phase") or "run"), line.get("step"))

    def log(self, line: Mapping[str, Any], total: EnergyReading) -> None:
        """Send a line of `metrics.jsonl`.

        Args:
            line: With `phase`, `step`, `energy_j` and `cpu_s` of the phase so far.
            total: What the whole run has paid so far.
        """
        phase = str(line.get("phase") or "run")
        values = {f"{phase}/{key.removeprefix('train/')}": value for key, value in line.items() if key not in _ABOUT}
        values |= {"run/energy_j": total.energy_j, "run/cpu_s": total.cpu_s}
        self._send(values, self._steps.of(phase, line.get("step")))

    def log_results(self, results: list[records.Result]) -> None:
        """Send what the models of the run came to."""
        values = {f"{r.split}/{r.role}/{name}": found.value for r in results for name, found in r.metrics.items()}
        self._send(values, self._steps.of("", None))

    def close(self) -> None:
        """End it; all files are written then."""
        if self._tracker is not None:
            self._try(self._tracker.finish)
            self._tracker = None
        for path in self._folder.rglob("*") if self._folder.is_dir() else ():
            if path.is_symlink():  # wandb's, to the newest of its runs: a run folder holds files alone
                path.unlink()

    def _open(self, run_id: str, recipe: str, config: Mapping[str, Any]) -> None:
        self._folder.mkdir(exist_ok=True)
        folder = self._folder / self.name
        for variable, value in {**_QUIET, "TRACKIO_DIR": str(folder)}.items():
            os.environ.setdefault(variable, value)
        from accelerate import PartialState, tracking

        PartialState()  # whose absence its loggers do not forgive
        tracker = getattr(tracking, _CLASSES[self.name])(**self._arguments(run_id, recipe, folder))
        tracker.start()
        self._tracker = tracker
        tracker.store_init_configuration(config)

    def _arguments(self, run_id: str, recipe: str, folder: Path) -> dict[str, Any]:
        """What the class of accelerate is made with."""
        if self.name == "tensorboard":
            return {"run_name": self.name, "logging_dir": str(self._folder)}
        folder.mkdir(exist_ok=True)
        if self.name == "trackio":
            return {"run_name": recipe, "name": run_id}
        if self.name == "wandb":
            settings = {"console": "off", "x_disable_stats": True, "x_disable_meta": True}
            return {"run_name": recipe, "name": run_id, "dir": str(folder), "settings": settings}
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder.absolute()}/mlflow.db")
        return {
            "experiment_name": recipe,
            "run_name": run_id,
            "logging_dir": (folder / "artifacts").absolute().as_uri(),
        }

    def _send(self, values: Mapping[str, Any], step: int) -> None:
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
        if self._tracker is not None and numbers:
            self._try(self._tracker.log, numbers, step=step)

    def _try(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """A tracker never breaks a run: it ends with one sentence."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is for the run's own lines
                function(*args, **kwargs)
        except Exception as error:
            self._tracker = None
            reason = " ".join(str(error).split())[:300]
            self._failed(f"{self.name} failed and gets no more metrics, which metrics.jsonl has all the same: {reason}")


_ABOUT = frozenset({"time_utc", "phase", "step"})


def _plain(config: Any) -> dict[str, Any]:
    """Every setting by its dotted name; those without a value are left out, and lists become text."""
    found = {name: value for name, value in records.dotted(config).items() if value is not None}
    return {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in found.items()}
