"""The speech corpus: recorded sentences of one clear voice and several further speakers, or your own."""

import csv
import hashlib
import io
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from pydantic import Field, model_validator
from tqdm import tqdm

from muomni.config import Section
from muomni.data.badsamples import BadSamples
from muomni.data.concepts import Concept
from muomni.data.files import licence, naming, write_jsonl, write_manifest
from muomni.data.grammar import words_of
from muomni.data.known import read_concepts
from muomni.data.processes import in_processes
from muomni.data.prose import prose_sentences
from muomni.data.splits import TEST_SHARE, VALID_SHARE, combination_split, split_of
from muomni.data.spoken import Spoken, spoken_sentences
from muomni.data.voices import Hibari, Samples, clean, espeak, speakable
from muomni.errors import UserError
from muomni.sound import load_audio

SPLITS = ("train", "valid", "test")
CLEAR_VOICE = "hibari"
CHUNK = 64  # recordings a worker makes at a time
PACES = (140, 185)  # words a minute of eSpeak NG, from and to


class SpeechConfig(Section):
    """Section ``speech``."""

    source: Literal["embedded", "folder"] = Field(description="packages' voices, or your own recordings")
    path: str = Field(description="your own: a folder with metadata.csv or metadata.jsonl (file, text, speaker)")
    sentences: int = Field(ge=1, le=1_000_000, description="sentences of the clear voice about pictured concepts")
    prose: int = Field(ge=0, le=1_000_000, description="sentences of the text corpus' prose that it says as well")
    speed_min: float = Field(ge=0.5, le=2, description="slowest pace of the clear voice, 1 is its own")
    speed_max: float = Field(ge=0.5, le=2, description="fastest pace of the clear voice")
    espeak_fraction: float = Field(ge=0, le=1, description="share of sentences that a further speaker says too")
    espeak_voices: list[str] = Field(description="the further speakers, voices of eSpeak NG such as en-us+f2")
    sample_rate: int = Field(ge=8000, le=48000, description="samples a second of every recording, Hz")
    max_seconds: float = Field(gt=0, le=60, description="longer recordings are set aside")
    max_bad_fraction: float = Field(ge=0, le=1, description="the stage stops if more is set aside")
    workers: int = Field(ge=1, le=64, description="processes; their number does not change the result")

    @model_validator(mode="after")
    def _consistent(self) -> "SpeechConfig":
        if self.speed_min > self.speed_max:
            raise ValueError(f"speed_min {self.speed_min} is above speed_max {self.speed_max}")
        if self.espeak_fraction > 0 and not self.espeak_voices:
            raise ValueError("espeak_fraction is above 0, but espeak_voices is empty")
        if self.source == "folder" and not self.path:
            raise ValueError("source is 'folder', but path is empty")
        return self


@dataclass(frozen=True)
class Utterance:
    """One recording to make or to read.

    Attributes:
        id: names its file.
        split: train, valid or test.
        text: what is said.
        speaker: ``hibari``, ``espeak:<voice>``, or as your metadata says.
        kind: the family of sentences it comes from; ``own`` for your recordings.
        key: what it is about; all utterances of one key are in one split.
        pace: a factor for hibari, words a minute for eSpeak NG.
        source: of your own recordings, the file.
    """

    id: str
    split: str
    text: str
    speaker: str
    kind: str
    key: str
    pace: float
    source: str

    @property
    def file(self) -> str:
        """Where its recording is, relative to the corpus."""
        return f"audio/{self.split}/{self.id}.flac"


def embedded_utterances(
    cfg: SpeechConfig, concepts: Sequence[Concept], seed: int, prose: Sequence[Spoken] = ()
) -> list[Utterance]:
    """What the clear voice says, and the share that a further speaker says as well, all in a fixed order."""
    rng = random.Random(f"speech:{seed}")
    sentences = spoken_sentences(concepts, rng, cfg.sentences, lambda key: combination_split(key, seed))
    made = []
    for number, item in enumerate([*sentences, *prose]):
        speed = round(rng.uniform(cfg.speed_min, cfg.speed_max), 3)
        about = (item.split, item.text)
        made.append(Utterance(f"{number:06d}-a", *about, CLEAR_VOICE, item.kind, item.key, speed, ""))
        if rng.random() < cfg.espeak_fraction:
            speaker = f"espeak:{rng.choice(cfg.espeak_voices)}"
            pace = float(rng.randint(*PACES))
            made.append(Utterance(f"{number:06d}-b", *about, speaker, item.kind, item.key, pace, ""))
    return made


