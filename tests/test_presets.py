"""The presets for hosted services, each against metadata, keys and tokens in the shape that its service documents.

Nothing is fetched from anywhere: a transport in memory answers at the addresses that the services use.
"""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from token_guard import (
    AccessToken,
    ConfigurationError,
    InsufficientScope,
    InvalidToken,
    Issuer,
    Reason,
    ResourceServer,
    TemporarilyUnavailable,
    role,
    user_only,
)
from token_guard.testing import LocalIssuer

NOW = 1_700_000_000
LIFETIME = {"iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 3600}
MINT = LocalIssuer(algorithm="RS256", clock=lambda: NOW)
ANOTHER_KEY = MINT.add_key("RS256", publish=False)
USUAL_CLAIMS = ("iss", "sub", "aud", "azp", "scope")  # which a local issuer would add by itself


def mint(claims: Mapping[str, Any], changes: Mapping[str, Any] | None = None, **options: Any) -> str:
    """A signed token of these claims with these changes, and of no other claim; None leaves a claim out."""
    return MINT.token(claims={**dict.fromkeys(USUAL_CLAIMS), **LIFETIME, **claims, **(changes or {})}, **options)


def key(**members: object) -> dict[str, Any]:
    """The published key as hosted services write it: with an intended use, and certificates that nobody reads."""
    return {**MINT.key.public_jwk(), "use": "sig", "x5t": MINT.key.kid, "x5c": ["MIIDBTCCAe2gAwIBAgIQ"], **members}


class Internet(httpx.AsyncBaseTransport):
    """A transport with a document at each of some addresses; anywhere else is 404. Counts what was asked."""

    def __init__(self, documents: Mapping[str, object]) -> None:
        self.documents = documents
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        self.asked.append(url)
        content = json.dumps(self.documents.get(url)).encode()
        return httpx.Response(200 if url in self.documents else 404, stream=httpx.ByteStream(content))


def published(metadata_url: str, issuer: str, jwks_uri: str, *keys: object) -> dict[str, object]:
    """What a service publishes: its metadata, with more in it than is read, and its key set."""
    metadata = {
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "authorization_endpoint": f"{jwks_uri}/authorize",
        "token_endpoint": f"{jwks_uri}/token",
        "response_types_supported": ["code", "id_token", "code id_token"],
        "subject_types_supported": ["public", "pairwise"],
        "id_token_signing_alg_values_supported": ["HS256", "RS256", "none"],
        "request_uri_parameter_supported": False,
        "tenant_region_scope": None,
    }
    return {metadata_url: metadata, jwks_uri: {"keys": list(keys or [key()])}}


def server(internet: Internet, *issuers: Issuer, **options: Any) -> ResourceServer:
    options = {"audience": "organize", **options}
    return ResourceServer(issuer=issuers, clock=lambda: NOW, monotonic=lambda: NOW, transport=internet, **options)


def reason(guard: ResourceServer, raw: str) -> Reason:
    with pytest.raises(InvalidToken) as refused:
        guard.validate(raw)
    return refused.value.reason


def detail(guard: ResourceServer, raw: str) -> str:
    with pytest.raises(InvalidToken) as refused:
        guard.validate(raw)
    return refused.value.detail


def is_refused(token: AccessToken, *requirements: Any) -> bool:
    with pytest.raises(InsufficientScope) as refused:
        token.require(*requirements)
    return refused.value.reason in (Reason.INSUFFICIENT_SCOPE, Reason.INSUFFICIENT_PERMISSION)


# Auth0.

AUTH0 = "https://northwind.eu.auth0.com/"
AUTH0_PAGES = published(f"{AUTH0}.well-known/openid-configuration", AUTH0, f"{AUTH0}.well-known/jwks.json")
AUTH0_CLIENT = "K1fqRZ0hYbV7xWm3nT9cLd5sPj2gQe8u"
AUTH0_USER = {
    "iss": AUTH0,
    "sub": "auth0|64f0c1d2e3b4a5968778695a",
    "aud": ["organize", f"{AUTH0}userinfo"],
    "scope": "openid profile read:contacts",
    "permissions": ["contacts.read"],
    "azp": AUTH0_CLIENT,
    "org_id": "org_9ybsU1dN2dKfDkBi",
    "https://northwind.example/roles": ["editor"],
}
AUTH0_MACHINE = {
    "iss": AUTH0,
    "sub": f"{AUTH0_CLIENT}@clients",
    "aud": "organize",
    "azp": AUTH0_CLIENT,
    "scope": "read:contacts",
    "gty": "client-credentials",
}
AUTH0_PROFILE = {"azp": None, "client_id": AUTH0_CLIENT, "jti": "kC5m8dZQvYwXnT2rB7sLpF"}  # RFC 9068
AUTH0_ID_TOKEN = {"iss": AUTH0, "sub": AUTH0_USER["sub"], "aud": AUTH0_CLIENT, "nonce": "n-0S6", "sid": "s1"}


def auth0(**options: Any) -> ResourceServer:
    return server(Internet(AUTH0_PAGES), Issuer.auth0("northwind.eu.auth0.com", **options))


def test_auth0_user_token() -> None:
    """AUTH0-02, AUTH0-03, AUTH0-06, AUTH0-09: both audiences, `azp` for the client, permissions apart from scopes."""
    token = auth0(role_claims=["https://northwind.example/roles"]).validate(mint(AUTH0_USER))
    assert (token.client_id, token.is_client, token.organization) == (AUTH0_CLIENT, False, "org_9ybsU1dN2dKfDkBi")
    assert ("read:contacts" in token.scopes, token.permissions) == (True, ("contacts.read",))
    assert token.roles == ("editor",)  # the claim's name is literal, dots and slashes included


def test_auth0_machine_token() -> None:
    """AUTH0-05: a client's own, by `gty` or by its subject, each by itself."""
    for changes in ({}, {"gty": None}, {"sub": AUTH0_CLIENT}):
        token = auth0().validate(mint(AUTH0_MACHINE, changes))
        assert token.is_client
        assert is_refused(token, user_only)


def test_auth0_access_token_profile() -> None:
    """AUTH0-02: tokens of RFC 9068 name the client in `client_id`; under that profile the others are refused."""
    rfc9068 = auth0(profile="rfc9068")
    assert rfc9068.validate(mint(AUTH0_USER, AUTH0_PROFILE, headers={"typ": "at+jwt"})).client_id == AUTH0_CLIENT
    assert reason(rfc9068, mint(AUTH0_USER, AUTH0_PROFILE)) is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("claims", "changes", "refused"),
    [
        (AUTH0_USER, {"iss": AUTH0.rstrip("/")}, Reason.WRONG_ISSUER),  # AUTH0-01
        (AUTH0_USER, {"iss": "https://login.northwind.example/"}, Reason.WRONG_ISSUER),  # AUTH0-01
        (AUTH0_USER, {"aud": f"{AUTH0}userinfo"}, Reason.WRONG_AUDIENCE),  # AUTH0-03
        (AUTH0_ID_TOKEN, {}, Reason.WRONG_TYPE),  # AUTH0-04
        (AUTH0_ID_TOKEN, {"nonce": None}, Reason.WRONG_AUDIENCE),  # AUTH0-04
        (AUTH0_USER, {"permissions": "contacts.read"}, Reason.CLAIM_MALFORMED),  # AUTH0-06
        (AUTH0_USER, {"org_id": "org_another"}, Reason.WRONG_ORGANIZATION),  # AUTH0-07
        (AUTH0_USER, {"org_id": None}, Reason.WRONG_ORGANIZATION),  # AUTH0-07
    ],
)
def test_auth0_refuses(claims: dict[str, Any], changes: dict[str, Any], refused: Reason) -> None:
    """Whatever is not an access token of this tenant, for this API and of this organization."""
    assert reason(auth0(organizations="org_9ybsU1dN2dKfDkBi"), mint(claims, changes)) is refused


