"""How the demo tells what happens: it sends a request, prints it and its answer, and keeps the table.

A token is printed by what it says, never itself, and no secret is printed.
"""

import base64
import json
import re
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TextIO

import httpx

MAX_WIDTH = 100

_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
_SECRET = re.compile(r"(?<=client_secret=)[^&]+")
_SCOPE = re.compile(r'scope="([^"]*)"')
_SHOWN_HEADERS = ("WWW-Authenticate", "Retry-After")
_SHOWN_CLAIMS = ("sub", "scope", "aud", "iss")

_COLOURS = {"bold": 1, "dim": 2, "red": 31, "green": 32}

Paint = Callable[[str, str], str]
Tell = Callable[[str, str, httpx.Request, str], httpx.Response]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    step: int
    title: str
    expected: str
    happened: str

    @property
    def differs(self) -> bool:
        return self.happened != self.expected


class Narrator:
    """Tells steps one by one; `rows` is the table of those told."""

    def __init__(self, client: httpx.Client, say: Callable[[str], object], paint: Paint) -> None:
        self.rows: list[Row] = []
        self._client = client
        self._say = say
        self._paint = paint

    @property
    def differs(self) -> bool:
        """Whether any step ended in another way than expected."""
        return any(row.differs for row in self.rows)

    def tell(self, title: str, explanation: str, request: httpx.Request, expected: str) -> httpx.Response:
        """Send one request, print it and what came back, and return that."""
        step = len(self.rows) + 1
        self._say(f"\n{self._paint('bold', f'{step:2}. {title}')}\n{wrapped(explanation)}\n")
        for line in request_lines(request):
            self._say(self._paint("dim", wrapped(line, "> ")))

        response = self._client.send(request)
        row = Row(step, title, expected, outcome(response))
        self.rows.append(row)
        status, *lines = answer_lines(response)
        self._say(self._paint("red" if row.differs else "green", wrapped(status, "< ")))
        for line in lines:
            self._say(wrapped(line, "< "))
        if row.differs:
            self._say(self._paint("red", wrapped(f"{row.happened}, but expected was: {expected}")))
        return response

    def print_table(self) -> None:
        """Print what happened against what was expected."""
        table = [("  ", "step", "expected", "happened")]
        table += [(f"{row.step:2}", row.title, row.expected, row.happened) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        head, *lines = ("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table)
        self._say(f"\n{head}\n{'  '.join('-' * width for width in widths)}")
        for row, line in zip(self.rows, lines, strict=True):
            self._say(self._paint("red", f"{line}  <- differs") if row.differs else line)
        different = sum(row.differs for row in self.rows)
        verdict = f"{different} of {len(self.rows)} steps differ" if different else f"all {len(self.rows)} as expected"
        self._say(f"\n{self._paint('red' if different else 'green', verdict)}")


def outcome(response: httpx.Response) -> str:
    """Return what a client can tell from an answer, in a few words: the table compares these.

    A challenge adds the scope that it names, else the reason, to the status; Retry-After and a grant add theirs.
    """
    body = content_of(response.content)
    members: Mapping[str, object] = body if isinstance(body, dict) else {}
    words = [str(response.status_code)]
    if "WWW-Authenticate" in response.headers:
        scope = _SCOPE.search(response.headers["WWW-Authenticate"])
        words.append(f"scope {scope[1]}" if scope else str(members.get("reason")))
    if "Retry-After" in response.headers:
        words.append("with Retry-After")
    words += [str(members[name]) for name in ("token_type", "expires_in") if name in members]
    return " ".join(words)


def request_lines(request: httpx.Request) -> Iterator[str]:
    """Return the lines of a request as they may be shown."""
    yield f"{request.method} {request.url}"
    if "Authorization" in request.headers:
        yield readable(f"Authorization: {request.headers['Authorization']}")
    if request.content:
        yield readable(request.content)


def answer_lines(response: httpx.Response) -> Iterator[str]:
    """Return the lines of an answer as they may be shown, its status first."""
    yield f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
    yield from (f"{name}: {response.headers[name]}" for name in _SHOWN_HEADERS if name in response.headers)
    yield readable(response.content)


def content_of(body: bytes) -> object:
    """Return the JSON of a body, or its text where it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def readable(text: str | bytes) -> str:
    """Return a header line or a body with every token replaced by its meaning, and without secrets."""
    content = text if isinstance(text, str) else content_of(text)
    shown = content if isinstance(content, str) else json.dumps(content)
    return _JWT.sub(lambda token: meaning(token[0]), _SECRET.sub("[secret]", shown))


def meaning(token: str) -> str:
    """Return what a token says, in one line. It is only read, not validated."""
    header, claims = (json.loads(base64.urlsafe_b64decode(f"{part}==")) for part in token.split(".")[:2])
    said = [f"{name} {json.dumps(claims[name])}" for name in _SHOWN_CLAIMS if name in claims]
    hours = round((claims["exp"] - time.time()) / 3600)
    said.append(f"ends in {hours} h" if hours > 0 else f"ended {-hours} h ago")
    return f"<token: {', '.join(said)}, key {header['kid'][:6]}>"


def wrapped(text: str, prefix: str = "") -> str:
    """Indent the text, and fold it where the terminal ends."""
    return textwrap.fill(
        text,
        min(shutil.get_terminal_size().columns, MAX_WIDTH),
        initial_indent=f"    {prefix}",
        subsequent_indent=" " * (4 + 2 * len(prefix)),
        break_long_words=False,
        break_on_hyphens=False,
    )


def painter(stream: TextIO, environ: Mapping[str, str]) -> Paint:
    """Return what colours a text for a terminal, and leaves it as it is for anything else or where NO_COLOR is set."""
    colour = stream.isatty() and not environ.get("NO_COLOR")
    return lambda name, text: f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if colour else text
