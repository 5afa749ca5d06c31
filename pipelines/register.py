"""Stage register: the evaluated model and its parts into the MLflow registry, and who is champion.

A registered model has its code, its checkpoints, a signature and an example. Its version is tagged with the hash of
the weights, of the held-out data that it was measured on, of parameters and data. A version with the same weights is
never added twice. The newest is ``challenger``; it becomes ``champion`` if `pipelines.promotion` says so.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muomni.config import section
from muomni.data.files import atomic_write_json
from muomni.errors import UserError
from muomni.registry_config import RegistryConfig
from pipelines import locks
from pipelines.answers import arrived
from pipelines.candidate import candidates
from pipelines.kept_states import clear
from pipelines.promotion import PARTS, promote
from pipelines.run import common_root, main
from pipelines.versions import CHALLENGER, CHAMPION, added, aliases, mlflow_errors, registry_client

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CHECKPOINTS, METRICS, OUT = Path("checkpoints"), Path("metrics"), Path("metrics/registry.json")
CARD, DESCRIPTION = Path("card"), "description.md"
PAGE = Path("samples/speech.html")  # below the metrics
PAGES = {"card.html": "the card with pictures and sounds", "learning.html": "the page of how it learned"}


@contextmanager
def alone() -> Iterator[None]:
    """One process of this checkout registers at a time; the next finds what the one before it registered."""
    path = common_root() / "registry.lock"
    while True:
        try:
            file = locks.take(path)
            break
        except locks.Busy as busy:
            print(f"register: process {busy.who.get('pid', 'unknown')} is registering; waiting for it", file=sys.stderr)
            while locks.holder(path) is not None:
                time.sleep(0.2)
    with file:
        yield


def read_card(folder: Path) -> str:
    """The description of a version, from the model's card.

    Raises:
        UserError: if there is none.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `dvc repro card`")
    return path.read_text(encoding="utf-8")


def with_links(text: str, card: Path, at: str) -> str:
    """A description with links to the card's pages below its first paragraph.

    Args:
        text: of the card.
        card: its folder; pages that are not in it are left out.
        at: the run in MLflow's pages, relative to them, so that the links hold at whatever address they are served.
    """
    links = [f"[{told}]({at}/artifacts/{CARD}/{name})" for name, told in PAGES.items() if (card / name).is_file()]
    head, mark, rest = text.partition("\n## ")
    return head + (f"\nOpen {' or '.join(links)}.\n" if links else "") + mark + rest


def describe(client: "MlflowClient", version: "ModelVersion", card: Path) -> None:
    """Show a model's card in the registry: as the version's description, and whole among its run's files."""
    run = client.get_run(str(version.run_id)).info
    text = with_links(read_card(card), card, f"#/experiments/{run.experiment_id}/runs/{run.run_id}")
    client.update_model_version(version.name, version.version, text)
    client.log_artifacts(str(version.run_id), str(card), CARD.name)
    arrived("a description", [text], [str(client.get_model_version(version.name, version.version).description)])


def register(cfg: RegistryConfig, checkpoints: Path, metrics: Path, card: Path) -> dict[str, Any]:
    """Register the model that lies in a folder, with the figures that lie in another.

    Args:
        cfg: the section.
        checkpoints: holds ``omni`` and the parts.
        metrics: holds ``summary.json`` and ``held_out.json``, and perhaps the page with the speech's samples.
        card: of the whole model, as stage card writes it.

    Returns:
        Name, version, aliases, run and hashes, what was decided, and the parts' versions.

    Raises:
        UserError: if something is missing, or MLflow cannot be reached.
    """
    whole, parts = candidates(cfg, checkpoints, metrics)
    read_card(card)
    with alone(), mlflow_errors("`dvc repro register`"):
        client = registry_client()
        from pipelines.logged import ensure_version  # imports MLflow, after `connect` has switched its telemetry off

        numbers = {part.name: str(ensure_version(client, part).version) for part in parts}
        version = ensure_version(client, whole)
        if (metrics / PAGE).is_file():  # so that one hears what the figures are about
            client.log_artifact(str(version.run_id), str(metrics / PAGE), PAGE.parent.name)
        describe(client, version, card)
        if numbers:  # before the promotion, which moves the parts' aliases by it
            added(client.set_model_version_tag, cfg.name, version.version, PARTS, json.dumps(numbers))
        for name, number in {cfg.name: str(version.version), **numbers}.items():
            added(client.set_registered_model_alias, name, CHALLENGER, number)
        decision = promote(cfg, str(version.version), client, again=False)
        for name, number in {cfg.name: str(version.version), **numbers}.items():
            arrived("versions", [number], [aliases(client, name).get(CHALLENGER, "")])
    print(f"register: {decision.reason}")
    return {
        "name": cfg.name,
        "version": str(version.version),
        "aliases": [CHALLENGER, *([CHAMPION] if decision.promoted else [])],
        "run_id": version.run_id,
        "weights_sha256": whole.tags["weights_sha256"],
        "held_out_sha256": whole.held_out,
        "promoted_by": {cfg.promote_by: whole.figures[cfg.promote_by]["value"]},
        "components": numbers,
    }


def run() -> None:
    """Register and note what came of it."""
    clear()  # no training comes after this stage to do it
    found = register(section(RegistryConfig, "registry"), CHECKPOINTS, METRICS, CARD)
    atomic_write_json(OUT, found)
    print(f"models:/{found['name']}/{found['version']} is {' and '.join(found['aliases'])}")


if __name__ == "__main__":
    main("register", run)
