"""Everything that reads what people bring, as functions of bytes: they return, or raise `UserError` of one line."""

import argparse
import base64
import io
import json
import os
import shutil
import sys
import tarfile
import wave
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from fuzz_inputs import ROOT
from small_models import small_omni, small_tokenizer

from muomni.base64_media import file_bytes, needed_bytes, wav_text
from muomni.checkpoint import CARD, CONFIG, WEIGHTS, make_card, save_checkpoint
from muomni.cli import main
from muomni.config import parse
from muomni.data.dialogues import Dialogues
from muomni.data.files import sha256_file
from muomni.data.image_corpus import ImagesConfig, build_image_corpus
from muomni.data.pictures import load_pictures
from muomni.data.shards import ShardWriter, count_samples, fingerprint, read_index, read_shards, write_index
from muomni.data.speech import load_recordings
from muomni.data.speech_corpus import SpeechConfig, build_speech
from muomni.data.text_corpus import TextConfig, build_text_corpus
from muomni.data.tokens import TokenDataset
from muomni.errors import UserError
from muomni.evaluate.sentences import own_sentences
from muomni.generate import Session, last
from muomni.model_commands import converse
from muomni.omni import load_omni
from muomni.parameter_table import read_shapes, render
from muomni.params import read_params
from muomni.sampling import Sampling
from muomni.tokenizer import MODEL_FILE, Tokenizer, render_chat

SECRET = "TOPSECRET"  # in a file beside the folders that are read
COMMANDS = ("params", "profile", "transcribe", "chat", "say", "verify", "evaluate", "--version", "--help")


