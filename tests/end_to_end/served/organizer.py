"""The resource server of the served applications. It judges a token as it is imported: with preload, before a fork."""

import os

from token_guard import ResourceServer, current_access_token

organizer = ResourceServer.from_env()
organizer.validate(os.environ["FIRST_TOKEN"])


def answer() -> dict[str, str | int | None]:
    """What every application answers: which process it is, and who asks."""
    return {"process": os.getpid(), "subject": current_access_token().subject}


def subject_of(token: str) -> str | None:
    """Judge a token, in whatever process this is called."""
    return organizer.validate(token).subject
