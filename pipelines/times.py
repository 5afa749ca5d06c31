"""Print each stage's last time and peak memory: ``python -m pipelines.times [--since EPOCH]``."""

import argparse
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.run import state_root


def read_times(folder: Path) -> list[dict[str, Any]]:
    """The records that `pipelines.run` left, in the order of finishing; unreadable ones are skipped."""
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            records.append({**found, "finished": datetime.fromisoformat(found["finished"])})
        except (ValueError, KeyError, TypeError):
            continue
    return sorted(records, key=lambda found: found["finished"])


def table(records: list[dict[str, Any]], since: float | None = None) -> str:
    """Lay out records as lines of text.

    Args:
        records: from `read_times`.
        since: seconds since the epoch; stages that finished earlier are marked as up to date, and
            the total counts only the others.
    """
    lines = [f"{'stage':<22}{'seconds':>9}{'peak MB':>9}  finished"]
    total, ran, peak = 0.0, 0, 0
    for found in records:
        now = since is None or found["finished"].timestamp() >= int(since)
        total += found["seconds"] if now else 0.0
        ran += now
        peak = max(peak, found["peak_mb"])
        when = found["finished"].astimezone().strftime("%Y-%m-%d %H:%M:%S")
        note = "" if now else "  (up to date, not run)"
        lines.append(f"{found['stage']:<22}{found['seconds']:>9.1f}{found['peak_mb']:>9}  {when}{note}")
    minutes, seconds = divmod(round(total), 60)
    lines.append(f"{'total':<22}{total:>9.1f}{peak:>9}  {ran} stages in {minutes} min {seconds} s")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--since", type=float, help="count only stages that finished after this (Unix time, s)")
    options = parser.parse_args()
    records = read_times(state_root() / "times")
    print(table(records, options.since) if records else "no stage has run yet: make repro")
    if options.since is not None:
        minutes, seconds = divmod(round(time.time() - options.since), 60)
        print(f"with starting programs and hashing data: {minutes} min {seconds} s")


if __name__ == "__main__":
    main()
