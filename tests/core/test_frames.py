import random

import pytest

from app.core.frames import NO_STREAM, TOKEN_BYTES, Frame, FrameReader, FramingError, Kind, encode, new_token

LIMIT_BYTES = 1000


def some_frames(rng: random.Random) -> list[Frame]:
    return [
        Frame(rng.randbytes(TOKEN_BYTES), rng.choice(list(Kind)), rng.randbytes(rng.choice([0, 1, 21, LIMIT_BYTES])))
        for _ in range(rng.randint(1, 20))
    ]


@pytest.mark.parametrize("seed", range(50))
def test_frames_come_back_however_the_bytes_are_split(seed: int) -> None:
    rng = random.Random(seed)
    frames = some_frames(rng)
    wire = b"".join(encode(*frame) for frame in frames)
    cuts = sorted(rng.choices(range(len(wire) + 1), k=rng.randint(0, 40)))
    reader = FrameReader(LIMIT_BYTES)
    read = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        read += reader.feed(wire[start:end])
    assert read == frames


def test_byte_by_byte() -> None:
    reader = FrameReader(LIMIT_BYTES)
    wire = encode(NO_STREAM, Kind.DATA, b"abc") * 2
    read = [frame for byte in wire for frame in reader.feed(bytes([byte]))]
    assert read == [Frame(NO_STREAM, Kind.DATA, b"abc")] * 2


def test_an_oversized_payload_is_refused_by_its_header_alone() -> None:
    header = encode(NO_STREAM, Kind.DATA, bytes(LIMIT_BYTES + 1))[:-LIMIT_BYTES]
    with pytest.raises(FramingError):
        list(FrameReader(LIMIT_BYTES).feed(header))


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(Kind))[::17])
def test_an_unknown_kind_is_refused(kind: int) -> None:
    wire = bytearray(encode(NO_STREAM, Kind.DATA))
    wire[TOKEN_BYTES] = kind
    with pytest.raises(FramingError):
        list(FrameReader(LIMIT_BYTES).feed(bytes(wire)))


def test_good_frames_before_a_bad_one_are_still_given() -> None:
    read = FrameReader(LIMIT_BYTES).feed(encode(NO_STREAM, Kind.END) + b"\xff" * 64)
    assert next(read).kind == Kind.END
    with pytest.raises(FramingError):
        next(read)


def test_tokens_differ() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {TOKEN_BYTES}
