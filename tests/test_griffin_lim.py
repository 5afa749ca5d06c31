"""Griffin-Lim: exact duration, no swapped axes, determinism, and sound that has the given frames."""

import math

import pytest
import torch
from small_models import MEL

from muomni.errors import UserError
from muomni.griffin_lim import GriffinLim, GriffinLimConfig, StreamingGriffinLim
from muomni.mel import log_mel

CFG = GriffinLimConfig(iterations=32, momentum=0.99, inversion_steps=8, seed=0)


def voice_like(seconds: float = 1.0) -> torch.Tensor:
    """Harmonics of a gliding pitch that fade in and out."""
    time = torch.arange(int(16000 * seconds)) / 16000
    phase = 2 * math.pi * torch.cumsum(120 + 40 * torch.sin(2 * math.pi * time), 0) / 16000
    wave = sum(torch.sin(k * phase) / k for k in range(1, 20))
    return 0.3 * wave * torch.sin(math.pi * time / seconds) ** 2  # type: ignore[operator]


@pytest.mark.parametrize("frames", [1, 2, 3, 50, 127, 128, 129])
def test_duration_is_exact_for_any_length(frames: int) -> None:
    wave = GriffinLim(MEL, CFG)(torch.full((frames, 128), -1.0))
    assert wave.shape == (frames * 320,)
    assert wave.dtype == torch.float32
    assert bool(torch.isfinite(wave).all()) and wave.abs().max() <= 1
    assert wave.abs().max() > 0


def test_bands_as_time_is_an_error_not_another_sound() -> None:
    with pytest.raises(ValueError, match="expected"):
        GriffinLim(MEL, CFG)(torch.zeros(128, 3))


def test_sound_has_the_frames_it_was_made_from() -> None:
    frames = log_mel(voice_like(), MEL)[::2]
    again = log_mel(GriffinLim(MEL, CFG)(frames), MEL)[::2]
    assert again.shape == frames.shape
    assert (again - frames).abs().mean() < 0.15
    untouched = log_mel(GriffinLim(MEL, CFG.model_copy(update={"iterations": 1}))(frames), MEL)[::2]
    assert (again - frames).abs().mean() < 0.7 * (untouched - frames).abs().mean()


def test_time_order_is_kept() -> None:
    frames = torch.full((40, 128), math.log(0.01))
    frames[30:] = 1.0
    wave = GriffinLim(MEL, CFG)(frames)
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
    first = GriffinLim(MEL, CFG)(frames)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, GriffinLim(MEL, CFG)(frames))
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    other = GriffinLim(MEL, CFG)
    torch.set_num_threads(threads)
    assert torch.equal(first, other(frames)), "made with another number of threads"
    assert not torch.equal(first, GriffinLim(MEL, CFG.model_copy(update={"seed": 1}))(frames))


@pytest.mark.parametrize("frames", [torch.zeros(0, 128), torch.full((3, 128), float("nan"))])
def test_no_frames_or_nan_is_one_clear_line(frames: torch.Tensor) -> None:
    with pytest.raises(UserError, match="vocoder:"):
        GriffinLim(MEL, CFG)(frames)
    if len(frames):
        with pytest.raises(UserError, match="vocoder:"):
            StreamingGriffinLim(GriffinLim(MEL, CFG)).push(frames)


def test_extreme_frames_stay_in_range() -> None:
    wave = GriffinLim(MEL, CFG)(torch.full((5, 128), 1e4))
    assert bool(torch.isfinite(wave).all()) and wave.abs().max() <= 1


def streamed(frames: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    """The pieces of sound for frames that come in parts of the given sizes, the last taking the rest."""
    stream = StreamingGriffinLim(GriffinLim(MEL, CFG))
    bounds = [*torch.tensor([0, *sizes]).cumsum(0).tolist(), len(frames)]
    pieces = [stream.push(frames[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
    return [*pieces, stream.finish()]


@pytest.mark.parametrize("frames", [1, 2, 9, 10, 13, 14, 50, 127, 128])
def test_streamed_duration_is_exact_for_any_length(frames: int) -> None:
    wave = torch.cat(streamed(torch.full((frames, 128), -1.0), [1] * frames))
    assert wave.shape == (frames * 320,) and wave.abs().max() <= 1 and wave.abs().max() > 0


def test_streamed_sound_does_not_depend_on_how_the_frames_come() -> None:
    frames = log_mel(voice_like(), MEL)[::2]
    once, ones = torch.cat(streamed(frames, [])), streamed(frames, [1] * len(frames))
    assert torch.equal(once, torch.cat(ones)) and torch.equal(once, torch.cat(streamed(frames, [7, 30, 1])))
    # The first piece is there as soon as its frames and the three after them are, less what is held to be faded.
    assert [len(piece) for piece in ones[:13]] == [0] * 12 + [10 * 320 - 160]


def test_streamed_sound_has_its_frames_and_no_joins() -> None:
    frames = log_mel(voice_like(2.0), MEL)[::2]
    whole, pieces = GriffinLim(MEL, CFG)(frames), torch.cat(streamed(frames, []))
    errors = [float((log_mel(wave, MEL)[::2] - frames).abs().mean()) for wave in (whole, pieces)]
    assert errors[1] < 1.25 * errors[0], errors
    # A click is a jump of the slope: at the joins it is no larger than elsewhere.
    slope = pieces.diff().diff().abs()
    joins = torch.arange(10 * 320, len(pieces) - 400, 10 * 320)
    near = torch.stack([slope[join - 200 : join + 40].max() for join in joins.tolist()])
    between = torch.stack([slope[join - 1600 : join - 1360].max() for join in joins.tolist()])
    assert near.mean() < 1.5 * between.mean(), (near, between)
