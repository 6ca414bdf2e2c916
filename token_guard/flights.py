"""Flights: errands to other servers that threads and tasks of any event loop wait for.

All flights of a resource server run on one daemon thread with an event loop of its own; whoever needs an outcome waits
on one `concurrent.futures.Future`. Knows nothing about what is fetched.
"""

import asyncio
import copy
import os
import sys
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeout
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import TemporarilyUnavailable
from .fetch import Fetcher, FetchLoop

if TYPE_CHECKING:
    import httpx

Outcome = TypeVar("Outcome")

FLIGHT_TIMEOUT = 10.0  # seconds, for all requests of one flight together
PATIENCE = FLIGHT_TIMEOUT + 1  # seconds; a flight that takes longer has a thread that is stuck


class ForkAware(Protocol):
    """Something that holds a lock, or waits for another thread."""

    def begin_anew(self) -> None:
        """Begin anew in a forked child."""


fork_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


class FetchThread:
    """One daemon thread with one event loop and one HTTP client, for all issuers of a resource server.

    Started when something is fetched for the first time, and made anew after a fork or after `close()`.
    """

    def __init__(self, transport: "httpx.AsyncBaseTransport | None") -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finalizer: weakref.finalize[..., FetchThread] | None = None
        self._fetchers: dict[tuple[asyncio.AbstractEventLoop, bool], Fetcher] = {}
        fork_aware.add(self)

    def run(self, errand: Coroutine[Any, Any, None]) -> None:
        """Run `errand` on the thread. Returns at once.

        Raises:
            RuntimeError: the thread cannot be started.
        """
        with self._lock:
            if self._loop is None or self._loop.is_closed():  # closed, where something has ended the thread
                self._detach()
                try:
                    self._loop = loop = _started_loop()
                except (OSError, RuntimeError) as error:  # no file descriptor is left, or no thread can be started
                    errand.close()
                    raise RuntimeError(f"{type(error).__name__}: {error}") from None
                self._finalizer = weakref.finalize(self, loop.call_soon_threadsafe, loop.stop)
            # In an empty context: nothing of the request that happens to start a flight reaches it, neither its token
            # nor the name of its event loop, by which HTTP clients choose theirs.
            Context().run(asyncio.run_coroutine_threadsafe, errand, self._loop)

    def fetcher(self, *, public_only: bool) -> Fetcher:
        """Return the running loop's fetcher. For errands alone; a closed loop may still run beside its successor."""
        key = asyncio.get_running_loop(), public_only
        if key not in self._fetchers:
            self._fetchers[key] = Fetcher(self._transport, public_only=public_only)
        return self._fetchers[key]

    def close(self) -> None:
        """End the thread and its connections. Flights under way fail."""
        with self._lock:
            loop, self._loop = self._loop, None
            self._detach()
            if loop is not None and not loop.is_closed():
                asyncio.run_coroutine_threadsafe(self._shut_down(loop), loop)

    def begin_anew(self) -> None:
        """Begin anew in a forked child, which has neither the thread nor a sound lock."""
        self._lock = threading.Lock()
        self._detach()
        if self._loop is not None:
            _abandoned.append(self._loop)
        self._loop = None
        self._fetchers = {}

    def _detach(self) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()

    async def _shut_down(self, loop: asyncio.AbstractEventLoop) -> None:
        errands = asyncio.all_tasks() - {asyncio.current_task()}
        for errand in errands:
            errand.cancel()
        await asyncio.gather(*errands, return_exceptions=True)
        try:
            for key in [key for key in self._fetchers if key[0] is loop]:
                await self._fetchers.pop(key).aclose()
        finally:
            loop.stop()


# A parent's loops, kept in its forked child: to collect one would close what the parent still listens to.
_abandoned: list[asyncio.AbstractEventLoop] = []


def _started_loop() -> FetchLoop:
    loop = FetchLoop()
    try:
        threading.Thread(target=_run_until_stopped, args=(loop,), name="token-guard-fetch", daemon=True).start()
    except RuntimeError:
        loop.close()
        raise
    return loop


def _run_until_stopped(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def wait(flight: "Future[Outcome]", patience: float = PATIENCE) -> Outcome:
    """Wait for a flight to land, at most `patience` seconds, and return its outcome.

    Raises:
        TemporarilyUnavailable: it does not land.
    """
    try:
        flight.exception(patience)
    except WaitTimeout:
        raise _stuck() from None
    return _outcome(flight)


async def wait_async(flight: "Future[Outcome]", patience: float = PATIENCE) -> Outcome:
    """Do what `wait` does without blocking the loop: asyncio's, or trio's where trio runs it."""
    trio = sys.modules.get("trio")
    lowlevel = getattr(trio, "lowlevel", None)  # missing while another thread imports trio: httpx does, where it is
    if trio is None or lowlevel is None or not lowlevel.in_trio_run():
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                landed = asyncio.wrap_future(flight)
                landed.add_done_callback(lambda each: each.cancelled() or each.exception())  # else asyncio logs it
                await asyncio.wait([landed])
                return _outcome(flight)
        raise _stuck()
    arrived, token = trio.Event(), lowlevel.current_trio_token()

    def land(_: object) -> None:
        with suppress(trio.RunFinishedError):  # the waiter gave up, and its loop has ended
            token.run_sync_soon(arrived.set)

    flight.add_done_callback(land)
    with trio.move_on_after(patience):
        await arrived.wait()
        return _outcome(flight)
    raise _stuck()


def _outcome(flight: "Future[Outcome]") -> Outcome:
    """Return what a landed flight brought. Each waiter raises its own error: a shared one gathers the frames of all."""
    error = flight.exception(0)
    if error is None:
        return flight.result(0)
    own = copy.copy(error)
    own.args = error.args
    raise own.with_traceback(None)


def _stuck() -> TemporarilyUnavailable:
    return TemporarilyUnavailable(detail="the fetch thread does not answer")


def _begin_anew_in_child() -> None:
    for each in fork_aware:
        each.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_in_child)
