"""The one thread that all fetches run on, and how threads and tasks of any loop wait for it."""

import asyncio
import gc
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import anyio
import pytest

from token_guard import flights
from token_guard.errors import TemporarilyUnavailable
from token_guard.fetch import Fetcher
from token_guard.flights import FetchThread, wait, wait_async

PATIENCE = 20  # seconds, for what happens at once: only a test that fails waits so long

BACKENDS = ["asyncio", "trio"]


@pytest.fixture
def thread() -> Iterator[FetchThread]:
    thread = FetchThread(None)
    yield thread
    thread.close()


def start(thread: FetchThread, errand: Callable[[], Coroutine[Any, Any, Any]]) -> "Future[Any]":
    """Run an errand on the thread; its outcome to wait for."""
    outcome: Future[Any] = Future()

    async def run() -> None:
        try:
            outcome.set_result(await errand())
        except BaseException as error:
            outcome.set_exception(error)
            raise

    thread.run(run())
    return outcome


def running_flight() -> "Future[None]":
    flight: Future[None] = Future()
    flight.set_running_or_notify_cancel()
    return flight


async def current_thread() -> threading.Thread:
    return threading.current_thread()


async def own_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def for_ever() -> None:
    await asyncio.sleep(3600)  # held by the loop's timer: what nobody holds would be collected


# The thread.


def test_runs_all_errands_on_one_daemon_thread(thread: FetchThread) -> None:
    """JWK-17: an errand runs beside its caller, on a thread that keeps no interpreter from ending."""
    first = start(thread, current_thread).result(PATIENCE)
    assert first is start(thread, current_thread).result(PATIENCE)
    assert first is not threading.current_thread()
    assert (first.daemon, first.name) == (True, "token-guard-fetch")


def test_starts_no_thread_before_the_first_errand() -> None:
    """A resource server with given keys, or in a master process before it forks, has no thread."""
    before = set(threading.enumerate())
    FetchThread(None)
    assert set(threading.enumerate()) <= before


def test_an_errand_does_not_wait_for_another(thread: FetchThread) -> None:
    """JWK-17: an issuer that hangs does not hold up another."""
    start(thread, for_ever)
    assert start(thread, current_thread).result(PATIENCE).daemon


def test_an_errand_knows_nothing_of_the_request_that_started_it(thread: FetchThread) -> None:
    """BEARER-15: a flight outlives the request; the context of that request, with its token, stays behind."""
    request = ContextVar("request", default="none")
    request.set("holds a token")

    async def context() -> str:
        return request.get()

    assert start(thread, context).result(PATIENCE) == "none"


def test_close_ends_the_thread_and_its_errands(thread: FetchThread) -> None:
    """What is under way is cancelled, the connections are closed, and the thread ends."""

    async def fetcher() -> Fetcher:
        return thread.fetcher(public_only=False)

    hanging = start(thread, for_ever)
    ended = start(thread, current_thread).result(PATIENCE)
    held = start(thread, fetcher).result(PATIENCE)
    thread.close()
    ended.join(PATIENCE)
    assert not ended.is_alive()
    assert isinstance(hanging.exception(PATIENCE), asyncio.CancelledError)
    assert held._client.is_closed
    assert held._direct.is_closed


def test_can_be_closed_twice_and_used_again(thread: FetchThread) -> None:
    """After a close, an errand starts a new thread."""
    first = start(thread, current_thread).result(PATIENCE)
    thread.close()
    thread.close()
    assert start(thread, current_thread).result(PATIENCE) is not first


def test_a_new_thread_never_gets_the_connections_of_a_closed_one(thread: FetchThread) -> None:
    """An HTTP client belongs to one loop, also while that loop is too busy to notice that it was closed."""

    async def fetcher() -> Fetcher:
        return thread.fetcher(public_only=False)

    async def block() -> None:
        unblocked.wait(PATIENCE)

    unblocked = threading.Event()
    first = start(thread, fetcher).result(PATIENCE)
    start(thread, block)
    thread.close()
    second = start(thread, fetcher).result(PATIENCE)
    unblocked.set()
    assert second is not first


def test_ends_with_its_owner() -> None:
    """A resource server that nobody holds any longer leaves no thread behind, even if nobody closed it."""
    thread = FetchThread(None)
    ended = start(thread, current_thread).result(PATIENCE)
    del thread
    gc.collect()
    ended.join(PATIENCE)
    assert not ended.is_alive()


# Those who wait.


def test_a_landed_flight_is_waited_for_by_nobody() -> None:
    """Each way of waiting returns at once where the flight has landed."""
    flight = running_flight()
    flight.set_result(None)
    wait(flight)
    for backend in BACKENDS:
        anyio.run(wait_async, flight, backend=backend)


def test_a_thread_waits_until_the_flight_lands() -> None:
    """The flight lands on another thread."""
    flight = running_flight()
    threading.Timer(0.01, flight.set_result, [None]).start()
    wait(flight)
    assert flight.done()


