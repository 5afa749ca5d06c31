"""The configuration of an exported model, as transformers keeps it in ``config.json``."""

from typing import Any

from transformers import PreTrainedConfig

from muomni.omni import OmniConfig


class MuOmniConfig(PreTrainedConfig):
    """The sections that build the model, and the ids of the tokens that stand for something.

    Attributes:
        sections: of `OmniConfig`, by name.
        image_token_id, audio_token_id: placeholders of pictures and recordings.
    """

    model_type = "muomni"

    sections: dict[str, Any] | None = None
    image_token_id: int | None = None
    audio_token_id: int | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def omni(self) -> OmniConfig:
        """The sections, checked.

        Raises:
            ValueError: if they are missing or bad.
        """
        if self.sections is None:
            raise ValueError("a muOmni configuration without sections; load it with from_pretrained")
        return OmniConfig.model_validate(self.sections)

    def thinker(self, key: str) -> Any:
        """A value of section ``thinker``; None in an empty configuration, as transformers makes to compare with."""
        return (self.sections or {}).get("thinker", {}).get(key)

    @property
    def vocab_size(self) -> int:
        """Tokens."""
        return self.thinker("vocab_size")

    @property
    def hidden_size(self) -> int:
        """Width of the Thinker's states."""
        return self.thinker("d_model")

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the Thinker."""
        return self.thinker("n_layers")

    @property
    def num_attention_heads(self) -> int:
        """Heads of the Thinker."""
        return self.thinker("n_heads")

    @property
    def num_key_value_heads(self) -> int:
        """Key/value heads of the Thinker."""
        return self.thinker("n_kv_heads")

    @property
    def max_position_embeddings(self) -> int:
        """Positions of a sequence at most."""
        return self.thinker("context")

    @property
    def tie_word_embeddings(self) -> bool:
        """Whether the embedding is the output head too."""
        return bool(self.thinker("tie_embeddings"))
