"""The Organizer as a person uses it: the real pages in a real browser, against the real services.

Each test is a browser of its own, with no cookies. Alice has allowed everything that the page asks for by default, from
the first test that logs her in; whoever needs a consent page is bob, or asks for more.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from sample_apis.demo.browser import NoBrowserError, open_browser
from sample_apis.demo.browser_system import BrowserSystem

PATIENCE = 20_000  # milliseconds
SHORT = 3  # seconds that an access token lives where it is to expire


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Of this module alone: while it is open, nothing in this thread can run another event loop.
    try:
        with open_browser() as opened:
            yield opened
    except NoBrowserError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context()
    opened.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext, system: BrowserSystem) -> Iterator[Page]:
    """The app, not logged in. A mistake in its program, or against its own policy, fails the test."""
    opened = context.new_page()
    failures: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.on("console", lambda said: failures.append(said.text) if "Content Security Policy" in said.text else None)
    opened.goto(system.page)
    yield opened
    assert failures == []


@pytest.fixture
def short_lived(system: BrowserSystem) -> Iterator[None]:
    """The authorization server is restarted, and gives out tokens for `organize` that live for a moment."""
    server = system.authorization_server
    usual = server.arguments
    server.arguments = (*usual, f"--lifetime=organize={SHORT}")
    server.restart()
    yield
    server.arguments = usual
    server.restart()


def button(page: Page, name: str) -> Any:
    return page.get_by_role("button", name=name)


def submit_login(page: Page, user: str, password: str | None = None) -> None:
    """Fill in and send the login page, which is open."""
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill(password or user)
    button(page, "Log in").click()


def log_in(page: Page, user: str = "alice") -> None:
    """Log in from the app and come back, through the consent page where that is shown."""
    button(page, "Log in").click()
    submit_login(page, user)
    button(page, "Allow").or_(button(page, "Log out")).wait_for()
    if button(page, "Allow").is_visible():
        button(page, "Allow").click()
    expect(button(page, "Log out")).to_be_visible()
    expect(page.get_by_label("Token for organize")).to_be_visible()


def call(page: Page, label: str, status: str) -> str:
    """Press a button of the app, wait until the answer has this status, and return the token that was sent."""
    with page.expect_request(lambda sent: is_api_call(sent)) as sent:
        button(page, label).click()
    newest = page.locator("article.call").first
    expect(newest.locator("h3")).to_have_text(f"{label}{status}")
    return sent.value.headers["authorization"].removeprefix("Bearer ")


def is_api_call(request: Request) -> bool:
    return request.method == "GET" and "authorization" in request.headers


def pick(page: Page, *labels: str) -> None:
    """Let the app get a token with the scopes that have these words, and no others."""
    for box in page.locator("#picker").get_by_role("checkbox").all():
        box.uncheck()
    for label in labels:
        page.get_by_label(label).check()
    button(page, "Get a token with these scopes").click()


def part(token: str, index: int) -> dict[str, Any]:
    """Return the header (0) or the claims (1) of a JWT."""
    read: dict[str, Any] = json.loads(urlsafe_b64decode(f"{token.split('.')[index]}=="))
    return read


@contextmanager
def never_leaving(page: Page) -> Iterator[None]:
    """What happens inside happens without a login page, or any other."""
    visited: list[str] = []
    page.on("framenavigated", lambda frame: visited.append(frame.url) if frame == page.main_frame else None)
    yield
    assert visited == []


def test_login_consent_and_both_calls(page: Page) -> None:
    """A first login asks for consent in words; declining is told in words; a second login does not ask again."""
    button(page, "Log in").click()
    submit_login(page, "bob", "wrong")
    expect(page.get_by_role("alert")).to_have_text("There is no user with this name and password.")
    submit_login(page, "bob")
    expect(page.get_by_role("listitem").filter(has_text="See your contacts")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="See the events in your calendar")).to_be_visible()
    button(page, "Decline").click()
    expect(page.locator("#notice")).to_contain_text("You did not allow the access")
    button(page, "Log in").click()
    button(page, "Allow").click()
    expect(page.get_by_text("Logged in as Bob")).to_be_visible()
    assert call(page, "Call contacts", "200 OK") == call(page, "Call calendars", "200 OK")
    button(page, "Log out").click()
    button(page, "Log in").click()
    submit_login(page, "bob")
    expect(page.get_by_text("Logged in as Bob")).to_be_visible()


def test_what_is_shown_of_a_token_and_of_a_call(page: Page, system: BrowserSystem) -> None:
    """The panel tells issuer, audience, scopes by resource and a countdown; a call is shown without its token."""
    log_in(page)
    panel = page.get_by_label("Token for organize")
    issuer = f"http://localhost:{httpx.URL(system.authorization_server.url).port}/"
    expect(panel.get_by_text(issuer, exact=True)).to_be_visible()
    expect(panel.get_by_text("organize", exact=True)).to_be_visible()
    expect(panel.get_by_role("listitem").filter(has_text="contacts")).to_have_text("contactsread")
    expect(panel.get_by_role("listitem").filter(has_text="calendar")).to_have_text("calendarread")
    expect(panel.locator(".time-left")).to_have_text(re.compile(r"23 h 59 min \d+ s left"))
    before = panel.locator(".time-left").inner_text()
    expect(panel.locator(".time-left")).not_to_have_text(before)
    token = call(page, "Call contacts", "200 OK")
    request = page.get_by_role("region", name="Request").first
    expect(request).to_contain_text(f"Authorization: Bearer {token[:6]}…{token[-4:]}")
    expect(page.get_by_role("region", name="Answer").first).to_contain_text("Nightly Bakery")
    assert token not in page.content()


def test_a_missing_scope_is_refused_by_name(page: Page) -> None:
    """Without read:calendar contacts answers, and calendars says 403 with a challenge that names it."""
    log_in(page)
    with never_leaving(page):
        pick(page, "See your contacts")
        expect(page.locator("#notice")).to_contain_text("with the scopes that you picked")
        call(page, "Call contacts", "200 OK")
        token = call(page, "Call calendars", "403 Forbidden")
    assert "read:calendar" not in part(token, 1)["scope"]
    card = page.locator("article.call").first
    expect(card).to_contain_text("it lacks the scope read:calendar")
    expect(card).to_contain_text('WWW-Authenticate: Bearer realm="organizer", error="insufficient_scope"')
    expect(card).to_contain_text('scope="read:calendar"')
    page.reload()
    expect(page.get_by_label("See the events")).not_to_be_checked()
    pick(page, "See your contacts", "See the events")
    call(page, "Call calendars", "200 OK")


def test_a_wider_scope_needs_consent_first(page: Page) -> None:
    """What was never allowed cannot be had silently; the user is asked, and the page goes on from there."""
    log_in(page)
    pick(page, "See your contacts", "Delete your contacts")
    expect(page.locator("#notice")).to_contain_text("needs your consent")
    button(page, "Review and allow").click()
    button(page, "Decline").click()
    expect(page.locator("#notice")).to_contain_text("You did not allow the access")
    expect(page.get_by_label("Delete your contacts")).not_to_be_checked()
    pick(page, "See your contacts", "Delete your contacts")
    button(page, "Review and allow").click()
    button(page, "Allow").click()
    deleting = page.get_by_label("Token for organize").get_by_role("listitem").filter(has_text="contacts")
    expect(deleting).to_have_text("contactsreaddelete")


def test_the_report_has_a_silent_token_of_its_own(page: Page) -> None:
    """The second audience needs no click, and its token is for nobody else; the report is read on behalf of alice."""
    log_in(page)
    organizer = call(page, "Call contacts", "200 OK")
    with never_leaving(page):
        token = call(page, "Weekly report", "200 OK")
    assert token != organizer
    assert "https://reports.example/" in part(token, 1)["aud"]
    assert "organize" not in part(token, 1)["aud"]
    answer = page.get_by_role("region", name="Answer").first
    expect(answer).to_contain_text('"contacts": 3')
    expect(answer).to_contain_text("Lunch with Nightly Bakery")
    expect(page.get_by_label("Token for https://reports.example/")).to_be_visible()


def test_a_login_outlasts_a_reload_until_logout(page: Page) -> None:
    """A reloaded page finds the login again; after the logout neither it nor a new login does without a password."""
    log_in(page)
    page.reload()
    expect(button(page, "Log out")).to_be_visible()
    call(page, "Call contacts", "200 OK")
    button(page, "Log out").click()
    expect(button(page, "Log in")).to_be_visible()
    page.reload()
    button(page, "Log in").click()
    expect(page.get_by_label("Password")).to_be_visible()


def test_an_ended_session_is_told(page: Page, system: BrowserSystem) -> None:
    """Where the login has ended elsewhere, the next silent request says so in words."""
    log_in(page)
    page.context.clear_cookies()
    button(page, "Weekly report").click()
    expect(page.locator("#notice")).to_have_text("Your login has ended. Log in again.")
    expect(button(page, "Log in")).to_be_visible()


def test_a_key_rotation_is_not_noticed(page: Page, rotate_keys: Callable[[], None]) -> None:
    """The old token stays good, a new one is signed by another key, and no service was told."""
    log_in(page)
    old = call(page, "Call contacts", "200 OK")
    rotate_keys()
    assert call(page, "Call calendars", "200 OK") == old
    pick(page, "See your contacts", "See the events")
    new = call(page, "Call contacts", "200 OK")
    assert part(new, 0)["kid"] != part(old, 0)["kid"]
    call(page, "Call calendars", "200 OK")
    call(page, "Weekly report", "200 OK")


def test_a_restart_of_the_authorization_server_is_not_noticed(page: Page, system: BrowserSystem) -> None:
    """While it is away a token stays good; what it kept on disk lets the session go on afterwards."""
    log_in(page)
    system.authorization_server.stop()
    call(page, "Call contacts", "200 OK")
    system.authorization_server.start()
    system.authorization_server.wait_until_ready()
    with never_leaving(page):
        call(page, "Weekly report", "200 OK")
        call(page, "Call calendars", "200 OK")


def test_an_authorization_server_that_is_away_is_told(page: Page, system: BrowserSystem) -> None:
    """A click on the login says what is wrong, instead of leading to a browser's error page."""
    system.authorization_server.stop()
    button(page, "Log in").click()
    expect(page.locator("#notice")).to_have_text(re.compile("The authorization server at .* does not answer"))
    system.authorization_server.start()
    system.authorization_server.wait_until_ready()
    log_in(page)


