"""What a server allows: limits of every input, who may ask, how it stops. Nothing here needs the group ``serve``."""

from collections.abc import Collection
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Bounds of one request; what is over one is refused with an error that names it.

    Attributes:
        body: bytes of a request.
        upload_s: seconds in which a request's body must have come.
        request_s: seconds in which an answer must be complete, waiting included.
        messages: of a conversation.
        characters: of all text of a conversation, or of what is to be said.
        pictures, recordings: of a conversation.
        picture: bytes of a picture's file.
        pixels: of a picture.
        seconds: of all recordings of a request together.
        choices: ``n``.
        remote_s: seconds in which a picture from elsewhere must have come.
        redirects: that are followed on the way to it.
    """

    body: int = 32_000_000
    upload_s: float = 60.0
    request_s: float = 300.0
    messages: int = 64
    characters: int = 20_000
    pictures: int = 16
    recordings: int = 16
    picture: int = 16_000_000
    pixels: int = 25_000_000
    seconds: float = 120.0
    choices: int = 8
    remote_s: float = 10.0
    redirects: int = 3


@dataclass(frozen=True)
class Settings:
    """How a server is to be.

    Attributes:
        limits: of one request.
        names: by which it may be called, see `muomni.listening.own_names`.
        public: those of them whose pages are ours under another name.
        key: what clients show as ``Authorization: Bearer``; None: nothing.
        allow_remote: whether pictures may be fetched from ``http(s)`` addresses.
        grace: seconds that a stop waits for what was begun.
        workers: threads that decode and encode pictures and sound.
    """

    limits: Limits = field(default_factory=Limits)
    names: Collection[str] = ("localhost", "127.0.0.1", "[::1]")
    public: Collection[str] = ()
    key: str | None = field(default=None, repr=False)
    allow_remote: bool = False
    grace: float = 30.0
    workers: int = 2
