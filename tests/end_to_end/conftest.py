"""The whole system on free ports, shared by the tests that log in to it: with a browser, or as one would."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sample_apis.demo.browser_system import BrowserSystem, open_browser_system
from sample_apis.web.app import LIBRARY, LIBRARY_FILES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def system_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("system")


@pytest.fixture(scope="session")
def system(system_folder: Path) -> Iterator[BrowserSystem]:
    """The system. Its APIs forgive no second of lateness, so that a test can see a token expire."""
    if not all((LIBRARY / name).is_file() for name in LIBRARY_FILES):
        pytest.skip("the page's library is not installed: run scripts/setup-browser app")
    # A test run that is told to stop must end its services, too.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with open_browser_system(system_folder, usual_ports=False, settings={"TOKEN_GUARD_LEEWAY": "0"}) as opened:
        yield opened
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def rotate_keys(system_folder: Path) -> Callable[[], None]:
    """Rotate the keys of the running authorization server, by its own command."""

    def rotate() -> None:
        environ = {**os.environ, "AUTHORIZATION_SERVER_DATABASE": str(system_folder / "authorization_server.sqlite3")}
        command = [sys.executable, "-m", "sample_apis.authorization_server", "rotate-keys"]
        subprocess.run(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, check=True)

    return rotate
