"""Pictures, sounds and text as one sequence of the Thinker, and how much of each fits.

A conversation rendered by the chat template becomes a `Layout`: token ids with a placeholder for every position that an
encoder fills. `plan` makes it fit into the context before; `fuse` puts the encoders' states in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from muomni.errors import UserError
from muomni.omni import Omni
from muomni.tokenizer import Segment, Tokenizer


@dataclass
class Layout:
    """One sequence before fusion.

    Attributes:
        ids: token ids; ``<|image|>`` or ``<|audio|>`` at every position of a picture or recording.
        answer: whether the model has to say the token at this position.
        features: the references of the pictures and recordings, in order, with their kind and positions.
    """

    ids: list[int] = field(default_factory=list)
    answer: list[bool] = field(default_factory=list)
    features: list[tuple[str, object, int]] = field(default_factory=list)


def lay_out(segments: Sequence[Segment], tokenizer: Tokenizer, sizes: Sequence[int]) -> Layout:
    """Give every segment its positions.

    Args:
        segments: from `muomni.tokenizer.render_chat`.
        tokenizer: for the placeholders.
        sizes: positions of each picture and recording, in order.
    """
    layout, rest = Layout(), list(sizes)
    for segment in segments:
        if segment.kind == "text":
            layout.ids += segment.value
            layout.answer += [segment.answer] * len(segment.value)
            continue
        size = rest.pop(0)
        layout.ids += [tokenizer.image if segment.kind == "image" else tokenizer.audio] * size
        layout.answer += [False] * size
        layout.features.append((segment.kind, segment.value, size))
    return layout


@dataclass
class Plan:
    """What of a conversation goes into the context.

    Attributes:
        positions: of text, pictures and recordings after planning, by kind.
        answer: positions left for the answer.
        dropped_turns: old turns that were left out.
        dropped_audio: positions cut from the ends of recordings.
        context: the budget.
    """

    positions: dict[str, int]
    answer: int
    dropped_turns: int
    dropped_audio: int
    context: int

    def __str__(self) -> str:
        parts = ", ".join(f"{kind} {count}" for kind, count in self.positions.items() if count)
        cut = f"; {self.dropped_turns} old messages left out" if self.dropped_turns else ""
        cut += f"; {self.dropped_audio / 12.5:.1f} s of audio cut" if self.dropped_audio else ""
        return f"context {self.context}: {parts}, answer up to {self.answer}{cut}"


def plan(turns: Sequence[Sequence[tuple[str, int]]], context: int, reserve: int) -> tuple[int, list[list[int]], Plan]:
    """Fit a conversation into the context: old turns go first, then the ends of long recordings.

    Args:
        turns: for each message its segments as kind and positions; text, image or audio. The last is the question.
        context: positions of the Thinker.
        reserve: positions kept for the answer.

    Returns:
        The index of the first turn that stays, the positions of each segment of the turns that stay, and the plan.

    Raises:
        UserError: if the newest message alone does not fit even with its recordings cut.
    """
    room = context - reserve
    if room < 1:
        raise UserError(f"the answer's {reserve} positions leave no room in a context of {context}")
    first = 0
    total = sum(size for turn in turns for _, size in turn)
    # Turns leave in pairs, so that the conversation still begins with the user.
    while total > room and len(turns) - first > 2:
        total -= sum(size for turn in turns[first : first + 2] for _, size in turn)
        first += 2
    kept = [[size for _, size in turn] for turn in turns[first:]]
    cut = 0
    for sizes, turn in zip(kept, turns[first:], strict=True):
        for index, (kind, size) in enumerate(turn):
            if kind == "audio" and total > room:
                less = min(total - room, size - 1)
                sizes[index] -= less
                total -= less
                cut += less
    if total > room:
        raise UserError(
            f"the message takes {total} positions, the context of {context} has room for {room} beside an answer of "
            f"{reserve}; give less text or fewer pictures"
        )
    positions = dict.fromkeys(("text", "image", "audio"), 0)
    for sizes, turn in zip(kept, turns[first:], strict=True):
        for (kind, _), size in zip(turn, sizes, strict=True):
            positions[kind] += size
    return first, kept, Plan(positions, context - total, first, cut, context)


def fuse(
    model: Omni,
    ids: Tensor,
    tokenizer: Tokenizer,
    images: Tensor | None = None,
    audio: Tensor | None = None,
) -> Tensor:
    """Embed token ids and put the projected states of the encoders where their placeholders are.

    Args:
        model: the model.
        ids: ``[B, T]`` int64 with placeholders.
        tokenizer: knows the placeholders.
        images: ``[N, Dv]`` states of all pictures of the batch, in reading order, or None.
        audio: ``[M, Da]`` states of all recordings of the batch, or None.

    Returns:
        Embeddings ``[B, T, D]``.

    Raises:
        ValueError: if the states do not fill the placeholders exactly.
    """
    x = model.thinker.embed(ids)
    for token, states, project in (
        (tokenizer.image, images, model.project_images),
        (tokenizer.audio, audio, model.audio_projector),
    ):
        places = ids == token
        count, given = int(places.sum()), 0 if states is None else len(states)
        if count != given:
            raise ValueError(f"{given} states for {count} placeholders")
        if states is not None and count:
            x = x.masked_scatter(places[..., None], project(states.to(x.dtype)).to(x.dtype))
    return x
