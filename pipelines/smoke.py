"""Run the whole graph at profile smoke in a copy of this checkout: ``python -m pipelines.smoke [--keep]``.

The copy holds what git tracks or would track, and has its own DVC cache, state and run history, so that
neither params.yaml nor anything else of the checkout changes. A second ``dvc repro`` in it must find nothing
to do.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from muomni.errors import UserError, ending_in_one_line
from pipelines import locks
from pipelines.run import state_root
from pipelines.times import read_times, table


def copy_checkout(source: Path, target: Path) -> None:
    """Copy the files that git tracks, or would track, with their uncommitted changes.

    Raises:
        UserError: if ``source`` is no git checkout.
    """
    command = ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        raise UserError(f"{source}: not a git checkout, so there is no list of files to copy for the smoke run")
    for name in filter(None, listed.stdout.split("\0")):
        if (source / name).is_file():  # a deleted file is still listed until that is committed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def prepare(source: Path, target: Path, profile: str) -> dict[str, str]:
    """Lay out the copy with its profile, and return the environment that keeps a run inside it.

    Raises:
        UserError: if the profile does not exist.
    """
    shutil.rmtree(target, ignore_errors=True)
    copy_checkout(source, target)
    wanted = target / "profiles" / f"{profile}.yaml"
    if not wanted.is_file():
        raise UserError(f"profiles/{profile}.yaml: no such profile")
    shutil.copy(wanted, target / "params.yaml")
    (target / "dvc.lock").unlink(missing_ok=True)
    # Not a git checkout of its own, and the cache must not be one that the user's own settings share.
    (target / ".dvc" / "config.local").write_text(
        f"[core]\n    no_scm = true\n[cache]\n    dir = {target / '.dvc' / 'cache'}\n", encoding="utf-8"
    )
    # The package as copied, also for the commands that the editable install puts on PATH.
    return {**os.environ, "MUOMNI_STATE": str(target / ".muomni"), "PYTHONPATH": str(target)}


def repro(target: Path, env: dict[str, str]) -> str:
    """Run ``dvc repro`` in the copy, pass its output on, and return it.

    Raises:
        UserError: if it fails.
    """
    command = [sys.executable, "-m", "dvc", "repro"]
    lines = []
    with subprocess.Popen(
        command,
        cwd=target,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise UserError(f"smoke run failed with code {process.returncode}; it is kept in {target}")
    return "".join(lines)


def smoke(source: Path, target: Path, profile: str) -> None:
    """Run the graph in a copy, twice: the second run must do nothing.

    Raises:
        UserError: if a stage fails, or runs again with nothing changed.
    """
    env = prepare(source, target, profile)
    repro(target, env)
    begin = time.monotonic()
    again = repro(target, env)
    if "Running stage" in again:
        raise UserError(f"a second `dvc repro` ran stages again with nothing changed; the copy is kept in {target}")
    print(table(read_times(target / ".muomni" / "times")))
    print(f"dvc repro with nothing to do: {time.monotonic() - begin:.1f} s")


def main() -> None:
    """Run it, and remove the copy if all went well.

    Raises:
        UserError: if a smoke run works there already.
    """
    parser = argparse.ArgumentParser(description="Run the graph at a small profile in a copy of this checkout.")
    parser.add_argument("--profile", default="smoke", help="name of a file in profiles/ (default: smoke)")
    parser.add_argument("--keep", action="store_true", help="leave the copy in place")
    options = parser.parse_args()
    target = state_root() / "smoke"
    with ending_in_one_line():
        try:
            with locks.held(target.with_name("smoke.lock")):  # another would remove this one's copy
                smoke(Path.cwd(), target, options.profile)
                if not options.keep:
                    shutil.rmtree(target)
        except locks.Busy as busy:
            raise UserError(
                f"{target}: a smoke run works there already (process {busy.who.get('pid', 'unknown')}); "
                "wait for it or end it"
            ) from None


if __name__ == "__main__":
    main()
