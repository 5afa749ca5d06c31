"""The report of a run: what its stages did, its figures beside others, its curves, and a sound.

A page of Markdown with the picture and the sound inside, so that it shows without any other server.
"""

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture

from muomni.errors import UserError
from muomni.evaluate.measure import Figure
from muomni.evaluate.summary import direction
from muomni.passport.blocks import embedded
from pipelines import copies
from pipelines.copies import Copy
from pipelines.learning import PAGE
from pipelines.parent_run import run_link
from pipelines.registry import LEGEND, mark, shown_figure
from pipelines.sender import read
from pipelines.tables import table
from pipelines.tracking import flat
from pipelines.versions import CHAMPION, mlflow_errors, reading_client, resolve

CURVE = "loss"


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
    seconds: float
    run: str | None


@dataclass
class Result:
    """What came of a run.

    Attributes:
        experiment: the name of the DVC experiment.
        revision: the commit that was run.
        changes: parameters that it changed, by section.
        uncommitted: files of the checkout whose changes the run did not see.
        stages: in the order of their turns.
    """

    experiment: str
    revision: str
    changes: dict[str, Any] = field(default_factory=dict)
    uncommitted: list[str] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)


def curves(train: Path) -> bytes | None:
    """A picture (PNG) of each training stage's loss over its steps; None if there is none.

    Args:
        train: the folder ``metrics/train``.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for path in sorted(train.glob("*/train.json")):
        rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if CURVE in row]
        if rows:
            found[path.parent.name] = rows
    if not found:
        return None
    columns = min(3, len(found))
    lines = -(-len(found) // columns)
    figure = Picture(figsize=(3.4 * columns, 2.4 * lines))
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    for axis, (stage, rows) in zip(axes.flat, found.items(), strict=False):
        axis.plot([row["step"] for row in rows], [row[CURVE] for row in rows], linewidth=1)
        axis.set_title(stage, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.supxlabel("step", fontsize=8)
    figure.supylabel(CURVE, fontsize=8)
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    return out.getvalue()


def sound(metrics: Path) -> Path | None:
    """A sound to listen to: read aloud by the whole model, else the newest that a training stage left."""
    spoken = sorted((metrics / "samples").glob("spoken-read_aloud-*.wav"))
    latest = sorted(metrics.glob("train/*/samples/step-*/*.wav"), key=lambda path: (path.parent.parent.parent, path))
    return next(iter(spoken), latest[-1] if latest else None)


@dataclass(frozen=True)
class Measured:
    """Figures of somebody, by name, and the hash of the held-out data that they were measured on."""

    figures: Mapping[str, Figure]
    held_out: str


def measured(folder: Path) -> Measured | None:
    """What the stage evaluate left in a folder ``metrics``; None if it left nothing."""
    figures, held_out = read(folder / "summary.json"), read(folder / "held_out.json")
    return Measured(figures, str(held_out.get("sha256", ""))) if figures else None


def measured_at(checkout: Path, commit: str, cache: Path) -> Measured | None:
    """The same of a commit with a ``dvc.lock``, from DVC's cache; None if it has none or the cache lost it."""
    try:
        lock = yaml.safe_load(copies.file_at(checkout, commit, "dvc.lock"))
        outs = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", ())}
    except (UserError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None
    found = {}
    for name in ("summary", "held_out"):
        digest = outs.get(f"metrics/{name}.json", "")
        found[name] = read(cache / "files" / "md5" / digest[:2] / digest[2:]) if digest else {}
    return Measured(found["summary"], str(found["held_out"].get("sha256", ""))) if found["summary"] else None


def of_base(copy: Copy) -> Measured | None:
    """Figures of the revision that a run started from: committed with it, or of an experiment that changed nothing."""
    cache = copies.cache_of(copy.checkout)
    with suppress(UserError):
        params = copies.file_at(copy.checkout, copy.commit, "params.yaml")
        for commit in (copy.commit, *copies.experiments_on(copy.checkout, copy.commit)):
            if copies.file_at(copy.checkout, commit, "params.yaml") == params:
                found = measured_at(copy.checkout, commit, cache)
                if found is not None:
                    return found
    return None


def of_champion(name: str) -> tuple[str, Measured] | None:
    """What the champion is called, and its figures; None without one, or while MLflow is away."""
    try:
        with mlflow_errors("run it again"):
            entry = resolve(reading_client(), name, CHAMPION)
    except UserError:
        return None
    return entry.title, Measured(entry.figures, entry.held_out)


def figures(new: Measured, others: Mapping[str, Measured]) -> str:
    """A run's figures in Markdown, and beside each of others' how the run compares with it.

    Args:
        new: the run's.
        others: by what their column is called.
    """
    head = ["figure", "better", "this run", *(cell for name in others for cell in (name, "this run is"))]
    rows = []
    for name, figure in new.figures.items():
        way = direction(name)
        row = [name.replace("_", " "), "" if way == "neither" else way, f"**{shown_figure(figure)}**"]
        for other in others.values():
            theirs = other.figures.get(name)
            comparable = theirs is not None and other.held_out == new.held_out
            row += [shown_figure(theirs) if theirs else "", mark(name, figure, theirs) if comparable and theirs else ""]
        rows.append(row)
    apart = [name for name, other in others.items() if other.held_out != new.held_out]
    notes = [LEGEND.replace("the first", "the other")]
    notes += [f"Not compared with {name}: it was measured on other held-out data." for name in apart]
    return table(head, rows, right=len(head)) + "\n" + "\n\n".join(notes)


def stages_table(stages: Sequence[Stage]) -> str:
    """What became of each stage, with a link to the MLflow run that made its checkpoint."""
    rows = []
    for stage in stages:
        link = run_link(stage.run) if stage.run else None
        run = f"[{stage.run}]({link})" if link else stage.run or ""
        rows.append([stage.name, "from the cache" if stage.cached else "run", f"{stage.seconds:.0f}", run])
    return table(["stage", "how", "seconds", "MLflow run of its checkpoint"], rows, right=2)


def report(
    result: Result, copy: Copy, champion: tuple[str, Measured] | None, parent: str | None, learned: bool = False
) -> str:
    """A run's page.

    Args:
        result: of the run.
        copy: where it worked; its files are still there.
        champion: of before the run, from `of_champion`.
        parent: the key of the whole run in MLflow.
        learned: whether the run has a page of how it learned.
    """
    link = run_link(parent) if parent else None
    name = result.experiment
    parts = [
        f"# {name}",
        f"Revision `{result.revision[:12]}`, DVC experiment `{name}`: `dvc exp apply {name}` puts it into the "
        f"checkout, `dvc exp branch {name} BRANCH` makes a branch of it."
        + (f" [The run in MLflow]({link})." if link else ""),
    ]
    if result.uncommitted:
        files = ", ".join(f"`{name}`" for name in result.uncommitted[:20])
        parts.append(f"Changes in the checkout that were not committed were **not** part of it: {files}.")
    if result.changes:
        parts += [
            "## Changed parameters",
            table(["parameter", "value"], [[key, value] for key, value in flat(result.changes).items()], right=2),
        ]
    new = measured(copy.folder / "metrics")
    if new is not None:
        base = of_base(copy)
        others = {f"champion, {champion[0]}": champion[1]} if champion else {}
        others |= {f"base, {result.revision[:12]}": base} if base else {}
        missing = ([] if champion else ["there is no champion"]) + (
            [] if base else ["the base revision has no figures"]
        )
        parts += ["## Figures", figures(new, others), f"Without comparison: {', '.join(missing)}." if missing else ""]
    parts += ["## Stages", stages_table(result.stages)]
    if learned and link:
        parts += ["## How it learned", f"[The same samples at each evaluation, side by side]({link}/artifacts/{PAGE})."]
    picture, heard = curves(copy.folder / "metrics" / "train"), sound(copy.folder / "metrics")
    if picture is not None:
        parts += ["## Curves", f"![the loss of each training stage]({embedded('image/png', picture)})"]
    if heard is not None:
        place = heard.relative_to(copy.folder)
        parts += ["## Sound", f'`{place}` <audio controls src="{embedded("audio/wav", heard.read_bytes())}"></audio>']
    return "\n\n".join(part for part in parts if part)
