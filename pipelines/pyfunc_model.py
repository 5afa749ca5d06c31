"""The model as MLflow serves it: ``mlflow.pyfunc.load_model("models:/muomni@champion").predict(...)``.

MLflow copies this file and the package into the registered model ("models from code"): nothing is pickled. A request is
a row with any of ``text``, ``image`` and ``audio`` (a file's bytes in base64) and ``speak``; an answer is a row of
``text`` and ``audio``, a WAV file in base64, empty if it was not to be spoken.
"""

from collections.abc import Mapping
from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from muomni.base64_media import file_bytes, wav_text
from muomni.config import parse
from muomni.decoder import Decoder
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


class MuOmni(PythonModel):
    """The whole model, on the CPU."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the checkpoint. MLflow asks for an argument of this name."""
        self.model, self.tokenizer, _ = load_omni(context.artifacts[CHECKPOINT])
        self.decoder = Decoder(self.model.thinker)

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
        image, audio = (file_bytes(row.get(name), name) for name in ("image", "audio"))
        answer = last(
            Session(self.model, self.tokenizer, decoder=self.decoder).ask(
                text if isinstance(text, str) else None,
                images=[] if image is None else [image],
                audio=[] if audio is None else [audio],
                speak=row.get("speak") is True,
                sampling=parse(Sampling, {"temperature": float(options["temperature"])}, "request"),
                max_tokens=int(options["max_tokens"]),
                seed=int(options["seed"]),
            )
        )
        return {"text": answer.text, "audio": wav_text(answer.wave, self.model.cfg.mel.sample_rate)}


mlflow.models.set_model(MuOmni())
