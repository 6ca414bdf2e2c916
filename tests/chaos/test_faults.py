"""The table of faults: what a resource server says while its issuer is broken, and once it is mended."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.chaos.faults import ROWS, Row, play, problems

AT_ONCE = 12  # rows that are played side by side: those that hang take 10 seconds


@pytest.fixture(scope="module")
def table() -> Iterator[Callable[..., Row]]:
    """Every row, played beside the others."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows: dict[tuple[str, str], Future[Row]] = {row: pool.submit(play, *row) for row in ROWS}
        yield lambda *row: rows[row].result()


@pytest.mark.parametrize(("fault", "keys"), ROWS)
def test_a_fault_of_the_issuer_refuses_no_good_token(table: Callable[..., Row], fault: str, keys: str) -> None:
    """JWK-17, JWK-18: held keys are used, without keys it is 503, bad stays bad, and all is well when it ends."""
    assert problems(fault, keys, table(fault, keys)) == []
