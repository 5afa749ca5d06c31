"""The layouts that corpora of one's own come in, as readers of bytes and targets of fuzzing; see `fuzz_targets`.

Each reader writes its input among good files, so that most inputs make a corpus, and builds it to its manifest.
"""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_inputs import mutate_json, mutate_lines, mutate_yaml
from fuzz_readers import SECRET, Readers
from test_media import png_bytes

from muomni.data.badsamples import BadSamples
from muomni.data.chat_format import Fitting
from muomni.data.own_conversations import read_conversations
from muomni.data.speech_corpus import SpeechConfig, build_speech
from muomni.data.text_corpus import TextConfig, build_text_corpus
from muomni.errors import UserError

FITTING = Fitting(32, 16000, 3.0)
SENTENCES = [f"{what} number {n}." for what in ("A dog", "The cat", "One house") for n in range(10)]
MESSAGES = [
    {"role": "system", "content": "Be short."},
    {
        "role": "user",
        "content": [
            {"type": "image", "image": "a.png"},
            {"type": "audio", "audio": "a.wav"},
            {"type": "text", "text": "Which?"},
        ],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "The first."}]},
]
DEEP = b"[" * 100_000
BOM = b"\xef\xbb\xbf"


class SourceReaders:
    """The readers of layouts, on a folder of their own."""

    def __init__(self, readers: Readers) -> None:
        self.readers = readers

    def folder(self, name: str, **files: bytes) -> Path:
        """A fresh folder with a picture, a recording, a link out of it, and these files."""
        folder = self.readers.fresh(name)
        (folder / "a.png").write_bytes(png_bytes((8, 8)))
        (folder / "a.wav").write_bytes(self.readers.sound())
        (folder / "link.wav").symlink_to(self.readers.folder / "secret.txt")
        for file, data in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def csv(self, data: bytes) -> None:
        """``captions.csv``."""
        self.readers.pictures(self.folder("csv", **{"captions.csv": data}), "csv")

    def sidecar(self, data: bytes) -> None:
        """A picture's text."""
        self.readers.pictures(self.folder("sidecar", **{"a.txt": data}), "sidecar")

    def coco(self, data: bytes) -> None:
        """``annotations/captions_*.json``."""
        self.readers.pictures(self.folder("coco", **{"annotations/captions_x.json": data}), "coco")

    def webdataset(self, data: bytes) -> None:
        """A tar."""
        self.readers.pictures(self.folder("tars", **{"x.tar": data}), "webdataset")

    def speech(self, folder: Path, source: str, path: str = "") -> None:
        """A corpus of recordings."""
        values = {"source": source, "path": str(folder / path), "max_bad_fraction": 1.0, "workers": 1}
        cfg = SpeechConfig(**self.readers.smoke["speech"] | values)
        self.readers.corpus(lambda out: build_speech(cfg, out / "none", out / "none", 0, out))

    def table(self, data: bytes, source: str, file: str) -> None:
        """A table of recordings."""
        more = {"wavs/a.wav": self.readers.sound(), "clips/a.mp3": self.readers.sound()}
        more["train/1/2/1-2-0.flac"] = self.readers.sound()
        self.speech(self.folder("speech", **more, **{file: data}), source)

    def mixture(self, data: bytes) -> None:
        """The file of a mixture of speech, relative to a folder where its sources are."""
        good = json.dumps({"file": "a.wav", "text": "hello"}).encode()
        folder = self.folder("mixture", **{"mixture.yaml": data.replace(b"HERE", str(self.readers.folder).encode())})
        (folder / "metadata.jsonl").write_bytes(good)
        self.speech(folder, "mixture", "mixture.yaml")

    def text(self, data: bytes, source: str, file: str) -> None:
        """A file of texts among others."""
        folder = self.folder("texts", **{file: data})
        good = [{"text": text} for text in SENTENCES]
        if source == "parquet":
            pq.write_table(pa.Table.from_pylist(good), folder / "good.parquet")
        else:
            (folder / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in good))
        values = {"source": source, "path": str(folder), "max_bad_fraction": 1.0, "fact_documents": 0, "sentences": 0}
        cfg = TextConfig(**self.readers.smoke["text"] | values)
        self.readers.corpus(lambda out: build_text_corpus(cfg, 0, out, out / "none"))

    def conversations(self, data: bytes) -> None:
        """A file of conversations; every line is one or has its reason."""
        folder, bad = self.folder("talks", **{"talks.jsonl": data}), BadSamples(1.0, "talks")
        found, _ = read_conversations("jsonl", str(folder), FITTING, 0, bad, 1)
        for item in found:
            about = json.dumps(item.about())
            about.encode()
            assert SECRET not in about and item.split in ("train", "valid", "test")
            assert set(item.members) == set(item.digests)
        lines = sum(bool(line.strip()) for line in data.split(b"\n"))
        assert len(found) + len(bad) == lines or len(data) > 900_000, (len(found), len(bad), lines)
        assert all(entry["reason"].isprintable() for entry in bad.items)
        if not found:
            raise UserError("none")


