"""What stage C sees: names of pictures and of the things in them, and which caption belongs to which picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from muomni.data.pictures import Picture, box_weights
from muomni.evaluate.measure import Figure, share
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.c_vision_encoder import ContrastiveHeads
from muomni.train.text_tower import phrase, text_states
from muomni.vision_encoder import VisionEncoder


@dataclass(frozen=True)
class Seen:
    """What was made of test pictures.

    Attributes:
        singles: (wanted name, given name, number of the picture) of each picture of one thing, by its CLS.
        objects: (wanted name, given name) of each object of every picture, by its patches.
        ranks: how many captions of the test set fit each picture better than its own.
        captions: number of different captions.
        singles_unseen: of each of `singles`, whether it is in a style that training never had this concept in; None
            where drawings come in one style.
        objects_unseen: the same of `objects`.
    """

    singles: list[tuple[str, str, int]]
    objects: list[tuple[str, str]]
    ranks: list[int]
    captions: int
    singles_unseen: list[bool | None] = field(default_factory=list)
    objects_unseen: list[bool | None] = field(default_factory=list)


@torch.no_grad()
def see(
    encoder: VisionEncoder,
    heads: ContrastiveHeads,
    thinker: Thinker,
    tokenizer: Tokenizer,
    names: Sequence[str],
    pictures: Sequence[Picture],
    batch: int = 64,
) -> Seen:
    """Name pictures and objects among all names, and rank all captions of the set for each picture.

    Args:
        encoder: the vision encoder.
        heads: the training's heads.
        thinker: stage A's, the text tower.
        tokenizer: its tokenizer.
        names: that the encoder has learned.
        pictures: of the test split.
        batch: pictures at once.
    """
    device = encoder.patch.weight.device
    captions = sorted({picture.caption for picture in pictures})
    spoken = text_states(thinker, tokenizer, [phrase(name) for name in names])
    name_vectors = heads.texts(spoken.to(device))  # [names, E]
    caption_vectors = heads.texts(text_states(thinker, tokenizer, captions).to(device))  # [captions, E]
    known, place = set(names), {caption: i for i, caption in enumerate(captions)}
    seen = Seen([], [], [], len(captions))
    for at in range(0, len(pictures), batch):
        part = pictures[at : at + batch]
        cls, patches = encoder(torch.stack([p.pixels for p in part]).to(device).float() / 255)
        vectors = heads.pictures(cls)  # [B, E]
        own = torch.tensor([place[p.caption] for p in part], device=device)
        similarity = vectors @ caption_vectors.T  # [B, captions]
        seen.ranks.extend((similarity > similarity.gather(1, own[:, None])).sum(1).tolist())
        guesses = (vectors @ name_vectors.T).argmax(1).tolist() if names else []
        for row, picture in enumerate(part):
            things = [thing for thing in picture.objects if thing["name"] in known]
            if picture.kind == "single" and things:
                seen.singles.append((things[0]["name"], names[guesses[row]], at + row))
                seen.singles_unseen.append(things[0].get("unseen"))
            if things:
                given = object_names(encoder, heads, patches[row], [t["box"] for t in things], name_vectors)
                seen.objects.extend((t["name"], names[i]) for t, i in zip(things, given, strict=True))
                seen.objects_unseen.extend(t.get("unseen") for t in things)
    return seen


def object_names(
    encoder: VisionEncoder, heads: ContrastiveHeads, patches: Tensor, boxes: Sequence[Sequence[float]], names: Tensor
) -> list[int]:
    """The nearest of the names for each box, by the patches under it.

    Args:
        encoder: for the places of its patches.
        heads: that bring patches and names into one space of width E.
        patches: of a picture, ``[N, D]``.
        boxes: left, top, right and bottom of each object, 0 to 1 of the picture's sides.
        names: vectors ``[names, E]``.

    Returns:
        For each box the index of a name.
    """
    weights = box_weights(torch.tensor(boxes, dtype=torch.float32), encoder.side).to(patches)  # [objects, N]
    return (heads.regions(weights @ patches) @ names.T).argmax(1).tolist()


def score_seeing(seen: Seen) -> dict[str, Figure]:
    """Naming accuracy and retrieval recall; where drawings come in several styles also by whether training had it."""
    found = {}
    singles = [wanted == given for wanted, given, _ in seen.singles]
    objects = [wanted == given for wanted, given in seen.objects]
    for name, right, unseen in (("naming", singles, seen.singles_unseen), ("objects", objects, seen.objects_unseen)):
        if right:
            found[name] = share(right)
        for label, which in ((f"{name}_unseen_style", True), (f"{name}_known_style", False)):
            part = [one for one, is_unseen in zip(right, unseen, strict=True) if is_unseen is which]
            if part:
                found[label] = share(part)
    for k in (1, 5):
        found[f"recall_{k}"] = share([rank < k for rank in seen.ranks])
    return found
