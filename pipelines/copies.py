"""A copy of a committed revision, in which a run works while a person works in the checkout.

A run is named by what it computes: the revision and its parameters. So the same run started again finds what the one
before left, and two of the same cannot run at once. Under the state folder (``.muomni``)::

    runs/<key>/lock      held by the run, JSON: who holds it
    runs/<key>/copy/     a clone of the checkout at the revision; removed at the end, whatever the end was
    runs/<key>/state/    ``MUOMNI_STATE`` of the run's stages: checkpoints to resume from; removed after success
    runs/<key>/parent/   the run of the whole graph in MLflow

The copy shares git's objects and DVC's cache with the checkout, so that it costs little to make and what it computes
is there at once. Its result comes back as a DVC experiment, a commit under ``refs/exps``.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.config import Config

from muomni.errors import UserError
from pipelines import locks
from pipelines.dvc_cache import cache_of, make_ready
from pipelines.redact import redacted
from pipelines.run import state_root
from pipelines.sync import set_aside_all

KEPT_STATES = 8  # unfinished runs whose checkpoints are kept; the oldest beyond go


def command(*words: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """What a program prints.

    Raises:
        UserError: with its last line of complaint, if it fails.
    """
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise UserError(redacted(f"{' '.join(str(word) for word in words[:3])}: {said[-1]}")[:400])
    return done.stdout


def git(folder: Path, *words: str | Path) -> str:
    """What git prints in a folder, without the last line's end; raises as `command` does."""
    return command("git", *words, cwd=folder).rstrip("\n")


def for_dvc() -> dict[str, str]:
    """The environment of dvc: its stages say ``python`` and mean the one that runs this."""
    path = os.pathsep.join(filter(None, (str(Path(sys.executable).parent), os.environ.get("PATH"))))
    return os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}


def dvc(folder: Path, *words: str | Path) -> str:
    """What dvc prints in a folder; raises as `command` does."""
    return command(sys.executable, "-m", "dvc", *words, cwd=folder, env=for_dvc())