def test_no_token_is_called_expired_before_it_is(page: Page) -> None:
    """Not even in its last half second, in which the API still accepts it."""
    in_words = [
        page.evaluate("async (now) => (await import('./tokens.js')).timeLeft(1000, now)", now)
        for now in (999.6, 1000, 1000.4, 1001)
    ]
    assert in_words == ["1 s left", "expired 0 s ago", "expired 0 s ago", "expired 1 s ago"]


@pytest.mark.usefixtures("short_lived")
def test_an_expired_token_is_renewed_without_a_login(page: Page, system: BrowserSystem) -> None:
    """The API refuses the expired token, and the page has another before anybody notices, or says why it has none."""
    log_in(page)
    old = call(page, "Call contacts", "200 OK")
    expect(page.get_by_label("Token for organize").locator(".time-left")).to_contain_text("expired")
    with httpx.Client(trust_env=False, headers={"Authorization": f"Bearer {old}"}) as client:
        refused = client.get(f"{system.contacts.url}/contacts")
    assert (refused.status_code, refused.json()["reason"]) == (401, "expired")
    with never_leaving(page):
        assert call(page, "Call contacts", "200 OK") != old
        system.authorization_server.stop()
        button(page, "Call contacts").click()
        expect(page.locator("#notice")).to_contain_text("does not answer")


