"""The speech corpus: splits by sentence, determinism, bad recordings, your own folder."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from muomni.config import parse
from muomni.data.badsamples import BadSamples
from muomni.data.concepts import select_concepts
from muomni.data.files import read_jsonl, sha256_folder
from muomni.data.grammar import content_key, words_of
from muomni.data.known import read_concepts
from muomni.data.own_speech import own_utterances
from muomni.data.speech_corpus import (
    SpeechConfig,
    build_speech,
    embedded_utterances,
)
from muomni.data.splits import combination_split
from muomni.data.utterances import read_recording, read_utterances
from muomni.data.voices import clean, espeak, speakable
from muomni.errors import UserError
from muomni.sound import load_audio

RAW = {
    "source": "embedded",
    "path": "",
    "sentences": 24,
    "speed_min": 0.95,
    "speed_max": 1.1,
    "prose": 0,
    "espeak_fraction": 0.5,
    "espeak_voices": ["en-us+f2", "en+m3"],
    "sample_rate": 16000,
    "max_seconds": 12.0,
    "max_bad_fraction": 0.01,
    "workers": 1,
}


def config(**changes: object) -> SpeechConfig:
    return parse(SpeechConfig, {**RAW, **changes}, "speech")


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    return (0.5 * np.sin(2 * math.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write_concepts(folder: Path) -> Path:
    path = folder / "concepts.jsonl"
    rows = [{"name": concept.name, "scene": concept.scene} for concept in select_concepts(40, 20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"name": "my cat rex", "scene": False}]))
    return path


# Which sentences


def test_no_sentence_or_combination_is_in_two_splits_whatever_the_speaker() -> None:
    made = embedded_utterances(config(sentences=900), select_concepts(120, 60), seed=0)
    splits: dict[str, set[str]] = {}
    for item in made:
        for about in (item.key, " ".join(words_of(item.text)), content_key(item.text)):
            splits.setdefault(about, set()).add(item.split)
        assert item.split == combination_split(content_key(item.text), 0)
    assert all(len(found) == 1 for found in splits.values())
    speakers = {split: {item.speaker for item in made if item.split == split} for split in ("train", "valid", "test")}
    for split, found in speakers.items():
        assert found == {"hibari", "espeak:en-us+f2", "espeak:en+m3"}, split
    share = sum(item.speaker != "hibari" for item in made) / 900
    assert share == pytest.approx(0.5, abs=0.06)


def test_utterances_are_the_seeds() -> None:
    concepts = select_concepts(40, 20)
    first = embedded_utterances(config(), concepts, seed=3)
    assert first == embedded_utterances(config(workers=2), concepts, seed=3)
    assert first != embedded_utterances(config(), concepts, seed=4)
    assert len({item.id for item in first}) == len(first)


def test_concepts_that_the_table_does_not_know_are_left_out(tmp_path: Path) -> None:
    assert {concept.name for concept in read_concepts(write_concepts(tmp_path))} == {
        concept.name for concept in select_concepts(40, 20)
    }
    (tmp_path / "own.jsonl").write_text('{"name": "rex", "scene": false}\n')
    with pytest.raises(UserError, match="none of its names"):
        read_concepts(tmp_path / "own.jsonl")
    with pytest.raises(UserError, match="dvc repro corpus-images"):
        read_concepts(tmp_path / "none.jsonl")


# How they sound


def test_clean_trims_normalises_and_resamples() -> None:
    quiet = np.zeros(24000, np.float32)
    wave = clean(np.concatenate((quiet, 0.1 * tone(1, 24000), quiet)), 24000, 16000)
    assert len(wave) / 16000 == pytest.approx(1.12, abs=0.03)
    assert np.abs(wave).max() == pytest.approx(0.9, abs=1e-3)
    assert len(clean(quiet, 24000, 16000)) == 0
    assert len(clean(np.zeros(0, np.float32), 24000, 16000)) == 0
    with pytest.raises(ValueError, match="NaN"):
        clean(np.array([0.1, np.nan], np.float32), 16000, 16000)


@pytest.mark.parametrize(("text", "can"), [("A dog.", True), ("7", True), ("...", False), ("", False), ("—", False)])
def test_speakable(text: str, can: bool) -> None:
    assert speakable(text) is can


def test_espeak_depends_on_its_arguments_only() -> None:
    pytest.importorskip("espeakng_loader")
    texts = [("There is a dog.", 160), ("How many cats are there?", 175)]
    first = list(espeak("en-us+f2", texts))
    list(espeak("en-us+klatt2", [("Something else in between.", 150)]))
    again = list(espeak("en-us+f2", texts))
    for (one, rate), (two, other) in zip(first, again, strict=True):
        assert rate == other == 22050
        assert len(one) > 0.5 * rate and np.array_equal(one, two)
    for voice in ("klingon", "en-us+nobody", "en-gb+f4x"):
        with pytest.raises(UserError, match="espeak_voices"):
            next(espeak(voice, texts))


def test_embedded_corpus_is_the_same_for_any_number_of_processes(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("hibari")
    concepts = write_concepts(tmp_path)
    one = build_speech(config(sentences=10), concepts, "unread", 0, tmp_path / "one")
    two = build_speech(config(sentences=10, workers=2), concepts, "unread", 0, tmp_path / "two")
    assert one["sha256"] == two["sha256"] == sha256_folder(tmp_path / "two")
    rows = read_utterances(tmp_path / "one")
    assert one["counts"]["utterances"] == len(rows) >= 10 and not one["bad"]
    assert {entry["package"] for entry in one["licences"]} == {"hibari-tts", "espeakng-loader"}
    for row in rows:
        wave = load_audio(read_recording(tmp_path / "one", row))
        assert len(wave) / 16000 == pytest.approx(row["seconds"], abs=1e-3)
        assert 0.3 < row["seconds"] < 12 and np.abs(wave).max() == pytest.approx(0.9, abs=0.01)


# Your own recordings


def own_folder(folder: Path, table: str, name: str = "metadata.csv") -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(12):
        soundfile.write(folder / f"{number}.wav", tone(0.5 + number / 20, 22050), 22050)
    soundfile.write(folder / "silent.wav", np.zeros(8000, np.float32), 16000)
    soundfile.write(folder / "long.wav", tone(13), 16000)
    (folder / "broken.wav").write_bytes(b"RIFF....")
    (folder / name).write_text(table, encoding="utf-8")
    return folder


def test_own_folder_is_read_and_bad_ones_are_set_aside(tmp_path: Path) -> None:
    rows = [f"{n}.wav,Sentence number {n} of mine.,anna" for n in range(12)]
    rows += ["silent.wav,Silence.,ben", "long.wav,Long.,ben", "broken.wav,Broken.,ben", "none.wav,None.,ben"]
    rows += ["0.wav,...,ben", "../secret.wav,Outside.,ben", ",No file.,ben"]
    folder = own_folder(tmp_path / "own", "\n".join(["file,text,speaker", *rows]))
    cfg = config(source="folder", path=str(folder), max_bad_fraction=0.5)
    manifest = build_speech(cfg, "unread", "unread", 0, tmp_path / "out")
    assert manifest["counts"]["utterances"] == 12 and len(manifest["bad"]) == 7
    reasons = " ".join(entry["reason"] for entry in manifest["bad"])
    for reason in (
        "silence",
        "max_seconds",
        "damaged",
        "no such file",
        "nothing that can be spoken",
        "not inside",
    ):
        assert reason in reasons
    assert manifest["source"] == "folder" and [one["licence"] for one in manifest["licences"]] == ["your own"]
    written = list(read_jsonl(tmp_path / "out" / "utterances.jsonl", ""))
    assert {row["speaker"] for row in written} == {"anna"} and str(tmp_path) not in json.dumps(written)
    with pytest.raises(UserError, match="max_bad_fraction"):
        build_speech(cfg.model_copy(update={"max_bad_fraction": 0.1}), "unread", "unread", 0, tmp_path / "again")


def test_own_sentence_by_two_speakers_stays_in_one_split(tmp_path: Path) -> None:
    lines = []
    for number in range(60):
        lines.append(
            json.dumps({"file": "0.wav", "text": f"Here is the word {'xyz'[number % 3] * number}.", "speaker": "a"})
        )
        lines.append(
            json.dumps({"file": "1.wav", "text": f"here is a word {'xyz'[number % 3] * number}", "speaker": "b"})
        )
    folder = own_folder(tmp_path / "own", "\n".join(lines), "metadata.jsonl")
    made = own_utterances("folder", str(folder), 0, BadSamples(0.0, "speech"))[0]
    assert all(one.split == two.split for one, two in zip(made[::2], made[1::2], strict=True))
    assert {item.split for item in made} == {"train", "valid", "test"}


@pytest.mark.parametrize(
    ("table", "name", "reason"),
    [
        ("file,words\n0.wav,hello", "metadata.csv", "lacks 'file' or 'text'"),
        ('{"file": "0.wav"}', "metadata.jsonl", "lacks 'file' or 'text'"),
        ("{broken", "metadata.jsonl", "all 1 samples are bad; the first is metadata.jsonl:1: not JSON"),
        ("file,text\n", "metadata.csv", "nothing to read"),
        ("file,text\n", "notes.txt", "neither metadata.csv"),
    ],
)
def test_bad_metadata_is_one_line(tmp_path: Path, table: str, name: str, reason: str) -> None:
    cfg = config(source="folder", path=str(own_folder(tmp_path / "own", table, name)))
    with pytest.raises(UserError, match=reason) as error:
        build_speech(cfg, "unread", "unread", 0, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_missing_folder_and_impossible_settings() -> None:
    with pytest.raises(UserError, match="no such folder"):
        build_speech(config(source="folder", path="/nowhere"), "unread", "unread", 0, Path("/nowhere/out"))
    for changes in ({"speed_min": 1.2}, {"espeak_voices": []}, {"source": "folder"}, {"sentences": 0}):
        with pytest.raises(UserError, match="speech"):
            config(**changes)
