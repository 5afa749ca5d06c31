"""The parts as MLflow serves them: ``mlflow.pyfunc.load_model("models:/muomni-thinker@champion").predict(...)``.

MLflow copies this file and the package into each part's registered model ("models from code"): nothing is pickled. The
model's configuration says which part it is; the checkpoints that it needs are its artifacts. Files in requests and
answers are base64.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from muomni.base64_media import needed_bytes, wav_text
from muomni.codec import Codec
from muomni.config import parse
from muomni.decoder import Decoder
from muomni.errors import UserError
from muomni.evaluate.hearing import transcripts
from muomni.evaluate.parts import Part
from muomni.evaluate.speech import say
from muomni.generate import TextStream
from muomni.griffin_lim import GriffinLim, GriffinLimConfig
from muomni.media import image_to_tensor, load_audio, load_image
from muomni.mel import MelConfig, log_mel
from muomni.sampling import Sampling, answer_tokens
from muomni.speech import longest_sentence, sentences, speakable
from muomni.tokenizer import Tokenizer
from muomni.train.text_tower import phrase, text_states

Row = Mapping[Any, Any]
Options = Mapping[str, Any]


def text_of(row: Row, name: str = "text") -> str:
    """A column's text.

    Raises:
        UserError: if there is none.
    """
    found = row.get(name)
    if not isinstance(found, str) or not found.strip():
        raise UserError(f"{name}: is missing; give some text")
    return found


class Loaded:
    """What a part's answers are made with; everything is read when the model is loaded.

    Args:
        folders: checkpoints by name, and ``tokenizer``, the file.
        config: sections ``mel`` and ``griffin_lim``, which makes the sound of parts.
    """

    def __init__(self, folders: Mapping[str, str], config: Mapping[str, Any]) -> None:
        self.folders = folders
        self.mel = parse(MelConfig, config["mel"], "mel")
        self.vocoder = GriffinLim(self.mel, parse(GriffinLimConfig, config["griffin_lim"], "griffin_lim"))

    def answer(self, row: Row, options: Options) -> dict[str, Any]:
        """One row's answer, by columns; each part has its own.

        Raises:
            UserError: if the request is bad.
        """
        raise NotImplementedError

    def part(self, name: str) -> Part:
        """A checkpoint among the artifacts."""
        return Part(Path(self.folders[name]))

    def tokenizer(self) -> Tokenizer:
        """The tokenizer among the artifacts."""
        return Tokenizer(self.folders["tokenizer"])

    def frames(self, row: Row) -> torch.Tensor:
        """The log-mel ``[T, M]`` at 100 Hz of a row's recording."""
        wave = load_audio(needed_bytes(row.get("audio"), "audio"), self.mel.sample_rate)
        return log_mel(torch.from_numpy(wave), self.mel)

    def sound(self, codec: Codec, codes: Sequence[torch.Tensor]) -> str:
        """Codes ``[T, Q]`` of one or more utterances, one after the other, as a WAV file in base64."""
        waves = [self.vocoder(codec.decode(part[None])[0]) for part in codes]
        return wav_text(torch.cat(waves), self.mel.sample_rate)


class ThinkerPart(Loaded):
    """Text to how it goes on."""

    def __init__(self, folders: Mapping[str, str], config: Mapping[str, Any]) -> None:
        super().__init__(folders, config)
        self.model, self.words = Decoder(self.part("thinker").thinker()), self.tokenizer()

    def answer(self, row: Row, options: Options) -> dict[str, Any]:
        """One row's continuation.

        Raises:
            UserError: if the text does not fit the context.
        """
        ids = [self.words.bos, *self.words.encode(text_of(row))]
        context = self.model.cfg.context
        if len(ids) >= context:
            raise UserError(f"text: takes {len(ids)} positions, the context holds {context}; shorten it")
        prompt = self.model.embed(torch.tensor([ids]))
        stop, rng = {self.words.end, self.words.eos}, torch.Generator().manual_seed(int(options["seed"]))
        sampling = parse(Sampling, {"temperature": float(options["temperature"])}, "request")
        limit = int(options["max_tokens"])
        stream = TextStream(self.words)
        banned = self.words.controls - stop
        pieces = [
            stream.push(token)
            for token, _ in answer_tokens(self.model, prompt, stop, limit, sampling, rng, banned)
            if token not in stop
        ]
        return {"text": "".join(pieces) + stream.finish()}


class HearingPart(Loaded):
    """A recording to the characters that the CTC head reads in it."""

    def __init__(self, folders: Mapping[str, str], config: Mapping[str, Any]) -> None:
        super().__init__(folders, config)
        self.encoder, self.head = self.part("audio_encoder").hearing()

    def answer(self, row: Row, options: Options) -> dict[str, Any]:
        """One row's transcript.

        Raises:
            UserError: if the recording is too long.
        """
        mel = self.frames(row)
        longest = self.encoder.cfg.positions * 8
        if len(mel) > longest:
            raise UserError(f"audio: lasts {len(mel) / 100:.1f} s, the encoder takes {longest / 100:.1f} s; cut it")
        return {"text": transcripts(self.encoder, self.head, [mel])[0]}


