"""Thousands of requests that the OpenAPI document allows or forbids: ``python benchmarks/schema.py --cases 5000``.

Each must be answered with a status and a body that the document has, none with 500; see ``tests/schema_cases.py`` for
how they are drawn and checked. The model has random weights.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from schema_cases import examine
from served import random_checkpoint, serving

from muomni.data.files import atomic_write_json


def main() -> None:
    """Send the requests, print a table, exit with 1 if there was a fault."""
    parser = argparse.ArgumentParser(description="Requests drawn from the server's OpenAPI document.")
    parser.add_argument("--cases", type=int, default=5000, help="about so many (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--profile", default="smoke", help="size of the model (default: smoke)")
    parser.add_argument("--checkpoint", type=Path, help="a trained model in its place")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or random_checkpoint(options.profile, Path(folder))
        with serving(checkpoint) as server:
            report = examine(f"http://{server.host}:{server.port}", options.cases, options.seed)
    seconds = round(time.monotonic() - began)
    for path, counts in report.answers.items():
        print(f"{path:28} " + ", ".join(f"{status}: {count}" for status, count in sorted(counts.items())))
    for fault in report.faults[:20]:
        print("    " + fault.replace("\n", "\n    "))
    print(f"seed {options.seed}: {report.cases} cases in {seconds} s, {len(report.faults)} faults")
    if options.json:
        answers = {path: {str(status): n for status, n in sorted(c.items())} for path, c in report.answers.items()}
        figures = {"seed": options.seed, "cases": report.cases, "seconds": seconds, "faults": len(report.faults)}
        atomic_write_json(options.json, figures | {"answers": answers})
    print(json.dumps(report.faults[:3])[:2000])
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
