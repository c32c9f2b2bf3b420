"""What licences allow: which let a model be trained, what they ask for, which need the user's say-so. Standard library.

This is a table for a tool, not legal advice. Ids are those of the hub (https://huggingface.co/docs/hub/repositories-licenses),
which are SPDX ids in lower case where SPDX has one. How the table was decided:

- Open licences pass. What they ask for, such as attribution, goes into the card as duties.
- Share-alike licences pass and bind: the card gives the model the same licence. Whether weights are an adaptation of
  the data or the outputs that they learned from is disputed; the table takes the careful answer, yes.
- OpenRAIL licences pass and bind: they allow commercial use, changes and distillation, which the texts name, and ask
  that their use restrictions are passed on.
- Licences that forbid commercial use, adapted versions or the training of other models are refused, and so are the
  community terms that bind a distilled model to themselves (Llama 3.1 and later, Gemma) and whatever is not in this
  table or not declared. `--accept-license ID` lets each of them pass; the record and the card then say so.
- Two licences that bind and of which neither allows the other are refused unless the user names both.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from smallmodels.errors import PolicyError

USER_PROVIDED = "user-provided, not checked"
"""Stands in for the licence of local files and folders."""

_NOTICE = "keep the copyright notice and the licence with copies"
_ATTRIBUTION = "name the authors and the licence, and say what was changed"
_SHARE_ALIKE = "share adapted versions under the same licence"
_NON_COMMERCIAL = "no commercial use"
_NO_DERIVATIVES = "no adapted versions"
_PASS_ON = "pass its use restrictions on to whoever gets the model"
_ASK = "ask its authors what they allow before you share the model"


@dataclass(frozen=True)
class Terms:
    """What follows from a licence for a model that learns from a source under it."""

    duties: tuple[str, ...] = ()
    """In plain words, for the card."""
    binds: bool = False
    """Whether the model has to come under the same licence, or may not be shared freely."""
    refused: str = ""
    """Why it needs the user's say-so; empty where it passes."""


_NOTHING = Terms()
_WITH_NOTICE = Terms((_NOTICE,))
_WITH_ATTRIBUTION = Terms((_ATTRIBUTION,))
_SAME_LICENCE = Terms((_NOTICE, _SHARE_ALIKE), binds=True)
_OPEN_RAIL = Terms((_NOTICE, _PASS_ON), binds=True)
_RESEARCH = Terms((_NON_COMMERCIAL,), binds=True, refused="forbids commercial use")
_ONLY_LLAMA = Terms((_NOTICE, _PASS_ON), binds=True, refused="forbids the training of models other than Llama")
_OWN_TERMS = Terms((_NOTICE, _PASS_ON), binds=True, refused="binds a model that learns from it to terms of its own")
_UNSAID = Terms((_ASK,), binds=True, refused="says nothing that a program could check")

