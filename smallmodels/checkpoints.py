"""Checkpoints of a training phase on disk: whole or left out, and removed only where training made them.

A checkpoint is a folder `checkpoints/step-<8 digits>` of safetensors and JSON, with a manifest. No pickle.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smallmodels import files
from smallmodels.errors import DamagedError, InputError, SmallmodelsError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
WEIGHTS, OPTIMIZER, BEST = "weights.safetensors", "optimizer.safetensors", "best.safetensors"
STATE = "state.json"
_NAME = re.compile(r"step-[0-9]{8}")
_NUM_KEPT = 2

Shapes = Mapping[str, Sequence[int]]
"""Shapes of the trained weights by name."""


def path_of(phase_folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return phase_folder / "checkpoints" / f"step-{step:08d}"


def find(phase_folder: Path | None) -> list[Path]:
    """Folders with the name of a checkpoint, oldest first; they may be damaged, or somebody else's."""
    parent = phase_folder / "checkpoints" if phase_folder else None
    if parent is None or not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if _NAME.fullmatch(p.name) and p.is_dir() and not p.is_symlink())


def is_ours(folder: Path) -> bool:
    """Whether training wrote this folder and nobody put anything into it: only then may it be removed."""
    try:
        listed = files.read_manifest(folder)
    except DamagedError:
        return False
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return STATE in listed and found <= {*listed, files.MANIFEST}


@contextmanager
def writing(phase_folder: Path, step: int, event: Callable[..., None]) -> Iterator[Path]:
    """Fill a temporary folder; when the block ends it becomes the checkpoint of a step.

    What has its name and is not ours is renamed, with an event; what a killed process left half-written is removed,
    which is a folder with the name that only a checkpoint has while it is written or removed.
    """
    path = path_of(phase_folder, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_torn(phase_folder)
    if os.path.lexists(path) and not is_ours(path):
        aside = _free_name(path)
        path.rename(aside)
        event("checkpoint", f"{path.name} stood in the way of a new checkpoint and is called {aside.name} now")
    with files.atomic_folder(path) as folder:
        yield folder


def _remove_torn(phase_folder: Path) -> None:
    files.remove_leftovers(phase_folder / "checkpoints", of_folders=_NAME.fullmatch)


def _free_name(path: Path) -> Path:
    for number in range(1, 1000):
        aside = path.with_name(f"{path.name}.found-{number}")
        if not os.path.lexists(aside):
            return aside
    raise SmallmodelsError(f"{path} should be free for a checkpoint, but is not: move what is there elsewhere")


def retire(phase_folder: Path, damaged: Iterable[Path]) -> None:
    """Remove what is ours and no longer needed: all but the two newest that are whole, and those known as damaged."""
    ours = [path for path in find(phase_folder) if is_ours(path)]
    whole = [path for path in ours if path not in set(damaged)]
    for path in ours:
        if path not in whole[-_NUM_KEPT:]:
            files.remove_folder(path)


def remove_all(phase_folder: Path, *, but: int = 0) -> None:
    """Remove every checkpoint that is ours, also half-written, and their folder where nothing else is in it.

    Args:
        phase_folder: Of the training.
        but: Keep so many of the newest.
    """
    _remove_torn(phase_folder)
    ours = [path for path in find(phase_folder) if is_ours(path)]
    for path in ours[: max(0, len(ours) - but)]:
        files.remove_folder(path)
    parent = phase_folder / "checkpoints"
    if parent.is_dir() and not any(parent.iterdir()):
        parent.rmdir()


def read_state(folder: Path) -> dict[str, Any]:
    """What `state.json` of a checkpoint holds.

    Raises:
        DamagedError: The folder is not what its manifest says, or has no format.
        InputError: It has the format of a newer version.
    """
    files.check_manifest(folder)
    state = files.read_json(folder / STATE)
    found = state.get("format") if isinstance(state, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise InputError(
            f"{folder / STATE} should have format {FORMAT}, found {found} of a newer version: update smallmodels"
        )
    if found != FORMAT:
        raise DamagedError(
            f"{folder / STATE} should have format {FORMAT}, found {found}: use the version that wrote it"
        )
    return dict(state)


def read_weights(path: Path, shapes: Shapes) -> "dict[str, Tensor]":
    """Tensors with these names and shapes; DamagedError that names the file if it holds anything else."""
    tensors = _read_tensors(path)
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != _tuples(shapes):
        raise DamagedError(f"{path} should hold the weights that are trained, but holds others: delete its folder")
    return tensors


def read_moments(path: Path, shapes: Shapes) -> "dict[str, Tensor]":
    """AdamW's state, as `exp_avg/<parameter>`: all of it for a parameter or, if that never had a gradient, nothing.

    Raises: DamagedError that names the file if it holds anything else.
    """
    tensors = _read_tensors(path)
    trained = {name.partition("/")[2] for name in tensors} & shapes.keys()
    expected: dict[str, tuple[int, ...]] = {f"step/{name}": () for name in trained}
    expected |= {f"{key}/{name}": tuple(shapes[name]) for name in trained for key in ("exp_avg", "exp_avg_sq")}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        raise DamagedError(f"{path} should hold the state of the optimizer, but does not: delete its folder")
    return tensors


def _tuples(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in shapes.items()}


def _read_tensors(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{path} should be a file of safetensors, but {error}: delete its folder") from error
