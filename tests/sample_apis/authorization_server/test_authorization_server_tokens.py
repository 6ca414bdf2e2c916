"""The token endpoint and its siblings: what is granted to whom, what is refused and why, and what ends with what."""

from base64 import b64encode
from dataclasses import replace
from typing import Any

import httpx
import pytest

from sample_apis.authorization_server.catalogue import ExchangePairing, sample_catalogue
from tests.sample_apis.authorization_server.conftest import (
    ACCESS_TOKEN,
    APP,
    CUSTOM,
    EXCHANGE,
    MAIN,
    OIDC,
    READING,
    REPORTS,
    Answer,
    Browser,
    Clock,
    Serve,
    answer_in,
    authorization_request,
    claims_of,
)

MACHINE = ("organizer-machine", "organizer-machine-secret")


def error_of(response: httpx.Response) -> str:
    """The error of a refused request, which is JSON with words that apps can show, and never stored."""
    assert response.status_code in {400, 401, 403}
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    answer: Answer = response.json()
    assert answer["error_description"]
    return str(answer["error"])


def test_a_code_gives_all_three_tokens(browser: Browser) -> None:
    """The access token as the hosted service makes it, the ID token for the client, numbers as numbers."""
    answer = browser.tokens()
    assert {name: answer[name] for name in ("token_type", "expires_in", "scope")} == {
        "token_type": "Bearer",
        "expires_in": 86_400,
        "scope": f"{OIDC} {READING}",
    }
    claims = claims_of(answer["access_token"])
    issued_at = claims["iat"]
    assert claims == {
        "iss": MAIN,
        "sub": "auth0|alice",
        "aud": ["organize", f"{MAIN}userinfo"],
        "azp": "organizer-spa",
        "iat": issued_at,
        "exp": issued_at + 86_400,
        "scope": f"{OIDC} {READING}",
        "permissions": sorted(browser_permissions()),
    }
    id_token = claims_of(answer["id_token"])
    assert {name: id_token[name] for name in ("iss", "sub", "aud", "name", "email")} == {
        "iss": MAIN,
        "sub": "auth0|alice",
        "aud": "organizer-spa",
        "name": "Alice",
        "email": "alice@example.com",
    }


def browser_permissions() -> frozenset[str]:
    return sample_catalogue().users[0].permissions["organize"]


def test_a_refresh_token_takes_offline_access(browser: Browser) -> None:
    """Without that scope there is none."""
    assert "refresh_token" not in browser.tokens(scope=f"openid {READING}")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code": "wrong"}, "invalid_grant"),
        ({"code": None}, "invalid_request"),
        ({"code_verifier": "another-verifier-of-at-least-forty-three-characters"}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_request"),
        ({"redirect_uri": f"{APP}/"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_grant"),
        ({"client_id": "organizer-web"}, "invalid_grant"),
        ({"client_id": "organizer-machine"}, "unauthorized_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": None}, "unsupported_grant_type"),
    ],
)
def test_a_wrong_use_of_a_code_is_refused(browser: Browser, changes: dict[str, str | None], error: str) -> None:
    """RFC 6749 4.1.3, RFC 7636 4.6: the client, the address and the verifier must be those of the request."""
    assert error_of(browser.redeem(**{"code": answer_in(browser.log_in())["code"], **changes})) == error


def test_a_code_is_good_for_a_minute(browser: Browser, clock: Clock) -> None:
    """RFC 6749 4.1.2: a short life."""
    code = answer_in(browser.log_in())["code"]
    clock.now += 61
    assert error_of(browser.redeem(code)) == "invalid_grant"


def test_a_code_used_twice_ends_what_was_issued(browser: Browser) -> None:
    """RFC 6749 4.1.2: whoever was second, one of them had stolen it."""
    code = answer_in(browser.log_in())["code"]
    answer = browser.redeem(code).json()
    assert error_of(browser.redeem(code)) == "invalid_grant"
    assert browser.introspect(answer["access_token"]) == {"active": False}
    assert error_of(browser.refresh(answer["refresh_token"])) == "invalid_grant"


