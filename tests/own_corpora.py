"""Small corpora of speech in the layouts of the known ones, tones for voices, with bad items of every kind."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

Samples = npt.NDArray[np.float32]
WORDS = ("red", "blue", "green", "small", "large", "old", "new", "quick", "slow", "warm")
THINGS = ("cat", "dog", "house", "tree", "boat", "car", "hat", "ball", "cup", "star")
GOOD = 40


def tone(seconds: float, rate: int = 16000, peak: float = 0.5) -> Samples:
    """A tone of 440 Hz, ``[samples]``."""
    return (peak * np.sin(2 * math.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def sentence(number: int) -> str:
    """Sentences that differ, 1,000 of them."""
    return f"The {WORDS[number % 10]} {THINGS[number // 10 % 10]} is behind the {THINGS[number // 100 % 10]}."


def sound(path: Path, seconds: float = 1.0, rate: int = 16000, channels: int = 1, wave: Samples | None = None) -> None:
    """A recording in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = tone(seconds, rate) if wave is None else wave
    if path.suffix in (".m4a", ".webm"):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac" if path.suffix == ".m4a" else "libopus", rate=rate)
            stream.layout = "mono"
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = rate
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
        return
    subtype = "FLOAT" if wave is not None and not np.isfinite(wave).all() else None
    soundfile.write(path, np.stack([samples] * channels, 1), rate, subtype=subtype)


def spoil(folder: Path, end: str) -> dict[str, str]:
    """Recordings that cannot be used, each with what is said of it; ``none`` is not there."""
    sound(folder / f"silent{end}", wave=np.zeros(8000, np.float32))
    sound(folder / f"long{end}", 13)
    sound(folder / f"whole{end}")
    (folder / f"cut{end}").write_bytes((folder / f"whole{end}").read_bytes()[:60])
    (folder / f"whole{end}").unlink()
    (folder / f"empty{end}").write_bytes(b"")
    (folder / f"text{end}").write_bytes(b"These are no samples. " * 20)
    return {
        "silent": "nothing but silence",
        "long": "over max_seconds",
        "cut": "save it again",
        "empty": "0 bytes",
        "text": "read",
        "none": "no such file",
    }


def ljspeech(folder: Path) -> dict[str, str]:
    """``metadata.csv`` and ``wavs``; returns the bad items with their reasons, by a part of the name."""
    bad = spoil(folder / "wavs", ".wav")
    lines = list[bytes]()
    for number in range(GOOD):
        sound(folder / f"wavs/LJ001-{number:04d}.wav", rate=22050)
        text = sentence(number)
        lines.append(f"LJ001-{number:04d}|{text.replace('The', 'Ye')}|{text}".encode())
    lines += [f"{name}|Bad {name}.|Bad {name}.".encode() for name in bad]
    lines += [b"LJ001-0000|...|...", b"no bar in it", b"LJ001-0001|Caf\xe9.|Caf\xe9."]
    (folder / "metadata.csv").write_bytes(b"\n".join(lines) + b"\n")
    (folder / "LICENSE.txt").write_text("CC0 1.0\nAnd more of it.\n")
    return bad | {
        "LJ001-0000": "nothing that can be spoken",
        f"metadata.csv:{len(lines) - 1}": "name|text",
        f"metadata.csv:{len(lines)}": "not UTF-8",
    }


def librispeech(folder: Path) -> dict[str, str]:
    """Two subsets of two speakers, one of whom says a held-out sentence in training as well."""
    bad = dict[str, str]()
    for subset, speakers, first in (("train-clean-5", ("19", "26"), 0), ("test-clean", ("61",), 2 * GOOD)):
        for at, speaker in enumerate(speakers):
            place = folder / subset / speaker / "198"
            lines = []
            for number in range(GOOD):
                name = f"{speaker}-198-{number:04d}"
                sound(place / f"{name}.flac")
                lines.append(f"{name} {sentence(first + at * GOOD + number).upper().rstrip('.')}")
            if speaker == "26":
                bad = spoil(place, ".flac")
                lines += [f"{name} BAD {name.upper()}" for name in bad]
                sound(place / "26-198-9998.flac")
                lines += ["26-198-9998", f"26-198-0000 {sentence(2 * GOOD + 1).upper().rstrip('.')}"]
            (place / f"{speaker}-198.trans.txt").write_text("\n".join(lines) + "\n")
    return bad | {"9998": "nothing that can be spoken"}


