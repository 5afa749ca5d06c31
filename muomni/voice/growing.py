"""Room for one more voice in a trained codec and Talker, with what was there kept as it is.

The new voice gets codes of its own. In the codec they are a second codec beside the first: own rows of the encoder, own
codes and own columns of the decoder, in further dimensions of the code vectors, where the old codes are zero. So the
old codes sound as before. In the Talker the new codes have rows of their own in the tables of embeddings and in the
heads, and the voice a vector of its own. All else is shared and stays, and `TalkerConfig.voice_codes` keeps each
voice to its codes. So the old voices say what they said before.
"""

import torch
from torch import Tensor

from muomni.codec import Codec
from muomni.errors import UserError
from muomni.talker import Talker

CODES, WIDTH = 128, 64  # of a further voice's codec at most: all profiles' codecs have these
MOST_CODES, MOST_WIDTH = 4096, 512  # as `CodecConfig` allows


def own_codec(old: Codec) -> Codec:
    """A codec for one voice alone, which begins as the first part of a codec; its bias is the old one's and stays.

    Raises:
        UserError: if the old one has no room for it.
    """
    cfg = old.cfg
    codes, width = min(CODES, cfg.codes), min(WIDTH, cfg.code_width)
    if cfg.codes + codes > MOST_CODES or cfg.code_width + width > MOST_WIDTH:
        raise UserError("the model has as many voices of its own as its codec can hold; add this one to an older model")
    own = Codec(cfg.model_copy(update={"codes": codes, "code_width": width}))
    with torch.no_grad():
        own.standardise.load_state_dict(old.standardise.state_dict())
        own.encoder.weight.copy_(old.encoder.weight[:width])
        own.encoder.bias.copy_(old.encoder.bias[:width])
        own.decoder.weight.copy_(old.decoder.weight[:, :width])
        assert own.decoder.bias is not None and old.decoder.bias is not None
        own.decoder.bias.copy_(old.decoder.bias)
        own.decoder.bias.requires_grad_(False)
        for mine, theirs in zip(own.books, old.books, strict=True):
            mine.codebook.copy_(theirs.codebook[:codes, :width])
    return own


def grown_codec(old: Codec, own: Codec) -> Codec:
    """Both in one: the old one's codes first, then the voice's own; each decodes as it did alone."""
    codes, width = old.cfg.codes + own.cfg.codes, old.cfg.code_width + own.cfg.code_width
    made = Codec(old.cfg.model_copy(update={"codes": codes, "code_width": width}))
    state, mine = dict(old.state_dict()), own.state_dict()
    for name in ("encoder.weight", "encoder.bias"):
        state[name] = torch.cat((state[name], mine[name]))
    state["decoder.weight"] = torch.cat((state["decoder.weight"], mine["decoder.weight"]), dim=1)
    for q in range(old.cfg.codebooks):
        name = f"quantisers.{q}.codebook"
        state[name] = torch.block_diag(state[name], mine[name])
    made.load_state_dict(state)
    return made.eval()


def own_talker(old: Talker, voice: str, like: int, shares: Tensor) -> Talker:
    """The Talker as the new voice has it: with the voice's codes alone, of which nothing but those learns.

    Args:
        old: the trained one, in eval mode.
        voice: the new voice's name.
        like: number of the old voice that it begins as.
        shares: ``[Q, K, C]``, of which old codes each new code begins as a mean; they sum to 1.
    """
    cfg = old.cfg.model_copy(update={"codes": shares.shape[1], "voices": [*old.cfg.voices, voice], "voice_codes": []})
    own = Talker(cfg, old.condition.thinker.in_features).to(shares.device)
    state = dict(old.state_dict())
    for q, share in enumerate(shares):
        table, weight, bias = names_of(q)
        known, none = state[table].split([old.cfg.codes, 1])
        state[table] = torch.cat((share @ known, none))
        state[weight], state[bias] = share @ state[weight], share @ state[bias]
    vectors = state["condition.voice.weight"]
    state["condition.voice.weight"] = torch.cat((vectors, vectors[like : like + 1]))
    own.load_state_dict(state)
    return only_own_learns(own)


def names_of(book: int) -> tuple[str, str, str]:
    """What a codebook has in a Talker: embeddings, the last of them for "no frame yet"; the head's weights and bias."""
    return f"code_embedding.{book}.weight", f"code_heads.{book}.weight", f"code_heads.{book}.bias"


def only_own_learns(own: Talker) -> Talker:
    """Let nothing learn but the codes' rows and the voice's vector; the same Talker."""
    own.requires_grad_(False)
    for part in (own.code_embedding, own.code_heads, own.condition.voice):
        part.requires_grad_(True)
    state = dict(own.named_parameters())
    for q in range(own.cfg.codebooks):  # the last row stands for "no frame yet", and is shared
        state[names_of(q)[0]].register_hook(lambda g: torch.cat((g[:-1], torch.zeros_like(g[-1:]))))
    state["condition.voice.weight"].register_hook(lambda g: torch.cat((torch.zeros_like(g[:-1]), g[-1:])))
    return own


def grown_talker(old: Talker, own: Talker) -> Talker:
    """The old Talker with the codes and the vector of the new voice, which is its last one."""
    before, more = old.cfg.codes, own.cfg.codes
    ranges = old.cfg.voice_codes or [[0, before]] * len(old.cfg.voices)
    cfg = own.cfg.model_copy(update={"codes": before + more, "voice_codes": [*ranges, [before, before + more]]})
    made = Talker(cfg, old.condition.thinker.in_features)
    state, mine = dict(old.state_dict()), own.state_dict()
    for q in range(cfg.codebooks):
        table, weight, bias = names_of(q)
        state[table] = torch.cat((state[table][:before], mine[table]))
        state[weight], state[bias] = torch.cat((state[weight], mine[weight])), torch.cat((state[bias], mine[bias]))
    state["condition.voice.weight"] = mine["condition.voice.weight"]
    made.load_state_dict(state)
    return made.eval()
