"""`scripts/demo` as a person runs it: real processes on real ports, ended in every way.

The demo leads a process group of its own here, and its services belong to it: an empty group has left nothing behind.
"""

import argparse
import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Timer

import httpx
import pytest

from sample_apis.demo.narrator import Narrator, painter
from token_guard.testing import LocalIssuer

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 120.0  # seconds after which a demo that hangs is killed, so that its test fails
JWT = re.compile(r"eyJ[\w-]+\.[\w-]+")

EXPECTED = {
    "No token": "401 missing_token",
    "Add a contact": "201",
    "Add an event": "201",
    "read:contacts at contacts": "200",
    "read:contacts at calendars": "403 scope read:calendar",
    "Both scopes at contacts": "200",
    "Both scopes at calendars": "200",
    "Gateway to contacts": "200",
    "Gateway to calendars": "200",
    "The token endpoint": "200 Bearer 86400",
    "The client's own token": "200",
    "aud is a string": "200",
    "aud is an array": "200",
    "aud is another API": "401 wrong_audience",
    "Expired": "401 expired",
    "Tampered": "401 bad_signature",
    "Signed by a stranger": "401 bad_signature",
    "Custom domain": "200",
    "Key rotated": "200",
    "Issuer stopped: contacts": "200",
    "Issuer stopped: calendars": "200",
    "And contacts restarted": "503 with Retry-After",
    "Issuer back": "200",
}

Demo = subprocess.Popen[str]


@contextmanager
def demo(folder: Path, *options: str, **environ: str) -> Iterator[Demo]:
    """Start the demo with its temporary files in `folder`; whatever is left of it at the end is killed."""
    with subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "demo", *options],
        env={**os.environ, "TMPDIR": str(folder), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pipesize=4096,  # so little that a demo which is not read waits, while a test does something to it
        text=True,
        start_new_session=True,
    ) as process:
        timer = Timer(DEADLINE, kill_group, [process.pid])
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            kill_group(process.pid)


def kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def read_until(process: Demo, last: str) -> str:
    """Return what the demo prints, up to the line that begins with `last`."""
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith(last):
            return printed
    pytest.fail(f"no line begins with {last!r}:\n{printed}")


def finish(process: Demo, status: int) -> tuple[str, str]:
    """Wait for the demo's end and return what it printed. No process of its group is left."""
    out, err = process.communicate()
    assert process.returncode == status, out + err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    return out, err


def paste(command: str) -> int:
    """Run a curl command and return the status of the answer; where there is no curl, send what it would send."""
    if shutil.which("curl"):
        run = subprocess.run(f"{command} --silent --noproxy '*'", shell=True, stdout=subprocess.PIPE, check=True)
        return int(run.stdout.split()[1])
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-i", action="store_true")
    parser.add_argument("-u", type=lambda credentials: tuple(credentials.split(":")))
    parser.add_argument("-H", type=lambda field: tuple(field.split(": ")), action="append", default=[])
    parser.add_argument("-d", action="append", default=[])
    sent = parser.parse_args(shlex.split(command)[1:])
    headers = {**({"Content-Type": "application/x-www-form-urlencoded"} if sent.d else {}), **dict(sent.H)}
    with httpx.Client(trust_env=False, auth=sent.u) as client:
        method = "POST" if sent.d else "GET"
        return client.request(method, sent.url, headers=headers, content="&".join(sent.d)).status_code


def test_the_story_ends_as_expected(tmp_path: Path) -> None:
    """Every step is told and tabled, no token and no secret is printed, and nothing is left."""
    with demo(tmp_path) as process:
        out, err = finish(process, 0)
    assert err == ""
    assert list(tmp_path.iterdir()) == []
    story, _, table = out.partition("    step ")
    for step, (title, expected) in enumerate(EXPECTED.items(), start=1):
        assert f"\n{step:2}. {title}\n" in story
        assert re.search(rf"^ *{step}  {re.escape(title)} +{expected} +{expected}$", table, re.MULTILINE)
    assert table.endswith(f"\nall {len(EXPECTED)} as expected\n")
    for told in (
        '> Authorization: Bearer <token: sub "auth0|alice", scope "read:contacts", aud "organize", iss "http://127.0.0.1',
        'aud ["https://reports.example/", "organize"]',
        "client_secret=[secret]&",
        "< 403 Forbidden",
        '< WWW-Authenticate: Bearer realm="organizer", error="insufficient_scope"',
        "< 503 Service Unavailable < Retry-After: ",
        '"name": "Front desk"',
    ):
        assert told in " ".join(story.split())  # however it is folded
    assert JWT.search(out) is None
    assert "\x1b" not in out


def test_the_table_can_be_had_as_json(tmp_path: Path) -> None:
    """With --json nothing else is printed."""
    with demo(tmp_path, "--json") as process:
        out, err = finish(process, 0)
    assert err == ""
    assert json.loads(out) == [
        {"step": step, "title": title, "expected": expected, "happened": expected}
        for step, (title, expected) in enumerate(EXPECTED.items(), start=1)
    ]


