"""An hour of training, writing and serving: does it stay as it was? ``python benchmarks/soak.py --minutes 60``.

A third of the time a model trains (stage E, with evaluations, samples and saved states), a third it answers as the
command does (text, pictures, recordings, speech, streams, conversations), a third as the registered model does (rows
with base64). Looked at every few seconds: resident memory, open files, threads, and how much was done. Data and weights
are made up, so that it runs without any.

After the first quarter of each third, memory may grow by no more than 20 MB or 2 % until the last quarter, files and
threads by none, and a turn of the same work may not become slower by more than a tenth, beside a matrix product of a
fixed size that is timed in turn. Times are those of the CPU, since the machine may be shared.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import soak_work as work
import torch

from muomni.bench.rehearsal import Rehearsal
from muomni.bench.serving import random_model
from muomni.checkpoint import make_card, save_checkpoint
from muomni.data.files import atomic_write_json
from muomni.device import pick_device
from muomni.params import read_params
from muomni.tokenizer import MODEL_FILE, Tokenizer

WARM_UP = 0.25  # share of a phase that is not judged
MORE_MB, MORE_SHARE, SLOWER = 20.0, 0.02, 0.9

Seen = TypeVar("Seen", "Look", "Turn")


class TimeIsUp(Exception):
    """Ends a training from within."""


@dataclass(frozen=True)
class Look:
    """What the process, and its children, held at a moment: seconds since the start, MB, counts."""

    at: float
    phase: str
    memory_mb: float
    files: int
    threads: int


@dataclass(frozen=True)
class Turn:
    """A unit of work that is the same each time: CPU seconds, and those of the fixed product right after."""

    at: float
    phase: str
    seconds: float
    product: float


class Soak:
    """The clock, what was seen, and what was done.

    Args:
        seconds: of each phase.
        every: seconds between two looks.
    """

    def __init__(self, seconds: float, every: float) -> None:
        self.seconds, self.every, self.phase = seconds, every, "start"
        self.looks, self.turns = list[Look](), list[Turn]()
        self.began, self.over, self.started = time.monotonic(), threading.Event(), 0.0
        self.matrix = torch.randn(512, 512)
        self.me = psutil.Process()

    def watch(self) -> None:
        """Look again and again; the work of a thread."""
        while not self.over.wait(self.every):
            threads = self.me.num_threads()
            now = time.monotonic() - self.began
            memory = self.me.memory_info().rss
            for child in self.me.children(recursive=True):
                with suppress(psutil.Error):  # it has just ended
                    memory += child.memory_full_info().pss
            self.looks.append(Look(now, self.phase, memory / 1e6, self.me.num_fds(), threads))

    def product(self) -> float:
        """Seconds that a fixed amount of arithmetic takes now: the best of three."""

        def once() -> float:
            began = time.process_time()
            for _ in range(8):
                self.matrix @ self.matrix
            return time.process_time() - began

        return min(once() for _ in range(3))

    def turn(self, seconds: float) -> None:
        """Note a turn; raises `TimeIsUp` once the phase's time is over."""
        self.turns.append(Turn(time.monotonic() - self.began, self.phase, seconds, self.product()))
        if time.monotonic() - self.started > self.seconds:
            raise TimeIsUp

    def run(self, phase: str, work: Callable[[], None]) -> None:
        """A phase: work that calls `turn` until that ends it."""
        self.phase, self.started = phase, time.monotonic()
        try:
            work()
        except TimeIsUp:
            print(f"{phase}: {sum(turn.phase == phase for turn in self.turns)} turns", file=sys.stderr, flush=True)


def judged(seen: list[Seen]) -> list[Seen]:
    """What comes after the warm-up."""
    return seen[int(WARM_UP * len(seen)) :]


def most(memory_mb: float) -> float:
    """What memory may have become in the end, MB, from what it was after the warm-up."""
    return memory_mb + max(MORE_MB, MORE_SHARE * memory_mb)


