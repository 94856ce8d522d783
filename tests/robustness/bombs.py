"""Small files that claim to be huge: headers without the content that they declare."""

import io
import json
import struct
import zipfile
import zlib

import h5py
import numpy as np

from tests.image_files import png_chunk
from tests.robustness.damage import zipped
from tests.weight_files import ROOT

TERA = 10**12


def npy_bombs():
    shapes = {"10^12 elements": (TERA,), "2^63": (2**63,), "many axes": (10**6,) * 8}
    for what, shape in {**shapes, "negative": (-1, 4), "overflow": (2**32, 2**32)}.items():
        yield what, _npy(shape)
    for kind in ("|O", "<U1000000000", "V8", "<f4, (10,)f4"):
        yield f"of type {kind}", _npy((3,), kind)
    yield "a header of 4 GB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{" + bytes(64)
    yield "a nested header", b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000


def npz_bombs():
    for what, content in npy_bombs():
        yield what, zipped({f"resnet/{ROOT}.npy": content})
    yield "zeros", zipped({f"resnet/{ROOT}.npy": bytes(10**7)}, compression=zipfile.ZIP_DEFLATED)
    yield from zip_bombs(f"resnet/{ROOT}.npy")


def zip_bombs(name):
    """Of a member whose size in the directory is a lie, and of members in the same place."""
    content = bytearray(zipped({name: bytes(64)}))
    directory = content.rindex(b"PK\x01\x02")
    for what, offset, field in (
        ("declared size", 24, b"\xff\xff\xff\x7f"),
        ("stored size", 20, b"\xff\xff\xff\x7f"),
        ("both sizes", 20, b"\xff\xff\xff\x7f\xff\xff\xff\x7f"),
        ("place", 42, b"\xff\xff\xff\x7f"),
        ("method LZMA", 10, b"\x0e\x00"),
        ("method BZIP2", 10, b"\x0c\x00"),
        ("no method", 10, b"\x63\x00"),
        ("encrypted", 8, b"\x01\x00"),
    ):
        changed = content.copy()
        changed[directory + offset : directory + offset + len(field)] = field
        yield f"zip: {what}", bytes(changed)
    yield "many members", zipped({f"{name}{index}": b"" for index in range(2000)})


