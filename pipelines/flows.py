"""The Prefect flows: ``python -m pipelines.flows train --profile smoke`` runs one without a server."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from pipelines.form import ParamChanges
from pipelines.graph_run import PARAMS, run_graph
from pipelines.reaper import alive
from pipelines.run import state_root

POOL = "gpu"


def choices(values: list[str]) -> dict[str, Any]:
    """The part of a JSON schema that makes a drop-down list of a text."""
    return {"enum": values} if values else {}


def profile_names() -> list[str]:
    """The profiles of the checkout, which is the working directory."""
    return [PARAMS, *sorted(path.stem for path in Path("profiles").glob("*.yaml"))]


def stage_names() -> list[str]:
    """The stages of ``dvc.yaml``, in its order."""
    path = Path("dvc.yaml")
    return list(yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]) if path.is_file() else []


Profile = Annotated[
    str,
    Field(
        description="where the parameters come from: params.yaml as committed, or a profile",
        json_schema_extra=choices(profile_names()),
    ),
]
Until = Annotated[
    str,
    Field(description="the last stage; what it needs runs before it", json_schema_extra=choices(stage_names())),
]
Revision = Annotated[
    str,
    Field(
        description="a commit, tag, branch or DVC experiment. The run works in a copy of it: changes in the checkout "
        "that are not committed are no part of the run"
    ),
]
Name = Annotated[
    str,
    Field(
        description="of the DVC experiment that comes of it; empty: the name of the run",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]*)?$",
    ),
]
Change = Annotated[ParamChanges, Field(description="parameters to set; what stays empty is as in the profile")]


@flow(name="train", log_prints=True)
def train(
    profile: Profile = PARAMS,
    until: Until = stage_names()[-1],
    revision: Revision = "HEAD",
    name: Name = "",
    changes: Change = ParamChanges(),
) -> None:
    """Run the graph, or its part up to a stage, on a committed revision in a copy of its own."""
    with alive(state_root(), str(flow_run.get_id())):
        print(run_graph(profile, [until], changes, revision, name))


FLOWS = (train,)
