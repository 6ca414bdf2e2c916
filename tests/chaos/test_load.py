"""What a record of a load calls a problem: without it no chaos test could fail."""

import pytest

from tests.chaos.load import ACCEPTED, GOOD, KINDS, UNKNOWN_KEY, Outcome, Record
from token_guard import Reason

UNAVAILABLE = Outcome(503, Reason.KEYS_UNAVAILABLE)


def problems(kind: str, outcome: Outcome, **allowed: set[str]) -> list[str]:
    record = Record()
    record.add("here", kind, outcome, 0)
    return record.problems(**allowed)


def test_what_must_be_told_is_no_problem() -> None:
    """Good tokens are accepted, and each bad one is refused for its own reason."""
    for name, kind in KINDS.items():
        assert problems(name, Outcome(401, kind.reason) if kind.reason else ACCEPTED) == []


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (GOOD, Outcome(401, Reason.UNKNOWN_KEY)),
        (GOOD, UNAVAILABLE),
        (GOOD, Outcome(500, "Internal Server Error")),
        ("tampered", ACCEPTED),
        ("expired", ACCEPTED),
        ("expired", UNAVAILABLE),
        ("expired", Outcome(401, Reason.BAD_SIGNATURE)),
        (UNKNOWN_KEY, UNAVAILABLE),
    ],
)
def test_anything_else_is_a_problem(kind: str, outcome: Outcome) -> None:
    """A good token refused, a bad one accepted, a wrong reason, and a 503 that nobody has allowed."""
    assert problems(kind, outcome) == [f"here: 1 of kind {kind!r}: {outcome.status} {outcome.reason}"]


def test_a_503_is_allowed_by_name_and_a_401_never() -> None:
    """Who says that a kind may be unavailable does not say that it may be refused."""
    assert problems(GOOD, UNAVAILABLE, unavailable={GOOD}) == []
    assert problems(GOOD, Outcome(401, Reason.UNKNOWN_KEY), unavailable={GOOD}) != []