def test_json_bodies_are_read_like_forms(browser: Browser) -> None:
    """The SPA library sends the one or the other."""
    answer = browser.tokens()
    body = {"grant_type": "refresh_token", "client_id": "organizer-spa", "refresh_token": answer["refresh_token"]}
    assert browser.client.post("/oauth/token", json=body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{",
        b"7",
        b'[["grant_type", "refresh_token"]]',
        b"[" * 100_000,
        b'{"grant_type": "refresh_token", "grant_type": "refresh_token"}',
        b'{"grant_type": 7}',
        b'{"grant_type": "refresh_token", "client_id": "organizer-spa", "refresh_token": "\\ud800"}',
        b"\xff",
    ],
)
def test_a_body_that_is_no_flat_object_is_refused(browser: Browser, body: bytes) -> None:
    """Repeated members, other values and other shapes are one kind of error, in JSON."""
    response = browser.client.post("/oauth/token", content=body, headers={"Content-Type": "application/json"})
    assert error_of(response) == "invalid_request"


def test_parameters_in_the_address_are_not_read(browser: Browser) -> None:
    """RFC 6749 3.2: secrets and codes belong into the body."""
    query = {"grant_type": "client_credentials", "client_id": MACHINE[0], "client_secret": MACHINE[1]}
    assert error_of(browser.client.post("/oauth/token", params=query)) == "unsupported_grant_type"


# Refresh tokens.


def test_refresh_tokens_rotate(browser: Browser) -> None:
    """Every answer holds the next one, and an ID token for the same user and time of login."""
    answer = browser.tokens()
    for _ in range(3):
        following = browser.refresh(answer["refresh_token"], redirect_uri="ignored").json()
        assert following["refresh_token"] != answer["refresh_token"]
        assert claims_of(following["id_token"])["auth_time"] == claims_of(answer["id_token"])["auth_time"]
        assert following["scope"] == answer["scope"]
        answer = following


def test_a_refresh_token_used_twice_ends_the_family(browser: Browser) -> None:
    """RFC 9700 4.14.2, in the words that the SPA library looks for."""
    first = browser.tokens()
    second = browser.refresh(first["refresh_token"]).json()
    refused = browser.refresh(first["refresh_token"])
    assert error_of(refused) == "invalid_grant"
    assert "invalid refresh token" in refused.json()["error_description"]
    assert error_of(browser.refresh(second["refresh_token"])) == "invalid_grant"
    assert browser.introspect(second["access_token"]) == {"active": False}
    assert browser.get("/userinfo", second["access_token"]).status_code == 401


def test_a_refresh_token_is_good_for_its_client_and_domain_alone(browser: Browser, serve: Serve) -> None:
    """Another client or the other domain is refused, and the token is not spent by that."""
    sent = browser.tokens()["refresh_token"]
    other_client = browser.token("organizer-web", grant_type="refresh_token", refresh_token=sent)
    assert error_of(other_client) == "invalid_grant"
    assert error_of(serve(domain=CUSTOM).refresh(sent)) == "invalid_grant"
    assert browser.refresh(sent).status_code == 200


def test_a_refresh_token_ends_a_month_after_its_last_use(browser: Browser, clock: Clock) -> None:
    """Each use begins the month anew."""
    sent = browser.tokens()["refresh_token"]
    for _ in range(2):
        clock.now += 29 * 86_400
        sent = browser.refresh(sent).json()["refresh_token"]
    clock.now += 31 * 86_400
    assert error_of(browser.refresh(sent)) == "invalid_grant"


def test_a_refresh_may_narrow_the_scope_and_never_widens_it(browser: Browser) -> None:
    """RFC 6749 6: the rest is left out of the token, and of the answer, but stays for later."""
    answer = browser.refresh(browser.tokens()["refresh_token"], scope="openid read:contacts delete:contacts").json()
    assert answer["scope"] == "openid read:contacts"
    assert browser.refresh(answer["refresh_token"]).json()["scope"] == f"{OIDC} {READING}"


def test_one_refresh_token_serves_several_apis(browser: Browser) -> None:
    """The scope of the answer repeats every scope asked for; the token is for the one API; then back again."""
    asked = f"{OIDC} read:reports"
    answer = browser.refresh(browser.tokens()["refresh_token"], audience=REPORTS, scope=asked).json()
    assert answer["scope"] == asked
    assert claims_of(answer["access_token"])["aud"] == [REPORTS, f"{MAIN}userinfo"]
    assert "id_token" in answer
    back = browser.refresh(answer["refresh_token"]).json()
    assert claims_of(back["access_token"])["aud"] == ["organize", f"{MAIN}userinfo"]


