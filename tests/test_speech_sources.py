"""Corpora of speech in the layouts of LJSpeech, LibriSpeech, Common Voice, and manifests."""

from pathlib import Path

import pytest
import torchaudio
from own_corpora import COLUMNS, CORPORA, GOOD, sentence, sound
from remote_folders import s3_server, upload, web_server

from muomni.config import parse
from muomni.data.badsamples import BadSamples
from muomni.data.concepts import load_concepts
from muomni.data.own_speech import own_utterances
from muomni.data.speech_corpus import SpeechConfig, build_speech
from muomni.data.tasks import SplitConversations
from muomni.data.utterances import Utterance, read_recording, read_utterances
from muomni.errors import UserError
from muomni.sound import load_audio
from pipelines import sources

RAW = {
    "sentences": 1,
    "speed_min": 1.0,
    "speed_max": 1.0,
    "prose": 0,
    "espeak_fraction": 0.0,
    "espeak_voices": [],
    "sample_rate": 16000,
    "max_seconds": 12.0,
    "max_bad_fraction": 0.3,
    "workers": 1,
}
SPLIT_COUNTS = {"train": GOOD, "valid": GOOD, "test": GOOD}


def config(source: str, path: Path | str, **more: object) -> SpeechConfig:
    return parse(SpeechConfig, {**RAW, "source": source, "path": str(path), **more}, "speech")


def listed(source: str, path: Path, **more: object) -> tuple[list[Utterance], BadSamples]:
    bad = BadSamples(1.0, "speech")
    return own_utterances(source, str(path), 0, bad, **more)[0], bad  # type: ignore[arg-type]


@pytest.mark.parametrize("source", CORPORA)
def test_bad_items_are_set_aside_with_the_right_reason_and_none_is_lost(source: str, tmp_path: Path) -> None:
    wrong = CORPORA[source](tmp_path / "own")
    path = tmp_path / "own" / ("list.jsonl" if source == "manifest" else "")
    cfg = config(source, path, columns=COLUMNS if source == "manifest" else {}, speaker="me")
    made = build_speech(cfg, "unread", "unread", 0, tmp_path / "out")
    good = {"ljspeech": 1, "librispeech": 3, "common_voice": 3, "manifest": 1}[source] * GOOD
    rows = read_utterances(tmp_path / "out")
    assert len(rows) == made["counts"]["utterances"] == good
    assert len(made["bad"]) == len(wrong)
    for name, reason in wrong.items():
        found = [entry["reason"] for entry in made["bad"] if name in entry["item"].rsplit("/", 1)[-1]]
        assert len(found) == 1 and reason in found[0], (name, reason, found)
    assert len(made.get("repeats", [])) == (source == "librispeech")
    for row in rows:
        assert len(load_audio(read_recording(tmp_path / "out", row))) / 16000 == pytest.approx(1, abs=0.1)
    stated = "LICENSE.txt: CC0 1.0" if source == "ljspeech" else "your own"
    assert [entry["licence"] for entry in made["licences"]] == [stated]
    origin = made["origins"][0]
    assert (origin["items"], origin["bad"], origin["source"]) == (good, len(wrong), source)
    if source != "manifest":
        return
    two = build_speech(cfg.model_copy(update={"workers": 2}), "unread", "unread", 0, tmp_path / "two")
    assert two["sha256"] == made["sha256"]


def test_texts_and_speakers_are_the_corpus_own(tmp_path: Path) -> None:
    for source, write in CORPORA.items():
        write(tmp_path / source)
    spoken, _ = listed("ljspeech", tmp_path / "ljspeech", speaker="me")
    assert {item.speaker for item in spoken} == {"me"} and spoken[3].text == sentence(3)
    spoken, _ = listed("librispeech", tmp_path / "librispeech")
    assert {item.speaker for item in spoken} == {"19", "26", "61"}
    assert sentence(0).rstrip(".") in {item.text for item in spoken}  # not in capitals
    spoken, _ = listed("common_voice", tmp_path / "common_voice")
    assert f'He said "{sentence(0)}"' in {item.text for item in spoken} and len({i.speaker for i in spoken}) == 4
    spoken, _ = listed("manifest", tmp_path / "manifest/list.jsonl", columns=COLUMNS)
    assert {item.speaker for item in spoken} == {"s0", "s1", "s2", "s3"}


def test_given_splits_are_kept_and_what_lacks_is_taken_from_training(tmp_path: Path) -> None:
    CORPORA["common_voice"](tmp_path / "cv")
    spoken, _ = listed("common_voice", tmp_path / "cv")
    for split in ("train", "valid", "test"):
        mine = [item for item in spoken if item.split == split and not item.text.startswith("Bad")]
        assert len(mine) == GOOD, split
    CORPORA["librispeech"](tmp_path / "ls")
    spoken, _ = listed("librispeech", tmp_path / "ls")  # has no validation of its own
    assert {item.split for item in spoken if item.speaker == "61"} == {"test"}
    assert {item.split for item in spoken if item.speaker != "61"} == {"train", "valid"}
    held = {item.key for item in spoken if item.split == "test"}
    assert not held & {item.key for item in spoken if item.split != "test"}
    (tmp_path / "cv/train.tsv").rename(tmp_path / "cv/validated.tsv")
    spoken, _ = listed("common_voice", tmp_path / "cv")
    assert {item.split for item in spoken} == {"train", "valid", "test"}


