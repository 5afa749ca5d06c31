"""The card's page and the page of how it learned in a browser, opened from a disk at two widths.

With ``MUOMNI_SCREENSHOTS`` naming a folder, pictures of them are put there; with ``MUOMNI_PAGES`` naming a folder that
has ``card.html`` and ``learning.html``, those are opened too.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_tools import CHROMIUM, needs_browser
from passport_samples import evaluated, logged
from playwright.sync_api import Browser, Page, sync_playwright
from registered_models import measure, train

from muomni.checkpoint import weights_sha256
from muomni.data.files import atomic_write_json
from muomni.passport.card import as_page, read_passport
from muomni.passport.learning import learning_page
from muomni.passport.trainings import read_trainings
from muomni.tokenizer import Tokenizer

WIDTHS = (1280, 360)  # pixels
NAMES = ("card.html", "learning.html")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# What is drawn is on the page with a size and holds more than one colour.
PICTURES = """() => [...document.images].map((i) => {
  const canvas = document.createElement("canvas");
  const [width, height] = [canvas.width, canvas.height] = [i.naturalWidth, i.naturalHeight];
  const pen = canvas.getContext("2d");
  pen.drawImage(i, 0, 0);
  const pixels = new Uint32Array(pen.getImageData(0, 0, width, height).data.buffer);
  const box = i.getBoundingClientRect();
  return { alt: i.alt, curve: i.className === "curve", colours: new Set(pixels).size, width, height,
           shown: [box.width, box.height] };
})"""
NO_BUTTON = 110  # pixels of a player below which Chromium leaves out the button to play
PLAYERS = "() => [...document.querySelectorAll('audio')].map((a) => a.getBoundingClientRect().width)"
SOUNDS = """() => Promise.all([...document.querySelectorAll("audio")].map((a) => new Promise((done) => {
  a.onloadedmetadata = () => done(a.duration);
  a.onerror = () => done(a.error.message || "an error");
  a.preload = "metadata";
  a.load();
})))"""
# A table that is too wide scrolls by itself; its text must not be squeezed into a letter a line.
NARROW = """() => [...document.querySelectorAll("td, th, figure, li, p")]
  .filter((e) => e.innerText.trim().length > 20 && e.getBoundingClientRect().width < 60).map((e) => e.innerText)"""
pytestmark = needs_browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, small: tuple[object, Tokenizer]) -> list[Path]:
    """Both pages of a small model, and those that were asked for."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(folder, small[1], 0)
        measure(folder, 0.7, "held")
        evaluated(folder)
        atomic_write_json(
            folder / "metrics/measured.json", {"weights_sha256": {"omni": weights_sha256(folder / "checkpoints/omni")}}
        )
        for stage in ("a-thinker", "d-talker", "e-omni"):
            logged(
                folder / "metrics/train" / stage, tuple(range(20, 220, 20)), wrote="It is a dog beside a house. " * 4
            )
        (folder / NAMES[0]).write_text(as_page(read_passport("checkpoints/omni")))
        (folder / NAMES[1]).write_text(learning_page(read_trainings([Path("metrics/train")])))
    more = os.environ.get("MUOMNI_PAGES")
    return [place / name for place in (folder, *([Path(more)] if more else [])) for name in NAMES]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser without a screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def look(page: Page, path: Path, width: int) -> dict[str, Any]:
    """Open a page from the disk, and tell what a person would see, hear and miss."""
    faults: list[str] = []
    page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url[:80]}"))
    address = path.resolve().as_uri()
    page.on(
        "request", lambda r: None if r.url == address or r.url.startswith("data:") else faults.append(f"asks {r.url}")
    )
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    page.wait_for_function("() => [...document.images].every((i) => i.complete)")
    found = {
        "wider": page.evaluate(WIDER),
        "pictures": page.evaluate(PICTURES),
        "sounds": page.evaluate(SOUNDS),
        "players": page.evaluate(PLAYERS),
        "narrow": page.evaluate(NARROW),
        "links": page.evaluate("() => [...document.querySelectorAll('nav a')].map((a) => a.hash.slice(1))"),
        "heads": page.evaluate("() => [...document.querySelectorAll('h2')].map((h) => h.id)"),
        "faults": faults,
    }
    if folder := os.environ.get("MUOMNI_SCREENSHOTS"):
        name = f"{path.parent.name}-{path.stem}-{width}.png"
        page.screenshot(path=Path(folder) / name, full_page=True)
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("number", range(len(NAMES)))
def test_a_page_shows_plays_and_asks_nobody(pages: list[Path], browser: Browser, width: int, number: int) -> None:
    for path in pages[number :: len(NAMES)]:
        page = browser.new_page()
        found = look(page, path, width)
        page.close()
        assert found["faults"] == [] and found["wider"] <= 0 and found["narrow"] == [], found
        assert found["links"] == found["heads"] and len(set(found["heads"])) == len(found["heads"]) > 1
        text = path.read_text()
        assert len(found["pictures"]) == text.count("<img") > 0
        for picture in found["pictures"]:
            assert picture["width"] > 0 and min(picture["shown"]) >= 8 and picture["alt"], picture
            assert not picture["curve"] or picture["colours"] > 2, picture  # a line on white, not white alone
            assert picture["shown"][0] <= width
        assert min(found["players"]) >= NO_BUTTON
        assert len(found["sounds"]) == text.count("<audio") > 0
        assert all(isinstance(seconds, int | float) and seconds > 0 for seconds in found["sounds"]), found["sounds"]
        assert any(picture["curve"] for picture in found["pictures"])
