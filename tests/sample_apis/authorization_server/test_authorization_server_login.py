"""/authorize and /v2/logout: which pages a person sees, what the app is answered, and how."""

import re
from dataclasses import replace
from typing import Any

import httpx
import pytest

from sample_apis.authorization_server.catalogue import sample_catalogue
from tests.sample_apis.authorization_server.conftest import (
    APP,
    CUSTOM,
    MAIN,
    NONCE,
    OIDC,
    READING,
    REPORTS,
    STATE,
    Browser,
    Clock,
    Serve,
    answer_in,
    claims_of,
)

SESSION = "authorization_server_9400_session"


def test_a_person_logs_in_consents_and_the_app_gets_a_code(browser: Browser) -> None:
    """Two pages, then the answer, with the state byte for byte."""
    login = browser.open()
    assert (login.status_code, "Log in" in login.text) == (200, True)
    consent = browser.submit(login, username="alice", password="alice")
    for words in ("See your contacts", "See the events in your calendar", "See your e-mail address", "Organizer app"):
        assert words in consent.text
    answer = browser.submit(consent, action="accept")
    assert answer.headers["Location"].startswith(f"{APP}?code=")
    assert set(answer_in(answer)) == {"code", "state"}
    assert answer_in(answer)["state"] == STATE


def test_consent_is_asked_once_for_each_scope(browser: Browser) -> None:
    """The second login shows no consent page, fewer scopes do not either, and one scope more does."""
    browser.log_in()
    assert "code" in answer_in(browser.open())
    assert "code" in answer_in(browser.open(scope="openid read:contacts"))
    more = browser.open(scope=f"{OIDC} {READING} delete:contacts")
    assert "Delete your contacts" in more.text
    assert "Decline" in browser.open(prompt="consent").text


def test_consent_is_each_users_own(browser: Browser) -> None:
    """What alice allowed, bob is still asked for."""
    browser.log_in("alice")
    page = browser.submit(browser.open(prompt="login"), username="bob", password="bob")
    assert "Logged in as bob" in page.text


def test_declining_is_told_to_the_app_in_words(browser: Browser) -> None:
    """RFC 6749 4.1.2.1: access_denied, and nothing is remembered as allowed."""
    consent = browser.submit(browser.open(), username="alice", password="alice")
    answer = answer_in(browser.submit(consent, action="decline"))
    assert answer == {
        "error": "access_denied",
        "error_description": "The user did not allow Organizer app to have this access.",
        "state": STATE,
    }
    assert "Decline" in browser.open().text


@pytest.mark.parametrize(("username", "password"), [("alice", "bob"), ("mallory", "mallory"), ("", "")])
def test_a_wrong_password_is_told_on_the_login_page(browser: Browser, username: str, password: str) -> None:
    """Nothing tells an unknown user from a wrong password, and no session begins."""
    page = browser.submit(browser.open(), username=username, password=password)
    assert (page.status_code, "There is no user with this name and password." in page.text) == (400, True)
    assert SESSION not in browser.client.cookies


@pytest.mark.parametrize("forgery", [{"data": {"form_secret": "x"}}, {"headers": {"Origin": "http://localhost:6666"}}])
@pytest.mark.parametrize("step", ["login", "consent"])
def test_a_forged_form_does_nothing(browser: Browser, step: str, forgery: dict[str, Any]) -> None:
    """A form without the secret of the page, or sent from another origin, is refused in words."""
    page = browser.open()
    fields = {"action": "login", "username": "alice", "password": "alice"}
    if step == "consent":
        page, fields = browser.submit(page, username="alice", password="alice"), {"action": "accept"}
    hidden = dict(re.findall(r'name="(form_secret)" value="([^"]*)"', page.text))
    sent = {**fields, **hidden, **forgery.get("data", {})}
    refused = browser.client.post(page.url, data=sent, headers=forgery.get("headers", {}))
    assert (refused.status_code, "not sent from here" in refused.text) == (400, True)
    assert "Decline" in browser.open().text if step == "consent" else SESSION not in browser.client.cookies


