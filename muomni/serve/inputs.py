"""Pictures and recordings of requests: from text and bytes to what the model reads, within limits.

Everything here takes long and runs in the threads of `muomni.serve.workers`.
"""

import base64
import binascii
import io
import warnings

import soundfile
from PIL import Image

from muomni.errors import UserError
from muomni.media import load_image
from muomni.serve.errors import ApiError, invalid
from muomni.serve.settings import Limits
from muomni.sound import Samples, decode_audio, load_audio
from muomni.untrusted import IMAGE_FORMATS

MOST_RATE = 192_000  # Hz of a recording; a higher one would only fill the memory
UNTOLD = 2**40  # samples that libsndfile tells of a FLAC that was made as a stream, whose header has no length


def over_limit(message: str, param: str | None) -> ApiError:
    """The error of something that is over a limit of the server."""
    return invalid(message, param, "limit_exceeded")


def from_base64(text: str, param: str) -> bytes:
    """The bytes of a file in base64; raises `ApiError` if it is none."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # the latter for characters beyond ASCII
        raise invalid(f"{param}: not base64; encode the bytes of the file", param) from None
    if not data:
        raise invalid(f"{param}: is empty; give the bytes of a file", param)
    return data


def from_data_address(url: str, param: str) -> bytes:
    """The bytes in ``data:image/...;base64,...``; raises `ApiError` if the address has another form."""
    head, comma, rest = url.partition(",")
    kind, *more = head[len("data:") :].lower().split(";")
    if not comma or not more or more[-1].strip() != "base64":
        raise invalid(f"{param}: give the picture as data:image/png;base64,...", param)
    if kind and not kind.startswith(("image/", "application/octet-stream")):
        raise invalid(f"{param}: {kind[:40]!r} is no picture; give data:image/png;base64,...", param)
    return from_base64(rest, param)


def picture(data: bytes, limits: Limits, param: str) -> Image.Image:
    """A picture in RGB, upright.

    Raises:
        ApiError: if it is too large, or none that can be read.
    """
    if len(data) > limits.picture:
        raise over_limit(f"{param}: has {len(data):,} bytes, at most {limits.picture:,} (--picture-bytes)", param)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS).size
        count = width * height
    except Image.DecompressionBombError:
        count = limits.pixels + 1
    except Exception:  # no picture; `load_image` says so
        count = 0
    if count > limits.pixels:
        raise over_limit(f"{param}: has more than {limits.pixels:,} pixels (--pixels); make it smaller", param)
    try:
        return load_image(data)
    except UserError as error:
        raise invalid(f"{param}: {error}", param, "invalid_image") from None


def recording(data: bytes, limits: Limits, param: str, rate: int) -> Samples:
    """A recording as float32 ``[samples]`` at a rate, Hz.

    Raises:
        ApiError: if it is too long, or none that can be read.
    """
    try:
        known = soundfile.info(io.BytesIO(data))
    except Exception:  # a container, or none; `load_audio` says so
        known = None
    if known is not None and known.samplerate > MOST_RATE:
        raise over_limit(f"{param}: has {known.samplerate:,} Hz, at most {MOST_RATE:,} are read", param)
    told = known is not None and known.frames < UNTOLD
    check_seconds(known.frames / known.samplerate if told else 0.0, limits, param)
    try:
        samples = load_audio(data, rate) if told or known is None else decode_audio(data, param, rate, needed=True)
    except UserError as error:
        raise invalid(f"{param}: {error}", param, "invalid_audio") from None
    assert samples is not None
    check_seconds(len(samples) / rate, limits, param)
    return samples


def check_seconds(seconds: float, limits: Limits, param: str) -> None:
    """Raise `ApiError` if sound is too long."""
    if seconds > limits.seconds:
        raise over_limit(f"{param}: {seconds:.0f} s of sound, at most {limits.seconds:g} (--sound-seconds)", param)