def tars() -> list[bytes]:
    """Tars as WebDataset has them, a link and a name that leads out among them."""
    found = []
    for kind, about in (("txt", b"A dog."), ("json", b'{"caption": "A cat."}'), ("json", b'{"name": "dog"}')):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for key in ("0", "1", "../2"):
                for ending, data in (("png", png_bytes((8, 8))), (kind, about)):
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("3.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        found.append(buffer.getvalue())
    return found


def parquets() -> list[bytes]:
    """Tables of texts, of several kinds and row groups."""
    found = []
    for values, options in (
        (SENTENCES, {"row_group_size": 7}),
        ([*SENTENCES[:5], None], {"compression": "none"}),
        ([3, 4], {}),
    ):
        buffer = io.BytesIO()
        pq.write_table(pa.table({"text": values}), buffer, **options)
        found.append(buffer.getvalue())
    return found


COCO = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "../a.png"}, {"id": 3, "file_name": "none.png"}],
    "annotations": [{"image_id": n, "caption": f"A dog and {n}."} for n in (1, 2, 3, 4)],
}
MIXTURES = [
    b"- {source: folder, path: HERE/mixture, name: me, weight: 1.5, licence: CC0}\n",
    b"- {source: folder, path: HERE/mixture, prefix: x}\n- {source: manifest, path: HERE/mixture/metadata.jsonl,"
    b" columns: {audio: file}, shared: true}\n",
]
TABLES = {
    ("ljspeech", "metadata.csv"): [b"a|Hello.|Hello there.\n../a|x|y\n", BOM + b"a|caf\xc3\xa9\r\n|\r\n"],
    ("librispeech", "train/1/2/1-2.trans.txt"): [b"1-2-0 HELLO THERE\n../x NO\n", b"1-2-0\n"],
    ("common_voice", "validated.tsv"): [b'client_id\tpath\tsentence\nx\ta.mp3\t"He said ""no"""\ny\t../a\tz\n'],
    ("manifest", "manifest.csv"): [b'audio,text,speaker,split\na.wav,"Hello, you",me,train\nlink.wav,x,y,dev\n'],
    ("manifest", "manifest.jsonl"): [
        b'{"audio": "a.wav", "text": "Hello."}\n{"audio": "/etc/passwd", "text": "x", "split": "no"}\n',
        DEEP,
    ],
}


def source_inputs(r: SourceReaders) -> list[tuple[str, Callable[[bytes], object], list[bytes], object]]:
    """Of each target its name, reader, seeds, and how they are spoiled (None: byte by byte)."""
    csv = [b'file,caption\na.png,"A dog, a cat"\n../a.png,x\n', BOM + b'file,name\r\na.png,dog\r\n"a.png","x\ny"\r\n']
    texts = ["\n".join(json.dumps({"text": text}) for text in SENTENCES[:5]).encode(), DEEP, b'{"text": 3}\n\n{}']
    talk = json.dumps({"messages": MESSAGES}).encode()
    short = json.dumps({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]})
    found: list[tuple[str, Callable[[bytes], object], list[bytes], object]] = [
        ("captions.csv", r.csv, csv, None),
        ("sidecar", r.sidecar, [b"A dog.\nA cat.\n", BOM + b"x", b"\xff", b"\n"], None),
        ("coco", r.coco, [json.dumps(COCO).encode(), DEEP, b"{}"], mutate_json),
        ("webdataset", r.webdataset, tars(), None),
        ("parquet", lambda data: r.text(data, "parquet", "x.parquet"), parquets(), None),
        ("jsonl", lambda data: r.text(data, "jsonl", "x.jsonl"), texts, mutate_lines),
        ("conversations", r.conversations, [talk + b"\n" + short.encode(), short.encode(), DEEP], mutate_lines),
        ("mixture", r.mixture, MIXTURES, mutate_yaml),
    ]
    for (source, file), seeds in TABLES.items():
        name = source if source != "manifest" else file
        spoil = mutate_lines if file.endswith(".jsonl") else None
        found.append((name, lambda data, s=source, f=file: r.table(data, s, f), seeds, spoil))  # type: ignore[misc]
    return found