def test_served_commands_work_until_sigterm(tmp_path: Path) -> None:
    """What is printed can be pasted; no log holds a token, neither one of the story nor one that was pasted."""
    with demo(tmp_path, "--serve") as process:
        printed = read_until(process, "Ctrl-C ends it")
        commands = re.findall(r"^# (\d+): .*\n(curl .*)$", printed, re.MULTILINE)
        assert [status for status, _ in commands] == ["200", "403", "200", "401", "201", "200"]
        for status, command in commands:
            assert paste(command) == int(status)
        (page,) = re.findall(r"^Open (http://localhost:\d+) and log in as alice", printed, re.MULTILINE)
        with httpx.Client(trust_env=False) as client:
            assert client.get(page).status_code == 200
            assert client.get(client.get(f"{page}/config.json").json()["domain"]).status_code == 200
        logs = {log.stem: log.read_text() for log in tmp_path.glob("*/*.log")}
        process.terminate()
        finish(process, 0)
    assert list(tmp_path.iterdir()) == []
    assert JWT.search(printed.partition("Everything keeps running")[0]) is None
    assert logs.keys() == {"contacts", "calendars", "gateway"}
    assert "request refused: expired" in logs["contacts"]
    assert JWT.search("".join(logs.values())) is None


def test_ctrl_c_ends_the_story_and_its_services(tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group, the services among it."""
    with demo(tmp_path) as process:
        read_until(process, " 5. ")
        os.killpg(process.pid, signal.SIGINT)
        _, err = finish(process, 130)
    assert err == ""
    assert list(tmp_path.iterdir()) == []


def test_sigterm_ends_the_story_and_its_services(tmp_path: Path) -> None:
    """A supervisor sends SIGTERM to the demo alone."""
    with demo(tmp_path, "--serve") as process:
        read_until(process, "    issuer ")
        process.terminate()
        finish(process, 130)
    assert list(tmp_path.iterdir()) == []


def test_a_difference_is_told_and_keeps_the_logs(tmp_path: Path) -> None:
    """A contacts service without its table answers 500: the table says so, and so does the exit status."""
    with demo(tmp_path) as process:
        read_until(process, "    issuer ")
        (database,) = tmp_path.glob("*/contacts.sqlite3")
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("DROP TABLE contact")
        out, err = finish(process, 1)
    assert re.search(r"^12  aud is a string +200 +500  <- differs$", out, re.MULTILINE)
    assert re.search(r"^\d+ of \d+ steps differ$", out, re.MULTILINE)
    assert str(database.parent) in err
    assert "no such table" in (database.parent / "contacts.log").read_text()


def test_a_service_that_does_not_start_is_named(tmp_path: Path) -> None:
    """Its last words are told, and the services that did start are ended."""
    (tmp_path / "waitress.py").write_text("raise SystemExit('this waitress serves nobody')")
    (tmp_path / "tmp").mkdir()
    with demo(tmp_path / "tmp", PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path])) as process:
        out, err = finish(process, 1)
    assert out.startswith("Starting ")
    assert "demo: contacts did not start; its last words: this waitress serves nobody\n" in err
    assert str(next((tmp_path / "tmp").iterdir())) in err


def test_a_step_that_crashes_leaves_no_process(tmp_path: Path) -> None:
    """Nobody reads the demo any more: it fails at the next line that it prints."""
    with demo(tmp_path) as process:
        read_until(process, " 1. ")
        assert process.stdout is not None
        process.stdout.close()
        _, err = finish(process, 1)
    assert "BrokenPipeError" in err


def test_a_difference_is_noticed() -> None:
    """An answer that was not expected is a row that differs, and so differs the whole story."""
    with LocalIssuer().serve() as issuer, httpx.Client(trust_env=False) as client:
        narrator = Narrator(client, lambda text: None, lambda name, text: text)
        narrator.tell("As expected", "Keys are public.", httpx.Request("GET", issuer.metadata()["jwks_uri"]), "200")
        assert not narrator.differs
        narrator.tell("Not as expected", "Nothing is here.", httpx.Request("GET", f"{issuer.url}nowhere"), "200")
        assert narrator.differs
    assert [(row.differs, row.happened) for row in narrator.rows] == [(False, "200"), (True, "404")]


def test_only_a_terminal_gets_colour_and_not_where_it_is_unwanted() -> None:
    """Escape sequences in a file are litter; NO_COLOR counts when it is not empty."""
    near, far = pty.openpty()
    with os.fdopen(near), os.fdopen(far, "w") as terminal:
        assert painter(terminal, {"NO_COLOR": ""})("red", "text") == "\x1b[31mtext\x1b[0m"
        assert painter(terminal, {"NO_COLOR": "1"})("red", "text") == "text"
    assert painter(io.StringIO(), {})("red", "text") == "text"
