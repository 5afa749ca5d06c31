"""Writing safetensors, with the errors of the operating system as what they are."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from muomni.data.files import naming


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors, which must not share memory, into a safetensors file, as readable to others as any new file.

    Raises:
        OSError: for example if the disk is full; safetensors itself has an exception of its own for that.
    """
    with naming(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
        mode = os.stat(path).st_mode
        try:
            save_file(dict(tensors), path, None if metadata is None else dict(metadata))
        except SafetensorError as error:
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            number = int(code[1])
            raise OSError(number, os.strerror(number)) from None
        os.chmod(path, mode)  # safetensors leaves it to its owner alone
