"""README and SECURITY keep their word: code runs as pasted, and tables hold what the code and the tests hold."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from token_guard import Reason
from token_guard.events import QUIET, Event

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
QUICK_STARTS = [block for block in BLOCKS if "app = " in block]

# Calls the pasted application without a token and prints what it answers. Run in an interpreter of its own, since
# Django is configured once in a process.
ASK = """
import asyncio, inspect, sys
sys.path.insert(0, sys.argv[1])
import quick_start
path, app = sys.argv[2], quick_start.app

def wsgi():
    from wsgiref.util import setup_testing_defaults
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    def start_response(status, headers, exc_info=None):
        print(status.split()[0], dict(headers).get("WWW-Authenticate"))
    print(b"".join(app(environ, start_response)).decode())

async def asgi():
    import httpx
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://api.example") as client:
        answer = await client.get(path)
        print(answer.status_code, answer.headers.get("WWW-Authenticate"))
        print(answer.text)

asyncio.run(asgi()) if inspect.iscoroutinefunction(type(app).__call__) else wsgi()
"""


def test_there_is_a_quick_start_for_each_framework() -> None:
    """Four frameworks, each with a block to paste."""
    assert len(QUICK_STARTS) == 4


@pytest.mark.parametrize("block", QUICK_STARTS, ids=["starlette", "fastapi", "flask", "django"])
def test_quick_start_guards_its_route_as_pasted(block: str, tmp_path: Path) -> None:
    """Without a token the pasted application answers 401 with a challenge, and it has at most twelve lines."""
    (tmp_path / "quick_start.py").write_text(block)
    path = "/events" if "/events" in block else "/contacts"
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path), path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ['401 Bearer realm="api"', "{}"], done.stderr
    assert len(block.splitlines()) <= 12


DJANGO = """
import django
from django.conf import settings
settings.configure(TOKEN_GUARD={"ISSUER": "https://northwind.auth0.com/", "AUDIENCE": "organize"}, REST_FRAMEWORK={
    "DEFAULT_AUTHENTICATION_CLASSES": ["token_guard_django.rest_framework.AccessTokenAuthentication"],
})
django.setup()
"""


@pytest.mark.parametrize("block", [block for block in BLOCKS if block not in QUICK_STARTS])
def test_other_code_runs_as_pasted(block: str) -> None:
    """Every other block of Python runs by itself."""
    block = DJANGO + block if "rest_framework" in block else block  # a project's settings stand elsewhere
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_reason_is_explained() -> None:
    """The table of reasons and the enumeration hold the same words."""
    table = README.split("| Reason |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [str(reason) for reason in Reason]


def test_every_defence_is_shown_by_a_test() -> None:
    """Each row of the threat model names tests, and all of them exist."""
    table = (ROOT / "SECURITY.md").read_text().split("| Threat |")[1].split("\n\n")[0]
    rows = [re.findall(r"`(test_\w+)`", row) for row in table.splitlines()[2:]]
    assert len(rows) > 20
    assert all(rows)
    source = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert {name for row in rows for name in row if f"def {name}(" not in source} == set()


def test_every_event_is_explained_with_its_level() -> None:
    """The table of events and the enumeration hold the same words, and each is as loud as the table says."""
    table = README.split("| Event |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+)", table, re.MULTILINE)
    assert rows == [(str(event), "INFO" if event in QUIET else "WARNING") for event in Event]
