"""The table of faults: what a resource server says while its issuer is broken, and once it is mended."""

import pytest

from tests.chaos.faults import ROWS, Row, play_all, problems


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, str], Row]:
    return play_all()


@pytest.mark.parametrize(("fault", "keys"), ROWS)
def test_a_fault_of_the_issuer_refuses_no_good_token(table: dict[tuple[str, str], Row], fault: str, keys: str) -> None:
    """JWK-17, JWK-18: held keys are used, without keys it is 503, bad stays bad, and all is well when it ends."""
    assert problems(fault, keys, table[fault, keys]) == []
