"""The ``muomni`` command. Answers go to standard output alone; the plan, progress and errors to standard error.

What a command needs is imported when it runs, so that ``muomni --help`` and a mistyped option do not wait for PyTorch.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from muomni import __version__
from muomni.data_options import add_data
from muomni.errors import UserError, one_line, refused
from muomni.examples import add_examples
from muomni.measuring_options import add_evaluate, add_export, add_measuring
from muomni.no_tmp import allow_no_tmp
from muomni.options import Parser, add_model_options, add_seed, add_voice, add_weights, number
from muomni.passport.options import add_passport
from muomni.serve.options import add_serve
from muomni.voice_options import add_own_voice

COMMANDS = "muomni.commands"  # entry points with commands of other packages, such as the pipeline's
INTERRUPTED, PIPE_CLOSED = 130, 141  # what a shell reports for a program that SIGINT or SIGPIPE ends


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
