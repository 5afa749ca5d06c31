"""The speech corpus: recorded sentences of one clear voice and several further speakers, or your own."""

import hashlib
import io
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import chain
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
from muomni.data.known import read_concepts
from muomni.data.mixtures import read_mixture, told
from muomni.data.own_speech import Column, SpeechPart, SpeechSource, read_sources
from muomni.data.processes import executor, map_lists, where
from muomni.data.prose import prose_sentences
from muomni.data.speech_files import read_sound
from muomni.data.splits import combination_split
from muomni.data.spoken import Spoken, spoken_sentences
from muomni.data.utterances import Utterance
from muomni.data.voices import Hibari, Samples, clean, espeak, speakable
from muomni.errors import UserError
from muomni.sound import load_audio

SPLITS = ("train", "valid", "test")
CLEAR_VOICE = "hibari"
CHUNK = 64  # recordings a worker makes at a time
PACES = (140, 185)  # words a minute of eSpeak NG, from and to

Made = tuple[bytes, float] | str  # FLAC and seconds, or why there is none


class SpeechConfig(Section):
    """Section ``speech``."""

    source: Literal["embedded", "folder", "ljspeech", "librispeech", "common_voice", "manifest", "mixture"] = Field(
        description="packages' voices; your own recordings in one of these layouts; or several sources"
    )
    path: str = Field(
        description="your own: the folder or address they are in; of a manifest also its file; of a mixture its file"
    )
    columns: dict[Column, str] = Field(
        default_factory=dict, description="for source manifest: what it calls them, where that is not found by itself"
    )
    speaker: str = Field(default="", description="your own: who speaks where the source does not say; empty for own")
    sentences: int = Field(ge=1, le=1_000_000, description="sentences of the clear voice about pictured concepts")
    prose: int = Field(ge=0, le=1_000_000, description="sentences of the text corpus' prose that it says as well")
    speed_min: float = Field(ge=0.5, le=2, description="slowest pace of the clear voice, 1 is its own")
    speed_max: float = Field(ge=0.5, le=2, description="fastest pace of the clear voice")
    espeak_fraction: float = Field(ge=0, le=1, description="share of sentences that a further speaker says too")
    espeak_voices: list[str] = Field(description="the further speakers, voices of eSpeak NG such as en-us+f2")
    unseen_voices: list[str] = Field(
        default_factory=list, description="voices of eSpeak NG that say held-out sentences only, that share of them"
    )
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
        twice = sorted(set(self.espeak_voices) & set(self.unseen_voices))
        if twice:
            raise ValueError(f"unseen_voices has '{twice[0]}', which is one of espeak_voices")
        if self.source != "embedded" and not self.path:
            raise ValueError(f"source is '{self.source}', but path is empty")
        if self.source == "mixture" and (self.columns or self.speaker):
            raise ValueError("with source mixture columns and speaker belong to the sources in its file")
        return self

    def parts(self) -> list[SpeechPart]:
        """The sources: one without a name, or those of the mixture. Raises UserError as `read_mixture` does."""
        if self.source == "mixture":
            return read_mixture(self.path, SpeechPart, "speech.path")
        return [SpeechPart(source=self.source, path=self.path, columns=self.columns, speaker=self.speaker)]


def embedded_utterances(
    cfg: SpeechConfig, concepts: Sequence[Concept], seed: int, prose: Sequence[Spoken] = ()
) -> list[Utterance]:
    """What the clear voice says, and the share that a further speaker says as well, all in a fixed order.

    Of the held-out sentences the same share is said by a voice that no training sentence has.
    """
    others = random.Random(f"unseen:{seed}")
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
        if cfg.unseen_voices and item.split != "train" and others.random() < cfg.espeak_fraction:
            speaker = f"espeak:{others.choice(cfg.unseen_voices)}"
            pace = float(others.randint(*PACES))
            made.append(Utterance(f"{number:06d}-c", *about, speaker, item.kind, item.key, pace, ""))
    return made


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


@cache
def _clear_voice() -> Hibari:
    """One a process, as it takes a moment to load."""
    return Hibari()


def hear(items: Sequence[Utterance], sample_rate: int) -> Iterator[tuple[Samples, int] | str]:
    """The raw recordings of utterances of one speaker; a fault is a text instead."""
    speaker = items[0].speaker
    if items[0].source:
        for item in items:
            try:
                yield load_audio(read_sound(item.source), sample_rate), sample_rate
            except UserError as error:
                yield str(error)
    elif speaker == CLEAR_VOICE:
        voice = _clear_voice()
        for item in items:
            yield voice.say(item.text, item.pace, _seed_of(item.text)), voice.rate
    else:
        yield from espeak(speaker.removeprefix("espeak:"), [(item.text, int(item.pace)) for item in items])


def usable(wave: Samples, rate: int, cfg: SpeechConfig) -> Samples:
    """A recording as the corpus keeps it, ``[samples]`` at ``cfg.sample_rate``; raises ValueError if it cannot be."""
    wave = clean(wave, rate, cfg.sample_rate)
    seconds = len(wave) / cfg.sample_rate
    if len(wave) == 0:
        raise ValueError("there is nothing but silence")
    if seconds > cfg.max_seconds:
        raise ValueError(f"{seconds:.1f} s is over max_seconds")
    return wave


