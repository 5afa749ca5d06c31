"""SentencePiece with byte fallback, the control tokens, and the one chat template.

Control tokens are SentencePiece *control symbols*: only this code puts them into a sequence. Text that spells
``<|image|>`` is encoded as ordinary pieces, so nothing that a user writes can open a turn or claim a picture.
"""

import codecs
import hashlib
import io
import random
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sentencepiece
from pydantic import Field

from muomni.config import Section, short
from muomni.data.files import atomic_write_bytes
from muomni.errors import UserError

PAD, EOT = "<|pad|>", "<|eot|>"
CONTROLS = ("<|user|>", "<|assistant|>", "<|end|>", "<|image|>", "<|audio|>", "<|video|>")
MODEL_FILE = "tokenizer.model"
MOST_BYTES = 64 << 20  # of a model file; one of 65,536 pieces has 1 MB


class TokenizerConfig(Section):
    """Section ``tokenizer``."""

    vocab_size: int = Field(ge=300, le=65536, description="pieces, control tokens and 256 bytes included")
    kind: Literal["bpe", "unigram"] = Field(description="the SentencePiece algorithm")
    character_coverage: float = Field(gt=0.9, le=1.0, description="share of characters that get a piece")
    max_sentences: int = Field(ge=100, description="train on at most this many lines, drawn by seed")


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    path: str | Path,
    *,
    kind: str = "bpe",
    character_coverage: float = 0.9995,
    max_sentences: int = 1_000_000,
    seed: int = 0,
) -> "Tokenizer":
    """Train a tokenizer and write its model file. The same texts and seed give the same bytes.

    Case and all characters are kept: what has no piece is spelled in bytes. Every text is encoded as if a
    space came before it, so that a word at the start of an answer is the same piece as within a sentence.

    Args:
        texts: documents; they are cut into lines.
        vocab_size: number of pieces.
        path: file to write.
        kind: ``bpe`` or ``unigram``.
        character_coverage: share of the characters that become pieces.
        max_sentences: lines to train on at most.
        seed: draws the lines if there are more.

    Raises:
        UserError: if the texts are too few for that many pieces.
    """
    # No piece may ever span the start of a control token's spelling, even if a corpus is full of it.
    lines = [line.replace("<|", "< |") for text in texts for line in text.split("\n") if line.strip()]
    if not lines:
        raise UserError("tokenizer: there is no text to train on; run `dvc repro corpus-text`")
    if len(lines) > max_sentences:
        keep = sorted(random.Random(seed).sample(range(len(lines)), max_sentences))
        lines = [lines[index] for index in keep]
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            max_sentence_length=1 << 20,
            pad_id=0,
            pad_piece=PAD,
            unk_id=1,
            eos_id=2,
            eos_piece=EOT,
            bos_id=-1,
            control_symbols=list(CONTROLS),
            num_threads=1,  # more could change the order in which equal counts are merged
            minloglevel=2,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"tokenizer.vocab_size: {vocab_size} pieces cannot be learned from {len(lines)} lines of text "
            f"({' '.join(str(error).split())}); choose another size or give more text"
        ) from None
    atomic_write_bytes(path, model.getvalue())
    return Tokenizer(path)


