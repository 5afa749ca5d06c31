"""The ``muomni`` command. Answers go to standard output alone; the plan, progress and errors to standard error.

What a command needs is imported when it runs, so that ``muomni --help`` and a mistyped option do not wait for PyTorch.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import NoReturn

from muomni import __version__
from muomni.errors import UserError, one_line, refused
from muomni.no_tmp import allow_no_tmp

COMMANDS = "muomni.commands"  # entry points with commands of other packages, such as the pipeline's
INTERRUPTED, PIPE_CLOSED = 130, 141  # what a shell reports for a program that SIGINT or SIGPIPE ends


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are `UserError`: one line, like every other fault."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage.

        Raises:
            UserError: always, with the parser's message.
        """
        raise UserError(f"{message}; see `{self.prog} --help`")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """After --help and --version; a reader that has gone shows here, not while Python shuts down."""
        sys.stdout.flush()
        super().exit(status, message)


def number(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    """An option's type: a number between two bounds, both allowed."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {what} from {low:g} to {high:g}, got {text!r}")
        return value

    return convert


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Where the model is and where it computes."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--checkpoint", default="checkpoints/omni", metavar="FOLDER", help="the trained model (default: %(default)s)"
    )
    where.add_argument("--model", metavar="ADDRESS", help="a registered model, such as models:/muomni@champion")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")


def add_voice(parser: argparse.ArgumentParser) -> None:
    """Who speaks."""
    parser.add_argument("--voice", default="", metavar="NAME", help="one that the model learned (default: its first)")


def add_seed(parser: argparse.ArgumentParser) -> None:
    """The seed of everything drawn."""
    parser.add_argument(
        "--seed", type=number(int, 0, 2**31 - 1), default=0, metavar="N", help="same seed, same answer (default: 0)"
    )


def add_evaluate(commands: "argparse._SubParsersAction[Parser]") -> None:
    """``muomni evaluate``: speech, codec, vocoder."""
    evaluate = commands.add_parser("evaluate", help="measure a trained model on sentences drawn by your seed")
    what = evaluate.add_subparsers(dest="what", metavar="WHAT", required=True)
    speech = what.add_parser(
        "speech",
        help="have sentences said, and judged by a recogniser that is not part of the model",
        description="Run in the root of the repository, where data/ is. Prints figures with their 95 % intervals, and "
        "writes a page with players and a JSON file with all transcripts.",
    )
    speech.add_argument(
        "--stages",
        metavar="FOLDER",
        help="judge what stage D made, from the stages' checkpoints in this folder, on the CPU",
    )
    add_voice(speech)
    add_drawing(speech)
    add_model_options(speech)
    codec = what.add_parser(
        "codec",
        help="have recordings judged as they are, through the vocoder, and through the codec",
        description="Run in the root of the repository, where data/ and params.yaml are.",
    )
    codec.add_argument(
        "--checkpoint", default="checkpoints/codec", metavar="FOLDER", help="of stage D (default: %(default)s)"
    )
    add_speaker(codec)
    add_drawing(codec)
    vocoder = what.add_parser(
        "vocoder",
        help="compare the vocoder that was trained with Griffin-Lim",
        description="Run in the root of the repository, where data/ and params.yaml are.",
    )
    vocoder.add_argument(
        "--checkpoint", default="checkpoints/vocoder", metavar="FOLDER", help="of stage D (default: %(default)s)"
    )
    vocoder.add_argument(
        "--codec", default="checkpoints/codec", metavar="FOLDER", help="likewise (default: %(default)s)"
    )
    add_speaker(vocoder)
    add_drawing(vocoder)


def add_speaker(parser: argparse.ArgumentParser) -> None:
    """Who reads the sentences."""
    parser.add_argument(
        "--speaker",
        action="append",
        metavar="NAME",
        help="who reads: hibari (default), or a voice of eSpeak NG such as espeak:en-us+f2 (may be repeated)",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """How the weights are kept that an answer is written with."""
    parser.add_argument(
        "--weights",
        choices=("fp32", "bf16", "int8"),
        default="fp32",
        help="of the Thinker while it writes; int8 is faster on a CPU (default: %(default)s)",
    )


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """Which sentences are drawn, and where what was found goes."""
    parser.add_argument(
        "--sentences",
        action="append",
        metavar="KIND",
        help="known: new ones of held-out combinations; open: ordinary English from outside the data; or a text file "
        "with a sentence a line (may be repeated; default: known and open)",
    )
    parser.add_argument(
        "--count", type=number(int, 1, 10_000), default=200, metavar="N", help="sentences of each (default: 200)"
    )
    parser.add_argument("--out", default="metrics/check", metavar="FOLDER", help="default: %(default)s")
    add_seed(parser)


def add_measuring(commands: "argparse._SubParsersAction[Parser]") -> None:
    """``muomni bench`` and ``muomni plan``."""
    bench = commands.add_parser(
        "bench",
        help="measure how fast this machine trains and runs the model, beside what the machine can do",
        description="Run in the root of the repository. Needs no data and no trained model. Prints a table.",
    )
    bench.add_argument("--json", metavar="FILE", help="also write all figures there")
    bench.add_argument(
        "--against", metavar="FOLDER", help="time the same shapes, in turn, with a checkout of the original micro-Omni"
    )
    bench.add_argument(
        "--only",
        action="append",
        metavar="PART",
        help="components, memory, stages, generation, speech, reading; or scaling, which takes minutes more",
    )
    bench.add_argument("--curves", metavar="FILE.png", help="draw the curves of scaling")
    bench.add_argument(
        "--seconds",
        type=number(float, 0.1, 600),
        default=3.0,
        metavar="S",
        help="for each figure (default: %(default)s)",
    )
    plan = commands.add_parser(
        "plan",
        help="whether this machine can train a profile, in what batches, how long that takes and what it costs",
        description="Run in the root of the repository. Tries a few steps of every stage on made-up data.",
    )
    plan.add_argument(
        "--memory",
        type=number(float, 0.5, 10_000),
        metavar="GB",
        help="budget (default: device.memory_gb, or what is there)",
    )
    plan.add_argument("--price", type=number(float, 0, 10_000), metavar="MONEY", help="of an hour of this machine")
    plan.add_argument("--stage", action="append", metavar="NAME", help="only this stage; may be repeated")
    plan.add_argument("--compare", action="store_true", help="compare the last plan with the trainings since")
    for parser in (bench, plan):
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--profile", metavar="NAME", help="of profiles/NAME.yaml")
        which.add_argument("--params", default="params.yaml", metavar="FILE", help="of a file (default: %(default)s)")


def add_export(commands: "argparse._SubParsersAction[Parser]") -> None:
    """``muomni export``."""
    export = commands.add_parser(
        "export",
        help="write a model as a folder for transformers and onnxruntime",
        description="The folder stands alone: it loads where muomni is not installed. Prints its name.",
    )
    export.add_argument("out", metavar="OUT", help="the folder to make; must not be there, or be empty")
    which = export.add_mutually_exclusive_group()
    which.add_argument(
        "--checkpoint", default="checkpoints/omni", metavar="FOLDER", help="the trained model (default: %(default)s)"
    )
    which.add_argument("--model", metavar="ADDRESS", help="a registered model, such as models:/muomni@champion")
    export.add_argument(
        "--format", default="hf,onnx", metavar="NAMES", help="hf for transformers, onnx (default: both, %(default)s)"
    )
    export.add_argument(
        "--weights", choices=("fp32", "int8"), default="fp32", help="of the Thinker in ONNX (default: %(default)s)"
    )


def make_parser() -> Parser:
    """All commands and options."""
    parser = Parser(prog="muomni", description="A tiny omni model: it reads, looks, listens, writes and speaks.")
    parser.add_argument("--version", action="version", version=f"muomni {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    chat = commands.add_parser(
        "chat",
        help="ask about text, pictures, video and recordings; without any of them, hold a conversation",
        description="Ask one question, or without --text, --image, --video and --audio-in hold a conversation.",
    )
    chat.add_argument("--text", help="the question")
    chat.add_argument("--image", action="append", default=[], metavar="FILE", help="a picture; may be repeated")
    chat.add_argument("--video", metavar="FILE", help="a video, seen as one picture a second, without its sound")
    chat.add_argument("--audio-in", action="append", default=[], metavar="FILE", help="a recording; may be repeated")
    chat.add_argument("--audio-out", metavar="FILE.wav", help="also say the answer, into this file")
    chat.add_argument(
        "--stream", action="store_true", help="show the answer's text, and write its speech, as they are made"
    )
    chat.add_argument(
        "--temperature", type=number(float, 0, 10), default=0.0, metavar="T", help="0 takes the likeliest (default)"
    )
    chat.add_argument("--top-k", type=number(int, 0, 65536), default=0, metavar="K", help="0 for all (default)")
    chat.add_argument("--top-p", type=number(float, 1e-6, 1), default=1.0, metavar="P", help="default: 1, all")
    chat.add_argument(
        "--max-tokens", type=number(int, 1, 8192), default=128, metavar="N", help="length of an answer (default: 128)"
    )
    add_voice(chat)
    add_seed(chat)
    add_weights(chat)
    add_model_options(chat)

    transcribe = commands.add_parser("transcribe", help="write down what is said in a recording")
    transcribe.add_argument("file", metavar="FILE", help="WAV, FLAC, MP3 or another recording")
    add_weights(transcribe)
    add_model_options(transcribe)

    say = commands.add_parser("say", help="read a text aloud")
    say.add_argument("text", metavar="TEXT", help="what to say")
    say.add_argument("--audio-out", metavar="FILE.wav", required=True, help="where to")
    say.add_argument("--stream", action="store_true", help="write the speech as it is made")
    add_voice(say)
    add_seed(say)
    add_model_options(say)

    add_evaluate(commands)

    add_measuring(commands)

    from muomni.data_options import add_data  # here, because they use what is above
    from muomni.examples import add_examples
    from muomni.passport.options import add_passport
    from muomni.serve.options import add_serve
    from muomni.voice_options import add_own_voice

    add_passport(commands)
    add_data(commands)
    add_examples(commands)
    add_own_voice(commands)
    add_serve(commands)

    verify = commands.add_parser(
        "verify",
        help="whether a checkpoint is what its card says",
        description="Compares files, weights and configuration with the card, and data, params.yaml and git with what "
        "is in the current folder. The exit code is 1 if something differs.",
    )
    checked = verify.add_mutually_exclusive_group()
    checked.add_argument(
        "folder",
        nargs="?",
        default="checkpoints",
        metavar="CHECKPOINT",
        help="a checkpoint, or a folder of them (default: %(default)s)",
    )
    checked.add_argument("--model", metavar="ADDRESS", help="a registered model, such as models:/muomni@champion")
    verify.add_argument("--data", action="store_true", help="also hash the data that went into it, where it is here")
    verify.add_argument("--json", action="store_true", help="print JSON")

    add_export(commands)

    params = commands.add_parser("params", help="count the parameters of each component")
    which = params.add_mutually_exclusive_group()
    which.add_argument("--profile", metavar="NAME", help="of profiles/NAME.yaml")
    which.add_argument("--params", default="params.yaml", metavar="FILE", help="of a file (default: %(default)s)")

    profile = commands.add_parser("profile", help="make profiles/NAME.yaml the params.yaml of this folder")
    profile.add_argument("name", metavar="NAME", nargs="?", help="without it, the profiles are listed")
    # `add(commands)` adds parsers, each with the default `handler`, a function of the parsed arguments that returns
    # the exit code. So the package has the commands of the pipeline, and imports nothing of it.
    for point in sorted(entry_points(group=COMMANDS), key=lambda point: point.name):
        point.load()(commands)
    return parser


def run(args: argparse.Namespace) -> int:
    """Run a parsed command and return its exit code."""
    if "handler" in args:
        handler: Callable[[argparse.Namespace], int] = args.handler
        return handler(args)
    if args.command in ("params", "profile"):
        from muomni import settings_commands

        return settings_commands.COMMANDS[args.command](args)
    if args.command == "verify":
        from muomni import verify

        return verify.command(args)
    if args.command == "export":
        from muomni.export import command

        return command.command(args)
    if args.command in ("bench", "plan"):
        from muomni import bench_commands

        return bench_commands.COMMANDS[args.command](args)
    if args.command == "evaluate":
        from muomni import evaluate_commands

        return evaluate_commands.COMMANDS[args.what](args)
    from muomni import model_commands

    return model_commands.COMMANDS[args.command](args)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        0, 2 for bad input, 130 after Ctrl-C, 141 when the reader of the output has gone.
    """
    try:
        allow_no_tmp()
        code = run(make_parser().parse_args(argv))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more when it exits, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        told = refused(error)
        if told is None:
            raise
        print(f"error: {one_line(told)}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
