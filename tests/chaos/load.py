"""Good and bad tokens, shown to many doors at once from threads and tasks, and a record of what each was told.

A door is a resource server, or an application behind one. Knows nothing about faults and keys: whoever runs the load
says which kinds of tokens may be answered 503.
"""

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import NamedTuple

import httpx

from tests.chaos.clock import ManualClock
from token_guard import Reason, RequestRejected, ResourceServer, TemporarilyUnavailable
from token_guard.testing import LocalIssuer

PATIENCE = 60  # seconds: only a load that is stuck takes longer to answer or to end
LONGEST_RETRY = 30.0  # seconds after which an issuer that was down is asked again
MOST_DIFFERENT = 100  # tokens of one kind that a crowd shows
PAUSE = 0.02  # seconds between two tokens of one stream


class Outcome(NamedTuple):
    """What a door said: a status, and for a refusal its reason."""

    status: int
    reason: str


ACCEPTED = Outcome(200, "accepted")
REFUSED_UNKNOWN = Outcome(401, Reason.UNKNOWN_KEY)
STUCK = Outcome(0, "no answer")


class Kind(NamedTuple):
    """Tokens that are refused for the same reason, None for good ones.

    Whether a token is bad can be told without any key where `by_keys` is false.
    """

    mint: Callable[[LocalIssuer], str]
    reason: Reason | None
    by_keys: bool = True


GOOD = "good"
UNKNOWN_KEY = "unknown key"

KINDS = {
    GOOD: Kind(lambda issuer: issuer.token(), None),
    "tampered": Kind(lambda issuer: issuer.tampered(issuer.token()), Reason.BAD_SIGNATURE),
    "signed by a stranger": Kind(lambda issuer: issuer.signed_by_stranger(), Reason.BAD_SIGNATURE),
    UNKNOWN_KEY: Kind(lambda issuer: issuer.unknown_key(), Reason.UNKNOWN_KEY),
    "expired": Kind(lambda issuer: issuer.expired(), Reason.EXPIRED, by_keys=False),
    "wrong audience": Kind(
        lambda issuer: issuer.token(audience="https://elsewhere.example/"), Reason.WRONG_AUDIENCE, by_keys=False
    ),
    "wrong issuer": Kind(
        lambda issuer: issuer.token(issuer="https://elsewhere.example/"), Reason.WRONG_ISSUER, by_keys=False
    ),
    "unsigned": Kind(lambda issuer: issuer.unsigned(), Reason.ALGORITHM_NOT_ALLOWED, by_keys=False),
}
NEED_KEYS = frozenset(name for name, kind in KINDS.items() if kind.by_keys)

# Each door gets these streams. An unknown key may wait for a fetch, and so must hold up nobody else.
STREAMS: tuple[tuple[str, ...], ...] = (
    (GOOD,),
    (GOOD,),
    tuple(name for name, kind in KINDS.items() if kind.reason and name != UNKNOWN_KEY),
    (UNKNOWN_KEY,),
)


@dataclass(frozen=True)
class Door:
    """Where tokens are shown: by threads, and by tasks where it has a way for them."""

    show: Callable[[str], Outcome]
    show_async: Callable[[str], Awaitable[Outcome]] | None = None


def of_resource_server(organizer: ResourceServer) -> Door:
    """Show tokens to a resource server in this process."""

    def show(token: str) -> Outcome:
        try:
            organizer.validate(token)
        except (RequestRejected, TemporarilyUnavailable) as error:
            return Outcome(error.status, error.reason)
        return ACCEPTED

    async def show_async(token: str) -> Outcome:
        try:
            await organizer.validate_async(token)
        except (RequestRejected, TemporarilyUnavailable) as error:
            return Outcome(error.status, error.reason)
        return ACCEPTED

    return Door(show, show_async)


@contextmanager
def of_application(url: str) -> Iterator[Door]:
    """Show tokens to an application that listens at this address and tells its reasons."""
    # No proxy of the environment, and each answer from a connection of its own: a server may drop one that is kept.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=url, timeout=PATIENCE, limits=limits, trust_env=False) as client:

        def show(token: str) -> Outcome:
            answer = client.get("/contacts", headers={"Authorization": f"Bearer {token}"})
            if answer.status_code == 200:
                return ACCEPTED
            if answer.headers.get("Content-Type") != "application/json":
                return Outcome(answer.status_code, f"no refusal of ours: {answer.text[:60]!r}")
            reason = answer.json()["reason"]
            challenged, told_when = "WWW-Authenticate" in answer.headers, "Retry-After" in answer.headers
            if (challenged, told_when) != (answer.status_code == 401, answer.status_code == 503):
                reason += ", with the wrong headers"
            return Outcome(answer.status_code, reason)

        yield Door(show)


