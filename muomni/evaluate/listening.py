"""Speech of all kinds, listened to: recordings, what vocoder and codec leave of them, and what the Talker says.

Without a judge there are no error rates of speech but those of stage B, which knows the voice and the sentences' forms
and is no fair judge; they serve the swap test, which only compares.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muomni.data.speech import load_recordings
from muomni.data.utterances import read_recording, read_utterances
from muomni.errors import UserError
from muomni.evaluate.config import EvaluateConfig
from muomni.evaluate.hearing import transcripts
from muomni.evaluate.judge import Judge, listening
from muomni.evaluate.parts import Parts
from muomni.evaluate.speech import Said, judged, say, score_codec, score_talker
from muomni.evaluate.swaps import swap_texts, verdict
from muomni.media import load_audio
from muomni.mel import log_mel

SIGNALS = ("recording", "vocoder", "codec", "talker")


@dataclass
class Listened:
    """What was scored, and what to look at and listen to.

    Attributes:
        scores: for ``metrics/speech.json``.
        texts: the sentences, those of the codec first; the Talker said all of them.
        waves: by signal, float32 ``[samples]`` of the first sentences.
        mels: by signal, log-mel ``[T, M]`` at 50 Hz of the first sentence.
        heard: by signal, the judge's transcripts; empty without a judge.
    """

    scores: dict[str, Any]
    texts: list[str]
    waves: dict[str, list[Tensor]] = field(default_factory=dict)
    mels: dict[str, Tensor] = field(default_factory=dict)
    heard: dict[str, list[str]] = field(default_factory=dict)


def unseen_sentences(corpus: Path, speaker: str, rate: int, most: int, seed: int) -> list[tuple[str, Tensor]]:
    """Some sentences of the test split and the speaker's recordings of them, ``[samples]`` each.

    Args:
        corpus: folder of the speech corpus.
        speaker: as its manifest names it.
        rate: samples a second that the recordings are brought to.
        most: sentences at most.
        seed: of which ones, and in which order.

    Raises:
        UserError: if the speaker recorded none, or a file cannot be read.
    """
    rows = [r for r in read_utterances(corpus) if r["split"] == "test" and r["speaker"] == speaker]
    if not rows:
        raise UserError(f"evaluate.speaker: {corpus} has no test recording of '{speaker}'")
    random.Random(seed).shuffle(rows)
    return [(row["text"], torch.from_numpy(load_audio(read_recording(corpus, row), rate))) for row in rows[:most]]


def listen(parts: Parts, cfg: EvaluateConfig, judge: Judge | None, corpus: Path, shards: Path) -> Listened:
    """Score the codec and the Talker of stage D.

    Args:
        parts: all trained parts.
        cfg: the section.
        judge: the recogniser, or None.
        corpus: the speech corpus, for the recordings themselves.
        shards: the mel shards.

    Raises:
        UserError: if data is missing, or the Talker never learned the voice.
    """
    mel_cfg = parts.omni.cfg.mel
    vocoder = parts.omni.vocoder
    device = parts.codec.encoder.weight.device
    most = max(cfg.codec_sentences, cfg.talker_sentences)
    sentences = unseen_sentences(corpus, cfg.speaker, mel_cfg.sample_rate, most, cfg.seed)
    coded, said = sentences[: cfg.codec_sentences], sentences[: cfg.talker_sentences]
    mels = [log_mel(wave, mel_cfg)[::2] for _, wave in sentences]  # [T, M] at 50 Hz
    decoded = [parts.codec.decode(parts.codec.encode(mel.to(device))[None])[0].cpu() for mel in mels[: len(coded)]]
    talk, talked = list[Said](), list[Tensor]()
    voice = parts.talker.cfg.voice(cfg.speaker)

    def speech() -> Iterator[Tensor]:
        for text, _ in said:
            talk.append(say(parts.talker, parts.thinker, parts.tokenizer, text, cfg.seed, voice))
            talked.append(parts.codec.decode(talk[-1].codes[None])[0].cpu())
            yield vocoder(talked[-1]).cpu()

    found = Listened({}, [text for text, _ in sentences])
    sources: dict[str, Iterable[Tensor]] = {
        "recording": (wave for _, wave in coded),
        "vocoder": (vocoder(mel).cpu() for mel in mels[: len(coded)]),
        "codec": (vocoder(mel).cpu() for mel in decoded),
        "talker": speech(),
    }
    with listening(judge) as hear:
        transcripts_of = dict[str, list[Future[str]]]()
        for name, waves in sources.items():
            found.waves[name] = []
            for wave in waves:
                found.waves[name].append(wave)
                transcripts_of.setdefault(name, []).append(hear(wave))
    found.mels = {"recording": mels[0], "codec": decoded[0], "talker": talked[0]}
    whole = [r.mel[::2] for r in load_recordings(shards, "test", [cfg.speaker])]
    found.scores = {
        "codec": score_codec(parts.codec, whole, cfg.seed),
        "talker": score_talker(talk, [len(mel) for mel in mels[: len(said)]], cfg.seed),
    }
    if judge:
        found.heard = {name: [text.result() for text in texts] for name, texts in transcripts_of.items()}
        found.scores["cer"] = {
            name: judged(found.texts[: len(heard)], heard, cfg.seed) for name, heard in found.heard.items()
        }
    own = transcripts(parts.audio_encoder, parts.ctc, [log_mel(wave, mel_cfg) for wave in found.waves["talker"]])
    found.scores["cer_by_stage_b"] = {"talker": judged(found.texts[: len(own)], own, cfg.seed)}
    found.scores["swaps"] = speech_swaps(found, own)
    return found


def speech_swaps(found: Listened, own: Sequence[str]) -> dict[str, Any]:
    """Other text, other speech; and codes of the two books exchanged, other sound."""
    heard = found.heard.get("talker") or own
    texts = found.texts[: len(heard)]
    figure = found.scores["codec"]["exchange_matters"]
    matters = round(figure["value"] * figure["n"])
    return {
        "text": verdict("text", swap_texts(texts, heard)),
        "codes": verdict("codes", [1] * matters + [-1] * (figure["n"] - matters)),
    }
