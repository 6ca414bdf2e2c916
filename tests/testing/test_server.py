"""The two roads to a local issuer: in memory, and over real HTTP on a loopback port."""

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from token_guard.testing import InMemoryTransport, LocalIssuer

OPENID = ".well-known/openid-configuration"
OAUTH = ".well-known/oauth-authorization-server"
JSON = {"Content-Type": "application/json"}
FORM = {
    "grant_type": "client_credentials",
    "client_id": "organizer-machine",
    "client_secret": "a secret: ü/%",
    "audience": "organize",
}


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    issuer = LocalIssuer()
    issuer.add_client("organizer-machine", "a secret: ü/%", scope="read:contacts read:calendar")
    with issuer.serve():
        yield issuer


@pytest.fixture(scope="module")
def http(issuer: LocalIssuer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=issuer.url) as client:
        yield client


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


# Over HTTP.


@pytest.mark.parametrize("path", [OPENID, OAUTH])
def test_serves_metadata_and_keys(issuer: LocalIssuer, http: httpx.Client, path: str) -> None:
    """Both forms of discovery lead to the published keys."""
    metadata = http.get(path).raise_for_status().json()
    assert metadata == issuer.metadata()
    assert metadata["issuer"] == issuer.url == f"http://127.0.0.1:{urlsplit(issuer.url).port}/"
    assert http.get(metadata["jwks_uri"]).json() == issuer.jwks()


def test_custom_domain_gets_metadata_and_tokens_of_its_own(issuer: LocalIssuer) -> None:
    """AUTH0-01: the issuer is the one that was asked, the keys are the same."""
    assert issuer.custom_domain == f"http://localhost:{urlsplit(issuer.url).port}/"
    with httpx.Client(base_url=issuer.custom_domain) as http:
        metadata = http.get(OPENID).json()
        assert metadata["issuer"] == issuer.custom_domain
        assert http.get(metadata["jwks_uri"]).json() == issuer.jwks()
        token = http.post(metadata["token_endpoint"], data=FORM).json()["access_token"]
    assert claims(issuer, token)["iss"] == issuer.custom_domain
    assert claims(issuer, issuer.token(issuer=issuer.custom_domain))["iss"] == issuer.custom_domain


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [("GET", "authorize", 404, None), ("POST", OPENID, 405, "GET"), ("GET", "oauth/token", 405, "POST")],
)
def test_serves_nothing_else(http: httpx.Client, method: str, path: str, status: int, allow: str | None) -> None:
    """An unknown path is 404, a wrong method 405, and the connection stays usable after both."""
    response = http.request(method, path)
    assert (response.status_code, response.headers.get("Allow")) == (status, allow)


def test_serves_a_rotation_at_once(http: httpx.Client, issuer: LocalIssuer) -> None:
    """Keys are published and withdrawn while it is served."""
    previous, current = issuer.key, issuer.rotate()
    kids = [jwk["kid"] for jwk in http.get(".well-known/jwks.json").json()["keys"]]
    assert kids == [previous.kid, current.kid]
    issuer.withdraw(previous.kid)
    assert [jwk["kid"] for jwk in http.get(".well-known/jwks.json").json()["keys"]] == [current.kid]


def test_stops_for_kept_alive_connections_too_and_starts_again_at_the_same_port() -> None:
    """After `stop` nobody is answered; after `start` on the same port the same issuer is back."""
    issuer = LocalIssuer()
    issuer.start()
    url, port = issuer.url, urlsplit(issuer.url).port
    assert port
    with httpx.Client(base_url=url) as http:
        before = http.get(OPENID).json()
        for _ in range(3):
            issuer.stop()
            with pytest.raises(httpx.TransportError):
                http.get(OPENID)
            issuer.start(port)
            assert http.get(OPENID).json() == before
            assert http.get(".well-known/jwks.json").json() == issuer.jwks()
        assert issuer.url == url
        issuer.stop()


def test_stop_may_be_called_twice() -> None:
    """Cleaning up does not need to know whether it is still served."""
    issuer = LocalIssuer()
    issuer.stop()
    issuer.start()
    issuer.stop()
    issuer.stop()


def test_refuses_to_be_served_twice(issuer: LocalIssuer) -> None:
    """One issuer has one port."""
    with pytest.raises(RuntimeError, match=issuer.url):
        issuer.start()


def test_refuses_a_port_that_is_taken(issuer: LocalIssuer) -> None:
    """A taken port is an error, and the issuer keeps its URL and can be started elsewhere."""
    other = LocalIssuer()
    with pytest.raises(OSError, match="in use"):
        other.start(urlsplit(issuer.url).port or 0)
    assert other.url == "https://issuer.example/"
    with other.serve():
        assert other.url != issuer.url


def test_stops_when_the_block_fails() -> None:
    """The port is free again whatever happened inside the `with` block."""
    issuer = LocalIssuer()
    with pytest.raises(ZeroDivisionError), issuer.serve():
        1 / 0  # noqa: B018
    with pytest.raises(httpx.ConnectError):
        httpx.get(issuer.url)