class Readers:
    """The readers, on a folder of their own.

    Args:
        folder: to write inputs into; an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tokenizer").mkdir(parents=True)
        (folder / "secret.txt").write_text(f"{SECRET} " * 50)
        self.tokenizer = small_tokenizer(folder / "tokenizer")
        self.model = small_omni()
        self.good, self.spoiled = folder / "good", folder / "spoiled"
        card = make_card("omni", self.model, data={}, params={}, metrics={}, seconds=0.0)
        vocabulary = {MODEL_FILE: folder / "tokenizer" / MODEL_FILE}
        save_checkpoint(self.good, self.model.state_dict(), self.model.cfg.model_dump(mode="json"), card, vocabulary)
        shutil.copytree(self.good, self.spoiled)
        self.smoke: dict[str, Any] = yaml.safe_load((ROOT / "profiles" / "smoke.yaml").read_text(encoding="utf-8"))
        (folder / "a.wav").write_bytes(self.sound())
        self.shards = folder / "seed-shards"
        self.shards.mkdir()
        written = {}
        for split in ("train", "valid"):
            with ShardWriter(self.shards, split, 10) as writer:
                writer.write("a", {"json": {"a": 1}})
            written[split] = writer.shards
        write_index(self.shards, written, [])

    def sound(self) -> bytes:
        """A short recording."""
        buffer = io.BytesIO()
        with closing(wave.Wave_write(buffer)) as out:
            out.setparams((1, 2, 16000, 0, "NONE", ""))
            out.writeframes((np.sin(np.arange(8000) / 9) * 9000).astype("<i2").tobytes())
        return buffer.getvalue()

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    # What is said to the model

    def text(self, data: bytes) -> None:
        """Any text is tokens and text again, and never a control token."""
        text = data.decode("utf-8", "surrogateescape" if len(data) % 2 else "replace")
        ids = self.tokenizer.encode(text)
        assert not set(ids) & set(self.tokenizer.controls), "text became a control token"
        self.tokenizer.decode(ids)
        rendered = render_chat([{"role": "user", "content": text or "x"}], self.tokenizer)
        assert rendered

    def chat(self, data: bytes) -> None:
        """A request in the chat format; only the template's own control tokens may be in what becomes of it."""
        messages = loaded(data)
        segments = render_chat(messages, self.tokenizer)
        ids = [token for segment in segments if segment.kind == "text" for token in segment.value]
        t = self.tokenizer
        assert ids.count(t.user) + ids.count(t.assistant) == ids.count(t.end) == len(messages)
        videos = [p for m in messages if isinstance(m["content"], list) for p in m["content"] if p["type"] == "video"]
        assert ids.count(t.video) == len(videos)
        assert not set(ids) & {t.image, t.audio, t.pad, t.eos}

    def ask(self, data: bytes) -> None:
        """A question with a picture or a recording of bytes that came as base64."""
        kind, rest = data[:1], data[1:]
        given = needed_bytes(rest.decode("latin-1"), "file")
        session = Session(self.model, self.tokenizer)
        if kind == b"i":
            last(session.ask("What is it?", images=[given], max_tokens=2))
        else:
            last(session.ask(None, audio=[given], max_tokens=2))

    def request(self, data: bytes) -> None:
        """A row as a served model gets it (`pipelines.pyfunc_model`), whose types MLflow has checked."""
        row = loaded(data)
        if not isinstance(row, dict):
            raise UserError("no row")
        for name, kind in (("max_tokens", int), ("seed", int), ("temperature", float)):
            value = row.get(name)
            if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and abs(value) >= 1 << 62):
                raise UserError(f"{name}: refused by MLflow")
        text = row.get("text")
        files = {name: file_bytes(row.get(name), name) for name in ("image", "audio")}
        answer = last(
            Session(self.model, self.tokenizer).ask(
                text if isinstance(text, str) else None,
                images=[file for file in (files["image"],) if file is not None],
                audio=[file for file in (files["audio"],) if file is not None],
                speak=row.get("speak") is True,
                sampling=parse(Sampling, {"temperature": row["temperature"]}, "request"),
                max_tokens=min(row["max_tokens"], 8),  # for time's sake
                seed=row["seed"],
            )
        )
        wav_text(answer.wave, self.model.cfg.mel.sample_rate)

    def talk(self, data: bytes) -> None:
        """A conversation at the terminal, a question or a command a line."""
        before = sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO(data[:2000].replace(b"/say", b"/sai")), encoding="utf-8")
        options = {"temperature": 0.5, "top_k": 0, "top_p": 0.9, "max_tokens": 2, "seed": 0, "stream": True}
        try:
            code = converse(Session(self.model, self.tokenizer), argparse.Namespace(**options, voice=""))
        finally:
            sys.stdin = before
        if code == 2:
            raise UserError("a line was refused")

    def command(self, data: bytes) -> None:
        """The command's words, separated by NULs as in /proc."""
        words = data.decode("utf-8", "surrogateescape").split("\0")
        if words[0] not in COMMANDS:
            words = ["params", *words]
        if words[0] in ("chat", "say"):
            words += ["--checkpoint", str(self.folder / "nothing")]
        try:
            code = main(words)
        except SystemExit as error:  # argparse's way after --help
            code = int(error.code or 0)
        if code == 2:
            raise UserError("refused")
        assert code in (0, 1), code

    # Shards and tokens

    def index(self, data: bytes) -> None:
        """An index of shards."""
        folder = self.fresh("mels")
        for split in ("train", "valid"):
            shutil.copy(self.shards / f"{split}-000000.tar", folder)
        (folder / "index.json").write_bytes(data)
        read_index(folder)
        fingerprint(folder)
        for split in ("train", "valid"):
            assert count_samples(folder, split) == len(list(read_shards(folder, split)))

    def tar(self, data: bytes) -> None:
        """A shard whose hash is right."""
        folder = self.fresh("images")
        (folder / "train-000000.tar").write_bytes(data)
        entry = {"file": "train-000000.tar", "samples": 2, "sha256": sha256_file(folder / "train-000000.tar")}
        write_index(folder, {"train": [entry]}, [])
        for sample in read_shards(folder, "train"):
            assert "/" not in sample["__key__"]

    def samples(self, data: bytes) -> None:
        """What is in samples: ``{"for": ..., "json": ..., "files": {name: base64}}``."""
        value = loaded(data)
        if not isinstance(value, dict) or not isinstance(value.get("files"), dict):
            raise UserError("no sample")
        folder = self.fresh("images")
        path = folder / "train-000000.tar"
        try:
            members = {name: base64.b64decode(file) for name, file in value["files"].items()}
            members["json"] = json.dumps(value.get("json")).encode()
            write_sample(path, members)
        except (ValueError, TypeError):
            raise UserError("cannot be written") from None
        write_index(folder, {"train": [{"file": path.name, "samples": 1, "sha256": sha256_file(path)}]}, [])
        kind = value.get("for")
        if kind == "pictures":
            load_pictures(folder, "train")
        elif kind == "mels":
            load_recordings(folder, "train")
        else:
            Dialogues(folder, "train", self.model.cfg.mel)

    def tokens(self, data: bytes) -> None:
        """An index of packed tokens."""
        folder = self.fresh("tokens")
        np.arange(100, dtype="<u2").tofile(folder / "train.bin")
        (folder / "index.json").write_bytes(data)
        found = TokenDataset(folder, "train")
        found.sequences(8)
        assert sum(int((targets != -100).sum()) for _, targets in found.eval_windows(8)) == 99

    # One's own data, through to the manifest

    def corpus(self, work: Callable[[Path], object]) -> None:
        """Build a corpus, which must not tell what lies outside the folder that it comes from."""
        out = self.fresh("corpus")
        work(out)
        for path in out.rglob("*.json*"):
            assert SECRET not in path.read_text(encoding="utf-8")

    def pictures(self, folder: Path, source: str = "folder") -> None:
        """A folder of pictures."""
        values = self.smoke["images"] | {"source": source, "path": str(folder), "max_bad_fraction": 1.0}
        values |= {"scenes": 0, "valid_scenes": 0, "test_scenes": 0, "max_pixels": 1_000_000}
        self.corpus(lambda out: build_image_corpus(ImagesConfig(**values), 0, out, "images"))

    def speech(self, folder: Path) -> None:
        """A folder of recordings."""
        values = {"source": "folder", "path": str(folder), "max_bad_fraction": 1.0, "workers": 1}
        cfg = SpeechConfig(**self.smoke["speech"] | values)
        self.corpus(lambda out: build_speech(cfg, out / "none", out / "none", 0, out))

    def captions(self, data: bytes) -> None:
        """A table of pictures with their names."""
        folder = self.fresh("own-pictures")
        (folder / "a.ppm").write_bytes(b"P6 8 8 255\n" + bytes(range(192)))
        (folder / "link.png").symlink_to(self.folder / "secret.txt")
        (folder / "captions.jsonl").write_bytes(data)
        self.pictures(folder)

    def own_picture(self, data: bytes) -> None:
        """A picture in such a folder."""
        folder = self.fresh("own-picture")
        (folder / "a.png").write_bytes(data)
        (folder / "captions.jsonl").write_text('{"file": "a.png", "name": "dog"}\n')
        self.pictures(folder)

    def metadata(self, data: bytes, name: str) -> None:
        """A table of recordings with their texts."""
        folder = self.fresh("own-speech")
        (folder / "a.wav").write_bytes(self.sound())
        (folder / "link.wav").symlink_to(self.folder / "a.wav")
        (folder / name).write_bytes(data)
        self.speech(folder)

    def own_recording(self, data: bytes) -> None:
        """A recording in such a folder."""
        folder = self.fresh("own-recording")
        (folder / "a.wav").write_bytes(data)
        (folder / "metadata.csv").write_text("file,text\na.wav,hello there\n")
        self.speech(folder)

    def documents(self, data: bytes) -> None:
        """Own texts, in both forms, with a link and names as only some systems have them."""
        folder = self.fresh("own-text")
        for number in range(6):
            (folder / f"{number}.txt").write_text(f"Document {number} is about the number {number} and {number + 1}.")
        (folder / "link.txt").symlink_to(self.folder / "secret.txt")
        (folder / "loop.txt").symlink_to("loop.txt")
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text("of another system")
        (folder / "a.txt").write_bytes(data)
        (folder / "b.jsonl").write_bytes(data)
        values = {"source": "files", "path": str(folder), "max_bad_fraction": 1.0, "fact_documents": 0, "sentences": 0}
        cfg = TextConfig(**self.smoke["text"] | values)
        self.corpus(lambda out: build_text_corpus(cfg, 0, out, out / "none"))

    def sentences(self, data: bytes) -> None:
        """A file of sentences to be said."""
        path = self.folder / "sentences.txt"
        path.write_bytes(data)
        own_sentences(path, 3, 0)

    # Parameters and checkpoints

    def params(self, data: bytes) -> None:
        """A file of parameters, and the count of what it builds."""
        path = self.folder / "params.yaml"
        path.write_bytes(data)
        read_params(path)
        render(*read_shapes(path), "drawn")

    def checkpoint(self, data: bytes, name: str, forged: bool) -> None:
        """A checkpoint with one of its files spoiled, and perhaps a card that was written for that; then it answers."""
        try:
            (self.spoiled / name).write_bytes(data)
            if forged:
                card = json.loads((self.good / CARD).read_text(encoding="utf-8"))
                card["weights_sha256"] = sha256_file(self.spoiled / WEIGHTS)
                card["files_sha256"] = {file: sha256_file(self.spoiled / file) for file in (CONFIG, MODEL_FILE)}
                (self.spoiled / CARD).write_text(json.dumps(card), encoding="utf-8")
            model, tokenizer, _ = load_omni(self.spoiled)
            last(Session(model, tokenizer).ask("What is it?", speak=True, max_tokens=2))
        finally:
            for file in (name, CARD):
                shutil.copyfile(self.good / file, self.spoiled / file)

    def verified(self, data: bytes) -> None:
        """A card, as `muomni verify` looks at it."""
        try:
            (self.spoiled / CARD).write_bytes(data)
            code = main(["verify", str(self.spoiled), "--data", "--json"])
        finally:
            shutil.copyfile(self.good / CARD, self.spoiled / CARD)
        if code:
            raise UserError("differs, or cannot be read")

    def vocabulary(self, data: bytes) -> None:
        """A SentencePiece model by itself."""
        path = self.folder / "other.model"
        path.write_bytes(data)
        found = Tokenizer(path)
        for text in ("Where is the cat?", "<|image|> \U0001f600 \u0301", "\x00\ufeff\u2581"):
            ids = found.encode(text)
            assert not set(ids) & set(found.controls) - {found._model.unk_id()}
            found.decode(ids)
            found.char_spans(ids)


def loaded(data: bytes) -> Any:
    """JSON, which to read is the caller's part in these readers."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise UserError("not JSON") from None


def write_sample(path: Path, members: dict[str, bytes]) -> None:
    """Write a sample ``a`` whose members' bytes are taken as they are."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"a.{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
