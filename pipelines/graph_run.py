"""One run of the graph in a copy of a revision, as Prefect shows it: a task a stage, its lines, its progress.

The flows (`pipelines.flows`) call `run_graph`.
"""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Completed

from muomni.data.files import atomic_write_text
from muomni.errors import UserError
from muomni.params import Params
from pipelines import copies
from pipelines.copies import Copy
from pipelines.follow import Graph, Progress
from pipelines.form import Changes, applied, chosen
from pipelines.learning import PAGE, page_of
from pipelines.parent_run import close_parent, log_child, open_parent, run_link
from pipelines.results import Result, Stage, of_champion, report
from pipelines.sender import RUN, read
from pipelines.sync import end_interrupted, set_aside_all

PARAMS = "params.yaml"
End = Literal["FINISHED", "FAILED", "KILLED"]
KEPT = ("plots", "metrics/samples", "card", PAGE)  # what is kept of a run with its records
UPDATE = 2.0  # seconds between updates of a progress bar in the page
ENDING = 3.0  # seconds in which killed processes are gone for good


class Bar:
    """A stage's progress bar on the page of its run."""

    def __init__(self, stage: str) -> None:
        self.stage, self.told = stage, 0.0
        self.id: Any = None

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
def show_cached(stage: str, graph: Graph, made_by: Callable[[str], str | None]) -> State[Any]:
    """Show a stage whose outputs were there already, and the run that made them."""
    for event in graph.during():
        get_run_logger().info("%s", event)
    run = made_by(stage)
    maker = f", made by MLflow run {run_link(run) or run}" if run else ""
    get_run_logger().info("outputs taken from the cache%s", maker)
    return Completed(name="Cached", message=f"outputs taken from the cache{maker}")