def test_listens_on_loopback_alone(issuer: LocalIssuer) -> None:
    """A development issuer is not reachable from another machine."""
    assert issuer._server
    assert issuer._server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(("error", "printed"), [(ConnectionResetError(), False), (KeyError("a defect"), True)])
def test_client_that_hangs_up_prints_nothing(
    issuer: LocalIssuer, capsys: pytest.CaptureFixture[str], error: Exception, printed: bool
) -> None:
    """A test's output shows a defect of the issuer, not a client that went away."""
    assert issuer._server
    try:
        raise error
    except (ConnectionError, KeyError):
        issuer._server.handle_error(None, ("127.0.0.1", 1))
    assert ("a defect" in capsys.readouterr().err) == printed


def test_url_with_the_port_is_kept() -> None:
    """A URL that was given for this port stays as it is spelled; a path stays in any case."""
    with LocalIssuer("https://issuer.example/realms/a").serve() as issuer:
        port = urlsplit(issuer.url).port
        assert port
        assert issuer.url == f"http://127.0.0.1:{port}/realms/a"
        assert httpx.get(f"{issuer.url}/{OPENID}").json()["issuer"] == issuer.url
        assert httpx.get(f"http://127.0.0.1:{port}/{OAUTH}/realms/a").json()["issuer"] == issuer.url
    named = LocalIssuer(f"http://localhost:{port}/", custom_domain=f"http://127.0.0.1:{port}/")
    with named.serve(port):
        assert named.urls == (f"http://localhost:{port}/", f"http://127.0.0.1:{port}/")
        assert httpx.get(f"http://localhost:{port}/{OPENID}").json()["issuer"] == named.url


# The token endpoint.


def claims(issuer: LocalIssuer, token: str) -> Any:
    key = jwt.PyJWKSet.from_dict(issuer.jwks())[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, audience="organize")


@pytest.mark.parametrize(
    "how",
    [
        {"data": FORM},
        {"json": FORM},
        {
            "data": {"grant_type": "client_credentials", "audience": "organize"},
            # CLI-02: id and secret are form-encoded before base64.
            "headers": basic("organizer-machine", "a+secret%3A+%C3%BC%2F%25"),
        },
    ],
    ids=["form", "json", "basic"],
)
def test_token_endpoint_answers_exactly_three_members(
    issuer: LocalIssuer, http: httpx.Client, how: dict[str, Any]
) -> None:
    """Body and headers are those of the hosted service; the token is the client's, with all that it may have."""
    response = http.post("oauth/token", **how)
    assert response.status_code == 200
    body = response.json()
    token = body.pop("access_token")
    assert body == {"token_type": "Bearer", "expires_in": 86_400}
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "application/json"
    granted = claims(issuer, token)
    assert (granted["iss"], granted["sub"], granted["aud"], granted["scope"]) == (
        issuer.url,
        "organizer-machine@clients",
        "organize",
        "read:contacts read:calendar",
    )


def test_token_endpoint_grants_no_more_than_was_asked_for(issuer: LocalIssuer, http: httpx.Client) -> None:
    """A scope that is asked for narrows the token."""
    token = http.post("oauth/token", data=FORM | {"scope": "read:calendar"}).json()["access_token"]
    assert claims(issuer, token)["scope"] == "read:calendar"


def test_changed_lifetime_moves_answer_and_token_together(issuer: LocalIssuer, http: httpx.Client) -> None:
    """`expires_in` is the time between the token's `iat` and `exp`."""
    issuer.lifetime = 600
    body = http.post("oauth/token", data=FORM).json()
    issuer.lifetime = 86_400
    granted = claims(issuer, body["access_token"])
    assert body["expires_in"] == granted["exp"] - granted["iat"] == 600


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        ({"data": FORM | {"client_secret": "wrong"}}, 401, "invalid_client"),
        ({"data": FORM | {"client_id": "stranger"}}, 401, "invalid_client"),
        ({"data": {"grant_type": "client_credentials", "audience": "organize"}}, 401, "invalid_client"),
        ({"data": FORM, "headers": {"Authorization": "Bearer x"}}, 400, "invalid_request"),
        ({"data": FORM | {"client_secret": ""}, "headers": {"Authorization": "Bearer x"}}, 401, "invalid_client"),
        ({"data": FORM | {"client_secret": ""}, "headers": {"Authorization": "Basic %"}}, 400, "invalid_request"),
        ({"data": FORM, "headers": basic("organizer-machine", "x")}, 400, "invalid_request"),
        ({"data": FORM | {"grant_type": "password"}}, 400, "unsupported_grant_type"),
        ({"data": FORM | {"grant_type": ""}}, 400, "invalid_request"),
        ({"data": FORM | {"audience": "https://reports.example/"}}, 400, "invalid_request"),
        ({"data": FORM | {"audience": ""}}, 400, "invalid_request"),
        ({"data": FORM | {"audience": ["organize", "organize"]}}, 400, "invalid_request"),
        ({"data": FORM | {"scope": "read:contacts delete:contacts"}}, 400, "invalid_scope"),
        ({"json": FORM | {"scope": ["read:contacts"]}}, 400, "invalid_request"),
        ({"content": json.dumps(FORM | {"client_secret": "\ud800"}), "headers": JSON}, 400, "invalid_request"),
        ({"json": 7}, 400, "invalid_request"),
        ({"content": b"\xff", "headers": JSON}, 400, "invalid_request"),
        ({"content": b"grant_type=client_credentials"}, 400, "invalid_request"),
    ],
)
def test_token_endpoint_refuses(http: httpx.Client, request_: dict[str, Any], status: int, error: str) -> None:
    """RFC 6749, section 5.2: the error in JSON, never stored; a 401 carries a challenge; no secret is repeated."""
    response = http.post("oauth/token", **request_)
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert response.json().keys() == {"error", "error_description"}
    assert response.headers["Cache-Control"] == "no-store"
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert FORM["client_secret"] not in response.text


