"""What tests of the server's page share: a server process, a browser with a microphone, and what a person does."""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from page_tap import RATE
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from muomni.data.voices import Hibari

QUESTION = "What is in the picture?"  # what the browser's microphone hears
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream"]
ARGUMENTS += ["--use-fake-device-for-media-stream", "--autoplay-policy=user-gesture-required"]
ELSEWHERE = "muomni.test"  # a name by which browsers trust no page without https
# A page that a test's route has touched counts as from elsewhere, which may not open a WebSocket to this machine.
ARGUMENTS += ["--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets"]
ARGUMENTS += [f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"]
KEY = "a-key-for-tests-only"
GIVE_KEY = f'sessionStorage.setItem("muomni-api-key", "{KEY}")'
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; scripts/browser.sh installs it")


@contextmanager
def serving(checkpoint: Path, folder: Path, *options: str) -> Iterator[str]:
    """`muomni serve` as a process of its own; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "serve.log"
    command = [sys.executable, "-m", "muomni.cli", "serve", "--checkpoint", str(checkpoint), "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, *options], stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(address, process, log)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until the server answers at ``/readyz``."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text()}")


def microphone_file(path: Path, question: str) -> Path:
    """A question between silences for the browser's fake microphone, which plays it over and over."""
    voice = Hibari()
    said = voice.say(question, 1.0, 0)
    wave = np.pad(said, (int(0.8 * voice.rate), int(1.2 * voice.rate)))
    soundfile.write(path, wave, voice.rate, subtype="PCM_16")
    return path


@contextmanager
def launched(folder: Path, question: str = QUESTION) -> Iterator[Browser]:
    """A browser without a screen, whose microphone hears a question over and over."""
    said = microphone_file(folder / "question.wav", question)
    with sync_playwright() as playwright:
        arguments = [*ARGUMENTS, f"--use-file-for-fake-audio-capture={said}"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def setting(page: Page, **values: str) -> None:
    """Change settings, by keyboard."""
    page.get_by_role("button", name="Settings").press("Enter")
    for name, value in values.items():
        page.locator(f"#{name.replace('_', '-')}").fill(value)
    page.keyboard.press("Enter")
    expect(page.locator("#settings")).to_be_hidden()
    page.locator("#question").focus()


def asked_parts(page: Page) -> list[dict[str, Any]]:
    """The content of the only message that was sent."""
    ((message,),) = [request["messages"] for request in page.evaluate("heard.asked")]
    assert message["role"] == "user"
    return message["content"]


def sent_speech(page: Page) -> np.ndarray:
    """The speech in the first answer as the server streamed it, int16."""
    data = [line[6:] for line in page.evaluate("heard.answers[0]").splitlines() if line.startswith("data: {")]
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


def png(colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(file, "PNG")
    return file.getvalue()


# An event that carries a file, as a browser makes it when a person drops or pastes one.
CARRY = """([kind, name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type: "image/png" }));
  const more = { bubbles: true, cancelable: true };
  const made = kind === "paste" ? new ClipboardEvent(kind, { clipboardData: data, ...more })
                                : new DragEvent(kind, { dataTransfer: data, ...more });
  document.activeElement.dispatchEvent(made);
}"""


def alike(heard: np.ndarray, said: np.ndarray) -> float:
    """How alike the loudness of two sounds goes up and down, at the best shift; 1 for equal."""

    def envelope(wave: np.ndarray) -> np.ndarray:
        blocks = wave[: len(wave) // 160 * 160].reshape(-1, 160)
        return np.log(np.sqrt((blocks**2).mean(1)) + 1e-3)

    one, other = sorted((envelope(heard), envelope(said)), key=len)
    shifts = range(len(other) - len(one) + 1)
    return max(float(np.corrcoef(other[shift : shift + len(one)], one)[0, 1]) for shift in shifts)
