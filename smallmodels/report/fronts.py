"""Which model is worth its cost: the Pareto front, and what may be said of it where intervals overlap."""

from collections.abc import Sequence

from smallmodels.report.figures import Point


def pareto_front(points: Sequence[Point]) -> list[bool]:
    """For each point, whether no other is at least as good and at least as cheap, and better in one of the two."""
    return [not any(_beats(other, point) for other in points) for point in points]


def _beats(one: Point, two: Point) -> bool:
    return one.x <= two.x and one.y >= two.y and (one.x < two.x or one.y > two.y)


def verdicts(points: Sequence[Point]) -> list[str]:
    """What each point's place means; where intervals of quality overlap, no difference in quality is claimed."""
    return [_verdict(point, points, front) for point, front in zip(points, pareto_front(points), strict=True)]


def _verdict(point: Point, points: Sequence[Point], on_front: bool) -> str:
    if on_front:
        cheaper = [p for p in points if p.x < point.x and not clearly_better(point, p)]
        if cheaper:
            return f"on the front, but not clearly better than {max(cheaper, key=lambda p: p.y).label}"
        return "on the front" if any(p.x < point.x for p in points) else "on the front: nothing is cheaper"
    rivals = [p for p in points if _beats(p, point)]
    rival = max(rivals, key=lambda p: (clearly_better(p, point), -p.x))
    cost = "costs less" if rival.x < point.x else "costs the same"
    if clearly_better(rival, point):
        return f"{rival.label} is better and {cost}"
    return f"quality not told apart from {rival.label}, which {cost}"


def clearly_better(one: Point, two: Point) -> bool:
    """Whether the quality of one lies above that of two, and their intervals do not overlap; without ends it is not."""
    return one.y_low is not None and two.y_high is not None and one.y_low > two.y_high
