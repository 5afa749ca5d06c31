"""Your own recordings, in the layouts that corpora of speech come in: a small reader each, behind one interface.

torchaudio.datasets is not used. Its classes take one corpus under its exact name on a local disk, read WAV or FLAC
alone (by TorchCodec, a further dependency), and end at the first row that has a fault, where here it is set aside.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from muomni.data.badsamples import BadSamples
from muomni.data.speech_files import SpeechFolder
from muomni.data.speech_tables import lines_of, rows_of
from muomni.errors import UserError

MANIFESTS = ("manifest.csv", "manifest.tsv", "manifest.jsonl")
OWN = "own"  # who speaks where nothing says it
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".aac", ".webm", ".aif", ".aiff", ".wma", ".amr")
SUBSETS = {"train": "train", "dev": "valid", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}
# What manifests of others call the columns; the first that is there counts.
NAMES = {
    "audio": ("audio", "file", "path", "audio_path", "audio_filepath", "wav", "filename"),
    "text": ("text", "sentence", "transcript", "transcription"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "split": ("split", "subset"),
}


@dataclass(frozen=True)
class Clip:
    """A recording that a corpus lists.

    Attributes:
        number: its place among all rows, the bad ones among them.
        audio: its file's address.
        text: what is said.
        speaker: empty if the corpus does not say.
        split: train, valid or test as the corpus has it; empty if it has none.
    """

    number: int
    audio: str
    text: str
    speaker: str
    split: str = ""


Reader = Callable[[SpeechFolder, Mapping[str, str], BadSamples], Iterator[Clip]]


def squeezed(text: object) -> str:
    """A text with one space between words."""
    return " ".join(str(text).split())


def written(text: str) -> str:
    """A text in Unicode's composed form, without control characters and what else has no width."""
    return squeezed("".join(c for c in unicodedata.normalize("NFC", text) if c.isprintable() or c.isspace()))


def sentence_case(text: str) -> str:
    """A text in capitals as one writes it: small letters but for the first and the word I."""
    return re.sub(r"\bi\b", "I", text.lower().capitalize()) if text.isupper() else text


def read_folder(folder: SpeechFolder, _: Mapping[str, str], bad: BadSamples) -> Iterator[Clip]:
    """Rows of ``metadata.csv`` or ``metadata.jsonl``: ``file``, ``text``, and perhaps ``speaker``.

    Raises:
        UserError: if there is neither, or the first line of the CSV lacks a column.
    """
    table = "metadata.csv" if folder.has("metadata.csv") else "metadata.jsonl"
    if not folder.has(table):
        raise UserError(f"{folder}: has neither metadata.csv nor metadata.jsonl (file, text, speaker)")
    for number, item, row in rows_of(folder, table, bad):
        if "file" not in row or "text" not in row:
            if table.endswith(".csv"):
                what = "lacks 'file' or 'text' in its first line; name both columns, with commas between"
                raise UserError(f"{folder}/{table}: {what}")
            bad.add(item, "lacks 'file' or 'text'")
            continue
        if not all(isinstance(row.get(column), str | int | float | None) for column in ("file", "text", "speaker")):
            bad.add(item, "file, text or speaker is no text")
            continue
        name, text = (squeezed(row[column] or "") for column in ("file", "text"))
        speaker = squeezed(row["speaker"] or "") if "speaker" in row else ""
        yield from _clip(folder, item, Clip(number, name, text, speaker), bad)


def _clip(folder: SpeechFolder, item: str, clip: Clip, bad: BadSamples) -> Iterator[Clip]:
    """A clip whose `audio` is a name in a folder, with its address; one that cannot be is set aside."""
    try:
        (clip.text + clip.speaker).encode()
        address = folder.inside(clip.audio)
        if "\0" in clip.text:
            raise ValueError("the text is binary: it holds a zero byte")
    except (
        ValueError,
        OSError,
        RuntimeError,
    ) as error:  # half a character, what no file can be called, a loop of links
        bad.add(item, str(error))
        return
    if not clip.audio or address is None:
        bad.add(item, f"file '{clip.audio}' is not inside the folder")
        return
    yield Clip(clip.number, address, written(clip.text), written(clip.speaker), clip.split)


def read_ljspeech(folder: SpeechFolder, _: Mapping[str, str], bad: BadSamples) -> Iterator[Clip]:
    """LJSpeech: ``metadata.csv`` of ``name|text`` or ``name|text|text in words``, and ``wavs/name.wav``, one speaker.

    The last text counts, in which numbers and abbreviations are written as they are said.
    """
    sounds = {name.rsplit(".", 1)[0]: name for name in folder.names("wavs") if name.lower().endswith(SOUNDS)}
    for number, line in lines_of(folder, "metadata.csv", bad):
        item, cells = f"metadata.csv:{number}", [squeezed(cell) for cell in line.split("|")]
        if len(cells) < 2:
            bad.add(item, "no name|text, nor name|text|text in words")
            continue
        name = sounds.get(cells[0].removesuffix(".wav")) or f"{cells[0].removesuffix('.wav')}.wav"
        text = cells[2] if len(cells) > 2 and cells[2] else cells[1]
        yield from _clip(folder, item, Clip(number - 1, f"wavs/{name}", text, ""), bad)


