"""What one run measures, and how much of it: a plan for each choice on the command line."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and the `name` of so much of it.

    `rounds` that every case takes part in; `tokens` distinct ones, each used once a round; `rotating` in the larger
    list of hits; `remembered` in the cache whose memory is measured; `distinct` through a cache of a hundredth as many.
    For HTTP: `seconds` of load in each of `loads` rounds, at each number of `processes`.
    `imports` of each package, `refreshes` of keys, and `counted` validations whose instructions are.
    `only` cases of validation whose name contains one of these, unless there are none; `record` the instructions.
    """

    name: str
    rounds: int
    tokens: int
    rotating: int
    remembered: int
    distinct: int
    seconds: int
    loads: int
    processes: tuple[int, ...]
    imports: int
    refreshes: int
    counted: int = 1_000
    only: tuple[str, ...] = ()
    record: bool = False


QUICK = Plan(
    name="quick",
    rounds=15,
    tokens=200,
    rotating=10_000,
    remembered=20_000,
    distinct=100_000,
    seconds=1,
    loads=3,
    processes=(1,),
    imports=5,
    refreshes=50,
)
FULL = Plan(
    name="full",
    rounds=60,
    tokens=200,
    rotating=10_000,
    remembered=100_000,
    distinct=1_000_000,
    seconds=1,
    loads=10,
    processes=(1, 2, 4),
    imports=20,
    refreshes=200,
)
TINY = Plan(
    name="tiny",
    rounds=1,
    tokens=2,
    rotating=4,
    remembered=100,
    distinct=200,
    seconds=1,
    loads=1,
    processes=(1,),
    imports=1,
    refreshes=2,
    counted=10,
)
