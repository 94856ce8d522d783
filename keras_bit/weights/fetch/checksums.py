"""Checksums that servers declare of their files."""

import base64
import contextlib
import hashlib
from email.message import Message
from typing import Any

DIGITS = {"md5": 32, "crc32c": 8}


def declared(headers: Message) -> dict[str, str]:
    """Returns hexadecimal digits by `"md5"` and `"crc32c"`, of those that a response states."""
    stated = [f"md5={headers.get('Content-MD5', '')}", *headers.get_all("x-goog-hash", [])]
    found = {}
    for name, _, encoded in (item.strip().partition("=") for item in ",".join(stated).split(",")):
        with contextlib.suppress(ValueError):
            digits = base64.b64decode(encoded, validate=True).hex()
            if len(digits) == DIGITS.get(name):
                found[name] = digits
    return found


def md5() -> Any:
    """Returns a new MD5, with `update` and `digest`."""
    return hashlib.md5(usedforsecurity=False)


def crc32c() -> Any:
    """Returns a new CRC-32C, with `update` and `digest`."""
    import google_crc32c

    return google_crc32c.Checksum()
