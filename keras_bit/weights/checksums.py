"""Checksums that servers declare of their files."""

import base64
import contextlib
import hashlib

DIGITS = {"md5": 32, "crc32c": 8}


def declared(headers):
    """Returns a dict from `"md5"` and `"crc32c"` to hexadecimal digits, of those that are stated.

    Args:
        headers: Of an HTTP response; `x-goog-hash` and `Content-MD5` count.
    """
    stated = [f"md5={headers['Content-MD5']}"] if "Content-MD5" in headers else []
    stated += ",".join(headers.get_all("x-goog-hash", [])).split(",")
    found = {}
    for name, _, encoded in (item.strip().partition("=") for item in stated):
        with contextlib.suppress(ValueError):
            digits = base64.b64decode(encoded, validate=True).hex()
            if len(digits) == DIGITS.get(name):
                found[name] = digits
    return found


def md5():
    """Returns a new MD5, with `update` and `hexdigest`."""
    return hashlib.md5(usedforsecurity=False)


def crc32c():
    """Returns a new CRC-32C, with `update` and `hexdigest`."""
    import google_crc32c

    return _Crc32c(google_crc32c.Checksum())


class _Crc32c:
    def __init__(self, checksum):
        self.update = checksum.update
        self.hexdigest = lambda: checksum.digest().hex()
