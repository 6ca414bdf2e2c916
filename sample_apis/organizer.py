"""The Organizer: ONE resource server, audience `organize`, that contacts and calendars share.

The services are told apart by namespaced scopes, so a client needs one access token for both, and a token that lacks
the scopes of one service is refused there with a 403. Knows neither service.
"""

from collections.abc import Mapping

from token_guard import ChallengePolicy, ResourceServer

AUDIENCE = "organize"
REALM = "organizer"

# What a token may be granted, in words that a person understands. There is no scope for updates: whoever may write an
# entry may correct it, so an update needs the `create` scope. Only taking entries away is a grant of its own.
SCOPES: Mapping[str, str] = {
    "read:contacts": "See your contacts",
    "create:contacts": "Add contacts and change them",
    "delete:contacts": "Delete your contacts",
    "read:calendar": "See the events in your calendar",
    "create:calendar": "Add events to your calendar and change them",
    "delete:calendar": "Delete events from your calendar",
}

_KEYS_IN_WORDS = {
    "fresh": "its keys are held",
    "stale": "it does not answer; tokens are checked with the keys that are held",
    "never_fetched": "its keys are fetched with the first token",
    "unavailable": "no keys are held; its tokens are answered 503 until it answers",
    "misconfigured": "what it publishes contradicts our configuration; see the log",
}


def organizer_from_env(environ: Mapping[str, str]) -> ResourceServer:
    """Return the resource server of TOKEN_GUARD_ISSUER (one or several) and the other TOKEN_GUARD_* variables.

    Raises:
        ConfigurationError: a variable is missing, unknown or malformed.
    """
    return resource_server_from_env(environ, audience=AUDIENCE, realm=REALM)


def resource_server_from_env(environ: Mapping[str, str], *, audience: str, realm: str) -> ResourceServer:
    """Return the resource server of a sample API, which may be called by other names where the environment says so.

    Raises:
        ConfigurationError: a variable is missing, unknown or malformed.
    """
    settings = {"TOKEN_GUARD_AUDIENCE": audience, **environ}
    # Reasons are exposed because these are samples: a reader wants to see them. Leave them off in public.
    challenge = ChallengePolicy(realm=settings.pop("TOKEN_GUARD_REALM", realm), expose_reasons=True)
    return ResourceServer.from_env(settings, challenge=challenge)


def health_in_words(organizer: ResourceServer) -> dict[str, object]:
    """Return what a health check is told: the service is ready, and how each issuer is doing. Does no I/O.

    It is ready without keys, too: a restart would not bring them, and they come by themselves once the issuer answers.
    """
    issuers = [
        {"issuer": health.issuer, "state": health.state, "in_words": _KEYS_IN_WORDS[health.state]}
        for health in organizer.health()
    ]
    return {"status": "ready", "issuers": issuers}
