"""What a run was told and what it chose on the way, and the file that keeps it: `config.json`."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smallmodels import environment, files, records
from smallmodels.errors import DamagedError, InputError
from smallmodels.folders import CONFIG_NAME
from smallmodels.limits import NO_LIMITS, Limits

_KEYS = (
    *("recipe", "run_id", "started_utc", "command", "smoke", "device", "number_format", "country", "carbon_intensity"),
    *("versions", "choices", "config"),
)
"""What `config.json` has to hold for a run to go on."""


COMMIT_OF, FILES_OF = "commit of", "files of"
"""How the names of choices begin that say which model or data set a name stood for, and what was in it."""
_USUAL_PROTOCOL: records.InferenceProtocol = "indicative"
"""Of the inference of runs that do not say."""
_CHANGE_NO_BIT = frozenset({"num_workers"})
"""Settings that may be others when a run goes on."""


@dataclass(kw_only=True)
class Settings:
    """What `config.json` says of a run, next to versions of packages and the recipe's file."""

    command: str
    smoke: bool
    device: str
    number_format: str
    num_threads: int | None
    """Of the processor; None until it is known."""
    inference_protocol: records.InferenceProtocol | None
    """How the cost of a use is measured, where the run is no smoke run; None is `indicative`, or that of the run that
    is resumed."""
    idle_seconds: float | None
    """For which the idle machine is watched before the first phase; None not at all."""
    country: str | None
    carbon_intensity: float | None
    choices: dict[str, Any]
    """Measured once, by name."""
    accepted_licenses: list[str]
    sweep: records.Declaration | None = None
    """Of the sweep that the run belongs to."""
    limits: Limits = NO_LIMITS
    """Of the present segment; when a run goes on they are those that were given anew."""
    started_utc: str = field(default_factory=records.now)
    run_id: str = ""
    recipe: str = ""
    """Its name; empty until the run knows what it runs."""
    config: Any = None
    """Of the recipe: a dataclass or mapping."""

    @property
    def seed(self) -> int:
        """What seeds everything; 0 where the config has none."""
        return int(getattr(self.config, "seed", 0))

    def new_run_id(self) -> str:
        """A name that no other run has."""
        stamp = self.started_utc.replace(":", "").replace("-", "")
        return f"{self.recipe}-{stamp}-s{self.seed}-{uuid.uuid4().hex[:6]}"

    def take_over(self, past: Mapping[str, Any]) -> None:
        """Go on with what an interrupted run began with; licences that are accepted now are added to those of before.

        Args:
            past: Its `config.json`, from `read`.

        Raises: InputError if another device, number format or sweep was asked for.
        """
        self.started_utc, self.run_id = past["started_utc"], past["run_id"]
        self.command, self.smoke = past["command"], past["smoke"]
        for name in ("device", "number_format", "num_threads"):
            before = past.get(name)
            if getattr(self, name) not in ("auto", None, before):
                flag = "--" + name.replace("_", "-")
                raise InputError(f"the run began with {flag} {before} and has to keep it: leave the flag out")
            setattr(self, name, before)
        self.idle_seconds = past.get("idle_seconds")
        self._take_over_protocol(past.get("inference_protocol", _USUAL_PROTOCOL))
        if self.sweep is not None and records.to_json(self.sweep) != past.get("sweep"):
            raise InputError("the run began under another --sweep or none and has to keep that: leave the flag out")
        self.sweep = records.from_json(records.Declaration, past["sweep"]) if past.get("sweep") else None
        if self.country is None and self.carbon_intensity is None:
            self.country, self.carbon_intensity = past["country"], past["carbon_intensity"]
        self.choices = past["choices"]
        accepted = past.get("accepted_licenses", [])
        self.accepted_licenses = [*accepted, *(i for i in self.accepted_licenses if i not in accepted)]

    def _take_over_protocol(self, before: records.InferenceProtocol) -> None:
        if self.inference_protocol not in (None, before):
            raise InputError(f"the run began with --inference-protocol {before} and has to keep it: leave the flag out")
        self.inference_protocol = before

    @property
    def protocol(self) -> records.InferenceProtocol:
        """How the cost of a use is measured."""
        return "smoke" if self.smoke else self.inference_protocol or _USUAL_PROTOCOL


