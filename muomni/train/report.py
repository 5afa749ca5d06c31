"""What a training tells while it runs: a metrics file of JSON lines and a progress line on standard error."""

import json
import math
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from muomni.data.files import atomic_write_text, naming

SPARSE = 10.0  # seconds between progress lines where standard error is no terminal


class MetricsFile:
    """One JSON line ``{"step", "time", name: value...}`` a report, appended and on the disk at once.

    A training that goes on from an older state comes again to steps that have a line. The first line of a step stays:
    its point may be with the tracker already, which keeps one copy only of what has the same step, time and value.
    """

    def __init__(self, path: Path) -> None:
        """Open for appending; a line that a crash cut off goes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = read_metrics(path)
        self.steps = {line["step"] for line in kept}
        atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.path, self.file = path, path.open("a", encoding="utf-8")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append one line, stamped with the time in seconds since 1970. NaN and infinity are left out."""
        if step in self.steps:
            return
        self.steps.add(step)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        with naming(self.path):
            self.file.write(json.dumps({"step": step, "time": round(time.time(), 3), **finite}) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())  # a machine that stops must not forget what its tracker has

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # of a write that failed, and was told
            self.file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file, without one that a crash cut off. A missing file has none."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if text.endswith("\n") and isinstance(line, dict) and "step" in line:
            lines.append(line)
    return lines


class Window:
    """Means of named values since the last report; saved with the state, so that they stay exact."""

    def __init__(self, sums: dict[str, list[float]] | None = None) -> None:
        self.sums = dict(sums or {})

    def add(self, values: dict[str, float]) -> None:
        """Count one step's values in."""
        for name, value in values.items():
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = [total + value, count + 1]

    def means(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / count for name, (total, count) in self.sums.items()}


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    return tqdm.format_interval(seconds)


class Progress:
    """A tqdm bar on a terminal; elsewhere a line every ten seconds, so that logs stay short."""

    def __init__(self, name: str, start: int, steps: int, quiet: bool = False) -> None:
        self.name, self.start, self.steps, self.quiet = name, start, steps, quiet
        self.began = self.told = time.monotonic()
        self.bar = None
        if sys.stderr.isatty() and not quiet:
            self.bar = tqdm(total=steps, initial=start, desc=name, file=sys.stderr, dynamic_ncols=True)

    def update(self, step: int, values: dict[str, float]) -> None:
        """Show the state after `step` steps; the first value names are shown."""
        text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(step - self.bar.n)
            return
        now = time.monotonic()
        if self.quiet or (now - self.told < SPARSE and step < self.steps):
            return
        self.told = now
        pace = (now - self.began) / max(1, step - self.start)
        left = clock(pace * (self.steps - step))
        print(
            f"{self.name} {step}/{self.steps}: {text}, {pace:.3f} s/step, {left} left",
            file=sys.stderr,
            flush=True,
        )

    def note(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if not self.quiet:
            tqdm.write(f"{self.name}: {text}", file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
