"""Pictures and sounds as text: the base64 of a file's bytes, as requests and answers over HTTP carry them."""

import base64
import binascii
import io

import soundfile
from torch import Tensor

from muomni.errors import UserError
from muomni.sound import MAX_FILE_BYTES


def file_bytes(value: object, what: str) -> bytes | None:
    """The bytes of a file that came as base64, or None if there is no text.

    Args:
        value: the text; whatever is no text, such as NaN in an empty cell of a table, counts as none.
        what: its name in messages.

    Raises:
        UserError: if it is not base64, or longer than any file that is taken.
    """
    if not isinstance(value, str) or not value:
        return None
    if len(value) > MAX_FILE_BYTES * 4 // 3 + 4:
        raise UserError(f"{what}: larger than {MAX_FILE_BYTES // 1_000_000} MB; give a smaller file")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):  # the latter for characters beyond ASCII
        raise UserError(f"{what}: not base64; encode the bytes of the file") from None


def needed_bytes(value: object, what: str) -> bytes:
    """As `file_bytes`, where there must be a file.

    Raises:
        UserError: if there is none, or it is not base64.
    """
    found = file_bytes(value, what)
    if found is None:
        raise UserError(f"{what}: is missing; give the bytes of a file in base64")
    return found


def wav_text(wave: Tensor | None, rate: int) -> str:
    """Sound ``[samples]`` in [-1, 1] as base64 of a WAV file of 16 bits; empty for None."""
    if wave is None:
        return ""
    file = io.BytesIO()
    soundfile.write(file, wave.numpy(), rate, "PCM_16", format="WAV")
    return base64.b64encode(file.getvalue()).decode()
