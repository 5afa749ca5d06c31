"""``muomni chat``, ``transcribe`` and ``say``: the commands that need a trained model."""

import argparse
import io
import os
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from muomni.errors import UserError, one_line, refused
from muomni.generate import Answer, AudioEvent, Event, PlanEvent, Session, TextEvent, transcribe
from muomni.media import load_audio, load_image, save_audio
from muomni.model_sources import fetch_model
from muomni.omni import Omni, load_omni
from muomni.reading_aloud import say
from muomni.sampling import Sampling
from muomni.sound import GrowingSound
from muomni.tokenizer import Tokenizer

HELP = """\
Write a question and press Enter. Pictures and recordings that are given before go with it.
/image FILE   add a picture to the next question
/audio FILE   add a recording to the next question
/video FILE   add a video to the next question
/say FILE     speak the last answer into a .wav file
/send         ask with what was added and no text
/reset        forget the conversation
/help         show this
/quit         leave"""


def note(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def check_writable(path: Path) -> None:
    """Make sure that a file, or files in a folder, can be written, before long work is done for them.

    Args:
        path: of the file or folder; what of it is not there yet is made when it is written.

    Raises:
        UserError: if not.
    """
    place = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not os.access(place, os.W_OK) or (place != path.absolute() and not place.is_dir()):
        raise UserError(f"{path}: cannot be written, because of {place}; check its rights, or give another place")


def check_output(name: str) -> Path:
    """Make sure that a sound file can be written, before any work is done for it.

    Raises:
        UserError: if it cannot.
    """
    path = Path(name)
    try:
        if path.suffix.lower() != ".wav":
            raise UserError(f"{path}: sound is written as WAV; give a name that ends in .wav")
        if not path.parent.is_dir():
            raise UserError(f"{path}: no such folder as {path.parent}; make it first")
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is there and is not a file; give another name")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise UserError(f"{path}: the folder {path.parent} cannot be written to; give another place")
        if path.exists() and not os.access(path, os.W_OK):
            raise UserError(f"{path}: is there and cannot be written to; give another name")
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{str(path)[:200]!r}: cannot be written ({reason}); give another name") from None
    return path


def load(args: argparse.Namespace) -> tuple[Omni, Tokenizer]:
    """The trained model that the options name.

    Raises:
        UserError: if it is missing or damaged: never are weights made up.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA GPU on this machine; use cpu or auto")
    gpu = args.device != "cpu" and torch.cuda.is_available()
    folder = fetch_model(args.model) if args.model else Path(args.checkpoint)
    try:
        model, tokenizer, _ = load_omni(folder, "cuda" if gpu else "cpu")
    except UserError:
        if not folder.exists():
            raise UserError(
                f"{args.checkpoint}: no trained model here; run `make repro` to train one, or give --checkpoint"
            ) from None
        raise
    return model, tokenizer


def shown(text: str) -> str:
    """Text without the characters that steer a terminal, which a model can spell in bytes; lines and tabs stay."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def show(events: Iterator[Event], stream: bool, sink: GrowingSound | None = None) -> Answer:
    """Print an answer: the plan as a note, the text at once or as it comes; speech that comes goes into a file.

    Raises:
        RuntimeError: if the events end without an answer.
    """
    spoken = 0
    for event in events:
        if isinstance(event, PlanEvent):
            note(str(event.plan))
        elif isinstance(event, TextEvent) and stream:
            print(shown(event.piece), end="", flush=True)
        elif isinstance(event, AudioEvent) and sink is not None:
            sink.write(event.wave)
        elif isinstance(event, AudioEvent):
            spoken += 1
            print(f"\rsentences spoken: {spoken}", end="", file=sys.stderr, flush=True)
        elif isinstance(event, Answer):
            print("" if stream else shown(event.text), flush=True)
            if not event.ended:
                note("the answer was cut at its limit of tokens")
            return event
    raise RuntimeError("the events ended without an answer")


def write_sound(path: Path, wave: Tensor, rate: int) -> None:
    """Write a sound file and say so."""
    save_audio(path, wave, rate)
    note(f"{path}: {len(wave) / rate:.1f} s")


def chat(args: argparse.Namespace) -> int:
    """One question, or a conversation.

    Raises:
        UserError: if there is no question, or nothing to speak.
    """
    alone = args.text is None and not (args.image or args.video or args.audio_in)
    if args.text is not None and not args.text.strip() and not (args.image or args.video or args.audio_in):
        raise UserError("--text: is empty; write a question")
    if alone and args.audio_out:
        raise UserError("--audio-out: there is no question; give --text, --image, --video or --audio-in")
    target = check_output(args.audio_out) if args.audio_out else None
    model, tokenizer = load(args)
    session = Session(model, tokenizer, args.weights)
    if alone:
        return converse(session, args)
    rate = model.cfg.mel.sample_rate
    with closing(GrowingSound(target, rate)) if target is not None and args.stream else nullcontext() as sink:
        voice = {"speak": target is not None, "stream": args.stream, "voice": args.voice}
        events = session.ask(args.text, args.image, args.video, args.audio_in, **voice, **generation(args))
        answer = show(events, args.stream, sink)
    if target is not None:
        if answer.wave is None:
            raise UserError(f"{target}: not written, there is no letter or digit in the answer to speak")
        if sink is None:
            save_audio(target, answer.wave, rate)
        note(f"{target}: {len(answer.wave) / rate:.1f} s")
    return 0


def generation(args: argparse.Namespace) -> dict:
    """The options of `Session.ask`."""
    sampling = Sampling(temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)
    return {"sampling": sampling, "max_tokens": args.max_tokens, "seed": args.seed}


def lines() -> Iterator[str]:
    """Lines that the user writes, or that come from a pipe; the prompt does not go into a redirected output.

    Raises:
        UserError: if there is no standard input.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise UserError("chat: no standard input; give --text, --image, --video or --audio-in")
    typed = sys.stdin.isatty()
    if typed and sys.stdout.isatty():
        import readline  # noqa: F401  gives input() its editing and history

        while True:
            try:
                yield input("> ")
            except EOFError:
                print()
                return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a line that is no UTF-8 is a bad question, not the end
    while True:
        if typed:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.rstrip("\n")


class Talk:
    """What a conversation at the terminal keeps: the session, and what goes with the next question."""

    def __init__(self, session: Session, args: argparse.Namespace) -> None:
        self.session, self.args = session, args
        self.clear()

    def clear(self) -> None:
        """Nothing waits for the next question."""
        self.images: list = []
        self.audio: list = []
        self.video: str | None = None

    def command(self, name: str, value: str) -> None:
        """Run a line that begins with a slash.

        Raises:
            UserError: if it is not known, lacks its file, or the file is bad.
        """
        if name in ("/image", "/audio", "/video", "/say") and not value:
            raise UserError(f"{name}: name a file, as in `{name} FILE`")
        rate = self.session.model.cfg.mel.sample_rate
        if name == "/image":
            load_image(value)
            self.images.append(value)  # a large picture need not stay in memory
        elif name == "/audio":
            self.audio.append(load_audio(value, rate))
        elif name == "/video":
            if not Path(value).is_file():
                raise UserError(f"{value}: no such file; check the path of the video")
            self.video = value
        elif name == "/say":
            write_sound(check_output(value), self.session.say_again(self.args.seed, self.args.voice), rate)
        elif name == "/send":
            self.ask(None)
        elif name == "/reset":
            self.session.reset()
            self.clear()
        elif name == "/help":
            note(HELP)
        else:
            raise UserError(f"{name}: no such command; /help lists them")

    def ask(self, text: str | None) -> None:
        """Ask with everything that was added."""
        images, video, audio = self.images, self.video, self.audio
        self.clear()
        show(self.session.ask(text, images, video, audio, **generation(self.args)), self.args.stream)


def converse(session: Session, args: argparse.Namespace) -> int:
    """Answer line after line until the input ends; a bad line is reported and passed over.

    Returns:
        0, or 2 if a line that came from a pipe was bad.
    """
    talk, code = Talk(session, args), 0
    if sys.stdin is not None and sys.stdin.isatty():
        note("/help lists the commands, /quit leaves")
    for line in lines():
        line = line.strip()
        if not line:
            continue
        name, _, value = line.partition(" ")
        if name in ("/quit", "/exit"):
            break
        try:
            if line.startswith("/"):
                talk.command(name, unquote(value.strip()))
            else:
                talk.ask(line)
        except (UserError, OSError) as error:
            told = refused(error) if isinstance(error, OSError) else error
            if told is None:
                raise
            note(f"error: {one_line(told)}")
            code = 0 if sys.stdin.isatty() else 2
    return code


def unquote(path: str) -> str:
    """A path as pasted or dropped into a terminal, perhaps in quotes."""
    if path[:1] in ("'", '"'):
        try:
            return " ".join(shlex.split(path))
        except ValueError:
            return path
    return path


def transcribe_file(args: argparse.Namespace) -> int:
    """Print what is said in a recording."""
    model, tokenizer = load(args)
    answer = transcribe(model, tokenizer, args.file, weights=args.weights)
    note(str(answer.plan))
    print(shown(answer.text))
    return 0


def say_text(args: argparse.Namespace) -> int:
    """Write a text as speech."""
    target = check_output(args.audio_out)
    model, tokenizer = load(args)
    rate = model.cfg.mel.sample_rate
    events = say(model, tokenizer, args.text, args.seed, args.stream, args.voice)
    if args.stream:
        with closing(GrowingSound(target, rate)) as sink:
            for event in events:
                sink.write(event.wave)
        note(f"{target}: {sink.samples / rate:.1f} s")
    else:
        waves = [event.wave for event in tqdm(events, desc="sentences", leave=False)]
        write_sound(target, torch.cat(waves), rate)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "chat": chat,
    "transcribe": transcribe_file,
    "say": say_text,
}
