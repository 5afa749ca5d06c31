"""dvc's remote in an object store, by the real protocol: what was pushed comes back, and wrong credentials are told."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_project import run
from remote_folders import s3_server

from pipelines.dvc_cache import objects_of

pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed (group cluster)")

ROOT = Path(__file__).parents[1]
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    with s3_server(monkeypatch) as client:
        client.create_bucket(Bucket="store")
        yield client


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with data that dvc has taken in, and a remote; to be copied."""
    folder, dvc = tmp_path_factory.mktemp("made"), (sys.executable, "-m", "dvc")
    (folder / "data/shards").mkdir(parents=True)
    for number in range(5):
        (folder / f"data/shards/train-{number:06d}.tar").write_bytes(os.urandom(70_000))
    run(folder, "git", "init", "--quiet")
    run(folder, *dvc, "init", "--quiet")
    (folder / ".dvc/config").write_text(
        "[core]\n    analytics = false\n    remote = store\n"
        "['remote \"store\"']\n    url = s3://store/muomni\n['remote \"away\"']\n    url = s3://nobodys/muomni\n"
    )
    run(folder, *dvc, "add", "--quiet", "data/shards")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "project", symlinks=True)


def remote(project: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.remote", *words]
    return subprocess.run(
        command, cwd=project, env=os.environ | env, capture_output=True, text=True, check=False, timeout=120
    )


def lose(project: Path) -> None:
    """As in a new clone: neither cache nor outputs."""
    for path in (".dvc/cache", "data/shards"):
        shutil.rmtree(project / path, ignore_errors=True)


def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the store checks who asks; this process, and what it starts, has a key that counts."""
    import boto3

    iam = boto3.client("iam")
    iam.create_user(UserName="somebody")
    key = iam.create_access_key(UserName="somebody")["AccessKey"]
    iam.put_user_policy(UserName="somebody", PolicyName="all", PolicyDocument=json.dumps(ALL))
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])


def test_what_was_pushed_is_pulled_with_the_same_hashes(project: Path, store: Any) -> None:
    before = objects_of(project / "data/shards")[0]
    pushed = remote(project, "push")
    assert pushed.returncode == 0, pushed.stderr
    kept = [entry["Key"] for entry in store.list_objects_v2(Bucket="store")["Contents"]]
    assert len(kept) == 6 and all(key.startswith("muomni/files/md5/") for key in kept)
    lose(project)
    pulled = remote(project, "pull")
    assert pulled.returncode == 0, pulled.stderr
    assert objects_of(project / "data/shards")[0] == before


def test_who_is_not_let_in_gets_one_line_before_anything_is_done(
    project: Path, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch)
    before = objects_of(project / "data/shards")[0]
    assert remote(project, "push").returncode == 0
    lose(project)
    cases = (
        ("pull", "access is refused", {"AWS_SECRET_ACCESS_KEY": "wrong" * 8}),
        ("push", "no credentials", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(project)}),
        ("check", "Could not connect", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
    )
    for command, what, env in cases:
        done = remote(project, command, **env)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("error: s3://store/muomni: ") and what in done.stderr
        assert "wrong" not in done.stderr and not done.stdout
    assert not (project / "data/shards").exists()
    assert remote(project, "pull").returncode == 0
    assert objects_of(project / "data/shards")[0] == before


def test_a_missing_bucket_or_remote_is_one_line(project: Path, store: Any) -> None:
    for words, what in (
        (("--remote", "away"), "error: s3://nobodys/muomni: no such bucket; "),
        (("--remote", "none"), "error: config file error: remote 'none' doesn't exist; "),
    ):
        done = remote(project, "push", *words)
        assert done.returncode == 2 and done.stderr.startswith(what) and done.stderr.count("\n") == 1, done.stderr
    (project / ".dvc/config").write_text("")
    done = remote(project, "pull")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "dvc remote add" in done.stderr, done.stderr
