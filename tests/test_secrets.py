"""Secrets that are planted around real runs turn up in nothing that the runs write."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from fake_project import EVALUATE, ROOT, commit_all, environment, make_project, run
from jsonschema import Draft202012Validator
from registered_models import CFG, measure, registered, train

from muomni.errors import UserError
from muomni.tokenizer import Tokenizer
from pipelines.form import ParamChanges, applied
from pipelines.redact import redacted
from pipelines.sender import tracking_uri

# What is planted where; each is found by its own name if it leaks.
TRACKER = "planted-tracker-0f3a"
GIT = "planted-git-1b7c"
DVC = "planted-dvc-2d9e"
STAGE = "planted-stage-3a5b"
SIGNED = "planted-signature-4c8d"
VARIABLE = "planted-variable-5e1f"
PLANTED = (TRACKER, GIT, DVC, STAGE, SIGNED, VARIABLE)

# A stage that says what a stage should not: its environment, an address of a download, the reason of its end.
# Its source must not have them in one piece, for that is in git.
TALKATIVE = f"""\
import os
if os.environ.get("FAIL"):
    print({{name: value for name, value in os.environ.items() if name.startswith("MY_")}})
    print("GET https://host.example/data?X-Amz-Expires=9&X-Amz-Signature={SIGNED[:9]}" "{SIGNED[9:]}&part=1 HTTP/1.1")
    raise RuntimeError("cannot reach https://somebody:{STAGE[:9]}" "{STAGE[9:]}@host.example/data.tar")
"""


def contents(folder: Path) -> dict[str, bytes]:
    """What is in a folder, by file; databases and git's objects as what is in them."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[str(path.relative_to(folder))] = path.read_bytes()
            if path.suffix == ".db":
                with sqlite3.connect(path) as base:  # long texts lie in parts in the file
                    found[f"{path.relative_to(folder)} (dump)"] = "\n".join(base.iterdump()).encode()
    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=folder, capture_output=True, check=True
    )
    return found | {"git's objects": objects.stdout}


def leaks(folder: Path, said: str = "") -> list[tuple[str, str]]:
    """Which of the planted secrets are where they were not planted."""
    planted = {(".git/config", GIT), (".dvc/config.local", DVC)}
    everything = contents(folder) | {"standard output": said.encode()}
    found = {(name, secret) for name, text in everything.items() for secret in PLANTED if secret.encode() in text}
    assert planted <= found, "they are there"
    return sorted(found - planted)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with secrets around it."""
    make_project(tmp_path, steps=20)
    (tmp_path / "fake" / "evaluate.py").write_text(EVALUATE.replace("def run():", f"{TALKATIVE}\ndef run():"))
    run(tmp_path, "git", "remote", "add", "origin", f"https://somebody:{GIT}@host.example/muomni.git")
    address = f"https://somebody:{DVC}@host.example/cache"
    run(tmp_path, sys.executable, "-m", "dvc", "remote", "add", "--local", "--default", "store", address)
    commit_all(tmp_path)
    return tmp_path


def flow(project: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run flow `train`; tracking, dvc and Prefect's records are real."""
    whole = environment(project) | {"MY_SECRET_KEY": VARIABLE, "FAKE_SECONDS": "0.01"} | env
    command = [sys.executable, "-m", "pipelines.flows", "train"]
    return subprocess.run(command, cwd=project, env=whole, capture_output=True, text=True, timeout=300, check=False)


def test_a_run_that_fails_and_one_that_ends_well_tell_nothing(project: Path) -> None:
    failed = flow(project, FAIL="1", MLFLOW_TRACKING_URI=f"http://somebody:{TRACKER}@127.0.0.1:9/mlflow")
    said = failed.stdout + failed.stderr
    assert failed.returncode == 2 and "RuntimeError: cannot reach https://host.example/data.tar" in said, said
    assert list((project / ".muomni/unsent").iterdir()), "the tracker is away"
    well = flow(project)
    assert well.returncode == 0, well.stderr
    with sqlite3.connect(project / "mlruns/mlflow.db") as base:
        ends = base.execute("select name, status from runs").fetchall()
    assert {("train", "FINISHED"), ("evaluate", "FAILED"), ("evaluate", "FINISHED")} <= set(ends), ends
    assert leaks(project, said + well.stdout + well.stderr) == []
    kept = contents(project)[".muomni/workplace/prefect/prefect.db (dump)"].decode().replace("''", "'")
    assert "X-Amz-Signature=***&part=1" in kept and "'MY_SECRET_KEY': '***'" in kept, "they said it"


