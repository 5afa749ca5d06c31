"""A version's page in MLflow in a browser: the card as its description, and its links to pages that show and play.

With ``MUOMNI_SCREENSHOTS`` naming a folder, pictures are put there.
"""

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from page_tools import CHROMIUM, needs_browser
from passport_samples import evaluated, logged
from playwright.sync_api import Frame, Page, expect, sync_playwright
from registered_models import CFG, describe, measure, registered, train
from workplace import free_port

from muomni.checkpoint import weights_sha256
from muomni.data.files import atomic_write_json
from muomni.passport.learning import learning_page
from muomni.passport.trainings import read_trainings
from muomni.tokenizer import Tokenizer
from pipelines.access import Access
from pipelines.tracker import Tracker

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 240_000  # ms of a busy machine
pytestmark = needs_browser


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: tuple[object, Tokenizer]) -> Iterator[str]:
    """MLflow's pages as `muomni up` serves them, with a registered model that has a card."""
    monkeypatch.chdir(tmp_path)
    for name in ("BACKEND_STORE_URI", "DEFAULT_ARTIFACT_ROOT", "ARTIFACTS_DESTINATION"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    train(tmp_path, small[1], 0)
    evaluated(tmp_path)
    measure(tmp_path, 0.7, "held")
    weights = {"omni": weights_sha256(tmp_path / "checkpoints/omni")}
    atomic_write_json(tmp_path / "metrics/measured.json", {"weights_sha256": weights})
    describe(tmp_path)
    logged(tmp_path / "metrics/train/e-omni")
    (tmp_path / "card/learning.html").write_text(learning_page(read_trainings([Path("metrics/train")])))
    registered(tmp_path, CFG.model_copy(update={"components": False}))
    port = free_port()
    program = Tracker(Access("127.0.0.1"), port).program(["--host", "127.0.0.1", "--port", str(port)])
    assert program is not None
    with (tmp_path / "mlflow.log").open("w") as log:
        env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **program.own}
        process = subprocess.Popen(program.command, stdout=log, stderr=log, env=env)
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            break
        time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(30)


@pytest.fixture
def page(tracker: str) -> Iterator[Page]:
    """A page that may ask the tracker alone."""
    foreign: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1300, "height": 1000}, base_url=tracker)
        page.set_default_timeout(PATIENCE)
        own = (tracker, "data:", "blob:", "about:")
        page.context.on("request", lambda r: None if r.url.startswith(own) else foreign.append(r.url))
        yield page
        browser.close()
    assert foreign == []


def picture(page: Page, name: str) -> None:
    """Take a picture, if that is wanted."""
    if folder := os.environ.get("MUOMNI_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(folder) / f"{name}.png")


def shown(page: Page) -> Frame:
    """The file that MLflow shows in a frame of its own."""
    frame = page.locator("iframe").first.element_handle().content_frame()
    assert frame is not None
    return frame


def test_the_version_shows_the_card_and_its_links_lead_to_pages_that_play(page: Page) -> None:
    expect.set_options(timeout=PATIENCE)
    page.goto("/#/models/muomni/versions/1")
    expect(page.get_by_role("heading", name="Known limits")).to_be_visible()
    expect(page.get_by_role("cell", name="0.68 to 0.72")).to_be_visible()
    picture(page, "registry-version")
    for link, heading in (("card with pictures and sounds", "Spoken answers"), ("page of how it learned", "e-omni")):
        with page.context.expect_page() as opened:
            page.get_by_role("link", name=link).click()
        other = opened.value
        other.locator("iframe").first.wait_for()
        frame = shown(other)
        expect(frame.get_by_role("heading", name=heading)).to_be_visible()
        seconds = frame.evaluate(
            "() => new Promise((done) => { const a = document.querySelector('audio'); a.preload = 'metadata';"
            " a.onloadedmetadata = () => done(a.duration); a.onerror = () => done(-1); a.load(); })"
        )
        assert seconds > 0
        assert frame.evaluate("() => [...document.images].every((i) => i.naturalWidth > 0)")
        picture(other, heading.replace(" ", "-"))
        other.close()
