"""How quickly shards are written and read here, by one worker and by two, beside webdataset's own reader.

    python -m benchmarks.shards --samples 4000 --out build/shards.json

Samples are log-mels of noise with a few words, as `mel-shards` writes them. Reading is decoding too: JSON and arrays.
Every figure is the best of some rounds, as other work on the machine can only slow one down.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from muomni.data.files import sha256_folder
from muomni.data.shard_parallel import Made, runs_of, write_in_parallel

FRAMES, MELS = 300, 128  # three seconds
PER_SHARD, PER_TASK = 100, 25


def samples(task: tuple[int, int]) -> Iterator[Made]:
    """Noise, made at some cost as a log-mel is: by transforming a wave."""
    for number in range(*task):
        rng = np.random.default_rng(number)
        wave = rng.standard_normal((FRAMES, 2 * MELS + 2), dtype=np.float32)
        mel = np.log(np.abs(np.fft.rfft(wave, axis=1))[:, 1 : MELS + 1] + 1e-5).astype(np.float16)
        yield Made(f"{number:06d}", {"npy": mel, "json": {"text": f"number {number}", "speaker": "noise"}})


def write(folder: Path, number: int, workers: int) -> float:
    """Seconds to write so many samples."""
    from muomni.data.shards import write_index

    began = time.perf_counter()
    tasks = {"train": runs_of(number, PER_TASK)}
    written = write_in_parallel(folder, tasks, samples, per_shard=PER_SHARD, workers=workers)
    write_index(folder, {"train": written["train"].shards}, [])
    return time.perf_counter() - began


def stream(folder: str, worker: int, workers: int) -> tuple[int, float]:
    """Samples that one worker of an epoch reads, shuffled, and the seconds that takes."""
    from muomni.data.shard_stream import Reader, ShardStream

    began = time.perf_counter()
    shards = ShardStream(folder, "train", seed=0)
    found = sum(1 for _ in shards.read(shards.start(), Reader(worker=worker, workers=workers)))
    shards.close()
    return found, time.perf_counter() - began


def in_order(folder: str, worker: int, workers: int) -> tuple[int, float]:
    """The same in the order of writing, by `read_shards`: one worker has all."""
    from muomni.data.shards import read_shards

    began = time.perf_counter()
    return sum(1 for _ in read_shards(folder, "train")), time.perf_counter() - began


def webdataset(folder: str, worker: int, workers: int) -> tuple[int, float]:
    """The same by webdataset: shards shuffled and dealt out by hand, a buffer of samples, no hashes."""
    import webdataset as wds

    began = time.perf_counter()
    paths = sorted(str(path) for path in Path(folder).glob("train-*.tar"))[worker::workers]
    dataset = wds.WebDataset(paths, shardshuffle=100, seed=0, empty_check=False).shuffle(1000).decode()
    return sum(1 for _ in dataset), time.perf_counter() - began


def measure_reading(reader: Callable[..., tuple[int, float]], folder: Path, workers: int, rounds: int) -> float:
    """Seconds of the slowest of so many processes that read at the same time; they had read once before."""
    best = float("inf")
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(_warm, range(workers)))
        for _ in range(rounds):
            jobs = [pool.submit(reader, str(folder), worker, workers) for worker in range(workers)]
            found = [job.result() for job in jobs]
            best = min(best, max(seconds for _, seconds in found))
    return best


def _warm(worker: int) -> None:
    """Load what the readers need, and wait until the other process has got some of this too."""
    import webdataset  # noqa: F401

    import muomni.data.shard_stream  # noqa: F401

    time.sleep(0.5)


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/shards.json"))
    args = parser.parse_args()
    figures: dict[str, Any] = {"cores": os.cpu_count(), "machine": platform.processor(), "samples": args.samples}
    folder = Path(tempfile.mkdtemp(prefix="muomni-shards-"))
    try:
        seconds, hashes = {1: float("inf"), 2: float("inf")}, set()
        for _ in range(args.rounds):
            for workers in seconds:
                shutil.rmtree(folder / "mels", ignore_errors=True)
                seconds[workers] = min(seconds[workers], write(folder / "mels", args.samples, workers))
                hashes.add(sha256_folder(folder / "mels"))
        assert len(hashes) == 1, "other bytes with another number of workers"
        megabytes = sum(path.stat().st_size for path in (folder / "mels").glob("*.tar")) / 1e6
        figures["load"] = round(os.getloadavg()[0], 1)  # over the cores' number: other work took part of them
        figures["megabytes"] = round(megabytes, 1)

        def rates(took: float) -> dict[str, float]:
            return {"samples_per_second": round(args.samples / took), "mb_per_second": round(megabytes / took, 1)}

        figures["write"] = {str(workers): rates(took) for workers, took in seconds.items()}
        for name, reader, counts in (
            ("stream", stream, (1, 2)),
            ("webdataset", webdataset, (1, 2)),
            ("in_order", in_order, (1,)),
        ):
            figures[name] = {
                str(workers): rates(measure_reading(reader, folder / "mels", workers, args.rounds))
                for workers in counts
            }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
