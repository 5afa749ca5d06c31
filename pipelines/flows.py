"""The Prefect flows: ``python -m pipelines.flows train --profile smoke`` runs one without a server.

What they share is in `pipelines.graph_run`; the page's form is made from their parameters and their docstrings.
"""

# isort: off
import pipelines.quiet  # noqa: F401  # before Prefect, which reads its settings when it is imported

# isort: on
import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import yaml
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.deployments import run_deployment
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field

from muomni.config import section
from muomni.errors import UserError
from muomni.passport.blocks import embedded
from muomni.registry_config import RegistryConfig
from pipelines import registry
from pipelines.form import EvaluateChanges, ParamChanges, chosen, keys, merged, nested
from pipelines.graph_run import PARAMS, prepare, run_graph
from pipelines.reaper import alive
from pipelines.run import state_root
from pipelines.versions import CHALLENGER, CHAMPION

MOST_RUNS = 64  # of a sweep


def choices(values: list[str]) -> dict[str, Any]:
    """The part of a JSON schema that makes a drop-down list of a text."""
    return {"enum": values} if values else {}


def profile_names() -> list[str]:
    """The profiles of the checkout, which is the working directory."""
    return [PARAMS, *sorted(path.stem for path in Path("profiles").glob("*.yaml"))]


def stage_names() -> list[str]:
    """The stages of ``dvc.yaml``, in its order; none elsewhere than in a checkout."""
    path = Path("dvc.yaml")
    return list(yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]) if path.is_file() else []


Profile = Annotated[str, Field(json_schema_extra=choices(profile_names()))]
Until = Annotated[str, Field(json_schema_extra=choices(stage_names()))]
Name = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$")]
LAST = (stage_names() or ["register"])[-1]
COMPARED = [CHAMPION, CHALLENGER]
NOTHING, NOTHING_OF_EVALUATE = ParamChanges(), EvaluateChanges()


class Axis(BaseModel):
    """A parameter and the values that are tried."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(description="the parameter", json_schema_extra=choices(keys()))
    values: list[str] = Field(min_length=1, description="the values, each as it would stand in params.yaml")


@contextmanager
def as_run() -> Iterator[None]:
    """Hold the flow run's lock, by which others see that it lives."""
    with alive(state_root(), str(flow_run.get_id())):
        yield


@flow
def train(
    profile: Profile = PARAMS,
    until: Until = LAST,
    revision: str = "HEAD",
    name: Name = "",
    changes: ParamChanges = NOTHING,  # type: ignore[valid-type]
) -> str:
    """Run the graph, or its part up to a stage, on a committed revision, in a copy of its own.

    Stages whose inputs are as in an earlier run are taken from the cache. The result is a DVC experiment (`dvc exp
    show`, `dvc exp apply NAME`), an MLflow run with a child a stage, and a report on this run's page. A run that was
    cancelled or crashed goes on where it stopped if the same is started again.

    Args:
        profile: Where the parameters come from: params.yaml as committed, or a profile of the revision.
        until: The last stage. What it needs runs before it.
        revision: A commit, tag, branch or DVC experiment. Changes in the checkout that are not committed are **not**
            part of the run; its report lists them.
        name: Of the DVC experiment that comes of it. Empty: the name of this run.
        changes: Parameters to set for this run. What stays empty is as in the profile.

    Returns:
        The name of the experiment.
    """
    with as_run():
        return run_graph(profile, [until], changes, revision, name).experiment


@flow
def evaluate(
    revision: str = "HEAD",
    profile: Profile = PARAMS,
    name: Name = "",
    changes: EvaluateChanges = NOTHING_OF_EVALUATE,  # type: ignore[valid-type]
) -> str:
    """Measure a trained model again, with other settings of the evaluation. Nothing is trained.

    Args:
        revision: The DVC experiment, commit, tag or branch whose model is measured.
        profile: Where the parameters come from: params.yaml as committed there, or a profile.
        name: Of the DVC experiment that comes of it. Empty: the name of this run.
        changes: Settings of the evaluation to change.

    Returns:
        The name of the experiment.
    """
    with as_run():
        settings = {"evaluate": chosen(changes)}
        return run_graph(profile, ["evaluate"], settings, revision, name, may_run=("evaluate",)).experiment