def test_a_second_api_that_asks_for_consent_gives_nothing_without_it(browser: Browser) -> None:
    """The login was for reports; organize is not among what the user has allowed, and e-mail neither."""
    answer = browser.tokens(audience=REPORTS, scope="openid offline_access read:reports")
    refreshed = browser.refresh(answer["refresh_token"], audience="organize", scope=f"openid email {READING}").json()
    assert refreshed["scope"] == "openid"
    browser.log_in()
    refreshed = browser.refresh(refreshed["refresh_token"], audience="organize", scope=f"openid email {READING}").json()
    assert refreshed["scope"] == f"openid {READING}"


def test_an_unknown_api_does_not_cost_the_refresh_token(browser: Browser) -> None:
    """The request is refused before the token is spent."""
    sent = browser.tokens()["refresh_token"]
    assert error_of(browser.refresh(sent, audience="urn:unknown")) == "access_denied"
    assert browser.refresh(sent).status_code == 200


# Clients in their own name.


def test_a_machine_gets_what_it_has_a_grant_for(browser: Browser) -> None:
    """All of it, or the part that it asks for; no refresh token, no ID token."""
    answer = browser.token("organizer-machine", grant_type="client_credentials", audience="organize").json()
    assert set(answer) == {"access_token", "token_type", "expires_in", "scope"}
    assert set(answer["scope"].split()) == set(READING.split())
    claims = claims_of(answer["access_token"])
    assert (claims["sub"], claims["azp"]) == ("organizer-machine@clients", "organizer-machine")
    assert (claims["gty"], claims["aud"]) == ("client-credentials", "organize")
    part = browser.token("organizer-machine", grant_type="client_credentials", scope="read:calendar").json()
    assert claims_of(part["access_token"])["permissions"] == ["read:calendar"]


@pytest.mark.parametrize(
    ("client_id", "changes", "error"),
    [
        ("organizer-machine", {"audience": REPORTS}, "access_denied"),
        ("organizer-machine", {"audience": "urn:unknown"}, "access_denied"),
        ("organizer-machine", {"audience": f"{MAIN}api/v2/"}, "access_denied"),
        ("organizer-machine", {"scope": "read:contacts delete:contacts"}, "invalid_scope"),
        ("organizer-machine", {"organization": "org_southwind"}, "access_denied"),
        ("organizer-machine", {"client_secret": "wrong"}, "invalid_client"),
        ("organizer-machine", {"client_secret": None}, "invalid_client"),
        ("organizer-spa", {}, "invalid_client"),
        ("organizer-web", {}, "unauthorized_client"),
        ("nobody", {}, "invalid_client"),
    ],
)
def test_a_machine_gets_nothing_else(browser: Browser, client_id: str, changes: dict[str, Any], error: str) -> None:
    """A client without a grant for the API, for the scope or for the organization is refused."""
    assert error_of(browser.token(client_id, grant_type="client_credentials", **changes)) == error


def test_a_machine_may_act_for_an_organization(browser: Browser) -> None:
    """If its grant names the organization."""
    answer = browser.token("organizer-machine", grant_type="client_credentials", organization="org_northwind").json()
    assert claims_of(answer["access_token"])["org_id"] == "org_northwind"


@pytest.mark.parametrize(
    "field", ["Basic", "Basic !", "Basic /w==", "Basic " + b64encode(b"a").decode(), "Bearer x", ""]
)
def test_an_odd_authorization_field_is_no_crash(browser: Browser, field: str) -> None:
    """Whatever is sent, the answer is invalid_client, and names the scheme."""
    response = browser.client.post(
        "/oauth/token", data={"grant_type": "client_credentials"}, headers={"Authorization": field}
    )
    assert (error_of(response), response.status_code) == ("invalid_client", 401)
    assert response.headers["WWW-Authenticate"].startswith("Basic ")


def test_a_client_authenticates_in_one_way(browser: Browser) -> None:
    """RFC 6749 2.3: by the header or in the body, never both."""
    form = {"grant_type": "client_credentials"}
    assert browser.client.post("/oauth/token", data=form, auth=MACHINE).status_code == 200
    both = browser.client.post("/oauth/token", data={**form, "client_secret": MACHINE[1]}, auth=MACHINE)
    assert error_of(both) == "invalid_request"