class Tokenizer:
    """Text to token ids and back.

    Args:
        path: ``tokenizer.model``, or the folder that holds it.

    Attributes:
        vocab_size: number of ids.
        pad, bos, eos: ids; a document ends with ``<|eot|>``, which is also what stands before its first
            token.
        user, assistant, end, image, audio, video: ids of the control tokens.
        controls: all of these ids, and the unknown one.

    Raises:
        UserError: if the file is missing, damaged, or not a tokenizer of this project.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        path = path / MODEL_FILE if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"{path}: no such tokenizer; run `dvc repro tokenizer`")
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES:,} bytes")
            self._read(path.read_bytes(), path)
        except (RuntimeError, ValueError, OSError) as error:  # also a piece that is no UTF-8
            text = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: not a tokenizer model ({text}); run `dvc repro --force tokenizer`") from None

    def _read(self, content: bytes, path: Path) -> None:
        if not content:
            raise ValueError("the file is empty")
        self.model_bytes = content
        self._model = sentencepiece.SentencePieceProcessor()
        self._model.LoadFromSerializedProto(content)
        self.vocab_size: int = self._model.get_piece_size()
        for name in (PAD, EOT, *CONTROLS):
            if not self._model.is_control(self._model.piece_to_id(name)):
                raise UserError(f"{path}: has no {name}, so it is not muOmni's; run `dvc repro --force tokenizer`")
        ids = {name: int(self._model.piece_to_id(name)) for name in (PAD, EOT, *CONTROLS)}
        self.pad, self.eos, self.bos = ids[PAD], ids[EOT], ids[EOT]
        self.user, self.assistant, self.end = ids["<|user|>"], ids["<|assistant|>"], ids["<|end|>"]
        self.image, self.audio, self.video = ids["<|image|>"], ids["<|audio|>"], ids["<|video|>"]
        self.controls = frozenset([*ids.values(), int(self._model.unk_id())])
        # What an id spells: text, one byte of a character without a piece, or nothing.
        self._spelling: list[str | bytes] = [self._spell(index) for index in range(self.vocab_size)]

    def _spell(self, index: int) -> str | bytes:
        if index in self.controls:
            return ""
        piece: str = self._model.id_to_piece(index)
        return bytes([int(piece[3:5], 16)]) if self._model.is_byte(index) else piece.replace("▁", " ")

    @property
    def sha256(self) -> str:
        """Hash of the model file, for checkpoint cards."""
        return hashlib.sha256(self.model_bytes).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the model to a file, or as ``tokenizer.model`` into an existing folder."""
        path = Path(path)
        atomic_write_bytes(path / MODEL_FILE if path.is_dir() else path, self.model_bytes)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, never a control token; an empty text has none.

        The text is composed to Unicode NFC first, and lone surrogates become U+FFFD.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        return list(self._model.encode(unicodedata.normalize("NFC", text)))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each id adds to the decoded text, so that joining the list gives `decode`.

        Control ids add nothing. A character spelled in bytes appears with its last byte; bytes that are no
        UTF-8 become U+FFFD. The space that `encode` put before the text is left out again.

        Raises:
            IndexError: for an id outside the vocabulary.
        """
        out: list[str] = []
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for index in ids:
            if index < 0:
                raise IndexError(f"token id {index}")
            spelled = self._spelling[index]
            if isinstance(spelled, bytes):
                out.append(decoder.decode(spelled))
            else:
                # No byte follows: what the decoder still holds is broken, and belongs to the token before.
                rest = decoder.decode(b"", final=True)
                if rest:
                    out[-1] += rest
                decoder.reset()
                out.append(spelled)
        rest = decoder.decode(b"", final=True)
        if rest:
            out[-1] += rest
        for place, piece in enumerate(out):
            if piece:
                out[place] = piece.removeprefix(" ")
                break
        return out

    def spelled(self, index: int) -> str | bytes:
        """What an id spells, as `pieces` joins it: text, one byte of a character, or nothing for a control token."""
        return self._spelling[index]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without control tokens.

        ``decode(encode(text))`` is the text in NFC, but for U+2581, SentencePiece's sign for a space, which
        becomes one.
        """
        return "".join(self.pieces(ids))

    def char_spans(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """For each id the half-open range of characters of ``decode(ids)`` that it spells.

        The ranges follow each other without gap or overlap; a control token's is empty.
        """
        spans, at = [], 0
        for piece in self.pieces(ids):
            spans.append((at, at + len(piece)))
            at += len(piece)
        return spans


class Segment(NamedTuple):
    """One stretch of a rendered conversation.

    Attributes:
        kind: ``text``, ``image`` or ``audio``.
        value: for text its token ids; else the reference that the message's part gave (a member's name, a
            path, a tensor), which fusion replaces by the encoder's positions.
        answer: whether the model has to say it. True for an assistant's text and its ``<|end|>`` only.
    """

    kind: str
    value: Any
    answer: bool


def render_chat(
    messages: Sequence[dict[str, Any]], tokenizer: Tokenizer, add_generation_prompt: bool = False
) -> list[Segment]:
    """The chat template, used by training, evaluation and inference alike.

    A conversation of two turns becomes, with the answers (what the loss sees) in brackets::

        <|user|> content <|end|> <|assistant|> [ text <|end|> ]
        <|user|> content <|end|> <|assistant|> [ text <|end|> ]

    Content keeps its order: text is encoded, a picture or a recording is a segment of its own, a video is
    ``<|video|>`` and its frames as pictures. Neighbouring text with the same `answer` is one segment.

    Args:
        messages: user and assistant in turns, the user first. ``content`` is a string or a list of parts:
            ``{"type": "text", "text": ...}``, ``{"type": "image" | "audio", "member": ref}`` (or the
            reference under the type's own name), ``{"type": "video", "frames": [ref, ...]}``. An assistant
            has text only.
        tokenizer: encodes the text.
        add_generation_prompt: end with an open ``<|assistant|>``, for the model to continue.

    Raises:
        UserError: if a message has another form; it names the message.
    """
    if not messages:
        raise UserError("messages: empty; give at least one user message")
    segments: list[Segment] = []

    def add_text(ids: list[int], answer: bool) -> None:
        if segments and segments[-1].kind == "text" and segments[-1].answer == answer:
            segments[-1].value.extend(ids)
        elif ids:
            segments.append(Segment("text", list(ids), answer))

    given: Any = messages
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise UserError(f"messages: expected a list, got {type(given).__name__}")
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant"):
            raise UserError(f"{where}: role must be 'user' or 'assistant', got {short(role)}")
        if (role == "user") != (number % 2 == 0):
            raise UserError(f"{where}: user and assistant must take turns, the user first")
        answer = role == "assistant"
        add_text([tokenizer.assistant if answer else tokenizer.user], False)
        for kind, value in _parts(message.get("content"), role, where):
            if kind == "text":
                add_text(tokenizer.encode(value), answer)
            elif kind == "video":
                add_text([tokenizer.video], False)
                segments.extend(Segment("image", frame, False) for frame in value)
            else:
                segments.append(Segment(kind, value, False))
        add_text([tokenizer.end], answer)
    if add_generation_prompt:
        if messages[-1]["role"] == "assistant":
            raise UserError(f"messages[{len(messages) - 1}]: the last message must be the user's")
        add_text([tokenizer.assistant], False)
    return segments


def _parts(content: Any, role: str, where: str) -> list[tuple[str, Any]]:
    """Check a message's content and return it as pairs of kind and value."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise UserError(f"{where}: content must be text or a list of parts, got {type(content).__name__}")
    parts: list[tuple[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "image", "audio", "video") or (role == "assistant" and kind != "text"):
            raise UserError(f"{where}: the {role}'s content cannot have a part of type {short(kind)}")
        value = part.get({"text": "text", "video": "frames"}.get(kind, "member"), part.get(kind))
        if value is None or (kind == "text" and not isinstance(value, str)):
            raise UserError(f"{where}: a part of type '{kind}' has no {kind}")
        if kind == "video" and (not isinstance(value, list) or not value):
            raise UserError(f"{where}: a video needs a list of at least one frame")
        parts.append((kind, value))
    if not any(kind != "text" or value.strip() for kind, value in parts):
        raise UserError(f"{where}: the {role}'s content is empty")
    return parts
