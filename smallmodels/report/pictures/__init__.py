"""From records to pictures: what each phase cost, when a student has paid for itself, how classes and groups do.

A picture of several runs belongs to runs that may be compared; `of_group` gives the sections of such a group.
"""

from collections.abc import Sequence

from smallmodels.records import RunRecord
from smallmodels.report.page import Section
from smallmodels.report.pictures import parts, payback, phases

__all__ = ["of_group", "parts", "payback", "phases"]


def of_group(group: Sequence[RunRecord], title: str, name: str) -> list[Section]:
    """The sections of comparable runs besides those of quality against cost, as far as the records have them.

    Args:
        group: At least one run.
        title: In front of each heading, such as `Group 1: `.
        name: Start of the names of the pictures.
    """
    costs = phases.section(group, title, name)
    return [*([costs] if costs is not None else []), *parts.sections(group, title)]
