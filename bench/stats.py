# SPDX-License-Identifier: GPL-2.0-only
"""Medians, and how far they can be trusted: bootstrap intervals over rounds.

Cases are measured in interleaved rounds, so what slows a machine for a while slows all cases of
a round. A round is therefore drawn as a whole: a ratio compares what was measured side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import linear_regression, median, quantiles

_DRAWS = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        return not self.low <= value <= self.high


def estimate(figure: Callable[..., float], *series: Sequence[float]) -> Estimate:
    """A figure made of the medians of some series, which have the same rounds."""
    rounds = range(len(series[0]))
    random = Random(0)  # the same data, the same interval
    drawn = []
    for _ in range(_DRAWS):
        chosen = random.choices(rounds, k=len(rounds))
        drawn.append(figure(*(median([each[i] for i in chosen]) for each in series)))
    cuts = quantiles(drawn, n=40, method="inclusive")  # every 2.5 %
    return Estimate(figure(*map(median, series)), cuts[0], cuts[-1])


def ratio(series: Sequence[float], base: Sequence[float]) -> Estimate:
    """How many times the base's median a series' median is."""
    return estimate(lambda a, b: a / b, series, base)


def slope(sizes: Sequence[float], series: Sequence[Sequence[float]]) -> Estimate:
    """What one more unit of size costs, from series measured at several sizes."""
    return estimate(lambda *costs: linear_regression(sizes, costs).slope, *series)
