"""muOmni: a tiny omni model that reads, looks, listens, writes and speaks, trained from scratch."""

__version__ = "0.1.0"
