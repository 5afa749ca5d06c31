"""What steps of data preparation cost per row, file, byte and second of speech, for `benchmarks.costs` to extrapolate.

    python -m benchmarks.scale --out docs/benchmarks/scale.json          # some minutes

Each is measured in a process of its own: seconds of a processor, which other work on the machine hardly changes, and
the growth of that process's largest memory. Files and rows are made up; the code that writes and reads them is the
stages' own.
"""

import argparse
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from muomni.data.files import sha256_folder, write_jsonl

FRAMES, MELS, RATE = 300, 128, 16000  # three seconds
Found = dict[str, float]


@contextmanager
def spent(found: Found, name: str, children: bool = False) -> Iterator[None]:
    """Note the seconds of a processor that a block takes, and how much memory the process takes more at its height."""
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF

    def processor() -> float:
        usage = resource.getrusage(who)
        return usage.ru_utime + usage.ru_stime

    before, memory = processor(), resource.getrusage(who).ru_maxrss
    yield
    found[f"{name}_seconds"] = processor() - before
    found[f"{name}_bytes_more"] = 1024.0 * (resource.getrusage(who).ru_maxrss - memory)


def row(number: int) -> dict[str, Any]:
    """What the corpus notes of a recording."""
    name, split = f"{number:09d}-a", "train" if number % 20 else "valid"
    about = {"speaker": f"speaker {number % 1000}", "kind": "own", "key": f"recording {number}", "seconds": 6.0}
    text = f"This is what somebody said in the recording that has the number {number}, in so many words."
    return {"id": name, "split": split, "text": text, "file": f"audio/{split}/{name}.flac", **about}


def rows(folder: Path, number: int) -> Found:
    """Rows of the corpus, written and read as the stages do."""
    from muomni.data.utterances import UTTERANCES, read_utterances

    found: Found = {"rows": number}
    path = folder / UTTERANCES
    with spent(found, "write"):
        write_jsonl(path, map(row, range(number)))
    with spent(found, "read"):
        assert len(read_utterances(folder)) == number
    return found | {"file_bytes": path.stat().st_size}


def shard(number: int) -> dict[str, Any]:
    """What an index notes of a shard."""
    digest = f"{number * 2654435761:064x}"[-64:]
    return {"file": f"train-{number:06d}.tar", "samples": 1000, "sha256": digest, "bytes": 154_000_000}


def index_written(folder: Path, number: int) -> Found:
    """An index of so many shards, from what the writer of shards holds."""
    from muomni.data.shards import write_index

    found: Found = {"shards": number}
    with spent(found, "write"):
        write_index(folder, {"train": [shard(n) for n in range(number)]}, [])
    return found | {"file_bytes": (folder / "index.json").stat().st_size}


def index_read(folder: Path, number: int) -> Found:
    """The same index read, and the last sample of an epoch found by it."""
    from muomni.data.shard_stream import WINDOW, EpochOrder
    from muomni.data.shards import read_index

    found: Found = {"shards": number}
    with (folder / "index.json").open("w", encoding="utf-8") as file:  # by hand, so that nothing is held before
        file.write(f'{{"bad": [], "splits": {{"train": {{"samples": {1000 * number}, "shards": [')
        for n in range(number):
            file.write((", " if n else "") + json.dumps(shard(n)))
        file.write("]}}}")
    with spent(found, "read"):
        read = read_index(folder)["splits"]["train"]["shards"]
    with spent(found, "order"):
        order = EpochOrder([entry["samples"] for entry in read], seed=0, epoch=0, window=WINDOW)
        assert order.at(1000 * number - 1)[0] < number
    return found


def hashing(folder: Path, number: int) -> Found:
    """Small files and large ones, hashed as the stages do, and by dvc with all that it notes of them."""
    found: Found = {"files": number, "file_bytes": 40_000}
    small, data = folder / "small", os.urandom(40_000)
    small.mkdir()
    for n in range(number):
        (small / f"{n:07d}.flac").write_bytes(n.to_bytes(8, "big") + data[8:])
    large = folder / "large.tar"
    large.write_bytes(data * (number + 1000))  # 200 MB of 4000 files
    with spent(found, "sha256"):
        sha256_folder(small)
    with spent(found, "large"):
        sha256_folder(folder, [path.relative_to(folder).as_posix() for path in small.iterdir()])
    found["large_bytes"] = large.stat().st_size
    run = [sys.executable, "-m", "dvc"]
    for words in (["git", "init", "--quiet"], [*run, "init", "--quiet"], [*run, "config", "core.analytics", "false"]):
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    nothing = folder / "nothing.txt"
    nothing.write_text("one file")
    with spent(found, "dvc_start", children=True):
        subprocess.run([*run, "add", "--quiet", "nothing.txt"], cwd=folder, check=True, capture_output=True)
    with spent(found, "dvc_add", children=True):
        subprocess.run([*run, "add", "--quiet", "small"], cwd=folder, check=True, capture_output=True)
    with spent(found, "dvc_status", children=True):
        subprocess.run([*run, "status"], cwd=folder, check=True, capture_output=True)
    return found


