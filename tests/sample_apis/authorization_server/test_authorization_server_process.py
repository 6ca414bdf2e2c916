"""The server as a process: what outlives a restart, where it listens, and other libraries' clients against it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from authlib.integrations.httpx_client import OAuth2Client

from tests.sample_apis.authorization_server.conftest import (
    ACCESS_TOKEN,
    APP,
    EXCHANGE,
    OIDC,
    READING,
    REPORTS,
    VERIFIER,
    Browser,
    Command,
    Process,
    answer_in,
    authorization_request,
)
from token_guard import ResourceServer


@pytest.fixture
def browser(served: Process) -> Iterator[Browser]:
    with httpx.Client(base_url=served.domain) as client:
        yield Browser(client)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_its_tokens_are_good_by_discovery(served: Process, host: str) -> None:
    """Under both names, the main and the custom domain, with no setting but the address and the audience."""
    domain = served.domain.replace("localhost", host)
    with (
        httpx.Client(base_url=domain) as client,
        closing(ResourceServer(issuer=domain, audience="organize")) as organizer,
    ):
        browser = Browser(client)
        token = organizer.validate(browser.tokens()["access_token"])
        assert (token.issuer, token.subject, token.client_id) == (domain, "auth0|alice", "organizer-spa")
        assert token.actor is None
        token.require(*READING.split())
        machine = browser.token("organizer-machine", grant_type="client_credentials").json()["access_token"]
        assert organizer.validate(machine).is_client
        reports = browser.tokens(audience=REPORTS, scope="openid read:reports")["access_token"]
        delegated = organizer.validate(browser.exchange(reports).json()["access_token"])
        assert delegated.actor is not None
        assert (delegated.subject, delegated.actor.subject) == ("auth0|alice", "reports-api")


def test_authlibs_own_client_completes_every_grant(served: Process, browser: Browser) -> None:
    """Discovery, code with PKCE, refresh, client credentials and exchange, asked for by a library that is not ours."""
    metadata = httpx.get(f"{served.domain}.well-known/openid-configuration").json()
    endpoint = metadata["token_endpoint"]
    with OAuth2Client(
        "organizer-spa", redirect_uri=APP, scope=f"{OIDC} {READING}", code_challenge_method="S256"
    ) as app:
        url, _ = app.create_authorization_url(metadata["authorization_endpoint"], code_verifier=VERIFIER)
        location = browser.answer_pages(browser.client.get(url)).headers["Location"]
        token = app.fetch_token(endpoint, authorization_response=location, code_verifier=VERIFIER)
        assert app.refresh_token(endpoint, token["refresh_token"])["access_token"]
    with OAuth2Client("organizer-machine", "organizer-machine-secret") as machine:
        assert machine.fetch_token(endpoint, grant_type="client_credentials", audience="organize")["scope"]
    subject_token = browser.tokens(audience=REPORTS, scope="openid read:reports")["access_token"]
    with OAuth2Client("reports-api", "reports-api-secret", token_endpoint_auth_method="client_secret_post") as reports:
        asked = {"subject_token": subject_token, "subject_token_type": ACCESS_TOKEN, "audience": "organize"}
        assert reports.fetch_token(endpoint, grant_type=EXCHANGE, **asked)["issued_token_type"] == ACCESS_TOKEN


def test_a_refresh_token_is_good_once_however_many_use_it_at_a_time(browser: Browser) -> None:
    """One of many requests at the same moment wins; the others show that it was stolen, and end what the one got."""
    sent = browser.tokens()["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(browser.refresh, [sent] * 8))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
    won = next(answer.json() for answer in answers if answer.status_code == 200)
    assert browser.refresh(won["refresh_token"]).status_code == 400
    assert browser.introspect(won["access_token"]) == {"active": False}


def test_a_restart_keeps_users_sessions_consents_tokens_and_keys(command: Command) -> None:
    """What was issued before is good after, and --fresh forgets all of it."""
    with httpx.Client() as client:
        browser = Browser(client)
        with command.serving("--port", "0") as process:
            client.base_url = httpx.URL(process.domain)
            answer = browser.tokens()
            keys = client.get("/.well-known/jwks.json").json()
            process.stop()
        port = str(client.base_url.port)
        with command.serving("--port", port) as process:
            assert "code" in answer_in(browser.open(prompt="none"))
            assert client.get("/.well-known/jwks.json").json() == keys
            assert browser.introspect(answer["access_token"])["active"]
            assert browser.refresh(answer["refresh_token"]).status_code == 200
            process.stop()
        with command.serving("--port", port, "--fresh"):
            assert client.get("/.well-known/jwks.json").json() != keys
            assert answer_in(browser.open(prompt="none"))["error"] == "login_required"
            assert browser.introspect(answer["access_token"]) == {"active": False}


def test_it_says_what_it_is_and_keeps_tokens_out_of_its_log(command: Command) -> None:
    """The banner says development; codes, tokens and passwords are nowhere in what it prints."""
    with command.serving("--port", "0") as process, httpx.Client(base_url=process.domain) as client:
        browser = Browser(client)
        code = answer_in(browser.log_in())["code"]
        answer = browser.redeem(code).json()
        browser.refresh(answer["refresh_token"])
        client.get("/v2/logout", params={"id_token_hint": answer["id_token"]})
        output = process.stop()
    assert "FOR DEVELOPMENT ONLY" in output
    assert "POST /oauth/token 200" in output.replace("'", "")
    for secret in (code, answer["access_token"], answer["refresh_token"], answer["id_token"], VERIFIER):
        assert secret not in output


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_it_listens_on_loopback_alone(command: Command, host: str) -> None:
    """Any other address is refused before anything is opened, with the variable and the reason."""
    status, output = command.run("--port", "0", AUTHORIZATION_SERVER_HOST=host)
    assert (status, "AUTHORIZATION_SERVER_HOST" in output, "loopback alone" in output) == (1, True, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], "AUTHORIZATION_SERVER_PORT is 'x'"),
        (["--lifetime", "organize=soon"], "the value is seconds"),
        (["--algorithm", "nothing=RS256"], "the identifier of a registered API"),
        (["--dialect", "organize=latin"], "plain or rfc9068"),
        (["revoke-key", "unknown"], "there is no key unknown"),
    ],
)
def test_a_wrong_setting_is_told_with_the_fix(command: Command, arguments: list[str], words: str) -> None:
    """In one line, with status 1."""
    status, output = command.run(*arguments)
    assert (status, words in output, len(output.splitlines())) == (1, True, 1), output


def test_options_change_an_api(command: Command) -> None:
    """Lifetime, algorithm and dialect of each API's tokens, and one more app."""
    options = ("--lifetime", f"{REPORTS}=60", "--algorithm", "organize=ES256", "--dialect", "organize=rfc9068")
    with (
        command.serving("--port", "0", "--spa-origin", "http://localhost:4321", *options) as process,
        httpx.Client(base_url=process.domain) as client,
        closing(ResourceServer(issuer=process.domain, audience="organize", profile="rfc9068")) as organizer,
    ):
        browser = Browser(client)
        app = "http://localhost:4321/callback"
        code = answer_in(browser.log_in(redirect_uri=app))["code"]
        token = organizer.validate(browser.redeem(code, redirect_uri=app).json()["access_token"])
        assert token.subject == "auth0|alice"
        assert browser.tokens(audience=REPORTS, scope="openid read:reports")["expires_in"] == 60


