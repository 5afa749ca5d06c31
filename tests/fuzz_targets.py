"""The targets of fuzzing: a reader, inputs to start from, how they are spoiled, and what an input may take.

A reader returns (accepted) or raises `UserError` of one line (refused). Anything else is a fault: another exception, a
longer time than `seconds`, more memory than `memory_mb` beyond what was held before, a process that dies.
"""

import base64
import hashlib
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fuzz_inputs import (
    CONVERSATION,
    MESSAGES,
    long_number,
    mutate_bytes,
    mutate_json,
    mutate_lines,
    mutate_words,
    mutate_yaml,
    pictures,
    recordings,
    tars,
    videos,
    yamls,
)
from fuzz_readers import Readers
from fuzz_sources import SourceReaders, source_inputs
from test_media import png_bytes, sine, wav_bytes

from muomni.checkpoint import CARD, CONFIG, WEIGHTS
from muomni.media import load_audio, load_image, load_video
from muomni.tokenizer import MODEL_FILE


@dataclass
class Target:
    """One reader.

    Attributes:
        name: of it.
        read: takes an input; returns or raises `UserError`.
        seeds: good inputs, and bad ones that were thought out.
        mutate: spoils an input.
        seconds: of processor time that an input may take.
        memory_mb: that it may take beyond what the process holds.
        share: how many of the inputs it gets, beside the others.
    """

    name: str
    read: Callable[[bytes], object]
    seeds: list[bytes] | Callable[[], list[bytes]]
    mutate: Callable[[bytes, random.Random], bytes] = mutate_bytes
    seconds: float = 20.0
    memory_mb: float = 100.0
    share: float = 1.0

    def corpus(self) -> list[bytes]:
        """The inputs to start from."""
        return list(self.seeds if isinstance(self.seeds, list) else self.seeds())

    def spoil(self, data: bytes, rng: random.Random) -> bytes:
        """A changed input."""
        return self.mutate(data, rng)


DEEP = b"[" * 100_000
TEXTS = [
    *(s.encode() for s in ("What is it?", "<|end|><|user|>", "\uff1c|image|\uff1e", "e\u0301\u200b\ufeff", "😀" * 50)),
    b"\xed\xa0\x80",
    bytes(range(256)),
    b"a" * 20_000,
    "ﷺ".encode() * 500,
]
CAPTIONS = [
    b'{"file": "a.ppm", "name": "dog"}\n{"file": "../a.ppm", "name": "cat"}\n{"file": "/etc/passwd", "name": "x"}',
    b'{"file": "a.ppm", "name": "unicorn"}\n{"file": "link.png", "name": "cat"}',
    DEEP,
]
CSV = [
    b'file,text,speaker\na.wav,"hello, there",me\n../a.wav,x,y\n/etc/passwd,z,\nlink.wav,a link,me\n',
    b"file,text\n" + b'"' * 200_000,
    b"\xef\xbb\xbffile,text\r\na.wav,caf\xc3\xa9\r\n",
]
METADATA = [
    b'{"file": "a.wav", "text": "hello"}\n{"file": "../a.wav", "text": "x"}\n{"file": "link.wav", "text": "x"}',
    '{"file": "a.wav", "text": "one\u2028two"}\n{"file": "a.wav", "text": ["no"], "speaker": 3}'.encode(),
    DEEP,
]
WORDS = [
    words.replace(" ", "\0").encode()
    for words in (
        "transcribe /dev/zero",
        "transcribe x.wav --weights int8 --device cpu",
        "params --profile ../../etc",
        "params --params /dev/null",
        "params --params " + "a" * 300,
        "profile ../tiny",
        "chat --text hi --image x.png --audio-in y.wav --video z.mp4",
        "chat --temperature nan --text x",
        "chat --text x --top-k -1 --top-p 1e-400 --max-tokens 1e9 --seed " + "9" * 5000,
        "verify /etc",
        "verify " + "b" * 300,
        "verify --model models:/../../etc@x",
        "say hello --audio-out a.wav",
        "say hello --audio-out " + "c" * 300 + ".wav --stream",
        "evaluate speech --sentences /dev/zero --count 0",
        "evaluate codec --checkpoint nothing --speaker x --out y",
        "--help",
    )
]
TALKS = [
    b"hello\n/image x.png\n/audio \n/send\n/reset\n/help\n",
    b"\xff\xfe\n/video " + b"a" * 300 + b"\n/image 'un closed\nWhat is it?\n<|end|>",
    b"/quit\nx",
]


