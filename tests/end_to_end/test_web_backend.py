"""The app with a backend against the real authorization server: which answer lands where, and which is refused.

No browser is needed to hold answers back and to deliver them in another order: an HTTP client does what one would do.
"""

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from sample_apis.demo.browser_system import BrowserSystem

REPORTS = "https://reports.example/"


class UserAgent:
    """A person with a browser that follows no redirect by itself."""

    def __init__(self, app: str) -> None:
        self.app = app
        self.client = httpx.Client(trust_env=False, timeout=20)

    def press(self, path: str) -> str:
        """Press a button of the app, and return where it sends the browser."""
        return self.location(self.client.post(f"{self.app}{path}", headers={"Origin": self.app}))

    def answer_to(self, address: str) -> str:
        """Ask the authorization server, and return the address in the app that it answers with."""
        return self.location(self.client.get(address))

    def log_in(self, user: str = "alice") -> str:
        """Log in from the app, and return the answer, delivered."""
        return self.deliver(self.log_in_there(self.press("/login"), user))

    def log_in_there(self, address: str, user: str) -> str:
        """Fill in the login page, and allow what is asked for. Return the address in the app that is answered with."""
        address = self.submit(address, username=user, password=user, action="login")
        answer = self.client.get(address)
        return self.location(answer) if answer.is_redirect else self.submit(address, action="accept")

    def submit(self, address: str, **form: str) -> str:
        secret = re.search(r'name="form_secret" value="([^"]+)"', self.client.get(address).text)
        assert secret is not None
        answer = self.client.post(address, data={"form_secret": secret[1], **form})
        return str(httpx.URL(address).join(self.location(answer)))

    def deliver(self, address: str) -> str:
        """Open an answer in the app, which takes it, and return that."""
        assert self.location(self.client.get(address)) == "/"
        return address

    def page(self) -> str:
        return self.client.get(f"{self.app}/").text

    def holds(self, audience: str) -> bool:
        """Tell whether the app says that it has a token for this audience."""
        token = re.search(rf'Token for {re.escape(audience)}">(.*?)</article>', self.page(), re.DOTALL)
        assert token is not None
        return "none yet" not in token[1]

    @staticmethod
    def location(answer: httpx.Response) -> str:
        assert answer.is_redirect, answer.text
        return answer.headers["Location"]


@pytest.fixture
def user_agent(system: BrowserSystem) -> Iterator[UserAgent]:
    agent = UserAgent(system.backend)
    with agent.client:
        yield agent


@pytest.fixture
def logged_in(user_agent: UserAgent) -> UserAgent:
    user_agent.log_in()
    assert user_agent.holds("organize")
    assert not user_agent.holds(REPORTS)
    return user_agent


def in_query(address: str, name: str) -> str:
    return parse_qs(urlsplit(address).query)[name][0]


def with_state(address: str, state: str) -> str:
    return str(httpx.URL(address).copy_set_param("state", state))


def test_a_call_without_a_token_goes_round_silently(logged_in: UserAgent) -> None:
    """The redirect for the second API has prompt=none and its own audience, and the call is made on the way back."""
    address = logged_in.press("/call/report")
    assert (in_query(address, "prompt"), in_query(address, "audience")) == ("none", REPORTS)
    logged_in.deliver(logged_in.answer_to(address))
    assert "Lunch with Nightly Bakery" in logged_in.page()
    assert logged_in.press("/call/report") == "/"  # now there is a token


def test_two_pending_answers_land_right_in_any_order(logged_in: UserAgent) -> None:
    """The state, and not the order, tells which API an answer is for."""
    first, second = logged_in.press("/call/report"), logged_in.press("/authorize/organize")
    answers = [logged_in.answer_to(first), logged_in.answer_to(second)]
    for answer in reversed(answers):
        logged_in.deliver(answer)
    assert logged_in.holds(REPORTS)
    assert logged_in.press("/call/report") == logged_in.press("/call/contacts") == "/"
    assert logged_in.page().count("200 OK</span>") == 3  # each token is good at the API that it landed at


