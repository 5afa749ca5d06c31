"""The server's page in a browser: asking in text, pictures and speech, hearing the answer, interrupting it."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from page_tap import RATE, TAP, let_tap_in, silence_after, speaker_samples
from page_tools import (
    CARRY,
    ELSEWHERE,
    GIVE_KEY,
    KEY,
    QUESTION,
    alike,
    asked_parts,
    launched,
    needs_browser,
    png,
    saved,
    sent_speech,
    serving,
    setting,
    wait_until_over,
)
from playwright.sync_api import Browser, BrowserContext, Page, expect

from muomni.data.voices import Hibari, clean

OWN = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:", "about:")
LOUD = 300  # of 32,768: the mean of a piece of 30 ms in which somebody speaks


@pytest.fixture(scope="module")
def address(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a model of random weights that asks for a key."""
    folder = tmp_path_factory.mktemp("serve")
    key = folder / "key"
    key.touch(0o600)  # a key that others can read is refused
    key.write_text(KEY)
    with serving(checkpoint, folder, "--host-name", ELSEWHERE, "--api-key-file", str(key)) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser without a screen, whose microphone hears a question over and over."""
    with launched(tmp_path_factory.mktemp("said")) as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A window of a phone's width with a tap at its speaker."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, reduced_motion="reduce")
    context.add_init_script(TAP)
    context.add_init_script(GIVE_KEY)
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
    # What the browser itself writes where a request is refused, or the network is off.
    wanted = ("status of 400", "status of 401", "ERR_INTERNET_DISCONNECTED")
    assert not [error for error in errors if not any(part in error for part in wanted)]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
def test_a_typed_question_is_answered_in_text_and_speech(page: Page) -> None:
    setting(page, max_tokens="12", seed="3")
    page.keyboard.type("A parrot")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("can fly.")
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_have_value("")
    wait_until_over(page)
    assert asked_parts(page) == "A parrot\ncan fly."
    assert page.locator(".said").inner_text().strip()
    sent = sent_speech(page)
    assert np.abs(sent).max() > 300 and len(sent) > RATE // 4, "the answer is silent"
    _, heard = speaker_samples(page)
    begin = int(np.flatnonzero(heard)[0]) - int(np.flatnonzero(sent)[0])
    # Sample by sample what the server sent, without a gap.
    assert np.array_equal(np.round(heard[begin : begin + len(sent)] * 32768), sent)
    assert not heard[:begin].any() and not heard[begin + len(sent) :].any()
    assert np.array_equal(saved(page), sent)


@needs_browser
def test_pictures_come_by_button_drop_and_paste_and_the_panel_shows_them(page: Page) -> None:
    setting(page, max_tokens="2")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Attach a picture").press("Enter")
    chooser.value.set_files({"name": "red.png", "mimeType": "image/png", "buffer": png((255, 0, 0))})
    expect(page.locator("#attachments img")).to_have_count(1)
    page.evaluate(CARRY, ["drop", "green.png", base64.b64encode(png((0, 255, 0))).decode()])
    expect(page.locator("#attachments img")).to_have_count(2)
    page.evaluate(CARRY, ["paste", "blue.png", base64.b64encode(png((0, 0, 255))).decode()])
    expect(page.locator("#attachments img")).to_have_count(3)
    page.get_by_role("button", name="Remove green.png").press("Enter")
    page.evaluate(CARRY, ["drop", "broken.png", base64.b64encode(b"no picture").decode()])
    expect(page.get_by_role("alert").first).to_contain_text("broken.png: cannot be read as a picture")
    page.keyboard.type("What is it?")
    page.keyboard.press("Enter")
    wait_until_over(page)
    parts = asked_parts(page)
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    assert base64.b64decode(parts[0]["image_url"]["url"].split(",")[1]) == png((255, 0, 0))

    page.locator("summary").press("Enter")
    expect(page.locator(".legend")).to_contain_text("10 picture")  # of each a grid of 2 x 2, and one for all of it
    expect(page.locator("figcaption").first).to_have_text(
        "60 × 40 pixels, made 32 × 32; 4 × 4 patches (thin lines), "
        "pooled to 2 × 2 cells and one for the whole: 5 positions"
    )
    colours = page.locator("canvas").first.evaluate(
        """canvas => { const { data } = canvas.getContext("2d").getImageData(0, 90, 240, 1);
        return [30, 60, 120].map((at) => [...data.slice(4 * at, 4 * at + 4)]); }"""
    )
    inside, patch, cell = colours
    assert inside == [255, 0, 0, 255], "the middle of a patch is the picture's"
    assert patch != inside and cell not in (inside, patch), "the grids of patches and cells are drawn over it"
    rows = page.locator(".times tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows] == ["First token", "First sound", "Tokens a second"]
    assert "s" in rows[0].split("\t")[1] and "s" in rows[0].split("\t")[2]


@needs_browser
def test_a_recorded_question_is_sent_as_it_was_heard(page: Page) -> None:
    setting(page, max_tokens="2")
    page.get_by_role("button", name="Record a question").press("Enter")
    expect(page.locator("#record-time")).to_have_text(re.compile("^3"), timeout=10_000)
    page.get_by_role("button", name="Stop recording").press("Enter")
    expect(page.locator("#attachments audio")).to_have_count(1)
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.press("Enter")
    wait_until_over(page)
    (part,) = asked_parts(page)
    assert part["input_audio"]["format"] == "wav"
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(part["input_audio"]["data"])))
    said = clean(np.asarray(Hibari().say(QUESTION, 1.0, 0)), RATE, rate)
    assert rate == 16000
    assert abs(len(heard) - len(said)) < rate / 4, "the silence at its ends is cut off"
    assert alike(heard, said) > 0.5, "what was said is not in what was sent"
    page.locator("summary").press("Enter")
    expect(page.locator(".mel figcaption")).to_contain_text("frames of the log-mel")
    assert page.locator(".mel img").evaluate("image => image.naturalHeight") == 128
    assert page.locator(".axis span").all_inner_texts()[:2] == ["0 s", "0.2"]


@needs_browser
def test_escape_ends_the_answer_and_its_sound_at_once(page: Page) -> None:
    setting(page, seed="3")
    page.keyboard.type("Say much.")
    page.keyboard.press("Enter")
    expect(page.locator("[data-state=speaking]")).to_have_count(1, timeout=30_000)
    page.evaluate("heard.sounding")
    page.keyboard.press("Escape")
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator(".answered")).not_to_have_attribute("aria-busy", "true")
    text = page.locator(".said").inner_text()
    came = saved(page)  # takes longer than what was queued, if it were still played
    page.wait_for_timeout(300)
    after, at = silence_after(page, "key Escape")
    print(f"silent {1000 * after:.0f} ms after Escape")
    assert after < 0.2
    start, heard = speaker_samples(page)
    assert len(came) > np.count_nonzero(heard) + RATE // 10, "nothing was queued that could have been dropped"
    assert page.locator(".said").inner_text() == text
    # What came can be heard again, and stopped by its button.
    page.get_by_role("button", name="Play").press("Enter")
    page.get_by_role("button", name="Stop").last.press("Enter")
    expect(page.get_by_role("button", name="Play")).to_be_visible()


@needs_browser
def test_talk_is_interrupted_by_voice(page: Page) -> None:
    page.evaluate(CARRY, ["paste", "red.png", base64.b64encode(png((255, 0, 0))).decode()])
    expect(page.locator("#attachments img")).to_have_count(1)
    page.get_by_role("button", name="Talk").press("Enter")
    expect(page.locator("#talk")).to_have_attribute("data-state", "speaking", timeout=30_000)
    expect(page.locator(".asked img")).to_have_count(1)
    page.locator(".state", has_text="interrupted").first.wait_for(timeout=30_000)
    page.get_by_role("button", name="End").press("Enter")
    expect(page.locator("#question")).to_be_focused()
    notes = page.evaluate("heard.notes")
    kinds = [kind for kind, *_ in notes]
    assert "conversation.item.create" in kinds and "got error" not in kinds
    cut = kinds.index("conversation.item.truncate")
    begun = max(at for at in range(cut) if kinds[at] == "got input_audio_buffer.speech_started")
    loud = [at for at in range(begun) if kinds[at] == "sent" and notes[at][3] > LOUD]
    voice = min(at for at in loud if notes[at][1] > notes[begun][1] - RATE / 2)  # it was silent before
    start, heard = speaker_samples(page)
    last = start + int(np.flatnonzero(heard[: int(notes[cut][1]) - start + RATE // 5])[-1]) + 1
    after_event, after_voice = ((last - notes[at][1]) / RATE for at in (begun, voice))
    print(f"silent {1000 * after_event:.0f} ms after speech_started, {1000 * after_voice:.0f} ms after the voice")
    assert after_event < 0.2
    answered = max(at for at in range(cut) if kinds[at] == "got response.created")
    skipped = max(0, int(notes[answered][1]) - start)  # earlier answers may have been heard to their end
    said = np.count_nonzero(heard[skipped : last - start]) / RATE  # without the gaps of a busy machine
    assert abs(notes[cut][3]["audio_end_ms"] / 1000 - said) < 0.1


@needs_browser
def test_the_keyboard_reaches_everything_and_shows_where_it_is(page: Page) -> None:
    page.locator("#question").evaluate("e => e.blur()")
    names = []
    for _ in range(14):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => { const e = document.activeElement; const style = getComputedStyle(e);
            if (e === document.body) return ["", true];
            return [e.ariaLabel || e.innerText.trim() || e.id,
                    style.outlineStyle !== 'none' || e.id === 'question']; }"""
        )
        names.append(name)
        assert outline, name
    wanted = ["Skip to the question", "New", "Settings", "Can a parrot fly?", "Attach a picture", "Record a question"]
    assert [name for name in wanted if name not in names] == [], names
    page.get_by_role("button", name="Can a parrot fly?").press("Enter")
    expect(page.locator(".asked")).to_have_text("Can a parrot fly?")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="New").press("Enter")
    expect(page.locator(".asked")).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()


