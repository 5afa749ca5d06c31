"""Data as other systems and careless hands leave them: marks at the beginning, line ends, quotes, names, links."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from own_corpora import sound
from picture_folders import drawn, put
from test_own_conversations import FITTING
from test_picture_sources import build as build_pictures
from test_picture_sources import captioned
from test_speech_sources import config

from muomni.data.badsamples import BadSamples
from muomni.data.own_conversations import read_conversations
from muomni.data.speech_corpus import build_speech
from muomni.data.text_sources import file_documents
from muomni.data.utterances import read_utterances
from muomni.errors import UserError

BOM = b"\xef\xbb\xbf"


def speech(
    folder: Path, table: bytes, name: str = "metadata.csv", source: str = "folder"
) -> tuple[list[str], list[Any]]:
    """Texts that are read, and what is set aside."""
    put(folder / name, table)
    out = folder.parent / f"out-{len(list(folder.parent.iterdir()))}"
    made = build_speech(config(source, folder, max_bad_fraction=1.0), "unread", "unread", 0, out)
    return [row["text"] for row in read_utterances(out)], [(e["item"].split("/")[-1], e["reason"]) for e in made["bad"]]


def test_tables_with_a_mark_carriage_returns_quotes_and_empty_lines(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for name in ("a.wav", "b.wav", "wavs/a.wav", "clips/a.mp3", "1/2/a.flac"):
        sound(own / name)
    table = BOM + b' file ,text\r\na.wav,"Hello, ""you"""\r\n\r\nb.wav,5" nails\r\n'
    assert speech(own, table) == (['Hello, "you"', '5" nails'], [])
    table = BOM + b'{"file": "a.wav", "text": "x"}\r\n\r\n{"file": "b.wav", "text": "y"}\r\n'
    (own / "metadata.csv").unlink()
    assert speech(own, table, "metadata.jsonl") == (["x", "y"], [])
    assert speech(own, BOM + b'a|"b|it is "so"\r\n', source="ljspeech") == (['it is "so"'], [])
    table = BOM + b'client_id\tpath\tsentence\r\nx\ta.mp3\t"He said ""hi"""\r\n'
    assert speech(own, table, "validated.tsv", "common_voice") == (['He said "hi"'], [])
    assert speech(own, BOM + b"a HELLO\r\n\r\n", "1/2/1-2.trans.txt", "librispeech") == (["Hello"], [])
    table = BOM + b'audio\ttext\r\na.wav\tit\'s "so"\r\n'
    assert speech(own, table, "manifest.tsv", "manifest") == (['it\'s "so"'], [])


def test_a_quotation_mark_that_nobody_closed_hides_no_row(tmp_path: Path) -> None:
    sound(tmp_path / "own/a.wav")
    texts, bad = speech(tmp_path / "own", b'file,text\na.wav,good\na.wav,"open\na.wav,x\na.wav,y\n')
    assert texts == ["good"] and bad == [
        ("metadata.csv:3-5", "a row of several lines; write each in one, quotation marks doubled")
    ]
    texts, bad = speech(tmp_path / "own", b"file,text\na.wav," + b"x" * 200_000 + b"\na.wav,good\n")
    assert texts == ["good"] and bad[0][0] == "metadata.csv:2" and "field larger" in bad[0][1]


@pytest.mark.parametrize("table", [b"file;text\na.wav;x\n", b"File,Text\na.wav,x\n", b"a.wav,x\nb.wav,y\n"])
def test_columns_that_are_not_found_are_one_line(tmp_path: Path, table: bytes) -> None:
    with pytest.raises(UserError, match="lacks 'file' or 'text' in its first line; name both columns, with commas"):
        speech(tmp_path / "own", table)
    put(tmp_path / "own/captions.csv", table)
    with pytest.raises(UserError, match="needs the columns file and caption .* with commas between"):
        build_pictures(tmp_path / "out", source="csv", path=str(tmp_path / "own"))


def test_texts_have_no_control_characters_and_binary_ones_are_set_aside(tmp_path: Path) -> None:
    sound(tmp_path / "own/a.wav")
    rows = ["a.wav,\x1b[31mred\x07 \u202eword\u200b", "a.wav,cafe\u0301", "a.wav,a\0b"]
    texts, bad = speech(tmp_path / "own", "\n".join(["file,text", *rows]).encode())
    assert texts == ["[31mred word", "caf\u00e9"] and bad == [
        ("metadata.csv:4", "the text is binary: it holds a zero byte")
    ]


