"""The bytes of a shard: how a sample becomes members of a tar, and how they are read again.

A sample is a key and its members: ``<key>.json``, ``<key>.npy``, ``<key>.png``, ``<key>.0.flac`` ... What
follows the key's dot is the member's name in the sample's dict. Values are decoded here, by that name:
``json`` to a dict, ``npy`` to an array without pickle, anything else stays bytes.
"""

import io
import json
import math
import re
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np

INDEX = "index.json"
SPLITS = ("train", "valid", "test")
# A dot would end the key for every reader of WebDataset, a leading underscore could be its metadata.
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
MEMBER = re.compile(KEY.pattern + r"(\.[A-Za-z0-9_-]+)+")


def encode_member(name: str, value: Any) -> bytes:
    """Bytes of one member: sorted JSON for ``*json``, ``numpy.save`` for ``*npy``, else as given.

    Raises:
        TypeError: if it is none of these.
    """
    kind = name.rpartition(".")[2]
    if kind == "json":
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(value), allow_pickle=False)
        return buffer.getvalue()
    if not isinstance(value, bytes):
        raise TypeError(f"member {name}: expected bytes, got {type(value).__name__}")
    return value


def decode_member(name: str, data: bytes) -> Any:
    """The inverse of `encode_member`. Raises ValueError on damaged data; never unpickles."""
    kind = name.rpartition(".")[2]
    if kind == "json":
        try:
            return json.loads(data)
        except RecursionError:
            raise ValueError(f"{name}: more levels of JSON than can be read") from None
    if kind == "npy":
        return decode_array(name, data)
    return data


def decode_array(name: str, data: bytes) -> np.ndarray[Any, Any]:
    """An array as `numpy.save` writes it; its size is compared with the header's before memory is taken for it.

    Raises:
        ValueError: if it is damaged, or its values are Python's objects.
    """
    file = io.BytesIO(data)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # a header is a Python literal, and what is no such thing raises many kinds
        raise ValueError(f"{name}: no array ({error})") from None
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{name}: not the array that its header tells of")
    return np.load(io.BytesIO(data), allow_pickle=False)


def encode_sample(key: str, members: Mapping[str, Any]) -> bytes:
    """One sample as blocks of a tar, which stand for themselves: samples one after the other are a tar's content.

    Args:
        key: letters, digits, ``_`` and ``-``.
        members: for example ``{"json": {...}, "0.png": b"..."}``.

    Raises:
        ValueError: for a malformed key, or a sample without members.
    """
    if not KEY.fullmatch(key) or not members:
        raise ValueError(f"bad key, or no members: {key!r}")
    blocks = []
    for name, value in sorted(members.items()):
        data = encode_member(name, value)
        info = tarfile.TarInfo(f"{key}.{name}")  # mtime, uid and gid are 0, mode 0644
        info.size = len(data)
        blocks += [info.tobuf(tarfile.USTAR_FORMAT), data, b"\0" * (-len(data) % tarfile.BLOCKSIZE)]
    return b"".join(blocks)


def end_of_tar(size: int) -> bytes:
    """What follows `size` bytes of samples at a tar's end: two empty blocks, filled up to a whole record."""
    return b"\0" * (2 * tarfile.BLOCKSIZE + -(size + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE)