@pytest.mark.parametrize(
    "raw", ["wq8Yb2Jv0RkTzN5uXs1LcD7hMf4aPeGi", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..WmE0b1.c2Rm.ZGZn"]
)
def test_auth0_opaque_and_encrypted_tokens(raw: str) -> None:
    """AUTH0-10: what is issued where no audience was asked for is no JWT that can be read."""
    assert reason(auth0(), raw) is Reason.MALFORMED


def test_auth0_custom_domain_is_an_issuer_of_its_own() -> None:
    """AUTH0-01: a tenant's tokens name the domain that was asked; each is listed, and has keys of its own."""
    custom = "https://login.northwind.example/"
    pages = published(f"{custom}.well-known/openid-configuration", custom, f"{custom}.well-known/jwks.json")
    internet = Internet({**AUTH0_PAGES, **pages})
    both = server(internet, Issuer.auth0("northwind.eu.auth0.com"), Issuer.auth0("login.northwind.example"))
    assert both.validate(mint(AUTH0_USER, {"iss": custom})).issuer == custom
    assert internet.asked == list(pages)


# Okta.

OKTA = "https://northwind.okta.com/oauth2/default"
OKTA_PAGES = published(f"{OKTA}/.well-known/openid-configuration", OKTA, f"{OKTA}/v1/keys", key(alg="RS256"))
OKTA_USER = {
    "ver": 1,
    "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMFhBr7uX",
    "iss": OKTA,
    "aud": "organize",
    "cid": "0oa5m8x2kqTzN1b7X4x7",
    "uid": "00u8a1c9vnLr3dYp2k6",
    "scp": ["openid", "read:contacts"],
    "auth_time": NOW - 90,
    "sub": "alice@northwind.example",
}
OKTA_MACHINE = {**OKTA_USER, "uid": None, "sub": "0oa5m8x2kqTzN1b7X4x7", "scp": ["read:contacts"]}
OKTA_ID_TOKEN = {
    "iss": OKTA,
    "sub": "00u8a1c9vnLr3dYp2k6",
    "aud": "0oa5m8x2kqTzN1b7X4x7",
    "ver": 1,
    "amr": ["pwd"],
    "at_hash": "preview_at_hash",
}


def okta() -> ResourceServer:
    return server(Internet(OKTA_PAGES), Issuer.okta("northwind.okta.com"))


def test_okta_user_and_machine_tokens() -> None:
    """OKTA-01: scopes are the array `scp`, the client is `cid`."""
    token, machine = okta().validate(mint(OKTA_USER)), okta().validate(mint(OKTA_MACHINE))
    assert (set(token.scopes), token.client_id) == ({"openid", "read:contacts"}, "0oa5m8x2kqTzN1b7X4x7")
    assert (token.is_client, machine.is_client) == (False, True)


@pytest.mark.parametrize(
    ("claims", "changes", "refused"),
    [
        (OKTA_USER, {"iss": "https://northwind.okta.com"}, Reason.WRONG_ISSUER),  # the organization's own server
        (OKTA_USER, {"aud": "https://northwind.okta.com"}, Reason.WRONG_AUDIENCE),
        (OKTA_USER, {"iss": "https://northwind.okta.com/oauth2/aus1"}, Reason.WRONG_ISSUER),
        (OKTA_ID_TOKEN, {}, Reason.WRONG_TYPE),
        (OKTA_ID_TOKEN, {"at_hash": None}, Reason.WRONG_AUDIENCE),
        (OKTA_USER, {"scp": {"read:contacts": True}}, Reason.CLAIM_MALFORMED),
    ],
)
def test_okta_refuses(claims: dict[str, Any], changes: dict[str, Any], refused: Reason) -> None:
    """OKTA-01: tokens of the organization's own server are not for an API."""
    assert reason(okta(), mint(claims, changes)) is refused


def test_okta_server_has_an_id_of_its_own() -> None:
    """OKTA-01: a custom server is named by its id."""
    assert Issuer.okta("northwind.okta.com", "aus9o3x").url == "https://northwind.okta.com/oauth2/aus9o3x"


# Keycloak.

KEYCLOAK = "https://login.northwind.example/realms/organizer"
KEYCLOAK_PAGES = published(
    f"{KEYCLOAK}/.well-known/openid-configuration",
    KEYCLOAK,
    f"{KEYCLOAK}/protocol/openid-connect/certs",
    key(alg="RS256", **{"x5t#S256": "d5kq"}),
    {**key(), "kid": "for-encryption", "use": "enc", "alg": "RSA-OAEP"},
)
KEYCLOAK_USER = {
    "jti": "onrtac:7e1b",
    "iss": KEYCLOAK,
    "aud": ["organize", "account"],
    "sub": "8f2a4c7e-1b3d-4e5f-9a6b-0c1d2e3f4a5b",
    "typ": "Bearer",
    "azp": "organizer-spa",
    "acr": "1",
    "allowed-origins": ["https://organizer.example"],
    "realm_access": {"roles": ["offline_access", "staff"]},
    "resource_access": {"organize.api": {"roles": ["editor"]}, "account": {"roles": ["manage-account"]}},
    "scope": "openid read:contacts",
    "preferred_username": "alice",
}
KEYCLOAK_MACHINE = {
    **KEYCLOAK_USER,
    "azp": "Organizer-Batch",
    "client_id": "Organizer-Batch",
    "preferred_username": "service-account-organizer-batch",
    "clientHost": "192.0.2.7",
}


def keycloak(client_id: str | None = None) -> ResourceServer:
    return server(Internet(KEYCLOAK_PAGES), Issuer.keycloak("https://login.northwind.example", "organizer", client_id))


def test_keycloak_roles_of_realm_and_clients_are_kept_apart() -> None:
    """KC-03: a role on another client, or in the realm, satisfies nothing; a client's id may hold dots."""
    raw = mint(KEYCLOAK_USER)
    assert keycloak().validate(raw).roles == ("offline_access", "staff")
    token = keycloak("organize.api").validate(raw)
    token.require("read:contacts", role("editor"))
    assert is_refused(token, role("staff"))
    assert is_refused(token, role("manage-account"))
    assert keycloak("organize").validate(raw).roles == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"resource_access": ["organize.api"]},
        {"resource_access": {"organize.api": ["editor"]}},
        {"resource_access": {"organize.api": {"roles": "editor"}}},
        {"resource_access": None, "resource_access.organize.api.roles": ["editor"]},
    ],
)
def test_keycloak_roles_of_another_form_are_none(changes: dict[str, Any]) -> None:
    """KC-03: what is no object on the way, or no array at the end, holds no roles."""
    assert keycloak("organize.api").validate(mint(KEYCLOAK_USER, changes)).roles == ()