@dataclass(frozen=True)
class Watcher:
    """What knows a copy's stages while dvc runs them.

    Attributes:
        copy: where it runs.
        specs: the stages of its ``dvc.yaml``.
        params: its ``params.yaml``.
    """

    copy: Copy
    specs: Mapping[str, Any]
    params: Mapping[str, Any]

    def made_by(self, stage: str) -> str | None:
        """The key of the MLflow run that made a stage's checkpoint; None if the stage writes none."""
        for path in paths(self.specs.get(stage, {}).get("outs")):
            if path.startswith("checkpoints/"):
                key = read(self.copy.folder / path / "card.json").get("run")
                return str(key) if key else None
        return None

    def log(self, stage: str, status: Literal["FINISHED", "FAILED"], began: float) -> None:
        """Give a stage that trains nothing its run in MLflow: time, memory, and the figures that it measured."""
        copy = self.copy
        if self.made_by(stage) or (copy.state / "state" / stage / RUN).exists():
            return  # it has one of its own
        spec, metrics = self.specs.get(stage, {}), dict[str, float]()
        if status == "FINISHED":
            times = read(copy.state / "times" / f"{stage}.json")
            metrics |= {name: float(times[name]) for name in ("seconds", "peak_mb") if name in times}
            for path in paths(spec.get("metrics")):
                if path.endswith("/summary.json"):
                    metrics |= {name: float(figure["value"]) for name, figure in read(copy.folder / path).items()}
        names = sorted({str(entry).partition(".")[0] for entry in spec.get("params") or ()})
        own = {name: self.params[name] for name in names if name in self.params}
        log_child(copy.root / "stage", copy.parent, stage, own, status=status, started=began, metrics=metrics)

    def follow(self, graph: Graph, may_run: Sequence[str] | None) -> list[Stage]:
        """Show the whole graph, a task a stage.

        Args:
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
            if not turn.cached and may_run is not None and turn.stage not in may_run:
                graph.end()
                raise UserError(
                    f"stage {turn.stage} was not run at this revision with these parameters; `train` it first"
                )
            began = time.time()
            if turn.cached:
                show_cached(turn.stage, graph, self.made_by)
            else:
                try:
                    follow_stage(turn.stage, graph)
                except UserError:
                    self.log(turn.stage, "FAILED", began)
                    raise
                self.log(turn.stage, "FINISHED", began)
            stages.append(Stage(turn.stage, turn.cached, time.time() - began, self.made_by(turn.stage)))
        if graph.end():
            raise UserError(f"dvc: {said or 'failed'}")
        return stages


def paths(entries: Sequence[Any] | None) -> list[str]:
    """The paths of ``outs`` or ``metrics`` in ``dvc.yaml``, whose entries are paths or mappings with one key."""
    return [str(next(iter(entry)) if isinstance(entry, dict) else entry) for entry in entries or ()]


def prepare(profile: str, changes: Changes | Mapping[str, Any] | None, revision: str) -> tuple[Copy, str, Params]:
    """What a run computes, checked before anything starts: the copy's place, its ``params.yaml``, and what that says.

    Raises:
        UserError: if there is no such revision or profile, or the parameters are bad.
    """
    checkout = Path.cwd()
    commit = copies.resolve(checkout, revision)
    source = PARAMS if profile == PARAMS else f"profiles/{profile}.yaml"
    text, params = applied(copies.file_at(checkout, commit, source), changes, source)
    key = copies.key_of(commit, text)
    return Copy(checkout, commit, copies.runs_root() / key, key), text, params


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
    changes: Changes | Mapping[str, Any] | None,
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
        may_run: as in `Watcher.follow`.

    Raises:
        UserError: if something about the request is wrong, or a stage fails. What was computed is kept: the same run
            started again goes on from there.
    """
    log = get_run_logger()
    copy, text, params = prepare(profile, changes, revision)
    result = Result(
        experiment_name(name, copy.checkout), copy.commit, chosen(changes), copies.uncommitted(copy.checkout)
    )
    if result.uncommitted:
        log.warning("not part of this run, since not committed: %s", ", ".join(result.uncommitted[:20]))
    copies.prune()
    who = {"flow_run": str(flow_run.get_id() or ""), "name": f"flow run {flow_run.get_name()}"}
    with copies.held(copy.root, who):
        end: End = "FAILED"
        try:
            tags = {"revision": copy.commit, "profile": profile, "dvc_exp": result.experiment}
            key = open_parent(copy.parent, "train", params.model_dump(mode="json"), tags | prefect_tags())
            log.info("revision %s, profile %s, working copy %s", copy.commit[:12], profile, copy.folder)
            champion = of_champion(params.registry.name)  # before this run may become it
            copies.lay_out(copy, text)
            graph = Graph(copy.folder, targets, copy.env() | {"DVC_EXP_NAME": result.experiment})
            specs = yaml.safe_load((copy.folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
            try:
                result.stages = Watcher(copy, specs, params.model_dump(mode="json")).follow(graph, may_run)
            finally:
                graph.end()
            copies.save_experiment(copy, result.experiment, targets, f"{profile} at {copy.commit[:12]}")
            page = report(result, copy, champion, key, write_learning(copy))
            create_markdown_artifact(
                page, key=artifact_key(f"report-{result.experiment}"), description="what came of it"
            )
            log.info("experiment %s: dvc exp apply %s", result.experiment, result.experiment)
            end = "FINISHED"
        except (TerminationSignal, KeyboardInterrupt):
            end = "KILLED"
            raise
        finally:
            close(copy, end)
    return result


def write_learning(copy: Copy) -> bool:
    """Write the page of how the run's trainings went, for its records; False if it has none."""
    page = page_of(copy.folder)
    if page:
        atomic_write_text(copy.folder / PAGE, page)
    return bool(page)


def prefect_tags() -> dict[str, str]:
    """Where the run is found in Prefect, for MLflow."""
    found = {"prefect.flow_run": flow_run.get_id(), "prefect.url": flow_run.ui_url}
    return {name: str(value) for name, value in found.items() if value}


def artifact_key(text: str) -> str:
    """A name in the characters that Prefect takes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def close(copy: Copy, end: End) -> None:
    """End a run's records in MLflow and remove its copy; its state stays unless it finished."""
    if end != "FINISHED":  # the copy goes first: a tracker that is slow must not hold up a cancellation
        copies.take_away(copy, finished=False)
        close_parent(copy.parent, end)
        end_interrupted(copy.state, quiet=True, patience=ENDING)
        return
    figures = read(copy.folder / "metrics" / "summary.json")
    metrics: dict[str, float] = {name: float(figure["value"]) for name, figure in figures.items()}
    close_parent(
        copy.parent,
        end,
        metrics,
        [copy.folder / name for name in KEPT if (copy.folder / name).exists()],
    )
    set_aside_all(copy.root)
    copies.take_away(copy, finished=True)
