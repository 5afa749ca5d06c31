"""One sequence of text, pictures and recordings: order, counts, and what the context holds."""

import pytest
import torch
from small_models import AUDIO, VISION

from muomni.errors import UserError
from muomni.fusion import fuse, lay_out, plan
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer, render_chat

Small = tuple[Omni, Tokenizer]


def question(*parts: tuple[str, object]) -> list[dict]:
    content = [{"type": kind, "text" if kind == "text" else "member": value} for kind, value in parts]
    return [{"role": "user", "content": content}]


def test_lay_out_gives_every_part_its_positions_in_order(small: Small) -> None:
    tokenizer = small[1]
    parts = (("image", "a"), ("text", "What is it?"), ("audio", "b"), ("image", "c"))
    segments = render_chat([*question(*parts), {"role": "assistant", "content": "A dog."}], tokenizer)
    layout = lay_out(segments, tokenizer, [5, 7, 2])
    text, answer = tokenizer.encode("What is it?"), tokenizer.encode("A dog.")
    image, audio = tokenizer.image, tokenizer.audio
    head = [tokenizer.user, *[image] * 5, *text, *[audio] * 7, *[image] * 2, tokenizer.end, tokenizer.assistant]
    assert layout.ids == [*head, *answer, tokenizer.end]
    assert layout.answer == [False] * len(head) + [True] * (len(answer) + 1)
    assert layout.features == [("image", "a", 5), ("audio", "b", 7), ("image", "c", 2)]


@torch.no_grad()
def test_fuse_puts_each_state_in_its_place_and_leaves_text_alone(small: Small) -> None:
    model, tokenizer = small
    t = tokenizer
    ids = torch.tensor([[t.user, t.image, t.image, 50, t.audio], [t.image, 51, t.audio, t.audio, t.pad]])
    images, audio = torch.randn(3, VISION.d_model), torch.randn(3, AUDIO.d_model)
    x = fuse(model, ids, tokenizer, images, audio)
    seen, heard = model.project_images(images), model.audio_projector(audio)
    torch.testing.assert_close(x[0, 1:3], seen[:2])
    torch.testing.assert_close(x[1, 0], seen[2])
    torch.testing.assert_close(x[0, 4], heard[0])
    torch.testing.assert_close(x[1, 2:4], heard[1:])
    for row, column in ((0, 0), (0, 3), (1, 1), (1, 4)):
        torch.testing.assert_close(x[row, column], model.thinker.embedding.weight[ids[row, column]])


@torch.no_grad()
def test_the_order_of_pictures_matters(small: Small) -> None:
    model, tokenizer = small
    size = model.image_positions
    picture = [tokenizer.image] * size
    ids = torch.tensor([[tokenizer.user, *picture, 50, *picture, tokenizer.end]])
    images = torch.randn(2, size, VISION.d_model)
    one, other = (fuse(model, ids, tokenizer, order.flatten(0, 1)) for order in (images, images.flip(0)))
    torch.testing.assert_close(one[0, 1 : 1 + size], other[0, 2 + size : 2 + 2 * size])
    assert (model.thinker(one)[0, -1] - model.thinker(other)[0, -1]).abs().max() > 1e-3


@torch.no_grad()
def test_equal_states_of_a_picture_differ_by_their_place(small: Small) -> None:
    model, t = small
    size = model.image_positions
    ids = torch.tensor([[t.user, *[t.image] * size, *[t.image] * size]])
    x = fuse(model, ids, t, torch.zeros(2 * size, VISION.d_model))[0, 1:].view(2, size, -1)
    torch.testing.assert_close(x[0], x[1])
    assert torch.pdist(x[0]).min() > 0.1


@pytest.mark.parametrize(("pictures", "recordings"), [(None, 2), (1, 2), (3, 2), (2, None), (2, 1), (2, 3), (0, 0)])
def test_fuse_refuses_states_that_do_not_fill_their_places(
    small: Small, pictures: int | None, recordings: int | None
) -> None:
    model, t = small
    ids = torch.tensor([[t.image, t.audio, 50, t.audio, t.image]])
    images = None if pictures is None else torch.zeros(pictures, VISION.d_model)
    audio = None if recordings is None else torch.zeros(recordings, AUDIO.d_model)
    with pytest.raises(ValueError, match="states for 2 placeholders"):
        fuse(model, ids, t, images, audio)


def test_gradient_reaches_projectors_and_encoders_through_fusion(small: Small) -> None:
    model, t = small
    ids = torch.tensor([[t.user, t.image, t.audio]])
    images, audio = (
        torch.randn(1, VISION.d_model, requires_grad=True),
        torch.randn(1, AUDIO.d_model, requires_grad=True),
    )
    fuse(model, ids, t, images, audio).sum().backward()
    for states in (images, audio):
        assert states.grad is not None and states.grad.abs().max() > 0
    model.zero_grad()


def test_a_conversation_that_fits_is_kept_whole() -> None:
    turns = [[("text", 10)], [("text", 5)], [("text", 2), ("image", 17), ("audio", 30)]]
    first, sizes, report = plan(turns, context=128, reserve=64)
    assert first == 0 and sizes == [[10], [5], [2, 17, 30]]
    assert report.positions == {"text": 17, "image": 17, "audio": 30}
    assert (report.answer, report.dropped_turns, report.dropped_audio) == (64, 0, 0)
    assert str(report) == "context 128: text 17, image 17, audio 30, answer up to 64"


def test_old_turns_go_first_in_pairs() -> None:
    turns = [[("text", 30)], [("text", 30)], [("text", 10)], [("text", 10)], [("text", 20)]]
    first, sizes, report = plan(turns, context=100, reserve=40)
    assert first == 2 and sizes == [[10], [10], [20]]
    assert report.dropped_turns == 2 and report.answer == 60
    assert "2 old messages left out" in str(report)
    assert plan(turns, context=60, reserve=40)[0] == 4


def test_then_the_end_of_a_long_recording_is_cut_and_reported() -> None:
    turns = [[("text", 5)], [("text", 5)], [("text", 6), ("audio", 500), ("text", 4)]]
    first, sizes, report = plan(turns, context=128, reserve=28)
    assert first == 2 and sizes == [[6, 90, 4]]
    assert report.dropped_audio == 410 and report.answer == 28
    assert "32.8 s of audio cut" in str(report)


def test_several_recordings_are_cut_in_turn_but_never_to_nothing() -> None:
    _, sizes, report = plan([[("audio", 50), ("audio", 50), ("text", 5)]], context=64, reserve=32)
    assert sizes == [[1, 26, 5]] and report.dropped_audio == 73
    with pytest.raises(UserError, match="has room for 2"):
        plan([[("audio", 50), ("audio", 50), ("text", 5)]], context=34, reserve=32)


@pytest.mark.parametrize("turn", [[("text", 200)], [("image", 17)] * 10, [("text", 90), ("image", 17)]])
def test_what_cannot_be_cut_is_refused_with_its_size(turn: list[tuple[str, int]]) -> None:
    with pytest.raises(UserError, match="less text or fewer pictures") as caught:
        plan([turn], context=128, reserve=32)
    assert str(sum(size for _, size in turn)) in str(caught.value)


def test_the_answer_must_leave_room() -> None:
    with pytest.raises(UserError, match="leave no room"):
        plan([[("text", 1)]], context=64, reserve=64)