def test_keycloak_service_account_is_a_client() -> None:
    """A service account has a subject like a user's, and is told by its name; a user of that name elsewhere is none."""
    assert keycloak().validate(mint(KEYCLOAK_MACHINE)).is_client
    assert not keycloak().validate(mint(KEYCLOAK_USER)).is_client
    assert not keycloak().validate(mint(KEYCLOAK_MACHINE, {"client_id": "organizer-spa"})).is_client


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"iss": "https://login.northwind.example/realms/master"}, Reason.WRONG_ISSUER),  # KC-01
        ({"iss": f"{KEYCLOAK}/"}, Reason.WRONG_ISSUER),  # KC-01
        ({"aud": "account", "azp": "organize"}, Reason.WRONG_AUDIENCE),  # KC-02
        ({"aud": None, "azp": "organize"}, Reason.CLAIM_MISSING),  # KC-02
        ({"typ": "ID"}, Reason.WRONG_TYPE),  # KC-04
        ({"typ": "Refresh", "aud": KEYCLOAK}, Reason.WRONG_TYPE),  # KC-04
    ],
)
def test_keycloak_refuses(changes: dict[str, Any], refused: Reason) -> None:
    """Another realm, an audience that only `azp` names, and other kinds of token."""
    assert reason(keycloak(), mint(KEYCLOAK_USER, changes)) is refused


# Cognito.

COGNITO = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEf123"
COGNITO_PAGES = published(
    f"{COGNITO}/.well-known/openid-configuration", COGNITO, f"{COGNITO}/.well-known/jwks.json", key(alg="RS256")
)
COGNITO_USER = {
    "sub": "d3b4c5d6-7001-70aa-bb3c-1d2e3f405162",
    "cognito:groups": ["editors"],
    "iss": COGNITO,
    "version": 2,
    "client_id": "4l9rvl4mv5es1eep1qe97cautn",
    "origin_jti": "0c1d",
    "event_id": "6f1a",
    "token_use": "access",
    "scope": "openid https://organize.example/contacts.read",
    "auth_time": NOW - 90,
    "jti": "7e8f",
    "username": "alice",
}
COGNITO_MACHINE = {
    **COGNITO_USER,
    "cognito:groups": None,
    "username": None,
    "sub": "4l9rvl4mv5es1eep1qe97cautn",
    "scope": "https://organize.example/contacts.read",
}
COGNITO_ID_TOKEN = {
    **COGNITO_USER,
    "client_id": None,
    "scope": None,
    "aud": "4l9rvl4mv5es1eep1qe97cautn",
    "token_use": "id",
    "cognito:username": "alice",
}


def cognito(**options: Any) -> ResourceServer:
    preset = Issuer.cognito(
        "eu-central-1", "eu-central-1_AbCdEf123", client_ids=["4l9rvl4mv5es1eep1qe97cautn", "another"]
    )
    return server(Internet(COGNITO_PAGES), preset, **{"audience": None, **options})


def test_cognito_user_and_machine_tokens() -> None:
    """COG-01, COG-03: there is no audience; groups are roles, and a scope is matched whole."""
    token, machine = cognito().validate(mint(COGNITO_USER)), cognito().validate(mint(COGNITO_MACHINE))
    token.require("https://organize.example/contacts.read", role("editors"), user_only)
    assert is_refused(token, "contacts.read")
    assert (token.audience, token.client_id) == ((), "4l9rvl4mv5es1eep1qe97cautn")
    assert (machine.is_client, machine.roles) == (True, ())


