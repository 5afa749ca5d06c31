"""Kill -9 at drawn places of every stage, run again, compare: ``make faults`` or ``python benchmarks/faults.py``.

The graph runs once without a fault, at a small profile, in a copy of this checkout; what it writes is the reference.
Then, stage by stage: the stage is started, killed at a place that the seed draws, started again, killed again ..., now
and then let through, and what it wrote is compared with the reference. At the end ``dvc status`` must be clean.

Places: before an import or a change of a file (also in dvc itself, while it removes old outputs or takes new ones into
its cache, and in a stage's workers), before a training step, at a byte in the middle of a file that is being written,
and at any moment of the clock, for the stage alone or for dvc with it. `fault_hook.py` does it from within.

What must hold: weights and data are identical to the reference, and so is every training loss of every step (a sample
that came twice or not at all would show); nothing half-written lies under a final name; no process stays behind; a run
that failed says so; MLflow shows no run as running and no version twice.
"""

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fault_graph import Copy, Stage

from muomni.data.files import atomic_write_json, sha256_file
from muomni.errors import UserError
from muomni.train.state import STATE_FILE

KINDS = (
    "stage import",
    "stage change",
    "stage byte",
    "stage step",
    "worker change",
    "dvc change",
    "time stage",
    "time all",
)


class Lane(Copy):
    """A copy whose stages are killed again and again.

    Args:
        number: of the lane; goes into the seed.
        folder: where the copy lies.
        seed: of the kills.
        kills: how many at least.
        only: names of stages; empty for all.
    """

    def __init__(self, number: int, folder: Path, seed: int, kills: int, only: list[str]) -> None:
        super().__init__(str(number), folder)
        self.number, self.seed, self.kills, self.only = number, seed, kills, only
        self.killed: Counter[str] = Counter()
        self.by_stage: Counter[str] = Counter()
        self.completed = self.missed = self.resumed = 0

    def run(self) -> None:
        """Everything, in this lane."""
        self.set_up()
        wanted = [stage for stage in self.stages if not self.only or stage.name in self.only]
        for number, stage in enumerate(wanted):
            share = self.kills * (number + 1) // len(wanted) - self.kills * number // len(wanted)
            self.fault(stage, share)
        self.close_up(whole=not self.only)

    def fault(self, stage: Stage, kills: int) -> None:
        """Run a stage once with its events counted, then kill it again and again."""
        self.counted.unlink(missing_ok=True)
        began = time.monotonic()
        code, _ = self.again(stage, plan={"count": str(self.counted)})
        stage.seconds = time.monotonic() - began
        if code:
            self.lose(f"{stage.name}: failed without a fault")
            return
        self.compare(stage, "run once more without a fault")
        stage.counts = {role: Counter() for role in ("dvc", "stage", "worker")}
        for line in self.counted.read_text(encoding="utf-8").splitlines():
            seen = json.loads(line)
            role = stage.counts[seen.pop("role")]
            for kind, n in seen.items():
                role[kind] = max(role[kind], n)
        roots = [self.folder / out for out in stage.outs]
        files = [f for root in roots for f in (root.rglob("*") if root.is_dir() else [root]) if f.is_file()]
        stage.files = {f.relative_to(self.folder).as_posix(): sha256_file(f) for f in files}
        stage.sizes = {self.armed_by(f): f.stat().st_size for f in files if f.stat().st_size > 1}
        state = self.folder / ".muomni" / "state" / stage.name / STATE_FILE
        if state.exists():
            stage.sizes[STATE_FILE] = state.stat().st_size

        rng = random.Random(f"{self.seed}/{self.number}/{stage.name}")
        kinds = [kind for kind in KINDS if self.possible(stage, kind)]
        done, tries, complete, before = 0, 0, True, len(self.losses)
        while done < kills and tries < 3 * kills and len(self.losses) < before + 5:
            if tries % len(kinds) == 0:
                rng.shuffle(kinds)
            kind = kinds[tries % len(kinds)]
            tries += 1
            plan, strike = self.draw(stage, kind, rng)
            code, out = self.again(stage, plan=plan, kill=strike)
            when = f"after kill {tries} ({kind} {plan or strike})"
            if not self.mark.exists():
                self.missed += 1
            else:
                done += 1
                self.killed[kind] += 1
                self.by_stage[stage.name] += 1
            if "going on after step" in out:
                self.resumed += 1
            complete = code == 0
            if complete:
                self.completed += 1
                self.compare(stage, when)
            else:
                if not self.mark.exists():
                    self.lose(f"{stage.name}: {when}: failed by itself: {out.strip().splitlines()[-1:]}")
                self.look_for_halves(stage, when)
        if not complete:
            code, out = self.again(stage)
            self.resumed += "going on after step" in out
            self.completed += 1
            if code:
                self.lose(f"{stage.name}: could not be run to its end: {out.strip().splitlines()[-3:]}")
            self.compare(stage, "run to its end")
        self.say(f"{stage.name}: {done} kills in {tries} runs, {time.monotonic() - began:.0f} s")

    def possible(self, stage: Stage, kind: str) -> bool:
        """Whether a kind of kill has a place in a stage."""
        if kind == "stage byte":
            return bool(stage.sizes)
        role, what = kind.split()
        return role == "time" or stage.counts[role][what] > 0

    def armed_by(self, file: Path) -> str:
        """A part of a path that tells when a file is about to be written: its name, or its checkpoint's."""
        relative = file.relative_to(self.folder)
        return f".{relative.parts[1]}.tmp" if relative.parts[0] == "checkpoints" else file.name

    def draw(
        self, stage: Stage, kind: str, rng: random.Random
    ) -> tuple[dict[str, Any] | None, tuple[str, float] | None]:
        """A place of a kind: a plan for the hook, or whom to kill when."""
        role, what = kind.split()
        if role == "time":
            return None, (what, rng.uniform(0.3, max(1.0, stage.seconds)))
        if what != "byte":
            return {
                "role": role,
                "kind": what,
                "n": rng.randint(0 if what == "step" else 1, self.most(stage, role, what)),
            }, None
        name = rng.choice(sorted(stage.sizes))
        if stage.trains and rng.random() < 0.5:
            name = STATE_FILE
        arm: str | int = rng.randint(0, self.most(stage, "stage", "step")) if name == STATE_FILE else name
        return {"role": role, "kind": "byte", "arm": arm, "n": rng.randint(1, stage.sizes[name] - 1)}, None

    def most(self, stage: Stage, role: str, what: str) -> int:
        """The last place of a kind: steps count from 0."""
        return stage.counts[role][what] - (what == "step")