def write(folder: Path, settings: Settings, *, file: Path | None) -> None:
    """Write the `config.json` of a new run.

    Args:
        folder: Of the run.
        settings: What it says.
        file: The recipe's file, where it is not a shipped one.
    """
    content = {
        "recipe": settings.recipe,
        "file": str(file.resolve()) if file else None,
        "file_sha256": files.sha256_file(file) if file else None,
        "run_id": settings.run_id,
        "started_utc": settings.started_utc,
        "command": settings.command,
        "smoke": settings.smoke,
        "device": settings.device,
        "number_format": settings.number_format,
        "num_threads": settings.num_threads,
        "inference_protocol": settings.inference_protocol or _USUAL_PROTOCOL,
        "idle_seconds": settings.idle_seconds,
        "country": settings.country,
        "carbon_intensity": settings.carbon_intensity,
        "versions": environment.versions(),
        "choices": settings.choices,
        "accepted_licenses": settings.accepted_licenses,
        "sweep": records.to_json(settings.sweep),
        "limits": records.to_json(settings.limits),
        "config": records.to_json(settings.config),
    }
    files.write_json(folder / CONFIG_NAME, {**content, "config_sha256": files.sha256_json(content["config"])})


def change(folder: Path, **changes: Any) -> None:
    """Write some keys of `config.json` anew and leave the others."""
    files.write_json(folder / CONFIG_NAME, files.read_json(folder / CONFIG_NAME) | changes)


def read(folder: Path) -> dict[str, Any]:
    """The `config.json` of a run that shall go on.

    Raises:
        DamagedError: It cannot be read or lacks something.
        InputError: Somebody changed the config of the recipe in it.
    """
    path = folder / CONFIG_NAME
    past = files.read_json(path)
    lacking = [name for name in _KEYS if not isinstance(past, dict) or name not in past]
    if lacking:
        raise DamagedError(f"{path} should say the {lacking[0]} of the run, but does not: restore it")
    if past.get("config_sha256", files.sha256_json(past["config"])) != files.sha256_json(past["config"]):
        raise InputError(
            f"{path} should hold the config that the run began with, but was changed since: undo that, or add --fork "
            "to start a new run with it"
        )
    return dict(past)


# What is other than before


def other_limits(past: Mapping[str, Any], limits: Limits) -> str:
    """What changed in the limits of a run, as one sentence; empty if nothing did."""
    before = records.from_json(Limits, past.get("limits") or {})
    return "" if before == limits else f"the run goes on with {limits.words}, and had {before.words} before"


def other_versions(past: Mapping[str, Any]) -> list[str]:
    """Which versions of packages are others than those in the `config.json` of a run, one sentence each."""
    return differences(past["versions"], environment.versions())


def require_same_config(folder: Path, past: Mapping[str, Any], recipe: str, config: Any) -> None:
    """Refuse to go on with a run under another recipe or config.

    Args:
        folder: Of the run.
        past: Its `config.json`.
        recipe: Name of the recipe that shall go on.
        config: The dataclass that it shall have.

    Raises: InputError that shows every difference.
    """
    if past["recipe"] != recipe:
        raise InputError(f"{folder} is a run of {past['recipe']}, not of {recipe}: resume it with that recipe")
    before, after = (_without_what_changes_no_bit(value) for value in (past["config"], records.to_json(config)))
    if changes := differences(before, after):
        raise InputError(
            f"a resumed run must keep its config, but {'; '.join(changes)}: "
            "leave these flags out, or add --fork to start a new run with them"
        )


def require_same_recipe_file(past: Mapping[str, Any], file: Path | None) -> None:
    """Refuse to go on under a recipe file that is not what it was when the run began.

    Args:
        past: The `config.json` of the run.
        file: The recipe's file, where it is not a shipped one; of those the version is told.

    Raises: InputError that names the file.
    """
    before = past.get("file_sha256")
    if file is not None and before is not None and files.sha256_file(file) != before:
        raise InputError(
            f"{file} should be the recipe that this run began with, but was changed since: undo that, or add --fork "
            "to start a new run with it"
        )


def _without_what_changes_no_bit(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _without_what_changes_no_bit(item) for key, item in value.items() if key not in _CHANGE_NO_BIT}


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """What changed between two JSON values, as `learning_rate was 0.1 and is 0.2`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        prefix = f"{where}." if where else ""
        keys = [*before, *(key for key in after if key not in before)]
        nested = (differences(before.get(key, "absent"), after.get(key, "absent"), prefix + key) for key in keys)
        return [sentence for sentences in nested for sentence in sentences]
    return [] if before == after else [f"{where} was {before} and is {after}"]