@pytest.mark.parametrize(
    ("claims", "changes", "refused"),
    [
        (COGNITO_ID_TOKEN, {}, Reason.WRONG_TYPE),  # COG-01
        (COGNITO_ID_TOKEN, {"token_use": None}, Reason.CLAIM_MISSING),  # COG-01
        (COGNITO_USER, {"token_use": None}, Reason.CLAIM_MISSING),  # COG-01
        (COGNITO_USER, {"token_use": "refresh"}, Reason.WRONG_TYPE),  # COG-01
        (COGNITO_USER, {"client_id": "5m0swm5nw6ft2ffq2rf08dbvuo"}, Reason.WRONG_AUDIENCE),  # COG-01
        (COGNITO_USER, {"client_id": None}, Reason.WRONG_AUDIENCE),  # COG-01
        (COGNITO_USER, {"client_id": ["another"]}, Reason.CLAIM_MALFORMED),
        (COGNITO_USER, {"aud": "https://other.example"}, Reason.WRONG_AUDIENCE),  # COG-02
        (COGNITO_USER, {"aud": ""}, Reason.CLAIM_MALFORMED),  # COG-02
        (COGNITO_USER, {"exp": None}, Reason.CLAIM_MISSING),
        (COGNITO_USER, {"iss": COGNITO[:-1]}, Reason.WRONG_ISSUER),  # COG-03
    ],
)
def test_cognito_refuses(claims: dict[str, Any], changes: dict[str, Any], refused: Reason) -> None:
    """An ID token, another client, and an audience that is there and not ours."""
    assert reason(cognito(), mint(claims, changes)) is refused


def test_cognito_audience_is_judged_where_there_is_one() -> None:
    """COG-02: one of ours is accepted, of a client of ours alone; a token without one still is."""
    bound = cognito(audience="https://organize.example")
    assert bound.validate(mint(COGNITO_USER, {"aud": "https://organize.example"})).audience
    assert bound.validate(mint(COGNITO_USER)).audience == ()
    stranger = mint(COGNITO_USER, {"aud": "https://organize.example", "client_id": "5m0swm5nw6ft2ffq2rf08dbvuo"})
    assert reason(bound, stranger) is Reason.WRONG_AUDIENCE


def test_cognito_demand_of_another_guard_is_the_same() -> None:
    """`check_own` judges a token that somebody else validated: of our clients, without an audience."""
    token = cognito().validate(mint(COGNITO_USER))
    cognito().check_own(token)
    for other, detail in (
        (Issuer.cognito("eu-central-1", "eu-central-1_AbCdEf123", client_ids="someone-else"), "client_id is "),
        (Issuer(COGNITO, audience="organize"), "the token is for (), accepted are 'organize'; "),
    ):
        with pytest.raises(InvalidToken) as refused:
            server(Internet({}), other).check_own(token)
        assert refused.value.reason is Reason.WRONG_AUDIENCE
        assert refused.value.detail.startswith(detail)


def test_only_a_cognito_issuer_does_without_an_audience() -> None:
    """COG-01: the client rule belongs to the issuer that has it; its neighbour's tokens need an audience."""
    both = server(
        Internet({**COGNITO_PAGES, **OKTA_PAGES}),
        Issuer.cognito("eu-central-1", "eu-central-1_AbCdEf123", client_ids="4l9rvl4mv5es1eep1qe97cautn"),
        Issuer.okta("northwind.okta.com"),
    )
    assert both.validate(mint(COGNITO_USER)).issuer == COGNITO
    assert reason(both, mint(COGNITO_USER, {"iss": OKTA})) is Reason.CLAIM_MISSING


# Entra ID.

LOGIN = "https://login.microsoftonline.com"
B2C = "northwind.b2clogin.com"
TENANT, OTHER_TENANT = "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "9188040d-6c67-4c5b-b112-36a304b66dad"
API, APP = "6e74172b-be56-4843-9ff4-e66a39bb12e3", "b8a2c0de-77aa-4d1f-8a51-0a7f3f0f9c11"
COMMON_METADATA = f"{LOGIN}/common/v2.0/.well-known/openid-configuration"
COMMON_KEYS = f"{LOGIN}/common/discovery/v2.0/keys"
TEMPLATE, TEMPLATE_1 = f"{LOGIN}/{{tenantid}}/v2.0", "https://sts.windows.net/{tenantid}/"
COMMON = published(COMMON_METADATA, TEMPLATE, COMMON_KEYS, key(issuer=TEMPLATE))
# As published for version 1: the keys name no issuer.
COMMON_1 = published(f"{LOGIN}/common/.well-known/openid-configuration", TEMPLATE_1, f"{LOGIN}/common/discovery/keys")
SINGLE = published(
    f"{LOGIN}/{TENANT}/v2.0/.well-known/openid-configuration",
    f"{LOGIN}/{TENANT}/v2.0",
    f"{LOGIN}/{TENANT}/discovery/v2.0/keys",
    key(issuer=f"{LOGIN}/{TENANT}/v2.0"),
)
SINGLE_1 = published(
    f"{LOGIN}/{TENANT}/.well-known/openid-configuration",
    f"https://sts.windows.net/{TENANT}/",
    f"{LOGIN}/{TENANT}/discovery/keys",
)
ENTRA_USER = {
    "aud": API,
    "iss": f"{LOGIN}/{TENANT}/v2.0",
    "aio": "AXQAi/8TAAAA",
    "azp": APP,
    "azpacr": "0",
    "name": "Alice",
    "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
    "preferred_username": "alice@northwind.example",
    "rh": "0.AX0A",
    "roles": ["Contacts.Admin"],
    "scp": "contacts.read contacts.write",
    "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
    "tid": TENANT,
    "uti": "fqiBqXLPj0eQa82S-IYFAA",
    "ver": "2.0",
}
ENTRA_APP = {
    **ENTRA_USER,
    "azp": APP,
    "azpacr": "1",
    "name": None,
    "preferred_username": None,
    "scp": None,
    "oid": "b1c2d3e4-0a1b-4c2d-8e3f-5a6b7c8d9e0f",
    "sub": "b1c2d3e4-0a1b-4c2d-8e3f-5a6b7c8d9e0f",
    "roles": ["Contacts.Sync"],
}
ENTRA_1 = {
    "iss": f"https://sts.windows.net/{TENANT}/",
    "aud": "api://organize",
    "azp": None,
    "azpacr": None,
    "appid": APP,
    "appidacr": "0",
    "unique_name": "alice@northwind.example",
    "upn": "alice@northwind.example",
    "ver": "1.0",
}
ENTRA_ID_TOKEN = {
    "iss": f"{LOGIN}/{TENANT}/v2.0",
    "aud": APP,
    "nonce": "678910",
    "oid": ENTRA_USER["oid"],
    "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
    "tid": TENANT,
    "ver": "2.0",
}


