import email.message

import pytest

from keras_bit.weights.fetch import checksums


def crc32c_bit_by_bit(content):
    register = 0xFFFFFFFF
    for byte in content:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (register & 1) * 0x82F63B78
    return f"{register ^ 0xFFFFFFFF:08x}"


@pytest.mark.parametrize(
    "content, expected",
    [
        # RFC 3720, appendix B.4, whose bytes are in the order of transmission.
        (bytes(32), "8a9136aa"),
        (b"\xff" * 32, "62a8ab43"),
        (bytes(range(32)), "46dd794e"),
        (bytes(range(31, -1, -1)), "113fdb5c"),
        # The check value of the catalogs of CRCs.
        (b"123456789", "e3069283"),
        (b"", "00000000"),
    ],
)
def test_crc32c_of_known_strings(content, expected):
    checksum = checksums.crc32c()
    checksum.update(content)
    assert checksum.digest().hex() == expected == crc32c_bit_by_bit(content)


def test_crc32c_in_chunks(rng):
    content = rng.bytes(150_000)
    checksum = checksums.crc32c()
    start = 0
    while start < len(content):
        stop = start + int(rng.integers(0, 40_000))
        checksum.update(content[start:stop])
        start = stop
    assert checksum.digest().hex() == crc32c_bit_by_bit(content)


def test_declared_checksums():
    headers = email.message.Message()
    headers["x-goog-hash"] = "crc32c=4waSgw=="
    headers["X-Goog-Hash"] = "md5=JfntQ7xMIIq5dJI8s5BDjw==,sha1=AAAA"
    assert checksums.declared(headers) == {
        "crc32c": "e3069283",
        "md5": "25f9ed43bc4c208ab974923cb390438f",
    }
    headers["Content-MD5"] = "not base64"
    assert len(checksums.declared(headers)) == 2
    assert checksums.declared(email.message.Message()) == {}
