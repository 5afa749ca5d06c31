"""Registered models in use: MLflow's server, and the commands that take a model from the registry."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from registered_models import SOUND, picture

from muomni.cli import main


@pytest.fixture
def served(home: Path) -> Iterator[str]:
    """The address of `mlflow models serve`, a real server of the champion, away from the checkout."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    hidden = {"MLFLOW_TRACKING_URI", "PYTHONPATH"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlruns/mlflow.db"
    # MLflow starts uvicorn by its name, which lies in the environment of the tests.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/muomni@champion", "-p", port]
    with (home / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "--workers", "1"],
            **{"cwd": home.parent, "env": environment, "stdout": log, "stderr": log, "start_new_session": True},
        )
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, (home / "serve.log").read_text()[-2000:]
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def post(address: str, body: dict) -> tuple[int, dict]:
    """Send JSON; gives the status and the answer."""
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_server_answers_text_pictures_and_audio(served: str) -> None:
    def asked(**row: object) -> dict:
        status, answer = post(served, {"dataframe_records": [row], "params": {"max_tokens": 6}})
        assert status == 200, answer
        (found,) = answer["predictions"]
        return found

    assert asked(text="Is a dog an animal?").keys() == {"text", "audio"}
    assert asked(text="What is it?", image=picture())["audio"] == "", "it was not to be spoken"
    heard = asked(text="Read this aloud: a dog", audio=SOUND, speak=True)
    assert heard["text"] and base64.b64decode(heard["audio"]).startswith(b"RIFF")
    status, answer = post(served, {"dataframe_records": [{"image": "no base64!"}]})
    assert status == 400 and "image: not base64; encode the bytes of the file" in json.dumps(answer)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's entry points as pyproject.toml has them now, whatever it had when it was installed."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "muomni-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: muomni\nVersion: 0\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(str(tmp_path))


def test_commands_take_a_registered_model(
    home: Path, installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--max-tokens", "6", "--device", "cpu"]
    assert main(["chat", "--text", "Is it?", "--checkpoint", "checkpoints/omni", *more]) == 0
    own = capsys.readouterr().out
    for address in ("models:/muomni@champion", "models:/muomni/1"):
        assert main(["chat", "--text", "Is it?", "--model", address, *more]) == 0
        assert capsys.readouterr().out == own, "the same weights, the same answer"
    (tmp_path / "sound.wav").write_bytes(base64.b64decode(SOUND))
    assert main(["transcribe", str(tmp_path / "sound.wav"), "--model", "models:/muomni@champion"]) == 0
    spoken = tmp_path / "said.wav"
    assert main(["say", "A dog.", "--audio-out", str(spoken), "--model", "models:/muomni@champion"]) == 0
    assert spoken.is_file()
    capsys.readouterr()
    for address, message in (
        ("checkpoints/omni", "for a folder use --checkpoint"),
        ("hub:/muomni", "nothing here knows 'hub:'; known: models"),
        ("models:/muomni@chief", "muomni has no alias 'chief'"),
        ("models:/muomni-codec/1", "holds no whole model"),
    ):
        assert main(["chat", "--text", "x", "--model", address]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("error: ") and message in err
    assert main(["chat", "--model", "models:/muomni/1", "--checkpoint", "checkpoints/omni"]) == 2
    assert "not allowed with" in capsys.readouterr().err