class SeeingPart(Loaded):
    """A picture and names, comma-separated, to the name that fits best, and its cosine."""

    def __init__(self, folders: Mapping[str, str], config: Mapping[str, Any]) -> None:
        super().__init__(folders, config)
        self.thinker, self.words = self.part("thinker").thinker(), self.tokenizer()
        self.encoder, self.heads = self.part("vision_encoder").seeing(self.thinker.cfg.d_model)

    def answer(self, row: Row, options: Options) -> dict[str, Any]:
        """One row's name.

        Raises:
            UserError: if there is no name to choose from.
        """
        names = [name.strip() for name in text_of(row, "names").split(",") if name.strip()]
        if not names:
            raise UserError("names: there is none; separate names by commas, as in 'cat, dog'")
        picture = load_image(needed_bytes(row.get("image"), "image"))
        cls, _ = self.encoder(image_to_tensor(picture, self.encoder.cfg.image_size)[None])
        texts = self.heads.texts(text_states(self.thinker, self.words, [phrase(name) for name in names]))
        scores = (self.heads.pictures(cls) @ texts.T)[0]  # [names]
        best = int(scores.argmax())
        return {"name": names[best], "score": round(float(scores[best]), 4)}


class CodecPart(Loaded):
    """A recording to what the codec leaves of it."""

    def __init__(self, folders: Mapping[str, str], config: Mapping[str, Any]) -> None:
        super().__init__(folders, config)
        self.codec = self.part("codec").codec()

    def answer(self, row: Row, options: Options) -> dict[str, Any]:
        """One row's recording after coding; it works at 50 Hz."""
        return {"audio": self.sound(self.codec, [self.codec.encode(self.frames(row)[::2])])}


class TalkerPart(Loaded):
    """Text to speech, from the states of stage A's Thinker."""

    def __init__(self, folders: Mapping[str, str], config: Mapping[str, Any]) -> None:
        super().__init__(folders, config)
        self.thinker, self.words = self.part("thinker").thinker(), self.tokenizer()
        self.talker, self.codec = self.part("talker").talker(self.thinker.cfg.d_model), self.part("codec").codec()

    def answer(self, row: Row, options: Options) -> dict[str, Any]:
        """One row's speech, sentence after sentence.

        Raises:
            UserError: if there is nothing to say.
        """
        text = text_of(row)
        parts = [text[a:b] for a, b in sentences(text, longest_sentence(self.talker))]
        parts = [part for part in parts if speakable(part)]
        if not parts:
            raise UserError(f"text: {text[:40]!r} has no letter or digit to say; give a text with words")
        said = [say(self.talker, self.thinker, self.words, part, int(options["seed"])) for part in parts]
        return {"audio": self.sound(self.codec, [one.codes for one in said])}


PARTS: dict[str, type[Loaded]] = {
    "thinker": ThinkerPart,
    "audio_encoder": HearingPart,
    "vision_encoder": SeeingPart,
    "codec": CodecPart,
    "talker": TalkerPart,
}
DEFAULTS: dict[str, Any] = {"max_tokens": 64, "temperature": 0.0, "seed": 0}


def signature(inputs: Sequence[str], outputs: Mapping[str, str], params: Sequence[str] = ()) -> ModelSignature:
    """Columns of text in, columns of some types out, and which of `DEFAULTS` may be set."""
    kinds = {name: "double" if name == "temperature" else "long" for name in params}
    specs = [ParamSpec(name, kind, DEFAULTS[name]) for name, kind in kinds.items()]
    return ModelSignature(
        inputs=Schema([ColSpec("string", name) for name in inputs]),
        outputs=Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
        **({"params": ParamSchema(specs)} if specs else {}),
    )


SIGNATURES = {
    "thinker": signature(["text"], {"text": "string"}, ["max_tokens", "temperature", "seed"]),
    "audio_encoder": signature(["audio"], {"text": "string"}),
    "vision_encoder": signature(["image", "names"], {"name": "string", "score": "double"}),
    "codec": signature(["audio"], {"audio": "string"}),
    "talker": signature(["text"], {"audio": "string"}, ["seed"]),
}


class PartModel(PythonModel):
    """One part, on the CPU."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the checkpoints. MLflow asks for an argument of this name."""
        config = context.model_config
        self.part = PARTS[config["part"]](context.artifacts, config)

    @torch.no_grad()
    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer each row by itself.

        Args:
            context: not used.
            model_input: the requests; the signature has the columns.
            params: ``max_tokens``, ``temperature`` and ``seed`` where the signature has them.

        Raises:
            UserError: if a request is bad.
        """
        options = DEFAULTS | dict(params or {})
        return pd.DataFrame([self.part.answer(row, options) for row in model_input.to_dict("records")])


mlflow.models.set_model(PartModel())
