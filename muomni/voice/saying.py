"""An old voice says many sentences at once."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from muomni.omni import Omni
from muomni.tokenizer import Tokenizer
from muomni.train.speaking import Utterance, spelled
from muomni.walk import LONGEST_STAY, ROOM, TalkerDecoder, Walk

TOGETHER = 32  # sentences that are said at once


@torch.no_grad()
def say_all(model: Omni, tokenizer: Tokenizer, texts: Sequence[str], voice: int, seed: int) -> list[Utterance]:
    """Texts as the model says them, with the character that each frame is on.

    Args:
        model: in eval mode.
        tokenizer: its.
        texts: each with a letter or digit.
        voice: index into the Talker's voices.
        seed: of the codes.
    """
    found = []
    bar = tqdm(total=len(texts), desc="the old voice speaks", unit="sentence", leave=False)
    for at in range(0, len(texts), TOGETHER):
        some = range(at, min(at + TOGETHER, len(texts)))
        spellings = [spelled(texts[number], tokenizer) for number in some]
        walks = []
        for number, (_, letters, _) in zip(some, spellings, strict=True):
            rng = torch.Generator().manual_seed(seed * 1_000_003 + number)
            frames = min(model.talker.cfg.frames, LONGEST_STAY * len(letters))
            walks.append(Walk(model.talker, rng, None, frames, voice))
        characters = [character_states(model, tokenizer, spelling, voice) for spelling in spellings]
        walk_together(TalkerDecoder(model.talker), walks, characters)
        for number, spelling, walk in zip(some, spellings, walks, strict=True):
            codes, way = torch.tensor(walk.codes), torch.tensor(walk.positions)
            found.append(Utterance(texts[number], *spelling, codes, way, voice, number))
        bar.update(len(walks))
    bar.close()
    return found


@torch.no_grad()
def character_states(
    model: Omni, tokenizer: Tokenizer, spelling: tuple[list[int], Tensor, Tensor], voice: int
) -> Tensor:
    """What conditions the Talker where it says a text, ``[N, D]``.

    Args:
        model: in eval mode.
        tokenizer: its.
        spelling: of the text, by `spelled`.
        voice: index into the Talker's voices.
    """
    ids, letters, tokens = spelling
    device = model.thinker.embedding.weight.device
    read = model.thinker(model.thinker.embed(torch.tensor([[tokenizer.assistant, *ids]], device=device)))[:, 1:]
    return model.talker.condition(letters[None].to(device), read[:, tokens], torch.tensor([voice], device=device))[0]


@torch.no_grad()
def walk_together(decoder: TalkerDecoder, walks: Sequence[Walk], characters: Sequence[Tensor]) -> None:
    """Take utterances to their ends, a frame of each at a time.

    Args:
        decoder: the Talker laid out.
        walks: at their beginnings.
        characters: for each the states of its characters ``[N, D]``.
    """
    under_way = list(range(len(walks)))
    kv = decoder.stack.new_cache(len(walks), ROOM).kv  # [L, B, P, 2, K, h]
    while True:
        going = [row for row, i in enumerate(under_way) if walks[i].goes_on(len(characters[i]))]
        if not going:
            return
        if len(going) < len(under_way):
            under_way, kv = [under_way[row] for row in going], kv[:, going]
        if len(walks[under_way[0]].codes) == kv.shape[2]:  # all have made as many frames
            kv = F.pad(kv, (0, 0, 0, 0, 0, 0, 0, kv.shape[2]))
        here = torch.stack([characters[i][walks[i].at] for i in under_way])
        decoder.frames([walks[i] for i in under_way], here, kv)
