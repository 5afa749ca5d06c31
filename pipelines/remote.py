"""dvc's remote, asked before it is used: ``python -m pipelines.remote push``, ``pull``, ``check``.

dvc itself tells of wrong credentials in three lines for one command and as an unexpected error for another, after it
has hashed everything. Here the remote is asked first, and what is wrong with it is one line. Then dvc does the work.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from muomni.errors import UserError, ending_in_one_line, one_line
from pipelines.addresses import without_userinfo


def opened(name: str | None, root: Path) -> tuple[Any, str]:
    """A remote of dvc's, and its address as people may see it.

    Raises:
        UserError: if there is no repository, no such remote, or what reads it is not installed.
    """
    from dvc.exceptions import DvcException
    from dvc.fs import RemoteMissingDepsError
    from dvc.repo import Repo

    try:
        remote = Repo(str(root)).cloud.get_remote(name=name)
        remote.fs.fs  # noqa: B018  # what reads it is imported here
    except RemoteMissingDepsError:
        raise UserError("the remote needs further packages; run `pip install 'muomni[cluster]'`") from None
    except DvcException as error:
        told = one_line(error).split(". ")[0]
        raise UserError(f"{told}; `dvc remote add --default store s3://BUCKET/FOLDER` names one") from None
    shown = remote.fs.unstrip_protocol(remote.path)
    return remote, without_userinfo(shown)


def check(name: str | None = None, root: Path = Path()) -> str:
    """Whether a remote answers and lets us in; returns its address.

    Raises:
        UserError: if it does not: one line that says why.
    """
    remote, shown = opened(name, root)
    try:
        remote.fs.fs.ls(remote.path)
    except FileNotFoundError as error:
        if "bucket" in str(error).lower():
            raise UserError(f"{shown}: no such bucket; make it, or correct the address") from None
    except PermissionError as error:
        what = f"access is refused ({one_line(error)})"
        raise UserError(
            f"{shown}: {what}; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and their rights"
        ) from None
    except Exception as error:  # of whatever library reads it
        if "credentials" in str(error).lower():
            raise UserError(f"{shown}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
        raise UserError(f"{shown}: {without_userinfo(one_line(error))}; check AWS_ENDPOINT_URL") from None
    return shown


def main() -> int:
    """Exit code of dvc; 2 if the remote cannot be used."""
    parser = argparse.ArgumentParser(description="Ask dvc's remote whether it can be used, then push or pull.")
    parser.add_argument("what", choices=("check", "push", "pull"))
    parser.add_argument("--remote", metavar="NAME", help="another than the default one")
    parser.add_argument("targets", nargs="*", help="outputs or stages (default: all)")
    with ending_in_one_line():
        given = parser.parse_args()
        shown = check(given.remote)
        print(f"{shown}: answers", file=sys.stderr)
    if given.what == "check":
        return 0
    chosen = ["--remote", given.remote] if given.remote else []
    command = [sys.executable, "-m", "dvc", given.what, *chosen, *given.targets]
    return subprocess.run(command, env=os.environ | {"DVC_NO_ANALYTICS": "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
