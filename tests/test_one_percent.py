"""A thousand items in every layout of speech, and prose in files, with one in a hundred bad, of every kind.

All are set aside, each with its reason, none is lost, and `muomni data check` finds the same. Pictures, JSON lines,
Parquet and conversations have the like beside their other tests.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from own_corpora import sentence, sound, spoil
from test_data_check import check, place
from test_speech_sources import config
from test_text_sources import build as build_text
from test_text_sources import config as text_config
from test_text_sources import prose

from muomni.data.speech_corpus import build_speech
from muomni.data.utterances import read_utterances

assert place  # a fixture
NUMBER, EVERY = 1000, 100
Row = tuple[str, str]  # name without ending, and text
Bad = dict[str, str]  # the reason by a part of the item
Lines = Callable[[Row], bytes]


def rows(folder: Path, end: str) -> tuple[list[Row], Bad]:
    """Names and texts of recordings of which one in `EVERY` is bad in itself, each in another way."""
    reasons = spoil(folder, end) | {"dots": "nothing that can be spoken", "../out": "not inside"}
    sound(folder / f"good{end}", 0.2)
    (folder / f"dots{end}").hardlink_to(folder / f"good{end}")
    made, names = [], list(reasons)
    for number in range(NUMBER):
        if number % EVERY == EVERY - 1 and names:
            name = names.pop()
            made.append((name, "..." if name == "dots" else f"Bad {number}."))
        else:
            os.link(folder / f"good{end}", folder / f"n{number:04d}{end}")
            made.append((f"n{number:04d}", sentence(number)))
    return made, reasons


def written(path: Path, made: list[Row], line: Lines, more: list[tuple[bytes, str]], head: bytes = b"") -> Bad:
    """Write a table with further bad lines in its last hundredth; their reasons by line."""
    lines = [head] * bool(head) + [line(row) for row in made]
    at = len(lines) - 5
    lines[at:at] = [text for text, _ in more]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return {f"{path.name}:{at + number + 1}": reason for number, (_, reason) in enumerate(more)}


LATIN = b"caf\xe9"
OBJECTS = [(b"{", "not JSON"), (b"[1]", "not a JSON object"), (b"\xff", "not UTF-8")]


def csv_folder(folder: Path) -> tuple[str, Bad]:
    made, reasons = rows(folder, ".wav")
    more = [(b"n0000.wav," + LATIN, "not UTF-8"), (b"n0000.wav", "columns"), (b'n0000.wav,"x\ny"', "several lines")]
    return "", reasons | written(
        folder / "metadata.csv", made, lambda row: f'{row[0]}.wav,"{row[1]}"'.encode(), more, b"file,text"
    )


def jsonl_folder(folder: Path) -> tuple[str, Bad]:
    made, reasons = rows(folder, ".wav")
    more = [*OBJECTS, (b'{"file": "n0000.wav"}', "lacks 'file' or 'text'"), (b'{"file": [1], "text": "x"}', "no text")]
    more.append((b'{"file": "n0000.wav", "text": "a\\u0000b"}', "zero byte"))

    def line(row: Row) -> bytes:
        return json.dumps({"file": f"{row[0]}.wav", "text": row[1]}).encode()

    return "", reasons | written(folder / "metadata.jsonl", made, line, more)


def ljspeech(folder: Path) -> tuple[str, Bad]:
    made, reasons = rows(folder / "wavs", ".wav")
    reasons = {name: why for name, why in reasons.items() if name != "../out"} | {"../../out": "not inside"}
    made = [(f"../{name}" if name == "../out" else name, text) for name, text in made]
    more = [(b"n0000|" + LATIN, "not UTF-8"), (b"n0000", "no name|text")]
    return "", reasons | written(folder / "metadata.csv", made, lambda row: "|".join(row).encode(), more)


def librispeech(folder: Path) -> tuple[str, Bad]:
    made, reasons = rows(folder / "1/2", ".flac")
    made = [(name.replace("../out", "../../../out"), text) for name, text in made]
    more = [(b"n0000 " + LATIN, "not UTF-8")]
    return "", reasons | written(folder / "1/2/1-2.trans.txt", made, lambda row: " ".join(row).encode(), more)


def common_voice(folder: Path) -> tuple[str, Bad]:
    made, reasons = rows(folder / "clips", ".mp3")
    made = [(name.replace("../out", "../../out"), text) for name, text in made]
    more = [(b"x\tn0000.mp3\t" + LATIN, "not UTF-8"), (b"x\tn0000.mp3", "columns")]

    def line(row: Row) -> bytes:
        return f"x\t{row[0]}.mp3\t{row[1]}".encode()

    return "", reasons | written(folder / "validated.tsv", made, line, more, b"client_id\tpath\tsentence")


def manifest(folder: Path, end: str) -> tuple[str, Bad]:
    made, reasons = rows(folder / "audio", ".wav")
    made = [(name.replace("../out", "../../out"), text) for name, text in made]
    path, head, more = folder / f"list.{end}", b"", list(OBJECTS)
    if end == "jsonl":
        more.append((b'{"audio": "audio/n0000.wav", "text": "x", "split": "never"}', "split 'never' is none of"))
        more.append((b'{"audio": {}, "text": "x"}', "is no text"))

        def line(row: Row) -> bytes:
            return json.dumps({"audio": f"audio/{row[0]}.wav", "text": row[1], "split": ""}).encode()

    else:
        mark = {"csv": ",", "tsv": "\t"}[end]
        cells = [(b"audio/n0000.wav", LATIN, b"train"), (b"audio/n0000.wav",), (b"audio/n0000.wav", b"x", b"never")]
        told = ("not UTF-8", "columns", "split 'never' is none of")
        more = [(mark.encode().join(row), reason) for row, reason in zip(cells, told, strict=True)]
        head = mark.join(("audio", "text", "split")).encode()

        def line(row: Row) -> bytes:
            return mark.join((f"audio/{row[0]}.wav", row[1], "")).encode()

    return path.name, reasons | written(path, made, line, more, head)


LAYOUTS: dict[str, tuple[str, Callable[[Path], tuple[str, Bad]]]] = {
    "folder of CSV": ("folder", csv_folder),
    "folder of JSON lines": ("folder", jsonl_folder),
    "ljspeech": ("ljspeech", ljspeech),
    "librispeech": ("librispeech", librispeech),
    "common_voice": ("common_voice", common_voice),
    "manifest.csv": ("manifest", lambda folder: manifest(folder, "csv")),
    "manifest.tsv": ("manifest", lambda folder: manifest(folder, "tsv")),
    "manifest.jsonl": ("manifest", lambda folder: manifest(folder, "jsonl")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_speech(layout: str, place: Path) -> None:
    source, write = LAYOUTS[layout]
    sound(place / "out.wav", 0.2)
    file, wrong = write(place / "own")
    path = place / "own" / file
    made = build_speech(config(source, path, max_bad_fraction=0.02), "unread", "unread", 0, place / "made")
    told = {entry["item"].removeprefix(f"{place}/own/"): entry["reason"] for entry in made["bad"]}
    lines = sum(":" in name for name in wrong)
    assert len(told) == len(made["bad"]) == len(wrong) and 0.008 <= len(wrong) / NUMBER <= 0.015
    for part, reason in wrong.items():
        # What is not inside has no address: its line is named.
        mine = [why for name, why in told.items() if (part in name if ".." not in part else reason in why)]
        assert len(mine) == 1 and reason in mine[0], (part, reason, told)
    assert len(read_utterances(place / "made")) == NUMBER + lines - len(wrong) == made["counts"]["utterances"]
    assert made["origins"][0]["items"] + made["origins"][0]["bad"] == NUMBER + lines and "repeats" not in made
    code, problems, section = check("--source", "recordings" if source == "folder" else source, "--path", path)
    found = [
        (entry["item"].removeprefix(f"{place}/own/"), entry["reason"]) for entry in problems["cannot be used"]["worst"]
    ]
    assert sorted(found) == sorted(told.items()) and section["items"] == NUMBER + lines and code == 1


def bad_texts() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, and reason."""
    yield "empty.txt", b"", "empty"
    yield "blank.txt", b" \r\n\t", "empty"
    yield "latin.txt", LATIN, "not UTF-8"
    yield "utf16.txt", "Some text.".encode("utf-16"), "not UTF-8"
    yield "binary.txt", b"a\0b", "binary"
    yield "large.txt", b"w " * 9000, "larger than text.max_document_mb"


