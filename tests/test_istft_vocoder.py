"""The trained vocoder: an exact inverse transform, sound that does not depend on how frames come, and its training."""

from pathlib import Path

import pytest
import soundfile
import torch
from small_models import CODEC, GRIFFIN_LIM, MEL, OMNI, VOCODER, small_omni

from muomni.codec import Codec
from muomni.data.files import write_jsonl
from muomni.device import DeviceConfig, pick_device
from muomni.errors import UserError
from muomni.evaluate.vocoder_check import Comparison
from muomni.griffin_lim import GriffinLim
from muomni.istft_vocoder import ISTFTVocoder
from muomni.mel import log_mel
from muomni.omni import Omni
from muomni.spectra import SpectralDistance
from muomni.train.d_vocoder import CONTEXT, VocoderStageConfig, VocoderTask
from muomni.train.loop import fit
from muomni.vocoder import VocoderConfig
from muomni.vocoders import make_vocoder

CFG = VOCODER.model_copy(update={"kind": "istft"})
CPU = pick_device(DeviceConfig(name="cpu", precision="fp32", threads=2, memory_gb=None))
TRAINING = VocoderStageConfig(
    steps=4,
    batch_size=4,
    accumulate=1,
    lr=0.003,
    muon_lr=0.0,
    weight_decay=0.0,
    warmup=0,
    min_lr=0.1,
    clip=10.0,
    eval_every=4,
    save_every=2,
    checkpointing=False,
    max_bad_steps=0,
    recordings=4,
    segment=8,
    coded=0.5,
    valid_recordings=2,
)


def random_vocoder(cfg: VocoderConfig = CFG, seed: int = 0) -> ISTFTVocoder:
    """Weights of which every layer matters."""
    torch.manual_seed(seed)
    vocoder = ISTFTVocoder(MEL, cfg).eval()
    with torch.no_grad():
        vocoder.head.weight.mul_(3)
        vocoder.standardise.deviation.fill_(2.0)
        for block in vocoder.blocks:
            block.scale.fill_(1.0)
    return vocoder


