"""`muomni data check`: what is wrong with data is told before anything is trained on them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from own_corpora import COLUMNS, CORPORA, pictures, sentence, sound, spoken
from picture_folders import MAX_PIXELS, WRITERS

from muomni.check.layouts import Found
from muomni.check.settings import pictures_config
from muomni.cli import main
from muomni.config import parse
from muomni.data.image_corpus import build_image_corpus
from muomni.data.speech_corpus import SpeechConfig, build_speech
from muomni.params import read_params
from muomni.tokenizer import train_tokenizer

ROOT = Path(__file__).parent.parent


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and profiles, to run commands in."""
    (tmp_path / "here/profiles").mkdir(parents=True)
    shutil.copy(ROOT / "profiles/tiny.yaml", tmp_path / "here/params.yaml")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def check(*options: object) -> tuple[int, dict[str, dict[str, Any]], dict[str, Any]]:
    """The exit code, the problems by name, and the first section of the report."""
    code = main(["data", "check", *map(str, options), "--json", "report.json", "--workers", "1"])
    report = json.loads(Path("report.json").read_text())
    section = report["sections"][0]
    assert report["fails"] == (code == 1)
    return code, section["problems"], section


def items(problems: dict[str, dict[str, Any]], name: str) -> set[str]:
    """Names of the files that have a problem."""
    return {entry["item"].rsplit("/", 1)[-1] for entry in problems[name]["worst"]}


@pytest.mark.parametrize("source", CORPORA)
def test_what_the_stage_sets_aside_is_told_before_with_the_same_reasons(source: str, place: Path) -> None:
    wrong = CORPORA[source](place / "own")
    path = place / "own/list.jsonl" if source == "manifest" else place / "own"
    options: list[object] = [path]
    if source == "manifest":
        options = [
            "--source",
            source,
            "--path",
            path,
            *(x for k, v in COLUMNS.items() for x in ("--column", f"{k}={v}")),
        ]
    code, problems, section = check(*options)
    assert section["source"] == source and code == 1
    raw = read_params("params.yaml").speech.model_dump() | {
        "source": source,
        "path": str(path),
        "max_bad_fraction": 1.0,
    }
    cfg = parse(SpeechConfig, raw | {"columns": COLUMNS if source == "manifest" else {}, "workers": 1}, "speech")
    made = build_speech(cfg, "unread", "unread", 0, place / "out")
    told = sorted((entry["item"], entry["reason"]) for entry in problems["cannot be used"]["worst"])
    assert told == sorted((entry["item"], entry["reason"]) for entry in made["bad"]) and len(told) == len(wrong)
    assert section["items"] == made["counts"]["utterances"] + len(made["bad"]) + len(made.get("repeats", []))
    splits = {row[0]: row[1] for row in section["tables"]["splits"][1:]}
    assert splits == {split: about["utterances"] for split, about in made["splits"].items()}


def test_recordings_that_spoil_a_training_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoken(place / "own")
    model = place / "tokenizer.model"
    train_tokenizer([f"{sentence(n)} It is loud soft narrow wide." for n in range(1000)], 330, model)
    code, problems, section = check(place / "own", "--tokenizer", model, "--limit", 0)
    assert code == 1
    assert items(problems, "clipped") == {"clipped.flac"} and items(problems, "very quiet") == {"quiet.wav"}
    assert items(problems, "text too long for the sound") == {"short.wav"}
    assert items(problems, "letters that are not learned") == {"russian.wav"}
    assert items(problems, "other letters than expected") == {"russian.wav"}
    assert items(problems, "low sample rate") == {"telephone.wav"}
    assert items(problems, "same item twice") == {"again.wav"}
    assert items(problems, "sound without a text") == {"unread.wav"}
    assert "russian.wav" in items(problems, "characters that the tokenizer lacks")
    assert "cannot be used" not in problems and "same item in two splits" not in problems
    assert section["facts"]["sample rates"].startswith("16,000 (") and "2 (1)" in section["facts"]["channels"]
    assert [row[0] for row in section["tables"]["speakers"][1:]] == ["a", "b"]
    told = capsys.readouterr().out
    assert "SPOILS: clipped: 1" in told and "clipped.flac: " in told and "note: low sample rate" in told
    code, problems, _ = check(place / "own", "--limit", 0.05)
    assert code == 0 and not any(problem["fails"] for problem in problems.values())


