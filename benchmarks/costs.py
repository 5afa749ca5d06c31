"""What data preparation and training cost at so many hours of speech, and what stops each step first.

    python -m benchmarks.costs --hours 1000 1000000
    python -m benchmarks.costs --hours 1e6 --seconds 12 --cores 256 --gpus 64 --gpu-hour 2.5 --json costs.json

Every step is a line through measured figures: `docs/benchmarks/scale.json`, which `benchmarks.scale` writes, and
`docs/benchmarks/rates.json`, which says of each figure where it was measured. A step has work that many processes
share, work that one process does, memory that one process holds, and bytes and files that it leaves. Its first
bottleneck is the limit (memory of a machine, days that one process may take, the size of an index, the number of files)
that it meets at the fewest hours.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parents[1] / "docs/benchmarks"
MEL_BYTES = 100 * 128 * 2  # a second of speech: 100 frames of 128 bins in half precision
LARGEST_INDEX = 1 << 28  # bytes of an index at an address, see `muomni.data.shard_files`
DAY = 86400.0  # seconds


@dataclass(frozen=True)
class World:
    """What is assumed of the data, the machines and the prices; each is an option of the command."""

    seconds: float = 6.0  # of a recording
    pictures: float = 1000.0  # beside an hour of speech
    text_mb: float = 1.0  # beside an hour of speech
    conversations: float = 1000.0  # beside an hour of speech
    epochs: float = 1.0  # of each training
    larger: float = 1.0  # how many times the parameters of profile `base`: computing grows with them
    cores: float = 64.0
    gpus: float = 8.0
    memory_gb: float = 64.0  # of a machine
    days: float = 7.0  # that a step may take in one process
    files: float = 1e7  # that one may want to have
    core_hour: float = 0.04  # dollars
    gpu_hour: float = 3.0
    tb_month: float = 20.0


@dataclass(frozen=True)
class Step:
    """A step's work for an hour of speech.

    Attributes:
        name: of the stage or what is done.
        shared: seconds of a core that any number of processes share.
        alone: seconds of a core in one process.
        why: what that process does.
        memory: bytes that one process holds.
        holds: what of.
        bytes, files: that it leaves.
        index: bytes of an index.
        gpu: seconds of a GPU.
    """

    name: str
    shared: float = 0.0
    alone: float = 0.0
    why: str = ""
    memory: float = 0.0
    holds: str = ""
    bytes: float = 0.0
    files: float = 0.0
    index: float = 0.0
    gpu: float = 0.0

    def limits(self, world: World) -> dict[str, float]:
        """Hours of speech at which each limit is met."""
        met = {
            f"{self.why}, in one process": (world.days * DAY, self.alone),
            f"memory: {self.holds}": (world.memory_gb * 1e9, self.memory),
            f"the index: more than {LARGEST_INDEX >> 20} MiB": (LARGEST_INDEX, self.index),
            "the number of files": (world.files, self.files),
            f"computing on {world.cores:g} cores": (world.days * DAY * world.cores, self.shared),
            f"computing on {world.gpus:g} GPUs": (world.days * DAY * world.gpus, self.gpu),
        }
        return {what: limit / need for what, (limit, need) in met.items() if need > 0}

    def first(self, world: World) -> tuple[float, str]:
        """The fewest hours at which a limit is met, and which."""
        return min((hours, what) for what, hours in self.limits(world).items())


def load(name: str, folder: Path = PLACE) -> dict[str, Any]:
    """A JSON file of measured figures."""
    found: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return found


def steps(world: World, scale: Mapping[str, Any], rates: Mapping[str, Any]) -> list[Step]:
    """All steps, from raw recordings, pictures and texts to the trained model."""
    rate = {name: float(entry["value"]) for name, entry in rates.items()}
    rows, small, sound, joined = (scale[name][-1] for name in ("rows", "hashing", "sound", "shards"))
    written, read = scale["index_written"][-1], scale["index_read"][-1]
    recordings, pictures, talks = 3600 / world.seconds, world.pictures, world.conversations
    flac, mels = 3600 * rate["flac_bytes_a_second"], 3600.0 * MEL_BYTES
    tokens = world.text_mb * 1e6 / rate["text_bytes_a_token"]
    row_bytes = rows["read_bytes_more"] / rows["rows"]
    read_row, write_row = rows["read_seconds"] / rows["rows"], rows["write_seconds"] / rows["rows"]
    # A small file costs more than its bytes; both are hashed by threads, which share this.
    per_byte = small["large_seconds"] / small["large_bytes"]
    per_file = max(0.0, small["sha256_seconds"] / small["files"] - small["file_bytes"] * per_byte)
    hashed = recordings * per_file + flac * per_byte
    join = joined["join_seconds"] / joined["bytes"]
    entry = written["file_bytes"] / written["shards"]
    image_bytes, talk_bytes = pictures * rate["bytes_a_picture"], talks * rate["bytes_a_conversation"]
    shards = {"mels": recordings / 1000, "images": pictures / 2000, "conversations": talks / 2000}
    all_shards, sharded = sum(shards.values()), mels + image_bytes + talk_bytes
    dvc_file = (small["dvc_add_seconds"] - small["dvc_start_seconds"]) / small["files"]
    speech = rate["seconds_a_measured_recording"]

    def trained(name: str, gpu: float, **more: Any) -> Step:
        return Step(name, gpu=gpu * world.epochs * world.larger, **more)

    kept = {"holds": "all log-mels", "memory": mels}
    return [
        Step(
            "corpus-speech",
            shared=3600 * sound["encode_seconds"] / sound["seconds_of_speech"] + hashed,
            alone=recordings * write_row,
            why="noting recordings",
            memory=recordings * row_bytes,
            holds="a row for each recording",
            bytes=flac,
            files=recordings,
        ),
        Step(
            "mel-shards",
            shared=3600 * sound["mel_seconds"] / sound["seconds_of_speech"] + hashed,
            alone=mels * join + recordings * read_row,
            why="joining shards",
            memory=recordings * row_bytes,
            holds="a row for each recording",
            bytes=mels,
            files=shards["mels"],
            index=shards["mels"] * entry,
        ),
        Step(
            "image-shards",
            shared=pictures / rate["pictures_a_core_second"],
            alone=image_bytes * join,
            why="joining shards",
            bytes=image_bytes,
            files=shards["images"],
            index=shards["images"] * entry,
        ),
        Step(
            "conversation-shards",
            alone=talks / rate["conversations_a_core_second"] + recordings * read_row,
            why="drawing conversations",
            memory=image_bytes + recordings * row_bytes,
            holds="all pictures as files, a row for each recording",
            bytes=talk_bytes,
            files=shards["conversations"],
            index=shards["conversations"] * entry,
        ),
        Step(
            "tokens",
            alone=world.text_mb * 1e6 / rate["tokenizer_bytes_a_core_second"],
            why="encoding text",
            bytes=2 * tokens,
        ),
        Step(
            "indexes, read",
            alone=all_shards * (read["read_seconds"] + read["order_seconds"]) / read["shards"],
            why="reading an index and ordering an epoch",
            memory=shards["mels"] * (read["read_bytes_more"] + read["order_bytes_more"]) / read["shards"],
            holds="the index",
        ),
        Step(
            "dvc add",
            alone=recordings * dvc_file + (flac + sharded) * per_byte,
            why="hashing and noting each file",
            files=recordings + all_shards,
        ),
        trained("a-thinker", tokens / rate["a_thinker_tokens_a_gpu_second"]),
        trained(
            "b-audio-encoder",
            3600 / speech / rate["b_audio_encoder_recordings_a_gpu_second"],
            alone=world.epochs * mels * joined["stream_seconds"] / joined["bytes"],
            why="reading the stream",
        ),
        trained("c-vision-encoder", pictures / rate["c_vision_encoder_pictures_a_gpu_second"]),
        trained("d-codec", 3600 / rate["seconds_a_codec_segment"] / rate["d_codec_segments_a_gpu_second"]),
        trained("d-talker", 3600 / speech / rate["d_talker_recordings_a_gpu_second"], **kept),
        trained(
            "e-omni",
            talks / rate["e_omni_conversations_a_gpu_second"],
            memory=mels + talk_bytes,
            holds="all log-mels and conversations",
        ),
    ]


def in_units(value: float, units: str = "B kB MB GB TB PB") -> str:
    """A number of bytes as people read it."""
    names = units.split()
    while value >= 1000 and len(names) > 1:
        value, names = value / 1000, names[1:]
    return f"{value:,.3g} {names[0]}"


def cells(step: Step, hours: float, world: World) -> list[str]:
    """A step's row, without what stops it."""
    core, gpu = hours * (step.shared + step.alone) / 3600, hours * step.gpu / 3600
    return [
        step.name,
        f"{core:,.3g}",
        f"{hours * step.alone / 3600:,.3g}",
        f"{gpu:,.3g}" if gpu else "",
        in_units(hours * step.memory) if step.memory else "",
        in_units(hours * step.bytes) if step.bytes else "",
        f"{max(1, round(hours * step.files)):,}" if step.files else "",
        f"{core * world.core_hour + gpu * world.gpu_hour:,.2f}",
    ]


