"""The one resource server, from the environment, and its catalogue."""

import pytest

from sample_apis.organizer import SCOPES, health_in_words, organizer_from_env
from token_guard import ConfigurationError, InvalidToken, Reason, Scope
from token_guard.testing import LocalIssuer


def test_trusts_several_issuers_and_names_its_reasons() -> None:
    """A custom domain stands beside the tenant's own; the audience is `organize` unless told otherwise."""
    organizer = organizer_from_env(
        {"TOKEN_GUARD_ISSUER": "https://login.northwind.example/ https://northwind.example/"}
    )
    with pytest.raises(InvalidToken) as refused:
        organizer.validate(LocalIssuer("https://northwind.example/").token(audience="other"))
    answer = organizer.challenge(refused.value)
    assert refused.value.reason is Reason.WRONG_AUDIENCE
    assert b"wrong_audience" in answer.body
    assert 'realm="organizer"' in dict(answer.headers)["WWW-Authenticate"]


def test_settings_of_token_guard_keep_their_meaning() -> None:
    """Audience and realm may be set like everywhere else."""
    environ = {
        "TOKEN_GUARD_ISSUER": "https://northwind.example/",
        "TOKEN_GUARD_AUDIENCE": "other",
        "TOKEN_GUARD_REALM": "mine",
    }
    organizer = organizer_from_env(environ)
    with pytest.raises(InvalidToken) as refused:
        organizer.validate(LocalIssuer("https://northwind.example/").token())
    assert 'realm="mine"' in dict(organizer.challenge(refused.value).headers)["WWW-Authenticate"]


def test_a_missing_issuer_is_named() -> None:
    """There is no default for whom to trust."""
    with pytest.raises(ConfigurationError, match="TOKEN_GUARD_ISSUER"):
        organizer_from_env({})


def test_health_is_in_words_before_the_first_token() -> None:
    """Nothing is fetched to answer a health check."""
    health = health_in_words(organizer_from_env({"TOKEN_GUARD_ISSUER": "https://northwind.example/"}))
    assert health == {
        "status": "ready",
        "issuers": [
            {
                "issuer": "https://northwind.example/",
                "state": "never_fetched",
                "in_words": "its keys are fetched with the first token",
            }
        ],
    }


def test_the_catalogue_holds_three_actions_for_each_service() -> None:
    """Every scope is namespaced and said in words."""
    actions = {(Scope(scope).action, Scope(scope).resource) for scope in SCOPES}
    assert actions == {(action, of) for action in ("read", "create", "delete") for of in ("contacts", "calendar")}
    assert all(SCOPES.values())
