"""Everything that reads what people bring, as targets of fuzzing: a reader, good inputs, and how they are spoiled.

A target's reader gets bytes, and returns (accepted) or raises `UserError` of one line (refused). Anything else is a
fault: another exception, a longer time than `seconds`, more memory than `memory_mb` beyond what was held before.
"""

import base64
import json
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from fuzz_inputs import (
    MESSAGES,
    ROOT,
    mutate_bytes,
    mutate_json,
    mutate_lines,
    mutate_yaml,
    pictures,
    recordings,
    tars,
    yamls,
)
from small_models import small_omni, small_tokenizer
from test_media import movie_bytes, png_bytes, sine, wav_bytes

from muomni.base64_media import needed_bytes
from muomni.checkpoint import make_card, save_checkpoint
from muomni.cli import main
from muomni.conversation import Conversation
from muomni.data.badsamples import BadSamples
from muomni.data.files import sha256_file
from muomni.data.image_corpus import folder_images
from muomni.data.shards import ShardWriter, count_samples, fingerprint, read_index, read_shards, write_index
from muomni.data.speech_corpus import SpeechConfig, folder_utterances, record
from muomni.data.text_corpus import file_documents
from muomni.errors import UserError
from muomni.evaluate.sentences import own_sentences
from muomni.generate import Session, last
from muomni.media import load_audio, load_image, load_video
from muomni.omni import load_omni
from muomni.params import read_params
from muomni.tokenizer import MODEL_FILE, Tokenizer, render_chat


@dataclass
class Target:
    """One reader.

    Attributes:
        name: of it.
        read: takes an input; returns or raises `UserError`.
        seeds: good inputs, and bad ones that were thought out.
        seconds: that an input may take.
        memory_mb: that it may take beyond what the process holds.
        share: how many of the inputs it gets, beside the others.
        mutate: spoils an input; by default by its bytes.
    """

    name: str
    read: Callable[[bytes], object]
    seeds: list[bytes] | Callable[[], list[bytes]]
    seconds: float = 20.0
    memory_mb: float = 300.0
    share: float = 1.0
    mutate: Callable[[bytes, random.Random], bytes] | None = field(default=None)

    def corpus(self) -> list[bytes]:
        """The inputs to start from."""
        return list(self.seeds if isinstance(self.seeds, list) else self.seeds())

    def spoil(self, data: bytes, rng: random.Random) -> bytes:
        """A changed input."""
        return (self.mutate or mutate_bytes)(data, rng)