def main() -> None:
    """Run the lanes side by side and print what came of them."""
    parser = argparse.ArgumentParser(description="Kill -9 at drawn places of every stage, and compare.")
    parser.add_argument("--kills", type=int, default=200, help="at least so many in all (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="draws the places (default: 0)")
    parser.add_argument("--lanes", type=int, default=2, help="copies worked in side by side (default: 2)")
    parser.add_argument("--stages", default="", help="names of stages, separated by commas (default: all)")
    parser.add_argument("--folder", type=Path, default=Path(".muomni/faults"), help="where the copies lie")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--keep", action="store_true", help="leave the copies in place")
    options = parser.parse_args()
    root = options.folder.absolute()
    root.mkdir(parents=True, exist_ok=True)
    only = [name for name in options.stages.split(",") if name]
    share = -(-options.kills // options.lanes)
    lanes = [Lane(n, root / f"lane-{n}", options.seed, share, only) for n in range(options.lanes)]
    began = time.monotonic()
    with ThreadPoolExecutor(len(lanes)) as pool:
        for future in [pool.submit(lane.run) for lane in lanes]:
            try:
                future.result()
            except UserError as error:
                sys.exit(f"error: {error}")
    losses = [loss for lane in lanes for loss in lane.losses]
    result = {
        "seed": options.seed,
        "kills": sum(lane.killed.total() for lane in lanes),
        "by_kind": dict(sorted(sum((lane.killed for lane in lanes), Counter()).items())),
        "by_stage": dict(sum((lane.by_stage for lane in lanes), Counter())),
        "not_reached": sum(lane.missed for lane in lanes),
        "resumed": sum(lane.resumed for lane in lanes),
        "completed": sum(lane.completed for lane in lanes),
        "seconds": round(time.monotonic() - began),
        "losses": losses,
    }
    print(json.dumps(result, indent=1))
    if options.json:
        atomic_write_json(options.json, result)
    print(f"seed {options.seed}: {result['kills']} kills, {len(losses)} losses")
    if losses or result["kills"] < options.kills:
        sys.exit(1)
    if not options.keep:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