def test_a_new_login_takes_the_place_of_the_session(browser: Browser) -> None:
    """prompt=login asks again; the old cookie is worth nothing after it."""
    browser.log_in("alice")
    before = browser.client.cookies[SESSION]
    browser.log_in("bob", prompt="login")
    assert browser.client.cookies[SESSION] != before
    browser.client.cookies.set(SESSION, before, domain="localhost.local")
    assert "password" in browser.open().text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_id": "nobody"}, "client"),
        ({"client_id": "nobody", "response_type": "token"}, "client"),
        ({"redirect_uri": f"{APP}/elsewhere", "response_type": "token"}, "redirect_uri"),
        ({"client_id": "o'\"\\r"}, "client"),
        ({"client_id": "organizer-machine"}, "redirect_uri"),
        ({"redirect_uri": f"{APP}/elsewhere"}, "redirect_uri"),
        ({"redirect_uri": f"{APP}.example"}, "redirect_uri"),
        ({"redirect_uri": "http://localhost:3000/?x=\"'"}, "redirect_uri"),
    ],
)
def test_nobody_is_redirected_to_an_unregistered_address(browser: Browser, changes: dict[str, str], error: str) -> None:
    """RFC 6749 4.1.2.1: the error is shown to the person instead."""
    page = browser.open(**changes)
    assert (page.status_code, "That did not work" in page.text, error in page.text) == (400, True, True)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "id_token token"}, "unsupported_response_type"),
        ({"response_type": "'\"\\"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"organization": "org_nowhere"}, "invalid_request"),
        ({"audience": "urn:unknown"}, "access_denied"),
        ({"audience": f"{CUSTOM}api/v2/"}, "access_denied"),
    ],
)
def test_a_wrong_request_is_told_to_the_app(browser: Browser, changes: dict[str, str | None], error: str) -> None:
    """Where the address is registered the app is told, with its state. PKCE is never optional and never plain."""
    browser.log_in()
    answer = answer_in(browser.open(**changes))
    assert (answer["error"], answer["state"]) == (error, STATE)


def test_a_repeated_parameter_is_refused(browser: Browser) -> None:
    """RFC 6749 3.1: none may be repeated, whichever it is."""
    page = browser.open()
    assert browser.client.get(f"{page.url}&audience=organize").status_code == 400


def test_a_request_without_an_address_goes_to_the_first_one(serve: Serve) -> None:
    """As the SPA library sends it with none configured; both forms with and without a slash are registered."""
    browser = serve(sample_catalogue(["http://localhost:4321/"]))
    assert browser.log_in(redirect_uri=None).headers["Location"].startswith("http://localhost:4321?code=")
    assert (
        browser.log_in(redirect_uri="http://localhost:4321/").headers["Location"].startswith("http://localhost:4321/?")
    )


def test_prompt_none_needs_a_session_and_a_consent(browser: Browser) -> None:
    """login_required, then consent_required, then a code: never a page."""
    silent = {"prompt": "none", "response_mode": "query"}
    assert answer_in(browser.open(**silent))["error"] == "login_required"
    browser.submit(browser.open(), username="alice", password="alice")
    assert answer_in(browser.open(**silent))["error"] == "consent_required"
    browser.log_in()
    assert "code" in answer_in(browser.open(**silent))


def test_a_second_audience_needs_no_click(browser: Browser) -> None:
    """A token for reports comes silently, without the scopes of organize that were asked for with it."""
    browser.log_in()
    code = answer_in(browser.open(audience=REPORTS, scope=f"{OIDC} {READING} read:reports", prompt="none"))["code"]
    answer = browser.redeem(code).json()
    assert claims_of(answer["access_token"])["aud"] == [REPORTS, f"{MAIN}userinfo"]
    assert answer["scope"] == f"{OIDC} read:reports"


def message_in(page: httpx.Response) -> str:
    match = re.search(r'id="message">(.*?)</script>', page.text)
    assert match is not None
    return match[1]


def test_web_message_answers_the_window_that_asked(browser: Browser) -> None:
    """A page of ours posts code or error to the app's origin, and lets that origin alone frame it."""
    refused = browser.open(prompt="none", response_mode="web_message")
    assert refused.status_code == 200
    assert '"error":"login_required"' in message_in(refused).replace(" ", "")
    browser.log_in()
    page = browser.open(prompt="none", response_mode="web_message", redirect_uri=f"{APP}/callback.html")
    assert '"type":"authorization_response"' in message_in(page).replace(" ", "")
    assert '"code"' in message_in(page)
    assert f', "{APP}"\n);' in page.text
    assert f"frame-ancestors {APP}" in page.headers["Content-Security-Policy"]
    assert {"X-Frame-Options", "Cross-Origin-Opener-Policy"} & set(page.headers) == set()


def test_web_message_cannot_be_made_to_run_a_script(browser: Browser) -> None:
    """The state is whatever somebody put into the address, and stays data."""
    page = browser.open(prompt="none", response_mode="web_message", state="</script><script>alert(1)</script>")
    assert "<script>alert" not in page.text


def test_pages_bring_everything_along_and_cannot_be_framed(browser: Browser) -> None:
    """Nothing from elsewhere, no frame, forms to us and on to the app alone; marked for development."""
    page = browser.open()
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert f"form-action 'self' {APP}" in policy
    assert "unsafe" not in policy
    assert re.search(r"<title>[^<]*for development", page.text)
    assert re.search(r'(src|href)="', page.text) is None
    assert page.headers["Cache-Control"] == "no-store"


