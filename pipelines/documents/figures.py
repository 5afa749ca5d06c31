"""Measured figures in the pages, from the JSON files in docs/figures/.

A file holds a run's figures and, under ``about``, where they are from: ``command``, ``machine``, ``seed`` and
``revision``, and ``n`` where the figures do not have their own. In a page

- ``<!--= tiny.scene_accuracy -->0.8167<!--/-->`` is one figure; ``<!--= tiny.scene_accuracy .2f -->`` says how it is
  written (as Python does; also ``.0%`` and ``,``); ``<!--= load: speed / tokens a second, median / 16 -->`` names one
  by its path, key by key
- ``<!-- figures: tiny -->`` to ``<!-- /figures -->`` is a table of all, ``<!-- figures: tiny hearing_cer -->`` of some
- ``<!-- times: tiny -->`` to ``<!-- /times -->`` is a table of each stage's time and memory.
"""

import json
import re
from pathlib import Path
from typing import Any

from muomni.config import load_params
from muomni.data.files import atomic_write_text, read_json
from muomni.errors import UserError
from pipelines.tables import shown, table
from pipelines.times import read_times

FOLDER = Path("docs/figures")
INLINE = re.compile(r"<!--= (?P<ref>[^>]*?) -->(?P<text>.*?)<!--/-->", re.DOTALL)
SPEC = re.compile(r"(?P<ref>.*?)(?: (?P<spec>,?(?:\.\d)?[fg%]|,))?")
ABOUT = ("command", "machine", "seed", "revision")


def load(root: Path, name: str) -> Any:
    """A file of figures.

    Raises:
        UserError: if it is not there, or does not say where it is from.
    """
    path = root / FOLDER / f"{name}.json"
    if not re.fullmatch(r"[\w-]+", name) or not path.is_file():
        raise UserError(f"{FOLDER}/{name}.json: no such file of figures")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{FOLDER}/{name}.json: not valid JSON: {error}") from None
    about = found.get("about") if isinstance(found, dict) else None
    missing = [key for key in ABOUT if not isinstance(about, dict) or key not in about]
    if missing:
        raise UserError(f"{FOLDER}/{name}.json: 'about' does not say {', '.join(missing)}")
    return found


def look_up(root: Path, ref: str) -> tuple[Any, dict[str, Any]]:
    """A figure by its name, and what is to be known of it: n, interval, seed, machine.

    Raises:
        UserError: if there is none.
    """
    if ":" in ref:
        name, _, path = ref.partition(":")
        keys = [key.strip() for key in path.split(" / ")]
    else:
        name, *keys = ref.split(".")
    found = load(root, name.strip())
    about, at = dict(found["about"]), found
    if "figures" in at and keys and keys[0] not in at:
        at = at["figures"]
    for key in keys:
        if isinstance(at, dict) and "n" in at:
            about["n"] = at["n"]
        if not isinstance(at, dict) or key not in at:
            raise UserError(f"{FOLDER}/{name}.json has no {ref.partition(name)[2].lstrip('.: ')}")
        at = at[key]
    if isinstance(at, dict) and "value" in at:
        about |= {key: at[key] for key in ("n", "interval") if key in at}
        at = at["value"]
    if isinstance(at, bool) or not isinstance(at, int | float | str):
        raise UserError(f"{FOLDER}/{name}.json: {ref} is no figure")
    return at, about


def written(value: Any, spec: str | None) -> str:
    """A figure as a page has it; percents with a space before the sign."""
    if isinstance(value, str) or spec is None:
        return str(shown(value))
    return format(value, spec).replace("%", " %")


def inline(root: Path, ref: str) -> tuple[str, dict[str, Any]]:
    """What stands in the place of an inline mark, and what is to be known of it.

    Raises:
        UserError: if there is no such figure.
    """
    parts = SPEC.fullmatch(ref)
    assert parts is not None
    value, about = look_up(root, parts["ref"])
    return written(value, parts["spec"]), about


def filled(root: Path, text: str) -> str:
    """Text of a page outside of its blocks, with its inline figures.

    Raises:
        UserError: if there is no such figure.
    """
    return INLINE.sub(lambda mark: f"<!--= {mark['ref']} -->{inline(root, mark['ref'])[0]}<!--/-->", text)


def from_where(about: dict[str, Any]) -> str:
    """One line: how and where figures were measured."""
    words = [f"n = {about['n']:,}"] if isinstance(about.get("n"), int) else []
    words += [f"seed {about['seed']}"] if about["seed"] is not None else []
    return ", ".join([f"`{about['command']}`", *words, str(about["machine"]), f"revision {about['revision']}"])


def figures_table(root: Path, what: str) -> str:
    """A table of a file's figures, or of those named behind it, and where they are from.

    Raises:
        UserError: if the file or a figure is not there.
    """
    name, *names = what.split()
    found = load(root, name)
    figures = found.get("figures", {})
    body = []
    for key in names or figures:
        value, about = look_up(root, f"{name}.{key}")
        low_high = " to ".join(shown(float(end)) for end in about.get("interval", []))
        n = f"{about['n']:,}" if "n" in about else ""
        body.append([key.replace("_", " "), shown(value), n, low_high])
    if not body:
        raise UserError(f"{FOLDER}/{name}.json: holds no figures")
    made = table(["Figure", "Value", "n", "95 % interval"], body, right=1)
    return f"{made}\nMeasured with {from_where(found['about'])}.\n"


def times_table(root: Path, name: str) -> str:
    """The table of each stage's time and memory.

    Raises:
        UserError: if the file has none.
    """
    found = load(root, name)
    records = found.get("times", [])
    if not records:
        raise UserError(f"{FOLDER}/{name}.json: holds no times")
    body = [[r["stage"], f"{r['seconds']:.0f}", f"{r['peak_mb']:,}", "`make times`"] for r in records]
    total, peak = sum(r["seconds"] for r in records), max(r["peak_mb"] for r in records)
    body.append(["together", f"{total:.0f}", f"{peak:,}", "`make repro`"])
    return table(["Stage", "Seconds", "Peak MB", "Command"], body, right=1)


def take(root: Path, name: str, machine: str, state: Path) -> Path:
    """Keep the figures and times of the run that is in ``metrics/`` as docs/figures/NAME.json.

    Args:
        root: of the checkout that has run.
        name: of the file.
        machine: in words.
        state: the state folder, which has the times.

    Returns:
        The file.

    Raises:
        UserError: if there is no run.
    """
    summary = read_json(root / "metrics" / "summary.json", "evaluate")
    card = read_json(root / "checkpoints" / "omni" / "card.json", "e-omni")
    params = load_params(root / "params.yaml")
    times = [{key: r[key] for key in ("stage", "seconds", "peak_mb")} for r in read_times(state / "times")]
    about = {
        "command": "dvc repro evaluate",
        "machine": machine,
        "seed": params["seed"],
        "revision": str(card["revision"])[:7],
        "profile": params["profile"],
    }
    path = root / FOLDER / f"{name}.json"
    text = json.dumps({"about": about, "figures": summary, "times": times}, indent=1, ensure_ascii=False)
    atomic_write_text(path, text + "\n")
    return path
