"""The options of ``muomni serve``. They need nothing of the group ``serve``: ``muomni --help`` works without it."""

import argparse
from collections.abc import Callable
from importlib.util import find_spec

from muomni.errors import UserError
from muomni.options import Parser, add_model_options, add_weights, number
from muomni.serve.settings import Limits

NEEDED = ("fastapi", "uvicorn", "multipart", "prometheus_client", "websockets")
DAY = 86_400
# Option, field of `Limits`, most, what it is.
LIMITS: list[tuple[str, str, float, str]] = [
    ("--body-bytes", "body", 2**31, "bytes of a request"),
    ("--upload-seconds", "upload_s", DAY, "seconds in which a request must have come"),
    ("--request-seconds", "request_s", DAY, "seconds in which an answer must be complete, waiting included"),
    ("--messages", "messages", 10_000, "messages of a conversation"),
    ("--characters", "characters", 10**7, "characters of a conversation, or to be said"),
    ("--pictures", "pictures", 1000, "pictures of a conversation"),
    ("--picture-bytes", "picture", 500_000_000, "bytes of a picture"),
    ("--pixels", "pixels", 50_000_000, "pixels of a picture"),
    ("--recordings", "recordings", 1000, "recordings of a conversation"),
    ("--sound-seconds", "seconds", 600, "seconds of all recordings of a request together"),
    ("--choices", "choices", 128, "answers to one request, `n`"),
    ("--remote-seconds", "remote_s", 600, "seconds in which a picture from elsewhere must have come"),
    ("--remote-redirects", "redirects", 20, "redirects on the way to it"),
]


def add_serve(commands: "argparse._SubParsersAction[Parser]") -> None:
    """``muomni serve``."""
    serve = commands.add_parser(
        "serve",
        help="answer clients of OpenAI's API, and show a page",
        description="SIGTERM or Ctrl-C: nothing new is taken, what was begun is finished; again: it ends at once.",
    )
    serve.set_defaults(handler=start)
    add_model_options(serve)
    add_weights(serve)

    def option(name: str, kind: Callable[[str], float], low: float, high: float, default: float, text: str) -> None:
        letter, sense = ("N" if kind is int else "S"), f"{text} (default: %(default)s)"
        serve.add_argument(name, type=number(kind, low, high), default=default, metavar=letter, help=sense)

    option("--port", int, 0, 65535, 8000, "where to listen; 0 takes a free one")
    serve.add_argument(
        "--host", default="127.0.0.1", help="others than this machine's need a key (default: %(default)s)"
    )
    serve.add_argument(
        "--host-name", action="append", default=[], metavar="NAME", help="a further name that leads here (repeatable)"
    )
    serve.add_argument("--api-key-file", metavar="FILE", help="what clients must show; or set MUOMNI_API_KEY")
    serve.add_argument(
        "--served-name", default="muomni", metavar="NAME", help="the model's name (default: %(default)s)"
    )
    serve.add_argument("--allow-remote", action="store_true", help="fetch pictures from public http(s) addresses")
    option("--slots", int, 1, 1024, 32, "answers that are written at the same time")
    option("--queue", int, 0, 100_000, 64, "requests that may wait for that; further ones are told to come again")
    option(
        "--threads", int, 1, 256, 1, "CPU threads of one product of the Thinker, on a machine with nothing else to do"
    )
    option("--workers", int, 1, 64, 2, "threads for pictures and sound")
    option("--check-every", float, 0, DAY, 10.0, "seconds between looks for another model; 0: never")
    option("--drain", float, 0, DAY, 300.0, "seconds that the old model then has for what it began")
    option("--grace", float, 0, DAY, 30.0, "seconds that a stop waits for what was begun")
    limits = serve.add_argument_group("limits of a request")
    for name, field, most, text in LIMITS:
        default = getattr(Limits(), field)
        whole = isinstance(default, int)
        limits.add_argument(
            name,
            dest=field,
            type=number(int if whole else float, 0 if whole else 0.1, most),
            default=default,
            metavar="N" if whole else "S",
            help=f"{text} (default: %(default)s)",
        )


def start(args: argparse.Namespace) -> int:
    """Run ``muomni serve``.

    Raises:
        UserError: if what it needs is not installed, beside what `muomni.serve.command.serve` raises.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"serve: {', '.join(missing)} is not installed; run `pip install 'muomni[serve]'`")
    from muomni.serve import command

    return command.serve(args)