def test_max_age_asks_again_and_the_id_token_says_when(browser: Browser, clock: Clock) -> None:
    """An older login is not good enough; what the app is told is when the new one was."""
    browser.log_in()
    clock.now += 100
    assert answer_in(browser.open(max_age="99", prompt="none"))["error"] == "login_required"
    assert "code" in answer_in(browser.open(max_age="100", prompt="none"))
    answer = browser.redeem(answer_in(browser.log_in(max_age="0"))["code"]).json()
    assert claims_of(answer["id_token"])["auth_time"] == int(clock.now)


def test_a_session_ends_by_itself(browser: Browser, clock: Clock) -> None:
    """After some days the person logs in again."""
    browser.log_in()
    clock.now += 4 * 86_400
    assert "password" in browser.open().text


@pytest.mark.parametrize(("asked", "name"), [("org_northwind", "northwind"), ("NorthWind", "northwind")])
def test_an_organization_is_named_in_both_tokens(browser: Browser, asked: str, name: str) -> None:
    """By ID or by name in any case: the SPA library compares the one or the other, also after a refresh."""
    answer = browser.tokens(organization=asked)
    for tokens in (answer, browser.refresh(answer["refresh_token"]).json()):
        id_token = claims_of(tokens["id_token"])
        assert (id_token["org_id"], id_token["org_name"]) == (f"org_{name}", name)
        assert claims_of(tokens["access_token"])["org_id"] == f"org_{name}"


def test_a_stranger_to_the_organization_is_refused(browser: Browser) -> None:
    """Alice belongs to northwind alone, bob to both."""
    assert answer_in(browser.log_in(organization="org_southwind"))["error"] == "access_denied"
    assert "code" in answer_in(browser.log_in("bob", prompt="login", organization="org_southwind"))


def test_logout_ends_the_session_and_returns_to_registered_addresses_alone(browser: Browser) -> None:
    """An unregistered address is not followed, and then nothing has happened."""
    browser.log_in()
    unknown = browser.client.get("/v2/logout", params={"client_id": "organizer-spa", "returnTo": "http://evil.example"})
    assert (unknown.status_code, "not registered" in unknown.text) == (400, True)
    assert "code" in answer_in(browser.open(prompt="none"))
    back = browser.client.get(
        "/v2/logout", params={"client_id": "organizer-spa", "returnTo": APP, "auth0Client": "e30="}
    )
    assert (back.status_code, back.headers["Location"]) == (302, APP)
    assert answer_in(browser.open(prompt="none"))["error"] == "login_required"
    assert "You are logged out" in browser.client.get("/v2/logout").text


DOCUMENTED = (
    "/authorize?scope=read:contacts%20read:calendar&audience=organize&response_type=id_token%20token"
    f"&client_id=organizer-spa&redirect_uri={APP}&nonce=NONCE"
)


def test_the_implicit_answer_is_behind_a_switch(serve: Serve) -> None:
    """Off: refused. On: the address as the hosted service's documentation prints it gives both tokens."""
    assert answer_in(serve().client.get(DOCUMENTED))["error"] == "unsupported_response_type"
    browser = serve(implicit=True)
    page = browser.submit(browser.client.get(DOCUMENTED), username="alice", password="alice")
    response = browser.submit(page, action="accept")
    assert response.headers["Location"].startswith(f"{APP}#access_token=")
    answer = answer_in(response)
    assert (answer["token_type"], answer["expires_in"], answer["scope"]) == ("Bearer", "86400", READING)
    assert claims_of(answer["access_token"])["aud"] == "organize"
    assert claims_of(answer["id_token"])["nonce"] == "NONCE"
    refused = browser.client.get(DOCUMENTED.replace("&nonce=NONCE", ""))
    assert "#error=invalid_request" in refused.headers["Location"]


def test_a_user_is_granted_no_more_than_the_users_permissions(serve: Serve) -> None:
    """Role-based access: the scope is narrowed, and the token lists the permissions."""
    catalogue = sample_catalogue()
    users = tuple(replace(user, permissions={"organize": frozenset({"read:contacts"})}) for user in catalogue.users)
    answer = serve(replace(catalogue, users=users)).tokens()
    claims = claims_of(answer["access_token"])
    assert (claims["scope"], claims["permissions"]) == (f"{OIDC} read:contacts", ["read:contacts"])


def test_nonce_is_echoed_in_the_answer_to_the_code(browser: Browser) -> None:
    """Byte for byte, and only there: a refresh answers no request of the browser."""
    answer = browser.tokens()
    assert claims_of(answer["id_token"])["nonce"] == NONCE
    assert "nonce" not in claims_of(browser.refresh(answer["refresh_token"]).json()["id_token"])


def test_the_start_page_says_what_this_is(browser: Browser) -> None:
    """With everything that is registered."""
    page = browser.client.get("/")
    for words in ("Development authorization server", "organize", "reports-api"):
        assert words in page.text


def test_another_name_of_the_host_is_refused(browser: Browser) -> None:
    """A name that somebody else points here must not become an issuer."""
    answer = browser.client.get("/.well-known/openid-configuration", headers={"Host": "evil.example:9400"})
    assert answer.status_code == 421
