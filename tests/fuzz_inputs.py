"""Inputs for fuzzing: how good ones are spoiled, and odd ones that were thought out."""

import gzip
import io
import json
import lzma
import random
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml
from PIL import Image
from test_media import bomb, movie_bytes, png_bytes, sine, wav_bytes

ROOT = Path(__file__).resolve().parents[1]
INTERESTING = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
TOKENS = (b"<|image|>", b"<|audio|>", b"<|end|>", b"../", b"/etc/passwd", b"\x00", b"NaN", b"1e999", b"-1", b"{", b"[[",
          b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbc\x9c", b"%s", b"\r\n", b"null", b"true", b'"', b"9" * 40)  # fmt: skip

OPTIONS = (b"", b"--", b"-", b"--text", b"--image", b"--audio-out", b"--params", b"--seed", b"--count",
           b"--help", b"--stream", b"--sentences", b"--json", b"--data", b"--checkpoint", b".", b"/", b"\xff",
           b"a" * 300, b"9" * 400, b"nan", b"-0", b"1e-320", b"0x10", b"models:/x@y", b"\xc2\x9b31m")  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes: flips, numbers at the limits, cuts, doublings, words that mean something somewhere."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(8)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1 and out:
            out[at % len(out)] = rng.randrange(256)
        elif kind == 2:
            number = rng.choice(INTERESTING)
            code = rng.choice(("<I", ">I"))
            out[at : at + 4] = struct.pack(code, number)
        elif kind == 3:
            out[at : at + 2] = struct.pack(rng.choice(("<H", ">H")), rng.choice(INTERESTING) & 0xFFFF)
        elif kind == 4:
            del out[at : at + rng.choice((1, 4, 64, len(out)))]
        elif kind == 5:
            out[at:at] = out[at : at + rng.choice((1, 8, 512))] * rng.choice((1, 2, 50))
        elif kind == 6:
            out[at:at] = rng.choice(TOKENS)
        else:
            out[at : at + 8] = rng.randbytes(8)
    return bytes(out[:3_000_000])


def mutate_value(value: Any, rng: random.Random) -> Any:
    """A JSON value with one of its parts replaced, removed, doubled or nested."""
    odd: list[Any] = [None, True, -1, 0, 1e308, 10**30, float("nan"), "", "a" * 5000, [], {}, [[]], "\ud800", "../x",
                      "<|audio|>", -0.5, "1", {"type": "text"}, [None] * 50, "\x00"]  # fmt: skip
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        changed = dict(value)
        kind = rng.random()
        if kind < 0.1:
            del changed[key]
        elif kind < 0.2:
            changed[rng.choice(("new", "", key + "x", "__class__"))] = rng.choice(odd)
        else:
            changed[key] = mutate_value(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.15:
            return value[:at] + value[at + 1 :]
        if kind < 0.3:
            return value[:at] + value[at : at + 1] * rng.choice((2, 40)) + value[at:]
        return [*value[:at], mutate_value(value[at], rng), *value[at + 1 :]]
    return rng.choice(odd)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change a JSON document by its structure, or now and then by its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 5))):
        value = mutate_value(value, rng)
    return json.dumps(value).encode()


def mutate_words(data: bytes, rng: random.Random) -> bytes:
    """Change a command's words: one goes, comes twice, becomes another, or is spoiled."""
    words = data.split(b"\0")
    at, kind = rng.randrange(len(words)), rng.randrange(4)
    if kind == 0:
        del words[at]
    elif kind == 1:
        words.insert(at, rng.choice(words))
    elif kind == 2:
        words[at] = rng.choice((*OPTIONS, *TOKENS)).replace(b"\0", b"")
    else:
        words[at] = mutate_bytes(words[at], rng).replace(b"\0", b"")
    return b"\0".join(words)


def mutate_lines(data: bytes, rng: random.Random) -> bytes:
    """Change one line of a file of JSON lines."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = mutate_json(lines[at], rng)
    return b"\n".join(lines)


def mutate_yaml(data: bytes, rng: random.Random) -> bytes:
    """Change a YAML document by its structure, or now and then by its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    try:
        changed = mutate_value(yaml.safe_load(data), rng)
        return yaml.safe_dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass")
    except Exception:  # whatever PyYAML raises over what is no YAML: a tag that does not fit is an AttributeError
        return mutate_bytes(data, rng)


