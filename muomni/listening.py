"""By which names a server can be called, and whether others than this machine reach it.

A name that its owner points at 127.0.0.1 makes any page in a browser look like ours (DNS rebinding). So a server
answers to names that it knows only, and to no other page's requests.
"""

import ipaddress
import socket
from collections.abc import Collection, Sequence
from contextlib import suppress

import psutil

LOCAL = ("localhost", "127.0.0.1", "[::1]")
EVERYWHERE = ("", "0.0.0.0", "::")  # nosec B104: compared, not bound


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there; for names other than localhost nobody knows."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def in_address(host: str) -> str:
    """A host as addresses have it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def host_of(netloc: str) -> str:
    """The host of ``host:port``; IPv6 keeps its brackets."""
    return (netloc.partition("]")[0] + "]" if netloc.startswith("[") else netloc.partition(":")[0]).lower()


def own_names(host: str, public: Sequence[str] = ()) -> list[str]:
    """The names and numbers by which a server that listens at a host can be called, as addresses have them.

    Args:
        host: where it listens.
        public: further names that lead to it, such as a reverse proxy's.
    """
    found = [*LOCAL, in_address(host), *public]
    if host in EVERYWHERE:
        cards = [address.address for card in psutil.net_if_addrs().values() for address in card]
        found += [socket.gethostname(), socket.getfqdn()]
        for text in cards:
            with suppress(ValueError):  # a card has an address of its own, too
                found.append(in_address(str(ipaddress.ip_address(text.partition("%")[0]))))
    return list(dict.fromkeys(name.lower() for name in found if name not in EVERYWHERE))


def foreign(host: str, origin: str | None, names: Collection[str], public: Collection[str] = ()) -> str | None:
    """Why a request may not come in by its headers ``Host`` and ``Origin``; None if it may.

    Args:
        host: ``name:port`` as the request has it.
        origin: of the page that sends it, ``scheme://name:port``; None if no page does.
        names: by which the server may be called, without ports: a tunnel has a port of its own.
        public: names whose pages are ours though requests come under another name, from a reverse proxy.
    """
    if host_of(host) not in names:
        return f"{host_of(host)[:80]!r} is no name of this server"
    if origin is not None:
        sender = origin.partition("://")[2].lower()
        if sender != host.lower() and host_of(sender) not in public:
            return f"a page of {origin[:80]!r} may ask nothing here"
    return None
