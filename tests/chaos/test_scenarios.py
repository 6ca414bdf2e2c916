"""What can happen to an issuer while good and bad tokens come in: no good one refused, no bad one accepted.

Each scenario is played for a moment, in this process and on Flask, Django and Starlette; scripts/chaos plays it for as
long as it is told.
"""

from pathlib import Path

from tests.chaos.scenarios import asleep, flood, outage, restart, rotation, stampede


def test_keys_rotate_every_two_seconds(tmp_path: Path) -> None:
    """JWK-10: a key published longer than the cooldown is known, one withdrawn is refused after the next fetch."""
    assert rotation(6, tmp_path).problems == []


def test_the_issuer_is_down_for_ten_minutes(tmp_path: Path) -> None:
    """JWK-18: the keys that are held are used for ten of their lifetimes, whatever the issuer answers meanwhile."""
    assert outage(0, tmp_path).problems == []


def test_random_key_ids_flood_in(tmp_path: Path) -> None:
    """JWK-17: they cause one fetch a cooldown, are not remembered, and no good token waits for their fetch."""
    assert flood(0, tmp_path).problems == []


def test_thousands_come_while_no_keys_are_held(tmp_path: Path) -> None:
    """JWK-17: ten thousand tasks, and two hundred threads, share one fetch."""
    assert stampede(0, tmp_path).problems == []


def test_the_issuer_sleeps_while_its_key_changes(tmp_path: Path) -> None:
    """JWK-10: whoever shows a token of the new key waits until the issuer is awake, and nobody else does."""
    assert asleep(0, tmp_path).problems == []


def test_everybody_restarts_during_an_outage(tmp_path: Path) -> None:
    """JWK-18: a process that starts while the issuer is down uses the keys of the store."""
    assert restart(0, tmp_path).problems == []
