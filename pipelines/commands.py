"""The pipeline's commands of ``muomni``: ``registry``, ``track``, ``up`` and ``down``.

Only parsers are here; what a command does is imported when it runs.
"""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

WHERE = ("here", "kubernetes", "slurm", "slurm-jobs")  # the pools of `pipelines.pools`, which costs an import

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(commands: "Commands") -> None:
    """Add the commands; the entry point ``muomni.commands``."""
    add_registry(commands)
    add_track(commands)
    add_up(commands)


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


def up(args: argparse.Namespace) -> int:
    """Start the workplace."""
    from pipelines import workplace
    from pipelines.access import Access

    def say(text: str) -> None:
        print(text, flush=True)

    access = Access.of(args.host, args.name)
    # In the background another process says the rest, into a file, where the token must not be.
    if (access.drawn or not args.detach) and (told := access.tell(sys.stdout.isatty())):
        say(told)
    if args.detach:
        words = ["--host", args.host, "--port", str(args.port), "--mlflow-port", str(args.mlflow_port)]
        words += ["--pool", args.pool]
        workplace.up_in_background([*words, *(word for name in args.name for word in ("--name", name))], say)
    else:
        workplace.up(access, args.port, args.mlflow_port, say, args.pool)
    return 0


def down(args: argparse.Namespace) -> int:
    """End the workplace."""
    from pipelines import workplace

    pid = workplace.down()
    print("the workplace is not up" if pid is None else f"ended the workplace (process {pid})", file=sys.stderr)
    return 0


def add_up(commands: "Commands") -> None:
    """``muomni up`` and ``muomni down``."""
    starts = commands.add_parser(
        "up", help="start the Prefect server, its worker and the MLflow UI; Ctrl-C or `muomni down` ends them"
    )
    starts.add_argument("--detach", action="store_true", help="in the background")
    starts.add_argument(
        "--host",
        default="127.0.0.1",
        help="where to listen (default: %(default)s, this machine only); elsewhere a token is asked for",
    )
    starts.add_argument(
        "--name", action="append", default=[], metavar="NAME", help="a further name that leads here, as a proxy's"
    )
    for name, port, what in (("--port", 4200, "Prefect"), ("--mlflow-port", 5000, "MLflow")):
        starts.add_argument(name, type=int, default=port, metavar="PORT", help=f"of {what} (default: {port})")
    starts.add_argument(
        "--pool", default="here", choices=WHERE, help="where runs work; elsewhere you start the worker (docs/pools.md)"
    )
    starts.set_defaults(handler=up)
    commands.add_parser("down", help="end the workplace").set_defaults(handler=down)


def registry(name: str) -> Callable[[argparse.Namespace], int]:
    """The handler of this name in `pipelines.registry_commands`."""

    def handle(args: argparse.Namespace) -> int:
        from pipelines import registry_commands

        handler: Callable[[argparse.Namespace], int] = getattr(registry_commands, name)
        return handler(args)

    return handle


def add_registry(commands: "Commands") -> None:
    """``muomni registry list``, ``compare``, ``promote`` and ``rollback``."""
    parser = commands.add_parser(
        "registry",
        help="the models in MLflow's registry: list, compare, promote, roll back",
        description="A version is a number, an alias such as champion, or muomni-thinker/2, muomni-thinker@champion.",
    )
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    what.add_parser("list", help="all versions of the model and of its parts").set_defaults(
        handler=registry("show_list")
    )
    compare = what.add_parser("compare", help="every figure of two or more versions, better and worse marked")
    compare.add_argument("versions", metavar="VERSION", nargs="+", help="the others are compared with the first")
    compare.add_argument("--chart", metavar="FILE", help="also draw it, into a .png, or an .html with the table")
    compare.set_defaults(handler=registry("show_comparison"))
    promote = what.add_parser("promote", help="make a version champion, if it is better by the rule in params.yaml")
    promote.add_argument("version", metavar="VERSION", nargs="?", default="challenger", help="default: challenger")
    promote.set_defaults(handler=registry("show_promotion"))
    what.add_parser("rollback", help="make the champion before champion again").set_defaults(
        handler=registry("show_rollback")
    )