def together(found: list[Step]) -> Step:
    """All steps as one: sums, and of memory the most. What dvc notes are the files that are there already."""
    made = [step for step in found if step.name != "dvc add"]
    return Step(
        "together",
        shared=sum(step.shared for step in found),
        alone=sum(step.alone for step in found),
        memory=max(step.memory for step in found),
        bytes=sum(step.bytes for step in made),
        files=sum(step.files for step in made),
        gpu=sum(step.gpu for step in found),
    )


def table(hours: float, world: World, found: list[Step]) -> str:
    """All steps at so many hours, as Markdown."""
    head = ["Step", "Core-hours", "in one process", "GPU-hours", "Memory", "Bytes", "Files", "Dollars"]
    lines = [[*head, "First bottleneck"], ["---", *["---:"] * (len(head) - 1), "---"]]
    for step in found:
        at, what = step.first(world)
        lines.append([*cells(step, hours, world), f"{what}, from {at:,.3g} h"])
    whole = together(found)
    lines.append([*cells(whole, hours, world), ""])
    storage = hours * whole.bytes / 1e12 * world.tb_month
    rows = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    return f"{rows}\n\nStorage: {storage:,.2f} dollars a month."


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="What preparation and training cost, and what stops them first.")
    parser.add_argument("--hours", type=float, nargs="+", default=[1e3, 1e6], help="of speech")
    parser.add_argument("--json", type=Path, help="also write the steps, for one hour, and what was assumed")
    for entry in fields(World):
        parser.add_argument(f"--{entry.name.replace('_', '-')}", type=float, default=entry.default)
    given = vars(parser.parse_args())
    world = World(**{entry.name: given[entry.name] for entry in fields(World)})
    found = steps(world, load("scale.json"), load("rates.json"))
    for hours in given["hours"]:
        print(f"## {hours:,.0f} hours\n\n{table(hours, world, found)}\n")
    if given["json"]:
        made = {"world": asdict(world), "an_hour": [asdict(step) for step in found]}
        given["json"].write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
