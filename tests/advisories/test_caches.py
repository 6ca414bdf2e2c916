"""Advisories about what is remembered: verified tokens, and what has changed since they were verified."""

import pytest

from tests.advisories.conftest import NOW, api, claims, encoded, refused, signed, with_signature
from token_guard import AccessToken, Reason, ResourceServer
from token_guard.testing import LocalIssuer


def test_a_remembered_token_is_the_whole_token(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """CVE-2026-35030 (LiteLLM): the first 20 characters, which all tokens of an issuer share, named what was cached."""
    good = issuer.token()
    for _ in range(2):
        assert organizer.validate(good).subject == "auth0|alice"
    forged = good.rpartition(".")[0].rpartition(".")[0] + "." + encoded(claims(issuer, sub="admin"), bytes(256))
    assert forged[:20] == good[:20]
    assert refused(organizer, forged).reason is Reason.BAD_SIGNATURE
    assert refused(organizer, with_signature(good, bytes(256))).reason is Reason.BAD_SIGNATURE
    assert refused(organizer, good[:-1]).reason is Reason.MALFORMED


def test_everybody_keeps_their_own_claims(organizer: ResourceServer, issuer: LocalIssuer) -> None:
    """CVE-2026-35039 (fast-jwt): tokens with the same audience were one token to the cache, and users one user."""
    users = {issuer.token(subject=name, scope=f"read:{name}"): name for name in ("alice", "bob", "carol")}
    for token, name in [*users.items(), *users.items()]:
        known = organizer.validate(token)
        assert (known.subject, list(known.scopes)) == (name, [f"read:{name}"])


def test_a_remembered_token_still_expires(issuer: LocalIssuer) -> None:
    """GHSA-56p6-qw3c-fq2g (Directus) and others: what was once good was not asked again."""
    time = float(NOW)
    server = api(issuer, clock=lambda: time, leeway=0)
    token = issuer.token(lifetime=60)
    server.validate(token)
    time += 61
    assert refused(server, token).reason is Reason.EXPIRED


@pytest.mark.parametrize("size", [0, 100], ids=["nothing remembered", "remembered"])
def test_a_revoked_token_is_refused_at_once(issuer: LocalIssuer, size: int) -> None:
    """CVE-2020-10594 (drf-jwt), CVE-2026-8922 (Keycloak): a token on the list of revoked ones remained of use.

    CVE-2024-22513 (Simple JWT), GHSA-56p6-qw3c-fq2g (Directus): so did those of users who had been disabled.
    """
    revoked: set[str | None] = set()

    def is_revoked(token: AccessToken) -> bool:
        return token.subject in revoked

    server = api(issuer, is_revoked=is_revoked, token_cache_size=size)
    token = signed(issuer, claims(issuer))
    server.validate(token)
    revoked.add("auth0|alice")
    assert refused(server, token).reason is Reason.REVOKED
    server.validate(issuer.token(subject="auth0|bob"))
