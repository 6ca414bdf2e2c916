"""The SDK of an error tracker, with everything that it would send kept in memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations import Integration
from sentry_sdk.transport import Transport


@contextmanager
def recorded_errors(*integrations: Integration) -> Iterator[list[Any]]:
    """Run the SDK with these integrations and its tracing; yield the error events that it records, as they come."""
    recorder = _Recorder()
    sentry_sdk.init(
        "https://key@tracker.example/1",
        transport=recorder,
        integrations=integrations,
        auto_enabling_integrations=False,
        traces_sample_rate=1.0,
    )
    try:
        yield recorder.errors
    finally:
        sentry_sdk.get_global_scope().set_client(None)


class _Recorder(Transport):
    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            self.errors.append(event)
