"""Which character is being spoken at each frame: forced alignment by the audio encoder's CTC head."""

import torch
from torch import Tensor
from torchaudio.functional import forced_align

from muomni.audio_encoder import BLANK


def monotone(starts: list[int], frames: int) -> Tensor | None:
    """Frames of symbols from where each begins: every symbol gets at least one frame.

    Args:
        starts: first frame of each symbol, in order, possibly equal.
        frames: number of frames.

    Returns:
        ``[frames]`` int64, the symbol of each frame, or None if there are fewer frames than symbols.
    """
    if frames < len(starts):
        return None
    starts = list(starts)
    starts[-1] = min(starts[-1], frames - 1)
    for i in range(len(starts) - 2, -1, -1):
        starts[i] = min(starts[i], starts[i + 1] - 1)
    starts[0] = 0
    for i in range(1, len(starts)):
        starts[i] = max(starts[i], starts[i - 1] + 1)
    position = torch.zeros(frames, dtype=torch.int64)
    position[torch.tensor(starts)] = 1
    return position.cumsum(0) - 1


def align(log_probs: Tensor, characters: list[int], frames: int, tail: int = 3) -> Tensor | None:
    """Align a recording with its characters.

    The CTC head emits as many slots a second as the codec has frames when the audio encoder has four slots a state
    (12.5 x 4 = 50); any other rate is scaled. A character lasts from its first emission to the next one's.

    Args:
        log_probs: ``[S, C + 1]`` of the CTC head.
        characters: indices into `muomni.audio_encoder.CHARACTERS`, as `muomni.talker.spell` gives them: with a space
            before and after that the recording's silence goes to.
        frames: codec frames of the recording.
        tail: frames that the last character keeps before the closing space.

    Returns:
        ``[frames]`` int64, indices of `characters`, growing by steps of one from the first to the last; or None if
        the recording is too short for its text.
    """
    inner = characters[1:-1]
    repeats = sum(a == b for a, b in zip(inner, inner[1:], strict=False))
    if not inner or len(inner) + repeats > len(log_probs):
        return None
    path, _ = forced_align(log_probs[None].cpu().float(), torch.tensor([inner]), blank=BLANK)
    first: list[int] = []
    last, before = 0, BLANK
    for slot, symbol in enumerate(path[0].tolist()):
        if symbol != BLANK:
            if symbol != before:
                first.append(slot)
            last = slot
        before = symbol
    scale = frames / len(log_probs)
    starts = [0, *(int(slot * scale) for slot in first), int(last * scale) + tail]
    return monotone(starts, frames)
