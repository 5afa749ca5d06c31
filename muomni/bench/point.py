"""One training step of a Thinker of any shape, in a process of its own: its time and its peak memory.

``python -m muomni.bench.point PARAMS --batch 32 --length 512 ...`` prints JSON; ``--checkout`` takes another checkout's
Thinker.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from muomni.bench.clock import interleave, peak_mb
from muomni.bench.components import thinker_step
from muomni.bench.other import Other
from muomni.device import pick_device
from muomni.errors import UserError
from muomni.params import read_params

HEAD = 64  # channels of an attention head


@dataclass(frozen=True)
class Shape:
    """Shape of a step: sequences, tokens in each, and of the model vocabulary, width and layers."""

    batch: int
    length: int
    vocabulary: int
    width: int
    layers: int


@dataclass(frozen=True)
class Point:
    """What a step took: seconds, median, and MiB at the peak above what was there before."""

    seconds: float
    peak_mb: float


def measure(params: Path, shape: Shape, checkout: Path | None, seconds: float) -> Point:
    """Measure in this process, which should have done nothing else."""
    p = read_params(params)
    thinker = p.thinker.model_copy(
        update={
            "d_model": shape.width,
            "n_heads": max(1, shape.width // HEAD),
            "n_kv_heads": max(1, shape.width // HEAD // 2),
            "d_ff": 4 * shape.width,
            "n_layers": shape.layers,
        }
    )
    p = p.model_copy(update={"thinker": thinker})
    device = pick_device(p.device)
    times: list[float] = []

    def steps() -> None:
        if checkout:
            case = Other(checkout).thinker_step(p, shape.vocabulary, device, shape.batch, shape.length)
        else:
            case = thinker_step(p, shape.vocabulary, device, shape.batch, shape.length)
        times.extend(interleave({"step": case.run}, seconds, least=1)["step"])

    peak = peak_mb(steps)
    return Point(statistics.median(times), peak)


def in_process(params: Path, shape: Shape, checkout: Path | None = None, seconds: float = 0.0) -> Point:
    """`measure` in a process of its own; without seconds a single step after the first.

    Raises:
        UserError: with what the process said, if it failed.
    """
    command = [sys.executable, "-m", "muomni.bench.point", str(params), "--seconds", str(seconds)]
    for name, value in asdict(shape).items():
        command += [f"--{name}", str(value)]
    command += ["--checkout", str(checkout)] * (checkout is not None)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"killed by signal {-done.returncode}"]
        raise UserError(f"bench: a step of {shape} could not be measured: {last[0]}")
    return Point(**json.loads(done.stdout))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("params", type=Path)
    for field in fields(Shape):
        parser.add_argument(f"--{field.name}", type=int, required=True)
    parser.add_argument("--checkout", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0)
    args = parser.parse_args()
    shape = Shape(**{field.name: getattr(args, field.name) for field in fields(Shape)})
    print(json.dumps(asdict(measure(args.params, shape, args.checkout, args.seconds))))


if __name__ == "__main__":
    main()
