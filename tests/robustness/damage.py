"""Damage to the content of files: what disks, networks and people do, and what attackers would."""

import io
import re
import zipfile

# Where parts of the formats begin: zip, npy, PNG, JPEG, RIFF, GIF, HDF5, JSON.
_BORDERS = re.compile(
    rb"PK\x01\x02|PK\x03\x04|PK\x05\x06|\x93NUMPY|IHDR|IDAT|IEND|\xff[\xc0-\xfe]|RIFF|VP8|\x21\xf9"
    rb"|TREE|HEAP|SNOD|GCOL|[{}\[\],:]"
)
INSIDE = "in the member "
FOREIGN = {
    "nothing": b"",
    "one byte": b"\x00",
    "zeros": bytes(512),
    "a web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    "text": b"hello\n",
    "bytes that are no text": b"\xff\xfe{",
    "a zip of nothing": b"PK\x05\x06" + bytes(18),
    "a bare npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
    "the start of HDF5": b"\x89HDF\r\n\x1a\n" + bytes(8),
    "the start of gzip": b"\x1f\x8b\x08\x00",
    "the start of a pickle": b"\x80\x04\x95",
    "a png": b"\x89PNG\r\n\x1a\n",
}


def damaged(content, rng, count):
    """Yields `count` pairs of what was done and the damaged content.

    At most half of them are other files, cuts at borders and copies; the rest is random. Members
    of a zip are damaged too and stored with the right checksum.
    """
    fixed = list(FOREIGN.items())
    fixed += [(f"cut at {end}", content[:end]) for end in _borders(content)]
    fixed += [("cut at the last byte", content[:-1]), ("doubled", content * 2)]
    fixed += [("a byte more", content + b"\x00"), ("without its first byte", content[1:])]
    chosen = rng.permutation(len(fixed))[: (count + 1) // 2]
    for index in sorted(chosen):
        yield fixed[index]
    members = _members(content)
    for number in range(count - len(chosen)):
        if members and number % 2:
            name = list(members)[rng.integers(len(members))]
            what, part = _random(members[name], rng)
            yield f"{INSIDE}{name}: {what}", zipped({**members, name: part})
        else:
            yield _random(content, rng)


def zipped(members, **options):
    """The content of a zip file with these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _borders(content):
    found = [match.start() for match in _BORDERS.finditer(content)]
    step = max(1, len(found) // 64)
    return sorted({4, 8, 16, len(content) // 2, *found[::step]} - {0})


def _members(content):
    if not content.startswith(b"PK"):
        return {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _random(content, rng):
    """One kind of damage at a random place; half of the places are near a border."""
    bytes_ = bytearray(content)
    borders = _borders(content)
    near = int(rng.choice(borders)) + int(rng.integers(0, 24))
    place = near if rng.random() < 0.5 and near < len(content) else int(rng.integers(len(content)))
    kind = ["cut", "flips", "bit", "zeros", "huge", "removed", "inserted", "swapped"]
    kind = kind[rng.integers(len(kind))]
    length = int(rng.integers(1, 1 + min(64, len(content))))
    if kind == "cut":
        del bytes_[place:]
    elif kind == "flips":
        for _ in range(length):
            bytes_[rng.integers(len(content))] = rng.integers(256)
    elif kind == "bit":
        bytes_[place] ^= 1 << int(rng.integers(8))
    elif kind == "zeros":
        bytes_[place : place + length] = bytes(len(bytes_[place : place + length]))
    elif kind == "huge":
        width = int(rng.choice([2, 4, 8]))
        bytes_[place : place + width] = (b"\xff" * (width - 1) + b"\x7f")[: len(content) - place]
    elif kind == "removed":
        del bytes_[place : place + length]
    elif kind == "inserted":
        bytes_[place:place] = bytes(rng.integers(0, 256, length, "uint8"))
    else:
        half = len(content) // 2
        bytes_ = bytes_[half:] + bytes_[:half]
    return f"{kind} at {place}, {length}", bytes(bytes_)
