"""The registry, on a real sqlite file: versions, aliases, who is champion, and that what is registered answers."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from small_models import small_omni

from muomni.checkpoint import make_card, save_checkpoint
from muomni.errors import UserError
from muomni.registry_config import RegistryConfig
from muomni.tokenizer import Tokenizer
from pipelines.promotion import better
from pipelines.register import register
from pipelines.versions import registry_client

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
    for name in ("omni", "thinker", "audio_encoder", "vision_encoder", "codec", "talker"):
        part = model if name == "omni" else getattr(model, name)
        card = make_card(
            name, part, data={"data/tokens": "abc"}, params={"seed": 0}, metrics={}, seconds=1.0, run="key"
        )
        files = {"tokenizer.model": vocabulary} if name == "omni" else {}
        save_checkpoint(folder / "checkpoints" / name, part.state_dict(), config, card, files)


def measure(folder: Path, accuracy: float, held_out: str) -> None:
    """Write metrics as stage evaluate does."""
    (folder / "metrics").mkdir(exist_ok=True)
    summary = {"accuracy": {"value": accuracy, "n": 100}, "dictation_cer": {"value": 0.1, "n": 20}}
    (folder / "metrics/summary.json").write_text(json.dumps(summary))
    (folder / "metrics/held_out.json").write_text(json.dumps({"sha256": held_out}))


def registered(folder: Path, cfg: RegistryConfig = CFG) -> dict:
    """Register what lies in the folder."""
    return register(cfg, folder / "checkpoints", folder / "metrics")


def test_better_asks_for_the_gain_in_the_right_direction() -> None:
    down = CFG.model_copy(update={"higher_is_better": False, "min_gain": 0.0})
    assert better(0.8, 0.7, CFG) and not better(0.705, 0.7, CFG) and not better(0.6, 0.7, CFG)
    assert better(0.1, 0.2, down) and not better(0.2, 0.2, down)


ASK = """
import base64, sys, mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/muomni@champion")
import muomni
rows = pd.DataFrame({"text": ["Is a dog an animal?", "What is it?"], "image": [None, sys.argv[2]]})
told = model.predict(rows, params={"max_tokens": 6})
spoken = model.predict(pd.DataFrame({"text": ["Read this aloud: a dog"], "speak": [True]}), params={"max_tokens": 4})
print(muomni.__file__)
print([len(told), list(told.columns), base64.b64decode(spoken["audio"][0])[:4]])
"""


def ask_champion(folder: Path) -> tuple[str, str]:
    """Ask the champion in a process of its own; returns where its code lies, and what was answered."""
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), (0, 200, 0)).save(picture, "PNG")
    # -I: neither this folder nor PYTHONPATH; the code must come from the registry.
    command = [sys.executable, "-I", "-c", ASK, f"sqlite:///{folder}/mlruns/mlflow.db"]
    command += [base64.b64encode(picture.getvalue()).decode()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    where, answers = done.stdout.strip().splitlines()[-2:]
    return where, answers


def test_versions_aliases_promotion_and_that_the_champion_answers(
    small: tuple[object, Tokenizer], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(project, small[1], 0)
    measure(project, 0.7, "a")
    first = registered(project)
    assert first["version"] == "1" and first["aliases"] == ["challenger", "champion"]
    assert first["components"]["muomni-audio-encoder"] == "1" and len(first["components"]) == 5
    assert registered(project) == first, "the same weights add no version"
    client = registry_client()
    version = client.get_model_version("muomni", "1")
    assert version.tags["weights_sha256"] == first["weights_sha256"] and version.tags["data.data/tokens"] == "abc"
    assert client.get_run(version.run_id).data.metrics["dictation_cer"] == 0.1
    where, answers = ask_champion(project)
    assert "mlruns" in where and answers in ("[2, ['text', 'audio'], b'RIFF']", "[2, ['text', 'audio'], b'']")

    without = CFG.model_copy(update={"components": False})
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
    assert str(client.get_model_version_by_alias("muomni", "champion").version) == "2"
    assert len(client.search_model_versions("name = 'muomni'")) == 2


def test_bad_input_is_one_line(small: tuple[object, Tokenizer], project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no checkpoint folder here; run `dvc repro e-omni`"):
        registered(project)
    train(project, small[1], 0)
    with pytest.raises(UserError, match="summary.json: no such file; run `dvc repro evaluate`"):
        registered(project)
    measure(project, 0.7, "a")
    with pytest.raises(UserError, match=r"registry.promote_by: no figure 'speed' .*one of accuracy, dictation_cer"):
        registered(project, CFG.model_copy(update={"promote_by": "speed"}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="http://127.0.0.1:9: MLflow failed"):
        registered(project)