@pytest.mark.parametrize("word", ["plain", "with:colons", "a/slash", "an@at", "per%cent"])
def test_mlflow_never_has_an_address_with_a_password(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # put back afterwards
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://some%40body:{quote(word, safe='')}@host.example:5000/mlflow")
    assert tracking_uri() == tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == "https://host.example:5000/mlflow"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "some@body" and os.environ["MLFLOW_TRACKING_PASSWORD"] == word


def test_a_registered_model_tells_nothing(
    project: Path, small: tuple[object, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow notes by itself who logs a model from where: the command, the revision, the packages."""
    monkeypatch.chdir(project)
    for name, value in {"MLFLOW_TRACKING_URI": "", "MY_SECRET_KEY": VARIABLE}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["register", f"--from=https://somebody:{STAGE}@host.example/"])
    train(project, small[1], 0)
    measure(project, 0.7, "a" * 64)
    assert registered(project, CFG.model_copy(update={"components": False}))
    assert leaks(project) == []


@pytest.mark.parametrize("text", ["s3://user:word@bucket/a", "https://only-a-token@host/x", "a b ftp://u:p@h"])
def test_parameters_with_a_password_are_refused_before_anybody_keeps_them(text: str) -> None:
    smoke = (ROOT / "profiles/smoke.yaml").read_text()
    schema = Draft202012Validator(ParamChanges.model_json_schema())
    for changes in ({"text": {"path": text}}, {"speech": {"espeak_voices": ["en-us", text]}}):
        with pytest.raises(UserError, match="has a user or a password in an address") as refused:
            applied(smoke, changes, "profiles/smoke.yaml")
        assert text not in str(refused.value)
        (error,) = schema.iter_errors(changes)
        assert error.validator == "pattern"
    good = {"text": {"path": "/data/a@b/texts"}, "speech": {"espeak_voices": ["en-us+f2"]}}
    assert not list(schema.iter_errors(good))
    applied(smoke, good, "profiles/smoke.yaml")


def test_what_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "PGPASSWORD", "my_api_key"):
        monkeypatch.setenv(name, f"{name}-value-1")
    monkeypatch.setenv("LONGER_SECRET", "HF_TOKEN-value-1-and-more")
    for name, value in {"A_KEY": "short1", "KEYBOARD": "qwertzuiop", "SSH_AUTH_SOCK": "/tmp/agent.1"}.items():
        monkeypatch.setenv(name, value)
    line = "HF_TOKEN-value-1, HF_TOKEN-value-1-and-more my_api_key-value-1 short1 qwertzuiop /tmp/agent.1"
    assert redacted(line) == "***, *** *** short1 qwertzuiop /tmp/agent.1"
    for text, masked in {
        "https://h/x?sv=1&sig=ab%2Fc%3D&se=2": "https://h/x?sv=1&sig=***&se=2",
        "https://h/x?access_token=abc#part": "https://h/x?access_token=***#part",
        "https://h/x?X-Goog-Credential=a%40b&a=1": "https://h/x?X-Goog-Credential=***&a=1",
        "{'Authorization': 'Basic bXVvbW5pOnNlY3JldA=='}": "{'Authorization': 'Basic ***'}",
        "Authorization: Bearer abc.def-ghi_jkl": "Authorization: Bearer ***",
        "clone https://u:p@h/r.git: failed": "clone https://h/r.git: failed",
    }.items():
        assert redacted(text) == masked
    for harmless in ("step 20/30: loss 1.5, 0.02 s/step, 00:01 left", "a-thinker: basic words, 5 tokens", "a?b=c&d=e"):
        assert redacted(harmless) == harmless