def test_names_in_any_letters_spelled_either_way_and_in_folders(tmp_path: Path) -> None:
    own, deep = tmp_path / "own", "/".join(["tief"] * 50)
    for name in ("gr\u00f6\u00dfe.wav", "\u65e5\u672c \U0001f600.wav", f"{deep}/a.wav"):
        sound(own / name)
    sound(own / "Be\u0301la.wav")  # letters and accents apart, as some systems write them
    lines = ["file,text", "gr\u00f6\u00dfe.wav,one", "\u65e5\u672c \U0001f600.wav,two", f"{deep}/a.wav,three"]
    lines += ["B\u00e9la.wav,four", f"./tief/../{deep}/a.wav,five"]
    texts, bad = speech(own, "\n".join(lines).encode())
    assert texts == ["one", "two", "three", "four", "five"] and not bad
    put(own / "\u00e9te\u0301.png", drawn(1))
    put(own / "captions.csv", "file,caption\n\u00e9t\u00e9.png,A dog.\n".encode())
    build_pictures(tmp_path / "pictures", source="csv", path=str(own))
    assert len(captioned(tmp_path / "pictures")) == 1


def test_links_pipes_and_huge_files(tmp_path: Path) -> None:
    own = tmp_path / "own"
    sound(own / "a.wav")
    sound(tmp_path / "out.wav")
    for name, target in (("in.wav", "a.wav"), ("out.wav", "../out.wav"), ("loop.wav", "loop.wav"), ("dead.wav", "x")):
        (own / name).symlink_to(target)
    (own / "self").symlink_to(".")
    os.mkfifo(own / "pipe.wav")
    (own / "folder.wav").mkdir()
    with (own / "huge.wav").open("wb") as file:
        file.truncate(5_000_000_000)
    names = ("in", "out", "loop", "dead", "self/a", "pipe", "folder", "huge")
    texts, bad = speech(own, "\n".join(["file,text", *(f"{name}.wav,{name}" for name in names)]).encode())
    assert texts == ["in", "self/a"]
    reasons = ["is not inside", "loop", "no such file", "not a regular file", "is a folder", "larger than"]
    assert len(bad) == 6 and all(any(r in reason for _, reason in bad) for r in reasons), bad
    put(own / "talks.jsonl", b"")
    with (own / "talks.jsonl").open("wb") as file:
        line = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]}
        file.write(BOM + json.dumps(line).encode() + b"\r\n\r\n")
        file.truncate(5_000_000_000)
    aside = BadSamples(1.0, "x")
    found, _ = read_conversations("jsonl", str(own), FITTING, 0, aside, 1)
    assert len(found) == 1 and [entry["item"] for entry in aside.items] == ["talks.jsonl:3"]
    (own / "talks.jsonl").rename(own / "texts.jsonl")
    aside = BadSamples(1.0, "x")
    assert list(file_documents(own, 1e6, aside, "jsonl")) == [] and len(aside) == 2


def test_coco_takes_the_picture_that_is_named_and_asks_where_two_may_be(tmp_path: Path) -> None:
    own = tmp_path / "own"
    for number, name in enumerate(("images/one/a.png", "images/two/a.png", "images/x2017/b.png", "images/y2017/b.png")):
        put(own / name, drawn(number))
    files = [(1, "two/a.png"), (2, "b.png"), (3, "a.png"), (1, "b.png"), (True, "a.png")]
    table = {
        "images": [{"id": number, "file_name": file} for number, file in files],
        "annotations": [{"image_id": number, "caption": f"Number {number}."} for number in (1, 2, 3)],
    }
    put(own / "annotations/captions_x2017.json", BOM + json.dumps(table).encode())
    made = build_pictures(tmp_path / "out", source="coco", path=str(own), max_bad_fraction=1.0)
    rows = captioned(tmp_path / "out")
    assert [row["captions"] for row in rows] == [["Number 1."], ["Number 2."]]
    assert [entry["reason"] for entry in made["bad"]] == [
        "which one is it, images/one/a.png or images/two/a.png?",
        "another picture has the id 1",
        "no id and file_name",
    ]
    alone = tmp_path / "alone"
    put(alone / "a.png", drawn(1))
    put(alone / "b.png", drawn(2))
    put(alone / "captions.csv", b"file,caption\na.png,x\nb.png,y\n")
    build_pictures(tmp_path / "right", source="csv", path=str(alone))
    for row, right in zip(rows, captioned(tmp_path / "right"), strict=True):
        assert (tmp_path / "out" / row["file"]).read_bytes() == (tmp_path / "right" / right["file"]).read_bytes()


def test_compressed_tars_are_told(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (
            ("a.png", drawn(1)),
            ("a.txt", BOM + b"A dog.\r\n"),
            ("b.PNG", drawn(2)),
            ("b.TXT", b"A cat."),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    put(tmp_path / "own/x.tar", buffer.getvalue())
    put(tmp_path / "own/y.tar.gz", b"x")
    made = build_pictures(tmp_path / "out", source="webdataset", path=str(tmp_path / "own"), max_bad_fraction=1.0)
    assert [row["captions"] for row in captioned(tmp_path / "out")] == [["A dog."], ["A cat."]]
    assert made["bad"] == [{"item": "y.tar.gz", "reason": "a compressed tar; unpack it to .tar"}]
