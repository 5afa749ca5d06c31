"""Whether a model says what it is asked: many sentences, judged by a recogniser that is not part of it."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from muomni.audio_encoder import normalise
from muomni.codec import Codec
from muomni.evaluate.judge import Judge, listening
from muomni.evaluate.measure import character_errors, ratio, word_errors
from muomni.evaluate.speech import Said, judged, say, score_codec, score_talker
from muomni.evaluate.swaps import swap_texts, verdict
from muomni.mel import log_mel
from muomni.talker import Talker
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.vocoder import Vocoder

SIGNALS = ("recording", "vocoder", "codec", "talker")
LENGTHS = (("1 to 5 words", 1, 5), ("6 to 10 words", 6, 10), ("11 to 15 words", 11, 15), ("over 15 words", 16, 10**6))
KEPT = 12  # sentences whose sounds are kept


@dataclass(frozen=True)
class Voice:
    """What speaks.

    Attributes:
        talker, codec: in eval mode.
        thinker: whose states the Talker takes.
        tokenizer: of both.
        vocoder: of the codec's log-mels, in eval mode.
        number: of the voice among those that the Talker learned.
    """

    talker: Talker
    codec: Codec
    thinker: Thinker
    tokenizer: Tokenizer
    vocoder: Vocoder
    number: int = 0


@dataclass
class Checked:
    """What was found.

    Attributes:
        scores: figures, for JSON.
        texts: the sentences.
        waves: by signal, float32 ``[samples]`` of the first sentences.
        heard: by signal, the judge's transcripts of all.
    """

    scores: dict[str, Any]
    texts: list[str]
    waves: dict[str, list[Tensor]] = field(default_factory=dict)
    heard: dict[str, list[str]] = field(default_factory=dict)


def slips(wanted: str, heard: str) -> tuple[int, int]:
    """Words that were skipped, and words that were said again.

    Args:
        wanted: normalised words.
        heard: a transcript's.

    Returns:
        How many words nothing was heard of, and how many were heard beside the same word, or the same two or three
        words, once more than wanted. A word that was heard as another is neither.
    """
    a, b = wanted.split(), heard.split()
    skipped = repeated = 0
    for kind, a1, a2, b1, b2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "delete":
            skipped += a2 - a1
        elif kind == "insert":
            more, n = b[b1:b2], b2 - b1
            repeated += n * (b[max(0, b1 - n) : b1] == more or b[b2 : b2 + n] == more)
    return skipped, repeated


def score_speech(texts: Sequence[str], heard: Sequence[str], seed: int) -> dict[str, Any]:
    """Error rates of transcripts, in all and by length.

    Args:
        texts: what should be said.
        heard: transcripts.
        seed: of the intervals.
    """
    wanted = [normalise(text) for text in texts]
    lengths = [len(text.split()) for text in wanted]
    counted = [slips(text, said) for text, said in zip(wanted, heard, strict=True)]
    scores: dict[str, Any] = {
        "cer": character_errors(wanted, list(heard), seed),
        "wer": word_errors(wanted, list(heard), seed),
        "skipped_words": ratio([skipped for skipped, _ in counted], lengths, seed),
        "repeated_words": ratio([repeated for _, repeated in counted], lengths, seed),
    }
    by_length = {}
    for name, low, high in LENGTHS:
        some = [i for i, n in enumerate(lengths) if low <= n <= high]
        if some:
            own, said = [wanted[i] for i in some], [heard[i] for i in some]
            by_length[name] = {"cer": character_errors(own, said, seed), "wer": word_errors(own, said, seed)}
    return scores | {"by_length": by_length}


def listen_to(
    texts: Sequence[str],
    sounds: Callable[[str], Iterator[tuple[str, Tensor]]],
    judge: Judge,
    progress: Callable[[], object],
) -> Checked:
    """Have all sounds of some texts judged, without scores yet.

    Args:
        texts: sentences.
        sounds: gives the signals of one, each with its name.
        judge: the recogniser.
        progress: called after each sentence.
    """
    found = Checked({}, list(texts))
    pending = dict[str, list[Future[str]]]()
    with torch.no_grad(), listening(judge) as hear:
        for number, text in enumerate(texts):
            for name, wave in sounds(text):
                pending.setdefault(name, []).append(hear(wave))
                if number < KEPT:
                    found.waves.setdefault(name, []).append(wave)
            progress()
        found.heard = {name: [future.result() for future in futures] for name, futures in pending.items()}
    return found


def through_codec(
    codec: Codec, vocoder: Vocoder, recording: Tensor, mels: list[Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """A recording ``[samples]`` as it is, through the vocoder and through the codec; its log-mel goes to `mels`."""
    mel = log_mel(recording, vocoder.mel)[::2]  # [T, M] at 50 Hz
    mels.append(mel)
    yield "recording", recording
    yield "vocoder", vocoder(mel).cpu()
    codes = codec.encode(mel.to(codec.encoder.weight.device))
    yield "codec", vocoder(codec.decode(codes[None])[0]).cpu()


def score_codec_check(found: Checked, codec: Codec, mels: Sequence[Tensor], seed: int) -> dict[str, Any]:
    """Error rates of recording, vocoder and codec, and the codec's own figures."""
    cer = {name: judged(found.texts, found.heard[name], seed) for name in SIGNALS[:-1]}
    return {"cer": cer, "codec": score_codec(codec, mels, seed)}


def check_codec(
    codec: Codec,
    vocoder: Vocoder,
    texts: Sequence[str],
    read: Callable[[str], Tensor],
    judge: Judge,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> Checked:
    """Have recordings judged before and after a codec.

    Args:
        codec: in eval mode.
        vocoder: of its log-mels.
        texts: sentences.
        read: how a voice says a text, float32 ``[samples]``.
        judge: the recogniser.
        seed: of the intervals.
        progress: called after each sentence.
    """
    mels = list[Tensor]()
    found = listen_to(texts, lambda text: through_codec(codec, vocoder, read(text), mels), judge, progress)
    found.scores = {"n": len(texts), "seed": seed, "judge": judge.name} | score_codec_check(found, codec, mels, seed)
    return found


def check_speech(
    voice: Voice,
    texts: Sequence[str],
    read: Callable[[str], Tensor] | None,
    judge: Judge,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> Checked:
    """Have sentences said and judged.

    Args:
        voice: what speaks.
        texts: sentences with a letter or digit each.
        read: how the voice that it learned says a text, float32 ``[samples]``; None if there is no such voice here.
        judge: the recogniser.
        seed: of the codes that are drawn, and of the intervals.
        progress: called after each sentence.
    """
    said, mels = list[Said](), list[Tensor]()

    def sounds(text: str) -> Iterator[tuple[str, Tensor]]:
        if read is not None:
            yield from through_codec(voice.codec, voice.vocoder, read(text), mels)
        said.append(say(voice.talker, voice.thinker, voice.tokenizer, text, seed, voice.number))
        yield "talker", voice.vocoder(voice.codec.decode(said[-1].codes[None])[0]).cpu()

    found = listen_to(texts, sounds, judge, progress)
    talker = score_speech(texts, found.heard["talker"], seed)
    others: dict[str, Any] = {}
    if mels:
        talker |= score_talker(said, [len(mel) for mel in mels], seed)
        others = score_codec_check(found, voice.codec, mels, seed)
    found.scores = {
        "n": len(texts),
        "seed": seed,
        "judge": judge.name,
        **others,
        "talker": talker,
        "swaps": {"text": verdict("text", swap_texts(texts, found.heard["talker"]))},
    }
    return found