def flac(wave: Samples, sample_rate: int) -> bytes:
    """A recording ``[samples]`` from -1 to 1 as FLAC of 16 bits."""
    pcm = np.round(wave * 32767).astype(np.int16)
    encoded = io.BytesIO()
    soundfile.write(encoded, pcm, sample_rate, format="FLAC", subtype="PCM_16")
    return encoded.getvalue()


def record(items: Sequence[Utterance], cfg: SpeechConfig) -> list[Made]:
    """Make the recordings of utterances of one speaker.

    Returns:
        For each its FLAC of 16 bits and its seconds, or why there is none.
    """
    results: list[Made] = []
    for heard in hear(items, cfg.sample_rate):
        try:
            if isinstance(heard, str):
                raise ValueError(heard)
            wave = usable(*heard, cfg)
        except ValueError as error:
            results.append(str(error))
            continue
        results.append((flac(wave, cfg.sample_rate), len(wave) / cfg.sample_rate))
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


def record_all(
    utterances: Sequence[Utterance], folder: Path, cfg: SpeechConfig, needs: Sequence[str] = ()
) -> dict[str, float | str]:
    """`record` everything in ``cfg.workers`` processes or on a cluster: seconds, or the fault, by utterance id.

    Args:
        utterances: what to record.
        folder: of the corpus.
        cfg: the section.
        needs: folders of one's own recordings, which every worker must see.
    """
    results: dict[str, float | str] = {}
    made = _tasks(item for item in utterances if not item.source)
    own = _tasks(replace(item, source=where(item.source)) for item in utterances if item.source)
    with executor(cfg.workers) as pool, tqdm(total=len(utterances), desc="speech", unit="recording") as bar:
        # Of the embedded voices, none may kill what runs it.
        recorded = chain(pool.map(record, made, cfg), map_lists(pool, record, own, cfg, needs=needs))
        for task, results_of_task in zip([*made, *own], recorded, strict=True):
            for item, result in zip(task, results_of_task, strict=True):
                results[item.id] = result if isinstance(result, str) else _write(folder / item.file, *result)
            bar.update(len(task))
    return results


def _write(path: Path, flac: bytes, seconds: float) -> float:
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        path.write_bytes(flac)
    return seconds


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

    def embedded() -> list[Utterance]:
        prose = prose_sentences(Path(text), cfg.prose, seed)
        return embedded_utterances(cfg, read_concepts(concepts), seed, prose)

    sources = read_sources(cfg.parts(), seed, bad, embedded, f"speech.path: {cfg.path}")
    wanted = [item for source in sources for item in source.items]
    total = len(wanted) + len(bad)
    silent = {item.id for item in wanted if not speakable(item.text)}
    needs = [source.part.path for source in sources if source.part.path]
    results = record_all([item for item in wanted if item.id not in silent], folder, cfg, needs)
    results |= dict.fromkeys(silent, "the text has nothing that can be spoken")
    rows, seconds = [], dict[str, float]()
    for source in sources:
        for row, exact in _rows(source, results, bad):
            seconds[row["id"]] = exact
            rows.append(row)
    bad.check(total)
    write_jsonl(folder / "utterances.jsonl", rows)
    speakers = Counter(row["speaker"] for row in rows)

    def summary(*splits: str) -> dict[str, Any]:
        some = [row["id"] for row in rows if row["split"] in splits]
        return {"utterances": len(some), "minutes": round(sum(seconds[item] for item in some) / 60, 2)}

    counts = {**summary(*SPLITS), "speakers": dict(sorted(speakers.items()))}
    if cfg.source == "mixture":
        counts["left_out_by_weight"] = sum(source.left_out for source in sources)
    repeats = [entry for source in sources for entry in source.repeats]
    more = told(cfg.source, cfg.path, [source.origin for source in sources]) if cfg.source != "embedded" else {}
    return write_manifest(
        folder,
        source=cfg.source,
        licences=_licences(sources, speakers),
        counts=counts,
        splits={split: summary(split) for split in SPLITS},
        bad=bad.items,
        **({"repeats": repeats} if repeats else {}),
        **more,
    )


def _rows(
    source: SpeechSource, results: Mapping[str, float | str], bad: BadSamples
) -> Iterator[tuple[dict[str, Any], float]]:
    """A source's rows of ``utterances.jsonl`` with their seconds, those of training as often as it weighs."""
    before, bad.within = len(bad), source.within
    for item in source.items:
        made = results[item.id]
        if isinstance(made, str):
            bad.add(item.source or f"{item.id} ({item.text})", made)
            continue
        source.origin.items += 1
        row = {key: value for key, value in asdict(item).items() if key not in ("pace", "source")}
        row |= {"file": item.file, "seconds": round(made, 3)}
        yield row, made
        for number in range(2, source.times.get(item.id, 1) + 1):
            yield {**row, "id": f"{item.id}-r{number}"}, made
    source.origin.bad += len(bad) - before


def _licences(sources: Sequence[SpeechSource], speakers: Mapping[str, int]) -> list[dict[str, str]]:
    """The manifest's entries of what the recordings are made of."""
    found = []
    for source in sources:
        if source.part.source == "embedded":
            found.append(licence("hibari-tts", "Apache-2.0", "the clear voice"))
            source.origin.licence = found[-1]["licence"]
        else:
            found.append(source.origin.licence_row("recordings"))
    if any(speaker.startswith("espeak:") for speaker in speakers):
        found.append(licence("espeakng-loader", "GPL-3.0", "further speakers, a tool run to make data"))
    return found
