"""Models as MLflow keeps them: logged with code, checkpoints, signature, example, data and figures, then registered.

Importing this imports MLflow and pandas, which takes seconds.
"""

import base64
import importlib.metadata
import io
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
import torch
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric
from PIL import Image

import muomni
from muomni.base64_media import wav_text
from muomni.checkpoint import load_checkpoint
from muomni.tokenizer import MODEL_FILE
from pipelines import pyfunc_model, pyfunc_parts
from pipelines.answers import arrived, files_below
from pipelines.candidate import OMNI, Candidate
from pipelines.sender import experiment_id, tracked_name, tracking_uri
from pipelines.versions import added, versions, write_figures

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

# What a registered model needs where it is served; the code comes with it.
REQUIREMENTS = (
    *("torch", "torchaudio", "numpy", "safetensors", "sentencepiece", "pydantic", "pyyaml", "pillow"),
    *("soundfile", "soxr", "av", "pandas"),
)
PART_REQUIREMENTS = (*REQUIREMENTS, "webdataset", "tqdm")  # of the heads, which stand beside their training
# Further checkpoints that a part needs to answer; those in TEXT also read or write text by tokens.
NEEDS = {"vision_encoder": ("thinker",), "talker": ("thinker", "codec")}
TEXT = ("thinker", "vision_encoder", "talker")
HELD_OUT = "held-out"  # name of the data that figures were measured on


def picture() -> str:
    """A small red picture in base64."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (220, 40, 40)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def example(component: str) -> dict[str, list[str]]:
    """What a request looks like, by columns; of the whole model: a question about a picture and one without."""
    tone = wav_text(0.1 * torch.sin(torch.arange(8000) * 0.15), 16000)  # half a second
    return {
        OMNI: {"text": ["What color is it?", "Is a dog an animal?"], "image": [picture(), ""]},
        "thinker": {"text": ["The American people"]},
        "audio_encoder": {"audio": [tone]},
        "vision_encoder": {"image": [picture()], "names": ["dog, apple, bicycle"]},
        "codec": {"audio": [tone]},
        "talker": {"text": ["There are two dogs."]},
    }[component]


def form(new: Candidate) -> dict[str, Any]:
    """The arguments of ``mlflow.pyfunc.log_model`` that say what the model is."""
    folder = new.checkpoints / OMNI
    if new.component == OMNI:
        return {
            "python_model": pyfunc_model.__file__,
            "artifacts": {pyfunc_model.CHECKPOINT: str(folder)},
            "signature": pyfunc_model.SIGNATURE,
            "pip_requirements": pinned(REQUIREMENTS),
        }
    artifacts = {name: str(new.checkpoints / name) for name in (new.component, *NEEDS.get(new.component, ()))}
    if new.component in TEXT:
        artifacts["tokenizer"] = str(folder / MODEL_FILE)
    config = load_checkpoint(folder).config
    return {
        "python_model": pyfunc_parts.__file__,
        "artifacts": artifacts,
        "signature": pyfunc_parts.SIGNATURES[new.component],
        "pip_requirements": pinned(PART_REQUIREMENTS),
        "model_config": {"part": new.component, "mel": config["mel"], "griffin_lim": config["griffin_lim"]},
    }


def pinned(packages: tuple[str, ...]) -> list[str]:
    """Packages with the versions that are installed here."""
    return [f"{package}=={importlib.metadata.version(package)}" for package in packages]


@contextmanager
def new_run(client: "MlflowClient", new: Candidate) -> Iterator[str]:
    """A run of MLflow to log into; its id."""
    mlflow.set_tracking_uri(tracking_uri())
    mlflow.set_registry_uri(tracking_uri())
    name = f"register {new.component}"
    tags = new.tags | {"stage": "register", "registers": new.tags["stage"]}
    with mlflow.start_run(experiment_id=experiment_id(client), run_name=name, tags=tags) as run:
        yield str(run.info.run_id)


def ensure_version(client: "MlflowClient", new: Candidate) -> "ModelVersion":
    """The version with a candidate's weights, which is added if there is none, with today's figures in any case.

    The weights may be the same while what they were measured on is not.
    """
    weights = new.tags["weights_sha256"]
    found = next((v for v in versions(client, new.name) if v.tags.get("weights_sha256") == weights), None)
    if found is not None:
        record(client, str(found.run_id), str(found.source).removeprefix("models:/"), new)
        for key, text in new.tags.items():
            added(client.set_model_version_tag, new.name, found.version, key, text)
        return found
    arguments = form(new)
    with new_run(client, new) as run_id:
        info = mlflow.pyfunc.log_model(
            name="model",
            code_paths=[str(Path(muomni.__file__).parent)],
            input_example=pd.DataFrame(example(new.component)),
            **arguments,
        )
        check_files(client, str(info.model_id), [Path(path) for path in arguments["artifacts"].values()])
        record(client, run_id, str(info.model_id), new)
        return only_version(client, mlflow.register_model(info.model_uri, new.name, tags=new.tags))


def only_version(client: "MlflowClient", made: "ModelVersion") -> "ModelVersion":
    """The version with the weights of one that was just made: another process may have registered them meanwhile.

    The oldest stays, whoever looks, so all who registered the same at once agree on one without talking.
    """
    weights = made.tags["weights_sha256"]
    found = versions(client, made.name)
    arrived("a version", [str(made.version)], (str(version.version) for version in found))
    first = next(version for version in found if version.tags.get("weights_sha256") == weights)
    if str(first.version) != str(made.version):
        print(f"register: {made.name} version {first.version} was made of the same weights meanwhile and counts")
        client.delete_model_version(made.name, str(made.version))
    return first


def check_files(client: "MlflowClient", model_id: str, sources: Iterable[Path]) -> None:
    """Make sure that MLflow has a model's checkpoints, before that becomes a version.

    Args:
        client: of the tracker.
        model_id: of the logged model.
        sources: folders and files that the model was given.

    Raises:
        NotMLflow: if one is missing there, or has another size.
    """
    files = files_below(client, client.get_logged_model(model_id).artifact_location)
    for source in sources:
        place = f"artifacts/{source.name}" if source.is_dir() else "artifacts"
        wanted = {
            f"{p.name} of {p.stat().st_size} bytes" for p in ([*source.iterdir()] if source.is_dir() else [source])
        }
        found = (f"{Path(file.path).name} of {file.file_size} bytes" for file in files.list_artifacts(place))
        arrived("a model's files", wanted, found)


def record(client: "MlflowClient", run_id: str, model_id: str, new: Candidate) -> None:
    """Put figures, and the data behind them and behind the weights, into a version's run."""
    digest, now = new.held_out[:16], int(time.time() * 1000)
    inputs = [
        dataset(HELD_OUT, digest, "evaluation", {"sha256": new.held_out}),
        *(dataset(path, sha[:16], "training", {"path": path, "sha256": sha}) for path, sha in new.data.items()),
    ]
    added(client.log_inputs, run_id, inputs)
    metrics = [
        Metric(tracked_name(name), float(figure["value"]), now, 0, model_id, HELD_OUT, digest, run_id)
        for name, figure in new.figures.items()
    ]
    client.log_batch(run_id, metrics)
    write_figures(client, run_id, new.figures, new.held_out)


def dataset(name: str, digest: str, context: str, source: dict[str, str]) -> DatasetInput:
    """Data as an input of a run: MLflow keeps its name and hash, never the data."""
    tags = [InputTag("mlflow.data.context", context)]
    return DatasetInput(Dataset(name, digest, "local", json.dumps(source)), tags)
