"""The bars for profile `base` on a GPU: ``python benchmarks/gpu.py [--json FILE]``, in the root of the repository.

All stages within half an hour on an H200 by `muomni plan`; 1.5 million tokens a second in the Thinker's training; 5,000
tokens a second in decoding; less than 5 % of the time spent waiting for data; every stage within device.memory_gb.
Prints a line a bar, and ends with 1 if one is missed. Without a GPU it says so, and ends with 0.
"""

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from muomni.bench.bench import measure
from muomni.bench.planning import Planner
from muomni.bench.planning import render as render_plans
from muomni.bench.rehearsal import Rehearsal
from muomni.bench.report import render
from muomni.bench.serving import TOKENS
from muomni.bench.tasks import used
from muomni.data.files import atomic_write_json
from muomni.device import pick_device
from muomni.model_commands import note
from muomni.params import read_params

PARAMS = Path("profiles/base.yaml")
HOURS, TRAINED, DECODED, WAITING = 0.5, 1.5e6, 5000.0, 0.05


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write what was measured")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: this machine has no CUDA GPU")
        return 0
    params = read_params(PARAMS)
    device = pick_device(params.device)
    budget_mb = 1024 * (params.device.memory_gb or torch.cuda.get_device_properties(device.device).total_memory / 2**30)
    found: dict[str, Any] = measure(params, PARAMS, device, None, {"components", "generation", "speech"}, 1.0, note)
    print(render(found))
    note("stages")
    with tempfile.TemporaryDirectory(prefix="muomni-gpu-") as folder:
        Rehearsal(params, Path(folder)).write()
        planner = Planner(params, PARAMS, Path(folder) / "data", budget_mb, cap=True)
        plans = [planner.plan(stage) for stage in used(params)]
    print(render_plans(plans, budget_mb, None))
    found["plan"] = [asdict(plan) for plan in plans]
    hours = sum(plan.hours for plan in plans)
    thinker = next(plan.rate for plan in plans if plan.stage == "a-thinker")
    waiting = max(plan.waiting for plan in plans)
    alone = f"1 x {TOKENS} tokens, vocabulary {params.thinker.vocab_size:,}, "
    decoded = max(entry["rate"] for name, entry in found["generation"].items() if name.startswith(alone))
    as_wanted = all(plan.fits and plan.accumulate == 1 for plan in plans)
    bars = {
        f"all stages in {hours:.2f} h, at most {HOURS}": hours <= HOURS,
        f"Thinker {thinker:,.0f} tokens/s, at least {TRAINED:,.0f}": thinker >= TRAINED,
        f"decoding {decoded:,.0f} tokens/s, at least {DECODED:,.0f}": decoded >= DECODED,
        f"waiting for data {waiting:.3f}, less than {WAITING}": waiting < WAITING,
        f"every stage at its default batch within {budget_mb / 1024:.0f} GiB": as_wanted,
    }
    for text, kept in bars.items():
        print(f"{'kept  ' if kept else 'MISSED'} {text}")
    if options.json:
        atomic_write_json(Path(options.json), found)
    return 0 if all(bars.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