def entra(*tenant: str, pages: Mapping[str, object] = SINGLE, **options: Any) -> ResourceServer:
    return server(Internet(pages), Issuer.entra(*tenant, **options), audience=[API, "api://organize"])


def of_tenant(tenant: str, **changes: Any) -> dict[str, Any]:
    return {"iss": f"{LOGIN}/{tenant}/v2.0", "tid": tenant, **changes}


def test_entra_user_token() -> None:
    """ENTRA-01, ENTRA-04: scopes are the string `scp`; the client is `azp` in version 2 and `appid` in version 1."""
    token = entra(TENANT).validate(mint(ENTRA_USER))
    assert (set(token.scopes), token.client_id, token.roles) == (
        {"contacts.read", "contacts.write"},
        APP,
        ("Contacts.Admin",),
    )
    assert not token.is_client
    token = entra(TENANT, version=1, pages=SINGLE_1).validate(mint(ENTRA_USER, ENTRA_1))
    assert (token.client_id, token.audience) == (APP, ("api://organize",))


def test_entra_app_token() -> None:
    """ENTRA-04: an app has roles and no scopes, and is a client with and without the optional `idtyp`."""
    for changes in ({}, {"idtyp": "app"}):
        token = entra(TENANT).validate(mint(ENTRA_APP, changes))
        token.require(role("Contacts.Sync"))
        assert token.is_client
        assert is_refused(token, "contacts.read")
        assert is_refused(token, user_only)


def test_entra_user_with_equal_ids_is_no_app() -> None:
    """A user whose `sub` is the `oid`, as Azure AD B2C writes it, has scopes."""
    assert not entra(TENANT).validate(mint(ENTRA_USER, {"sub": ENTRA_USER["oid"]})).is_client


@pytest.mark.parametrize(
    ("claims", "changes", "refused"),
    [
        (ENTRA_USER, ENTRA_1, Reason.WRONG_ISSUER),  # ENTRA-01
        (ENTRA_USER, of_tenant(OTHER_TENANT), Reason.WRONG_ISSUER),  # ENTRA-02
        (ENTRA_USER, {"tid": OTHER_TENANT}, Reason.WRONG_ISSUER),  # ENTRA-02
        (ENTRA_USER, {"tid": None}, Reason.WRONG_ISSUER),  # ENTRA-02
        (ENTRA_USER, {"tid": [TENANT]}, Reason.WRONG_ISSUER),  # ENTRA-02
        (ENTRA_ID_TOKEN, {}, Reason.WRONG_TYPE),
        (ENTRA_ID_TOKEN, {"nonce": None}, Reason.WRONG_AUDIENCE),
        (ENTRA_USER, {"aud": "00000003-0000-0000-c000-000000000000"}, Reason.WRONG_AUDIENCE),  # ENTRA-08
    ],
)
def test_entra_refuses(claims: dict[str, Any], changes: dict[str, Any], refused: Reason) -> None:
    """Another version, another tenant, an ID token, and a token for Microsoft Graph."""
    assert reason(entra(TENANT), mint(claims, changes)) is refused


def test_entra_graph_token_does_not_verify() -> None:
    """ENTRA-08: the signature of a token with a `nonce` in its header is over another header."""
    header, payload, signature = mint(ENTRA_USER, headers={"nonce": "hashed"}).split(".")
    sent = mint(ENTRA_USER, headers={"nonce": "original"}).split(".")[0]
    assert sent != header
    assert reason(entra(TENANT), f"{sent}.{payload}.{signature}") is Reason.BAD_SIGNATURE


def test_entra_version_that_differs_is_told() -> None:
    """ENTRA-01: which version an API gets is a setting of its registration; the log names ours."""
    assert "a version 1.0 token" in detail(entra(TENANT), mint(ENTRA_USER, ENTRA_1))
    assert "Issuer.entra(version=2)" in detail(entra(TENANT, version=1, pages=SINGLE_1), mint(ENTRA_USER))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tenants", ["any", [TENANT, OTHER_TENANT]])
def test_entra_several_tenants_share_one_key_set(tenants: Any, version: Any) -> None:
    """ENTRA-02: the template's key set is fetched once for all tenants, and each tenant's tokens are accepted."""
    internet = Internet(COMMON if version == 2 else COMMON_1)
    organizer = server(internet, Issuer.entra(tenants=tenants, version=version), audience=[API, "api://organize"])
    organizer.warm_up()
    for tenant in (TENANT, OTHER_TENANT):
        changes = of_tenant(tenant) if version == 2 else {**ENTRA_1, "iss": f"https://sts.windows.net/{tenant}/"}
        for _ in range(2):  # the second time from the cache
            assert organizer.validate(mint(ENTRA_USER, {**changes, "tid": tenant})).claims["tid"] == tenant
    assert len(internet.asked) == 2
    assert [health.issuer for health in organizer.health()] == [TEMPLATE if version == 2 else TEMPLATE_1]


