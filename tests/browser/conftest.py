"""A real browser. Where none can be had, these tests are skipped and say so."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from serve.fakes import image_bytes

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium: $CHESTXRAY_CHROMIUM, or the first of `NAMES` that is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: tox -e browser has it")
    path = os.environ.get("CHESTXRAY_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        absent = f"no browser: none of {', '.join(NAMES)} is installed"
        if os.environ.get("CHESTXRAY_BROWSER_REQUIRED"):
            pytest.fail(absent)
        pytest.skip(absent)
    with playwright.sync_playwright() as driver:
        # Its own sandbox needs what containers and root do not have.
        found = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """A function that opens the page of a port; the console must stay silent, and nothing else be asked for."""
    contexts, complaints = [], []

    def visit(port, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: complaints.append(message.text) if message.type in _BAD else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                complaints.append(request.url)
                if not request.url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:"))
                else None
            ),
        )
        page.goto(f"http://127.0.0.1:{port}/")
        return page

    yield visit
    for context in contexts:
        context.close()
    # An upload that is refused, or a server that is busy, is logged by the browser itself.
    expected = re.compile("the server responded with a status of (4..|503)")
    assert not [text for text in complaints if not expected.search(text)]


_BAD = ("error", "warning")


@pytest.fixture
def films():
    """Paths of image files, and of one that is none. Under a name that no test may meet on the server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stem, value in (("bright", 220), ("dark", 60), ("middle", 120), ("black", 0)):
            (folder / f"{stem}.png").write_bytes(image_bytes(value, size=(400, 300)))
        (folder / "notes.png").write_text("these are notes", encoding="utf-8")
        yield folder
