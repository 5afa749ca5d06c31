"""What a reader of pictures gives, whatever the layout that it reads."""

from collections.abc import Callable
from dataclasses import dataclass, field

MOST_BYTES = 500_000_000  # of a picture's file
MOST_LISTED = 2_000_000_000  # bytes of a file that lists pictures: it is held in memory
LONGEST_LINE = 1_000_000
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")


@dataclass
class Entry:
    """A picture that is listed.

    Attributes:
        item: what messages call it.
        file: its name.
        read: gives its bytes; raises ValueError with the reason if it cannot.
        name: of the one thing that it shows, or None.
        captions: what is said of it.
    """

    item: str
    file: str
    read: Callable[[], bytes]
    name: str | None = None
    captions: list[str] = field(default_factory=list)
