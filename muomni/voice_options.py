"""The options of ``muomni voice``. What it needs is imported when it runs."""

import argparse

from muomni.data_options import add_column
from muomni.options import Parser, add_seed, number


def add_own_voice(commands: "argparse._SubParsersAction[Parser]") -> None:
    """``muomni voice``."""
    voice = commands.add_parser(
        "voice",
        help="teach a trained model one more voice, from recordings with their texts",
        description="Checks the recordings, has the model learn to speak like them, and writes it with the new voice "
        "into a folder of its own. What was there stays as it is. Interrupted, it goes on when it is started again.",
    )
    voice.add_argument("folder", metavar="DIR", help="recordings with their texts, in a layout of docs/own-voice.md")
    voice.add_argument("--as", dest="name", required=True, metavar="NAME", help="of the voice")
    voice.add_argument(
        "--checkpoint", default="checkpoints/omni", metavar="FOLDER", help="the trained model (default: %(default)s)"
    )
    voice.add_argument("--out", metavar="FOLDER", help="where to (default: checkpoints/NAME)")
    voice.add_argument("--source", metavar="KIND", help="say which layout it is, such as ljspeech or manifest")
    add_column(voice)
    voice.add_argument("--speaker", default="", metavar="NAME", help="whose recordings, if several speak there")
    voice.add_argument(
        "--limit",
        type=number(float, 0, 1),
        default=0.1,
        metavar="SHARE",
        help="of recordings with a problem, which are left out; with more it stops (default: %(default)s)",
    )
    voice.add_argument(
        "--steps", type=number(int, 1, 1_000_000), default=400, metavar="N", help="of the Talker (default: %(default)s)"
    )
    voice.add_argument(
        "--codec-steps",
        type=number(int, 1, 1_000_000),
        default=600,
        metavar="N",
        help="of the codec, and of what converts the old voice's speech (default: %(default)s)",
    )
    voice.add_argument(
        "--count",
        type=number(int, 0, 10_000),
        default=40,
        metavar="N",
        help="sentences to judge by, beside the recordings that are kept for that (default: %(default)s)",
    )
    voice.add_argument(
        "--judge",
        choices=("auto", "off", "required"),
        default="auto",
        help="whether a recogniser listens, if it is installed (default: %(default)s)",
    )
    voice.add_argument("--workers", type=number(int, 1, 64), default=2, metavar="N", help="processes of the check")
    voice.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    add_seed(voice)
    voice.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from muomni import voice_commands

    return voice_commands.voice(args)
