"""PyTorch where no folder for temporary files can be written to."""

import os
import tempfile
from pathlib import Path


def allow_no_tmp() -> None:
    """Let PyTorch be used without such a folder; call it before PyTorch is.

    It looks for one only to name the cache of a compiler that computing on a CPU does not need, and fails if there is
    none. The name must be of a folder that is there, or PyTorch would make it.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", Path.cwd().anchor)