def unavailable(waiting: Callable[[], object]) -> TemporarilyUnavailable:
    with pytest.raises(TemporarilyUnavailable) as raised:
        waiting()
    return raised.value


def test_nobody_waits_for_ever() -> None:
    """JWK-17, JWK-18: where even the fetch thread is stuck, the answer is 503, for threads and tasks alike."""
    text = "keys_unavailable: the fetch thread does not answer"
    assert str(unavailable(lambda: wait(running_flight(), 0.01))) == text
    for backend in BACKENDS:
        stuck = unavailable(lambda name=backend: anyio.run(wait_async, running_flight(), 0.01, backend=name))  # type: ignore[misc]
        assert str(stuck) == text


@pytest.mark.parametrize("anyio_backend", BACKENDS)
@pytest.mark.anyio
async def test_a_cancelled_waiter_strands_nobody(anyio_backend: str) -> None:
    """JWK-17: whoever gives up leaves the flight to the others, the first one included."""
    flight = running_flight()
    arrived = []

    async def wait_and_tell(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await wait_async(flight)
            arrived.append(name)

    leader = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_and_tell, "leader", leader)
        tasks.start_soon(wait_and_tell, "follower", anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        leader.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not flight.cancelled()
        flight.set_result(None)
    assert arrived == ["follower"]


def test_asyncio_waits_while_another_thread_imports_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """JWK-17: the first flight imports httpx, which imports trio, and those who wait meanwhile see a part of it."""
    monkeypatch.setitem(sys.modules, "trio", ModuleType("trio"))
    flight = running_flight()
    flight.set_result(None)
    asyncio.run(wait_async(flight))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flight_lands_after_the_loop_of_a_waiter_has_ended(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """A waiter that is gone with its loop is no error, neither for the flight nor in the log."""
    flight = running_flight()

    async def give_up() -> None:
        with anyio.move_on_after(0):
            await wait_async(flight)

    anyio.run(give_up, backend=backend)
    flight.set_result(None)
    assert not caplog.records


def test_each_waiter_raises_an_error_of_its_own() -> None:
    """BEARER-15: a shared exception would gather the frames of all who wait, and each would see the others'."""
    flight: Future[None] = Future()
    flight.set_exception(TemporarilyUnavailable(detail="the issuer is down", retry_after=7))
    raised = []
    for _ in range(2):
        with pytest.raises(TemporarilyUnavailable, match="the issuer is down") as error:
            wait(flight)
        raised.append(error.value)
    assert raised[0] is not raised[1]
    assert [error.retry_after for error in raised] == [7, 7]


def test_begins_anew_without_what_a_forked_child_does_not_have(thread: FetchThread) -> None:
    """The parent's thread and its clients, and a lock that may be held. The parent's loop stays open."""
    FetchThread(None).begin_anew()  # with nothing begun, there is nothing to leave behind
    half_begun = FetchThread(None)
    half_begun._loop = asyncio.new_event_loop()  # the process forked before its thread was started
    half_begun.begin_anew()
    flights._abandoned.pop().close()

    async def fetcher() -> Fetcher:
        return thread.fetcher(public_only=False)

    parents, client, loop = (start(thread, errand).result(PATIENCE) for errand in (current_thread, fetcher, own_loop))
    with thread._lock:
        thread.begin_anew()
        own = start(thread, current_thread).result(PATIENCE)
    assert own is not parents
    assert start(thread, fetcher).result(PATIENCE) is not client
    assert list(thread._fetchers.values()).count(client) == 0
    assert loop in flights._abandoned
    flights._abandoned.remove(loop)
    loop.call_soon_threadsafe(loop.stop)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_replaced(thread: FetchThread) -> None:
    """A transport that ends its thread costs the errand that it was for, and no later one."""

    async def end_the_thread() -> threading.Thread:
        asyncio.get_running_loop().call_soon(sys.exit)
        return threading.current_thread()

    ended = start(thread, end_the_thread).result(PATIENCE)
    ended.join(PATIENCE)
    assert start(thread, current_thread).result(PATIENCE) is not ended
    start(thread, end_the_thread).result(PATIENCE).join(PATIENCE)
    thread.close()  # of a thread that is gone, nothing is left to be closed
    assert start(thread, current_thread).result(PATIENCE).is_alive()


@pytest.mark.parametrize("patience", [PATIENCE, 0.01], ids=["in time", "too late"])
def test_asyncio_tells_of_no_failure_that_the_waiter_knows(patience: float, caplog: pytest.LogCaptureFixture) -> None:
    """It logs an error that nobody looked at. Ours are raised, or are none of the waiter's who gave up."""
    flight = running_flight()

    async def wait_for_failure() -> None:
        waiting = asyncio.create_task(wait_async(flight, patience))
        await asyncio.sleep(0.02)
        flight.set_exception(TemporarilyUnavailable(detail="the issuer is down"))
        with pytest.raises(TemporarilyUnavailable):
            await waiting
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(wait_for_failure())
    assert caplog.records == []
