"""The pipeline's commands of ``muomni``: ``registry``, ``track``, ``up`` and ``down``.

Only parsers are here; what a command does is imported when it runs.
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(commands: "Commands") -> None:
    """Add the commands; the entry point ``muomni.commands``."""
    add_track(commands)


def sync(args: argparse.Namespace) -> int:
    """Send to MLflow what waits."""
    from pipelines.sync import sync_all

    sync_all()
    return 0


def add_track(commands: "Commands") -> None:
    """``muomni track sync``."""
    track = commands.add_parser("track", help="metrics that could not be sent to MLflow while training")
    what = track.add_subparsers(dest="what", metavar="WHAT", required=True)
    what.add_parser("sync", help="send them now").set_defaults(handler=sync)
