"""Text, pictures and recordings together to what the model reads."""

from typing import Any

from transformers import ProcessorMixin

from muomni.export.hf.feature_extraction_muomni import STRIDE


class MuOmniProcessor(ProcessorMixin):
    """Each ``<|image|>`` and ``<|audio|>`` of a text becomes as many as its picture or recording takes positions.

    Args:
        image_processor: of the same folder.
        feature_extractor: of the same folder.
        tokenizer: of the same folder.
    """

    def __init__(self, image_processor: Any, feature_extractor: Any, tokenizer: Any, **kwargs: Any) -> None:
        self.image_token, self.audio_token = "<|image|>", "<|audio|>"
        self.image_token_id, self.audio_token_id = tokenizer.muomni.image, tokenizer.muomni.audio
        kwargs.setdefault("chat_template", tokenizer.chat_template)
        super().__init__(image_processor, feature_extractor, tokenizer, **kwargs)

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **unused: Any) -> str:
        """What stands for a picture."""
        return self.image_token * self.image_processor.image_positions

    def replace_audio_token(self, audio_inputs: dict[str, Any], audio_idx: int, **unused: Any) -> str:
        """What stands for a recording."""
        frames = int(audio_inputs["feature_attention_mask"][audio_idx].sum())
        return self.audio_token * -(-frames // STRIDE)