# On behalf of the user.


@pytest.fixture
def reports_token(browser: Browser) -> str:
    token: str = browser.tokens(audience=REPORTS, scope=f"{OIDC} read:reports")["access_token"]
    return token


def test_reports_exchanges_a_users_token_for_organize(browser: Browser, reports_token: str) -> None:
    """RFC 8693: the user stays the subject, reports is the actor, and no scope but the paired ones is in it."""
    answer = browser.exchange(reports_token, scope="openid profile read:contacts").json()
    assert answer["issued_token_type"] == ACCESS_TOKEN
    assert {"refresh_token", "id_token"} & set(answer) == set()
    claims = claims_of(answer["access_token"])
    assert (claims["sub"], claims["aud"], claims["azp"]) == ("auth0|alice", "organize", "reports-api")
    assert (claims["act"], claims["scope"]) == ({"sub": "reports-api"}, "read:contacts")
    assert set(browser.exchange(reports_token).json()["scope"].split()) == set(READING.split())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"audience": REPORTS}, "invalid_target"),
        ({"audience": None}, "invalid_target"),
        ({"audience": f"{MAIN}api/v2/"}, "invalid_target"),
        ({"scope": "read:contacts create:contacts"}, "invalid_scope"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token": "eyJhbGciOiJub25lIn0.e30."}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"client_id": "organizer-web"}, "unauthorized_client"),
        ({"client_id": "organizer-machine"}, "unauthorized_client"),
        ({"client_id": "organizer-spa"}, "unauthorized_client"),
    ],
)
def test_other_exchanges_are_refused(browser: Browser, reports_token: str, changes: dict[str, Any], error: str) -> None:
    """An unpaired API or scope, another kind of token, any other client."""
    assert error_of(browser.exchange(**{"subject_token": reports_token, **changes})) == error


def test_a_token_for_another_api_cannot_be_exchanged(browser: Browser) -> None:
    """Reports exchanges what was sent to it, not what it has found."""
    assert error_of(browser.exchange(browser.tokens()["access_token"])) == "invalid_target"


def test_an_exchanged_token_ends_with_the_one_it_came_from(browser: Browser, reports_token: str, clock: Clock) -> None:
    """It lives no longer, and an expired or revoked token gives none."""
    clock.now += 86_000
    answer = browser.exchange(reports_token).json()
    assert answer["expires_in"] == 400
    assert claims_of(answer["access_token"])["exp"] == claims_of(reports_token)["exp"]
    clock.now += 400
    assert error_of(browser.exchange(reports_token)) == "invalid_request"


def test_the_chain_of_actors_is_limited(serve: Serve) -> None:
    """RFC 8693 4.1: each exchange puts an actor in front, three and no more."""
    catalogue = sample_catalogue()
    around = ExchangePairing(source="organize", audience="organize", scopes=frozenset({"read:contacts"}))
    clients = tuple(replace(client, pairings=(*client.pairings, around)) for client in catalogue.clients)
    browser = serve(replace(catalogue, clients=clients))
    machine = browser.token("organizer-machine", grant_type="client_credentials").json()["access_token"]
    assert error_of(browser.exchange(machine)) == "invalid_request"  # there is no user to act for
    token = browser.tokens()["access_token"]
    for _ in range(3):
        token = browser.exchange(token).json()["access_token"]
    actor = {"sub": "reports-api"}
    assert claims_of(token)["act"] == {**actor, "act": {**actor, "act": actor}}
    refused = browser.exchange(token)
    assert (error_of(refused), "chain" in refused.json()["error_description"]) == ("invalid_request", True)


# What becomes of a token.


def test_introspection_describes_an_access_token(browser: Browser, reports_token: str) -> None:
    """RFC 7662 2.2: what the token says, and whose it is; an exchanged one is its exchanger's."""
    described = browser.introspect(reports_token)
    assert described == {
        **claims_of(reports_token),
        "active": True,
        "client_id": "organizer-spa",
        "token_type": "Bearer",
        "username": "alice",
    }
    exchanged = browser.introspect(browser.exchange(reports_token).json()["access_token"])
    assert (exchanged["client_id"], exchanged["act"]) == ("reports-api", {"sub": "reports-api"})


