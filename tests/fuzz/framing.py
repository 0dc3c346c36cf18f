"""Frames that RFC 6455 forbids, and those that it allows and nobody sends; behind a good handshake."""

import zlib
from itertools import pairwise
from random import Random

from tests.fuzz.cast import ROBOT, TOOL_SERVER, handshake, some_agent, target
from tests.fuzz.grammar import mutated
from tests.fuzz.handshakes import Play
from tests.fuzz.script import Step
from tests.peers.raw import BINARY, CLOSE, PING, PONG, TEXT, masked_frame

CONT = 0
PING_TEXT = b'{"jsonrpc":"2.0","id":"p","method":"ping"}'
CODES = [0, 1, 999, 1000, 1001, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 1016, 2999, 3000, 4999, 5000, 65535]
LENGTHS = [0, 1, 125, 126, 127, 65535, 65536, 2**20, 2**22, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
LONG_BYTES = 5000
FENCE_ID = b'"fence"'
FENCE = masked_frame(TEXT, b'{"jsonrpc":"2.0","id":"fence","method":"ping"}')


def frame(chance: Random, opcode: int, payload: bytes, *, final: bool = True, reserved: int = 0) -> bytes:
    """A masked frame, under a real mask if it is short."""
    head: bytes = masked_frame(opcode, payload, is_final=final)[: -4 - len(payload)]
    mask = chance.randbytes(4) if len(payload) < LONG_BYTES else b"\0\0\0\0"
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload)) if any(mask) else payload
    return bytes([head[0] | reserved << 4]) + head[1:] + mask + body


def stated(first: int, length: int, *, form: int, masked: bool = True) -> bytes:
    """The head of a frame that says this length, in the form of 7, 16 or 64 bits."""
    bit = 0x80 if masked else 0
    if form == 7:
        return bytes([first, bit | length & 0x7F])
    size = 2 if form == 16 else 8
    return bytes([first, bit | (126 if form == 16 else 127)]) + (length % (1 << 8 * size)).to_bytes(size)


def any_head(chance: Random) -> bytes:
    """Two bytes of chance, a length that lies, and something behind."""
    first, length = chance.randrange(256), chance.choice(LENGTHS)
    head = stated(first, length, form=chance.choice([7, 16, 64]), masked=chance.random() < 0.85)
    return head + chance.randbytes(chance.choice([0, 2, 4, 10, 130]))


def reserved(chance: Random) -> bytes:
    return frame(chance, chance.choice([3, 4, 7, 11, 15, TEXT, CLOSE]), PING_TEXT, reserved=chance.randrange(8))


def unmasked(chance: Random) -> bytes:
    return stated(0x80 | chance.choice([TEXT, BINARY, PING, CLOSE, CONT]), 42, form=7, masked=False) + PING_TEXT


def broken_fragments(chance: Random) -> bytes:
    """Continuations without a beginning, beginnings inside of others, control frames between and in pieces."""
    parts = [
        frame(
            chance,
            chance.choice([CONT, CONT, TEXT, BINARY, PING, PONG, CLOSE]),
            chance.choice([b"", b"{", PING_TEXT, b"\xff"]),
            final=chance.random() < 0.4,
        )
        for _ in range(chance.randint(1, 12))
    ]
    return b"".join(parts)


def good_fragments(chance: Random) -> bytes:
    """A good message in any pieces, with pings between."""
    places = sorted(chance.randrange(len(PING_TEXT) + 1) for _ in range(chance.randint(1, 8)))
    ends = [0, *places, len(PING_TEXT)]
    parts = []
    for number, (start, end) in enumerate(pairwise(ends)):
        parts.append(frame(chance, CONT if number else TEXT, PING_TEXT[start:end], final=number == len(ends) - 2))
        if chance.random() < 0.3:
            parts.append(frame(chance, chance.choice([PING, PONG]), chance.randbytes(chance.randrange(126))))
    return b"".join(parts)


def flood(chance: Random) -> bytes:
    """Much of the same: empty fragments, pings, blanks, garbage, tiny messages."""
    count = chance.choice([50, 250, 1000])
    empty = masked_frame(CONT, b"", is_final=False)
    return chance.choice(
        [
            masked_frame(TEXT, b"", is_final=False) + empty * chance.choice([100, 17_000]),
            masked_frame(PING, b"x" * chance.randrange(126)) * count,
            masked_frame(PONG, b"") * count,
            masked_frame(TEXT, b"") * count,
            masked_frame(BINARY, b" \n") * count,
            masked_frame(TEXT, b"\xff{") * count,
            masked_frame(TEXT, b"[" * 900) * 100,
            masked_frame(TEXT, PING_TEXT) * count,
        ]
    )


def big_control(chance: Random) -> bytes:
    size = chance.choice([126, 127, 200, 65535, 65536])
    return frame(chance, chance.choice([PING, PONG, CLOSE]), b"x" * size, final=chance.random() < 0.8)


