"""Griffin-Lim: exact duration, no swapped axes, determinism, and sound that has the given frames."""

import math

import pytest
import torch
from small_models import MEL

from muomni.errors import UserError
from muomni.mel import log_mel
from muomni.vocoder import GriffinLim, VocoderConfig, griffin_lim

CFG = VocoderConfig(kind="griffin_lim", iterations=32, momentum=0.99, inversion_steps=8, seed=0)


def voice_like(seconds: float = 1.0) -> torch.Tensor:
    """Harmonics of a gliding pitch that fade in and out."""
    time = torch.arange(int(16000 * seconds)) / 16000
    phase = 2 * math.pi * torch.cumsum(120 + 40 * torch.sin(2 * math.pi * time), 0) / 16000
    wave = sum(torch.sin(k * phase) / k for k in range(1, 20))
    return 0.3 * wave * torch.sin(math.pi * time / seconds) ** 2  # type: ignore[operator]


@pytest.mark.parametrize("frames", [1, 2, 3, 50, 127, 128, 129])
def test_duration_is_exact_for_any_length(frames: int) -> None:
    wave = griffin_lim(torch.full((frames, 128), -1.0), MEL, CFG)
    assert wave.shape == (frames * 320,)
    assert wave.dtype == torch.float32
    assert bool(torch.isfinite(wave).all()) and wave.abs().max() <= 1
    assert wave.abs().max() > 0


def test_bands_as_time_is_an_error_not_another_sound() -> None:
    with pytest.raises(ValueError, match="expected"):
        griffin_lim(torch.zeros(128, 3), MEL, CFG)


def test_sound_has_the_frames_it_was_made_from() -> None:
    frames = log_mel(voice_like(), MEL)[::2]
    again = log_mel(griffin_lim(frames, MEL, CFG), MEL)[::2]
    assert again.shape == frames.shape
    assert (again - frames).abs().mean() < 0.15
    untouched = log_mel(griffin_lim(frames, MEL, CFG.model_copy(update={"iterations": 1})), MEL)[::2]
    assert (again - frames).abs().mean() < 0.7 * (untouched - frames).abs().mean()


def test_time_order_is_kept() -> None:
    frames = torch.full((40, 128), math.log(0.01))
    frames[30:] = 1.0
    wave = griffin_lim(frames, MEL, CFG)
    assert wave[31 * 320 :].square().mean() > 100 * wave[: 28 * 320].square().mean()


def test_inversion_is_not_negative_and_near() -> None:
    bands = log_mel(voice_like(), MEL)[::2].exp()
    vocoder = GriffinLim(MEL, CFG)
    spectrum = vocoder.magnitudes(bands)
    assert bool((spectrum >= 0).all())
    error = (spectrum @ vocoder.filters - bands).abs().sum() / bands.abs().sum()
    assert error < 0.05


def test_deterministic_by_its_own_seed_and_leaves_the_global_one_alone() -> None:
    frames = log_mel(voice_like(0.3), MEL)[::2]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = griffin_lim(frames, MEL, CFG)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, griffin_lim(frames, MEL, CFG))
    assert not torch.equal(first, griffin_lim(frames, MEL, CFG.model_copy(update={"seed": 1})))


@pytest.mark.parametrize("frames", [torch.zeros(0, 128), torch.full((3, 128), float("nan"))])
def test_no_frames_or_nan_is_one_clear_line(frames: torch.Tensor) -> None:
    with pytest.raises(UserError, match="vocoder:"):
        griffin_lim(frames, MEL, CFG)


def test_extreme_frames_stay_in_range() -> None:
    wave = griffin_lim(torch.full((5, 128), 1e4), MEL, CFG)
    assert bool(torch.isfinite(wave).all()) and wave.abs().max() <= 1