def folder_utterances(folder: Path, seed: int, bad: BadSamples) -> list[Utterance]:
    """Rows of your own ``metadata.csv`` or ``metadata.jsonl``: ``file``, ``text``, and perhaps ``speaker``.

    The split depends on the words without articles, so that one sentence by two speakers stays together.

    Raises:
        UserError: if there are no metadata or they lack a column.
    """
    made = []
    for number, row in enumerate(_metadata(folder)):
        if not all(isinstance(row.get(column), str | int | float | None) for column in ("file", "text", "speaker")):
            bad.add(f"row {number + 1}", "file, text or speaker is no text")
            continue
        name, text = (" ".join(str(row[column] or "").split()) for column in ("file", "text"))
        speaker = str(row["speaker"] or "") if "speaker" in row else ""
        try:
            (text + speaker).encode()
            path = (folder / name).resolve()
        except (ValueError, OSError) as error:  # half a character, or what no file can be called
            bad.add(f"row {number + 1}", str(error))
            continue
        if not name or folder.resolve() not in path.parents:
            bad.add(f"row {number + 1}", f"file '{name}' is not inside the folder")
            continue
        key = "own:" + " ".join(word for word in words_of(text) if word not in ("a", "an", "the"))
        split = split_of(key, seed, VALID_SHARE, TEST_SHARE)
        made.append(Utterance(f"{number:06d}", split, text, speaker or "own", "own", key, 1.0, str(path)))
    return made


def _metadata(folder: Path) -> Iterator[dict[str, Any]]:
    table, lines = folder / "metadata.csv", folder / "metadata.jsonl"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; set speech.path in params.yaml to your recordings")
    path = table if table.is_file() else lines
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = (
            list(csv.DictReader(io.StringIO(text)))
            if path is table
            else [json.loads(line) for line in text.split("\n") if line.strip()]  # other ends may stand in a text
        )
    except FileNotFoundError:
        raise UserError(f"{folder}: has neither metadata.csv nor metadata.jsonl (file, text, speaker)") from None
    except (ValueError, OSError, csv.Error, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())}); write it as UTF-8") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or "file" not in row or "text" not in row:
            raise UserError(f"{path}: row {number} lacks 'file' or 'text'; name both columns")
        yield row


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


@cache
def _clear_voice() -> Hibari:
    """One a process, as it takes a moment to load."""
    return Hibari()


def _hear(items: Sequence[Utterance], sample_rate: int) -> Iterator[tuple[Samples, int] | str]:
    """The raw recordings of utterances of one speaker; a fault is a text instead."""
    speaker = items[0].speaker
    if items[0].source:
        for item in items:
            try:
                yield load_audio(item.source, sample_rate), sample_rate
            except UserError as error:
                yield str(error)
    elif speaker == CLEAR_VOICE:
        voice = _clear_voice()
        for item in items:
            yield voice.say(item.text, item.pace, _seed_of(item.text)), voice.rate
    else:
        yield from espeak(speaker.removeprefix("espeak:"), [(item.text, int(item.pace)) for item in items])


def record(items: Sequence[Utterance], folder: Path, cfg: SpeechConfig) -> list[float | str]:
    """Make the recordings of utterances of one speaker as FLAC of 16 bits.

    Returns:
        For each its seconds, or why there is none.
    """
    results: list[float | str] = []
    for item, heard in zip(items, _hear(items, cfg.sample_rate), strict=True):
        try:
            if isinstance(heard, str):
                raise ValueError(heard)
            wave = clean(*heard, cfg.sample_rate)
            seconds = len(wave) / cfg.sample_rate
            if len(wave) == 0:
                raise ValueError("there is nothing but silence")
            if seconds > cfg.max_seconds:
                raise ValueError(f"{seconds:.1f} s is over max_seconds")
        except ValueError as error:
            results.append(str(error))
            continue
        path = folder / item.file
        path.parent.mkdir(parents=True, exist_ok=True)
        pcm = np.round(wave * 32767).astype(np.int16)
        encoded = io.BytesIO()  # libsndfile does not always say when a disk is full
        soundfile.write(encoded, pcm, cfg.sample_rate, format="FLAC", subtype="PCM_16")
        with naming(path):
            path.write_bytes(encoded.getvalue())
        results.append(seconds)
    return results