def closing(chance: Random) -> bytes:
    """Close frames of every kind, and what should not come behind one."""
    code = chance.choice(CODES).to_bytes(2)
    payload = chance.choice(
        [b"", b"\x03", code, code + b"bye", code + b"\xff\xfe", code + b"\xed\xa0\x80", code + b"x" * 123]
    )
    behind = chance.choice([b"", frame(chance, TEXT, PING_TEXT), frame(chance, CLOSE, code), chance.randbytes(20)])
    return frame(chance, CLOSE, payload) + behind


def bomb(chance: Random) -> bytes:
    """Compressed, whether that was agreed on or not: a few hundred bytes that would be a megabyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(chance.choice([b"\0", b"[", b" "]) * 2**20) + packer.flush(zlib.Z_SYNC_FLUSH)
    return frame(chance, chance.choice([TEXT, BINARY]), packed[:-4], reserved=4)


def at_the_limit(chance: Random) -> bytes:
    """Messages just below and just above what may be sent, whole, in pieces, or only announced."""
    size = chance.choice([64, 128, 256]) * 1024 + chance.choice([-1, 0, 1, 14])
    payload = b'"' + b"x" * (size - 2) + b'"'
    return chance.choice(
        [
            masked_frame(TEXT, payload),
            masked_frame(TEXT, payload[:1000], is_final=False) + masked_frame(CONT, payload[1000:]),
            masked_frame(TEXT, payload)[: chance.randrange(20, 2000)],
        ]
    )


def not_utf8(chance: Random) -> bytes:
    payload = mutated(chance, PING_TEXT) + chance.choice(
        [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe4"]
    )
    return frame(chance, chance.choice([TEXT, BINARY]), payload)


def garbage(chance: Random) -> bytes:
    return chance.randbytes(chance.choice([1, 2, 3, 14, 200, 5000]))


def wounded(chance: Random) -> bytes:
    """A good conversation with a few bytes of it changed, frame heads included."""
    lines = [
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},'
        b'"clientInfo":{"name":"XiaozhiMCPEndpointClient","version":"1"}}}',
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
        b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}',
        b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}',
        b'{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2024-11-05","serverInfo":{"name":"m","version":"1"}}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"t","inputSchema":{"type":"object"}}]}}',
    ]
    return mutated(chance, b"".join(frame(chance, TEXT, line) for line in lines))


MAKERS = [
    *(any_head, any_head, reserved, unmasked, broken_fragments, broken_fragments, good_fragments, big_control, closing),
    *(closing, bomb, not_utf8, garbage, wounded, wounded, wounded),
]
RARE = [flood, at_the_limit]
HEADERS = ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", "Sec-WebSocket-Protocol: mcp"]


def _opening(chance: Random) -> tuple[Step, ...]:
    path = target(chance.choice([ROBOT, TOOL_SERVER]), some_agent(chance))
    more = [line for line in HEADERS if chance.random() < 0.2]
    return Step(0, "dial"), Step(0, "send", handshake(path, *more)), Step(0, "wait", seconds=8.0)


def frames(chance: Random) -> tuple[Step, ...]:
    """One or more of the makers' frames, whole or in packets that end anywhere."""
    sends = [
        Step(0, "send", chance.choice(MAKERS)(chance), chance.choice([0, 0, 0, 1, 7, 1000]))
        for _ in range(chance.choice([1, 1, 1, 2, 3]))
    ]
    return (*_opening(chance), *sends)


def floods(chance: Random) -> tuple[Step, ...]:
    sends = [Step(0, "send", chance.choice(RARE)(chance)) for _ in range(chance.choice([1, 1, 2]))]
    return (*_opening(chance), *sends)


def harmless(chance: Random) -> tuple[Step, ...]:
    """What is allowed, however odd, ends nothing: the ping behind it is answered."""
    return (
        *_opening(chance),
        Step(0, "send", good_fragments(chance), chance.choice([0, 1, 3])),
        Step(0, "send", FENCE),
        Step(0, "expect", FENCE_ID),
    )


def unread(chance: Random) -> tuple[Step, ...]:
    """A robot that asks and asks and reads nothing."""
    path = target(ROBOT, some_agent(chance))
    asked = masked_frame(TEXT, b'{"jsonrpc":"2.0","id":"%s","method":"x"}' % (b"i" * 1000)) * 200
    opening = (Step(0, "dial"), Step(0, "send", handshake(path)), Step(0, "wait", seconds=8.0), Step(0, "stall"))
    return (*opening, *(Step(0, "send", asked) for _ in range(chance.choice([1, 8]))))


PLAYS: dict[str, tuple[Play, float]] = {
    "frames": (frames, 10),
    "floods": (floods, 0.7),
    "harmless frames": (harmless, 1.5),
    "unread answers": (unread, 0.15),
}