def safetensors_bombs():
    def file(header, length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + bytes(64)

    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    yield "a header of 2^60", file({"a": entry}, 2**60)
    yield "a header of 2^64", file({"a": entry}, 2**64 - 1)
    yield "overlapping", file({"a": entry, "b": {**entry, "data_offsets": [8, 24]}})
    for what, change in {
        "10^12 elements": {"shape": [TERA]},
        "an overflow": {"shape": [2**32, 2**32]},
        "far offsets": {"data_offsets": [0, 2**62]},
        "turned offsets": {"data_offsets": [16, 0]},
        "negative": {"shape": [-1]},
        "no type": {"dtype": "F31"},
        "no number": {"shape": ["4"]},
        "no shape": {"shape": None},
    }.items():
        yield what, file({"stem.conv.weight": {**entry, **change}})
    for what, content in json_bombs():
        yield what, file(content)


def json_bombs():
    yield "nested lists", b"[" * 100_000
    yield "nested lists that end", b"[" * 100_000 + b"]" * 100_000
    yield "nested dicts", b'{"config":' * 100_000
    yield "a million digits", b"1" * 10**6
    yield "a million digits in a list", b"[" + b"1" * 10**6 + b"]"
    for value in (b"NaN", b"Infinity", b"-Infinity", b"1e999999", b"1" * 400, b"null", b"-1"):
        yield value[:9].decode(), value
        yield f"dict of {value[:9].decode()}", b'{"config": {"learning_rate": %s}}' % value
        yield (
            f"sizes of {value[:9].decode()}",
            (
                b'{"config": {"image_size": [%s, 3], "dataset_size": %s, "batch_size": %s}}'
                % (value, value, value)
            ),
        )
        yield f"list of {value[:9].decode()}", b"[%s]" % value
        yield f"manifest of {value[:9].decode()}", b'{"format": %s, "files": %s}' % (value, value)


def hdf5_bombs():
    key = "layers/bi_t_backbone/root_block/conv/vars/0"

    def file(write):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            write(file)
        return buffer.getvalue()

    huge = (7, 7, 3, 10**10)
    chunks = (7, 7, 3, 1)
    options = {"dtype": "float32", "chunks": chunks}
    yield "chunked", file(lambda f: f.create_dataset(key, huge, **options))
    yield "compressed", file(lambda f: f.create_dataset(key, huge, compression="gzip", **options))
    yield "filled", file(lambda f: f.create_dataset(key, huge, fillvalue=1.0, **options))
    yield "in one piece", file(lambda f: f.create_dataset(key, huge, "float32"))
    yield "text", file(lambda f: f.create_dataset(key, data="text"))
    yield "references", file(lambda f: f.create_dataset(key, (7, 7, 3, 4), h5py.ref_dtype))
    yield "a loop", file(lambda f: f.create_group("layers").__setitem__("loop", f["/"]))
    yield "a link", file(lambda f: f.__setitem__(key, h5py.SoftLink("/nowhere")))
    yield "a link out", file(lambda f: f.__setitem__(key, h5py.ExternalLink("/etc/hosts", "/")))
    external = [("/etc/hosts", 0, 100)]
    yield (
        "storage elsewhere",
        file(lambda f: f.create_dataset(key, (5, 5), "uint8", external=external)),
    )
    deep = "/".join(["layers"] * 500)
    yield "deep", file(lambda f: f.create_group(deep))


def keras_bombs():
    for what, content in hdf5_bombs():
        yield what, zipped({"model.weights.h5": content})
    yield from zip_bombs("model.weights.h5")
    zeros = {"config.json": bytes(10**7), "model.weights.h5": bytes(10**7)}
    yield "zeros", zipped(zeros, compression=zipfile.ZIP_DEFLATED)


def model_bombs():
    """Of a `.keras` that is loaded as a model: also its configuration."""
    yield from keras_bombs()
    others = {"metadata.json": b"{}", "model.weights.h5": b""}
    for what, content in json_bombs():
        yield what, zipped({**others, "config.json": content})


def tar_bombs():
    import tarfile

    for size in (2**40, 2**62):
        info = tarfile.TarInfo("variables/variables.data-00000-of-00001")
        info.size = size
        yield f"{size} bytes", info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def image_bombs():
    """By format."""
    huge = {"100,000": 100_000, "2^31 - 1": 2**31 - 1, "none": 0}
    for what, edge in huge.items():
        header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
        data = png_chunk(b"IDAT", zlib.compress(bytes(4096)))
        png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + data + png_chunk(b"IEND", b"")
        yield "png", what, png
        short = min(edge, 65_535)
        frame = struct.pack(">BHHB", 8, short, short, 1) + b"\x01\x11\x00"
        start = b"\xff\xd8\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame
        scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(64) + b"\xff\xd9"
        yield "jpeg", what, start + scan
        screen = struct.pack("<HHBBB", short, short, 0x80, 0, 0) + bytes(6)
        image = b"," + struct.pack("<HHHHB", 0, 0, short, short, 0) + b"\x02\x02\x4c\x01\x00;"
        yield "gif", what, b"GIF89a" + screen + image
        info = struct.pack("<IiiHHIIiiII", 40, edge, edge, 1, 24, 0, 0, 0, 0, 0, 0)
        yield "bmp", what, b"BM" + struct.pack("<IHHI", 2**31, 0, 0, 54) + info + bytes(64)
        size24 = min(edge, 2**24) - 1 & 0xFFFFFF
        extent = size24.to_bytes(3, "little") * 2
        chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + extent
        yield "webp", what, b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk
        yield "tiff", what, _tiff(edge)
    yield "tiff", "a billion tags", b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(64)
    yield "tiff", "a loop of directories", b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00"
    text = zlib.compress(bytes(10**8), 9)
    bomb = png_chunk(b"zTXt", b"a\x00\x00" + text) + png_chunk(b"iCCP", b"a\x00\x00" + text)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(52))) + png_chunk(b"IEND", b"")
    yield "png", "text that swells", b"\x89PNG\r\n\x1a\n" + header + bomb + pixels


def _tiff(edge):
    tags = [(256, 4, edge), (257, 4, edge), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, edge), (279, 4, 2**32 - 1)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags)) + entries + bytes(68)


def _npy(shape, descr="<f4"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + np.zeros(16).tobytes()
