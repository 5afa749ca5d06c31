"""A small random data set in the form that the data stages write, to try a training before its data exist.

What is in it means nothing; its sizes are those of the embedded data.
"""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from muomni.data.files import atomic_write_json, sha256_file
from muomni.data.shards import ShardWriter, write_index
from muomni.params import Params
from muomni.tokenizer import MODEL_FILE, train_tokenizer

CHARACTERS_A_SECOND = 15.0  # of the voice `hibari` (docs/data.md has how it reads)
SENTENCE, PROSE = (12, 48), (40, 150)  # characters of a sentence of the picture world, and of ordinary prose
SPEECH, PICTURES, CONVERSATIONS = 96, 160, 320  # samples of the train split
TOKENS = 200_000
PER_SHARD = 1000


class Rehearsal:
    """Writes the data set.

    Args:
        params: what profile it rehearses.
        folder: an empty folder; gets ``data/`` as a run of the graph would have it.
        seed: of what is drawn.
    """

    def __init__(self, params: Params, folder: Path, seed: int = 0) -> None:
        self.params, self.data = params, folder / "data"
        self.random, self.rng = random.Random(seed), np.random.default_rng(seed)
        letters = "etaoinshrdlucmfwypvbgk"
        self.words = ["".join(self.random.choices(letters, k=self.random.randint(2, 9))) for _ in range(60_000)]

    def write(self) -> None:
        """Write everything."""
        self.tokenizer()
        self.tokens()
        self.images()
        self.mels()
        self.recordings()
        self.conversations()

    def text(self, bounds: tuple[int, int]) -> str:
        """A sentence of random words, of so many characters at least and at most."""
        wanted = self.random.randint(*bounds)
        words = [self.random.choice(self.words)]
        while len(" ".join(words)) < wanted:
            words.append(self.random.choice(self.words))
        return " ".join(words)[: bounds[1]].strip().capitalize() + "."

    def sentence(self) -> str:
        """A sentence as long as those that are spoken: of the picture world, or of prose where the profile has it."""
        speech = self.params.speech
        prose = self.random.random() < speech.prose / max(1, speech.prose + speech.sentences)
        longest = int(CHARACTERS_A_SECOND * speech.max_seconds) - 2
        return self.text((min(PROSE[0], longest), min(PROSE[1], longest)) if prose else SENTENCE)

    def tokenizer(self) -> None:
        """A tokenizer of the profile's size."""
        folder = self.data / "tokenizer"
        folder.mkdir(parents=True)
        lines = [" ".join(self.words[at : at + 20]) for at in range(0, len(self.words), 20)]
        self.trained = train_tokenizer(lines, self.params.tokenizer.vocab_size, folder / MODEL_FILE)

    def tokens(self) -> None:
        """Packed tokens."""
        folder = self.data / "tokens"
        folder.mkdir(parents=True)
        splits = {}
        for split, count in (("train", TOKENS), ("valid", 20_000), ("test", 20_000)):
            ids = self.rng.integers(len(self.trained.controls), self.trained.vocab_size, count)
            (folder / f"{split}.bin").write_bytes(ids.astype("<u2").tobytes())
            digest = sha256_file(folder / f"{split}.bin")
            splits[split] = {
                "file": f"{split}.bin",
                "tokens": count,
                "bytes": 4 * count,
                "sha256": digest,
                "documents": 1,
            }
        atomic_write_json(
            folder / "index.json",
            {"vocab_size": self.trained.vocab_size, "eot": self.trained.eos, "tokenizer": "", "splits": splits},
        )

    def picture(self) -> bytes:
        """A picture of coarse noise, which is about as large a file as a drawing."""
        size = self.params.images.size_px
        small = Image.fromarray(self.rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((size, size), Image.Resampling.NEAREST).save(buffer, "PNG")
        return buffer.getvalue()

    def seconds(self, text: str) -> float:
        """How long a text takes to say."""
        return min(self.params.speech.max_seconds, 0.25 + len(text) / CHARACTERS_A_SECOND)

    def recording(self, text: str) -> bytes:
        """FLAC of noise as long as the text would take to say."""
        count = int(self.seconds(text) * self.params.speech.sample_rate)
        buffer = io.BytesIO()
        wave = (0.1 * self.rng.standard_normal(count)).astype(np.float32)
        soundfile.write(buffer, wave, self.params.speech.sample_rate, "PCM_16", format="FLAC")
        return buffer.getvalue()

    def shards(self, name: str, samples: dict[str, list[tuple[str, dict[str, Any]]]]) -> None:
        """Write shards of key and members."""
        folder, index = self.data / "shards" / name, {}
        for split, rows in samples.items():
            with ShardWriter(folder, split, PER_SHARD) as writer:
                for key, members in rows:
                    writer.write(key, members)
            index[split] = writer.shards
        write_index(folder, index, [])

    def images(self) -> None:
        """Pictures of one to three things."""
        names = [self.words[i] for i in range(self.params.images.names)]

        def one(number: int) -> tuple[str, dict[str, Any]]:
            objects = [
                {"name": self.random.choice(names), "box": [x, x, x + 0.25, x + 0.25], "colour": None, "group": "thing"}
                for x in (0.05, 0.35, 0.65)[: self.random.randint(1, 3)]
            ]
            about = {"caption": self.text(SENTENCE), "objects": objects, "kind": "scene", "background": "white"}
            return f"{number:06d}", {"png": self.picture(), "json": about}

        counts = {"train": PICTURES, "valid": 8}
        self.shards("images", {split: [one(n) for n in range(count)] for split, count in counts.items()})

    def mels(self) -> None:
        """Log-mels with their texts, in every voice of the Talker."""
        voices = self.params.talker.voices

        def one(number: int) -> tuple[str, dict[str, Any]]:
            text = self.sentence()
            frames = int(100 * self.seconds(text))
            mel = self.rng.normal(-3, 2, (frames, self.params.mel.n_mels)).astype(np.float16)
            about = {
                "text": text,
                "speaker": voices[number % len(voices)],
                "seconds": frames / 100,
                "kind": "",
                "key": "",
            }
            return f"{number:06d}", {"npy": mel, "json": about}

        counts = {"train": SPEECH, "valid": 2 * len(voices)}
        self.shards("mels", {split: [one(n) for n in range(count)] for split, count in counts.items()})

    def recordings(self) -> None:
        """The speech corpus, which the vocoder learns from."""
        folder, rows = self.data / "corpus" / "speech", []
        (folder / "audio").mkdir(parents=True)
        for number in range(24):
            text, name = self.text(SENTENCE), f"audio/{number:06d}.flac"
            (folder / name).write_bytes(self.recording(text))
            row: dict[str, Any] = {
                "id": f"{number:06d}",
                "file": name,
                "text": text,
                "speaker": self.params.talker.voices[0],
            }
            rows.append(
                row
                | {"split": "valid" if number < 2 else "train", "seconds": self.seconds(text), "kind": "", "key": ""}
            )
        (folder / "utterances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def conversations(self) -> None:
        """Conversations of every task that stage E mixes, in its proportions."""
        weights = {task: weight for task, weight in self.params.e_omni.weights if weight}

        def one(number: int, task: str) -> tuple[str, dict[str, Any]]:
            members: dict[str, Any] = {}
            ask: list[dict[str, Any]] = []
            if task in ("name", "caption", "single", "scene", "spoken_scene"):
                members["0.png"] = self.picture()
                ask.append({"type": "image", "member": "0.png"})
            if task in ("dictation", "spoken_scene", "spoken_world"):
                member = f"{len(members)}.flac"
                members[member] = self.recording(self.sentence())
                ask.append({"type": "audio", "member": member})
            if not task.startswith("spoken"):
                ask.append({"type": "text", "text": self.text(SENTENCE)})
            messages = []
            turns = self.params.conversations.turns if task in ("single", "scene") else 1
            for turn in range(turns):
                question = ask if turn == 0 else [{"type": "text", "text": self.text(SENTENCE)}]
                answer = [{"type": "text", "text": self.text(SENTENCE)}]
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            about = {"task": task, "kind": "", "messages": messages, "targets": ["x"], "key": ""}
            return f"{number:06d}", members | {"json": about}

        samples: dict[str, list[tuple[str, dict[str, Any]]]] = {"train": [], "valid": []}
        total = sum(weights.values())
        for task, weight in weights.items():
            for split, count in (("train", max(4, round(CONVERSATIONS * weight / total))), ("valid", 1)):
                samples[split] += [one(len(samples[split]) + n, task) for n in range(count)]
        self.shards("conversations", samples)
