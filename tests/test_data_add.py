"""`muomni data add`, and the page of `muomni data check`."""

import shutil
from pathlib import Path

import pytest
from own_corpora import CORPORA, pictures, spoken
from page_tools import ARGUMENTS, CHROMIUM, needs_browser
from picture_folders import WRITERS
from playwright.sync_api import sync_playwright

from muomni.check.layouts import found_in
from muomni.check.pictures import parts_of
from muomni.cli import main
from muomni.params import read_params

ROOT = Path(__file__).parent.parent


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and profiles, to run commands in."""
    (tmp_path / "here/profiles").mkdir(parents=True)
    shutil.copy(ROOT / "profiles/tiny.yaml", tmp_path / "here/params.yaml")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_the_layout_of_a_folder_is_found_out(place: Path) -> None:
    for source, write in CORPORA.items():
        if source != "manifest":
            write(place / "all" / source)
    spoken(place / "all/recordings")
    pictures(place / "all/seen")
    for kind in ("csv", "sidecar", "coco", "webdataset"):
        WRITERS[kind](place / "all" / kind, 6, 100)
    (place / "all/texts").mkdir()
    (place / "all/texts/a.txt").write_text("Some text.")
    found = {(one.what, one.source, one.address.rsplit("/", 1)[-1]) for one in found_in(str(place / "all"))}
    assert found == {
        ("speech", "ljspeech", "ljspeech"),
        ("speech", "librispeech", "librispeech"),
        ("speech", "common_voice", "common_voice"),
        ("speech", "folder", "recordings"),
        ("pictures", "folder", "seen"),
        *(("pictures", kind, kind) for kind in ("csv", "sidecar", "coco", "webdataset")),
        ("text", "files", "texts"),
    }


def test_add_writes_a_profile_and_never_overwrites(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CORPORA["ljspeech"](place / "own")
    pictures(place / "seen")
    before = Path("params.yaml").read_bytes()
    assert main(["data", "add", str(place / "own"), "--as", "my-voice"]) == 0
    assert capsys.readouterr().out == "muomni profile my-voice\nmuomni plan\nmake repro\n"
    made = read_params("profiles/my-voice.yaml")
    assert (made.profile, made.speech.source, made.speech.path) == ("my-voice", "ljspeech", str(place / "own"))
    assert made.talker.voices == ["my-voice"] == [made.speech.speaker] == [made.d_codec.speaker]
    assert made.evaluate.speaker == "my-voice" and made.conversations.train.spoken_scene == 0
    assert "# --- model ---" in Path("profiles/my-voice.yaml").read_text()
    kept = Path("profiles/my-voice.yaml").read_bytes()
    assert main(["data", "add", str(place / "own"), "--as", "my-voice"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["data", "add", str(place / "own"), "--as", "../x"]) == 2
    assert main(["data", "add", str(place / "seen"), "--as", "seen"]) == 0
    made = read_params("profiles/seen.yaml")
    assert made.images.source == "folder" and made.images.scenes == made.conversations.test.scene == 0
    WRITERS["coco"](place / "coco", 12, 100)
    assert main(["data", "add", str(place / "coco"), "--as", "captioned"]) == 0
    made = read_params("profiles/captioned.yaml")
    assert made.images.source == "mixture" and made.images.scenes > 0  # the drawings are still there
    assert [part.path for part in parts_of(made.images)] == [str(place / "coco")]
    assert Path("params.yaml").read_bytes() == before and Path("profiles/my-voice.yaml").read_bytes() == kept
    assert sorted(path.name for path in Path("profiles").iterdir()) == ["captioned.yaml", "my-voice.yaml", "seen.yaml"]


@needs_browser
def test_the_page_stands_alone_and_plays(place: Path) -> None:
    spoken(place / "all/own")
    pictures(place / "all/seen")
    (place / "all/own/<b>.wav").write_bytes(b"")
    assert main(["data", "check", str(place / "all"), "--page", "check.html", "--limit", "0", "--workers", "1"]) == 1
    assert Path("check.html").stat().st_size < 5_000_000
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        asked, errors = list[str](), list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(Path("check.html").resolve().as_uri())
        seconds = page.evaluate(
            "Promise.all([...document.querySelectorAll('audio')].map(async a => {"
            "a.preload = 'auto'; a.load(); await new Promise(r => a.onloadedmetadata = r); return a.duration }))"
        )
        assert len(seconds) >= 8 and all(0.2 < one < 6.5 for one in seconds)
        assert page.locator("img").count() == 12
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert page.locator("svg").count() >= 4 and page.locator(".bad").count() > 3
        for width in (360, 1100):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path="check.png", full_page=True)
        browser.close()
    assert not errors and all(url.startswith(("file:", "data:")) for url in asked)