def test_swapped_answers_are_refused(logged_in: UserAgent) -> None:
    """A code that comes with the state of the other request fits neither its PKCE verifier nor its nonce."""
    first, second = logged_in.press("/call/report"), logged_in.press("/authorize/organize")
    to_first, to_second = logged_in.answer_to(first), logged_in.answer_to(second)
    logged_in.deliver(with_state(to_second, in_query(to_first, "state")))
    assert "The authorization server refused" in logged_in.page()
    assert not logged_in.holds(REPORTS)


def test_an_unknown_state_is_refused(logged_in: UserAgent) -> None:
    """An answer that nobody has asked for is not used, and what was asked for still lands."""
    answer = logged_in.answer_to(logged_in.press("/call/report"))
    refused = logged_in.client.get(with_state(answer, "unknown"))
    assert (refused.status_code, "belongs to no request" in refused.text) == (400, True)
    assert not logged_in.holds(REPORTS)
    logged_in.deliver(answer)
    assert logged_in.holds(REPORTS)


def test_a_state_is_good_once(user_agent: UserAgent) -> None:
    """An answer that comes again, from a history or from a thief, is refused."""
    answer = user_agent.log_in()
    refused = user_agent.client.get(answer)
    assert (refused.status_code, "belongs to no request" in refused.text) == (400, True)
    assert user_agent.holds("organize")


def test_a_state_belongs_to_one_browser(logged_in: UserAgent) -> None:
    """Nobody is logged in by the answer to somebody else's request (login CSRF)."""
    answer = logged_in.answer_to(logged_in.press("/call/report"))
    stranger = UserAgent(logged_in.app)
    with stranger.client:
        stranger.press("/login")
        assert stranger.client.get(answer).status_code == 400
        assert "Logged in as" not in stranger.page()


def test_somebody_elses_token_is_not_mixed_in(logged_in: UserAgent, system: BrowserSystem) -> None:
    """Where bob has logged in at the authorization server meanwhile, alice does not get his token."""
    logged_in.client.get(f"{system.authorization_server.url}v2/logout")
    logged_in.deliver(logged_in.log_in_there(logged_in.press("/authorize/reports"), "bob"))
    assert "Somebody else has logged in" in logged_in.page()
    assert not logged_in.holds(REPORTS)


def test_an_ended_login_is_told_and_can_be_mended(logged_in: UserAgent, system: BrowserSystem) -> None:
    """login_required becomes words and a button that asks again, this time with a page."""
    logged_in.client.get(f"{system.authorization_server.url}v2/logout")
    logged_in.deliver(logged_in.answer_to(logged_in.press("/call/report")))
    page = logged_in.page()
    assert "does not know you any more" in page
    assert 'action="/authorize/reports"' in page
    assert "prompt" not in parse_qs(urlsplit(logged_in.press("/authorize/reports")).query)


def test_the_login_gets_a_new_session_name(user_agent: UserAgent) -> None:
    """A name that was planted before the login is worth nothing after it."""
    user_agent.press("/login")
    planted = user_agent.client.cookies["organizer_web_backend"]
    user_agent.log_in()
    with httpx.Client(trust_env=False, cookies={"organizer_web_backend": planted}) as thief:
        assert "Logged in as" not in thief.get(f"{user_agent.app}/").text


def test_a_form_of_another_site_is_refused(logged_in: UserAgent) -> None:
    """A POST that does not come from the app's own pages does nothing."""
    for headers in ({"Origin": "http://localhost:1"}, {"Origin": "null"}, {}):
        assert logged_in.client.post(f"{logged_in.app}/logout", headers=headers).status_code == 403
    assert "Logged in as" in logged_in.page()


def test_logout_ends_both_sessions(logged_in: UserAgent) -> None:
    """After it the app knows nobody, and neither does the authorization server."""
    address = logged_in.press("/logout")
    assert logged_in.location(logged_in.client.get(address)) == logged_in.app
    assert "Logged in as" not in logged_in.page()
    assert logged_in.client.get(logged_in.press("/call/contacts")).status_code == 200  # the login page