def _tasks(utterances: Iterable[Utterance]) -> list[list[Utterance]]:
    """Work for one process at a time. What is in a task never depends on the number of processes."""
    speakers: dict[str, list[Utterance]] = defaultdict(list)
    for item in utterances:
        speakers["" if item.source else item.speaker].append(item)
    tasks = []
    for speaker, items in speakers.items():
        # A voice of eSpeak NG remembers what it said: all of it is one task.
        size = len(items) if speaker.startswith("espeak:") else CHUNK
        tasks += [items[start : start + size] for start in range(0, len(items), size)]
    return tasks


def record_all(utterances: Sequence[Utterance], folder: Path, cfg: SpeechConfig) -> dict[str, float | str]:
    """`record` everything in ``cfg.workers`` processes: seconds, or the fault, by utterance id."""
    results: dict[str, float | str] = {}
    tasks = _tasks(utterances)
    with tqdm(total=len(utterances), desc="speech", unit="recording") as bar:
        for task, made in zip(tasks, in_processes(record, tasks, cfg.workers, folder, cfg), strict=True):
            results.update(zip((item.id for item in task), made, strict=True))
            bar.update(len(task))
    return results


def build_speech(cfg: SpeechConfig, concepts: str | Path, text: str | Path, seed: int, folder: Path) -> dict[str, Any]:
    """Write the corpus: ``audio/<split>/<id>.flac``, ``utterances.jsonl`` and ``manifest.json``.

    Args:
        cfg: the section.
        concepts: ``concepts.jsonl`` of the picture corpus: what embedded sentences speak of. Your own
            recordings do not need it.
        text: the text corpus, read only if its prose is spoken.
        seed: the project's seed.
        folder: where to write; empty.

    Returns:
        The manifest.

    Raises:
        UserError: if a package or the metadata are missing, or too much is bad.
    """
    bad = BadSamples(cfg.max_bad_fraction, "speech")
    own = cfg.source == "folder"
    if own:
        wanted = folder_utterances(Path(cfg.path), seed, bad)
    else:
        prose = prose_sentences(Path(text), cfg.prose, seed)
        wanted = embedded_utterances(cfg, read_concepts(concepts), seed, prose)
    total = len(wanted) + len(bad)
    silent = {item.id for item in wanted if not speakable(item.text)}
    results = record_all([item for item in wanted if item.id not in silent], folder, cfg)
    rows, seconds = [], {}
    for item in wanted:
        made = "the text has nothing that can be spoken" if item.id in silent else results[item.id]
        if isinstance(made, str):
            bad.add(item.source or f"{item.id} ({item.text})", made)
            continue
        seconds[item.id] = made
        row = {key: value for key, value in asdict(item).items() if key not in ("pace", "source")}
        rows.append({**row, "file": item.file, "seconds": round(made, 3)})
    bad.check(total)
    write_jsonl(folder / "utterances.jsonl", rows)
    speakers = Counter(row["speaker"] for row in rows)
    licences = [] if own else [licence("hibari-tts", "Apache-2.0", "the clear voice")]
    if any(speaker.startswith("espeak:") for speaker in speakers):
        licences.append(licence("espeakng-loader", "GPL-3.0", "further speakers, a tool run to make data"))

    def summary(*splits: str) -> dict[str, Any]:
        some = [row["id"] for row in rows if row["split"] in splits]
        return {"utterances": len(some), "minutes": round(sum(seconds[item] for item in some) / 60, 2)}

    return write_manifest(
        folder,
        source=cfg.source,
        licences=licences,
        counts={**summary(*SPLITS), "speakers": dict(sorted(speakers.items()))},
        splits={split: summary(split) for split in SPLITS},
        bad=bad.items,
    )