def judge(soak: Soak, phase: str) -> dict[str, Any]:
    """A phase's figures, and what is wrong with them."""
    looks = [look for look in soak.looks if look.phase == phase]
    turns = [turn for turn in soak.turns if turn.phase == phase]
    looks, turns = judged(looks), judged(turns)
    if len(looks) < 6 or len(turns) < 6:
        return {"turns": len(turns), "faults": ["too short to judge"]}
    third, fewer = len(looks) // 3, max(2, len(turns) // 3)
    memory = [statistics.median(look.memory_mb for look in part) for part in (looks[:third], looks[-third:])]
    files = [max(look.files for look in part) for part in (looks[:third], looks[-third:])]
    threads = [max(look.threads for look in part) for part in (looks[:third], looks[-third:])]
    took = [statistics.median(t.seconds for t in part) for part in (turns[:fewer], turns[-fewer:])]
    product = [statistics.median(t.product for t in part) for part in (turns[:fewer], turns[-fewer:])]
    slope = np.polyfit([look.at / 3600 for look in looks], [look.memory_mb for look in looks], 1)[0]
    speed = took[0] / took[1]
    machine = product[0] / product[1]
    faults = []
    if memory[1] > most(memory[0]):
        faults.append(f"memory grew from {memory[0]:.0f} to {memory[1]:.0f} MB")
    if files[1] > files[0]:
        faults.append(f"open files grew from {files[0]} to {files[1]}")
    if threads[1] > threads[0]:
        faults.append(f"threads grew from {threads[0]} to {threads[1]}")
    if speed < SLOWER * min(1.0, machine):
        faults.append(f"a turn took {took[0]:.2f} s, and {took[1]:.2f} s in the end")
    return {
        "turns": sum(turn.phase == phase for turn in soak.turns),
        "memory_mb": [round(value, 1) for value in memory],
        "memory_mb_per_hour": round(float(slope), 1),
        "files": files,
        "threads": threads,
        "seconds_a_turn": [round(value, 3) for value in took],
        "speed_ratio": round(speed, 3),
        "machine_ratio": round(machine, 3),
        "faults": faults,
    }


def draw(soak: Soak, path: Path) -> None:
    """Memory and its bounds (dashed), open files, threads and CPU seconds a turn over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, figsize=(9, 7), sharex=True, layout="constrained")
    for phase in dict.fromkeys(look.phase for look in soak.looks):
        looks = [look for look in soak.looks if look.phase == phase]
        turns = [turn for turn in soak.turns if turn.phase == phase]
        minutes = [look.at / 60 for look in looks]
        (line,) = axes[0].plot(minutes, [look.memory_mb for look in looks], label=phase)
        if warm := judged(looks):
            bound = most(statistics.median(look.memory_mb for look in warm[: max(1, len(warm) // 3)]))
            axes[0].hlines(bound, warm[0].at / 60, warm[-1].at / 60, colors=line.get_color(), linestyles="dashed")
        axes[1].plot(minutes, [look.files for look in looks], color=line.get_color())
        axes[1].plot(minutes, [look.threads for look in looks], color=line.get_color(), linestyle="dotted")
        axes[2].plot([t.at / 60 for t in turns], [t.seconds for t in turns], ".", markersize=3, label=phase)
    axes[0].set_ylabel("resident memory, MB")
    axes[1].set_ylabel("open files, threads (dotted)")
    axes[2].set_ylabel("CPU seconds a turn")
    axes[2].set_yscale("log")
    axes[2].set_xlabel("minutes")
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis is not axes[2]:
            axis.set_ylim(bottom=0)
    axes[0].legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the phases, print the figures, exit with 1 if something grew or slowed down."""
    parser = argparse.ArgumentParser(description="Train, write and serve for a long time, and look whether that shows.")
    parser.add_argument("--minutes", type=float, default=60.0, help="in all (default: 60)")
    parser.add_argument("--profile", default="tiny", help="of profiles/ (default: tiny)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the data and the answers (default: 0)")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two looks (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="draw them here")
    options = parser.parse_args()
    params = read_params(Path("profiles") / f"{options.profile}.yaml").model_copy(update={"seed": options.seed})
    soak = Soak(options.minutes * 20, options.every)
    watcher = threading.Thread(target=soak.watch, daemon=True)
    with tempfile.TemporaryDirectory(prefix="muomni-soak-") as name:
        folder = Path(name)
        Rehearsal(params, folder).write()
        device = pick_device(params.device)
        model, tokenizer = random_model(params, device), Tokenizer(folder / "data" / "tokenizer" / MODEL_FILE)
        checkpoint = folder / "omni"
        card = make_card("omni", model, data={}, params={}, metrics={}, seconds=0.0)
        vocabulary = {MODEL_FILE: folder / "data" / "tokenizer" / MODEL_FILE}
        save_checkpoint(checkpoint, model.state_dict(), model.cfg.model_dump(mode="json"), card, vocabulary)
        watcher.start()
        soak.run("training", lambda: work.train(soak.turn, params, folder))
        soak.run("writing", lambda: work.answer(soak.turn, model, tokenizer, options.seed))
        soak.run("serving", lambda: work.serve(soak.turn, checkpoint, options.seed))
        soak.over.set()
        watcher.join()
    result = {
        "minutes": options.minutes,
        "profile": options.profile,
        "seed": options.seed,
        "cores": os.cpu_count(),
        "phases": {phase: judge(soak, phase) for phase in ("training", "writing", "serving")},
    }
    print(json.dumps(result, indent=1))
    if options.json:
        atomic_write_json(options.json, result)
    if options.plot:
        draw(soak, options.plot)
    if any(found["faults"] for found in result["phases"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