def read_librispeech(folder: SpeechFolder, _: Mapping[str, str], bad: BadSamples) -> Iterator[Clip]:
    """LibriSpeech: ``SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt`` of ``name TEXT`` with ``name.flac`` beside it.

    Folders of subsets above the speakers (``train-clean-100``, ``dev-other``) give the splits.

    Raises:
        UserError: if there are no transcripts.
    """
    tables = [name for name in folder.below(".trans.txt") if name.count("/") >= 2]
    if not tables:
        raise UserError(f"{folder}: no SPEAKER/CHAPTER/*.trans.txt below it; check speech.path")
    number = 0
    for table in tables:
        *above, speaker, chapter, _name = table.split("/")
        split = next((SUBSETS[part] for part in re.split(r"[^a-z]+", "/".join(above).lower()) if part in SUBSETS), "")
        place = "/".join((*above, speaker, chapter))
        sounds = {name.rsplit(".", 1)[0]: name for name in folder.names(place) if name.lower().endswith(SOUNDS)}
        for line_number, line in lines_of(folder, table, bad):
            number += 1
            name, _space, text = line.partition(" ")
            clip = Clip(number - 1, f"{place}/{sounds.get(name, f'{name}.flac')}", "", speaker, split)
            clip = Clip(clip.number, clip.audio, sentence_case(squeezed(text)), speaker, split)
            yield from _clip(folder, f"{table}:{line_number}", clip, bad)


def read_common_voice(folder: SpeechFolder, _: Mapping[str, str], bad: BadSamples) -> Iterator[Clip]:
    """Common Voice: tables with the columns ``path`` and ``sentence``, and ``clips``.

    ``train.tsv``, ``dev.tsv`` and ``test.tsv`` give the splits; without ``train.tsv`` ``validated.tsv`` is read.

    Raises:
        UserError: if there is no table, or it lacks a column.
    """
    tables = {"train.tsv": "train", "dev.tsv": "valid", "test.tsv": "test"}
    if not folder.has("train.tsv"):
        tables = {"validated.tsv": ""}
    number = 0
    for table, split in tables.items():
        if not folder.has(table) and split not in ("", "train"):
            continue
        lines = lines_of(folder, table, bad)
        head = next(lines, (0, ""))[1].split("\t")
        if "path" not in head or "sentence" not in head:
            raise UserError(f"{folder}/{table}: lacks 'path' or 'sentence' in its first line; name both columns")
        for line_number, line in lines:
            number += 1
            item, cells = f"{table}:{line_number}", line.split("\t")
            if len(cells) != len(head):
                bad.add(item, f"has {len(cells)} columns, the first line {len(head)}")
                continue
            row = dict(zip(head, cells, strict=True))
            name = row["path"] if "." in row["path"] else f"{row['path']}.mp3"
            clip = Clip(number - 1, f"clips/{name}", _unquoted(row["sentence"]), row.get("client_id", "")[:16], split)
            yield from _clip(folder, item, clip, bad)


def _unquoted(text: str) -> str:
    """A cell that was put into quotes because it has some."""
    wrapped = len(text) > 1 and text[0] == text[-1] == '"' and '""' in text[1:-1]
    return squeezed(text[1:-1].replace('""', '"') if wrapped else text)


def read_manifest(folder: SpeechFolder, columns: Mapping[str, str], bad: BadSamples) -> Iterator[Clip]:
    """A table of one's own: CSV, TSV, or JSON lines of ``audio``, ``text``, and perhaps ``speaker`` and ``split``.

    Args:
        folder: where its file is; the files that it names are relative to that.
        columns: what it calls them; by default the first of `NAMES` that is there.
        bad: for rows with a fault.

    Raises:
        UserError: if there is no manifest, or the columns of audio and text are not found.
    """
    table = folder.file or next(
        (f"manifest{end}" for end in (".csv", ".tsv", ".jsonl") if folder.has(f"manifest{end}")), ""
    )
    if not table:
        raise UserError(f"{folder}: no manifest.csv, .tsv or .jsonl; name the file in speech.path")
    called = dict[str, str]()
    for number, item, row in rows_of(folder, table, bad):
        if not called:
            called = _called(row, columns, f"{folder}/{table}")
        cells = {what: row.get(name) for what, name in called.items()}
        if not all(isinstance(cell, str | int | float | None) for cell in cells.values()):
            bad.add(item, "audio, text, speaker or split is no text")
            continue
        audio, text, speaker, split = (
            squeezed("" if cells.get(what) is None else cells[what]) for what in ("audio", "text", "speaker", "split")
        )
        if split and split.lower() not in SUBSETS:
            bad.add(item, f"split '{split}' is none of {', '.join(SUBSETS)}")
            continue
        clip = Clip(number, audio, text, speaker, SUBSETS.get(split.lower(), ""))
        yield from _clip(folder, item, clip, bad)


def _called(row: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, str]:
    """The manifest's own names of audio, text, speaker and split."""
    for what, name in columns.items():
        if name not in row:
            raise UserError(f"{where}: has no '{name}', which speech.columns.{what} names; it has {', '.join(row)}")
    called = {what: next((name for name in names if name in row), "") for what, names in NAMES.items()}
    called |= columns
    for what in ("audio", "text"):
        if not called[what]:
            raise UserError(
                f"{where}: which column is the {what}? Set speech.columns.{what} to one of {', '.join(row)}"
            )
    return {what: name for what, name in called.items() if name}


READERS: dict[str, Reader] = {
    "folder": read_folder,
    "ljspeech": read_ljspeech,
    "librispeech": read_librispeech,
    "common_voice": read_common_voice,
    "manifest": read_manifest,
}
