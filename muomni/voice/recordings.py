"""A person's recordings: checked, read, and split into what is learned from and what is kept to judge by."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muomni.check.findings import PROBLEMS, Section
from muomni.check.layouts import Found
from muomni.check.speech import check_speech
from muomni.data.badsamples import BadSamples
from muomni.data.own_speech import key_of, own_utterances
from muomni.data.speech_corpus import SpeechConfig
from muomni.data.speech_files import read_sound
from muomni.data.speech_sources import OWN
from muomni.data.utterances import Utterance
from muomni.errors import UserError, one_line
from muomni.mel import MelConfig, log_mel
from muomni.recording import as_learned
from muomni.sound import load_audio
from muomni.tokenizer import Tokenizer
from muomni.train.speaking import spelled
from muomni.voice.settings import LEAST, LEAST_HELD, LEAST_SECONDS, MOST_HELD, MOST_SECONDS

# What the check says of training from nothing, or of splits that are not used here.
ELSEWHERE = {"too few", "split is empty", "same item in two splits", "near copy of a held-out item"}
SHARES = {"test": 0.1, "valid": 0.1}


@dataclass(frozen=True)
class Spoken:
    """A recording that can be used.

    Attributes:
        name: its file.
        text: what is said.
        wave: float32 ``[samples]`` as the model learned recordings (`muomni.recording.as_learned`).
        mel: log-mel ``[T, M]`` at 100 Hz.
        split: train, valid or test.
    """

    name: str
    text: str
    wave: Tensor
    mel: Tensor
    split: str


def speech_section(found: Found, columns: Mapping[str, str], rate: int) -> SpeechConfig:
    """Section ``speech`` for a person's folder; what makes embedded speech does not count."""
    return SpeechConfig(
        source=found.source,  # type: ignore[arg-type]  # one of the readers
        path=found.address,
        columns=dict(columns),  # type: ignore[arg-type]
        sentences=1,
        prose=0,
        speed_min=1.0,
        speed_max=1.0,
        espeak_fraction=0.0,
        espeak_voices=[],
        sample_rate=rate,
        max_seconds=MOST_SECONDS,
        max_bad_fraction=1.0,
        workers=1,
    )


def check(cfg: SpeechConfig, slots: int, limit: float, workers: int) -> tuple[Section, list[str]]:
    """What `muomni data check` finds, and the problems among it that would spoil a voice.

    Args:
        cfg: of `speech_section`.
        slots: of the model's CTC head for each state, for texts that are too long for their sound.
        limit: share of the recordings with a problem that is still taken; they are left out.
        workers: processes.
    """
    section = check_speech(cfg, 0, slots, "LATIN", None, workers)
    for name in ELSEWHERE & set(section.problems):
        del section.problems[name]
    section.tables.pop("splits", None)  # those of a training from nothing
    return section, [name for name in section.problems if section.fails(name, limit)]


def spoiled(section: Section) -> set[str]:
    """Names of the recordings with a problem that does harm."""
    return {one.item for name, found in section.problems.items() if PROBLEMS[name][0] != "note" for one in found}


def one_speaker(items: Sequence[Utterance], speaker: str) -> list[Utterance]:
    """The recordings of a speaker, or of the only one.

    Raises:
        UserError: if there is no such speaker, or there are several and none is named.
    """
    speakers = Counter(item.speaker for item in items)
    if speaker:
        if speaker not in speakers:
            raise UserError(f"--speaker {one_line(speaker)[:40]}: there are {', '.join(sorted(speakers)[:8])}")
        return [item for item in items if item.speaker == speaker]
    if len(speakers) > 1:
        raise UserError(f"{len(speakers)} speakers are here; choose one with --speaker, such as {max(speakers)}")
    return list(items)


def dealt(texts: Sequence[str]) -> list[str]:
    """A split for each recording by a hash of its sentence: the same sentence is in one split, however often said."""
    keys = [key_of(text) for text in texts]
    order = sorted(set(keys), key=lambda key: hashlib.blake2b(key.encode()).digest())
    found, at = dict[str, str](), 0
    for split, share in SHARES.items():
        size = max(LEAST_HELD, min(MOST_HELD, round(share * len(order))))
        found |= dict.fromkeys(order[at : at + size], split)
        at += size
    return [found.get(key, "train") for key in keys]


def read_recordings(
    cfg: SpeechConfig, mel: MelConfig, tokenizer: Tokenizer, speaker: str, without: set[str]
) -> list[Spoken]:
    """Read what can be used.

    Args:
        cfg: of `speech_section`.
        mel: the model's.
        tokenizer: the model's.
        speaker: whose; empty if there is one only.
        without: names of files to leave out.

    Raises:
        UserError: if that is too little, or of several speakers.
    """
    columns = {str(what): name for what, name in cfg.columns.items()}
    wanted, _ = own_utterances(cfg.source, cfg.path, 0, BadSamples(1.0, "speech"), columns, OWN)
    kept = []
    for item in one_speaker(wanted, speaker):
        name = item.source.rpartition("/")[2]
        if any(item.source.endswith(f"/{bad}") or bad == item.source for bad in without):
            continue
        try:
            wave = torch.from_numpy(as_learned(load_audio(read_sound(item.source), cfg.sample_rate), cfg.sample_rate))
        except UserError:
            continue  # the check has told
        frames = log_mel(wave, mel).half().float()  # as in the shards
        if len(frames[::2]) >= len(spelled(item.text, tokenizer)[1]):
            kept.append((name, item.text, wave, frames))
    seconds = sum(len(wave) for _, _, wave, _ in kept) / cfg.sample_rate
    if len(kept) < LEAST or seconds < LEAST_SECONDS:
        raise UserError(
            f"{cfg.path}: {len(kept)} recordings of {seconds:.0f} s together can be used; "
            f"a voice needs {LEAST} of {LEAST_SECONDS:.0f} s at least, and is better with 200"
        )
    return [Spoken(*about, split) for about, split in zip(kept, dealt([text for _, text, _, _ in kept]), strict=True)]