def test_introspection_is_for_clients_with_a_secret(browser: Browser) -> None:
    """And a refresh token is shown to its own client alone."""
    answer = browser.tokens()
    public = browser.client.post(
        "/oauth/introspect", data={"client_id": "organizer-spa", "token": answer["access_token"]}
    )
    assert error_of(public) == "invalid_client"
    assert browser.introspect(answer["refresh_token"]) == {"active": False}
    code = answer_in(browser.log_in(client_id="organizer-web"))["code"]
    web = browser.redeem(code, client_id="organizer-web").json()["refresh_token"]
    auth = ("organizer-web", "organizer-web-secret")
    assert browser.client.post("/oauth/introspect", data={"token": web}, auth=auth).json()["active"]
    machine = browser.token("organizer-machine", grant_type="client_credentials").json()["access_token"]
    own = browser.client.post("/oauth/introspect", data={"token": machine}, auth=MACHINE).json()
    assert (own["active"], own["sub"], "username" in own) == (True, "organizer-machine@clients", False)
    assert browser.introspect("unknown") == {"active": False}


def test_introspection_knows_an_expired_token(browser: Browser, clock: Clock) -> None:
    """It is not active."""
    token = browser.tokens()["access_token"]
    clock.now += 86_400
    assert browser.introspect(token) == {"active": False}


@pytest.mark.parametrize("send", ["data", "json"])
def test_a_revoked_refresh_token_takes_everything_with_it(browser: Browser, send: str) -> None:
    """RFC 7009 2.1, form or JSON; revoking again is no error."""
    answer = browser.tokens()
    body = {"client_id": "organizer-spa", "token": answer["refresh_token"], "token_type_hint": "refresh_token"}
    for _ in range(2):
        assert browser.client.post("/oauth/revoke", **{send: body}).status_code == 200  # type: ignore[arg-type]
    assert error_of(browser.refresh(answer["refresh_token"])) == "invalid_grant"
    assert browser.introspect(answer["access_token"]) == {"active": False}


def test_a_revoked_access_token_ends_alone(browser: Browser) -> None:
    """The refresh token stays good; another client cannot revoke it."""
    answer = browser.tokens()
    body = {"token": answer["access_token"]}
    assert error_of(browser.client.post("/oauth/revoke", data=body, auth=MACHINE)) == "invalid_grant"
    assert browser.introspect(answer["access_token"])["active"]
    browser.client.post("/oauth/revoke", data={**body, "client_id": "organizer-spa"})
    assert browser.introspect(answer["access_token"]) == {"active": False}
    assert browser.refresh(answer["refresh_token"]).status_code == 200


def test_a_token_endpoint_without_its_token_says_so(browser: Browser) -> None:
    """For both siblings."""
    for path in ("/oauth/revoke", "/oauth/introspect"):
        assert error_of(browser.client.post(path, auth=MACHINE)) == "invalid_request"


def test_userinfo_takes_the_array_token_and_the_opaque_one(browser: Browser, serve: Serve) -> None:
    """A token for /userinfo alone is opaque: asked for by name, or with no audience and no default one."""
    known = {"sub": "auth0|alice", "name": "Alice", "nickname": "alice"}
    assert browser.get("/userinfo", browser.tokens(scope=f"openid profile {READING}")["access_token"]).json() == known
    named = browser.tokens(audience=f"{MAIN}userinfo", scope="openid profile")["access_token"]
    without_default = serve(replace(sample_catalogue(), default_audience=None))
    unnamed = without_default.tokens(audience=None, scope="openid profile")["access_token"]
    for token in (named, unnamed):
        assert token.count(".") == 0
        assert browser.get("/userinfo", token).json() == known
        assert browser.introspect(token)["active"]


def test_userinfo_refuses_other_tokens(browser: Browser) -> None:
    """RFC 6750 3: without openid the token is not for it; without a token there is no error code."""
    without_openid = browser.tokens(scope="read:contacts")["access_token"]
    for answer in (browser.get("/userinfo", without_openid), browser.get("/userinfo", "unknown")):
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    missing = browser.client.get("/userinfo")
    assert (missing.status_code, missing.json()) == (401, {})