class Readers:
    """The readers, on a folder of their own.

    Args:
        folder: to write inputs into; an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tokenizer").mkdir(parents=True)
        self.tokenizer = small_tokenizer(folder / "tokenizer")
        self.model = small_omni()
        self.good = folder / "good"
        card = make_card("omni", self.model, data={}, params={}, metrics={}, seconds=0.0)
        vocabulary = {MODEL_FILE: folder / "tokenizer" / MODEL_FILE}
        save_checkpoint(self.good, self.model.state_dict(), self.model.cfg.model_dump(mode="json"), card, vocabulary)

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def text(self, data: bytes) -> None:
        """Any text is tokens and text again, and never a control token."""
        text = data.decode("utf-8", "surrogateescape" if len(data) % 2 else "replace")
        ids = self.tokenizer.encode(text)
        assert not set(ids) & set(self.tokenizer.controls), "text became a control token"
        self.tokenizer.decode(ids)
        rendered = render_chat([{"role": "user", "content": text or "x"}], self.tokenizer)
        assert rendered

    def chat(self, data: bytes) -> None:
        """A request in the chat format."""
        try:
            messages = json.loads(data)
        except (ValueError, RecursionError):
            raise UserError("not JSON") from None  # the caller's part
        render_chat(messages, self.tokenizer)

    def ask(self, data: bytes) -> None:
        """A whole question: a text, and a picture or a recording of bytes that came as base64."""
        kind, rest = data[:1], data[1:]
        if kind == b"t":
            Conversation(self.model, self.tokenizer).message(rest.decode("utf-8", "replace"), [], None, [])
            return
        given = needed_bytes(rest.decode("latin-1"), "image")
        session = Session(self.model, self.tokenizer)
        if kind == b"i":
            last(session.ask("What is it?", images=[given], max_tokens=2))
        else:
            last(session.ask(None, audio=[given], max_tokens=2))

    def index(self, data: bytes) -> None:
        """An index of shards."""
        folder = self.fresh("mels")
        shutil.copy(self.folder / "seed-shards" / "train-000000.tar", folder)
        (folder / "index.json").write_bytes(data)
        read_index(folder)
        fingerprint(folder)
        for split in ("train", "valid"):
            count_samples(folder, split)
            for _ in read_shards(folder, split):
                pass

    def tar(self, data: bytes) -> None:
        """A shard whose hash is right."""
        folder = self.fresh("images")
        (folder / "train-000000.tar").write_bytes(data)
        entry = {"file": "train-000000.tar", "samples": 2, "sha256": sha256_file(folder / "train-000000.tar")}
        write_index(folder, {"train": [entry]}, [])
        for sample in read_shards(folder, "train"):
            assert "/" not in sample["__key__"]

    def captions(self, data: bytes) -> None:
        """A folder of pictures with their names."""
        folder = self.fresh("own-pictures")
        (folder / "a.png").write_bytes(png_bytes((8, 8)))
        (folder / "captions.jsonl").write_bytes(data)
        self.counted(lambda bad: folder_images(folder, 0, 1_000_000, bad))

    def own_picture(self, data: bytes) -> None:
        """A picture in such a folder."""
        folder = self.fresh("own-picture")
        (folder / "a.png").write_bytes(data)
        (folder / "captions.jsonl").write_text('{"file": "a.png", "name": "dog"}\n')
        self.counted(lambda bad: folder_images(folder, 0, 1_000_000, bad))

    def counted(self, work: Callable[[BadSamples], Iterable[object]]) -> None:
        """Read a corpus; all of its items bad is an error, as it is to a stage."""
        bad = BadSamples(0.5, "corpus")
        found = list(work(bad))
        bad.check(len(found) + len(bad))

    def metadata(self, data: bytes, name: str) -> None:
        """A folder of recordings with their texts."""
        folder = self.fresh("own-speech")
        (folder / "a.wav").write_bytes(wav_bytes(sine(0.2)))
        (folder / name).write_bytes(data)
        self.counted(lambda bad: folder_utterances(folder, 0, bad))

    def own_recording(self, data: bytes) -> None:
        """A recording in such a folder."""
        folder = self.fresh("own-recording")
        (folder / "a.wav").write_bytes(data)
        (folder / "metadata.csv").write_text("file,text\na.wav,hello there\n")
        rows = folder_utterances(folder, 0, BadSamples(0.5, "corpus"))
        cfg = SpeechConfig(**yaml.safe_load((ROOT / "profiles" / "smoke.yaml").read_text())["speech"])
        record(rows, self.fresh("recorded"), cfg)

    def documents(self, data: bytes) -> None:
        """Own texts, in both forms."""
        folder = self.fresh("own-text")
        (folder / "a.txt").write_bytes(data)
        (folder / "b.jsonl").write_bytes(data)
        self.counted(lambda bad: file_documents(folder, 1e6, bad))

    def sentences(self, data: bytes) -> None:
        """A file of sentences to be said."""
        path = self.folder / "sentences.txt"
        path.write_bytes(data)
        own_sentences(path, 3, 0)

    def params(self, data: bytes) -> None:
        """A file of parameters."""
        path = self.folder / "params.yaml"
        path.write_bytes(data)
        read_params(path)

    def checkpoint(self, data: bytes, name: str) -> None:
        """A checkpoint with one of its files spoiled."""
        folder = self.folder / "spoiled"
        if not folder.exists():
            shutil.copytree(self.good, folder)
        try:
            (folder / name).write_bytes(data)
            load_omni(folder)
        finally:
            shutil.copyfile(self.good / name, folder / name)

    def vocabulary(self, data: bytes) -> None:
        """A SentencePiece model by itself."""
        path = self.folder / "other.model"
        path.write_bytes(data)
        Tokenizer(path)

    def command(self, data: bytes) -> None:
        """The command's words, separated by NULs as in /proc."""
        words = data.decode("utf-8", "surrogateescape").split("\0")
        if words[:1] not in (["params"], ["transcribe"], ["chat"], ["say"], ["verify"]):
            words = ["params", *words]
        try:
            code = main(
                [*words, "--checkpoint", str(self.folder / "nothing")] if words[0] in ("chat", "say") else words
            )
        except SystemExit as error:  # argparse's way of refusing
            code = int(error.code or 0)
        if code == 2:
            raise UserError("refused")
        assert code in (0, 1), code