def sound(folder: Path, number: int) -> Found:
    """Recordings encoded as the corpus keeps them, and their log-mels."""
    import soundfile
    import torch

    from muomni.config import section
    from muomni.data.mel_shards import mel_of
    from muomni.mel import MelConfig

    torch.set_num_threads(1)
    rng, cfg = np.random.default_rng(0), section(MelConfig, "mel")
    # Noise below tones: FLAC makes of it about what it makes of speech.
    t = np.arange(3 * RATE) / RATE
    waves = [0.1 * np.sin(2 * np.pi * (150 + 5 * n) * t) + 0.002 * rng.normal(size=len(t)) for n in range(number)]
    found: Found = {"seconds_of_speech": 3.0 * number}
    encoded = []
    with spent(found, "encode"):
        for wave in waves:
            buffer = io.BytesIO()
            soundfile.write(buffer, np.round(wave * 32767).astype(np.int16), RATE, format="FLAC", subtype="PCM_16")
            encoded.append(buffer.getvalue())
    mel_of(encoded[0], cfg)
    with spent(found, "mel"):
        for data in encoded:
            mel_of(data, cfg)
    return found | {"flac_bytes": float(sum(map(len, encoded)))}


def shards(folder: Path, number: int) -> Found:
    """Shards joined of samples that workers have made, by one process, and read in the order of an epoch."""
    from muomni.data.shard_format import encode_sample
    from muomni.data.shard_stream import ShardStream
    from muomni.data.shards import ShardWriter, write_index

    mel = np.random.default_rng(0).normal(size=(FRAMES, MELS)).astype(np.float16)
    found: Found = {"samples": number, "seconds_of_speech": 3.0 * number}
    blocks = encode_sample("x", {"npy": mel, "json": row(0)})
    part = folder / "segment"
    part.write_bytes(blocks * 50)
    with spent(found, "join"), ShardWriter(folder / "mels", "train", 1000) as writer:
        for n in range(0, number, 50):
            with part.open("rb") as file:
                for one in range(n, min(n + 50, number)):
                    writer.append(f"{one:09d}", file.read(len(blocks)))
    with ShardWriter(folder / "named", "train", 1000) as named:
        for n in range(number):
            named.write(f"{n:09d}", {"npy": mel, "json": row(n)})
    write_index(folder / "named", {"train": named.shards}, [])
    stream = ShardStream(folder / "named", "train", 0)
    with spent(found, "stream"):
        assert sum(1 for _ in stream.read(stream.start())) == number
    stream.close()
    return found | {"bytes": float(len(blocks) * number)}


PARTS: dict[str, tuple[Callable[[Path, int], Found], tuple[int, ...]]] = {
    "rows": (rows, (100_000, 1_000_000)),
    "index_written": (index_written, (60_000, 600_000)),
    "index_read": (index_read, (60_000, 600_000)),
    "hashing": (hashing, (4000,)),
    "sound": (sound, (200,)),
    "shards": (shards, (3000,)),
}


def alone(name: str, number: int) -> Found:
    """One measurement, in a folder that vanishes."""
    with tempfile.TemporaryDirectory() as folder:
        return {key: float(f"{value:.4g}") for key, value in PARTS[name][0](Path(folder), number).items()}


def measure(share: float = 1.0) -> dict[str, Any]:
    """All of it, or with a share of the rows and files."""
    began, load = time.time(), os.getloadavg()[0]
    found: dict[str, Any] = {}
    for name, (_, numbers) in PARTS.items():
        for number in numbers:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found.setdefault(name, []).append(pool.submit(alone, name, max(100, int(share * number))).result())
            print(f"{name} {number}: {found[name][-1]}", file=sys.stderr, flush=True)
    about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": round(load, 1)}
    return {"about": about | {"minutes": round((time.time() - began) / 60, 1)}, **found}


def main() -> None:
    """Measure, and print or write JSON."""
    parser = argparse.ArgumentParser(description="What data preparation costs per row, file, byte and second.")
    parser.add_argument("--out", type=Path, help="JSON file (default: print it)")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows and files (default: %(default)s)")
    given = parser.parse_args()
    text = json.dumps(measure(given.share), indent=1) + "\n"
    if given.out is None:
        print(text, end="")
    else:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
