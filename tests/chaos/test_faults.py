"""The table of faults: what a resource server says while its issuer is broken, and once it is mended."""

import time
from contextlib import closing

import pytest

from tests.chaos.faults import ROWS, Row, play_all, problems
from tests.chaos.faulty_issuer import TWO_HOURS, FaultyIssuer
from tests.chaos.load import ACCEPTED, Outcome, of_resource_server
from token_guard import Reason, ResourceServer
from token_guard.testing import LocalIssuer


@pytest.fixture(scope="module")
def table() -> dict[tuple[str, str], Row]:
    return play_all()


@pytest.mark.parametrize(("fault", "keys"), ROWS)
def test_a_fault_of_the_issuer_refuses_no_good_token(table: dict[tuple[str, str], Row], fault: str, keys: str) -> None:
    """JWK-17, JWK-18: held keys are used, without keys it is 503, bad stays bad, and all is well when it ends."""
    assert problems(fault, keys, table[fault, keys]) == []


@pytest.mark.parametrize(
    ("offset", "told"), [(-TWO_HOURS, ACCEPTED), (TWO_HOURS, Outcome(401, Reason.ISSUED_IN_FUTURE))]
)
def test_a_clock_two_hours_off_is_no_matter_of_keys(offset: float, told: Outcome) -> None:
    """JWT-05: a day's token is good two hours late; one from the future is told so, and is good once clocks agree."""
    issuer = LocalIssuer(algorithm="ES256", clock=lambda: time.time() + offset)
    with FaultyIssuer(issuer) as faulty, closing(ResourceServer(issuer=issuer.url, audience="organize")) as organizer:
        door = of_resource_server(organizer)
        assert door.show(issuer.token()) == told
        issuer.clock = time.time
        assert door.show(issuer.token()) == ACCEPTED
        assert faulty.flights == 1