def targets(folder: Path) -> list[Target]:
    """All targets, on a folder of their own."""
    torch.set_num_threads(1)
    readers = Readers(folder)
    index = folder / "seed-shards"
    index.mkdir()
    with ShardWriter(index, "train", 10) as writer:
        writer.write("a", {"json": {"a": 1}})
    write_index(index, {"train": writer.shards}, [])
    texts = [
        s.encode() for s in ("What is it?", "<|end|><|user|>", "\uff1c|image|\uff1e", "e\u0301\u200b\ufeff", "😀" * 50)
    ]
    texts += [b"\xed\xa0\x80", bytes(range(256)), b"a" * 20_000, "ﷺ".encode() * 500]
    files = ((b"i", png_bytes()), (b"a", wav_bytes(sine(0.2))), (b"i", png_bytes(form="JPEG")))
    encoded = [kind + base64.b64encode(data) for kind, data in files]
    deep = b"[" * 100_000
    captions = (
        b'{"file": "a.png", "name": "dog"}\n{"file": "../a.png", "name": "cat"}\n{"file": "/etc/passwd", "name": "x"}'
    )
    csv = b'file,text,speaker\na.wav,"hello, there",me\n../a.wav,x,y\n/etc/passwd,z,\n'
    lines = b'{"file": "a.wav", "text": "hello"}\n{"file": "../a.wav", "text": "x"}\n'
    good = readers.good
    words = [
        b"transcribe\0/dev/zero",
        b"params\0--profile\0../../etc",
        b"chat\0--text\0hi\0--image\0x.png",
        b"verify\0/etc",
    ]
    words += [b"say\0hello\0--audio-out\0a.wav", b"chat\0--temperature\0nan\0--text\0x", b"params\0--params\0/dev/null"]
    return [
        Target("picture", load_image, pictures, memory_mb=700, share=2),
        Target("recording", load_audio, recordings, memory_mb=700, share=2),
        Target(
            "video",
            load_video,
            [movie_bytes(1), movie_bytes(1, sound=False), movie_bytes(1, form="avi")],
            memory_mb=700,
        ),
        Target("text", readers.text, texts),
        Target(
            "chat", readers.chat, [json.dumps(MESSAGES).encode(), deep, b'{"role": 1}'], mutate=mutate_json, share=2
        ),
        Target("question", readers.ask, [*encoded, b"tWhat is it?"]),
        Target("index", readers.index, [(index / "index.json").read_bytes(), deep], mutate=mutate_json),
        Target("tar", readers.tar, tars, share=2),
        Target("captions", readers.captions, [captions, deep], mutate=mutate_lines),
        Target("own picture", readers.own_picture, pictures, memory_mb=700),
        Target(
            "metadata.csv", lambda data: readers.metadata(data, "metadata.csv"), [csv, b"file,text\n" + b'"' * 200_000]
        ),
        Target(
            "metadata.jsonl", lambda data: readers.metadata(data, "metadata.jsonl"), [lines, deep], mutate=mutate_lines
        ),
        Target("own recording", readers.own_recording, recordings, memory_mb=700),
        Target("documents", readers.documents, [b'{"text": "hello"}\n{"text": 3}', *texts, deep], mutate=mutate_lines),
        Target("sentences", readers.sentences, [b"One.\nTwo.\nThree.\nFour.", *texts]),
        Target("params", readers.params, yamls, mutate=mutate_yaml, share=2),
        Target(
            "weights",
            lambda data: readers.checkpoint(data, "model.safetensors"),
            [(good / "model.safetensors").read_bytes()],
        ),
        Target(
            "config",
            lambda data: readers.checkpoint(data, "config.json"),
            [(good / "config.json").read_bytes(), deep],
            mutate=mutate_json,
            share=2,
        ),
        Target(
            "card",
            lambda data: readers.checkpoint(data, "card.json"),
            [(good / "card.json").read_bytes(), deep],
            mutate=mutate_json,
        ),
        Target("vocabulary", readers.vocabulary, [(good / MODEL_FILE).read_bytes()]),
        Target("command", readers.command, words),
    ]
