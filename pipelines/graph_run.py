"""One run of the graph in a copy of a revision, as Prefect shows it: a task a stage, its lines, its progress.

The flows (`pipelines.flows`) call `run_graph`.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel

from muomni.errors import UserError
from pipelines import copies
from pipelines.copies import Copy
from pipelines.follow import Graph, Progress
from pipelines.form import applied
from pipelines.sender import read

PARAMS = "params.yaml"
UPDATE = 2.0  # seconds between updates of a progress bar in the page


@dataclass
class Stage:
    """What became of a stage.

    Attributes:
        name: in ``dvc.yaml``.
        cached: whether its outputs were there already.
        seconds: of its turn.
        run: the key of the MLflow run that made its checkpoint, if it has one.
    """

    name: str
    cached: bool
    seconds: float = 0.0
    run: str | None = None


@dataclass
class Result:
    """What came of a run.

    Attributes:
        experiment: the name of the DVC experiment.
        commit: of the experiment.
        revision: the commit that was run.
        uncommitted: files of the checkout whose changes the run did not see.
        stages: in the order of their turns.
    """

    experiment: str
    commit: str
    revision: str
    uncommitted: list[str] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)


class Bar:
    """A stage's progress bar on the page of its run."""

    def __init__(self, stage: str) -> None:
        self.stage, self.id, self.told = stage, None, 0.0
        self.id: UUID | None

    def show(self, share: float, text: str, last: bool = False) -> None:
        """Move it, but not too often."""
        now = time.monotonic()
        if not last and now - self.told < UPDATE:
            return
        self.told = now
        if self.id is None:
            self.id = create_progress_artifact(share, key=f"progress-{self.stage}", description=text)
        else:
            update_progress_artifact(self.id, share, description=text)


@task(task_run_name="{stage}", cache_policy=NO_CACHE)
def follow_stage(stage: str, graph: Graph) -> None:
    """Show a running stage until dvc goes on to the next.

    Raises:
        UserError: if it fails.
    """
    log, bar, said = get_run_logger(), Bar(stage), ""
    for event in graph.during():
        if isinstance(event, Progress):
            bar.show(100 * event.step / event.steps, f"{stage}: step {event.step} of {event.steps}: {event.text}")
            log.info("step %d of %d: %s", event.step, event.steps, event.text)
        elif event:
            log.info("%s", event)
            # A stage's own complaint says more than dvc's, which comes after it.
            said = event if event.startswith("error: ") or (event.startswith("ERROR: ") and not said) else said
    if graph.next is None and (code := graph.end()):
        raise UserError(f"stage {stage}: {said or f'dvc ended with code {code}'}")
    if bar.id is not None:
        bar.show(100.0, f"{stage}: done", last=True)


@task(task_run_name="{stage} (cached)", cache_policy=NO_CACHE)
def show_cached(stage: str, graph: Graph, link: str) -> State[Any]:
    """Show a stage whose outputs were there already."""
    for event in graph.during():
        get_run_logger().info("%s", event)
    return Completed(name="Cached", message=f"outputs taken from the cache{link}")


def checkpoint_of(copy: Copy, stage: str) -> Path | None:
    """The folder of a stage's checkpoint in a copy; None for a stage that writes none."""
    graph = yaml.safe_load((copy.folder / "dvc.yaml").read_text(encoding="utf-8"))
    for out in graph["stages"].get(stage, {}).get("outs") or ():
        path = str(next(iter(out)) if isinstance(out, dict) else out)
        if path.startswith("checkpoints/"):
            return copy.folder / path
    return None


def made_by(copy: Copy, stage: str) -> str | None:
    """The key of the MLflow run that made a stage's checkpoint."""
    folder = checkpoint_of(copy, stage)
    key = read(folder / "card.json").get("run") if folder else None
    return str(key) if key else None


