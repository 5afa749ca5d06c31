"""The model as MLflow serves it: ``mlflow.pyfunc.load_model("models:/muomni@champion").predict(...)``.

MLflow copies this file and the package into the registered model ("models from code"): nothing is pickled. A request is
a row with any of ``text``, ``image`` and ``audio`` (a file's bytes in base64) and ``speak``; an answer is a row of
``text`` and ``audio``, a WAV file in base64, empty if it was not to be spoken.
"""

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
import soundfile
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from muomni.errors import UserError
from muomni.generate import Session, last
from muomni.omni import load_omni
from muomni.sampling import Sampling

CHECKPOINT = "checkpoint"  # the artifact's name
DEFAULTS: dict[str, Any] = {"max_tokens": 128, "temperature": 0.0, "seed": 0}
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec("string", "text", required=False),
            ColSpec("string", "image", required=False),
            ColSpec("string", "audio", required=False),
            ColSpec("boolean", "speak", required=False),
        ]
    ),
    outputs=Schema([ColSpec("string", "text"), ColSpec("string", "audio")]),
    params=ParamSchema(
        [
            ParamSpec("max_tokens", "long", DEFAULTS["max_tokens"]),
            ParamSpec("temperature", "double", DEFAULTS["temperature"]),
            ParamSpec("seed", "long", DEFAULTS["seed"]),
        ]
    ),
)


def decoded(value: object, what: str) -> list[bytes]:
    """A column's base64 as a list of one file, or of none if the column is empty.

    Raises:
        UserError: if it is not base64.
    """
    if not isinstance(value, str) or not value:
        return []
    try:
        return [base64.b64decode(value, validate=True)]
    except binascii.Error:
        raise UserError(f"{what}: not base64; encode the bytes of the file") from None


class MuOmni(PythonModel):
    """The whole model, on the CPU."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the checkpoint. MLflow asks for an argument of this name."""
        self.model, self.tokenizer, _ = load_omni(context.artifacts[CHECKPOINT])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer each row by itself.

        Args:
            context: not used.
            model_input: the requests.
            params: ``max_tokens``, ``temperature`` and ``seed`` of all of them.

        Raises:
            UserError: if a request is bad.
        """
        options = DEFAULTS | dict(params or {})
        return pd.DataFrame([self.answer(row, options) for row in model_input.to_dict("records")])

    def answer(self, row: Mapping[Any, Any], options: Mapping[str, Any]) -> dict[str, str]:
        """One request's answer."""
        text = row.get("text")
        events = Session(self.model, self.tokenizer).ask(
            text if isinstance(text, str) else None,
            images=decoded(row.get("image"), "image"),
            audio=decoded(row.get("audio"), "audio"),
            speak=row.get("speak") is True,
            sampling=Sampling(temperature=float(options["temperature"])),
            max_tokens=int(options["max_tokens"]),
            seed=int(options["seed"]),
        )
        answer = last(events)
        sound = io.BytesIO()
        if answer.wave is not None:
            soundfile.write(sound, answer.wave.numpy(), self.model.cfg.mel.sample_rate, "PCM_16", format="WAV")
        return {"text": answer.text, "audio": base64.b64encode(sound.getvalue()).decode()}


mlflow.models.set_model(MuOmni())