@pytest.mark.parametrize(
    ("tenants", "changes"),
    [
        ([TENANT], of_tenant(OTHER_TENANT)),  # not listed
        ([TENANT, OTHER_TENANT], {"tid": OTHER_TENANT}),
        ([TENANT, OTHER_TENANT], {"tid": None}),
        ("any", {"tid": OTHER_TENANT}),
        ("any", {"tid": None}),
        ("any", {"tid": [TENANT]}),
        ("any", {"iss": None}),
        ("any", of_tenant("../x")),
        ("any", of_tenant("common")),
        ("any", of_tenant("{tenantid}")),
        ("any", of_tenant(TENANT.upper())),
        ("any", of_tenant(f"{TENANT}\n")),
        ("any", of_tenant(f"{TENANT}/v2.0/{TENANT}")),
        ("any", of_tenant(TENANT, iss=f"{LOGIN}/{TENANT}/v2.0/")),
        ("any", of_tenant(TENANT, iss=f"https://login.evil.example/{TENANT}/v2.0")),
    ],
    ids=str,
)
def test_entra_tenant_that_is_not_ours_causes_no_fetch(tenants: Any, changes: dict[str, Any]) -> None:
    """ENTRA-02: the tenant is a GUID, listed where any list is, and the one in `iss`; all before any traffic."""
    internet = Internet(COMMON)
    organizer = server(internet, Issuer.entra(tenants=tenants), audience=API)
    refused = Reason.CLAIM_MISSING if changes == {"iss": None} else Reason.WRONG_ISSUER
    assert reason(organizer, mint(ENTRA_USER, changes)) is refused
    assert internet.asked == []


@pytest.mark.parametrize(
    ("named", "accepted"),
    [
        (TEMPLATE, True),
        (f"{LOGIN}/{TENANT}/v2.0", True),
        (f"{LOGIN}/{OTHER_TENANT}/v2.0", False),
        ("https://sts.windows.net/{tenantid}/", False),
        (None, False),
        (7, False),
        ([TEMPLATE], False),
    ],
)
@pytest.mark.parametrize("tenants", ["any", [TENANT, OTHER_TENANT], [TENANT]])
def test_entra_key_of_another_issuer_verifies_nothing(named: object, accepted: bool, tenants: Any) -> None:
    """ENTRA-03: a key that names an issuer signs for that one alone, the tenant filled in."""
    organizer = entra(tenants=tenants, pages=published(COMMON_METADATA, TEMPLATE, COMMON_KEYS, key(issuer=named)))
    raw = mint(ENTRA_USER)
    if accepted:
        assert organizer.validate(raw).claims["tid"] == TENANT
    else:
        assert reason(organizer, raw) is Reason.UNKNOWN_KEY
        assert "iss is" in detail(organizer, raw)


def test_a_key_s_issuer_is_not_read_where_tenants_are_not_told_apart() -> None:
    """JWK-03: elsewhere it is an unknown member, and ignored."""
    pages = published(f"{OKTA}/.well-known/openid-configuration", OKTA, f"{OKTA}/v1/keys", key(issuer="https://x.y"))
    assert server(Internet(pages), Issuer.okta("northwind.okta.com")).validate(mint(OKTA_USER)).issuer == OKTA


def test_a_remembered_token_is_forgotten_when_its_key_goes_to_another_tenant() -> None:
    """ENTRA-03: that a key is limited from now on is a change of keys."""
    internet = Internet(published(COMMON_METADATA, TEMPLATE, COMMON_KEYS, key(issuer=TEMPLATE)))
    organizer, raw = server(internet, Issuer.entra(tenants="any"), audience=API), mint(ENTRA_USER)
    organizer.validate(raw)
    internet.documents = published(COMMON_METADATA, TEMPLATE, COMMON_KEYS, key(issuer=f"{LOGIN}/{OTHER_TENANT}/v2.0"))
    organizer.warm_up()
    assert reason(organizer, raw) is Reason.UNKNOWN_KEY


def test_entra_shared_metadata_must_name_the_template() -> None:
    """DISC: the document of one tenant cannot speak for all; the error names both spellings."""
    pages = published(COMMON_METADATA, f"{LOGIN}/{TENANT}/v2.0", COMMON_KEYS)
    organizer = entra(tenants="any", pages=pages)
    with pytest.raises(ConfigurationError, match=r"names the issuer .*but the setting issuer is .*\{tenantid\}"):
        organizer.warm_up()
    with pytest.raises(TemporarilyUnavailable) as unavailable:
        organizer.validate(mint(ENTRA_USER))
    assert unavailable.value.reason is Reason.ISSUER_MISCONFIGURED


def test_entra_metadata_of_an_application() -> None:
    """An application with signing keys of its own has them at an address of its own."""
    url = f"{LOGIN}/{TENANT}/v2.0/.well-known/openid-configuration?appid={API}"
    keys = f"{LOGIN}/{TENANT}/discovery/v2.0/keys?appid={API}"
    internet = Internet(published(url, f"{LOGIN}/{TENANT}/v2.0", keys))
    organizer = server(internet, Issuer.entra(TENANT, metadata_url=url), audience=API)
    assert organizer.validate(mint(ENTRA_USER)).claims["tid"] == TENANT
    assert internet.asked == [url, keys]