def test_client_without_scope_gets_a_token_without_scope() -> None:
    """Nothing granted, no claim."""
    issuer = LocalIssuer()
    issuer.add_client("bare", "bare-secret")
    with issuer.serve():
        form = FORM | {"client_id": "bare", "client_secret": "bare-secret"}
        token = httpx.post(f"{issuer.url}oauth/token", data=form).json()["access_token"]
    assert "scope" not in claims(issuer, token)


def test_client_secret_stays_out_of_the_repr() -> None:
    """A client that is printed shows no secret."""
    issuer = LocalIssuer()
    issuer.add_client("bare", "bare-secret")
    assert "bare-secret" not in repr(issuer.clients)


# In memory.


@pytest.mark.anyio
async def test_transport_answers_and_counts() -> None:
    """Discovery and keys come without a socket, and every request is listed."""
    issuer = LocalIssuer()
    transport = issuer.transport()
    async with httpx.AsyncClient(transport=transport) as http:
        metadata = (await http.get(f"https://issuer.example/{OPENID}")).json()
        jwks = (await http.get(metadata["jwks_uri"])).json()
    assert (metadata, jwks) == (issuer.metadata(), issuer.jwks())
    assert transport.requests == [
        ("GET", "https://issuer.example/.well-known/openid-configuration"),
        ("GET", "https://issuer.example/.well-known/jwks.json"),
    ]


@pytest.mark.anyio
async def test_transport_streams_as_a_socket_does() -> None:
    """A client that counts the raw bytes as they come can do so here too."""
    async with (
        httpx.AsyncClient(transport=LocalIssuer().transport()) as http,
        http.stream("GET", f"https://issuer.example/{OPENID}") as response,
    ):
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
        assert len(raw) == int(response.headers["Content-Length"])


@pytest.mark.anyio
async def test_transport_carries_the_token_endpoint() -> None:
    """A body reaches the issuer without a socket too."""
    issuer = LocalIssuer()
    issuer.add_client("organizer-machine", FORM["client_secret"], scope="read:contacts")
    async with httpx.AsyncClient(transport=issuer.transport()) as http:
        answer = await http.post("https://issuer.example/oauth/token", data=FORM)
    assert claims(issuer, answer.json()["access_token"])["scope"] == "read:contacts"


@pytest.mark.anyio
async def test_transport_knows_several_issuers_and_custom_domains() -> None:
    """The host chooses the issuer; a host that is nobody's cannot be connected to, but the attempt is listed."""
    one = LocalIssuer("https://northwind.example/", custom_domain="https://login.northwind.example/")
    other = LocalIssuer("https://other.example/")
    transport = InMemoryTransport(one, other)
    async with httpx.AsyncClient(transport=transport) as http:
        for url in (*one.urls, *other.urls):
            assert (await http.get(f"{url}{OPENID}")).json()["issuer"] == url
        assert (await http.get(f"{one.custom_domain}.well-known/jwks.json")).json() == one.jwks()
        with pytest.raises(httpx.ConnectError, match="nobody.example"):
            await http.get("https://nobody.example/keys")
    assert transport.requests[-1] == ("GET", "https://nobody.example/keys")


@pytest.mark.anyio
async def test_transport_fails_as_told_and_recovers() -> None:
    """An outage is a connection error or the exception of one's choice; attempts are counted; it ends when told."""
    transport = LocalIssuer().transport()
    url = f"https://issuer.example/{OPENID}"
    async with httpx.AsyncClient(transport=transport) as http:
        transport.failing = True
        with pytest.raises(httpx.ConnectError):
            await http.get(url)
        transport.failing = httpx.ReadTimeout("slow")
        with pytest.raises(httpx.ReadTimeout, match="slow"):
            await http.get(url)
        transport.failing = False
        assert (await http.get(url)).status_code == 200
    assert transport.requests == [("GET", url)] * 3
