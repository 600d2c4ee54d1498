from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_actors.framing import LineSplitter, TooLong

LIMIT = 40

# Few letters, so that blank lines, carriage returns and lines round the limit are frequent.
line = st.text("ab\r \t", max_size=60).map(str.encode) | st.binary(max_size=60).map(lambda b: b.replace(b"\n", b""))
# Longer than what is kept of a line that is too long.
lines = st.lists(line | st.integers(0, 600).map(lambda n: bytes(b"0123456789"[i % 10] for i in range(n))), max_size=8)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream of bytes, and the same in arbitrary pieces."""
    text = b"\n".join(draw(lines)) + draw(st.sampled_from([b"", b"\n"]))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return text, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def split(pieces: list[bytes], limit: int = LIMIT) -> list[bytes | TooLong]:
    splitter = LineSplitter(limit)
    found = [line for piece in pieces for line in splitter.feed(piece)]
    return found + splitter.end()


def expected(text: bytes) -> list[bytes | TooLong]:
    """The same, slowly and plainly."""
    found: list[bytes | TooLong] = []
    for line in text.replace(b"\r", b" ").split(b"\n"):
        if len(line) > LIMIT:
            found.append(TooLong(len(line), line[:256]))
        elif line.strip():
            found.append(line.rstrip())
    return found


@given(streams())
def test_any_split_of_the_bytes_yields_the_same_lines(stream: tuple[bytes, list[bytes]]) -> None:
    text, pieces = stream
    assert split(pieces) == expected(text)


@given(streams())
def test_bytes_one_by_one_yield_the_same_lines(stream: tuple[bytes, list[bytes]]) -> None:
    text, _ = stream
    assert split([text[at : at + 1] for at in range(len(text))]) == expected(text)


def test_all_lines_that_a_read_completes_come_together() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"on") == []
    assert splitter.feed(b"e\ntwo\nthree\nfo") == [b"one", b"two", b"three"]
    assert splitter.feed(b"ur\n") == [b"four"]
    assert splitter.end() == []


@pytest.mark.parametrize("text", [b"one\r\ntwo\r\n", b"one\n\n \n\r\n\t\r\ntwo\n", b"\n\none\ntwo"])
def test_carriage_returns_and_blank_lines_are_no_part_of_the_lines(text: bytes) -> None:
    assert split([text]) == [b"one", b"two"]


def test_a_carriage_return_inside_a_line_is_a_blank() -> None:
    assert split([b'{"a":\r1}\r\n']) == [b'{"a": 1}']


def test_what_is_left_at_the_end_of_the_stream_is_a_line() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"last wor") == []
    assert splitter.feed(b"ds") == []
    assert splitter.end() == [b"last words"]
    assert splitter.end() == []


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_the_lines_beside_one_that_is_too_long_are_intact(size: int) -> None:
    text = b"before\n" + b"x" * 5000 + b"\nafter\n" + b"y" * LIMIT + b"\n" + b"z" * (LIMIT + 1) + b"\nlast"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert split(pieces) == [
        b"before",
        TooLong(5000, b"x" * 256),
        b"after",
        b"y" * LIMIT,
        TooLong(LIMIT + 1, b"z" * (LIMIT + 1)),
        b"last",
    ]


def test_a_line_that_is_too_long_is_not_kept_while_it_goes_on() -> None:
    splitter = LineSplitter(limit=1 << 10)
    for _ in range(10_000):
        assert splitter.feed(b"x" * 1024) == []
    assert sum(map(len, splitter._parts)) <= 1 << 10
    assert splitter.feed(b"\n") == [TooLong(10_000 * 1024, b"x" * 256)]


def test_lines_are_copies_of_a_buffer_that_is_used_again() -> None:
    splitter, buffer = LineSplitter(), bytearray(b"one\ntwo\nthr")
    found = splitter.feed(buffer)
    buffer[:] = b"xxxxxxxxxxx"
    assert found == [b"one", b"two"]
    assert splitter.feed(b"ee\n") == [b"three"]


def test_lines_of_fifty_megabytes_take_linear_time() -> None:
    chunk, splitter, found = b"x" * (64 << 10), LineSplitter(), []
    began = time.perf_counter()
    for _ in range(2):
        for _ in range(800):
            found += splitter.feed(chunk)
        found += splitter.feed(b"\n")
    # A quadratic splitter takes half a minute, this one a fifth of a second.
    assert time.perf_counter() - began < 5
    assert [len(line) for line in found if isinstance(line, bytes)] == [800 * len(chunk)] * 2