_TERMS: dict[str, Terms] = {
    **dict.fromkeys(("cc0-1.0", "unlicense", "wtfpl", "pddl", "pddl-1.0", "0bsd", "mit-0", "cc-pddc"), _NOTHING),
    **dict.fromkeys(
        (
            *("apache-2.0", "mit", "isc", "zlib", "ncsa", "postgresql", "afl-3.0", "artistic-2.0", "ecl-2.0"),
            *("bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "psf-2.0", "python-2.0"),
            *("openmdw-1.0", "c-uda"),
        ),
        _WITH_NOTICE,
    ),
    **dict.fromkeys(
        ("odc-by", "odc-by-1.0", "etalab-2.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "ogl-uk-3.0"),
        _WITH_ATTRIBUTION,
    ),
    **dict.fromkeys(
        (
            *("gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "mpl-2.0", "epl-1.0", "epl-2.0"),
            *("eupl-1.1", "eupl-1.2", "osl-3.0", "odbl", "odbl-1.0", "cdla-sharing-1.0", "gfdl", "ms-pl", "ofl-1.1"),
        ),
        _SAME_LICENCE,
    ),
    **dict.fromkeys(
        (
            *("openrail", "openrail++", "bigscience-openrail-m", "creativeml-openrail-m", "bigcode-openrail-m"),
            "bigscience-bloom-rail-1.0",
        ),
        _OPEN_RAIL,
    ),
    **dict.fromkeys(
        (
            *("intel-research", "h-research", "apple-amlr", "deepfloyd-if-license"),
            "fair-noncommercial-research-license",
        ),
        _RESEARCH,
    ),
    **dict.fromkeys(("llama2", "llama3"), _ONLY_LLAMA),
    **dict.fromkeys(("llama3.1", "llama3.2", "llama3.3", "llama4", "gemma"), _OWN_TERMS),
}
_CREATIVE_COMMONS = re.compile(r"cc-by(-nc)?(-sa|-nd)?(?:-([1-4]\.[0-9]))?(?:-[a-z]{2,3})?")
_SPDX_ENDING = re.compile(r"(?:-only|-or-later|\+)$")
_ID = re.compile(r"[a-z0-9][a-z0-9.+-]{0,79}")
_MAY_BECOME: dict[str, frozenset[str]] = {
    "cc-by-sa-4.0": frozenset({"gpl-3.0", "agpl-3.0"}),
    "mpl-2.0": frozenset({"lgpl-2.1", "lgpl-3.0", "gpl-2.0", "gpl-3.0", "agpl-3.0"}),
    "lgpl-2.1": frozenset({"gpl-2.0", "gpl-3.0", "agpl-3.0"}),
    "lgpl-3.0": frozenset({"gpl-3.0", "agpl-3.0"}),
    "gpl-3.0": frozenset({"agpl-3.0"}),
}
"""Licences that say under which others their material may go on."""


class Licensed(Protocol):
    """A source as far as its licence goes, such as a `records.Source`."""

    @property
    def name(self) -> str:
        """Hub id, or what else it is called by."""

    @property
    def license(self) -> str | None:
        """As declared: ids with commas between them, `USER_PROVIDED`, or None."""


@dataclass(frozen=True)
class Declared:
    """What a source declares, before anything else of it is read."""

    name: str
    license: str | None


def terms_of(license_id: str) -> Terms:
    """What follows from a licence, by its id."""
    known = _TERMS.get(license_id) or _TERMS.get(_SPDX_ENDING.sub("", license_id))
    if known is not None:
        return known
    if found := _CREATIVE_COMMONS.fullmatch(license_id):
        return _creative_commons(non_commercial=bool(found[1]), ending=found[2] or "")
    return _UNSAID


def _creative_commons(*, non_commercial: bool, ending: str) -> Terms:
    duties, reasons = [_ATTRIBUTION], []
    if ending == "-sa":
        duties.append(_SHARE_ALIKE)
    if non_commercial:
        duties.append(_NON_COMMERCIAL)
        reasons.append("forbids commercial use")
    if ending == "-nd":
        duties.append(_NO_DERIVATIVES)
        reasons.append("forbids adapted versions")
    return Terms(tuple(duties), binds=non_commercial or bool(ending), refused=" and ".join(reasons))


def ids_of(source: Licensed) -> list[str]:
    """The ids under which a source's licences are accepted; none for local files.

    One is `unknown:<name>` where nothing is declared, and `other:<name>` where a licence has no id and no name.
    """
    if source.license == USER_PROVIDED:
        return []
    found = []
    for declared in (source.license or "").split(", "):
        if declared == "other":
            found.append(f"other:{source.name}")
        elif _ID.fullmatch(declared.removeprefix("other:")):
            found.append(declared)
        else:
            found.append(f"unknown:{source.name}")
    return list(dict.fromkeys(found))


def duties_of(source: Licensed) -> list[str]:
    """What a source's licences ask for, in plain words."""
    return list(dict.fromkeys(duty for license_id in ids_of(source) for duty in terms_of(license_id).duties))


# The gate


def require_accepted(sources: Sequence[Licensed], accepted: Collection[str]) -> None:
    """Refuse sources whose licences do not let a model be trained on them, or not together.

    Args:
        sources: All that the model learns from.
        accepted: Ids that the user named with `--accept-license`.

    Raises: PolicyError that names the source, what was found, and the flag to add.
    """
    for source in sources:
        for license_id in ids_of(source):
            terms = terms_of(license_id)
            if terms.refused and license_id not in accepted:
                raise PolicyError(
                    f"{source.name} should come under a licence that lets a model learn from it, but "
                    f"{_found(license_id, terms)}: choose another, or, if you know that you may use it, "
                    f"add {flag(license_id)}"
                )
    if (pair := _conflict(sources)) and (missing := [i for _, i in pair if i not in accepted]):
        (first, first_id), (second, second_id) = pair
        raise PolicyError(
            f"{first} is under {first_id} and {second} under {second_id}, and a model that learns from both should "
            "keep to both, but neither allows the other: choose another of them, or, if you know that you may combine "
            f"them, add {' '.join(flag(license_id) for license_id in missing)}"
        )


def _found(license_id: str, terms: Terms) -> str:
    kind, _, name = license_id.partition(":")
    if kind == "unknown":
        return "declares none that has an id"
    if kind == "other":
        return f"declares one of its own ({name})"
    return f"its licence {license_id} {terms.refused}"


def flag(license_id: str) -> str:
    """What to add to a command to accept a licence."""
    return f"--accept-license {shlex.quote(license_id)}"


def needing_acceptance(sources: Sequence[Licensed]) -> list[str]:
    """Ids without whose acceptance these sources would be refused."""
    ids = [license_id for source in sources for license_id in ids_of(source) if terms_of(license_id).refused]
    ids += [license_id for _, license_id in _conflict(sources)]
    return list(dict.fromkeys(ids))


def without_effect(accepted: Iterable[str], sources: Sequence[Licensed]) -> list[str]:
    """Accepted ids that none of these sources comes under, such as mistyped ones."""
    used = {license_id for source in sources for license_id in ids_of(source)}
    return [license_id for license_id in accepted if license_id not in used]


def forbidding_sharing(sources: Sequence[Licensed]) -> list[str]:
    """Ids of licences under which a model that learned from these sources may not be shared with everybody.

    They forbid adapted versions, exclude each other, or are not known. Training on them may be fine all the same, so
    that they were accepted for it says nothing here.
    """
    ids = [license_id for source in sources for license_id in ids_of(source)]
    found = [i for i in ids if not is_known(i) or _NO_DERIVATIVES in terms_of(i).duties]
    return list(dict.fromkeys([*found, *(license_id for _, license_id in _conflict(sources))]))


def _conflict(sources: Sequence[Licensed]) -> list[tuple[str, str]]:
    """Two names with their licences, which bind and of which neither allows the other; empty if there are none.

    A licence whose terms are not known may allow everything.
    """
    binding = {i: source.name for source in sources for i in ids_of(source) if is_known(i) and terms_of(i).binds}
    for first in binding:
        for second in binding:
            if first < second and not (_allows(first, second) or _allows(second, first)):
                return [(binding[first], first), (binding[second], second)]
    return []


def is_known(license_id: str) -> bool:
    """Whether the table has this licence."""
    return terms_of(license_id) is not _UNSAID


def _allows(license_id: str, other: str) -> bool:
    """Whether material under a licence may be part of something under another."""
    license_id, other = (_SPDX_ENDING.sub("", name) for name in (license_id, other))
    if license_id == other or other in _MAY_BECOME.get(license_id, ()):
        return True
    one, two = _CREATIVE_COMMONS.fullmatch(license_id), _CREATIVE_COMMONS.fullmatch(other)
    if not one or not two or one[2] == "-nd" or one[1] != two[1]:
        return False
    is_later = (two[3] or "") >= (one[3] or "")
    return (one[2] == two[2] and is_later) or (one[2] is None and two[2] == "-sa")


# The result


def license_of_result(base: Licensed | None, sources: Iterable[Licensed]) -> str | None:
    """The id of the licence that a model comes under; None where no single one can be named.

    Args:
        base: The source of its first weights.
        sources: All that it learned from.
    """
    binding = {license_id for source in sources for license_id in ids_of(source) if terms_of(license_id).binds}
    if not binding:
        ids = ids_of(base) if base else []
        return ids[0] if len(ids) == 1 else None
    found = next((i for i in sorted(binding) if all(_allows(other, i) for other in binding)), None)
    return None if found is None or found.startswith("unknown:") else found