def test_keys_are_rotated_and_revoked_beside_a_running_server(command: Command) -> None:
    """The commands work on the same file, and the server follows at once."""
    with (
        command.serving("--port", "0") as process,
        httpx.Client(base_url=process.domain) as client,
        closing(ResourceServer(issuer=process.domain, audience="organize")) as organizer,
    ):
        browser = Browser(client)
        before = browser.tokens()["access_token"]
        status, output = command.run("rotate-keys")
        states = {state: kid for _, state, kid in map(str.split, output.splitlines())}
        assert (status, set(states)) == (0, {"next", "current", "previous"})
        for token in (before, browser.tokens()["access_token"]):
            assert organizer.validate(token).subject == "auth0|alice"
        assert command.run("revoke-key", states["previous"])[0] == 0
        published = {key["kid"] for key in client.get("/.well-known/jwks.json").json()["keys"]}
        assert published == {states["current"], states["next"]}


def test_the_file_holds_no_secret_in_the_clear(command: Command) -> None:
    """Passwords, session cookies, codes and refresh tokens are hashes."""
    with command.serving("--port", "0") as process, httpx.Client(base_url=process.domain) as client:
        browser = Browser(client)
        code = answer_in(browser.log_in())["code"]
        refresh_token = browser.redeem(code).json()["refresh_token"]
        cookies = list(client.cookies.values())
        process.stop()
    content = b"".join(path.read_bytes() for path in Path(command.folder).glob("state.sqlite3*"))
    assert cookies
    for secret in (code, refresh_token, *cookies):
        assert secret.encode() not in content
    assert json.dumps(authorization_request()["code_challenge"]).encode() in content  # the file is the right one