GROUP = "5c8d1f2e-0b7a-4a53-8d6c-2f1e0a9b8c7d"
OVERAGE = {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.windows.net/x"}}}


@pytest.mark.parametrize(
    ("changes", "omitted"),
    [
        ({"groups": [GROUP]}, False),
        ({}, False),
        (OVERAGE, True),
        ({"hasgroups": True}, True),
        ({"groups": [], "hasgroups": True}, False),
        ({"_claim_names": {"other": "src1"}}, False),
        ({"_claim_names": "groups"}, False),
        ({"_claim_names": 7}, False),
    ],
    ids=str,
)
def test_entra_groups_that_are_too_many_are_unknown(changes: dict[str, Any], omitted: bool) -> None:
    """ENTRA-06: a group is refused as unknown, not as missing; both are the same 403."""
    token = entra(TENANT, role_claims=["roles", "groups"]).validate(mint(ENTRA_USER, changes))
    assert (token.roles_omitted, "Contacts.Admin" in token.roles) == (omitted, True)
    with pytest.raises(InsufficientScope) as refused:
        token.require(role("another"))
    assert refused.value.reason is Reason.INSUFFICIENT_PERMISSION
    assert ("unknown" in refused.value.detail) is omitted
    if "groups" not in changes:
        assert is_refused(token, role(GROUP))
    else:
        assert (GROUP in token.roles) is bool(changes["groups"])


def test_groups_do_not_matter_where_they_are_no_roles() -> None:
    """ENTRA-06: without `groups` among the role claims there is nothing that could be missing."""
    assert not entra(TENANT).validate(mint(ENTRA_USER, OVERAGE)).roles_omitted


def test_entra_of_a_national_cloud() -> None:
    """`domain` is where users log in; version 1 tokens of one cloud come from elsewhere."""
    assert (
        Issuer.entra(TENANT, domain="login.microsoftonline.us").url == f"https://login.microsoftonline.us/{TENANT}/v2.0"
    )
    assert (
        Issuer.entra(TENANT, domain="login.microsoftonline.us", version=1).url == f"https://sts.windows.net/{TENANT}/"
    )
    china = Issuer.entra(TENANT, domain="login.partner.microsoftonline.cn", version=1)
    assert china.url == f"https://sts.chinacloudapi.cn/{TENANT}/"
    assert china.metadata_url == f"https://login.partner.microsoftonline.cn/{TENANT}/.well-known/openid-configuration"


def test_entra_b2c() -> None:
    """The metadata is the user flow's, the issuer the tenant's, and a token has no `tid`."""
    host = f"https://{B2C}"
    url = f"{host}/{TENANT}/B2C_1_sign_in/v2.0/.well-known/openid-configuration"
    keys = f"{host}/{TENANT}/B2C_1_sign_in/discovery/v2.0/keys"
    internet = Internet(published(url, f"{host}/{TENANT}/v2.0/", keys))
    preset = Issuer.entra(TENANT, domain=B2C, policy="B2C_1_sign_in")
    organizer = server(internet, preset, audience=API)
    claims = {
        "iss": f"{host}/{TENANT}/v2.0/",
        "sub": ENTRA_USER["oid"],
        "oid": ENTRA_USER["oid"],
        "aud": API,
        "azp": APP,
        "tfp": "B2C_1_sign_in",
        "nonce": "defaultNonce",
        "scp": "contacts.read",
        "ver": "1.0",
    }
    token = organizer.validate(mint(claims))
    assert (token.client_id, list(token.scopes), token.is_client) == (APP, ["contacts.read"], False)
    assert reason(organizer, mint(claims, {"iss": f"{host}/{OTHER_TENANT}/v2.0/"})) is Reason.WRONG_ISSUER
    assert reason(organizer, mint(claims, {"scp": None, "aud": APP})) is Reason.WRONG_TYPE  # an ID token
    assert internet.asked == [url, keys]


# Templates of any issuer.


def test_template_without_a_common_key_set_is_an_issuer_for_each_tenant() -> None:
    """Each tenant's keys are found at its own address, and verify no token of another."""
    template = "https://login.example/{tenantid}/v2.0"
    a, b = (template.replace("{tenantid}", tenant) for tenant in ("a", "b"))
    pages = published(f"{a}/.well-known/openid-configuration", a, f"{a}/keys")
    others = {"keys": [ANOTHER_KEY.public_jwk()]}
    internet = Internet(
        {**pages, **published(f"{b}/.well-known/openid-configuration", b, f"{b}/keys"), f"{b}/keys": others}
    )
    organizer = server(internet, Issuer(template, tenants=["a", "b"]))
    assert [health.issuer for health in organizer.health()] == [a, b]
    claims = {"iss": a, "tid": "a", "aud": "organize", "sub": "alice"}
    assert organizer.validate(mint(claims)).issuer == a
    assert internet.asked == list(pages)
    assert reason(organizer, mint(claims, {"iss": b, "tid": "b"})) is Reason.UNKNOWN_KEY
    assert organizer.validate(mint(claims, {"iss": b, "tid": "b"}, key=ANOTHER_KEY)).issuer == b
    assert reason(organizer, mint(claims, {"tid": "b"})) is Reason.WRONG_ISSUER


def test_template_with_given_keys() -> None:
    """Keys that are given serve all tenants, too."""
    template = Issuer("https://login.example/{tenantid}", tenants="any", jwks={"keys": [key()]})
    claims = {"iss": f"https://login.example/{TENANT}", "tid": TENANT, "aud": "organize"}
    assert server(Internet({}), template).validate(mint(claims)).claims["tid"] == TENANT


# Settings.


@pytest.mark.parametrize(
    ("preset", "arguments", "options", "message"),
    [
        (Issuer.auth0, ("https://northwind.eu.auth0.com/",), {}, "domain must be a host alone"),
        (Issuer.auth0, ("northwind.eu.auth0.com/",), {}, "domain must be a host alone"),
        (Issuer.auth0, ("northwind",), {}, "domain must be a host alone"),
        (Issuer.auth0, ("Northwind.eu.auth0.com",), {}, "domain must be a host alone"),
        (Issuer.auth0, ("user@northwind.eu.auth0.com",), {}, "domain must be a host alone"),
        (Issuer.auth0, (7,), {}, "domain must be a host alone"),
        (Issuer.okta, ("https://northwind.okta.com",), {}, "domain must be a host alone"),
        (Issuer.okta, ("northwind.okta.com", ""), {}, "authorization_server must be a name"),
        (Issuer.okta, ("northwind.okta.com", "oauth2/default"), {}, "authorization_server must be a name"),
        (Issuer.keycloak, ("login.northwind.example", "organizer"), {}, "base_url must be an absolute https URL"),
        (Issuer.keycloak, (KEYCLOAK, "organizer"), {}, "base_url .* holds a realm"),
        (Issuer.keycloak, ("https://login.northwind.example", "a/b"), {}, "realm must be a name"),
        (Issuer.keycloak, ("https://login.northwind.example", ".."), {}, "realm must be a name"),
        (Issuer.keycloak, ("https://login.northwind.example", "organizer", ""), {}, "client_id must be"),
        (Issuer.cognito, ("eu-central-1", "eu-central-1_A"), {"client_ids": []}, "client_ids must be"),
        (Issuer.cognito, ("eu-west-1", "eu-central-1_A"), {"client_ids": "c"}, "user_pool_id .* is not of region"),
        (Issuer.cognito, ("eu-central-1", COGNITO), {"client_ids": "c"}, "user_pool_id must be a name"),
        (
            Issuer.cognito,
            ("eu-central-1", "eu-central-1_A"),
            {"client_ids": "c", "profile": "rfc9068"},
            "client_ids is for",
        ),
        (Issuer.entra, (), {}, "tenant_id, or tenants"),
        (Issuer.entra, (TENANT,), {"tenants": "any"}, "tenant_id, or tenants"),
        (Issuer.entra, ("northwind.onmicrosoft.com",), {}, "tenant_id must be the id of a tenant"),
        (Issuer.entra, ("common",), {}, "tenants='any'"),
        (Issuer.entra, (TENANT.upper(),), {}, "a GUID in lower case"),
        (Issuer.entra, (), {"tenants": ["northwind.onmicrosoft.com"]}, "tenants must be the id of a tenant"),
        (Issuer.entra, (), {"tenants": []}, "tenants must be a string or a non-empty collection"),
        (Issuer.entra, (TENANT,), {"version": 3}, "version must be 1 or 2"),
        (Issuer.entra, (TENANT,), {"domain": LOGIN}, "domain must be a host alone"),
        (Issuer.entra, (), {"tenants": "any", "policy": "B2C_1", "domain": B2C}, "policy is for Azure AD B2C"),
        (Issuer.entra, (TENANT,), {"version": 1, "policy": "B2C_1", "domain": B2C}, "policy is for Azure AD B2C"),
        (Issuer.entra, (TENANT,), {"policy": "B2C_1_sign_in"}, "it goes with tenant_id and domain="),
        (Issuer.entra, (TENANT,), {"policy": "a/b", "domain": B2C}, "policy must be a name"),
    ],
)
def test_preset_names_the_argument_that_is_wrong(preset: Any, arguments: Any, options: Any, message: str) -> None:
    """A URL given as a domain, a domain given as an id: told at start-up, by the argument's name."""
    with pytest.raises(ConfigurationError, match=message):
        preset(*arguments, **options)


NO_HOST = "domain must be a host alone, in lower case, without https:// and slashes"
NO_NAME = "must be a name of letters, digits and ._~- that stands in the issuer's URL, not"
NO_GUID = "a domain is no id, and common, organizations and consumers are no tenants (tenants='any' accepts all)"
NO_TENANT = "entra() needs tenant_id, or tenants: a collection of ids or 'any'; not both"
NO_POLICY = (
    "policy is for Azure AD B2C: it goes with tenant_id and domain='northwind.b2clogin.com', and not with version=1"
)


@pytest.mark.parametrize(
    ("preset", "arguments", "options", "message"),
    [
        (Issuer.auth0, ("northwind",), {}, f"{NO_HOST}: 'northwind.eu.auth0.com', not 'northwind'"),
        (Issuer.okta, ("northwind",), {}, f"{NO_HOST}: 'northwind.okta.com', not 'northwind'"),
        (Issuer.okta, ("northwind.okta.com", ""), {}, f"authorization_server {NO_NAME} ''"),
        (
            Issuer.keycloak,
            (KEYCLOAK, "organizer"),
            {},
            f"base_url '{KEYCLOAK}' holds a realm: give the part before /realms/",
        ),
        (Issuer.keycloak, ("https://a.example", "r", ""), {}, "client_id must be the id of one client, not ''"),
        (Issuer.keycloak, ("https://a.example", "r", 7), {}, "client_id must be the id of one client, not 7"),
        (Issuer.keycloak, ("https://a.example", ""), {}, f"realm {NO_NAME} ''"),
        (Issuer.cognito, ("", "_A"), {"client_ids": "c"}, f"region {NO_NAME} ''"),
        (Issuer.cognito, ("a", ""), {"client_ids": "c"}, f"user_pool_id {NO_NAME} ''"),
        (Issuer.cognito, ("a", "aA"), {"client_ids": "c"}, "user_pool_id 'aA' is not of region 'a'"),
        (Issuer.entra, (), {}, NO_TENANT),
        (Issuer.entra, (TENANT,), {"tenants": "any"}, NO_TENANT),
        (Issuer.entra, (TENANT,), {"version": 3}, "version must be 1 or 2, that of the access tokens, not 3"),
        (Issuer.entra, (TENANT,), {"domain": "a"}, f"{NO_HOST}: 'login.microsoftonline.com', not 'a'"),
        (Issuer.entra, ("a",), {}, f"tenant_id must be the id of a tenant, a GUID in lower case, not 'a': {NO_GUID}"),
        (
            Issuer.entra,
            (),
            {"tenants": ["a"]},
            f"tenants must be the id of a tenant, a GUID in lower case, not 'a': {NO_GUID}",
        ),
        (Issuer.entra, (), {"tenants": []}, "tenants must be a string or a non-empty collection of strings, not []"),
        (Issuer.entra, (TENANT,), {"policy": "B2C_1_sign_in"}, NO_POLICY),
        (Issuer.entra, (TENANT,), {"policy": "", "domain": B2C}, f"policy {NO_NAME} ''"),
    ],
    ids=str,
)
def test_preset_says_what_is_wanted(preset: Any, arguments: Any, options: Any, message: str) -> None:
    """The whole text: the argument, its form or an example, and what was given."""
    with pytest.raises(ConfigurationError) as refused:
        preset(*arguments, **options)
    assert str(refused.value) == message


def test_preset_takes_the_further_settings_of_an_issuer() -> None:
    """What a preset decides by default can be said, too."""
    given = {"keys": [key()]}
    assert Issuer.entra(TENANT, jwks=given).metadata_url is None
    assert Issuer.entra(TENANT, jwks_uri=COMMON_KEYS).metadata_url is None
    assert Issuer.keycloak("https://a.example/auth/", "r", role_claims="groups").role_claims == (("groups",),)
    assert Issuer.keycloak("https://a.example/auth/", "r").url == "https://a.example/auth/realms/r"
    assert Issuer.auth0("a.example", algorithms=["RS256"], audience="b").algorithms == {"RS256"}
    assert Issuer.okta("a.example", audience="b").audience == {"b"}
    assert Issuer.cognito("a", "a_A", client_ids="c", role_claims="groups").role_claims == (("groups",),)
    assert Issuer.entra(TENANT, audience="b").audience == {"b"}
