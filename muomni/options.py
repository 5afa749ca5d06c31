"""The commands' parser, and the options that several of them have."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from muomni.errors import UserError


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


def add_weights(parser: argparse.ArgumentParser) -> None:
    """How the weights are kept that an answer is written with."""
    parser.add_argument(
        "--weights",
        choices=("fp32", "bf16", "int8"),
        default="fp32",
        help="of the Thinker while it writes; int8 is faster on a CPU (default: %(default)s)",
    )
