"""A few steps of a real training: how long each takes, what it waits for, and how much memory it needs.

``python -m muomni.bench.trial`` does it in a process of its own, so that memory is counted from nothing, and prints
JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import torch

from muomni.bench.clock import top_mb, wait
from muomni.bench.tasks import build, settings, with_settings
from muomni.device import pick_device
from muomni.errors import UserError
from muomni.params import Params, read_params
from muomni.train.feed import Feed
from muomni.train.loop import Training
from muomni.train.memory import is_out_of_memory
from muomni.train.report import Progress

OUT_OF_MEMORY = 3  # exit code
FOREVER = 1_000_000  # steps: the trial ends long before


@dataclass(frozen=True)
class Trial:
    """What a few steps took.

    Attributes:
        batch: samples in a micro-batch.
        seconds: typical time of a micro-batch, forward and backward.
        update: typical time of clipping and the optimisers, once a step.
        waiting: share of the time spent waiting for data.
        making: median time to make a batch, which a second thread does meanwhile.
        peak_mb: memory at the peak: of the GPU if there is one, else of the process.
        extrapolated: whether this stands for a batch that was not tried, by the line through two smaller ones.
    """

    batch: int
    seconds: float
    update: float
    waiting: float
    making: float
    peak_mb: float
    extrapolated: bool = False


def try_steps(params: Params, stage: str, data: Path, seconds: float) -> Trial:
    """Run steps of a stage in this process.

    Args:
        params: of the profile; its stage's ``batch_size`` is tried.
        stage: see `muomni.bench.tasks.STAGES`.
        data: a data set.
        seconds: how long, about; three steps at least.
    """
    device, cfg = pick_device(params.device), settings(params, stage)
    torch.manual_seed(params.seed)
    task = build(params, stage, data, device)
    cycle = getattr(task, "cycle", 1)
    cfg = cfg.model_copy(update={"accumulate": 1, "steps": FOREVER, "warmup": FOREVER})
    progress = Progress(stage, 0, 1, quiet=True)
    computing, updating, making = list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory(prefix="muomni-trial-") as folder:
        training = Training(task, cfg, params.seed, device, Path(folder) / "state", "trial", stage)
        feed = Feed(task.batch, params.seed, ((step, 0) for step in count()))

        def step(number: int) -> None:
            start = time.perf_counter()
            loss, norm = training.gradients(number, feed)
            wait()
            middle = time.perf_counter()
            training.update(number + 1, loss, norm, progress)
            wait()
            computing.append(middle - start)
            updating.append(time.perf_counter() - middle)

        def first() -> None:
            step(0)
            step(1)

        peak = top_mb(first)
        computing.clear()
        updating.clear()
        feed.waited, began = 0.0, time.perf_counter()
        for number in count(2):
            step(number)
            gone = time.perf_counter() - began
            if number > max(3, cycle) and gone > seconds:
                break
        waiting = feed.waited / gone
        feed.close()
    rng = torch.Generator().manual_seed(0)
    for number in range(3):
        start = time.perf_counter()
        task.batch(number, 0, rng)
        making.append(time.perf_counter() - start)
    taken, updated = typical(computing, cycle), typical(updating, cycle)
    return Trial(cfg.batch_size, taken, updated, waiting, statistics.median(making), peak)


def typical(times: list[float], cycle: int) -> float:
    """Mean over a cycle of steps that differ, each by its median over the cycles."""
    return statistics.mean(statistics.median(times[place::cycle]) for place in range(cycle))


def in_process(
    params: Path,
    stage: str,
    data: Path,
    seconds: float,
    batch: int,
    checkpointing: bool,
    memory_gb: float | None = None,
) -> Trial | None:
    """`try_steps` in a process of its own.

    Args:
        params: the parameter file.
        stage: see `muomni.bench.tasks.STAGES`.
        data: a data set.
        seconds: how long, about.
        batch: samples in a micro-batch.
        checkpointing: whether activations are computed again in the backward pass.
        memory_gb: cap on GPU memory instead of the profile's.

    Returns:
        None if there was not enough memory.

    Raises:
        UserError: with what the process said, if it failed in another way.
    """
    command = [sys.executable, "-m", "muomni.bench.trial", str(params), stage, str(data), str(seconds), str(batch)]
    command += ["--memory", str(memory_gb)] * (memory_gb is not None)
    done = subprocess.run([*command, *["--checkpointing"] * checkpointing], capture_output=True, text=True, check=False)
    if done.returncode in (OUT_OF_MEMORY, -9):  # the kernel kills with 9 what takes too much
        return None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UserError(f"{stage}: could not be tried: {last[0].removeprefix('error: ')}")
    return Trial(**json.loads(done.stdout))


def main() -> int:
    """Try one stage, print the `Trial` as JSON; exit code 3 if memory runs out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("params", type=Path)
    parser.add_argument("stage")
    parser.add_argument("data", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("batch", type=int)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--memory", type=float)
    args = parser.parse_args()
    try:
        params = with_settings(
            read_params(args.params), args.stage, batch_size=args.batch, checkpointing=args.checkpointing
        )
        if args.memory:
            params = params.model_copy(update={"device": params.device.model_copy(update={"memory_gb": args.memory})})
        trial = try_steps(params, args.stage, args.data, args.seconds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return OUT_OF_MEMORY
    print(json.dumps(asdict(trial)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
