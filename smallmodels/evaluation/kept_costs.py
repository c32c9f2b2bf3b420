"""Measurements of inference in the cache: one for each shape of model, machine and way of measuring."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smallmodels import __version__, entries, files, records, trials
from smallmodels.data.splits import Split
from smallmodels.errors import DamagedError, InputError, RunInterruptedError
from smallmodels.models import Compute
from smallmodels.phases import Context

_FORMAT = "2"
"""Of what is kept and how it is measured; raise it when a fix moves the numbers."""

_OF_TRAINING = ("layout", "tokens_per_pass")
"""Choices that each run measures anew for its training: with them in the key, a shape would be measured by chance."""


def texts_sha256(splits: Iterable[Split]) -> str:
    """SHA-256 over the texts of splits, in order."""
    digest = hashlib.sha256()
    for split in splits:
        for text in split.whole_texts:
            content = text.encode(errors="surrogatepass")
            digest.update(len(content).to_bytes(8, "little") + content)
        digest.update(b"\0")
    return digest.hexdigest()


class KeptCosts:
    """What is known of the cost of a use, and what becomes known of it.

    Args:
        how: What moves the numbers beside model and machine.
        compute: Device, number format, threads and attention.
        context: Of the run. Outside of one nothing is read or kept, because the machine is not known.
        cache: Folder of the cache; `entries.cache_folder()` if None.
    """

    def __init__(self, how: Mapping[str, Any], compute: Compute, context: Context, cache: Path | None) -> None:
        self._context, self._cache = context, cache
        self._fingerprint = context.fingerprint()
        self._key = {
            "what": "inference",
            "format": _FORMAT,
            "version": __version__,
            "machine": self._fingerprint,
            "compute": {name: value for name, value in compute.choices.items() if name not in _OF_TRAINING},
            **how,
        }

    def read(self, keys: Mapping[str, Mapping[str, Any]]) -> dict[str, records.Inference]:
        """What earlier runs measured, by role: nothing for a model that none did, or of which what was kept is damaged.

        Args:
            keys: By role: equal for models whose uses cost the same.
        """
        if not self._fingerprint:
            return {}
        contents = {
            role: content for role, key in keys.items() if (content := self._read_content({**self._key, **key}))
        }
        owed = [entries.Bill(content["parts"], self._context).settle() for content in contents.values()]
        if any(owed):
            self._context.event(
                "cache",
                "what earlier runs have measured of the cost of a use is read back",
                measured_in=sorted({str(content["run_id"]) for content in contents.values()}),
                energy_j=records.whole_sum(each["energy_j"] for each in owed if each),
                cpu_s=sum(each["cpu_s"] for each in owed if each),
            )
        return {role: self._inference(content) for role, content in contents.items()}

    def _inference(self, content: Mapping[str, Any]) -> records.Inference:
        found, run_id = records.from_json(records.Inference, content["inference"]), content["run_id"]
        return dataclasses.replace(found, measured_in=None if run_id == self._context.run_id else run_id)

    def keep(self, key: Mapping[str, Any], inference: records.Inference, share: entries.Share) -> None:
        """Write a measurement for other runs, unless something else used the machine meanwhile.

        Args:
            key: Of the model, as for `read`.
            inference: What it says.
            share: What it cost.
        """
        if not self._fingerprint:
            return
        if self._context.is_contended():
            told = "the cost of a use was measured on a machine that others used too, so no other run takes it over"
            self._context.event("inference", told)
            return
        bill = entries.Bill([], self._context)
        bill.charge(share)
        whole_key = {**self._key, **key}
        content = {
            "key": whole_key,
            "run_id": self._context.run_id,
            "inference": records.to_json(inference),
            "parts": bill.to_json(),
        }
        trial = trials.current()
        if trial is not None:
            trial.cache_bytes += len(files.json_bytes(content))
            return
        folder = entries.address(whole_key, self._cache)
        try:
            with entries.writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                files.write_json(folder / entries.ENTRY, {"sha256": files.sha256_json(content), **content})
        except (InputError, RunInterruptedError) as error:  # the run has its numbers and needs no cache
            self._context.event("cache", f"no other run can take over the cost of a use, because {error}")

    def _read_content(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """What an entry holds; None if there is none, or it is not what was written."""
        path = entries.address(key, self._cache) / entries.ENTRY
        if not path.exists():
            return None
        try:
            content: dict[str, Any] = files.read_json(path)
            is_whole = content.pop("sha256") == files.sha256_json(content)
            if is_whole and files.sha256_json(content["key"]) == files.sha256_json(key):
                return content
        except (DamagedError, KeyError, TypeError, AttributeError, ValueError):
            pass
        told = "a kept cost of a use is not what was written, so it is measured again"
        self._context.event("damaged cache", told, key=path.parent.name)
        return None