def test_the_overlapped_transforms_give_back_the_sound_they_were_made_from() -> None:
    torch.manual_seed(0)
    vocoder, wave = random_vocoder(), torch.randn(2, 320 * 7)
    padded = torch.nn.functional.pad(wave, (vocoder.n_fft // 2, vocoder.n_fft // 2))
    spectrum = torch.stft(
        padded, vocoder.n_fft, vocoder.step, window=vocoder.window, center=False, return_complex=True
    )[..., : 2 * 7]  # a frame every 10 ms, the first centred on sample 0
    torch.testing.assert_close(vocoder.overlap(spectrum.transpose(1, 2)), wave, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 3, 50, 129])
def test_duration_is_exact_for_any_length(frames: int) -> None:
    wave = random_vocoder()(torch.randn(frames, 128))
    assert wave.shape == (frames * 320,) and wave.dtype == torch.float32
    assert bool(torch.isfinite(wave).all()) and 0 < wave.abs().max() <= 1


@pytest.mark.parametrize(("layers", "kernel", "ahead"), [(2, 5, 1), (3, 7, 0), (1, 3, 2), (4, 1, 0)])
def test_streamed_sound_is_that_of_the_whole_however_the_frames_come(layers: int, kernel: int, ahead: int) -> None:
    cfg = CFG.model_copy(update={"layers": layers, "kernel": kernel, "ahead": ahead})
    vocoder, frames = random_vocoder(cfg), torch.randn(60, 128)
    whole = vocoder(frames)
    for chunk, sizes in ((10, [1] * 60), (1, [7] * 9), (13, [60]), (100, [30, 30])):
        stream = vocoder.stream(chunk)
        pieces = [stream.push(part) for part in frames.split(sizes if sum(sizes) == 60 else 7)]
        torch.testing.assert_close(torch.cat((*pieces, stream.finish())), whole, atol=1e-5, rtol=1e-5)
        assert len(stream.finish()) == 0
    # The first piece comes as soon as its frames and those that they wait for are there.
    stream = vocoder.stream(10)
    given = [len(stream.push(frame[None])) for frame in frames]
    assert given.index(10 * 320) == 10 + vocoder.ahead - 1


@pytest.mark.parametrize(("layers", "kernel", "ahead"), [(2, 5, 1), (3, 7, 0), (1, 3, 2)])
def test_sound_depends_on_no_frame_beyond_its_reach(layers: int, kernel: int, ahead: int) -> None:
    vocoder = random_vocoder(CFG.model_copy(update={"layers": layers, "kernel": kernel, "ahead": ahead}))
    frames = torch.randn(80, 128)
    other = frames.clone()
    other[40] += 3
    changed = (vocoder(frames) - vocoder(other)).abs().view(-1, 320).amax(1) > 1e-6
    first, last = int(changed.nonzero()[0]), int(changed.nonzero()[-1])
    assert 40 - vocoder.ahead <= first < 40 < last <= 40 + vocoder.back


@pytest.mark.parametrize("frames", [torch.zeros(0, 128), torch.full((3, 128), float("nan"))])
def test_no_frames_or_nan_is_one_clear_line(frames: torch.Tensor) -> None:
    with pytest.raises(UserError, match="vocoder:"):
        random_vocoder()(frames)
    if len(frames):
        with pytest.raises(UserError, match="vocoder:"):
            random_vocoder().stream(10).push(frames)
    with pytest.raises(ValueError, match="expected"):
        random_vocoder()(torch.zeros(128, 3))


def test_extreme_frames_stay_in_range() -> None:
    wave = random_vocoder()(torch.full((5, 128), 1e4))
    assert bool(torch.isfinite(wave).all()) and wave.abs().max() <= 1


def test_a_convolution_must_see_its_own_state() -> None:
    with pytest.raises(ValueError, match="ahead 5 is not below kernel 5"):
        VocoderConfig(kind="istft", width=8, layers=1, d_ff=8, kernel=5, ahead=5)


def test_only_the_kind_that_is_configured_has_weights_in_the_whole_model() -> None:
    assert isinstance(make_vocoder(MEL, VOCODER, GRIFFIN_LIM), GriffinLim)
    assert not [name for name in small_omni().state_dict() if name.startswith("vocoder.")]
    trained = Omni(OMNI.model_copy(update={"vocoder": CFG}))
    assert "vocoder.head.weight" in trained.state_dict() and "vocoder.standardise.mean" in trained.state_dict()


def test_spectral_distance_ignores_phases_and_grows_with_noise() -> None:
    torch.manual_seed(0)
    time = torch.arange(16000) / 16000
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * time)[None]
    distance = SpectralDistance()
    assert float(distance(tone, tone)) == 0
    inner = slice(2048, -2048)  # what begins at once is not the same as what begins with a step
    later = 0.3 * torch.cos(2 * torch.pi * 440 * time)[None]
    near, far = distance(later[:, inner], tone[:, inner]), distance(tone + 0.05 * torch.randn_like(tone), tone)
    assert float(near) < 0.2 * float(far)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of one voice: sums of harmonics that come and go."""
    folder, rows = tmp_path_factory.mktemp("speech"), []
    for number in range(8):
        split = "train" if number < 5 else "valid"
        time = torch.arange(12000 + 37 * number) / 16000
        wave = torch.stack([torch.sin(2 * torch.pi * (110 + 20 * number) * k * time) / k for k in range(1, 12)]).sum(0)
        wave = wave * torch.sin(2 * torch.pi * (3 + number) * time) ** 2
        file = f"audio/{split}/{number}.flac"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / file, (0.2 * wave).numpy(), 16000)
        row = {"id": str(number), "split": split, "text": "a", "speaker": "hibari", "kind": "own", "key": str(number)}
        rows.append(row | {"seconds": len(wave) / 16000, "file": file})
    write_jsonl(folder / "utterances.jsonl", rows)
    return folder


def make_task(corpus: Path, cfg: VocoderStageConfig = TRAINING) -> VocoderTask:
    """The stage's task; its weights and codec depend on nothing else."""
    torch.manual_seed(0)
    return VocoderTask(cfg, CFG, MEL, Codec(CODEC), ["hibari"], corpus, 0)


