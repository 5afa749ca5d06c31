"""How quickly pictures and speech are prepared: each part of the work alone, then the stages by one process and by two.

    python -m benchmarks.prepare                                     # 10,000 pictures, 10 hours: half an hour

The data are those of a profile (`base`), of that number: drawings, pictures in shards, recordings, log-mels in shards.
A part is timed alone, by one process that does nothing else, on every ``--every``-th item. The stages are run in turns,
by one process on one core and by two on two, and have to give the same hashes. Of several rounds the quickest counts,
as other work on the machine can only slow one down; seconds of processors are told too, which it changes less.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muomni.data.files import sha256_folder

if TYPE_CHECKING:  # else the processes that are started, which load this module again, would load PyTorch with it
    from muomni.params import Params

SECONDS = 1.75  # of a recording of a sentence about pictured things, about: 8.2 hours were 16,584
HELD_OUT = 20  # of so many pictures one is for validation and one for testing
BARS = {"parts": 0.8, "cores": 1.7}
STAGES = ("corpus-images", "image-shards", "corpus-speech", "mel-shards")


@dataclass
class Clock:
    """Seconds of parts: by the clock, and of processors."""

    wall: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add what is done meanwhile."""
        wall, cpu = time.perf_counter(), used()
        yield
        self.wall[name] += time.perf_counter() - wall
        self.cpu[name] += used() - cpu

    def scaled(self, by: float) -> dict[str, dict[str, float]]:
        """For each part ``wall`` and ``cpu``, of all items."""
        both = {name: {"wall": wall, "cpu": self.cpu[name]} for name, wall in self.wall.items()}
        return {name: {kind: round(by * took, 2) for kind, took in part.items()} for name, part in both.items()}