def test_files_of_prose(tmp_path: Path) -> None:
    folder, reasons = tmp_path / "in", dict[str, str]()
    for number in range(NUMBER - 10):
        path = folder / f"{number // 100}/größe {number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(prose(number), encoding="utf-8-sig" if number % 2 else "utf-8", newline="\r\n")
    for number, (name, data, reason) in enumerate(bad_texts()):
        (folder / f"{number}/{name}").write_bytes(data)
        reasons[f"{number}/{name}"] = reason
    (tmp_path / "secret.txt").write_text("secret")
    for name, target, reason in (
        ("out.txt", "../../secret.txt", "a link that leads out"),
        ("dead.txt", "nothing.txt", "no such file"),
        ("loop.txt", "loop.txt", "no such file"),
    ):
        (folder / "9" / name).symlink_to(target)
        reasons[f"9/{name}"] = reason
    os.mkfifo(folder / "9/pipe.txt")
    reasons["9/pipe.txt"] = "no such file"
    made, splits = build_text(text_config(source="files", path=str(folder), max_bad_fraction=0.011), tmp_path / "out")
    told = {entry["item"]: entry["reason"] for entry in made["bad"]}
    assert told.keys() == reasons.keys() and all(told[name].startswith(reasons[name]) for name in told), told
    assert made["counts"]["documents_read"] == NUMBER and len(reasons) == 10
    assert sum(map(len, splits.values())) == NUMBER - 10
    assert not any("\ufeff" in row["text"] or "\r" in row["text"] for rows in splits.values() for row in rows)
