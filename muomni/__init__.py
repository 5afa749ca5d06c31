"""muOmni: a tiny omni model that reads, looks, listens, writes and speaks, trained from scratch."""

import os

__version__ = "0.1.0"

# Read when torch is loaded, so set before. A thread that waits for another spins by default, and on a CPU that has
# something else to do as well the two then keep each other waiting: a training step took more than twice as
# long beside one busy process. On a quiet machine waiting without spinning costs up to a third (docs/log.md).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# oneDNN multiplies bfloat16 on CPUs that are fast in it. It makes code for every new shape, and it and PyTorch keep the
# last 1,024 each: gigabytes after an hour of stage E, whose batches differ in length. So many cost no time
# (docs/log.md).
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
