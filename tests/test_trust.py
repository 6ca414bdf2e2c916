"""Trust: which of the configured issuers a token names. What is refused for it is in tests/test_resource_server.py."""

from typing import Any

import pytest

from token_guard import Issuer, IssuerResolver, Reason
from token_guard.claims import ClaimPolicy
from token_guard.key_source import GivenKeys
from token_guard.trust import Trust, filled_issuers

TENANT, OTHER_TENANT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "9188040d-6c67-4c5b-b112-36a304b66dad"
NO_KEYS: dict[str, Any] = {"keys": []}
PLAIN = Issuer("https://plain.example/", jwks=NO_KEYS)
LISTED = Issuer("https://listed.example/{tenantid}/", tenants=[TENANT, "b"], jwks=NO_KEYS)
OPEN = Issuer("https://open.example/{tenantid}/", tenants="any", jwks=NO_KEYS)
TWICE = Issuer("https://{tenantid}.twice.example/{tenantid}/", tenants="any", jwks=NO_KEYS)
POLICY = ClaimPolicy(
    issuer="",
    audiences=frozenset({"organize"}),
    profile="generic",
    leeway=0,
    scope_claims=("scope",),
)
ISSUERS = filled_issuers([PLAIN, LISTED, OPEN, TWICE])
TRUST = Trust(ISSUERS, None, {}, POLICY, lambda issuer, _: GivenKeys(issuer))


@pytest.mark.parametrize(
    ("claims", "url"),
    [
        ({"iss": PLAIN.url}, PLAIN.url),
        ({"iss": f"https://listed.example/{TENANT}/"}, LISTED.url),
        ({"iss": "https://listed.example/b/"}, LISTED.url),
        ({"iss": f"https://open.example/{TENANT}/", "tid": TENANT}, OPEN.url),
        ({"iss": f"https://{TENANT}.twice.example/{TENANT}/", "tid": TENANT}, TWICE.url),
        ({"iss": f"https://{TENANT}.twice.example/{OTHER_TENANT}/", "tid": TENANT}, None),
        ({"iss": f"https://open.example/{TENANT}/"}, None),
        ({"iss": f"https://open.example/{TENANT}/", "tid": OTHER_TENANT}, None),
        ({"iss": "https://open.example/b/", "tid": "b"}, None),
        ({"iss": OPEN.url, "tid": "{tenantid}"}, None),
        ({"iss": OPEN.url}, None),
        ({"iss": LISTED.url, "tid": TENANT}, None),
        ({"iss": f"https://listed.example/{OTHER_TENANT}/", "tid": OTHER_TENANT}, None),
        ({"iss": "https://plain.example"}, None),
        ({"iss": ["https://plain.example/"], "tid": TENANT}, None),
        ({"tid": TENANT}, None),
        ({}, None),
    ],
    ids=str,
)
def test_finds_the_issuer_that_claims_name(claims: dict[str, Any], url: str | None) -> None:
    """RFC 8725 3.8: exactly one that is configured; a template is none, and of any tenant only GUIDs are accepted."""
    found = TRUST.find(claims)
    assert (None if found is None else found.policy.issuer) == url


def test_a_forked_child_begins_anew_what_a_resolver_found() -> None:
    """The issuers that are configured are as they were."""
    url = "https://red.example/"
    resolver = IssuerResolver(lambda url: Issuer(url, jwks=NO_KEYS), allowed_hosts=["red.example"])
    resolving = Trust(ISSUERS, resolver, {}, POLICY, lambda issuer, _: GivenKeys(issuer))
    for trust in (TRUST, resolving):
        configured, resolved = trust.find({"iss": PLAIN.url}), trust.find({"iss": url})
        trust.begin_anew()
        assert trust.find({"iss": PLAIN.url}) is configured
        assert (trust.find({"iss": url}) is resolved) == (trust is TRUST)


def test_tenants_of_one_template_share_their_keys() -> None:
    """One key set serves all of them; each issuer appears once."""
    one, other = (TRUST.find({"iss": f"https://listed.example/{tenant}/"}) for tenant in (TENANT, "b"))
    assert one is other
    assert [trusted.policy.issuer for trusted in TRUST.issuers] == [PLAIN.url, LISTED.url, OPEN.url, TWICE.url]


@pytest.mark.parametrize(
    ("claims", "reason", "detail"),
    [
        ({}, Reason.CLAIM_MISSING, "the token has no iss"),
        ({"iss": 7}, Reason.CLAIM_MALFORMED, "the claim iss has the wrong type"),
        (
            {"iss": "https://other.example/"},
            Reason.WRONG_ISSUER,
            (
                f"iss is 'https://other.example/', trusted are '{PLAIN.url}', '{LISTED.url}', '{OPEN.url}',"
                f" '{TWICE.url}'; where it is another domain or realm of yours, list it in the setting issuer"
            ),
        ),
    ],
)
def test_says_whom_it_trusts(claims: dict[str, Any], reason: Reason, detail: str) -> None:
    """The log tells what was found, who is trusted, and what to do."""
    refused = TRUST.refusal(claims)
    assert (refused.reason, refused.detail) == (reason, detail)
