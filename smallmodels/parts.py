"""Parts of a phase's work that are finished: kept in its folder until the run is complete, so that a kill loses none.

They lie in `parts/<key>/part-<5 digits>.json`; the key is that of the piece of work that they are parts of. What is not
as it was written is made again.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from smallmodels import files, trials
from smallmodels.errors import DamagedError
from smallmodels.phases import Context, Counts

_FOLDER = "parts"
_KEY = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"part-[0-9]{5}\.json")


class Parts:
    """The parts of one piece of work, in a fixed order. Outside a run, and in a trial, nothing is kept.

    Args:
        context: Of the phase; told of what is there from before, and of what is damaged.
        key: Gives what makes the work what it is, as JSON values: parts of other work are not taken for its own.
        what: The parts in words, such as `batches of answers`.
        total: How many there are.
    """

    def __init__(self, context: Context, key: Callable[[], Mapping[str, Any]], what: str, total: int) -> None:
        self._context, self._what = context, what
        self._folder: Path | None = None
        if context.folder is None or trials.current():
            return
        self._folder = context.folder / _FOLDER / files.sha256_json(key())[:40]
        found = self._folder.iterdir() if self._folder.is_dir() else ()
        if num_kept := sum(1 for path in found if _NAME.fullmatch(path.name)):
            context.event("resume", f"{num_kept} of {total} {what} are there from before, and are not made again")

    def get(self, number: int, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A part that was kept, its work counted as if it were done now; else what is made now, which is kept.

        Args:
            number: From 0.
            make: Gives JSON values, and counts its work in the context.
        """
        if self._folder is None:
            return make()
        path = self._folder / f"part-{number:05d}.json"
        found = self._read(path, number)
        if found is not None:
            _add(self._context.counts, found["work"])
            return dict(found["value"])
        before = _work(self._context.counts)
        value = make()
        work = {name: now - before[name] for name, now in _work(self._context.counts).items()}
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {"number": number, "value": value, "work": work}
        files.write_json(path, {"sha256": files.sha256_json(content), **content})
        return value

    def _read(self, path: Path, number: int) -> dict[str, Any] | None:
        """What a part holds; None if it is missing or damaged."""
        if not path.exists():
            return None
        try:
            content: dict[str, Any] = files.read_json(path)
            if content.pop("sha256") == files.sha256_json(content) and content["number"] == number:
                return content
        except (DamagedError, KeyError, TypeError, AttributeError, ValueError):
            pass
        self._context.event("part damaged", f"{path.name} of the {self._what} is not what was written: made again")
        return None


def remove_all(phase_folder: Path) -> None:
    """Remove every part, also half-written, and their folders where nothing else is in them.

    Args:
        phase_folder: Of a phase that is kept as a whole, or has to begin anew.
    """
    parent = phase_folder / _FOLDER
    if not parent.is_dir() or parent.is_symlink():
        return
    for folder in [path for path in parent.iterdir() if _KEY.fullmatch(path.name) and not path.is_symlink()]:
        files.remove_leftovers(folder, of_files=_NAME.fullmatch)
        for path in [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and files.is_plain(path)]:
            path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
    if not any(parent.iterdir()):
        parent.rmdir()


def _work(counts: Counts) -> dict[str, float]:
    """What `Counts.add` takes."""
    return {
        "examples": counts.num_examples or 0,
        "tokens": counts.num_tokens or 0,
        "processed": counts.num_processed_tokens or 0,
        "operations": counts.num_operations or 0.0,
    }


def _add(counts: Counts, work: Mapping[str, float]) -> None:
    whole = {name: int(work[name]) for name in ("examples", "tokens", "processed")}
    counts.add(**whole, operations=float(work["operations"]))