def resolve(checkout: Path, revision: str) -> str:
    """The commit of a revision: a commit, tag, branch, or the name of a DVC experiment.

    Raises:
        UserError: if the checkout has no such revision, or none at all.
    """
    if not (checkout / ".dvc").is_dir():
        raise UserError(f"{checkout}: no DVC repository; run this in the root of the checkout")
    for name in (revision, *experiment_refs(checkout, revision)):
        with suppress(UserError):
            return git(checkout, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    raise UserError(f"revision '{revision}': no such commit, tag, branch or experiment in {checkout}")


def experiment_refs(folder: Path, name: str) -> list[str]:
    """The refs of DVC experiments of a name, whatever commit they start from."""
    refs = git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    return [ref for ref in refs if ref.rpartition("/")[2] == name and not ref.startswith("refs/exps/exec/")]


def experiments_on(folder: Path, commit: str) -> list[str]:
    """The commits of the DVC experiments that start from a commit, the newest first."""
    where = f"refs/exps/{commit[:2]}/{commit[2:]}"
    return git(folder, "for-each-ref", "--sort=-committerdate", "--format=%(objectname)", where).splitlines()


def uncommitted(checkout: Path) -> list[str]:
    """Files of the checkout whose changes a run of a revision does not see; without dvc.lock, which runs make."""
    lines = git(checkout, "status", "--porcelain", "--untracked-files=all").splitlines()
    return [line[3:] for line in lines if line[3:] != "dvc.lock"]


def file_at(checkout: Path, commit: str, name: str) -> str:
    """A file of a commit.

    Raises:
        UserError: if the commit has none of this name.
    """
    try:
        return command("git", "show", f"{commit}:{name}", cwd=checkout)
    except UserError:
        raise UserError(f"{name}: not in revision {commit[:12]}") from None


@dataclass(frozen=True)
class Copy:
    """Where a run works.

    Attributes:
        checkout: whose revision it is.
        commit: the revision.
        root: ``runs/<key>``.
        key: the name of the run.
    """

    checkout: Path
    commit: str
    root: Path
    key: str

    @property
    def folder(self) -> Path:
        """The clone."""
        return self.root / "copy"

    @property
    def state(self) -> Path:
        """``MUOMNI_STATE`` of its stages."""
        return self.root / "state"

    @property
    def parent(self) -> Path:
        """The folder of the run of the whole graph."""
        return self.root / "parent"

    def env(self) -> dict[str, str]:
        """The environment of what runs in the copy: its own code, its own state, the checkout's tracking."""
        return for_dvc() | {
            "MUOMNI_STATE": str(self.state),
            "MUOMNI_CHECKOUT": str(self.checkout),
            "MUOMNI_PARENT": str(self.parent),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH")))),
            "PYTHONUNBUFFERED": "1",
        }


def runs_root() -> Path:
    """Where all runs in copies live."""
    return state_root() / "runs"


def key_of(commit: str, params: str) -> str:
    """The name of a run: what it computes."""
    return hashlib.sha256(f"{commit}\n{params}".encode()).hexdigest()[:12]


@contextmanager
def held(root: Path, who: Mapping[str, Any]) -> Iterator[None]:
    """Hold a run's lock.

    Raises:
        UserError: if another process does.
    """
    try:
        with locks.held(root / "lock", who):
            yield
    except locks.Busy as busy:
        name = f"{busy.who['name']}, " if busy.who.get("name") else ""
        raise UserError(
            f"this revision runs with these parameters already ({name}process {busy.who.get('pid', 'unknown')}); "
            "wait for it or cancel it"
        ) from None


def lay_out(copy: Copy, params: str) -> None:
    """Make the clone, at the revision, with a run's parameters.

    Raises:
        UserError: if git or DVC fails.
    """
    shutil.rmtree(copy.folder, ignore_errors=True)
    copy.state.mkdir(parents=True, exist_ok=True)
    git(copy.root, "clone", "--quiet", "--shared", "--no-checkout", copy.checkout, copy.folder)
    git(copy.folder, "checkout", "--quiet", "--detach", copy.commit)
    for name, value in (("user.name", "muOmni"), ("user.email", "muomni@localhost")):
        own = subprocess.run(["git", "config", name], cwd=copy.checkout, capture_output=True, text=True, check=False)
        git(copy.folder, "config", name, own.stdout.strip() or value)
    settings = copy.checkout / ".dvc" / "config.local"
    if settings.is_file():
        shutil.copy(settings, copy.folder / ".dvc" / "config.local")
    with Config(str(copy.folder / ".dvc")).edit("local") as local:
        # Links are made in a moment; stages put new files in the place of old ones and never write into them.
        local["cache"] |= {"dir": str(cache_of(copy.checkout)), "type": "reflink,hardlink,copy"}
        local["core"] |= {"site_cache_dir": str(copy.root / "site"), "autostage": False, "analytics": False}
    make_ready(copy.folder)  # a lock file may have been committed as a killed dvc left it
    (copy.folder / "params.yaml").write_text(params, encoding="utf-8")


def take_away(copy: Copy, finished: bool) -> None:
    """Remove the clone, and after success all there is of the run."""
    for folder in (copy.folder, copy.root / "site", *([copy.state] if finished else [])):
        shutil.rmtree(folder, ignore_errors=True)


def prune() -> None:
    """Remove clones that killed runs left behind, and the states of all but the newest unfinished runs."""
    roots = sorted(runs_root().glob("*/"), key=lambda path: path.stat().st_mtime, reverse=True)
    for i, root in enumerate(root for root in roots if locks.holder(root / "lock") is None):
        shutil.rmtree(root / "copy", ignore_errors=True)
        shutil.rmtree(root / "site", ignore_errors=True)
        if i >= KEPT_STATES or not (root / "state").exists():
            set_aside_all(root)  # what MLflow has not got yet
            shutil.rmtree(root, ignore_errors=True)


def save_experiment(copy: Copy, name: str, stages: list[str], message: str) -> str:
    """Save what the copy holds as a DVC experiment and bring it into the checkout.

    Args:
        copy: where the stages ran.
        name: of the experiment; one that the checkout has from the same commit is replaced.
        stages: that are up to date in the copy.
        message: of the commit.

    Returns:
        The experiment's commit.

    Raises:
        UserError: if git or DVC fails.
    """
    dvc(copy.folder, "exp", "save", "--force", "--name", name, "--message", message, *stages)
    (ref,) = experiment_refs(copy.folder, name)
    git(copy.checkout, "fetch", "--quiet", "--no-tags", copy.folder, f"+{ref}:{ref}")
    return git(copy.checkout, "rev-parse", ref)
