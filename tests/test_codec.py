"""The codec learns, uses all its codes, and tells its codebooks apart."""

import pytest
import torch
from small_models import CODEC

from muomni.codec import Codec, CodecConfig, DecoderStream, Quantiser
from muomni.config import parse
from muomni.errors import UserError


def speech(frames: int = 6000, seed: int = 0) -> torch.Tensor:
    """Log-mel that is smooth over bins and time and lives near a curved surface, as speech does: [frames, 128]."""
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(frames + 8, 6, generator=rng)
    hidden = torch.nn.functional.avg_pool1d(hidden.T[None], 9, 1)[0].T * 3  # slow
    shape = torch.randn(6, 128, generator=torch.Generator().manual_seed(99))
    shape = torch.nn.functional.avg_pool1d(shape[None], 9, 1, 4)[0]
    return -5 + 2 * torch.tanh(hidden @ shape) + 0.05 * torch.randn(frames, 128, generator=rng)


def trained(steps: int = 150) -> tuple[Codec, list[float]]:
    torch.manual_seed(0)
    codec, data, rng = Codec(CODEC).train(), speech(), torch.Generator().manual_seed(0)
    codec.start(data[::3], rng)
    optimiser = torch.optim.AdamW([p for p in codec.parameters() if p.requires_grad], 3e-3)
    errors = []
    for _ in range(steps):
        begin = torch.randint(len(data) - 32, (8,), generator=rng).tolist()
        mel = torch.stack([data[b : b + 32] for b in begin])
        loss, error, _ = codec.training_loss(mel, torch.ones(8, 32, dtype=torch.bool), 0.25, rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(float(error))
    return codec.eval(), errors


def test_it_learns_and_uses_all_codes() -> None:
    codec, errors = trained()
    assert sum(errors[-20:]) / 20 < 0.5 * errors[0], errors[::50]
    unseen = speech(seed=1)
    codes = codec.encode(unseen)
    decoded = codec.decode(codes[None])[0]
    mean = (unseen - codec.standardise.mean).abs().mean()
    assert (decoded - unseen).abs().mean() < 0.5 * mean  # far better than the mean frame
    used = [codes[:, q].unique().numel() for q in range(CODEC.codebooks)]
    assert min(used) > 0.9 * CODEC.codes, used
    # The residual code adds to what the base code says.
    base = codec.reconstruct(codec.quantisers[0].codebook[codes[None, :, 0]])
    assert (codec.standardise.inverse(base)[0] - unseen).abs().mean() > 1.05 * (decoded - unseen).abs().mean()


def test_base_and_residual_code_are_not_exchangeable() -> None:
    codec, _ = trained(steps=30)
    mel = speech(400, seed=2)
    codes = codec.encode(mel)
    error = (codec.decode(codes[None])[0] - mel).abs().mean()
    swapped = (codec.decode(codes.flip(-1)[None])[0] - mel).abs().mean()
    assert swapped > 1.5 * error
    wrong_base = torch.stack(((codes[:, 0] + 7) % CODEC.codes, codes[:, 1]), -1)
    wrong_rest = torch.stack((codes[:, 0], (codes[:, 1] + 7) % CODEC.codes), -1)
    base, rest = ((codec.decode(c[None])[0] - mel).abs().mean() for c in (wrong_base, wrong_rest))
    assert base > rest > error  # the base code says most


def test_encode_is_frame_by_frame_and_nearest() -> None:
    codec, _ = trained(steps=2)
    mel = speech(50)
    codes = codec.encode(mel)
    assert codes.shape == (50, CODEC.codebooks) and codes.dtype == torch.int64
    assert torch.equal(codec.encode(mel[None])[0], codes) and torch.equal(codec.encode(mel[20:21])[0], codes[20])
    with torch.no_grad():
        rest = codec.encoder(codec.standardise(mel))
        for q, quantiser in enumerate(codec.quantisers):
            assert torch.equal(torch.cdist(rest, quantiser.codebook).argmin(-1), codes[:, q])
            rest = rest - quantiser.codebook[codes[:, q]]
    assert codec.decode(codes[None]).shape == (1, 50, 128)


def test_dead_codes_are_moved_to_data_and_living_ones_are_not() -> None:
    torch.manual_seed(0)
    quantiser, rng = Quantiser(8, 4, decay=0.5), torch.Generator().manual_seed(0)
    data = torch.randn(400, 4, generator=rng) + 5
    quantiser.start(data, rng)
    with torch.no_grad():
        for table in (quantiser.codebook, quantiser.sums):
            table[3] = -1000  # far away: nobody chooses it
    living = quantiser.nearest(data).unique()
    assert 3 not in living
    for _ in range(12):
        quantiser.learn(data, quantiser.nearest(data), rng)
    assert quantiser.nearest(data).unique().numel() == 8
    assert (quantiser.codebook - 5).abs().max() < 5


def test_codes_are_the_moving_mean_of_those_that_choose_them() -> None:
    torch.manual_seed(0)
    quantiser, rng = Quantiser(2, 3, decay=0.9), torch.Generator().manual_seed(0)
    data = torch.cat((torch.randn(50, 3, generator=rng) + 10, torch.randn(50, 3, generator=rng) - 10))
    for _ in range(200):
        quantiser.learn(data, (torch.arange(100) >= 50).long(), rng)
    torch.testing.assert_close(quantiser.codebook[0], data[:50].mean(0), atol=1e-3, rtol=0)
    torch.testing.assert_close(quantiser.codebook[1], data[50:].mean(0), atol=1e-3, rtol=0)


def test_padding_does_not_reach_the_loss_or_the_codebooks() -> None:
    results = []
    for fill in (0.0, 500.0):
        codec, _ = trained(steps=1)
        codec.train()
        mel, mask = speech(40).view(2, 20, 128).clone(), torch.ones(2, 20, dtype=torch.bool)
        mask[1, 13:] = False
        mel[1, 13:] = fill
        loss, error, codes = codec.training_loss(mel, mask, 0.25, torch.Generator().manual_seed(0))
        results.append((loss.detach(), error, codes, codec.quantisers[0].codebook.clone()))
    assert len(results[0][2]) == 33
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_is_learned_in_eval_mode() -> None:
    codec, _ = trained(steps=2)
    before = [q.codebook.clone() for q in codec.quantisers]
    codec.training_loss(speech(64)[None], torch.ones(1, 64, dtype=torch.bool), 0.25, torch.Generator())
    assert all(torch.equal(q.codebook, b) for q, b in zip(codec.quantisers, before, strict=True))


def test_fewer_frames_than_codes_can_start_it() -> None:
    codec = Codec(CODEC)
    codec.start(speech(5), torch.Generator().manual_seed(0))
    assert codec.encode(speech(5)).shape == (5, 2)


def test_even_kernel_is_refused() -> None:
    with pytest.raises(UserError, match="kernel"):
        parse(CodecConfig, CODEC.model_dump() | {"kernel": 4}, "params.yaml: codec")


@pytest.mark.parametrize("sizes", [[1] * 30, [30], [4, 1, 25]])
def test_decoding_as_codes_come_gives_the_same_frames(sizes: list[int]) -> None:
    torch.manual_seed(0)
    codec = Codec(CODEC.model_copy(update={"kernel": 5})).eval()
    codes = torch.randint(CODEC.codes, (30, CODEC.codebooks))
    stream = DecoderStream(codec)
    parts = [stream.push(part) for part in codes.split(sizes)]
    assert sum(map(len, parts)) == 28, "the last frames wait for what comes after"
    torch.testing.assert_close(torch.cat([*parts, stream.finish()]), codec.decode(codes[None])[0])
