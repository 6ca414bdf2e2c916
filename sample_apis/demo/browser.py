"""A browser without a window, as the tests and the screenshots drive it. Needs Playwright, which only they install.

The browser is the machine's own: Playwright's downloads are not used.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # for root, as in a container
    "--disable-gpu",
    "--no-first-run",
    # Its talk with its maker's servers would make every start wait where the network is closed.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
)


class NoBrowserError(Exception):
    """There is no browser. The message says how to get one."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Open a browser, and close it when the block ends. Until then no other event loop can run in this thread.

    Raises:
        NoBrowserError: there is none on the PATH.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise NoBrowserError("there is no browser: run scripts/setup-browser tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
