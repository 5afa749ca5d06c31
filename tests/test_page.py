"""The server's page in a browser: asking in text, pictures and speech, hearing the answer, interrupting it.

With ``MUOMNI_SCREENSHOTS`` naming a folder the pictures of docs/page.md are taken, of the model that
``MUOMNI_CHECKPOINT`` names.
"""

import base64
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi import FastAPI
from fastapi.testclient import TestClient
from page_tools import RATE, TAP, let_tap_in, microphone_file, serving, speaker_samples
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Response, expect, sync_playwright

from muomni.serve.page import FOLDER, add_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream"]
ARGUMENTS += ["--use-fake-device-for-media-stream", "--autoplay-policy=user-gesture-required"]
OWN = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; scripts/browser.sh installs it")


def test_files_have_types_a_policy_and_tags() -> None:
    app = FastAPI()
    add_page(app)
    client = TestClient(app)
    for path in FOLDER.iterdir():
        address = "/" if path.name == "index.html" else f"/page/{path.name}"
        answer = client.get(address)
        assert answer.content == path.read_bytes()
        kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        assert answer.headers["content-type"].split(";")[0] == kinds[path.suffix]
        assert answer.headers["cache-control"] == "no-cache"
        rules = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'" == rules["style-src"]
        again = client.get(address, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304 and not again.content
        assert client.head(address).headers["etag"] == answer.headers["etag"]
    assert not {"/", "/page/main.js"} & set(app.openapi()["paths"])


@pytest.fixture(scope="module")
def address(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a model of random weights."""
    with serving(checkpoint, tmp_path_factory.mktemp("serve")) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser without a screen, whose microphone hears a question over and over."""
    said = microphone_file(tmp_path_factory.mktemp("said") / "question.wav", "What is in the picture?", 0.8, 1.0)
    with sync_playwright() as playwright:
        arguments = [*ARGUMENTS, f"--use-file-for-fake-audio-capture={said}"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A window of a phone's width with a tap at its speaker."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, reduced_motion="reduce")
    context.add_init_script(TAP)
    context.route("http://127.0.0.1:*/", let_tap_in)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """The page; nothing may be asked of other hosts, written to the console, or wider than the screen."""
    page = context.new_page()
    foreign, errors = list[str](), list[str]()
    page.on("request", lambda request: None if request.url.startswith(OWN) else foreign.append(request.url))
    page.on("websocket", lambda socket: None if socket.url.startswith(OWN) else foreign.append(socket.url))
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.press("Enter")  # nothing to ask yet, but from now on the page may sound
    page.evaluate("heard.ready")
    yield page
    assert not foreign
    assert not [error for error in errors if "ERR_INTERNET_DISCONNECTED" not in error and "401" not in error]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def setting(page: Page, **values: str) -> None:
    """Change settings, by keyboard."""
    page.get_by_role("button", name="Settings").press("Enter")
    for name, value in values.items():
        page.locator(f"#{name.replace('_', '-')}").fill(value)
    page.keyboard.press("Enter")
    expect(page.locator("#settings")).to_be_hidden()
    page.locator("#question").focus()


def streamed(page: Page) -> list[Response]:
    """Collects the answers to questions that are asked from now on."""
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer) if "completions" in answer.url else None)
    return answers


def sent_speech(answer: Response) -> np.ndarray:
    """The speech in a streamed answer, int16."""
    data = [line[6:] for line in answer.text().splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for line in data for choice in json.loads(line)["choices"]]
    parts = [delta["audio"]["data"] for delta in deltas if (delta.get("audio") or {}).get("data")]
    return np.frombuffer(b"".join(base64.b64decode(part) for part in parts), "<i2")


def wait_until_over(page: Page) -> None:
    """Until nothing is written or said any more."""
    expect(page.locator("#stop")).to_be_hidden(timeout=30_000)


def saved(page: Page) -> np.ndarray:
    """The last answer as the page saves it, int16."""
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as WAV").last.click()
    samples, rate = soundfile.read(io.BytesIO(Path(download.value.path()).read_bytes()), dtype="int16")
    assert rate == RATE
    return samples


@needs_browser
def test_a_typed_question_is_answered_in_text_and_speech(page: Page) -> None:
    answers = streamed(page)
    setting(page, max_tokens="12", seed="3")
    page.keyboard.type("A parrot")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("can fly.")
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_have_value("")
    wait_until_over(page)
    assert answers[0].request.post_data_json["messages"] == [{"role": "user", "content": "A parrot\ncan fly."}]
    assert page.locator(".said").inner_text().strip()
    sent = sent_speech(answers[0])
    assert np.abs(sent).max() > 300 and len(sent) > RATE // 4, "the answer is silent"
    _, heard = speaker_samples(page)
    begin = int(np.flatnonzero(heard)[0]) - int(np.flatnonzero(sent)[0])
    # Sample by sample what the server sent, without a gap.
    assert np.array_equal(np.round(heard[begin : begin + len(sent)] * 32768), sent)
    assert not heard[:begin].any() and not heard[begin + len(sent) :].any()
    assert np.array_equal(saved(page), sent)
