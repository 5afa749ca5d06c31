"""Versions of registered models: finding one by what a user calls it, and the figures that belong to it.

A version's figures, with n and intervals, and the hash of the held-out data that they were measured on lie as
``figures.json`` in its MLflow run. So two versions compare anywhere, without the files of a checkout.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muomni.config import near
from muomni.errors import UserError
from muomni.evaluate.measure import Figure
from pipelines.answers import reason
from pipelines.sender import connect, shown_uri, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
FIGURES = "figures.json"
TWICE = ("IntegrityError", "UniqueViolation")  # as SQLAlchemy's messages name it for SQLite and PostgreSQL
FAILING = ("mlflow", "sqlalchemy", "requests", "urllib3", "google")  # whose errors are MLflow's; the last reads answers
SEE = "`muomni registry list` shows what there is"


@dataclass(frozen=True)
class Entry:
    """A version of a registered model.

    Attributes:
        name, version: as in ``models:/name/version``.
        aliases: such as ``champion``.
        created: when it was registered.
        tags: of the version: stage, revision, hashes.
        run_id: MLflow's id of the run that registered it.
        figures: measured on the held-out data, in the summary's order.
        held_out: hash of that data.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    created: datetime
    tags: Mapping[str, str]
    run_id: str
    figures: Mapping[str, Figure]
    held_out: str

    @property
    def title(self) -> str:
        """What messages call it: ``muomni version 3``."""
        return f"{self.name} version {self.version}"

    def label(self, name: str) -> str:
        """Its short name beside others, most of which belong to a model of this name: ``3 champion``."""
        own = self.version if self.name == name else f"{self.name}/{self.version}"
        return " ".join([own, *self.aliases])


def registry_client() -> "MlflowClient":
    """A client whose registry is where its runs are, whatever MLflow was told before in this process.

    Raises:
        UserError: if MLflow cannot work with the address.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with mlflow_errors("run this again"):
        client = connect()
        return type(client)(tracking_uri(), registry_uri=tracking_uri())


def reading_client() -> "MlflowClient":
    """`registry_client`, for looking only: it makes no database where there is none.

    Raises:
        UserError: if there is none.
    """
    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise UserError(
            f"{shown_uri()}: no registry here yet; run `dvc repro register`, or set MLFLOW_TRACKING_URI to another"
        )
    return registry_client()


@contextmanager
def mlflow_errors(then: str) -> Iterator[None]:
    """Have MLflow's failures, and those of reaching it, end as one line.

    Args:
        then: what the user should do once it runs.

    Raises:
        UserError: if it fails.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in FAILING:
            raise  # no fault of MLflow's, nor of its address
        raise UserError(f"{shown_uri()}: MLflow failed ({reason(error, 300)}); see that it runs, then {then}") from None


def added(add: Callable[..., object], *what: object) -> None:
    """Add something to MLflow that another process may add just now.

    MLflow looks for a row before it adds it, so of two that add the same (an alias, a tag, data of a run) at once one
    may fail. The row is there then, and a second call finds it and writes its own value.
    """
    from mlflow.exceptions import MlflowException

    try:
        add(*what)
    except MlflowException as error:
        if not any(sign in str(error) for sign in TWICE):
            raise
        add(*what)


def versions(client: "MlflowClient", name: str) -> "list[ModelVersion]":
    """All versions of a registered model, the oldest first; none if there is no such model."""
    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    return sorted(found, key=lambda version: int(version.version))


def aliases(client: "MlflowClient", name: str) -> dict[str, str]:
    """Which version each alias of a registered model stands for; empty if there is no such model."""
    models = client.search_registered_models(f"name = '{name}'")
    return {alias: str(version) for model in models for alias, version in model.aliases.items()}


def split(ref: str, name: str) -> tuple[str, str]:
    """What a user calls a version as the model's name, and a number or an alias.

    Args:
        ref: ``3``, ``champion``, ``muomni-thinker/2`` or ``muomni-thinker@champion``, perhaps after ``models:/``.
        name: the model that is meant where none is named.

    Raises:
        UserError: if it is none of these.
    """
    text = ref.removeprefix("models:/")
    for sign in "/@":
        model, found, which = text.partition(sign)
        if found:
            break
    else:
        model, which = name, text
    if not model or not which or (found == "/" and not which.isdecimal()) or {*which, *model} & {*"/@' "}:
        raise UserError(
            f"{ref!r}: no version; give a number, an alias such as champion, or name/number or name@alias; {SEE}"
        )
    return model, which


def resolve(client: "MlflowClient", name: str, ref: str) -> Entry:
    """The version that a user means, see `split`.

    Raises:
        UserError: if there is none.
    """
    model, which = split(ref, name)
    found, known = versions(client, model), aliases(client, model)
    if not found:
        raise UserError(f"{ref}: no model '{model}' is registered; {SEE}")
    number = which if which.isdecimal() else known.get(which)
    version = next((v for v in found if str(v.version) == number), None)
    if version is None:
        what = f"version {which}" if which.isdecimal() else f"alias '{which}'{near(which, sorted(known))}"
        raise UserError(f"{ref}: {model} has no {what}; {SEE}")
    return entry(client, version, known)


def entry(client: "MlflowClient", version: "ModelVersion", known: Mapping[str, str]) -> Entry:
    """A version with its figures.

    Args:
        client: of the registry.
        version: as it gives it, without aliases.
        known: all `aliases` of the model.
    """
    number, tags = str(version.version), dict(version.tags)
    measured = read_figures(client, str(version.run_id))
    return Entry(
        version.name,
        number,
        tuple(sorted(alias for alias, holder in known.items() if holder == number)),
        datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        tags,
        str(version.run_id),
        measured.get("figures", {}),
        measured.get("held_out_sha256", ""),
    )


def write_figures(client: "MlflowClient", run_id: str, figures: Mapping[str, Figure], held_out: str) -> None:
    """Put a version's figures into its run."""
    client.log_text(run_id, json.dumps({"held_out_sha256": held_out, "figures": dict(figures)}, indent=1), FIGURES)


def read_figures(client: "MlflowClient", run_id: str) -> dict[str, Any]:
    """What `write_figures` wrote; empty if the run has none, as for a version that something else registered."""
    if not any(file.path == FIGURES for file in client.list_artifacts(run_id)):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(run_id, FIGURES, folder))
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
