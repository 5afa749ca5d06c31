"""``muomni evaluate``: figures of a trained model that anyone can draw again, with another seed or other sentences."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from muomni.config import scalar, section
from muomni.data.files import atomic_write_json
from muomni.data.known import read_concepts
from muomni.data.utterances import read_utterances
from muomni.data.voices import Hibari, clean
from muomni.errors import UserError
from muomni.evaluate.judge import Judge
from muomni.evaluate.parts import Part
from muomni.evaluate.sample_page import write_page
from muomni.evaluate.sentences import known_sentences, open_sentences, own_sentences
from muomni.evaluate.speech_check import Checked, Voice, check_speech
from muomni.mel import MelConfig
from muomni.model_commands import load, note
from muomni.omni import Omni
from muomni.speech import longest_sentence, speakable
from muomni.tokenizer import Tokenizer
from muomni.vocoder import VocoderConfig

CONCEPTS = Path("data/corpus/images/concepts.jsonl")
SPEECH = Path("data/corpus/speech")
TOKENIZER = Path("data/tokenizer/tokenizer.model")


def whole_voice(model: Omni, tokenizer: Tokenizer) -> Voice:
    """The speaking parts of the whole model."""
    return Voice(model.talker, model.codec, model.thinker, tokenizer, model.cfg.mel, model.cfg.vocoder)


def stage_voice(folder: Path) -> Voice:
    """What stage D made, with stage A's Thinker.

    Args:
        folder: holds the checkpoints of all stages.

    Raises:
        UserError: if one is missing or damaged, or there is no params.yaml.
    """
    thinker = Part(folder / "thinker").thinker()
    talker = Part(folder / "talker").talker(thinker.cfg.d_model)
    mel, vocoder = section(MelConfig, "mel"), section(VocoderConfig, "vocoder")
    return Voice(talker, Part(folder / "codec").codec(), thinker, Tokenizer(TOKENIZER), mel, vocoder)


def sentences_of(source: str, count: int, seed: int) -> list[str]:
    """Sentences to be said: ``known``, ``open`` or a file.

    Raises:
        UserError: if they cannot be had.
    """
    if source == "open":
        return open_sentences(count, seed)
    if source == "known":
        return known_sentences(read_concepts(CONCEPTS), count, seed, scalar("seed"), read_utterances(SPEECH))
    return own_sentences(source, count, seed)


def reader(speaker: str, rate: int) -> Callable[[str], Tensor] | None:
    """How the voice that the Talker learned reads a text itself; None for a voice of your own recordings."""
    if speaker != "hibari":
        return None
    voice = Hibari()
    return lambda text: torch.from_numpy(clean(voice.say(text, 1.0, 0), voice.rate, rate))


def lines(scores: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of the figures of one source, as they are printed."""
    talker = scores["talker"]

    def shown(figure: dict[str, Any]) -> str:
        low, high = figure["interval"]
        return f"{figure['value']:.4f}  ({low:.4f} to {high:.4f}, n {figure['n']})"

    for name, figure in scores.get("cer", {}).items():
        yield f"CER of {name}", shown(figure)
    yield "CER of talker", shown(talker["cer"])
    yield "WER of talker", shown(talker["wer"])
    for length, figures in talker["by_length"].items():
        yield f"CER, {length}", shown(figures["cer"])
    for name in ("skipped_words", "repeated_words", "ended", "ran_short", "ran_long", "duration_ratio"):
        if name in talker:
            yield name.replace("_", " "), shown(talker[name])
    for name, figure in scores.get("codec", {}).items():
        if name.startswith("used_") or name == "mel_error":
            yield f"codec {name.replace('_', ' ')}", shown(figure)
    swap = scores["swaps"]["text"]
    yield "swap of texts", f"{swap['new']} of {swap['n']} follow, {'passed' if swap['pass'] else 'failed'}"


def save(folder: Path, name: str, found: Checked, figures: list[tuple[str, str]], rate: int) -> None:
    """Write ``<name>.json`` and the page ``<name>.html``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"text": text, **{s: heard[i] for s, heard in found.heard.items()}} for i, text in enumerate(found.texts)]
    atomic_write_json(folder / f"{name}.json", {**found.scores, "sentences": rows})
    write_page(
        folder / f"{name}.html", f"Speech: {name} sentences", figures, found.texts, found.waves, found.heard, rate
    )


def speech(args: argparse.Namespace) -> int:
    """Judge the speech of a model."""
    voice = stage_voice(Path(args.stages)) if args.stages else whole_voice(*load(args))
    judge, rate, longest = Judge(), voice.mel.sample_rate, longest_sentence(voice.talker)
    sources = args.sentences or ["known", "open"]
    drawn = {source: sentences_of(source, args.count, args.seed) for source in sources}
    read = reader(args.speaker, rate)
    for source, texts in drawn.items():
        name = source if source in ("known", "open") else Path(source).stem
        usable = [text for text in texts if speakable(text) and len(text) <= longest]
        if len(usable) < len(texts):
            note(f"{source}: {len(texts) - len(usable)} lines left out, over {longest} characters or without letters")
        if not usable:
            raise UserError(f"{source}: no sentence of at most {longest} characters; write shorter ones")
        with tqdm(total=len(usable), desc=name, unit="sentence", leave=False) as bar:
            found = check_speech(voice, usable, read, judge, args.seed, bar.update)
        figures = list(lines(found.scores))
        save(Path(args.out), name, found, figures, rate)
        print(f"{name} sentences, seed {args.seed}, judged by {judge.name}")
        print("".join(f"  {label:<24} {value}\n" for label, value in figures), flush=True)
        note(f"{Path(args.out) / name}.html: the first sentences to listen to; {name}.json: all transcripts")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"speech": speech}