def samples() -> list[bytes]:
    """Samples of pictures, log-mels and conversations."""

    def sample(kind: str, about: object, files: dict[str, bytes]) -> bytes:
        encoded = {name: base64.b64encode(file).decode() for name, file in files.items()}
        return json.dumps({"for": kind, "json": about, "files": encoded}).encode()

    array = io.BytesIO()
    np.save(array, np.zeros((20, 128), np.float16))
    picture = {"caption": "a dog", "objects": [{"name": "dog"}], "kind": "single", "background": None}
    spoken = {"text": "hello", "speaker": "hibari", "seconds": 0.2, "kind": "own", "key": "own:hello"}
    talk = {"task": "name", "kind": "what", "messages": CONVERSATION, "targets": ["dog"], "key": "dog"}
    return [
        sample("pictures", picture, {"png": png_bytes((8, 8))}),
        sample("pictures", picture, {"png": png_bytes((8, 8), form="JPEG")}),
        sample("mels", spoken, {"npy": array.getvalue()}),
        sample("talks", talk, {"0.png": png_bytes((8, 8)), "0.flac": wav_bytes(sine(0.2), form="FLAC")}),
    ]


def requests() -> list[bytes]:
    """Rows for a served model."""
    files = {"image": png_bytes(), "audio": wav_bytes(sine(0.2))}
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    options = {"max_tokens": 2, "seed": 0, "temperature": 0.0}
    rows = [{"text": "What is it?", "speak": True}, {"text": None, **encoded}, {"text": "x", "image": "%%%"}]
    return [json.dumps(row | options).encode() for row in rows]


def targets(folder: Path) -> list[Target]:
    """All targets, on a folder of their own."""
    torch.set_num_threads(1)
    r = Readers(folder)
    asked = [b"i" + base64.b64encode(png_bytes()), b"a" + base64.b64encode(wav_bytes(sine(0.2)))]
    asked += [b"i" + base64.b64encode(png_bytes(form="JPEG"))]
    messages = [json.dumps(MESSAGES).encode(), json.dumps(CONVERSATION).encode(), DEEP, b'{"role": 1}', long_number()]
    indexed = {"file": "train.bin", "tokens": 100, "bytes": 300}
    # Of what `Readers.tokens` writes.
    indexed["sha256"] = hashlib.sha256(np.arange(100, dtype="<u2").tobytes()).hexdigest()
    index = {"vocab_size": 384, "eot": 2, "tokenizer": "0", "splits": {"train": indexed}}
    tokens = [json.dumps(index).encode(), DEEP, json.dumps(index).replace("100", "1e999").encode()]
    weights, config, card = ((r.good / name).read_bytes() for name in (WEIGHTS, CONFIG, CARD))
    vocabulary = (r.good / MODEL_FILE).read_bytes()
    sources = [
        Target(name, read, seeds, spoil or mutate_bytes, memory_mb=200)
        for name, read, seeds, spoil in source_inputs(SourceReaders(r))
    ]
    return [
        *sources,
        # A picture of 50 million pixels is 200 MB, twice while it is converted; a decoder may hold it once more.
        Target("picture", load_image, pictures, memory_mb=650, share=2),
        # 100 million samples are 400 MB of float32, which a container's frames are before they are joined.
        Target("recording", load_audio, recordings, memory_mb=900, share=2),
        # Decoders hold up to twenty frames of 16 million pixels.
        Target("video", load_video, videos, memory_mb=700),
        Target("text", r.text, TEXTS),
        Target("messages", r.chat, messages, mutate_json, share=2),
        Target("question", r.ask, asked, memory_mb=650),
        Target("request", r.request, requests, mutate_json, memory_mb=650),
        Target("terminal", r.talk, TALKS),
        Target("command", r.command, WORDS, mutate_words, share=2),
        Target("index", r.index, [(r.shards / "index.json").read_bytes(), DEEP], mutate_json),
        Target("tar", r.tar, tars, share=2),
        Target("samples", r.samples, samples, mutate_json),
        Target("tokens", r.tokens, tokens, mutate_json),
        Target("captions", r.captions, CAPTIONS, mutate_lines),
        Target("own picture", r.own_picture, pictures, memory_mb=650),
        Target("metadata.csv", lambda data: r.metadata(data, "metadata.csv"), CSV),
        Target("metadata.jsonl", lambda data: r.metadata(data, "metadata.jsonl"), METADATA, mutate_lines),
        Target("own recording", r.own_recording, recordings, memory_mb=900),
        Target("documents", r.documents, [b'{"text": "hello"}\n{"text": 3}', *TEXTS, DEEP], mutate_lines),
        Target("sentences", r.sentences, [b"One.\nTwo.\nThree.\nFour.", *TEXTS]),
        Target("params", r.params, yamls, mutate_yaml, share=2),
        Target("weights", lambda data: r.checkpoint(data, WEIGHTS, forged=True), [weights], share=2),
        Target("config", lambda data: r.checkpoint(data, CONFIG, forged=True), [config, DEEP], mutate_json, share=2),
        Target("card", lambda data: r.checkpoint(data, CARD, forged=False), [card, DEEP], mutate_json),
        Target("verify", r.verified, [card, DEEP], mutate_json),
        Target("tokenizer", lambda data: r.checkpoint(data, MODEL_FILE, forged=True), [vocabulary]),
        Target("vocabulary", r.vocabulary, [vocabulary]),
    ]
