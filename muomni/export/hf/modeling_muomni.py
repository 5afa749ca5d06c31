"""The whole model as transformers runs it: text by `generate`, and speech by `generate_speech` and `say`."""

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel

from muomni.audio_encoder import frames_after
from muomni.export.behind import causal_mask, places_behind, read_behind, real_positions
from muomni.export.hf.configuration_muomni import MuOmniConfig
from muomni.export.hf.outputs_muomni import Behind, MuOmniOutput, Speech, joined, keep_buffers
from muomni.fusion import fuse
from muomni.omni import Omni
from muomni.reading_aloud import say
from muomni.speech import speak

PICTURES, RECORDINGS = ("pixel_values",), ("input_features", "feature_attention_mask")


class MuOmniForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Text, pictures and recordings in; text and speech out.

    What `Omni` computes when it is built (rotary tables, windows, mel filters) is in the file of weights too:
    transformers builds a model without numbers, and other machines would compute other last bits.
    """

    config_class = MuOmniConfig
    main_input_name = "input_ids"
    input_modalities = ["text", "image", "audio"]
    _no_split_modules = ["Block"]
    _supports_sdpa = True

    def __init__(self, config: MuOmniConfig) -> None:
        super().__init__(config)
        self.omni = Omni(config.omni())
        keep_buffers(self.omni)
        self._tied_weights_keys = (
            {"omni.thinker.head.weight": "omni.thinker.embedding.weight"} if config.tie_word_embeddings else {}
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: `Omni` has begun its weights already."""

    def get_input_embeddings(self) -> nn.Module:
        """The Thinker's table of token embeddings."""
        return self.omni.thinker.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another table in its place."""
        assert isinstance(value, nn.Embedding)
        self.omni.thinker.embedding = value

    def get_output_embeddings(self) -> nn.Module:
        """The Thinker's head."""
        return self.omni.thinker.head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Put another head in its place."""
        assert isinstance(new_embeddings, nn.Linear)
        self.omni.thinker.head = new_embeddings

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Pictures ``[N, 3, S, S]``, 0 to 1, to states of the vision encoder ``[N, P, Dv]``."""
        return self.omni.image_features(pixel_values)

    def get_audio_features(
        self, input_features: Tensor, feature_attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Log-mel ``[M, T, bands]`` to states of the audio encoder ``[M, ceil(T / 8), Da]`` and their lengths ``[M]``.

        The mask ``[M, T]`` is 1 at real frames.
        """
        if feature_attention_mask is None:
            feature_attention_mask = torch.ones(input_features.shape[:2], device=input_features.device)
        return self.omni.audio_encoder(input_features, feature_attention_mask.long().sum(1))

    def embed(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None,
        input_features: Tensor | None,
        feature_attention_mask: Tensor | None,
    ) -> Tensor:
        """Token ids ``[B, T]`` to embeddings ``[B, T, D]``, pictures and recordings in the places of their tokens."""
        images = audio = None
        if pixel_values is not None:
            images = self.get_image_features(pixel_values).flatten(0, 1)
        if input_features is not None:
            states, lengths = self.get_audio_features(input_features, feature_attention_mask)
            audio = torch.cat([row[:length] for row, length in zip(states, lengths.tolist(), strict=True)])
        places: Any = SimpleNamespace(image=self.config.image_token_id, audio=self.config.audio_token_id)
        return fuse(self.omni, input_ids, places, images, audio)

    def read(self, x: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Any) -> Tensor:
        """Embeddings ``[B, T, D]`` behind what is in the cache to the Thinker's states ``[B, T, D]``.

        Raises:
            ValueError: if the context is full.
        """
        b, t, _ = x.shape
        past = 0 if cache is None else cache.get_seq_length()
        stack = self.omni.thinker.stack
        if attention_mask is None:
            attention_mask = torch.ones(b, past + t, device=x.device)
        real, places = attention_mask.to(x.device).bool(), places_behind(past, x)
        positions = real_positions(real, places) if position_ids is None else position_ids
        if int(positions.max()) >= stack.positions:
            raise ValueError(f"{int(positions.max()) + 1} positions, the context holds {stack.positions}")
        return read_behind(stack, x, positions, causal_mask(real, places), Behind(cache))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool | None = None,
        cache: Any = None,
        **unused: Any,
    ) -> MuOmniOutput:
        """Read a sequence.

        Args:
            input_ids: ``[B, T]`` int64, ``<|image|>`` and ``<|audio|>`` at every position of a picture or recording.
            attention_mask: ``[B, past + T]``, 1 at real positions.
            position_ids: ``[B, T]`` int64; by default real positions are counted.
            inputs_embeds: ``[B, T, D]`` in the place of ids.
            pixel_values: pictures ``[N, 3, S, S]`` in reading order, 0 to 1.
            input_features: log-mel ``[M, F, bands]`` of the recordings in reading order.
            feature_attention_mask: ``[M, F]``, 1 at real frames.
            labels: ``[B, T]`` int64, -100 where nothing is learned; shifted here.
            use_cache: give a cache; by default unless labels are given.
            logits_to_keep: logits of so many last positions; 0 for all.
            cache: what stands before, a cache of transformers.
            output_hidden_states: also give the states after the last layer.

        Raises:
            ValueError: if pictures and recordings do not fill their places, or the context is full.
        """
        if inputs_embeds is None:
            assert input_ids is not None, "give input_ids or inputs_embeds"
            inputs_embeds = self.embed(input_ids, pixel_values, input_features, feature_attention_mask)
        if cache is None and use_cache is not False and labels is None:
            cache = DynamicCache()
        states = self.read(inputs_embeds, attention_mask, position_ids, cache)
        logits = self.omni.thinker.logits(states[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        return MuOmniOutput(loss, logits, cache, (states,) if output_hidden_states else None)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The next step's inputs: pictures and recordings are in the cache once they are read."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(*args, **kwargs)
        cache = inputs.get("cache")
        if cache is not None and cache.get_seq_length():
            for name in (*PICTURES, *RECORDINGS):
                inputs.pop(name, None)
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Repeat each row with its own pictures and recordings, of which a row may have any number."""
        media = {name: kwargs.pop(name, None) for name in (*PICTURES, *RECORDINGS)}
        if expand_size > 1 and input_ids is not None:
            pictures, recordings = self.owners(input_ids, media["input_features"], media["feature_attention_mask"])
            for names, owners in ((PICTURES, pictures), (RECORDINGS, recordings)):
                order = [i for row in range(len(input_ids)) for _ in range(expand_size) for i in owners[row]]
                media |= {name: media[name][order] for name in names if media[name] is not None}
        expand: Any = getattr(super(), "_expand_inputs_for_generation")  # noqa: B009  # mypy cannot read its type
        ids, kwargs = expand(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return ids, kwargs | {name: value for name, value in media.items() if value is not None}

    def owners(
        self, input_ids: Tensor, features: Tensor | None, mask: Tensor | None
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The numbers of each row's pictures and recordings."""
        pictures = (input_ids == self.config.image_token_id).sum(1) // self.omni.image_positions
        sizes: list[int] = []
        if features is not None:
            frames = torch.full((len(features),), features.shape[1]) if mask is None else mask.long().sum(1)
            sizes = frames_after(frames_after(frames_after(frames))).tolist()
        found: tuple[list[list[int]], list[list[int]]] = ([], [])
        picture = recording = 0
        for row, count in enumerate(pictures.tolist()):
            found[0].append(list(range(picture, picture + count)))
            picture += count
            found[1].append([])
            room = int((input_ids[row] == self.config.audio_token_id).sum())
            while room > 0 and recording < len(sizes):
                room -= sizes[recording]
                found[1][-1].append(recording)
                recording += 1
        return found

    @torch.no_grad()
    def generate_speech(
        self,
        tokenizer: Any,
        input_ids: Tensor,
        *,
        voice: str = "",
        speech_seed: int = 0,
        speech_temperature: float | None = None,
        **inputs: Any,
    ) -> Speech:
        """Answer in text and say it.

        Args:
            tokenizer: of this folder, from `AutoTokenizer`, or the processor's.
            input_ids: one question ``[1, T]``.
            voice: one of those that the Talker learned, by default the first.
            speech_seed: of the codes that are drawn.
            speech_temperature: of the codes; by default the model's own, 0 takes the likeliest.
            inputs: further inputs and settings of `generate`.
        """
        speaker = self.omni.cfg.talker.voice(voice)
        sequences = self.generate(input_ids=input_ids, **inputs)
        media = {name: inputs.get(name) for name in (*PICTURES, *RECORDINGS)}
        found = self(input_ids=sequences, use_cache=False, output_hidden_states=True, logits_to_keep=1, **media)
        stop = (self.config.eos_token_id, self.config.pad_token_id)
        ends = {*(stop[0] if isinstance(stop[0], list) else [stop[0]]), stop[1]}
        begin = input_ids.shape[1]
        ids = sequences[0, begin:].tolist()
        size = next((number for number, token in enumerate(ids) if token in ends), len(ids))
        rng = torch.Generator().manual_seed(speech_seed)
        states = found.hidden_states[0][0, begin : begin + size]
        said = list(speak(self.omni, tokenizer.muomni, ids[:size], states, rng, speech_temperature, speaker))
        books = self.omni.cfg.codec.codebooks
        codes = torch.cat([part.codes for part in said]) if said else torch.zeros(0, books, dtype=torch.int64)
        return Speech(sequences, joined([part.wave for part in said]), codes, self.omni.cfg.mel.sample_rate)

    @torch.no_grad()
    def say(self, tokenizer: Any, text: str, voice: str = "", seed: int = 0) -> Speech:
        """Read a text aloud; arguments as of `generate_speech`.

        Raises:
            UserError: if there is nothing to say.
        """
        waves = [piece.wave for piece in say(self.omni, tokenizer.muomni, text, seed, voice=voice)]
        return Speech(None, joined(waves), None, self.omni.cfg.mel.sample_rate)
