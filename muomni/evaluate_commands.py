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
from muomni.data.voices import Hibari, clean, espeak
from muomni.errors import UserError
from muomni.evaluate.judge import Judge
from muomni.evaluate.measure import shown
from muomni.evaluate.parts import Part
from muomni.evaluate.sample_page import write_page
from muomni.evaluate.sentences import known_sentences, open_sentences, own_sentences
from muomni.evaluate.speech_check import Checked, Voice, check_codec, check_speech
from muomni.evaluate.vocoder_check import check_vocoders
from muomni.griffin_lim import GriffinLim, GriffinLimConfig
from muomni.mel import MelConfig
from muomni.model_commands import check_writable, load, note
from muomni.omni import Omni
from muomni.speech import LONGEST, longest_sentence, speakable
from muomni.tokenizer import Tokenizer
from muomni.vocoder import Vocoder, VocoderConfig

CONCEPTS = Path("data/corpus/images/concepts.jsonl")
SPEECH = Path("data/corpus/speech")
TOKENIZER = Path("data/tokenizer/tokenizer.model")
PACE = 160  # words a minute of eSpeak NG's voices


Reader = Callable[[str], Tensor]
Progress = Callable[[], object]
Check = Callable[[list[str], Judge, Progress], Checked]
ReaderCheck = Callable[[list[str], Reader, Judge, Progress], Checked]


def whole_voice(model: Omni, tokenizer: Tokenizer, name: str) -> Voice:
    """The speaking parts of the whole model, with a voice's name."""
    number = model.talker.cfg.voice(name)
    return Voice(model.talker, model.codec, model.thinker, tokenizer, model.vocoder, number)


def stage_voice(folder: Path, name: str) -> Voice:
    """What stage D made, with stage A's Thinker.

    Args:
        folder: holds the checkpoints of all stages.
        name: of the voice.

    Raises:
        UserError: if one is missing or damaged, or there is no params.yaml or no such voice.
    """
    thinker = Part(folder / "thinker").thinker()
    talker = Part(folder / "talker").talker(thinker.cfg.d_model)
    codec, number = Part(folder / "codec").codec(), talker.cfg.voice(name)
    return Voice(talker, codec, thinker, Tokenizer(TOKENIZER), stage_vocoder(folder), number)


def stage_vocoder(folder: Path) -> Vocoder:
    """The vocoder that params.yaml names; a trained one is among the stages' checkpoints.

    Raises:
        UserError: if it is missing or damaged, or there is no params.yaml.
    """
    if section(VocoderConfig, "vocoder").kind == "istft":
        return Part(folder / "vocoder").vocoder()
    return GriffinLim(section(MelConfig, "mel"), section(GriffinLimConfig, "griffin_lim"))


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


def reader(speaker: str, rate: int) -> Reader | None:
    """How a voice reads a text itself; None for a voice of your own recordings.

    Args:
        speaker: ``hibari``, ``espeak:<voice>`` or another name.
        rate: samples a second.

    Raises:
        UserError: if its package or the voice is missing.
    """
    if speaker == "hibari":
        voice = Hibari()
        return lambda text: torch.from_numpy(clean(voice.say(text, 1.0, 0), voice.rate, rate))
    name = speaker.removeprefix("espeak:")
    if name == speaker:
        return None

    def read(text: str) -> Tensor:
        ((wave, own_rate),) = espeak(name, [(text, PACE)])
        return torch.from_numpy(clean(wave, own_rate, rate))

    return read