@pytest.mark.usefixtures("short_lived")
def test_refresh_tokens_rotate_and_reuse_ends_the_family(page: Page, system: BrowserSystem) -> None:
    """Each is good once. One that comes twice ends all of its family, and the page goes on by its session."""
    log_in(page)
    first, second = refresh(page), refresh(page)
    assert first != second
    form = {"grant_type": "refresh_token", "client_id": "organizer-spa", "refresh_token": first}
    with httpx.Client(trust_env=False) as client:
        refused = client.post(f"{system.authorization_server.url}oauth/token", data=form)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    with never_leaving(page):
        third = refresh(page)  # is refused, too, so the hidden frame gets a new one
        fourth = refresh(page)
    assert len({first, second, third, fourth}) == 4


def refresh(page: Page) -> str:
    """Call an API with a token that must be renewed first, and return the refresh token that was spent on it."""
    with page.context.expect_event(
        "request", lambda sent: "grant_type=refresh_token" in (sent.post_data or "")
    ) as sent:
        call(page, "Call contacts", "200 OK")
    (token,) = parse_qs(sent.value.post_data)["refresh_token"]
    return str(token)


def test_the_implicit_page_calls_both_apis(page: Page, system: BrowserSystem) -> None:
    """The token comes in the fragment, leaves the address at once, and is good at both services.

    So it is with the address that the documentation prints, which has no state; then the page says that it sent none.
    """
    page.goto(f"{system.page}/callback")
    page.get_by_role("link", name="Send it").click()
    submit_login(page, "alice")
    button(page, "Allow").or_(page.locator("article.call").nth(1)).wait_for()
    if button(page, "Allow").is_visible():
        button(page, "Allow").click()
    expect_both_calls(page)
    expect(page).to_have_url(f"{system.page}/callback")
    expect(page.locator("#notice")).to_be_hidden()
    documented = {
        "scope": "read:contacts read:calendar",
        "audience": "organize",
        "response_type": "id_token token",
        "client_id": "organizer-spa",
        "redirect_uri": f"{system.page}/callback",
        "nonce": "NONCE",
    }
    page.goto(f"{system.authorization_server.url}authorize?{urlencode(documented)}")
    expect(page.locator("#notice")).to_contain_text("has not sent the request itself")
    expect_both_calls(page)


