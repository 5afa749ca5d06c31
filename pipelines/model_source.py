"""What ``muomni chat --model models:/muomni@champion`` asks: the checkpoint inside a version, as a folder."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

from muomni.checkpoint import STAGES, WEIGHTS, weights_sha256
from muomni.errors import UserError
from pipelines.run import new_dir, state_root
from pipelines.sender import tracking_uri
from pipelines.versions import mlflow_errors, reading_client, resolve

MODEL = "muomni"  # the model that is meant where an address names none
INSIDE = "artifacts/omni"  # where `pipelines.logged` has MLflow put the checkpoint of a whole model


def fetch(address: str) -> Path:
    """The checkpoint folder of a registered whole model; the entry point ``models`` of ``muomni.model_sources``.

    A checkpoint that lies on this machine is used where it is. Another is downloaded once, to
    ``<state>/models/<hash of the weights>``.

    Args:
        address: ``models:/name@alias`` or ``models:/name/version``.

    Raises:
        UserError: if there is no such version, it holds no whole model, or MLflow fails.
    """
    with mlflow_errors("ask again"):
        client = reading_client()
        found = resolve(client, MODEL, address)
        if found.tags.get("stage", STAGES["omni"]) != STAGES["omni"]:
            raise not_whole(address)
        place = str(client.get_model_version_download_uri(found.name, found.version))
        if place.startswith("models:/m-"):  # MLflow names a logged model where older ones named its folder
            place = str(client.get_logged_model(place.removeprefix("models:/")).artifact_location)
        if place.startswith(("file:", "/")):
            return whole(Path(unquote(urlparse(place).path)) / INSIDE, address)
        digest = found.tags.get("weights_sha256", "")
        if not re.fullmatch("[0-9a-f]{64}", digest):  # a tag is whatever somebody set, and this becomes a path
            digest = ""
        kept = state_root() / "models" / (digest or f"{found.name}-{found.version}")
        if not kept.is_dir():
            from mlflow.artifacts import download_artifacts  # here, because it costs seconds

            with new_dir(kept) as made:
                folder = download_artifacts(
                    f"{place}/{INSIDE}", dst_path=str(made / "download"), tracking_uri=tracking_uri()
                )
                if digest and weights_sha256(whole(Path(folder), address)) != digest:
                    raise UserError(f"--model {address}: its weights are not those of its tag; register it again")
                for path in whole(Path(folder), address).iterdir():
                    shutil.move(path, made / path.name)
                shutil.rmtree(made / "download")
        return kept


def whole(folder: Path, address: str) -> Path:
    """The folder, if a checkpoint is in it.

    Raises:
        UserError: if not.
    """
    if not (folder / WEIGHTS).is_file():
        raise not_whole(address)
    return folder


def not_whole(address: str) -> UserError:
    """The error of a version that is no whole model."""
    return UserError(f"--model {address}: holds no whole model; name a version of '{MODEL}', not of a part")
