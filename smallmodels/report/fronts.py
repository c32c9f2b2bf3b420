"""Which model is worth its cost: the Pareto front, and what may be said of it where intervals overlap."""

from collections.abc import Callable, Sequence

from smallmodels.report.figures import Point

Better = Callable[[int, int], bool]
"""Whether the quality of one point, by its place, is better than that of another beyond chance and margin."""


def pareto_front(points: Sequence[Point]) -> list[bool]:
    """For each point, whether no other is at least as good and at least as cheap, and better in one of the two."""
    return [not any(_beats(other, point) for other in points) for point in points]


def _beats(one: Point, two: Point) -> bool:
    return one.x <= two.x and one.y >= two.y and (one.x < two.x or one.y > two.y)


_MANY = 100
"""Of more models, each is compared with those on the front alone: every one that is not on it loses to one there."""


def verdicts(
    points: Sequence[Point], *, better: Better | None = None, one_seed: bool = False, all_ranked: bool = True
) -> list[str]:
    """What each point's place means; points whose quality is not told apart are called indistinguishable.

    Args:
        points: With intervals where they are known.
        better: From pairs of models; without it, intervals that do not overlap are what is better.
        one_seed: Whether a single run is behind every point, which then names no winner.
        all_ranked: Whether these are all models that are shown; of one that is not ranked nothing is said.
    """
    nothing = "nothing is cheaper" if all_ranked else "no ranked model is cheaper"

    def from_intervals(one: int, two: int) -> bool:
        return clearly_better(points[one], points[two])

    is_better = better or from_intervals
    fronts = pareto_front(points)
    asked = [i for i in range(len(points)) if fronts[i] or len(points) <= _MANY]
    return [_verdict(i, points, asked, fronts[i], is_better, one_seed, nothing) for i in range(len(points))]


def _verdict(
    place: int,
    points: Sequence[Point],
    asked: Sequence[int],
    on_front: bool,
    better: Better,
    one_seed: bool,
    nothing: str,
) -> str:
    point, places = points[place], range(len(points))
    if on_front:
        alike = [i for i in places if points[i].x < point.x and not better(place, i)]
        if alike:
            rival = points[max(alike, key=lambda i: points[i].y)]
            return f"on the front, but indistinguishable from {rival.label}, which {_cost_words(rival, point)}"
        return "on the front" if any(p.x < point.x for p in points) else f"on the front: {nothing}"
    rivals = sorted((i for i in asked if _beats(points[i], point)), key=lambda i: points[i].x)
    first = next((i for i in rivals if better(i, place)), rivals[0])
    rival = points[first]
    if not better(first, place):
        return f"indistinguishable from {rival.label}, which {_cost_words(rival, point)}"
    if one_seed:
        return f"below {rival.label} in this run, which {_cost_words(rival, point)}; one seed names no winner"
    return f"{rival.label} is better and {_cost_words(rival, point)}"


def _cost_words(rival: Point, point: Point) -> str:
    """How the cost of a rival compares; intervals of cost that overlap tell nothing apart either."""
    if rival.x == point.x:
        return "costs the same"
    if rival.x_high is not None and point.x_low is not None and rival.x_high >= point.x_low:
        return "costs the same within the intervals"
    return "costs less"


def clearly_better(one: Point, two: Point) -> bool:
    """Whether the quality of one lies above that of two, and their intervals do not overlap; without ends it is not."""
    return one.y_low is not None and two.y_high is not None and one.y_low > two.y_high