@needs_browser
def test_failures_are_told_where_they_belong_and_keep_what_was_typed(page: Page, context: BrowserContext) -> None:
    setting(page, max_tokens="2", voice="nobody")
    page.keyboard.type("Can a parrot fly?")
    page.keyboard.press("Enter")
    expect(page.locator(".error")).to_contain_text("no voice 'nobody'")
    page.get_by_role("button", name="Change the question").press("Enter")
    expect(page.locator("#question")).to_have_value("Can a parrot fly?")
    setting(page, voice="")
    context.set_offline(True)
    page.keyboard.press("Enter")
    expect(page.locator(".error")).to_contain_text("no connection to the server")
    page.keyboard.type("typed meanwhile")
    context.set_offline(False)
    page.get_by_role("button", name="Try again").press("Enter")
    wait_until_over(page)
    expect(page.locator(".error")).to_be_hidden()
    assert page.locator(".said").inner_text().strip()
    expect(page.locator("#question")).to_have_value("typed meanwhile")


@needs_browser
def test_without_https_the_microphone_says_why_and_answers_still_sound(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.add_init_script(GIVE_KEY)
    page.goto(address.replace("127.0.0.1", ELSEWHERE))
    for name in ("Record a question", "Talk"):
        page.get_by_role("button", name=name).press("Enter")
        expect(page.get_by_role("alert").first).to_contain_text("only to pages over https or from this machine")
    page.locator("#question").focus()
    setting(page, seed="3")
    page.keyboard.type("Say much.")
    page.keyboard.press("Enter")
    expect(page.locator("[data-state=speaking]")).to_have_count(1, timeout=30_000)
    page.keyboard.press("Escape")
    wait_until_over(page)
    expect(page.locator(".error")).to_be_hidden()
    page.close()


@needs_browser
def test_a_server_with_a_key_is_given_one(browser: Browser, address: str) -> None:
    page = browser.new_page()
    page.goto(address)
    expect(page.get_by_label("API key")).to_be_focused()
    expect(page.get_by_role("alert").first).to_contain_text("no API key")
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert").first).to_be_hidden()
    page.get_by_role("button", name="Is a dog an animal?").press("Enter")
    expect(page.locator(".said")).not_to_be_empty(timeout=30_000)
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")
    page.close()
