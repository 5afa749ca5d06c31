"""``muomni card`` and ``muomni learning``: their options. What they need is imported when they run."""

import argparse

from muomni.options import Parser

TRAININGS = ("metrics/train", ".muomni/state")


def add_passport(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add both commands."""
    card = commands.add_parser(
        "card",
        help="what is known of a trained model: figures with intervals, limits, data and licences, how to reproduce it",
        description="Prints Markdown. Figures count only if they are of these weights; parameters are compared with "
        "params.yaml and profiles/ of the current folder, where they are there.",
    )
    which = card.add_mutually_exclusive_group()
    which.add_argument(
        "folder",
        nargs="?",
        default="checkpoints/omni",
        metavar="CHECKPOINT",
        help="a checkpoint, of the whole model or a part (default: %(default)s)",
    )
    which.add_argument("--model", metavar="ADDRESS", help="a registered model, such as models:/muomni@champion")
    card.add_argument("--metrics", metavar="FOLDER", help="what stage evaluate wrote (default: metrics)")
    card.add_argument("--page", metavar="FILE.html", help="write a page with pictures and sounds there, in one file")
    card.set_defaults(handler=run_card)
    learning = commands.add_parser(
        "learning",
        help="a page of how a model learned: the same samples at each evaluation, side by side, with curves",
        description="Reads what trainings logged, of those under way too. Prints the page's name.",
    )
    learning.add_argument(
        "folder",
        nargs="*",
        default=list(TRAININGS),
        metavar="FOLDER",
        help="holds a folder for each training (default: metrics/train and .muomni/state)",
    )
    learning.add_argument("--page", default="learning.html", metavar="FILE.html", help="default: %(default)s")
    learning.set_defaults(handler=run_learning)


def run_card(args: argparse.Namespace) -> int:
    """Run ``muomni card``."""
    from muomni.passport.command import card

    return card(args)


def run_learning(args: argparse.Namespace) -> int:
    """Run ``muomni learning``."""
    from muomni.passport.command import learning

    return learning(args)