def expect_both_calls(page: Page) -> None:
    for index, label in enumerate(("Call contacts", "Call calendars")):
        expect(page.locator("article.call").nth(index).locator("h3")).to_have_text(f"{label}200 OK")


def test_the_implicit_page_refuses_the_answer_to_another_request(page: Page, system: BrowserSystem) -> None:
    """An address that somebody else has made up logs nobody in once the page has sent a request of its own."""
    page.goto(f"{system.page}/callback")
    page.get_by_role("link", name="Send it").click()
    expect(page.get_by_label("Password")).to_be_visible()
    answer = urlencode({"access_token": "e30.e30.", "id_token": "e30.e30.", "state": "of somebody else"})
    page.goto(f"{system.page}/callback#{answer}")
    expect(page.locator("#notice")).to_contain_text("the state differs")
    expect(page.locator("article.call")).to_have_count(0)


def test_everything_can_be_done_by_keyboard(page: Page) -> None:
    """From the login to an answer, with Tab, Space and Enter alone; what has the focus can be seen."""
    reach(page, button(page, "Log in"))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Username")).to_be_focused()
    page.keyboard.type("alice")
    page.keyboard.press("Tab")
    page.keyboard.type("alice")
    page.keyboard.press("Enter")
    button(page, "Allow").or_(button(page, "Log out")).wait_for()
    if button(page, "Allow").is_visible():
        page.keyboard.press("Enter")  # it has the focus
    expect(page.get_by_label("Token for organize")).to_be_visible()
    reach(page, page.get_by_label("See the events"))
    page.keyboard.press("Space")
    reach(page, button(page, "Get a token with these scopes"))
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("with the scopes that you picked")
    reach(page, button(page, "Call calendars"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="it lacks the scope read:calendar")).to_have_count(1)


def reach(page: Page, wanted: Any) -> None:
    """Press Tab until the element has the focus, which then has an outline."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            assert wanted.evaluate("element => getComputedStyle(element).outlineStyle") != "none"
            return
    pytest.fail("Tab does not lead there")


def test_nothing_is_wider_than_a_telephone(browser: Browser, system: BrowserSystem) -> None:
    """On a narrow screen nobody has to scroll sideways, and no page asks another server for anything."""
    context = browser.new_context(viewport={"width": 360, "height": 740})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(httpx.URL(request.url).host))
    page.goto(system.page)
    assert is_not_wider(page)
    log_in(page)
    call(page, "Weekly report", "200 OK")
    assert is_not_wider(page)
    page.goto(f"{system.page}/callback")
    expect(page.get_by_role("link", name="Send it")).to_be_visible()
    assert is_not_wider(page)
    assert hosts == {"localhost"}
    context.close()


def is_not_wider(page: Page) -> bool:
    narrow: bool = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return narrow


def test_the_app_with_a_backend(page: Page, system: BrowserSystem) -> None:
    """One login, one redirect more for the report, and the browser never holds a token."""
    page.goto(system.backend)
    button(page, "Log in").click()
    submit_login(page, "alice")
    button(page, "Allow").or_(button(page, "Log out")).wait_for()
    if button(page, "Allow").is_visible():
        button(page, "Allow").click()
    for label in ("Call contacts", "Call calendars", "Weekly report"):
        button(page, label).click()
        expect(page.locator("article.call").first.locator("h3")).to_have_text(f"{label}200 OK")
    assert re.search(r"eyJ[\w-]{20,}", page.content()) is None
    (cookie,) = [cookie for cookie in page.context.cookies() if cookie["name"] == "organizer_web_backend"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    button(page, "Log out").click()
    expect(button(page, "Log in")).to_be_visible()


def test_no_log_holds_a_token_or_a_code(page: Page, system: BrowserSystem) -> None:
    """What a login and a report have left in the logs can be used by nobody."""
    log_in(page)
    call(page, "Weekly report", "200 OK")
    logs = {log.stem: log.read_text() for log in system.folder.glob("*.log")}
    assert logs.keys() == {service.name for service in system.services}
    assert "/reports/weekly" in logs["reports"]
    for written in logs.values():
        assert re.search(r"eyJ[\w-]+\.[\w-]+|[?&]code=", written) is None