# What was thought out


def png(width: int, height: int, data: bytes, kind: int = 2, more: bytes = b"") -> bytes:
    """A PNG with a header of our own."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def turned() -> bytes:
    """A picture on its side, with a pixel of another shape, of 40,000,000 pixels."""
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (8000, 5000)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def text_bomb() -> bytes:
    """A PNG whose compressed comment is 200 MB long."""
    body = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    comment = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return png(8, 8, zlib.compress(bytes(8 * 25)), more=comment)


def ico(inner: bytes) -> bytes:
    """An icon that holds a PNG and says that it is small."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def pictures() -> list[bytes]:
    """Good pictures of every format, and bombs."""
    good = [png_bytes(form=form) for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO")]
    good += [png_bytes(mode=mode) for mode in ("RGBA", "LA", "P", "1")]
    rows = zlib.compress(bytes(49_000_000), 9)
    return good + [
        bomb(),
        text_bomb(),
        png(100_000, 1, zlib.compress(bytes(300_001))),
        png(1, 100_000, zlib.compress(bytes(400_000))),
        png(100_000, 400, rows, kind=0),
        png(7000, 7000, zlib.compress(bytes(7000 * 7001), 9), kind=0),
        png(0, 0, zlib.compress(b"")),
        png(7000, 7000, zlib.compress(bytes(7000 * 28001), 1), kind=6),
        png_bytes(form="EPS"),
        png_bytes(form="PDF"),
        turned(),
        ico(bomb()),
        ico(png(7000, 7000, zlib.compress(bytes(7000 * 7001), 9), kind=0)),
        b"P6 100000 100000 255\n" + bytes(1000),
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(40),
    ]


def wav(rate: int, channels: int, bits: int, data: bytes, code: int = 1, declared: int | None = None) -> bytes:
    """A WAV with a header of our own."""
    align = max(1, channels * bits // 8) & 0xFFFF
    fmt = struct.pack("<HHIIHH", code, channels, rate, (rate * align) & 0xFFFFFFFF, align, bits)
    size = len(data) if declared is None else declared
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def recordings() -> list[bytes]:
    """Good recordings of several formats, and odd ones."""
    good = [wav_bytes(sine(0.2)), wav_bytes(sine(0.2), form="FLAC"), wav_bytes(sine(0.2), form="OGG")]
    good += [wav_bytes(sine(0.2), form="MP3"), movie_bytes(0.5, pictures=False), wav_bytes(sine(0.1), subtype="DOUBLE")]
    odd = [wav(rate, 1, 16, bytes(64)) for rate in (0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1)]
    odd += [wav(16000, channels, 16, bytes(4080)) for channels in (0, 2, 255, 65535)]
    odd += [wav(16000, 1, 16, bytes(10), declared=2**31 - 2), wav(8000, 1, 8, bytes(8000 * 601))]
    odd += [wav(16000, 1, 32, struct.pack("<4f", 1, float("nan"), float("inf"), 1e38), code=3)]
    odd += [wav(192_000, 1, 8, bytes(192_000 * 300)), wav(48_000, 255, 8, bytes(48_000 * 255 * 8))]
    odd += [wav_bytes(np.zeros(16000 * 590, np.int16), form="FLAC"), wav_bytes(np.zeros((4000, 8), np.int16))]
    odd += [aac(16000, "mono"), aac(16000, "mono") + aac(44100, "stereo"), aac(16000, "mono") + aac(16000, "stereo")]
    return good + odd


def aac(rate: int, layout: str) -> bytes:
    """A moment of silence in AAC, whose files can be joined by writing one after the other."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="adts") as out:
        stream = out.add_stream("aac", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.zeros((len(stream.layout.channels), 4096), np.float32), "fltp", layout)
        frame.rate = rate
        out.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()


def film(width: int, height: int, frames: int, rate: int, form: str = "mp4", codec: str = "mpeg4") -> bytes:
    """A film without sound and without anything to see."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame(width, height, "yuv420p")
        for number in range(frames):
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def videos() -> list[bytes]:
    """Films of several forms, some that are too large or too many."""
    good = [movie_bytes(1), movie_bytes(1, sound=False), movie_bytes(1, form="avi"), movie_bytes(1, form="matroska")]
    good += [movie_bytes(1, form="mpegts"), film(64, 48, 8, 2, "webm", "libvpx")]
    small, large = film(64, 48, 3, 1, "mpegts"), film(4096, 4080, 3, 1, "mpegts")
    return good + [small + large, large, film(16, 16, 5000, 1000), film(5000, 5000, 2, 1)]


def tars() -> list[bytes]:
    """Good shards, and tars with everything that a tar may hold."""

    def tar(*members: tuple[str, bytes, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as out:
            for name, kind, content in members:
                info = tarfile.TarInfo(name)
                info.type = kind
                info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
                info.size = len(content) if kind == tarfile.REGTYPE else 0
                out.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    array = io.BytesIO()
    np.save(array, np.arange(12, dtype=np.float32).reshape(3, 4))
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    lie = array.getvalue().replace(b"(3, 4)", b"(300000, 400000)")
    file = tarfile.REGTYPE
    good = tar(("a.json", file, b'{"a": 1}'), ("a.npy", file, array.getvalue()), ("b.json", file, b'{"a": 2}'))
    huge = bytearray(good)
    huge[124:136] = b"77777777777\0"  # eight gigabytes
    huge[148:156] = b"%06o\0 " % (sum(huge[:148]) + 256 + sum(huge[156:512]))
    return [
        good,
        bytes(huge),
        tar(("a.json", file, b'{"a": 1}'), form=tarfile.PAX_FORMAT),
        tar(("../../evil.json", file, b"{}"), ("/etc/evil.json", file, b"{}")),
        tar(("a.json", tarfile.SYMTYPE, b""), ("b.json", tarfile.LNKTYPE, b""), ("c.json", tarfile.CHRTYPE, b"")),
        tar(("a.json", tarfile.FIFOTYPE, b""), ("a", tarfile.DIRTYPE, b"")),
        tar(("a.npy", file, pickled.getvalue())),
        tar(("a.npy", file, lie)),
        tar(("a.json", file, b"[" * 100_000)),
        tar(("a.json", file, b'{"a": NaN}'), ("a.json", file, b"{}")),
        tar((f"{'x' * 300}.json", file, b"{}")),
        tar(("noextension", file, b"x"), ("__key__.json", file, b"{}"), ("a.__key__", file, b"x")),
        gzip.compress(tar(("a.png", file, bytes(100_000_000))), 1),
        lzma.compress(good),
        holed(1_000_000_000),
        b"",
        bytes(10240),
    ]


def holed(size: int) -> bytes:
    """A tar of one file of a gigabyte that is nothing but a hole."""
    member = tarfile.TarInfo("a.png")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    for at, number in ((386, size), (398, 0), (483, size)):
        header[at : at + 12] = b"%011o\0" % number
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(10240 - 512)


def yamls() -> list[bytes]:
    """A good file of parameters, and what YAML allows."""
    good = (ROOT / "profiles" / "smoke.yaml").read_bytes()
    laughs = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
    )
    return [
        good,
        laughs,
        good + b"seed: 1\n",
        b"thinker: !!python/object/apply:os.system ['true']\n",
        good.replace(b"d_model: 32", b"d_model: 1000000000", 1),
        good.replace(b"lr: 0.004", b"lr: .nan"),
        good.replace(b"steps: 30", b"steps: 3.5"),
        good.replace(b"seed: 0", b"seed: " + b"9" * 5000),
        good.replace(b"seed: 0", b"seed: 0x" + b"f" * 6000),
        b"{" * 2000,
        b"- " * 5000,
        b"? " * 3000,
        b"\xff\xfe",
        b"",
        b"a: *b",
        b"<<: [1]",
        b"2001-99-99: 1\nseed: 2001-99-99",
        b"seed: !!timestamp 2001-99-99",
        b"seed: !!binary ====",
    ]


CONVERSATION: list[Any] = [
    {"role": "user", "content": [{"type": "image", "member": "0.png"}, {"type": "audio", "member": "0.flac"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A <|end|> dog."}]},
]
MESSAGES: list[Any] = [
    {"role": "user", "content": [{"type": "image", "image": "x"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": "A dog."},
    {"role": "user", "content": [{"type": "video", "frames": ["a", "b"]}, {"type": "audio", "member": "0"}]},
]


def deep_json() -> bytes:
    """JSON of more levels than Python's reader takes."""
    return b"[" * 100_000


def long_number() -> bytes:
    """JSON of a number of more digits than Python turns into one."""
    return b"9" * 5000
