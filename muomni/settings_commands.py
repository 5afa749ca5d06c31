"""``muomni params`` and ``muomni profile``: the parameter files of the current folder."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from muomni.config import near
from muomni.data.files import atomic_write_bytes
from muomni.errors import UserError
from muomni.parameter_table import read_shapes, render
from muomni.params import read_params

PROFILES = Path("profiles")
PARAMS = Path("params.yaml")
BACKUP = Path("params.yaml.bak")


def profile_names() -> list[str]:
    """The profiles of the current folder.

    Raises:
        UserError: if it has none.
    """
    names = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if not names:
        raise UserError(f"{PROFILES}/: no profiles here; run this in the root of the repository")
    return names


def profile_file(name: str) -> Path:
    """The file of a profile.

    Raises:
        UserError: listing the profiles, if there is none of this name.
    """
    names = profile_names()
    if name not in names:
        raise UserError(f"profile '{name}': not known{near(name, names)}; there are {', '.join(names)}")
    return PROFILES / f"{name}.yaml"


def params(args: argparse.Namespace) -> int:
    """Print the table of parameters."""
    path = profile_file(args.profile) if args.profile else Path(args.params)
    shapes, stage_c = read_shapes(path)
    print(render(shapes, stage_c, path.stem if args.profile else str(path)))
    return 0


def profile(args: argparse.Namespace) -> int:
    """List the profiles, or check one and copy it to params.yaml.

    Raises:
        UserError: if params.yaml cannot be written.
    """
    if args.name is None:
        print("\n".join(profile_names()))
        return 0
    source = profile_file(args.name)
    read_params(source)
    new = source.read_bytes()
    old = PARAMS.read_bytes() if PARAMS.is_file() else new
    try:
        if old not in (new, *(path.read_bytes() for path in PROFILES.glob("*.yaml"))):
            atomic_write_bytes(BACKUP, old)
            print(f"{PARAMS} had changes of its own; they are in {BACKUP}", file=sys.stderr)
        atomic_write_bytes(PARAMS, new)
    except OSError as error:
        raise UserError(f"{PARAMS}: cannot be written ({error.strerror})") from None
    print(f"{PARAMS} is now profile {args.name}; `make repro` trains it", file=sys.stderr)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"params": params, "profile": profile}
