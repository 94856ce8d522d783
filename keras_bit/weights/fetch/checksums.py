"""Checksums that servers declare of their files."""

import base64
import contextlib
import hashlib
import re
from email.message import Message
from typing import Any

DIGITS = {"md5": 32, "crc32c": 8, "sha256": 64}


def declared(headers: Message) -> dict[str, str]:
    """Returns hexadecimal digits by the names in `DIGITS`, of those that a response states.

    Hugging Face states the SHA-256 of large files as `X-Linked-ETag`.
    """
    stated = [f"md5={headers.get('Content-MD5', '')}", *headers.get_all("x-goog-hash", [])]
    found = {}
    for name, _, encoded in (item.strip().partition("=") for item in ",".join(stated).split(",")):
        with contextlib.suppress(ValueError):
            digits = base64.b64decode(encoded, validate=True).hex()
            if len(digits) == DIGITS.get(name):
                found[name] = digits
    if linked := re.fullmatch('"?([0-9a-f]{64})"?', headers.get("X-Linked-ETag", "")):
        found["sha256"] = linked[1]
    return found


def md5() -> Any:
    """Returns a new MD5, with `update` and `digest`."""
    return hashlib.md5(usedforsecurity=False)


def sha256() -> Any:
    """Returns a new SHA-256, with `update` and `digest`."""
    return hashlib.sha256()


def crc32c() -> Any:
    """Returns a new CRC-32C, with `update` and `digest`."""
    import google_crc32c

    return google_crc32c.Checksum()
