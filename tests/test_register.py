"""The registry, on a real sqlite file: versions, aliases, who is champion, and that what is registered answers."""

import base64
import io
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
import soundfile
import torch
import yaml
from PIL import Image
from small_models import small_omni
from torch import nn

from muomni.audio_encoder import CTCHead
from muomni.base64_media import wav_text
from muomni.checkpoint import make_card, save_checkpoint
from muomni.cli import main
from muomni.errors import UserError
from muomni.registry_config import RegistryConfig
from muomni.tokenizer import Tokenizer
from muomni.train.c_vision_encoder import ContrastiveHeads
from pipelines.promotion import better
from pipelines.register import register
from pipelines.versions import registry_client, resolve

CFG = RegistryConfig(
    name="muomni", promote_by="accuracy", higher_is_better=True, min_gain=0.01, guards={}, components=True
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with a registry of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # what MLflow itself sets meanwhile is undone afterwards
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    yield tmp_path


def train(folder: Path, tokenizer: Tokenizer, seed: int) -> None:
    """Write checkpoints as all stages do; every seed gives other weights."""
    model = small_omni(seed)
    vocabulary = folder / "tokenizer.model"
    tokenizer.save(vocabulary)
    config = model.cfg.model_dump(mode="json")
    heads = ContrastiveHeads(model.cfg.vision_encoder.d_model, model.cfg.thinker.d_model, 16)
    made = {
        "omni": model,
        "thinker": model.thinker,
        "audio_encoder": nn.ModuleDict({"audio_encoder": model.audio_encoder, "ctc": CTCHead(model.cfg.audio_encoder)}),
        "vision_encoder": nn.ModuleDict({"vision_encoder": model.vision_encoder, "heads": heads}),
        "codec": model.codec,
        "talker": model.talker,
    }
    for name, part in made.items():
        card = make_card(
            name, part, data={"data/tokens": "abc"}, params={"seed": 0}, metrics={}, seconds=1.0, run="key"
        )
        files = {"tokenizer.model": vocabulary} if name == "omni" else {}
        save_checkpoint(folder / "checkpoints" / name, part.state_dict(), config, card, files)


def measure(folder: Path, accuracy: float, held_out: str) -> None:
    """Write metrics as stage evaluate does."""
    (folder / "metrics").mkdir(exist_ok=True)
    interval = [accuracy - 0.02, accuracy + 0.02]
    summary = {
        "accuracy": {"value": accuracy, "n": 100, "interval": interval},
        "dictation_cer": {"value": 0.1, "n": 20},
        "codec_mel_error": {"value": 0.4, "n": 30},
    }
    (folder / "metrics/summary.json").write_text(json.dumps(summary))
    (folder / "metrics/held_out.json").write_text(json.dumps({"sha256": held_out}))


def registered(folder: Path, cfg: RegistryConfig = CFG) -> dict:
    """Register what lies in the folder."""
    return register(cfg, folder / "checkpoints", folder / "metrics")


def test_better_asks_for_the_gain_in_the_right_direction() -> None:
    down = CFG.model_copy(update={"higher_is_better": False, "min_gain": 0.0})
    assert better(0.8, 0.7, CFG) and not better(0.705, 0.7, CFG) and not better(0.6, 0.7, CFG)
    assert better(0.1, 0.2, down) and not better(0.2, 0.2, down)


def picture() -> str:
    """A green picture in base64."""
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (0, 200, 0)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


SOUND = wav_text(0.1 * torch.sin(torch.arange(8000) * 0.15), 16000)
# Every part's request, and which columns come back.
REQUESTS = {
    "muomni-thinker": ({"text": ["A red"]}, ["text"]),
    "muomni-audio-encoder": ({"audio": [SOUND]}, ["text"]),
    "muomni-vision-encoder": ({"image": [picture()], "names": ["dog, apple"]}, ["name", "score"]),
    "muomni-codec": ({"audio": [SOUND]}, ["audio"]),
    "muomni-talker": ({"text": ["A dog."]}, ["audio"]),
}
# Ask registered models.
ASK = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
found = []
for address, rows, params in json.load(sys.stdin):
    found.append(mlflow.pyfunc.load_model(address).predict(pd.DataFrame(rows), params=params or None).to_dict("list"))
import muomni
print(json.dumps({"code": muomni.__file__, "answers": found}))
"""


def ask(folder: Path, *requests: tuple[str, dict, dict]) -> list[dict]:
    """Ask registered models, given their addresses, columns and parameters, away from the checkout; gives answers."""
    # -I: neither this folder nor PYTHONPATH; the code must come from the registry.
    command = [sys.executable, "-I", "-c", ASK, f"sqlite:///{folder}/mlruns/mlflow.db"]
    done = subprocess.run(
        command, input=json.dumps(requests), capture_output=True, text=True, cwd=folder.parent, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert str(folder / "mlruns") in found["code"]
    return found["answers"]


@pytest.fixture(scope="module")
def first(small: tuple[object, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A project whose model and parts are registered, which tests only read; and what the stage said of it."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.setenv("DVC_EXP_NAME", "wide")
        train(folder, small[1], 0)
        measure(folder, 0.7, "a" * 64)
        return folder, registered(folder)


@pytest.fixture
def there(first: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of `first`, as the folder to work in."""
    monkeypatch.chdir(first[0])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MUOMNI_STATE", str(first[0] / "state"))
    return first[0]


def test_a_version_has_tags_data_figures_signature_and_example(first: tuple[Path, dict], there: Path) -> None:
    said, client = first[1], registry_client()
    assert said["version"] == "1" and said["aliases"] == ["challenger", "champion"] and len(said["components"]) == 5
    for name, stage, figures in (("muomni", "e-omni", 3), ("muomni-codec", "d-codec", 1)):
        version = client.get_model_version_by_alias(name, "champion")
        wanted = {"stage": stage, "held_out_sha256": "a" * 64, "data.data/tokens": "abc", "dvc_exp": "wide"}
        assert wanted.items() <= version.tags.items()
        assert {"revision", "params_hash", "weights_sha256", "training_run"} <= version.tags.keys()
        run = client.get_run(version.run_id)
        assert len(run.data.metrics) == figures and run.data.metrics["codec_mel_error"] == 0.4
        inputs = {i.dataset.name: (i.dataset.digest, i.tags[0].value) for i in run.inputs.dataset_inputs}
        assert inputs == {"held-out": ("a" * 16, "evaluation"), "data/tokens": ("abc", "training")}
        model = client.get_logged_model(version.source.removeprefix("models:/"))
        assert {(m.dataset_name, m.dataset_digest) for m in model.metrics} == {("held-out", "a" * 16)}
        folder = Path(model.artifact_location.removeprefix("file://"))
        about = yaml.safe_load((folder / "MLmodel").read_text())
        assert about["signature"]["inputs"] and (folder / "input_example.json").is_file()
        assert [p for p in folder.rglob("*") if p.suffix in (".pkl", ".pt", ".bin")] == [], "nothing is pickled"
    entry = resolve(client, "muomni", "champion")
    assert entry.figures["accuracy"] == {"value": 0.7, "n": 100, "interval": [0.7 - 0.02, 0.7 + 0.02]}
    assert entry.held_out == "a" * 64


def test_the_champion_answers_far_from_the_checkout(there: Path) -> None:
    rows = {"text": ["Is a dog an animal?", "What is it?"], "image": [None, picture()]}
    spoken = {"text": ["Read this aloud: a dog"], "audio": [SOUND], "speak": [True]}
    model = "models:/muomni@champion"
    told, said = ask(there, (model, rows, {"max_tokens": 6}), (model, spoken, {"max_tokens": 4}))
    assert list(told) == ["text", "audio"] and len(told["text"]) == 2 and told["audio"] == ["", ""]
    assert said["audio"][0] == "" or base64.b64decode(said["audio"][0]).startswith(b"RIFF")


def test_every_part_answers_far_from_the_checkout(there: Path) -> None:
    asked = [(f"models:/{name}@challenger", rows, {}) for name, (rows, _) in REQUESTS.items()]
    answers = dict(zip(REQUESTS, ask(there, *asked), strict=True))
    assert {name: list(answer) for name, answer in answers.items()} == {
        n: columns for n, (_, columns) in REQUESTS.items()
    }
    for name in ("muomni-codec", "muomni-talker"):
        wave, rate = soundfile.read(io.BytesIO(base64.b64decode(answers[name]["audio"][0])))
        assert rate == 16000 and len(wave) > 320
        assert name != "muomni-codec" or abs(len(wave) - 8000) <= 640, "as long as the recording"
    seen = answers["muomni-vision-encoder"]
    assert seen["name"][0] in ("dog", "apple") and -1 <= seen["score"][0] <= 1


@pytest.fixture
def served(there: Path) -> Iterator[str]:
    """The address of `mlflow models serve`, a real server of the champion, away from the checkout."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    hidden = {"MLFLOW_TRACKING_URI", "PYTHONPATH"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{there}/mlruns/mlflow.db"
    # The server is started by its name: a `python` that lies in the environment of the tests.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/muomni@champion", "-p", port]
    with (there / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "--workers", "1"],
            **{"cwd": there.parent, "env": environment, "stdout": log, "stderr": log, "start_new_session": True},
        )
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, (there / "serve.log").read_text()[-2000:]
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
    there: Path, installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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


def test_promotion_of_a_second_training(
    small: tuple[object, Tokenizer], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = CFG.model_copy(update={"components": False})
    train(project, small[1], 0)
    measure(project, 0.7, "a")
    assert registered(project, without) == registered(project, without), "the same weights add no version"
    train(project, small[1], 1)
    measure(project, 0.705, "a")
    second = registered(project, without)
    assert second["version"] == "2" and second["aliases"] == ["challenger"], "the gain is below min_gain"
    measure(project, 0.9, "b")
    capsys.readouterr()
    assert registered(project, without)["aliases"] == ["challenger"]
    assert "other held-out data" in capsys.readouterr().out
    measure(project, 0.9, "a")
    third = registered(project, without)
    assert third["version"] == "2" and third["aliases"] == ["challenger", "champion"]
    client = registry_client()
    assert str(client.get_model_version_by_alias("muomni", "champion").version) == "2"
    assert len(client.search_model_versions("name = 'muomni'")) == 2
    assert client.get_run(third["run_id"]).data.metrics["accuracy"] == 0.9


def test_bad_input_is_one_line(small: tuple[object, Tokenizer], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no checkpoint folder here; run `dvc repro e-omni`"):
        registered(project)
    train(project, small[1], 0)
    with pytest.raises(UserError, match="summary.json: no such file; run `dvc repro evaluate`"):
        registered(project)
    measure(project, 0.7, "a")
    with pytest.raises(
        UserError, match=r"registry.promote_by: no figure 'speed' .*one of accuracy, codec_mel_error, dictation_cer"
    ):
        registered(project, CFG.model_copy(update={"promote_by": "speed"}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="http://127.0.0.1:9: MLflow failed"):
        registered(project)
