"""Measure cases in alternation, so that whatever else the machine does meets all of them. Knows nothing of tokens."""

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from time import process_time
from typing import Any


@dataclass(frozen=True)
class Case:
    """Something to measure: `act`, called with each of `inputs` in turn. `floor` names the case it is compared with."""

    name: str
    act: Callable[[Any], object]
    inputs: Sequence[Any]
    floor: str


@dataclass(frozen=True)
class Timing:
    """Microseconds of processor time for one call of a case, over all rounds; and the ratios to those of its floor."""

    name: str
    floor: str
    best: float
    quartiles: tuple[float, float, float]  # the second is the median
    best_ratio: float
    median_ratio: float


def measure(cases: Iterable[Case], rounds: int) -> list[Timing]:
    """Run every case once a round, forwards and backwards in turn, and return how long one call took."""
    by_name = {case.name: case for case in cases}
    times: dict[str, list[float]] = {name: [] for name in by_name}
    for number in range(-1, rounds):  # round -1 warms up and is not counted
        gc.collect()
        gc.disable()  # a collection would be charged to whoever happens to cause it
        for name in list(by_name)[:: -1 if number % 2 else 1]:
            spent = _microseconds(by_name[name])
            if number >= 0:
                times[name].append(spent)
        gc.enable()
    best = {name: min(spent) for name, spent in times.items()}
    # A single round has no quartiles; it is all of them.
    spread = {name: quantiles(spent * 2 if rounds == 1 else spent, n=4) for name, spent in times.items()}
    return [
        Timing(
            name=name,
            floor=case.floor,
            best=best[name],
            quartiles=(spread[name][0], spread[name][1], spread[name][2]),
            best_ratio=best[name] / best[case.floor],
            median_ratio=spread[name][1] / spread[case.floor][1],
        )
        for name, case in by_name.items()
    ]


def table(timings: Iterable[Timing]) -> str:
    """Return the timings as text."""
    lines = [
        f"{'microseconds a call':32} {'best':>8} {'1/4':>8} {'median':>8} {'3/4':>8}   ratio: {'best':>6} {'median':>6}"
    ]
    for one in timings:
        low, median, high = one.quartiles
        lines.append(
            f"{one.name:32} {one.best:8.2f} {low:8.2f} {median:8.2f} {high:8.2f}"
            f"   {'':6} {one.best_ratio:6.2f} {one.median_ratio:6.2f}  of {one.floor}"
        )
    return "\n".join(lines)


def _microseconds(case: Case) -> float:
    act = case.act
    started = process_time()  # what other processes do meanwhile is not counted
    for one in case.inputs:
        act(one)
    return (process_time() - started) / len(case.inputs) * 1e6
