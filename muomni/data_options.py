"""The options of ``muomni data``. What its commands need is imported when one runs."""

import argparse

from muomni.options import Parser, number


def add_data(commands: "argparse._SubParsersAction[Parser]") -> None:
    """``muomni data``: check, add."""
    data = commands.add_parser("data", help="check data of your own, and set the parameters to train on them")
    what = data.add_subparsers(dest="what", metavar="WHAT", required=True)
    check = what.add_parser(
        "check",
        help="what is in a folder, and what of it would stop or spoil a training",
        description="Reads everything as the stages will. The exit code is 1 if something would stop or spoil a "
        "training. Run in the root of the repository, where params.yaml is.",
    )
    add_source(check)
    check.add_argument("--tokenizer", metavar="FOLDER", help="name what it has no pieces for, such as data/tokenizer")
    check.add_argument(
        "--script", default="LATIN", metavar="NAME", help="that letters are in, as Unicode names it (default: LATIN)"
    )
    check.add_argument(
        "--limit",
        type=number(float, 0, 1),
        metavar="SHARE",
        help="of items with a problem that does no harm (default: max_bad_fraction of the section)",
    )
    check.add_argument(
        "--workers", type=number(int, 1, 64), default=2, metavar="N", help="processes (default: %(default)s)"
    )
    check.add_argument("--json", metavar="FILE", help="also write everything there")
    check.add_argument("--page", metavar="FILE.html", help="also write a page with histograms, players and pictures")
    add = what.add_parser(
        "add",
        help="write a profile that trains on a folder",
        description="Writes profiles/NAME.yaml: params.yaml with the source and what depends on it set.",
    )
    add_source(add)
    add.add_argument("--as", dest="name", required=True, metavar="NAME", help="of the profile, and of a single voice")
    for parser in (check, add):
        parser.set_defaults(handler=run)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Where the data are, and how they are read."""
    parser.add_argument("folder", nargs="?", metavar="DIR", help="a folder or address; what is in it is found out")
    parser.add_argument("--source", metavar="KIND", help="say what it is, such as ljspeech, manifest, jsonl, pictures")
    parser.add_argument("--path", metavar="ADDRESS", help="with --source: where it is")
    add_column(parser)
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="default: %(default)s")


def add_column(parser: argparse.ArgumentParser) -> None:
    """What a manifest calls its columns."""
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="WHAT=NAME",
        help="of a manifest: what it calls audio, text, speaker or split (may be repeated)",
    )


def run(args: argparse.Namespace) -> int:
    """Run one of them."""
    from muomni import data_commands

    return data_commands.COMMANDS[args.what](args)
