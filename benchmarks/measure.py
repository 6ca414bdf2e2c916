"""Measure cases in alternation, so that whatever else the machine does meets all of them. Knows nothing of tokens."""

import gc
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from time import process_time
from typing import Any

from benchmarks.report import AT_MOST, Chart, Table


@dataclass(frozen=True)
class Case:
    """Something to measure: `act`, called with each of `inputs` in turn. `floor` names the case it is compared with.

    `at_most` is the ratio to the floor that we aim at, where we aim at one.
    """

    name: str
    act: Callable[[Any], object]
    inputs: Sequence[Any]
    floor: str
    at_most: float | None = None


@dataclass(frozen=True)
class Timing:
    """Microseconds of processor time for one call of a case, over all rounds; and the ratios to those of its floor."""

    case: Case
    best: float
    quartiles: tuple[float, float, float]
    best_ratio: float
    median_ratio: float

    @property
    def median(self) -> float:
        """The second quartile."""
        return self.quartiles[1]


def measure(cases: Iterable[Case], rounds: int) -> dict[str, Timing]:
    """Run every case once a round, forwards and backwards in turn, and return how long one call took, by name."""
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
    spread = {name: spread_of(spent) for name, spent in times.items()}
    return {
        name: Timing(
            case=case,
            best=best[name],
            quartiles=spread[name],
            best_ratio=best[name] / best[case.floor],
            median_ratio=spread[name][1] / spread[case.floor][1],
        )
        for name, case in by_name.items()
    }


def spread_of(numbers: list[float]) -> tuple[float, float, float]:
    """Return the quartiles; a single number is all of them."""
    low, median, high = quantiles(numbers * 2 if len(numbers) == 1 else numbers, n=4)
    return low, median, high


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the outcome of a coroutine that waits for nothing, without an event loop, which would be measured too."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("what should be warm waits for something")


def table(title: str, timings: Iterable[Timing], *, note: str = "", chart: str | None = None) -> Table:
    """Return the timings as a table. With `chart`, the name of a file, the ratios of the best rounds are drawn."""
    columns = ("case", "best µs", "1/4", "median", "3/4", "ratio of best", "of medians", AT_MOST, "compared with")
    return Table(
        title,
        columns,
        [
            (
                one.case.name,
                one.best,
                *one.quartiles,
                one.best_ratio,
                one.median_ratio,
                one.case.at_most,
                one.case.floor,
            )
            for one in timings
        ],
        note=note,
        chart=None if chart is None else Chart(chart, ("ratio of best",), "times the bare signature check"),
        limited="ratio of best",
    )


def _microseconds(case: Case) -> float:
    act = case.act
    started = process_time()  # what other processes do meanwhile is not counted
    for one in case.inputs:
        act(one)
    return (process_time() - started) / len(case.inputs) * 1e6