def combinations(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Every combination of the values, as nested changes.

    Raises:
        UserError: if a value is no YAML, or there are too many combinations or none.
    """
    tried = []
    for axis in axes:
        try:
            tried.append([nested(axis.key, yaml.safe_load(value)) for value in axis.values])
        except yaml.YAMLError:
            raise UserError(f"{axis.key}: a value is no YAML: {axis.values}") from None
    found = []
    for combination in itertools.product(*tried):
        changes: dict[str, Any] = {}
        for change in combination:
            changes = merged(changes, change)
        found.append(changes)
    if not axes or len(found) > MOST_RUNS:
        raise UserError(f"axes: {len(found) if axes else 0} runs; name from 1 to {MOST_RUNS} combinations of values")
    return found


@flow
def sweep(
    axes: list[Axis],
    profile: Profile = PARAMS,
    until: Until = LAST,
    revision: str = "HEAD",
    name: Name = "",
    changes: ParamChanges = NOTHING,  # type: ignore[valid-type]
) -> list[str]:
    """Try all combinations of some parameters' values: one run of `train` each, one after another.

    All combinations are checked before the first is started. Stages that they have in common run once.

    Args:
        axes: The parameters and their values. Two parameters with three values each are nine runs.
        profile: Where the other parameters come from: params.yaml as committed, or a profile of the revision.
        until: The last stage of each run.
        revision: A commit, tag, branch or DVC experiment. Changes that are not committed are not part of it.
        name: Of the sweep. Its runs' experiments are NAME-1, NAME-2 and so on. Empty: the name of this run.
        changes: Parameters to set in all of its runs.

    Returns:
        The names of the experiments.
    """
    with as_run():
        base, sweep_name = chosen(changes), name or str(flow_run.get_name())
        tried = combinations(axes)
        runs = [(f"{sweep_name}-{i}", merged(base, one)) for i, one in enumerate(tried, 1)]
        for _, setting in runs:
            prepare(profile, setting, revision)
        lines = ["| run | " + " | ".join(axis.key for axis in axes) + " |", "|---" * (len(axes) + 1) + "|"]
        queued = "PREFECT_API_URL" in os.environ
        for (run_name, setting), combination in zip(
            runs, itertools.product(*(axis.values for axis in axes)), strict=True
        ):
            form = ParamChanges.model_validate(setting).model_dump()  # as the page sends it
            parameters = {"profile": profile, "until": until, "revision": revision, "name": run_name, "changes": form}
            link = run_name
            if queued:
                made: Any = run_deployment(
                    "train/train", parameters=parameters, flow_run_name=run_name, timeout=0, as_subflow=False
                )
                link = f"[{run_name}](/runs/flow-run/{made.id})"
            else:
                train(**cast(Any, parameters))
            get_run_logger().info("%s %s", run_name, " ".join(combination))
            lines.append(f"| {link} | " + " | ".join(combination) + " |")
        create_markdown_artifact("\n".join(lines), key="sweep", description=f"the runs of sweep {sweep_name}")
        return [run_name for run_name, _ in runs]


@flow
def compare(versions: list[str] = COMPARED) -> str:
    """Put registered versions of the model side by side: every figure, better and worse marked, and a chart.

    Args:
        versions: Numbers or aliases, such as 3 or champion, or a part's, such as muomni-thinker/2. The others are
            compared with the first.

    Returns:
        The table.
    """
    with as_run():
        found = registry.compare(registry.reading_client(), section(RegistryConfig, "registry").name, versions)
        with tempfile.TemporaryDirectory() as folder:
            chart = Path(folder) / "chart.png"
            found.chart(chart)
            picture = embedded("image/png", chart.read_bytes())
        page = f"{found.markdown()}\n\n![every figure with its interval]({picture})"
        create_markdown_artifact(page, key="comparison", description=", ".join(versions))
        print(found.text())
        return found.text()


@flow
def promote(version: str = CHALLENGER) -> bool:
    """Make a registered version champion, if it is better than the champion on the same held-out data.

    The rule is in section registry of the checkout's params.yaml.

    Args:
        version: A number or an alias.

    Returns:
        Whether it is champion now. The reason is in the log and on this run's page.
    """
    with as_run():
        decision = registry.promote(section(RegistryConfig, "registry"), version)
        get_run_logger().info("%s", decision.reason)
        create_markdown_artifact(decision.reason, key="promotion", description=f"version {decision.version}")
        return decision.promoted


FLOWS = (train, evaluate, sweep, compare, promote)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m pipelines.flows", description="Run a flow, with or without a server.")
    commands = out.add_subparsers(dest="flow", required=True, metavar="FLOW")
    for one in FLOWS:
        command = commands.add_parser(one.name, help=str(one.description or "").partition("\n")[0])
        if one in (compare, promote):
            continue
        command.add_argument("--profile", default=PARAMS, choices=profile_names())
        command.add_argument("--revision", default="HEAD")
        command.add_argument("--name", default="")
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a parameter")
        if one is not evaluate:
            command.add_argument("--until", default=LAST, choices=stage_names() or None)
        if one is sweep:
            command.add_argument("--try", action="append", required=True, dest="axes", metavar="KEY=V1,V2")
    commands.choices["compare"].add_argument("versions", nargs="*", default=COMPARED, metavar="VERSION")
    commands.choices["promote"].add_argument("version", nargs="?", default=CHALLENGER, metavar="VERSION")
    return out


def changes_of(words: Sequence[str]) -> dict[str, Any]:
    """Changes from ``key=value`` words.

    Raises:
        UserError: if one is no such word, or names no parameter.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"--set {word}: expected KEY=VALUE")
        changes = merged(changes, nested(key, yaml.safe_load(value)))
    return changes


def main() -> None:
    """Run a flow from the command line."""
    options = vars(parser().parse_args())
    name = options.pop("flow")
    try:
        if "set" in options:
            changes = changes_of(options.pop("set"))
            if name == "evaluate" and set(changes) - {"evaluate"}:
                raise UserError("--set: only parameters of section evaluate change here; nothing is trained")
            options["changes"] = changes.get("evaluate", {}) if name == "evaluate" else changes
        if "axes" in options:
            split = [axis.partition("=") for axis in options["axes"]]
            options["axes"] = [{"key": key, "values": values.split(",")} for key, _, values in split]
        {one.name: one for one in FLOWS}[name](**options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
