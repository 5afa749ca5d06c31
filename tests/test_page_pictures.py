"""Takes the pictures of docs/page.md: ``MUOMNI_SCREENSHOTS`` names a folder, ``MUOMNI_CHECKPOINT`` a trained model."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_tools import launched, needs_browser, serving, setting, wait_until_over
from PIL import Image
from playwright.sync_api import Page, expect

from muomni.data.badsamples import BadSamples
from muomni.data.concepts import by_name
from muomni.data.image_corpus import embedded_images

FOLDER, CHECKPOINT = os.environ.get("MUOMNI_SCREENSHOTS"), os.environ.get("MUOMNI_CHECKPOINT")
pytestmark = [
    needs_browser,
    pytest.mark.skipif(not (FOLDER and CHECKPOINT), reason="MUOMNI_SCREENSHOTS and MUOMNI_CHECKPOINT are not set"),
]
DESKTOP, PHONE = {"width": 900, "height": 720}, {"width": 360, "height": 720}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the trained model."""
    with serving(Path(str(CHECKPOINT)), tmp_path_factory.mktemp("serve")) as address:
        yield address


def scene(path: Path) -> Path:
    """A picture of a banana above a cat."""
    names = by_name()
    drawings = embedded_images([names["banana"], names["cat"]], BadSamples("pictures", 0.0))
    picture = Image.new("RGB", (320, 320), (184, 208, 250))
    for drawing, place in zip(drawings, ((100, 20), (95, 180)), strict=True):
        image = drawing.image.copy()
        image.thumbnail((125, 125))
        picture.paste(image, place, image)
    picture.save(path)
    return path


def shoot(page: Page, name: str) -> None:
    """Write a picture."""
    page.mouse.move(1, 1)
    path = Path(str(FOLDER)) / f"page-{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.convert("RGB").save(path, optimize=True)
    assert path.stat().st_size < 150_000


def ask(page: Page, text: str, picture: Path | None = None) -> None:
    """Ask, and wait for the answer."""
    if picture:
        page.locator("#picture-file").set_input_files(picture)
        expect(page.locator("#attachments img")).to_have_count(1)
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    wait_until_over(page)


def test_conversation_and_panel(address: str, tmp_path: Path) -> None:
    with launched(tmp_path, "What is above the cat?") as browser:
        page = browser.new_page(viewport=DESKTOP, color_scheme="light")
        page.goto(address)
        expect(page.locator("#question")).to_be_focused()
        setting(page, seed="1")
        ask(page, "Which is bigger, a mountain or a microphone?")
        ask(page, "How many things are there?", scene(tmp_path / "scene.png"))
        shoot(page, "desktop")
        page.get_by_role("button", name="New").click()
        page.locator("#picture-file").set_input_files(tmp_path / "scene.png")
        page.get_by_role("button", name="Record a question").click()
        expect(page.locator("#record-time")).to_have_text(re.compile("^2.[5-9]"), timeout=10_000)
        page.get_by_role("button", name="Stop recording").click()
        expect(page.locator("#attachments audio")).to_have_count(1)
        page.keyboard.press("Enter")
        wait_until_over(page)
        page.locator("summary").click()
        page.set_viewport_size({"width": 900, "height": 860})
        page.locator(".got").scroll_into_view_if_needed()
        shoot(page, "panel")
        page.close()


def test_phone(address: str, tmp_path: Path) -> None:
    with launched(tmp_path) as browser:
        page = browser.new_page(viewport=PHONE, color_scheme="dark", device_scale_factor=2)
        page.goto(address)
        setting(page, seed="1")
        ask(page, "What is above the cat?", scene(tmp_path / "scene.png"))
        shoot(page, "phone")
        page.close()


def test_talk(address: str, tmp_path: Path) -> None:
    with launched(tmp_path, "What is above the cat?") as browser:
        page = browser.new_page(viewport={"width": 900, "height": 640}, color_scheme="light")
        page.goto(address)
        page.locator("#picture-file").set_input_files(scene(tmp_path / "scene.png"))
        expect(page.locator("#attachments img")).to_have_count(1)
        page.get_by_role("button", name="Talk").click()
        expect(page.locator("#talk")).to_have_attribute("data-state", "speaking", timeout=30_000)
        expect(page.locator(".asked").nth(1)).not_to_have_text("…")
        expect(page.locator("#talk")).to_have_attribute("data-state", "speaking", timeout=30_000)
        shoot(page, "talk")
        page.get_by_role("button", name="End").click()
        page.close()