def test_what_torchaudio_reads_of_a_whole_corpus_is_the_same(tmp_path: Path) -> None:
    for number in range(3):
        sound(tmp_path / f"LibriSpeech/dev-clean/84/121/84-121-{number:04d}.flac")
        sound(tmp_path / f"LJSpeech-1.1/wavs/LJ001-{number:04d}.wav")
        sound(tmp_path / f"cv/clips/{number}.mp3")
    texts = [sentence(number).upper().rstrip(".") for number in range(3)]
    lines = [f"84-121-{number:04d} {text}\n" for number, text in enumerate(texts)]
    (tmp_path / "LibriSpeech/dev-clean/84/121/84-121.trans.txt").write_text("".join(lines))
    lines = [f"LJ001-{number:04d}|{number}|{sentence(number)}\n" for number in range(3)]
    (tmp_path / "LJSpeech-1.1/metadata.csv").write_text("".join(lines))
    lines = [f"{number}{'a' * 40}\t{number}.mp3\t{sentence(number)}\n" for number in range(3)]
    (tmp_path / "cv/train.tsv").write_text("client_id\tpath\tsentence\n" + "".join(lines))
    theirs = torchaudio.datasets.LIBRISPEECH(tmp_path, "dev-clean")
    ours = listed("librispeech", tmp_path / "LibriSpeech")[0]
    for number, item in enumerate(ours):
        path, _, text, speaker, *_ = theirs.get_metadata(number)
        assert item.source.endswith(path) and item.text.upper() == text and item.speaker == str(speaker)
    lj = torchaudio.datasets.LJSPEECH(tmp_path)
    assert [item.text for item in listed("ljspeech", tmp_path / "LJSpeech-1.1")[0]] == [row[2] for row in lj._flist]
    voice = torchaudio.datasets.COMMONVOICE(tmp_path / "cv")
    found = listed("common_voice", tmp_path / "cv")[0]
    assert [(i.speaker, Path(i.source).name, i.text) for i in found] == [
        (row[0][:16], row[1], row[2]) for row in voice._walker
    ]


@pytest.mark.parametrize(
    ("source", "file", "text", "reason"),
    [
        ("ljspeech", "notes.txt", "", "metadata.csv: no such file"),
        ("librispeech", "notes.txt", "", "no SPEAKER/CHAPTER"),
        ("common_voice", "notes.txt", "", "validated.tsv: no such file"),
        ("common_voice", "train.tsv", "a\tb\n1\t2\n", "lacks 'path' or 'sentence'"),
        ("manifest", "notes.txt", "", "no manifest.csv"),
        ("manifest", "manifest.csv", "a,b\n1,2\n", "speech.columns.audio"),
        ("ljspeech", "metadata.csv", "", "nothing to read"),
    ],
)
def test_what_is_no_such_corpus_is_told_in_one_line(
    tmp_path: Path, source: str, file: str, text: str, reason: str
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=reason) as error:
        build_speech(config(source, tmp_path), "unread", "unread", 0, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_tables_with_commas_tabs_and_given_splits(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "manifest.csv").write_text('path,sentence,split\na.wav,"One, two.",dev\na.wav,Three.,train\na.wav\n')
    made, bad = listed("manifest", tmp_path)
    assert [(i.text, i.split, i.speaker) for i in made] == [
        ("One, two.", "valid", "own"),
        ("Three.", made[1].split, "own"),
    ]
    assert [entry["item"] for entry in bad.items] == ["manifest.csv:4"]
    with pytest.raises(UserError, match=r"speech\.columns\.text names; it has path, sentence, split"):
        listed("manifest", tmp_path, columns={"text": "words"})


def test_a_corpus_at_an_address_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = CORPORA["librispeech"](tmp_path / "own")
    here = build_speech(config("librispeech", tmp_path / "own"), "unread", "unread", 0, tmp_path / "here")
    with web_server(tmp_path) as address:
        web = build_speech(config("librispeech", f"{address}/own"), "unread", "unread", 0, tmp_path / "web")
    with s3_server(monkeypatch) as client:
        upload(client, tmp_path / "own", "corpora", "libri")
        s3 = build_speech(config("librispeech", "s3://corpora/libri"), "unread", "unread", 0, tmp_path / "s3")
    assert here["sha256"] == web["sha256"] == s3["sha256"]
    assert len(here["bad"]) == len(web["bad"]) == len(s3["bad"]) == len(wrong)


def test_a_change_of_the_recordings_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CORPORA["ljspeech"](tmp_path / "own")
    build_speech(config("ljspeech", "own"), "unread", "unread", 0, tmp_path / "data/corpus/speech")
    assert list(sources.changed()) == []
    sound(tmp_path / "own/wavs/LJ001-0003.wav", 1.5)
    assert list(sources.changed()) == [("corpus-speech", "own", "has changed")]


def test_own_voices_are_read_aloud_whatever_their_name() -> None:
    row = {"speaker": "anna", "kind": "own", "key": "own:hello", "id": "1", "text": "Hello.", "split": "train"}
    rows = [row, {**row, "speaker": "espeak:en", "kind": "name", "id": "2"}]
    made = SplitConversations("train", 0, [], rows, list(load_concepts()), 1).make("read_aloud", 4)
    assert len(made) == 4 and {item.kind for item in made} == {"anna"}
