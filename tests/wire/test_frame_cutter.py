"""However a stream of frames is cut into packets, the same frames come out: the ones that websockets reads."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from gateway.frames import FrameCutter, text_head, unmask
from tests.peers.raw import TEXT, masked_frame

LIMIT = 200_000
SIZES = st.one_of(st.integers(0, 300), st.sampled_from([65_535, 65_536, 70_000]))
OPCODES = st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT])


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[tuple[int, bytes]], list[bytes]]:
    """Frames by first byte and payload, and their bytes on the wire in arbitrary packets."""
    frames = []
    wire = b""
    for number in range(draw(st.integers(1, 6))):
        opcode, size = draw(OPCODES), draw(SIZES)
        payload = bytes([number + 1]) * size
        is_final = draw(st.booleans())
        frames.append((opcode | (0x80 if is_final else 0), payload))
        wire += Frame(opcode, payload, is_final).serialize(mask=True)
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    return frames, [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@settings(deadline=None)
@given(streams())
def test_the_frames_do_not_depend_on_the_packets(stream: tuple[list[tuple[int, bytes]], list[bytes]]) -> None:
    frames, packets = stream
    cutter = FrameCutter()
    seen = [(frame[0], unmask(frame, start)) for packet in packets for frame, start in cutter.cut(packet, LIMIT)]
    assert seen == frames


def test_a_frame_that_is_only_announced_takes_no_room() -> None:
    """Else 14 bytes would buy a hostile peer as much memory as the limit allows, for each of its connections."""
    cutter = FrameCutter()
    frame = masked_frame(TEXT, b"x" * LIMIT)
    tracemalloc.start()
    try:
        assert list(cutter.cut(frame[:14], LIMIT)) == []
        assert tracemalloc.get_traced_memory()[1] < LIMIT / 10
    finally:
        tracemalloc.stop()
    [(whole, start)] = cutter.cut(frame[14:], LIMIT)
    assert unmask(whole, start) == b"x" * LIMIT


@settings(deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_any_bytes_are_cut_without_an_exception_and_only_a_refused_head_has_no_payload(
    noise: bytes, cuts: list[int]
) -> None:
    cutter = FrameCutter()
    places = sorted(cuts)
    for start, end in zip([0, *places], [*places, len(noise)], strict=True):
        for frame, at in cutter.cut(noise[start:end], LIMIT):
            if at == 0:
                assert len(frame) == 2
                return
            assert len(unmask(frame, at)) == len(frame) - at <= LIMIT


@settings(deadline=None)
@given(st.binary(max_size=70_000))
def test_a_headed_text_is_what_websockets_would_have_sent(text: bytes) -> None:
    conn = ServerProtocol(state=OPEN)
    conn.send_text(text)
    assert text_head(len(text)) + text == b"".join(conn.data_to_send())


def test_the_head_of_a_very_long_text_has_64_bits_of_length() -> None:
    assert text_head(70_000) == b"\x81\x7f" + (70_000).to_bytes(8)


def test_a_frame_above_the_limit_is_told_from_its_head_alone() -> None:
    head = masked_frame(TEXT, b"x" * (LIMIT + 1))[:10]
    cutter = FrameCutter()
    assert list(cutter.cut(head[:5], LIMIT)) == []
    assert list(cutter.cut(head[5:], LIMIT)) == [(head[:2], 0)]
