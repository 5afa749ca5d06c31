"""Recordings to what the audio encoder reads."""

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, SequenceFeatureExtractor

from muomni.mel import MelConfig, log_mel
from muomni.recording import as_learned

STRIDE = 8  # frames of one state of the audio encoder


class MuOmniFeatureExtractor(SequenceFeatureExtractor):
    """Log-mel frames, 100 a second, of what is said in a recording, as loud as what the model learned from.

    Attributes:
        mel: section ``mel`` of the model's configuration.
        positions: states of the audio encoder at most; longer recordings are cut there.
    """

    model_input_names = ["input_features", "feature_attention_mask"]

    def __init__(self, mel: dict[str, Any] | None = None, positions: int = 0, **kwargs: Any) -> None:
        self.mel, self.positions = mel, positions
        sizes = {"feature_size": (mel or {}).get("n_mels", 0), "sampling_rate": (mel or {}).get("sample_rate", 0)}
        super().__init__(**{"padding_value": 0.0, **sizes, **kwargs})

    def __call__(
        self, raw_speech: Any, sampling_rate: int | None = None, return_tensors: Any = "pt", **unused: Any
    ) -> BatchFeature:
        """Recordings to ``input_features`` ``[M, F, bands]`` float32 and ``feature_attention_mask`` ``[M, F]`` int64.

        Args:
            raw_speech: samples ``[T]`` in [-1, 1], mono, or a list of such arrays.
            sampling_rate: of the samples, which must be the model's.
            return_tensors: as everywhere in transformers.

        Raises:
            ValueError: if the rate is another one.
        """
        cfg = MelConfig.model_validate(self.mel)
        if sampling_rate is not None and sampling_rate != cfg.sample_rate:
            raise ValueError(f"samples at {sampling_rate} Hz; the model reads {cfg.sample_rate} Hz: resample them")
        many = isinstance(raw_speech, list | tuple) and not np.isscalar(raw_speech[0])
        waves = [
            torch.as_tensor(as_learned(np.asarray(wave, np.float32), cfg.sample_rate))
            for wave in (raw_speech if many else [raw_speech])
        ]
        mels = [log_mel(wave, cfg)[: self.positions * STRIDE].numpy() for wave in waves]
        frames = max(len(mel) for mel in mels)
        features = np.zeros((len(mels), frames, cfg.n_mels), np.float32)
        mask = np.zeros((len(mels), frames), np.int64)
        for row, mel in enumerate(mels):
            features[row, : len(mel)], mask[row, : len(mel)] = mel, 1
        return BatchFeature({"input_features": features, "feature_attention_mask": mask}, tensor_type=return_tensors)