def test_a_sound_with_two_texts_and_copies_across_splits(place: Path) -> None:
    folder = place / "own"
    rows = ["audio\ttext\tsplit"]
    long = "the quick brown fox jumps over the lazy dog and runs away into the deep dark wood"
    for number in range(6):
        sound(folder / f"{number}.wav", 5 + number / 100)
        rows.append(f"{number}.wav\t{sentence(number)}\t{('train', 'dev', 'test')[number % 3]}")
    sound(folder / "near.wav", 7)
    sound(folder / "held.wav", 8)
    rows += [f"near.wav\t{long} today\ttrain", f"held.wav\t{long} again\ttest"]
    rows += ["0.wav\tAnother text of it.\ttrain", "1.wav\tIt is in training.\ttrain", f"3.wav\t{sentence(2)}\ttrain"]
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")
    code, problems, _ = check(folder)
    assert code == 1
    assert items(problems, "one sound with two texts") == {"0.wav (2)"}
    assert items(problems, "same item in two splits") == {"1.wav (2)"}
    assert items(problems, "near copy of a held-out item") == {"near.wav"}
    assert items(problems, "held-out sentence in training") == {"3.wav"}
    assert problems["too few"]["fails"]


def test_texts_that_spoil_a_training_are_named(place: Path) -> None:
    folder = place / "own"
    folder.mkdir()
    for number in range(100):
        text = " ".join(f"{sentence(number * 7 + k)} Then word{number}x{k} follows." for k in range(8))
        (folder / f"{number:03d}.txt").write_text(text)
    (folder / "latin1.txt").write_bytes("Un café très fort.".encode("latin-1"))
    (folder / "binary.txt").write_bytes(b"\0\1\2 and so on")
    (folder / "empty.txt").write_text(" \n")
    (folder / "greek.txt").write_text("Αυτό είναι ένα κείμενο στα ελληνικά.")
    (folder / "copy.txt").write_text((folder / "007.txt").read_text())
    for number in range(0, 100, 2):
        (folder / f"near{number}.txt").write_text(
            (folder / f"{number:03d}.txt").read_text() + f" The end of it {number}."
        )
    (folder / "more.jsonl").write_text('{"text": "One more line of text."}\n{"words": 1}\n{broken\n')
    code, problems, section = check(folder)
    assert code == 1 and section["items"] == 100 + 5 + 50 + 3
    assert items(problems, "cannot be used") == {
        "latin1.txt",
        "binary.txt",
        "empty.txt",
        "more.jsonl:2",
        "more.jsonl:3",
    }
    reasons = " ".join(problems["cannot be used"]["reasons"])
    assert all(part in reasons for part in ("not UTF-8", "zero byte", "empty", "not JSON"))
    assert items(problems, "other letters than expected") == {"greek.txt"}
    copies = items(problems, "near copy of a held-out item")
    assert copies and problems["near copy of a held-out item"]["fails"]
    twice = {
        name
        for kind in ("same item twice", "same item in two splits")
        if kind in problems
        for name in items(problems, kind)
    }
    assert twice == {"copy.txt"}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_the_picture_stage_sets_aside_is_told_before(kind: str, place: Path) -> None:
    wrong = WRITERS[kind](place / "own", 60, 9)
    params = Path("params.yaml").read_text().replace("max_pixels: 50000000", f"max_pixels: {MAX_PIXELS}")
    Path("params.yaml").write_text(params)
    code, problems, section = check(place / "own")
    config = pictures_config(read_params("params.yaml"), Found("pictures", kind, str(place / "own")))
    (place / "out").mkdir()
    made = build_image_corpus(config.model_copy(update={"max_bad_fraction": 1.0}), 0, place / "out", "images")
    told = sorted((entry["item"], entry["reason"]) for entry in problems["cannot be used"]["worst"])
    assert told == sorted((entry["item"], entry["reason"]) for entry in made["bad"]) and len(told) == len(wrong)
    assert code == 1 and section["source"] == kind
    counts = made["counts"]
    assert section["items"] == counts["drawings"] + counts.get("captioned", 0) + counts["bad"]
    assert {row[0]: row[1] for row in section["tables"]["splits"][1:]} == made["splits"]


def test_pictures_that_spoil_a_training_are_named(place: Path) -> None:
    pictures(place / "own")
    code, problems, section = check(place / "own", "--limit", 0)
    assert code == 1 and section["items"] == 67
    reasons = {entry["item"].split()[-1]: entry["reason"] for entry in problems["cannot be used"]["worst"]}
    assert set(reasons) == {"cut.jpg", "page.png", "none.png", "2.jpg"}
    assert "damaged" in reasons["cut.jpg"] and "no picture" in reasons["page.png"] and "no such" in reasons["none.png"]
    assert items(problems, "tiny picture") == {"tiny.png"} and items(problems, "huge picture") == {"huge.jpg"}
    copies = problems.get("same item twice", problems.get("same item in two splits"))
    assert copies is not None and copies["count"] == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "name a folder"),
        (["--source", "ljspeach", "--path", "x"], "did you mean 'ljspeech'"),
        (["--source", "ljspeech"], "needs --path"),
        (["nowhere"], "no such folder"),
        (["."], "nothing that can be learned"),
        (["--source", "manifest", "--path", "x.csv", "--column", "text"], "not WHAT=NAME"),
    ],
)
def test_bad_options_are_told_in_one_line(
    options: list[str], reason: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.csv").write_text("a,b\n")
    assert main(["data", "check", *options]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
