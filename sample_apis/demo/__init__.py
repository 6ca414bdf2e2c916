"""The demo from its first process to its last: `scripts/demo`. What it tells is in `story.py`."""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import httpx

from sample_apis.demo.browser_system import BrowserSystem, open_browser_system
from sample_apis.demo.narrator import Narrator, painter
from sample_apis.demo.services import STOP_SIGNALS, StartError
from sample_apis.demo.stage import Stage, open_stage
from sample_apis.demo.story import CHAPTERS, curl_commands

INTERRUPTED = 130  # the status of a shell command that Ctrl-C has ended


def play(*, as_json: bool, serve: bool) -> int:
    """Tell the story with real processes and return the exit status. No process is left, whatever happens.

    The logs stay, and their folder is named, where something failed or differs from what was expected.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)  # each way out leads through every `finally`
    say: Callable[[str], object] = (lambda text: None) if as_json else partial(print, flush=True)
    folder = Path(tempfile.mkdtemp(prefix="token-guard-demo-"))
    failed = True
    try:
        say("Starting an issuer and three services, each on a free port of this machine:")
        with open_stage(folder) as stage:
            narrator = tell_story(stage, say)
            failed = narrator.differs
            if as_json:
                print(json.dumps([asdict(row) for row in narrator.rows], indent=2))
            if serve:
                (browser_folder := folder / "browser").mkdir()
                with open_browser_system(browser_folder) as system:
                    keep_running(stage, system)
        return int(failed)
    except StartError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        failed = False
        return INTERRUPTED
    finally:
        if failed:
            print(f"demo: the logs of the services are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)


def tell_story(stage: Stage, say: Callable[[str], object]) -> Narrator:
    """Tell every chapter, then print the table."""
    for name, url in stage.addresses.items():
        say(f"    {name:10} {url}")
    with httpx.Client(trust_env=False, timeout=10) as client:
        narrator = Narrator(client, say, painter(sys.stdout, os.environ))
        for chapter in CHAPTERS:
            chapter(stage, narrator.tell)
    narrator.print_table()
    return narrator


def keep_running(stage: Stage, system: BrowserSystem) -> None:
    """Print commands that ask the services and the page to open, and wait for Ctrl-C or SIGTERM."""
    with suppress(KeyboardInterrupt):
        print(f"\nEverything keeps running; the logs are in {stage.folder}. Paste these, each a line of its own:\n")
        for purpose, command in curl_commands(stage):
            print(f"# {purpose}\n{command}\n")
        print("The same in a browser, with a login and services of its own:\n")
        for service in system.services:
            print(f"    {service.name:20} {service.url}")
        print(f"\nOpen {system.page} and log in as alice; the password is alice, too.\n")
        print("Ctrl-C ends it.", flush=True)
        while True:
            signal.pause()
