"""What stage B hears: error rates of the audio encoder's CTC transcripts."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from muomni.audio_encoder import AudioEncoder, CTCHead, normalise
from muomni.data.speech import Recording, collate_mels
from muomni.errors import UserError
from muomni.evaluate.measure import Figure, character_errors, word_errors


@torch.no_grad()
def transcripts(encoder: AudioEncoder, head: CTCHead, mels: Sequence[Tensor], batch: int = 32) -> list[str]:
    """Best-path transcripts of log-mels ``[T, M]`` at 100 Hz, those of similar length together."""
    device = head.project.weight.device
    order = sorted(range(len(mels)), key=lambda i: len(mels[i]))
    texts = [""] * len(mels)
    for at in range(0, len(order), batch):
        part = order[at : at + batch]
        padded, lengths = collate_mels([mels[i] for i in part])
        states, lengths = encoder(padded.to(device), lengths.to(device))
        for i, text in zip(part, head.transcribe(states, lengths), strict=True):
            texts[i] = text
    return texts


def score_hearing(
    encoder: AudioEncoder,
    head: CTCHead,
    recordings: Sequence[Recording],
    clear: str,
    seed: int,
    trained: Collection[str] | None = None,
) -> dict[str, dict[str, Figure]]:
    """Character and word error rates of each speaker, of all, and of all but the clear voice.

    Where some speakers are in no training recording they are scored together too, as ``unseen``, and beside them the
    other voices that training has, as ``others_known``.

    Args:
        encoder: in eval mode.
        head: its CTC head.
        recordings: of the test split.
        clear: the speaker listed as ``clear``.
        seed: of the intervals.
        trained: the speakers of the training split; None if they are not known.

    Raises:
        UserError: if the clear voice is not among them.
    """
    heard = transcripts(encoder, head, [r.mel for r in recordings])
    rows = [(r.speaker, normalise(r.text), text) for r, text in zip(recordings, heard, strict=True)]
    speakers = sorted({speaker for speaker, _, _ in rows})
    if clear not in speakers:
        raise UserError(
            f"evaluate.speaker: no test recording of '{clear}'; there are {', '.join(speakers) or 'none at all'}"
        )
    groups = {"clear": [clear], "others": [s for s in speakers if s != clear], "all": speakers}
    unseen = [] if trained is None else [s for s in speakers if s not in trained]
    if unseen:
        groups |= {"unseen": unseen, "others_known": [s for s in speakers if s not in (clear, *unseen)]}
    groups |= {f"speaker {speaker}": [speaker] for speaker in speakers}
    found = {}
    for name, members in groups.items():
        said = [text for speaker, text, _ in rows if speaker in members]
        got = [text for speaker, _, text in rows if speaker in members]
        if said:
            found[name] = {"cer": character_errors(said, got, seed), "wer": word_errors(said, got, seed)}
    return found
