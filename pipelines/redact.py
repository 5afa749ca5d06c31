"""Texts that programs wrote, without the secrets in them, before they are kept where others look.

A stage, git, dvc or a server's client may say what it likes, and its lines go into logs, databases, pages. Masked are
users and passwords in addresses, signatures and tokens in their queries, credentials in HTTP headers, and the values of
variables of the environment whose names tell of secrets. What is no secret by its form or its name is not known as one.
"""

import os
import re
from collections.abc import Mapping

from pipelines.addresses import without_userinfo

MASK = "***"
WORDS = "key|secret|token|password|passwd|auth|credential|signature"
NAMED = re.compile(rf"(?i){WORDS}")
SHORTEST = 8  # characters of a variable's value; shorter ones are words of every text
# Amazon, Google and Azure sign addresses so; others give tokens and keys.
QUERY = re.compile(rf"(?i)([?&;][\w.-]*(?:{WORDS}|sig)=)[^&;\s\"'<>#]+")
HEADER = re.compile(r"(?i)(\b(?:basic|bearer)\s+)[\w.~+/-]{8,}=*")
# Values under such names that are no secrets: a path (SSH_AUTH_SOCK), an address, a word (KEYBOARD=qwertzuiop).
COMMON = re.compile(r"/.*|[a-z]+://[^@]*|[A-Za-z]{,15}", re.DOTALL)


def secret_values(env: Mapping[str, str]) -> list[str]:
    """Values of variables that are named like secrets, the longest first: one may be a part of another."""
    found = {v for k, v in env.items() if len(v) >= SHORTEST and NAMED.search(k) and not COMMON.fullmatch(v)}
    return sorted(found, key=len, reverse=True)


def redacted(text: str) -> str:
    """A text with its secrets masked; line ends and all else stay."""
    for value in secret_values(os.environ):
        text = text.replace(value, MASK)
    return HEADER.sub(rf"\1{MASK}", QUERY.sub(rf"\1{MASK}", without_userinfo(text)))
