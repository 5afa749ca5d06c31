"""The built site in a browser: every page at a desktop's and a phone's width, and its search.

With ``MUOMNI_SCREENSHOTS`` naming a folder, pictures of all pages are put there.
"""

import functools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from page_tools import CHROMIUM, needs_browser
from playwright.sync_api import Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

ROOT = Path(__file__).parents[1]
WIDTHS = (1280, 360)  # pixels
DRAWN = 16  # pages of the reference that are opened, beside the largest; all others are made the same way
OFFLINE = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
BROKEN = "() => [...document.images].filter((i) => i.complete && i.naturalWidth === 0).map((i) => i.src)"
LOAD = "() => { for (const image of document.images) image.loading = 'eager'; }"
pytestmark = needs_browser


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as `make site` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """A page whose console errors and requests to others are faults."""
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        page = browser.new_page(base_url=address)
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else faults.append(r.url))
        yield page
        browser.close()
    assert faults == []


def chosen(site: Path) -> list[str]:
    """All pages but those of the reference, of which the largest and some drawn ones."""
    every = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    reference = [name for name in every if name.startswith("reference/")]
    by_size = sorted(reference, key=lambda name: (site / name).stat().st_size)
    seed = random.randrange(1000)
    print("seed", seed)
    return (
        [name for name in every if name not in reference]
        + by_size[-4:]
        + random.Random(seed).sample(by_size[:-4], DRAWN)
    )


def settled(page: Page) -> bool:
    """Whether nothing is wider than the window, once what moves when its size changes has moved."""
    try:
        page.wait_for_function(f"() => ({WIDER})() <= 0", timeout=5000)
    except PlaywrightTimeout:
        return False
    return True


def test_every_page_fits_and_asks_nobody_else(site: Path, page: Page) -> None:
    names, faults = chosen(site), []
    assert len(names) > 50 and "log.html" in names
    for name in names:
        page.goto(f"/{name}", wait_until="load")
        page.evaluate(LOAD)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            if not settled(page):
                faults.append(f"{name}: {width}: {page.evaluate(WIDER)} px too wide")
            if folder := os.environ.get("MUOMNI_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"{name.replace('/', '-')}-{width}.png")
        page.wait_for_function("() => [...document.images].every((i) => i.complete)")
        faults += [f"{name}: {broken}" for broken in page.evaluate(BROKEN)]
    assert faults == []


@pytest.mark.parametrize("width", WIDTHS)
def test_the_search_finds(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/index.html")
    if width < 960:  # the field is behind a sign there
        page.locator("label.md-header__button[for=__search]").click()
    page.locator("input[name=query]").click()
    page.locator("input[name=query]").fill("Talker")
    found = page.locator(".md-search-result__link", has_text="Talker").first
    expect(found).to_be_visible(timeout=30_000)
    found.click()
    expect(page.locator("article")).to_contain_text("Talker")


def test_light_and_dark(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto("/index.html")
    colour = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.locator("label.md-header__button[title=Dark]").click()
    page.wait_for_function(f"(light) => ({colour})() !== light", arg=light)