def lines(scores: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of the figures of one source, as they are printed."""
    for name, figure in scores.get("cer", {}).items():
        yield f"CER of {name}", shown(figure)
    if "talker" in scores:
        yield from talker_lines(scores["talker"])
        swap = scores["swaps"]["text"]
        yield "swap of texts", f"{swap['new']} of {swap['n']} follow, {'passed' if swap['pass'] else 'failed'}"
    for name, figure in scores.get("codec", {}).items():
        if name.startswith("used_") or name == "mel_error":
            yield f"codec {name.replace('_', ' ')}", shown(figure)
    for signal, figures in scores.get("vocoder", {}).items():
        for name, figure in figures.items():
            yield f"{name.replace('_', ' ')} of {signal}", shown(figure)
    for name, figure in scores.get("real_time", {}).items():
        yield f"seconds a second of {name}", shown(figure)


def talker_lines(talker: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same of the Talker's."""
    yield "CER of talker", shown(talker["cer"])
    yield "WER of talker", shown(talker["wer"])
    for length, figures in talker["by_length"].items():
        yield f"CER, {length}", shown(figures["cer"])
    for name in ("skipped_words", "repeated_words", "ended", "ran_short", "ran_long", "duration_ratio"):
        if name in talker:
            yield name.replace("_", " "), shown(talker[name])


def save(folder: Path, name: str, found: Checked, figures: list[tuple[str, str]], rate: int) -> None:
    """Write ``<name>.json`` and the page ``<name>.html``.

    Args:
        folder: where to; made if it is not there.
        name: of both files.
        found: scores, sentences and sounds.
        figures: names and values that stand above the sentences.
        rate: samples a second of the sounds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"text": text, **{s: heard[i] for s, heard in found.heard.items()}} for i, text in enumerate(found.texts)]
    atomic_write_json(folder / f"{name}.json", {**found.scores, "sentences": rows})
    write_page(
        folder / f"{name}.html", f"Speech: {name} sentences", figures, found.texts, found.waves, found.heard, rate
    )


def speech(args: argparse.Namespace) -> int:
    """Judge the speech of a model."""
    check_writable(Path(args.out))
    voice = stage_voice(Path(args.stages), args.voice) if args.stages else whole_voice(*load(args), args.voice)
    rate = voice.vocoder.mel.sample_rate
    read = reader(voice.talker.cfg.voices[voice.number], rate)

    def check(texts: list[str], judge: Judge, progress: Progress) -> Checked:
        return check_speech(voice, texts, read, judge, args.seed, progress)

    judge_all(args, check, longest_sentence(voice.talker), rate, "")
    return 0


def codec(args: argparse.Namespace) -> int:
    """Judge what a codec leaves of recordings."""
    check_writable(Path(args.out))
    part, maker = Part(Path(args.checkpoint)).codec(), stage_vocoder(Path(args.checkpoint).parent)

    def check(texts: list[str], read: Reader, judge: Judge, progress: Progress) -> Checked:
        return check_codec(part, maker, texts, read, judge, args.seed, progress)

    judge_readers(args, check, maker.mel.sample_rate, "codec")
    return 0


def vocoder(args: argparse.Namespace) -> int:
    """Compare Griffin-Lim with the vocoder that was trained."""
    check_writable(Path(args.out))
    trained = Part(Path(args.checkpoint)).vocoder()
    makers = {"griffin_lim": GriffinLim(trained.mel, section(GriffinLimConfig, "griffin_lim")), "istft": trained}
    part = Part(Path(args.codec)).codec()

    def check(texts: list[str], read: Reader, judge: Judge, progress: Progress) -> Checked:
        return check_vocoders(makers, part, texts, read, judge, args.seed, progress)

    judge_readers(args, check, trained.mel.sample_rate, "vocoder")
    return 0


def judge_readers(args: argparse.Namespace, check: ReaderCheck, rate: int, name: str) -> None:
    """`judge_all` for each voice that was asked to read.

    Raises:
        UserError: if there is no such voice, or sentences cannot be had.
    """
    for speaker in args.speaker or ["hibari"]:
        read = reader(speaker, rate)
        if read is None:
            raise UserError(f"--speaker {speaker}: give hibari, or a voice of eSpeak NG as in espeak:en-us+f2")

        def check_reader(
            texts: list[str], judge: Judge, progress: Callable[[], object], read: Reader = read
        ) -> Checked:
            return check(texts, read, judge, progress)

        judge_all(args, check_reader, LONGEST, rate, f"{name}-{speaker.replace(':', '-')}-")


def file_names(sources: list[str]) -> dict[str, str]:
    """What to call the files for each kind of sentences or file of one's own, all different."""
    names: dict[str, str] = {}
    for source in sources:
        name = stem = source if source in ("known", "open") else Path(source).stem
        number = 2
        while name in names.values() or (name in ("known", "open") and name != source):
            name, number = f"{stem}-{number}", number + 1
        names[source] = name
    return names


def judge_all(args: argparse.Namespace, check: Check, longest: int, rate: int, prefix: str) -> None:
    """Have the sentences that were asked for judged, and print and write what was found.

    Args:
        args: with ``sentences``, ``count``, ``seed``, ``out``.
        check: scores sentences.
        longest: characters of a sentence at most.
        rate: samples a second.
        prefix: of the files' names.

    Raises:
        UserError: if sentences cannot be had.
    """
    sources = args.sentences or ["known", "open"]
    drawn = {source: sentences_of(source, args.count, args.seed) for source in sources}
    judge, names = Judge(), file_names(list(drawn))
    for source, texts in drawn.items():
        name = prefix + names[source]
        usable = [text for text in texts if speakable(text) and len(text) <= longest]
        if len(usable) < len(texts):
            note(f"{source}: {len(texts) - len(usable)} lines left out, over {longest} characters or without letters")
        if not usable:
            raise UserError(f"{source}: no sentence of at most {longest} characters; write shorter ones")
        with tqdm(total=len(usable), desc=name, unit="sentence", leave=False) as bar:
            found = check(usable, judge, bar.update)
        figures = list(lines(found.scores))
        save(Path(args.out), name, found, figures, rate)
        print(f"{name} sentences, seed {args.seed}, judged by {judge.name}")
        print("".join(f"  {label:<48} {value}\n" for label, value in figures), flush=True)
        note(f"{Path(args.out) / name}.html: the first sentences to listen to; {name}.json: all transcripts")


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"speech": speech, "codec": codec, "vocoder": vocoder}
