"""The encoders: padding never changes a result, positions matter, shapes are as specified."""

import math

import pytest
import torch
from small_models import AUDIO, VISION, enlarge

from muomni.audio_encoder import (
    BLANK,
    CHARACTERS,
    AudioEncoder,
    CTCHead,
    encode_characters,
    normalise,
    normalise_with_offsets,
)
from muomni.vision_encoder import VisionEncoder, pool_grid


def audio_encoder() -> AudioEncoder:
    torch.manual_seed(0)
    model = AudioEncoder(AUDIO).eval()
    model.standardise.measure(torch.randn(100, AUDIO.n_mels) * 2 - 5)
    enlarge(model)
    return model


def mel(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(frames, AUDIO.n_mels, generator=torch.Generator().manual_seed(seed)) * 2 - 5


@pytest.mark.parametrize("padding", [0.0, -9.2, 1e4])
@torch.no_grad()
def test_audio_padding_changes_nothing(padding: float) -> None:
    model = audio_encoder()
    lengths = [1, 2, 7, 8, 9, 15, 16, 17, 33, 57, 64, 101]
    batch = torch.full((len(lengths), max(lengths) + 3, AUDIO.n_mels), padding)
    for row, length in enumerate(lengths):
        batch[row, :length] = mel(length, seed=row)
    together, sizes = model(batch, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone, size = model(batch[row : row + 1, :length], torch.tensor([length]))
        assert int(sizes[row]) == int(size) == math.ceil(length / 8) == alone.shape[1]
        torch.testing.assert_close(together[row, : int(size)], alone[0], atol=1e-5, rtol=1e-5, msg=f"length {length}")


@torch.no_grad()
def test_audio_encoder_has_positions() -> None:
    """The transformer of the states in reverse order is not its result in reverse order."""
    model, states = audio_encoder(), torch.randn(1, 8, AUDIO.d_model)
    back = torch.arange(7, -1, -1)
    assert (model.stack(states[:, back])[:, back] - model.stack(states)).abs().max() > 1e-2
    # And through the whole encoder: its frames in another order are heard as something else than its states are.
    frames, order = mel(64), torch.cat((torch.arange(32, 64), torch.arange(32)))
    length = torch.tensor([64])
    plain, moved = model(frames[None], length)[0][0], model(frames[order][None], length)[0][0]
    assert (moved[[2, 6]] - plain[[6, 2]]).abs().max() > 1e-2


@torch.no_grad()
def test_audio_encoder_sees_later_and_earlier_frames() -> None:
    model, frames, length = audio_encoder(), mel(80), torch.tensor([80])
    before = model(frames[None], length)[0][0]
    for changed, seen in ((0, 9), (79, 0)):
        other = frames.clone()
        other[changed] += 5
        assert (model(other[None], length)[0][0, seen] - before[seen]).abs().max() > 1e-5


def test_ctc_slots_cover_a_text_that_the_states_alone_could_not() -> None:
    torch.manual_seed(0)
    head = CTCHead(AUDIO)
    log_probs = head(torch.randn(2, 5, AUDIO.d_model))
    assert log_probs.shape == (2, 5 * AUDIO.slots, len(CHARACTERS) + 1)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(2, 20))


def test_ctc_best_path_drops_repeats_and_blanks_and_what_is_beyond_the_end() -> None:
    head = CTCHead(AUDIO)
    symbols = [BLANK, 7, 7, BLANK, 7, 0, 3, 3, 9, 9, 9, 9]  # blank e e blank | e space a a | beyond the end
    width = len(CHARACTERS) + 1
    with torch.no_grad():
        head.project.weight.zero_()
        head.project.bias.zero_()
        head.project.weight.copy_(torch.eye(AUDIO.slots * width, AUDIO.d_model))
    scores = torch.nn.functional.one_hot(torch.tensor([symbols]), width).float() * 9
    head.forward = lambda states: scores.log_softmax(-1)  # type: ignore[method-assign]
    text = head.transcribe(torch.zeros(1, 3, AUDIO.d_model), torch.tensor([2]))[0]
    assert text == CHARACTERS[7] * 2 + " " + CHARACTERS[3]


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("Hello, World!", "hello world"),
        ("It's 42.", "it's four two"),
        ("Don’t  stop\n", "don't stop"),
        ("  ", ""),
        ("?!", ""),
        ("7", "seven"),
        ("a-b", "a b"),
        ("İstanbul IS Big", "istanbul is big"),
        ("Crème brûlée, ﬁsh", "creme brulee fish"),
    ],
)
def test_normalise(text: str, heard: str) -> None:
    assert normalise(text) == heard
    spoken, offsets = normalise_with_offsets(text)
    assert len(spoken) == len(offsets) and offsets == sorted(offsets)
    for c, offset in zip(spoken, offsets, strict=True):
        assert c == " " or c in normalise(text[offset])
    assert [CHARACTERS[i] for i in encode_characters(text)] == list(heard)


@torch.no_grad()
def test_vision_encoder_shapes_and_batch_independence() -> None:
    torch.manual_seed(0)
    model = enlarge(VisionEncoder(VISION).eval())
    images = torch.rand(3, 3, 32, 32)
    cls, patches = model(images)
    assert cls.shape == (3, VISION.d_model) and patches.shape == (3, 16, VISION.d_model)
    alone, _ = model(images[1:2])
    torch.testing.assert_close(cls[1:2], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_vision_patches_are_in_reading_order_and_have_positions() -> None:
    torch.manual_seed(0)
    model = VisionEncoder(VISION).eval()
    torch.nn.init.normal_(model.position, std=0.5)
    taken: list[torch.Tensor] = []
    model.patch.register_forward_hook(lambda module, args, out: taken.append(args[0]))
    images = torch.zeros(1, 3, 32, 32)
    images[0, :, 8:16, 24:32] = 1  # second row, last column: patch 7
    model(images)
    bright = (taken[0][0] > 0).all(-1)
    assert bright.nonzero().flatten().tolist() == [7]
    # The same picture with two patches exchanged is another picture.
    other = torch.zeros(1, 3, 32, 32)
    other[0, :, 16:24, 24:32] = 1
    assert (model(images)[0] - model(other)[0]).abs().max() > 1e-4


def test_pool_grid_averages_its_cells() -> None:
    patches = torch.arange(16.0)[None, :, None]  # 4 x 4
    assert pool_grid(patches, 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pool_grid(patches, 4).flatten().tolist() == list(range(16))
    assert pool_grid(patches, 1).flatten().tolist() == [7.5]
