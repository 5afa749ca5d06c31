"""The log-mel front-end: frame counts, alignment, padding, bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import MEL as CFG

from muomni.config import parse
from muomni.errors import UserError
from muomni.mel import LogMel, MelConfig, count_frames, log_mel, mel_filters


def tone(hz: float, seconds: float = 1.0) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(int(16000 * seconds)) / 16000)


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=1, max_value=4000))
def test_frames_are_even_and_the_last_axis_is_bands(samples: int) -> None:
    mel = log_mel(torch.zeros(samples), CFG)
    expected = math.ceil(samples / 160)
    assert mel.shape == (expected + expected % 2, 128)
    assert len(mel) == count_frames(samples, CFG)
    assert mel.dtype == torch.float32


def test_one_sample_is_two_frames() -> None:
    mel = log_mel(torch.tensor([1.0]), CFG)
    assert mel.shape == (2, 128)
    assert bool(torch.isfinite(mel).all())
    assert mel[0].max() > math.log(CFG.floor)  # the sample is in the middle of the first frame


def test_no_filter_is_empty_and_peaks_rise() -> None:
    filters = mel_filters(CFG)
    assert filters.shape == (513, 128)
    assert bool((filters.sum(0) > 0).all())
    peaks = filters.argmax(0)
    assert bool((peaks[1:] >= peaks[:-1]).all())


def test_frames_are_centred() -> None:
    wave = torch.zeros(16000)
    wave[50 * 160] = 1.0  # a click on the centre of frame 50
    energy = log_mel(wave, CFG).mean(1)
    assert int(energy.argmax()) == 50
    assert torch.allclose(energy[49], energy[51], atol=1e-4)


def test_higher_tone_higher_band_and_natural_logarithm() -> None:
    bands = [int(log_mel(tone(hz), CFG)[50].argmax()) for hz in (200, 400, 800, 1600, 3200, 6400)]
    assert bands == sorted(set(bands))
    louder = log_mel(2 * tone(440), CFG)[50].max() - log_mel(tone(440), CFG)[50].max()
    assert louder.item() == pytest.approx(math.log(2), abs=1e-4)


def test_batch_equals_single_and_zero_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    wave = torch.randn(3, 5000) * 0.1
    batch = LogMel(CFG)(wave)
    for one, row in zip(wave, batch, strict=True):
        assert torch.allclose(log_mel(one, CFG), row, atol=1e-5)
    padded = log_mel(torch.nn.functional.pad(wave[0], (0, 3000)), CFG)
    assert torch.allclose(padded[: batch.shape[1]], batch[0], atol=1e-5)


def test_silence_is_the_floor() -> None:
    assert torch.allclose(log_mel(torch.zeros(1000), CFG), torch.tensor(math.log(0.01)))


@pytest.mark.parametrize("bad", [[], [0.0, float("nan")], [float("inf")]])
def test_bad_samples_are_one_clear_line(bad: list[float]) -> None:
    with pytest.raises(UserError) as error:
        log_mel(torch.tensor(bad), CFG)
    assert str(error.value).startswith("audio:") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"), [("win_length", 2048), ("win_length", 320), ("f_max", 9000.0), ("hop_length", 1)]
)
def test_impossible_settings_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match="params.yaml: mel"):
        parse(MelConfig, {**CFG.model_dump(), key: value}, "params.yaml: mel")