def follow(copy: Copy, graph: Graph, may_run: Sequence[str] | None) -> list[Stage]:
    """Show the whole graph, a task a stage.

    Args:
        copy: where it runs.
        graph: what runs.
        may_run: stages that may run; the others must be in the cache. None: all may.

    Raises:
        UserError: if a stage fails, or dvc before the first, or a stage would run that may not.
    """
    log, stages, said = get_run_logger(), [], ""
    for line in graph.before():
        log.info("%s", line)
        said = line or said
    while (turn := graph.turn()) is not None:
        stage, begin = Stage(turn.stage, turn.cached), time.monotonic()
        if not turn.cached and may_run is not None and turn.stage not in may_run:
            graph.end()
            raise UserError(f"stage {turn.stage} was not run at this revision with these parameters; `train` it first")
        if turn.cached:
            show_cached(turn.stage, graph, "")
        else:
            follow_stage(turn.stage, graph)
        stage.seconds, stage.run = time.monotonic() - begin, made_by(copy, turn.stage)
        stages.append(stage)
    if graph.end():
        raise UserError(f"dvc: {said or 'failed'}")
    return stages


def prepare(profile: str, changes: BaseModel | Mapping[str, Any] | None, revision: str) -> tuple[Copy, str]:
    """What a run computes, checked before anything starts: the copy's place, and its ``params.yaml``.

    Raises:
        UserError: if there is no such revision or profile, or the parameters are bad.
    """
    checkout = Path.cwd()
    commit = copies.resolve(checkout, revision)
    source = PARAMS if profile == PARAMS else f"profiles/{profile}.yaml"
    params, _ = applied(copies.file_at(checkout, commit, source), changes, source)
    key = copies.key_of(commit, params)
    return Copy(checkout, commit, copies.runs_root() / key, key), params


def experiment_name(wanted: str, checkout: Path) -> str:
    """The name of the run's DVC experiment: as wanted, or the flow run's.

    Raises:
        UserError: if the checkout has an experiment of the wanted name.
    """
    if wanted and copies.experiment_refs(checkout, wanted):
        raise UserError(
            f"name '{wanted}': there is an experiment of this name; choose another, "
            f"or remove that one with `dvc exp remove {wanted}`"
        )
    return wanted or str(flow_run.get_name() or f"run-{os.getpid()}")


def run_graph(
    profile: str,
    targets: list[str],
    changes: BaseModel | Mapping[str, Any] | None,
    revision: str,
    name: str,
    may_run: Sequence[str] | None = None,
) -> Result:
    """Bring stages of a revision up to date in a copy, and bring the result home as a DVC experiment.

    Args:
        profile: of the revision; ``params.yaml`` for the revision's own parameters.
        targets: stages; what they need is run first.
        changes: parameters to change.
        revision: a commit, tag, branch or experiment of the checkout, which is the working directory.
        name: of the experiment; empty for the flow run's name.
        may_run: as in `follow`.

    Raises:
        UserError: if something about the request is wrong, or a stage fails. What was computed is kept: the same run
            started again goes on from there.
    """
    log = get_run_logger()
    copy, params = prepare(profile, changes, revision)
    experiment = experiment_name(name, copy.checkout)
    left_out = copies.uncommitted(copy.checkout)
    if left_out:
        log.warning("not part of this run, since not committed: %s", ", ".join(left_out[:20]))
    copies.prune()
    who = {"flow_run": str(flow_run.get_id() or ""), "name": f"flow run {flow_run.get_name()}"}
    finished = False
    with copies.held(copy.root, who):
        try:
            log.info("revision %s, profile %s, working copy %s", copy.commit[:12], profile, copy.folder)
            copies.lay_out(copy, params)
            graph = Graph(copy.folder, targets, copy.env() | {"DVC_EXP_NAME": experiment})
            try:
                stages = follow(copy, graph, may_run)
            finally:
                graph.end()
            commit = copies.save_experiment(copy, experiment, targets, f"{profile} at {copy.commit[:12]}")
            log.info("experiment %s: dvc exp show, dvc exp apply %s", experiment, experiment)
            finished = True
        finally:
            copies.take_away(copy, finished)
    return Result(experiment, commit, copy.commit, left_out, stages)