def used() -> float:
    """Seconds that this process and those that it has ended had a processor."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def sized(params: "Params", pictures: int, hours: float, names: int | None = None) -> "Params":
    """The profile with so many pictures, two fifths of them of one thing, and so much speech without prose."""
    held, singles = pictures // HELD_OUT, 2 * pictures // 5
    names = names or params.images.names
    each = max(1, round((singles - held) / names))
    scenes = pictures - each * names - 2 * held
    images = params.images.model_copy(
        update={
            "names": names,
            "singles_per_name": each,
            "scenes": max(0, scenes - 2 * (held // 2)),
            "valid_singles": held,
        }
        | {"test_singles": held, "valid_scenes": held // 2, "test_scenes": held // 2}
    )
    recordings = hours * 3600 / SECONDS
    sentences = round(recordings / (1 + params.speech.espeak_fraction))
    speech = params.speech.model_copy(update={"sentences": max(1, sentences), "prose": 0})
    return params.model_copy(update={"images": images, "speech": speech})


def alone(params: "Params", every: int, folder: Path) -> dict[str, dict[str, float]]:
    """Each part of the work by itself, in this process, from the material that the stages left in `folder`."""
    made = pictures_alone, speech_alone, mels_alone
    return {name: took for part in made for name, took in part(params, every, folder).items()}


def pictures_alone(params: "Params", every: int, folder: Path) -> dict[str, dict[str, float]]:
    """Rendering drawings, composing pictures as PNG, writing them to a tar."""
    from muomni.data.composing import SplitComposer, count_pictures
    from muomni.data.image_corpus import PER_TASK, render_all
    from muomni.data.scenes import LEVELS
    from muomni.data.shard_format import SPLITS, encode_sample
    from muomni.data.shard_writer import ShardWriter
    from muomni.data.styles import concepts_of, sketches

    clock, few = Clock(), Clock()
    with few.part("drawings: reading packages"):
        found = list(sketches(concepts_of(params.images.names, params.images.scene_names)))
    some = found[::every]
    with clock.part("drawings: rendering"):
        for at in range(0, len(some), PER_TASK):
            render_all(some[at : at + PER_TASK])
    corpus, known = str(folder / "images"), dict[str, Any]()
    out = folder / "alone"
    out.mkdir()
    for split in SPLITS:
        with few.part("pictures: lists of what to compose"):
            composer = SplitComposer(corpus, params.images, params.seed, split, known)
        if split == "train":
            with few.part("pictures: reading drawings"):
                for drawing in known.values():
                    drawing.render(LEVELS[0], 0.0)
        numbers = range(0, count_pictures(corpus, params.images, split), every)
        with clock.part("pictures: composing"):
            made = [composer.compose(number) for number in numbers]
        with clock.part("pictures: writing"), ShardWriter(out, split, params.images.per_shard) as writer:
            for key, png, described in made:
                writer.append(key, encode_sample(key, {"png": png, "json": described}))
    shutil.rmtree(out)
    return few.scaled(1) | clock.scaled(every)


def speech_alone(params: "Params", every: int, folder: Path) -> dict[str, dict[str, float]]:
    """Choosing sentences, saying them in each kind of voice, trimming and encoding, writing files."""
    from muomni.data.known import read_concepts
    from muomni.data.speech_corpus import CLEAR_VOICE, embedded_utterances, flac, hear, usable

    clock, once = Clock(), Clock()
    with once.part("speech: choosing sentences"):
        wanted = embedded_utterances(params.speech, read_concepts(folder / "images/concepts.jsonl"), params.seed)
    speakers = defaultdict(list)
    for item in wanted:
        speakers[item.speaker].append(item)
    out = folder / "alone"
    out.mkdir()
    list(hear(wanted[:1], params.speech.sample_rate))  # loads the clear voice
    for speaker, items in speakers.items():
        kind = "clear voice" if speaker == CLEAR_VOICE else "other voices"
        some = items[::every]
        with clock.part(f"speech: {kind}"):
            heard = list(hear(some, params.speech.sample_rate))
        with clock.part("speech: trimming and encoding"):
            encoded = [flac(usable(*one, params.speech), params.speech.sample_rate) for one in heard]
        with clock.part("speech: writing"):
            for item, data in zip(some, encoded, strict=True):
                (out / f"{item.id}.flac").write_bytes(data)
    shutil.rmtree(out)
    return once.scaled(1) | clock.scaled(every)


def mels_alone(params: "Params", every: int, folder: Path) -> dict[str, dict[str, float]]:
    """Decoding recordings and computing log-mels, writing them to a tar."""
    import torch

    from muomni.data.mel_shards import PER_SHARD, mel_of
    from muomni.data.shard_format import encode_sample
    from muomni.data.shard_writer import ShardWriter
    from muomni.data.utterances import read_recording, read_utterances

    torch.set_num_threads(1)
    clock = Clock()
    rows = read_utterances(folder / "speech")[::every]
    mel_of(read_recording(folder / "speech", rows[0]), params.mel)
    with clock.part("log-mels: computing"):
        mels = [mel_of(read_recording(folder / "speech", row), params.mel) for row in rows]
    out = folder / "alone"
    out.mkdir()
    with clock.part("log-mels: writing"), ShardWriter(out, "train", PER_SHARD) as writer:
        for row, mel in zip(rows, mels, strict=True):
            about = {name: row[name] for name in ("text", "speaker", "seconds", "kind", "key")}
            writer.append(row["id"], encode_sample(row["id"], {"npy": mel, "json": about}))
    shutil.rmtree(out)
    return clock.scaled(every)


def stage(name: str, params: "Params", folder: Path, workers: int) -> None:
    """Run a stage's function into a new folder of its own."""
    from muomni.data.image_corpus import build_image_corpus
    from muomni.data.image_shards import write_image_shards
    from muomni.data.mel_shards import write_mel_shards
    from muomni.data.speech_corpus import build_speech

    out = folder / name.removeprefix("corpus-")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    images = folder / "images"
    if name == "corpus-images":
        build_image_corpus(params.images, params.seed, out, "images", workers)
    elif name == "image-shards":
        write_image_shards(params.images, params.seed, images, out, workers)
    elif name == "corpus-speech":
        config = params.speech.model_copy(update={"workers": workers})
        build_speech(config, images / "concepts.jsonl", folder, params.seed, out)
    else:
        write_mel_shards(folder / "speech", params.mel, out, workers)