def common_voice(folder: Path) -> dict[str, str]:
    """Three tables and ``clips`` of MP3."""
    bad = spoil(folder / "clips", ".mp3")
    head = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage"
    for table, first in (("train", 0), ("dev", GOOD), ("test", 2 * GOOD)):
        lines = [head]
        for number in range(first, first + GOOD):
            sound(folder / f"clips/common_voice_en_{number}.mp3", rate=32000)
            text = f'"He said ""{sentence(number)}"""' if number % 7 == 0 else sentence(number)
            lines.append(f"{str(number % 3) * 64}\tcommon_voice_en_{number}.mp3\t{text}\t2\t0\t")
        if table == "train":
            lines += [f"{'9' * 64}\t{name}.mp3\tBad {name}.\t2\t0\t" for name in bad] + ["too\tfew"]
            lines.append(f"{'9' * 64}\t../../secret.mp3\tOutside.\t2\t0\t")
        (folder / f"{table}.tsv").write_text("\n".join(lines) + "\n")
    return bad | {f"train.tsv:{GOOD + len(bad) + 2}": "columns", f"train.tsv:{GOOD + len(bad) + 3}": "not inside"}


def manifest(folder: Path) -> dict[str, str]:
    """JSON lines with names of their own, recordings of many rates and formats."""
    bad = spoil(folder / "audio", ".wav")
    shapes = [("wav", 8000, 1), ("flac", 44100, 2), ("mp3", 24000, 1), ("ogg", 48000, 2), ("m4a", 44100, 1)]
    lines = []
    for number in range(GOOD):
        end, rate, channels = shapes[number % len(shapes)]
        sound(folder / f"audio/{number}.{end}", rate=rate, channels=channels)
        lines.append(json.dumps({"sound": f"audio/{number}.{end}", "said": sentence(number), "who": f"s{number % 4}"}))
    lines += [json.dumps({"sound": f"audio/{name}.wav", "said": f"Bad {name}.", "who": "s0"}) for name in bad]
    lines += ["{broken", "[1]", json.dumps({"sound": ["a"], "said": "x", "who": "s"})]
    (folder / "list.jsonl").write_text("\n".join(lines) + "\n")
    last = len(lines)
    return bad | {
        f"list.jsonl:{last - 2}": "not JSON",
        f"list.jsonl:{last - 1}": "not a JSON object",
        f"list.jsonl:{last}": "is no text",
    }


CORPORA: dict[str, Callable[[Path], dict[str, str]]] = {
    "ljspeech": ljspeech,
    "librispeech": librispeech,
    "common_voice": common_voice,
    "manifest": manifest,
}
COLUMNS = {"audio": "sound", "text": "said", "speaker": "who"}


def spoken(folder: Path) -> None:
    """Recordings that can be used, and of each problem one or two."""
    rows = ["file,text,speaker"]
    for number in range(3 * GOOD):
        sound(folder / f"{number}.wav", wave=tone(6 + number / 1000))
        rows.append(f"{number}.wav,{sentence(number)},{'ab'[number % 2]}")
    sound(folder / "clipped.flac", wave=np.clip(3 * tone(2, peak=0.8), -1, 1))
    sound(folder / "quiet.wav", wave=0.01 * tone(2))
    sound(folder / "short.wav", 0.3)
    sound(folder / "russian.wav", 3)
    sound(folder / "telephone.wav", 2, rate=8000)
    sound(folder / "stereo.ogg", 2, rate=44100, channels=2)
    shutil.copy(folder / "0.wav", folder / "again.wav")
    sound(folder / "unread.wav", 1)
    rows += [
        "clipped.flac,It is loud.,a",
        "quiet.wav,It is soft.,a",
        f"short.wav,{'Far too many words for so little sound. ' * 2},a",
        "russian.wav,It is кот и дом.,a",
        "telephone.wav,It is narrow.,a",
        "stereo.ogg,It is wide.,a",
        f"again.wav,{sentence(0)},a",
    ]
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


def pictures(folder: Path) -> None:
    """Pictures that can be used, and of each problem one."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []

    def save(name: str, width: int, height: int, what: str) -> None:
        small = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(folder / name)
        rows.append({"file": name, "name": what})

    for number in range(60):
        save(f"{number}.jpg", 96, 64 + number, ("dog", "cat", "my boat")[number % 3])
    save("tiny.png", 16, 20, "dog")
    save("huge.jpg", 5000, 3000, "cat")
    Image.open(folder / "1.jpg").save(folder / "1again.png")
    (folder / "cut.jpg").write_bytes((folder / "0.jpg").read_bytes()[:300])
    (folder / "page.png").write_text("<html>404</html>")
    for name in ("1again.png", "cut.jpg", "page.png", "none.png"):
        rows.append({"file": name, "name": "cat"})
    rows.append({"file": "2.jpg", "name": "a thing with far too long a name"})
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
