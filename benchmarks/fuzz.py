"""Ten thousand good, odd and spoiled inputs for everything that reads what people bring: ``python benchmarks/fuzz.py``.

Each input must give a right result or one line that says what is wrong; see ``tests/fuzz_targets.py`` for the readers
and their limits of time and memory, and ``tests/fuzzing.py`` for how inputs are drawn.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fuzz_targets import targets
from fuzzing import Report, fuzz

from muomni.data.files import atomic_write_json


def main() -> None:
    """Fuzz, print a table, exit with 1 if there was a fault."""
    parser = argparse.ArgumentParser(description="Spoiled inputs for everything that reads what people bring.")
    parser.add_argument("--inputs", type=int, default=10_000, help="over all targets (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--target", default="", help="only these, separated by commas")
    parser.add_argument("--jobs", type=int, default=2, help="targets at once (default: 2)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--kept", type=Path, default=Path(".muomni/fuzz"), help="where inputs go that show a fault")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chosen = {t.name: t for t in targets(Path(folder) / "work")}
    if options.target:
        chosen = {name: chosen[name] for name in options.target.split(",")}
    total, began = sum(t.share for t in chosen.values()), time.monotonic()
    counts = {name: math.ceil(options.inputs * t.share / total) for name, t in chosen.items()}

    def one(name: str) -> Report:
        report = fuzz(name, chosen[name].seconds, options.seed, counts[name], options.kept)
        print(
            f"{name:16} {report.inputs:6} inputs, {report.accepted:5} accepted, "
            f"{report.inputs - report.accepted - len(report.faults):5} refused, {report.lines:4} lines reached, "
            f"slowest {report.slowest:5.2f} of {chosen[name].seconds:.0f} s, "
            f"{report.memory_mb:4.0f} of {chosen[name].memory_mb:.0f} MB, {len(report.faults)} faults",
            flush=True,
        )
        for fault in report.faults[:5]:
            print("    " + fault.replace("\n", "\n    "), flush=True)
        return report

    with ThreadPoolExecutor(options.jobs) as pool:
        reports = dict(zip(chosen, pool.map(one, chosen), strict=True))
    inputs, faults = (sum(n) for n in zip(*((r.inputs, len(r.faults)) for r in reports.values()), strict=True))
    seconds = round(time.monotonic() - began)
    if options.json:
        figures = {name: asdict(report) for name, report in reports.items()}
        atomic_write_json(
            options.json,
            {"seed": options.seed, "inputs": inputs, "faults": faults, "seconds": seconds, "targets": figures},
        )
    print(f"seed {options.seed}: {inputs} inputs over {len(reports)} targets in {seconds} s, {faults} faults")
    print(json.dumps({name: len(r.faults) for name, r in reports.items() if r.faults}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
