"""Medians, spreads and ratios of a handful of rounds. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of all values do not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or `percent` is outside 0 < percent <= 100.
    """
    if not values or not 0 < percent <= 100:
        raise ValueError(f"no percentile {percent} of {len(values)} values")
    ordered = sorted(values)
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def spread(values: Sequence[float]) -> float:
    """Half the range, as a share of the median: 0.05 reads as "plus or minus 5 %".

    0.0 for one value, and where the median is 0.
    """
    middle = median(values)
    return (max(values) - min(values)) / 2 / abs(middle) if middle else 0.0


def round_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median of ours / theirs, round by round: both sides saw the same machine.

    None where no round has both, or theirs is 0 throughout.
    """
    pairs = [a / b for a, b in zip(ours, theirs, strict=False) if b]
    return median(pairs) if pairs else None


def round_difference(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median of ours - theirs, round by round; None where no round has both."""
    pairs = [a - b for a, b in zip(ours, theirs, strict=False)]
    return median(pairs) if pairs else None