def whole(params: "Params", folder: Path, rounds: int, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Each stage by one process and by two, in turns; the quickest of the rounds."""
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, dict[str, Any]] = {}
    for name in STAGES:
        best: dict[int, dict[str, float]] = {}
        hashes = set()
        for number in range(rounds):
            for workers in (1, 2) if number % 2 == 0 else (2, 1):
                os.sched_setaffinity(0, cores[:workers])
                clock = Clock()
                try:
                    with clock.part(name):
                        stage(name, params, folder, workers)
                finally:
                    os.sched_setaffinity(0, cores)
                took = clock.scaled(1)[name]
                say(f"{name}, {workers}: {took['wall']:.1f} s")
                hashes.add(sha256_folder(folder / name.removeprefix("corpus-"), leave_out=()))
                if workers not in best or took["wall"] < best[workers]["wall"]:
                    best[workers] = took
        if len(hashes) != 1:
            sys.exit(f"error: {name}: other bytes with another number of processes")
        found[name] = {str(workers): took for workers, took in sorted(best.items())} | {"sha256": hashes.pop()}
    return found


def figures(parts: dict[str, dict[str, float]], stages: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the bars ask: the rate of the whole against that of its parts, and of two cores against one."""
    total = {n: sum(stages[name][n]["wall"] for name in STAGES) for n in ("1", "2")}
    alone_s, alone_cpu = (sum(part[kind] for part in parts.values()) for kind in ("wall", "cpu"))
    found = {
        "parts_seconds": round(alone_s, 2),
        "whole_seconds": {n: round(seconds, 2) for n, seconds in total.items()},
        "against_parts": {n: round(alone_s / (int(n) * seconds), 3) for n, seconds in total.items()},
        "against_parts_by_cpu": {
            n: round(alone_cpu / sum(stages[name][n]["cpu"] for name in STAGES), 3) for n in total
        },
        "two_cores_against_one": round(total["1"] / total["2"], 3),
        "two_cores_against_one_by_stage": {
            name: round(stages[name]["1"]["wall"] / stages[name]["2"]["wall"], 3) for name in STAGES
        },
    }
    met = min(found["against_parts"].values()) >= BARS["parts"] and found["two_cores_against_one"] >= BARS["cores"]
    return found | {"bars": BARS, "met": met}


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", default="base")
    for name, kind, number in (("--pictures", int, 10_000), ("--hours", float, 10.0), ("--rounds", int, 2)):
        parser.add_argument(name, type=kind, default=number)
    parser.add_argument("--names", type=int, help="of the profile's names; each is drawn in every style first")
    parser.add_argument("--every", type=int, default=4, help="parts alone are timed on every so manieth item")
    parser.add_argument("--machine", help="what it is, for the page")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/prepare.json"))
    args = parser.parse_args()
    from muomni.params import read_params
    from pipelines.copies import git

    params = sized(read_params(f"profiles/{args.profile}.yaml"), args.pictures, args.hours, args.names)
    folder = Path(tempfile.mkdtemp(prefix="muomni-prepare-"))
    load = [round(os.getloadavg()[0], 1)]
    try:
        stages = whole(params, folder, args.rounds, lambda text: print(text, file=sys.stderr, flush=True))
        load.append(round(os.getloadavg()[0], 1))
        parts = alone(params, args.every, folder)
        speech = json.loads((folder / "speech/manifest.json").read_text(encoding="utf-8"))["counts"]
        index = json.loads((folder / "image-shards/index.json").read_text(encoding="utf-8"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    load.append(round(os.getloadavg()[0], 1))
    result = {
        "about": {
            "command": " ".join(["python -m benchmarks.prepare", *sys.argv[1:]]),
            "machine": args.machine or f"{os.cpu_count()} cores, {platform.machine()}",
            "seed": params.seed,
            "revision": git(Path(), "rev-parse", "--short", "HEAD"),
        },
        "load": load,  # before, between and after: over the number of cores other work took part of them
        "pictures": sum(entry["samples"] for entry in index["splits"].values()),
        "recordings": speech["utterances"],
        "hours": round(speech["minutes"] / 60, 2),
        "speakers": len(speech["speakers"]),
        **figures(parts, stages),
        "parts": parts,
        "stages": stages,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