def test_segments_are_cut_alike_from_frames_and_sound(corpus: Path) -> None:
    task = make_task(corpus, TRAINING.model_copy(update={"coded": 0.0}))
    mels, waves = task.batch(0, 0, torch.Generator().manual_seed(1))
    assert mels.shape == (4, 8 + 2 * CONTEXT, 128) and waves.shape == (4, 8 * 320)
    for row in range(4):
        again = log_mel(waves[row], MEL)[::2]
        inner = mels[row, CONTEXT + 2 : CONTEXT + 6]  # at the edges the segment alone is heard as if cut off
        assert float((again[2:6] - inner).abs().mean()) < 0.02
    coded = make_task(corpus, TRAINING.model_copy(update={"coded": 1.0})).batch(0, 0, torch.Generator().manual_seed(1))
    assert torch.equal(coded[1], waves) and not torch.allclose(coded[0], mels), "the codec's frames, the same sound"


def test_it_learns_to_make_the_sound(corpus: Path) -> None:
    task = make_task(corpus)
    optimiser = torch.optim.AdamW(task.vocoder.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        loss, values = task.loss(task.batch(step, 0, torch.Generator().manual_seed(step)), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        assert float(loss.detach()) == pytest.approx(float(values["spectral"]) + float(values["mel_error"]), rel=1e-5)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5]), losses
    assert set(task.evaluate()) == {"mel_error", "spectral", "coded_mel_error", "coded_spectral"}


def test_an_interrupted_training_ends_with_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    def train(folder: Path, cfg: VocoderStageConfig) -> dict[str, torch.Tensor]:
        task = make_task(corpus, cfg)
        fit(task, cfg, seed=0, device=CPU, state_dir=folder, fingerprint="same", samples=False)
        return task.vocoder.state_dict()

    class Stop(Exception):
        pass

    whole = train(tmp_path / "whole", TRAINING)
    task, own = make_task(corpus), VocoderTask.batch

    def batch(step: int, micro: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        if step == 3:
            raise Stop
        return own(task, step, micro, rng)

    task.batch = batch  # type: ignore[method-assign]  # dies after the state of step 2 was saved
    with pytest.raises(Stop):
        fit(task, TRAINING, seed=0, device=CPU, state_dir=tmp_path / "cut", fingerprint="same", samples=False)
    for name, tensor in train(tmp_path / "cut", TRAINING).items():
        assert torch.equal(tensor, whole[name]), name


def test_a_voice_without_recordings_is_named(corpus: Path) -> None:
    with pytest.raises(UserError, match="talker.voices: no recording of 'nobody' in the train split"):
        VocoderTask(TRAINING, CFG, MEL, Codec(CODEC), ["nobody"], corpus, 0)


def test_a_comparison_tells_a_good_vocoder_from_a_random_one(corpus: Path) -> None:
    compared = Comparison({"good": GriffinLim(MEL, GRIFFIN_LIM), "random": random_vocoder()}, Codec(CODEC).eval())
    wave = torch.from_numpy(soundfile.read(corpus / "audio/valid/6.flac", dtype="float32")[0])
    names = [name for name, _ in compared.sounds(wave)]
    assert names == ["recording", "good", "good after the codec", "random", "random after the codec"]
    good, random = compared.found["good"], compared.found["random"]
    for figure in ("mel_error", "spectral_distance"):
        assert good[figure][0] < 0.8 * random[figure][0]
    assert good["stoi"][0] > random["stoi"][0] + 0.1
    assert len(compared.seconds["good"]) == len(compared.lasts) == 1
