"""The smoke run's copy: what git would track, its profile, nothing that points back at the checkout."""

import subprocess
from pathlib import Path

import pytest

from muomni.errors import UserError
from pipelines.smoke import prepare

FILES = {
    ".gitignore": "/data/\n",
    ".dvc/config": "[core]\n    analytics = false\n",
    "params.yaml": "profile: tiny\n",
    "profiles/smoke.yaml": "profile: smoke\n",
    "dvc.lock": "schema: '2.0'\n",
    "gone.py": "",
    "changed.py": "old",
    "data/big.bin": "ignored",
    "sub/näme with space.txt": "kept",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout with a deleted, a changed, an ignored and an untracked file."""
    root = tmp_path / "checkout"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "gone.py").unlink()
    (root / "changed.py").write_text("new")
    (root / "untracked.py").write_text("mine")
    return root


def test_copy_has_what_git_would_track_as_it_is_now(checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "left").mkdir(parents=True)
    env = prepare(checkout, copy, "smoke")
    found = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert found == (FILES.keys() - {"gone.py", "data/big.bin", "dvc.lock"}) | {
        "untracked.py",
        ".dvc/config.local",
    }
    assert (copy / "changed.py").read_text() == "new"
    assert (copy / "params.yaml").read_text() == "profile: smoke\n"
    assert (checkout / "params.yaml").read_text() == "profile: tiny\n"
    assert env["MUOMNI_STATE"] == str(copy / ".muomni")
    assert str(copy / ".dvc" / "cache") in (copy / ".dvc" / "config.local").read_text()


def test_unknown_profile_and_no_checkout_are_one_line(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such profile"):
        prepare(checkout, tmp_path / "copy", "smok")
    (tmp_path / "plain").mkdir()
    with pytest.raises(UserError, match="not a git checkout"):
        prepare(tmp_path / "plain", tmp_path / "copy", "smoke")
