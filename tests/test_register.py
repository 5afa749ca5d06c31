"""The registry, on a real sqlite file: versions, aliases, who is champion, and that what is registered answers."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import yaml
from registered_models import CFG, SOUND, measure, picture, registered, train

from muomni.errors import UserError
from muomni.tokenizer import Tokenizer
from pipelines.promotion import better
from pipelines.versions import registry_client, resolve


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, with a registry of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # what MLflow itself sets meanwhile is undone afterwards
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    yield tmp_path


def test_better_asks_for_the_gain_in_the_right_direction() -> None:
    down = CFG.model_copy(update={"higher_is_better": False, "min_gain": 0.0})
    assert better(0.8, 0.7, CFG) and not better(0.705, 0.7, CFG) and not better(0.6, 0.7, CFG)
    assert better(0.1, 0.2, down) and not better(0.2, 0.2, down)


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


def test_a_version_has_tags_data_figures_signature_and_example(registration: tuple[Path, dict], home: Path) -> None:
    said, client = registration[1], registry_client()
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
    run_id = client.get_model_version_by_alias("muomni", "champion").run_id
    page = client.download_artifacts(run_id, "samples/speech.html")
    assert Path(page).read_text() == f"a page of {'a' * 64}"
    entry = resolve(client, "muomni", "champion")
    assert entry.figures["accuracy"] == {"value": 0.7, "n": 100, "interval": [0.7 - 0.02, 0.7 + 0.02]}
    assert entry.held_out == "a" * 64


def test_the_champion_answers_far_from_the_checkout(home: Path) -> None:
    rows = {"text": ["Is a dog an animal?", "What is it?"], "image": [None, picture()]}
    spoken = {"text": ["Read this aloud: a dog"], "audio": [SOUND], "speak": [True]}
    model = "models:/muomni@champion"
    told, said = ask(home, (model, rows, {"max_tokens": 6}), (model, spoken, {"max_tokens": 4}))
    assert list(told) == ["text", "audio"] and len(told["text"]) == 2 and told["audio"] == ["", ""]
    assert said["audio"][0] == "" or base64.b64decode(said["audio"][0]).startswith(b"RIFF")


def test_every_part_answers_far_from_the_checkout(home: Path) -> None:
    asked = [(f"models:/{name}@challenger", rows, {}) for name, (rows, _) in REQUESTS.items()]
    answers = dict(zip(REQUESTS, ask(home, *asked), strict=True))
    assert {name: list(answer) for name, answer in answers.items()} == {
        n: columns for n, (_, columns) in REQUESTS.items()
    }
    for name in ("muomni-codec", "muomni-talker"):
        wave, rate = soundfile.read(io.BytesIO(base64.b64decode(answers[name]["audio"][0])))
        assert rate == 16000 and len(wave) > 320
        assert name != "muomni-codec" or abs(len(wave) - 8000) <= 640, "as long as the recording"
    seen = answers["muomni-vision-encoder"]
    assert seen["name"][0] in ("dog", "apple") and -1 <= seen["score"][0] <= 1


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