@dataclass
class Record:
    """What each door said to each kind of token, how often, and the seconds that it took."""

    told: Counter[tuple[str, str, Outcome]] = field(default_factory=Counter)
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, door: str, kind: str, outcome: Outcome, seconds: float) -> None:
        with self._lock:
            self.told[door, kind, outcome] += 1
            self.seconds[door, kind].append(seconds)

    def outcomes(self) -> dict[str, set[Outcome]]:
        """What each kind of token was told, by any door."""
        told: dict[str, set[Outcome]] = defaultdict(set)
        for _, kind, outcome in self.told:
            told[kind].add(outcome)
        return dict(told)

    def problems(self, *, unavailable: Collection[str] = ()) -> list[str]:
        """What must not have happened: a good token refused, a bad one accepted or refused for another reason.

        A 503 is allowed to the kinds `unavailable` alone.
        """
        wrong = []
        for (door, kind, outcome), number in sorted(self.told.items()):
            reason = KINDS[kind].reason
            expected = ACCEPTED if reason is None else Outcome(401, reason)
            if outcome != expected and not (outcome.status == 503 and kind in unavailable):
                wrong.append(f"{door}: {number} of kind {kind!r}: {outcome.status} {outcome.reason}")
        return wrong

    def __iadd__(self, other: "Record") -> "Record":
        self.told += other.told
        for told, seconds in other.seconds.items():
            self.seconds[told] += seconds
        return self


def show_each(
    door: Door, issuer: LocalIssuer, *, name: str, kinds: Iterable[str] = KINDS, threads: int = 1, tasks: int = 1
) -> Record:
    """Show so many tokens of each kind, all at once; from tasks only where the door has a way for them."""
    record = Record()
    by_thread, by_task = ([*_tokens(issuer, kinds, number)] for number in (threads, tasks))
    crowd = [threading.Thread(target=show, args=(door, name, *token, record), daemon=True) for token in by_thread]
    for thread in crowd:
        thread.start()
    if door.show_async is not None:
        asyncio.run(_show_all_async(door, name, by_task, record))
    for thread in crowd:
        thread.join(PATIENCE)
        if thread.is_alive():
            record.add(name, GOOD, STUCK, PATIENCE)
    return record


@contextmanager
def load(doors: Mapping[str, Door], issuer: LocalIssuer) -> Iterator[Record]:
    """Show tokens of every kind to every door, on several streams each, until the block ends.

    Each token is shown twice: the second time it may be remembered.
    """
    record, over = Record(), threading.Event()
    threads = [
        threading.Thread(target=_stream, args=(door, name, issuer, kinds, record, over), daemon=True)
        for name, door in doors.items()
        for kinds in STREAMS
    ]
    tasks = threading.Thread(target=lambda: asyncio.run(_streams_async(doors, issuer, record, over)), daemon=True)
    for thread in (*threads, tasks):
        thread.start()
    try:
        yield record
    finally:
        over.set()
        for thread in (*threads, tasks):
            thread.join(PATIENCE)
            if thread.is_alive():
                record.add("load", GOOD, STUCK, PATIENCE)


def _tokens(issuer: LocalIssuer, kinds: Iterable[str], number: int) -> Iterator[tuple[str, str]]:
    """So many tokens of each kind; in a crowd several show the same one."""
    for kind in kinds:
        different = [KINDS[kind].mint(issuer) for _ in range(min(number, MOST_DIFFERENT))]
        yield from ((kind, different[one % MOST_DIFFERENT]) for one in range(number))


def show(door: Door, name: str, kind: str, token: str, record: Record) -> None:
    """Show a token to the door of this name, and record what it said."""
    started = time.perf_counter()
    try:
        outcome = door.show(token)
    except Exception as error:  # noqa: BLE001  # nothing may leave a door but what it knows how to say
        outcome = Outcome(500, repr(error))
    record.add(name, kind, outcome, time.perf_counter() - started)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        time.sleep(PAUSE)


def recovered(doors: Iterable[Door], issuer: LocalIssuer, clock: ManualClock | None = None) -> bool:
    """Whether every door has fetched keys by now: only then is an unknown key not just unavailable."""
    if clock is not None:
        clock.advance(LONGEST_RETRY)
    return all(door.show(issuer.unknown_key()) == REFUSED_UNKNOWN for door in doors)


async def _show_async(door: Door, name: str, kind: str, token: str, record: Record) -> None:
    assert door.show_async is not None
    started = time.perf_counter()
    try:
        outcome = await door.show_async(token)
    except Exception as error:  # noqa: BLE001
        outcome = Outcome(500, repr(error))
    record.add(name, kind, outcome, time.perf_counter() - started)


async def _show_all_async(door: Door, name: str, tokens: Iterable[tuple[str, str]], record: Record) -> None:
    await asyncio.gather(*(_show_async(door, name, kind, token, record) for kind, token in tokens))


def _stream(
    door: Door, name: str, issuer: LocalIssuer, kinds: tuple[str, ...], record: Record, over: threading.Event
) -> None:
    for number, kind in enumerate(cycle(kinds), 1):
        token = KINDS[kind].mint(issuer)
        for _ in range(2):
            show(door, name, kind, token, record)
        if over.wait(PAUSE) and number >= len(kinds):
            break


async def _stream_async(
    door: Door, name: str, issuer: LocalIssuer, kinds: tuple[str, ...], record: Record, over: threading.Event
) -> None:
    for number, kind in enumerate(cycle(kinds), 1):
        token = KINDS[kind].mint(issuer)
        for _ in range(2):
            await _show_async(door, name, kind, token, record)
        await asyncio.sleep(PAUSE)
        if over.is_set() and number >= len(kinds):
            break


async def _streams_async(doors: Mapping[str, Door], issuer: LocalIssuer, record: Record, over: threading.Event) -> None:
    streams = (
        _stream_async(door, name, issuer, kinds, record, over)
        for name, door in doors.items()
        if door.show_async is not None
        for kinds in STREAMS
    )
    await asyncio.gather(*streams)