def test_the_default_audience_is_the_tenants(browser: Browser) -> None:
    """A login that names none is for organize."""
    assert claims_of(browser.tokens(audience=None)["access_token"])["aud"] == ["organize", f"{MAIN}userinfo"]


def test_a_management_token_is_good_at_its_own_domain_alone(serve: Serve) -> None:
    """The custom domain issues for itself, and neither takes the token of the other."""
    browsers = [serve(domain=domain) for domain in (MAIN, CUSTOM)]
    scope = "openid read:current_user"
    for own, other in (browsers, reversed(browsers)):
        domain = str(own.client.base_url)
        token = own.tokens(audience=f"{domain}api/v2/", scope=scope)["access_token"]
        assert claims_of(token)["iss"] == domain
        assert own.get("/api/v2/users/auth0|alice", token).json()["user_id"] == "auth0|alice"
        assert own.get("/api/v2/users/auth0|bob", token).status_code == 403
        assert other.get("/api/v2/users/auth0|alice", token).status_code == 401


# What a browser needs.


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke"])
def test_preflight_allows_what_the_spa_library_sends(browser: Browser, path: str) -> None:
    """Its own headers, from registered origins alone, without credentials."""
    asked = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "auth0-client,content-type,dpop",
    }
    answer = browser.client.options(path, headers={"Origin": APP, **asked})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert {"auth0-client", "content-type", "dpop"} <= {
        name.strip().lower() for name in answer.headers["Access-Control-Allow-Headers"].split(",")
    }
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    stranger = browser.client.options(path, headers={"Origin": "http://localhost:6666", **asked})
    assert "Access-Control-Allow-Origin" not in stranger.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/oauth/token"), ("GET", "/oauth/token"), ("GET", "/oauth/nowhere"), ("GET", "/userinfo")],
)
def test_refusals_can_be_read_by_the_app(browser: Browser, method: str, path: str) -> None:
    """CORS headers and JSON on errors, too: without them the app sees a network failure."""
    answer = browser.client.request(method, path, headers={"Origin": APP})
    assert answer.status_code >= 400
    assert answer.headers["Content-Type"] == "application/json"
    assert (answer.headers["Access-Control-Allow-Origin"], answer.headers["Vary"]) == (APP, "Origin")
    assert "DPoP-Nonce" in answer.headers["Access-Control-Expose-Headers"]


def test_an_origin_given_on_the_command_line_is_allowed(serve: Serve) -> None:
    """And an app that is at a path under it may be returned to there."""
    browser = serve(sample_catalogue(["http://localhost:4321/app"]))
    answer = browser.client.options("/oauth/token", headers={"Origin": "http://localhost:4321"})
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:4321"
    assert "code" in answer_in(browser.log_in(redirect_uri="http://localhost:4321/app/"))


def test_the_custom_domain_issues_in_its_own_name(serve: Serve) -> None:
    """Tokens and metadata name the domain that was asked; a session or code of the one is nothing to the other."""
    main, custom = serve(), serve(domain=CUSTOM)
    metadata = custom.client.get("/.well-known/openid-configuration").json()
    assert metadata["issuer"] == CUSTOM
    assert all(value.startswith(CUSTOM) for name, value in metadata.items() if name.endswith(("_endpoint", "_uri")))
    answer = custom.tokens()
    assert {claims_of(answer[name])["iss"] for name in ("access_token", "id_token")} == {CUSTOM}
    assert claims_of(answer["access_token"])["aud"] == ["organize", f"{CUSTOM}userinfo"]
    assert main.get("/userinfo", answer["access_token"]).status_code == 401
    code = answer_in(custom.client.get("/authorize", params=authorization_request()))["code"]
    assert error_of(main.redeem(code)) == "invalid_grant"


def test_exchange_is_named_in_the_metadata(browser: Browser) -> None:
    """RFC 8414 2, under both names of the document."""
    documents = [
        browser.client.get(f"/.well-known/{name}").json()
        for name in ("openid-configuration", "oauth-authorization-server")
    ]
    assert documents[0] == documents[1]
    assert EXCHANGE in documents[0]["grant_types_supported"]
    assert documents[0]["response_types_supported"] == ["code"]
    assert documents[0]["code_challenge_methods_supported"] == ["S256"]
