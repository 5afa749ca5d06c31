"""``muomni bench`` and ``muomni plan``: what this machine makes of a profile."""

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil
import torch

from muomni.bench.bench import EXTRA, PARTS, measure
from muomni.bench.planning import Planner, changes, compared
from muomni.bench.planning import render as render_plan
from muomni.bench.rehearsal import Rehearsal
from muomni.bench.report import render
from muomni.bench.scaling import draw
from muomni.bench.tasks import STAGES, used
from muomni.config import near
from muomni.data.files import atomic_write_json
from muomni.device import Device, pick_device
from muomni.errors import UserError
from muomni.model_commands import check_writable, note
from muomni.params import Params, read_params
from muomni.settings_commands import profile_file

PLAN = Path(".muomni/plan.json")


def chosen(args: argparse.Namespace) -> Path:
    """The parameter file that was asked for."""
    return profile_file(args.profile) if args.profile else Path(args.params)


def bench(args: argparse.Namespace) -> int:
    """Measure, print a table, and write JSON.

    Raises:
        UserError: if a part that is asked for is none.
    """
    for part in args.only or []:
        if part not in PARTS + EXTRA:
            there = [*PARTS, *EXTRA]
            raise UserError(f"--only: no part '{part}'{near(part, there)}; there are {', '.join(there)}")
    path = chosen(args)
    params = read_params(path)
    against = Path(args.against) if args.against else None
    parts = set(args.only or PARTS)
    for name in filter(None, (args.json, args.curves)):
        check_writable(Path(name))
    found = measure(params, path, pick_device(params.device), against, parts, args.seconds, note)
    print(render(found))
    if args.curves and "scaling" in found:
        draw(found["scaling"], Path(args.curves))
    if args.json:
        atomic_write_json(Path(args.json), found)
    return 0


def budget(args: argparse.Namespace, params: Params, device: Device) -> float:
    """MiB to keep within: what was asked for, what the profile says, or what is there."""
    if args.memory:
        return 1024 * float(args.memory)
    if device.device.type == "cuda":
        there = torch.cuda.get_device_properties(device.device).total_memory / 2**20
        return min(there, 1024 * (params.device.memory_gb or math.inf))
    return psutil.virtual_memory().available / 2**20


def plan(args: argparse.Namespace) -> int:
    """Try every stage, print what it takes, and keep it for ``--compare``.

    Raises:
        UserError: if there is no plan to compare with, or no such stage.
    """
    if args.compare:
        if not PLAN.is_file():
            raise UserError(f"{PLAN}: no plan yet; run `muomni plan`")
        print(compared(json.loads(PLAN.read_text(encoding="utf-8"))["stages"], Path("checkpoints")))
        return 0
    path = chosen(args)
    params = read_params(path)
    device = pick_device(params.device)
    limit_mb = budget(args, params, device)
    wanted = args.stage or used(params)
    for stage in wanted:
        if stage not in STAGES:
            raise UserError(f"--stage: no stage '{stage}'{near(stage, list(STAGES))}; there are {', '.join(STAGES)}")
    plans = []
    with tempfile.TemporaryDirectory(prefix="muomni-plan-") as folder:
        note("data to rehearse with")
        Rehearsal(params, Path(folder)).write()
        planner = Planner(params, path, Path(folder) / "data", limit_mb, device.device.type == "cuda")
        for stage in wanted:
            note(stage)
            plans.append(planner.plan(stage))
    print(f"Profile {params.profile} on {device.description}. {render_plan(plans, limit_mb, args.price)}")
    if set_here := changes(params, plans):
        print("\nIn params.yaml, for this:\n" + "\n".join(f"  {text}" for text in set_here))
    if any(one.extrapolated for one in plans):
        print("\nBatches too slow to try stand on the line through two smaller ones.")
    kept = {"profile": params.profile, "device": device.description, "stages": [asdict(p) for p in plans]}
    try:
        atomic_write_json(PLAN, kept)
    except OSError as error:
        note(f"{PLAN}: cannot be written ({error.strerror}); `muomni plan --compare` will not know of this plan")
    return 0 if all(one.fits for one in plans) else 1


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"bench": bench, "plan": plan}
