"""What an evaluation found about a checkpoint, read again from its files and checked to be about these weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from muomni.config import Section, parse
from muomni.data.files import read_json
from muomni.errors import UserError

OMNI = "omni"
# Each part, and how the names of its figures in the summary begin; all are the whole model's.
PREFIXES = {
    "omni": "",
    "thinker": "thinker_",
    "audio_encoder": "hearing_",
    "vision_encoder": "seeing_",
    "codec": "codec_",
    "talker": "talker_",
}
SUMMARY, MEASURED = "summary.json", "measured.json"
FILES = ("omni", "hearing", "seeing", "speech", "language")


class Value(Section):
    """A figure: see `muomni.evaluate.measure`."""

    value: float
    n: int = Field(ge=0)
    interval: tuple[float, float] | None = None


class Summary(Section):
    """The figures of ``summary.json``."""

    figures: dict[str, Value]


@dataclass(frozen=True)
class Measured:
    """An evaluation, or why there is none.

    Attributes:
        figures: the headlines of the component, by name.
        scores: all that was found, by file: ``omni``, ``hearing``, ...
        held_out: hash of the data and settings that the figures were measured by.
        samples: folder of what one can see and hear; None if there is none.
        reason: why there are no figures; empty if there are.
    """

    figures: Mapping[str, Value] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    held_out: str = ""
    samples: Path | None = None
    reason: str = ""


def read_measured(metrics: Path, component: str, weights: str) -> Measured:
    """Read an evaluation, if it was of these weights.

    Args:
        metrics: folder of what stage evaluate wrote.
        component: of the checkpoint.
        weights: hash of its weights.

    Raises:
        UserError: if a file is damaged.
    """
    if not (metrics / SUMMARY).is_file():
        return Measured(reason=f"{metrics}/{SUMMARY} is not there: not evaluated; run `dvc repro evaluate`")
    if not (metrics / MEASURED).is_file():
        return Measured(reason=f"{metrics}/{MEASURED} is not there: what was evaluated is not known; evaluate it again")
    of = read_object(metrics / MEASURED).get("weights_sha256")
    if isinstance(of, dict) and component not in of:
        return Measured(reason=f"{component} is not evaluated by itself, but as a part of the whole model")
    if not isinstance(of, dict) or of[component] != weights:
        return Measured(reason=f"{metrics}: the figures are of other weights; run `dvc repro evaluate` for these")
    where = metrics / SUMMARY
    summary = parse(Summary, {"figures": tuples(read_object(where))}, str(where)).figures
    own = PREFIXES.get(component, component)
    held_out = read_object(metrics / "held_out.json").get("sha256", "")
    samples = metrics / "samples"
    return Measured(
        {name: value for name, value in summary.items() if name.startswith(own)},
        {name: read_object(metrics / f"{name}.json") for name in FILES if (metrics / f"{name}.json").is_file()},
        str(held_out),
        samples if samples.is_dir() else None,
    )


def tuples(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with their intervals as the pairs that they are; JSON has lists."""
    return {
        name: one | {"interval": tuple(one["interval"])}
        if isinstance(one, dict) and isinstance(one.get("interval"), list)
        else one
        for name, one in summary.items()
    }


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of stage evaluate.

    Raises:
        UserError: if it is missing or none.
    """
    found = read_json(path, "evaluate")
    if not isinstance(found, dict):
        raise UserError(f"{path}: is no JSON object; run `dvc repro --force evaluate`")
    return found
