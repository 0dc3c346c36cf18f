"""What strangers send before there is a WebSocket: HTTP that is wrong, slow, cut, doubled or too much."""

import base64
from collections.abc import Callable
from random import Random

from tests.fuzz.cast import KEY, OTHER, ROBOT, TOOL_SERVER, handshake, some_agent, target, token
from tests.fuzz.grammar import mutated
from tests.fuzz.script import Step

Lines = list[bytes]

METHODS = [
    b"POST",
    b"HEAD",
    b"OPTIONS",
    b"PUT",
    b"CONNECT",
    b"TRACE",
    b"get",
    b"PRI",
    b"G E T",
    b"",
    b"M" * 300,
    b"\x00",
]
VERSIONS = [
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"HTTP/1.2",
    b"HTTP/9.9",
    b"http/1.1",
    b"HTTP/1.1 x",
    b"",
    b"ICE/1.0",
]
PATHS = [
    *(b"/", b"*", b"//", b"/mcp_endpoint/mcp", b"/mcp_endpoint/call/", b"/mcp_endpoint/health", b"/livez", b"/readyz"),
    *(b"/drain", b"/metrics", b"/mcp_endpoint/../mcp_endpoint/call/", b"/%00", b"/%ff%fe", b"/a%2f..%2fb", b"/\xff"),
    *(b"http://gateway/mcp_endpoint/call/", b"gateway:80", b"/x/mcp_endpoint/call/?token=", b"/?" + b"a=b&" * 900),
    *(b"/mcp_endpoint/call/?token=%", b"/mcp_endpoint/mcp/?token=x&token=y", b"/mcp_endpoint/health?key=", b"/#x"),
    *(b"/" + b"a/" * 3000, b"/mcp_endpoint/health?key=%F0%9F%98%80&agent=%00", b"/mcp_endpoint/mcp/?server_id=~x"),
]
HEADERS = [
    *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999"),
    *(b"Content-Length: 5\r\nContent-Length: 6", b"Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked"),
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 4",
    b"Transfer-Encoding: gzip, chunked",
    b"Expect: 100-continue",
    b"Connection: keep-alive",
    b"Connection: close",
    b"Connection: Upgrade, Sec-WebSocket-Key",
    b"Upgrade: h2c\r\nHTTP2-Settings: AAAA",
    b"Upgrade: websocket, h2c",
    b"Upgrade: WEBSOCKET",
    b"Host: a\r\nHost: b",
    *(
        b"Authorization: Bearer x",
        b"Authorization: Basic eDp5",
        b"Authorization: Bearer\r\nAuthorization: Bearer a.b.c",
    ),
    *(b"Authorization: Bearer " + b"A" * 5000, b"X-Forwarded-For: 1.2.3.4, [::1]:x", b"Origin: null", b"Origin: \xff"),
    *(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: !!!!", b"Sec-WebSocket-Key: " + base64.b64encode(b"x" * 15)),
    b"Sec-WebSocket-Version: 8",
    b"Sec-WebSocket-Version: x",
    b"Sec-WebSocket-Version: 13, 8",
    b"Sec-WebSocket-Accept: x",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99",
    *(b"Sec-WebSocket-Extensions: ;;,", b"Sec-WebSocket-Extensions: " + b"x-a, " * 500, b"Sec-WebSocket-Protocol: mcp"),
    *(b"Sec-WebSocket-Protocol: , ,", b"Sec-WebSocket-Protocol: \xff", b"Sec-WebSocket-Protocol: a b"),
    b"X: y\r\n folded",
    b"X: y\r\n\tfolded",
    b" leading: x",
    b"NoColon",
    b": empty",
    b"X\x00: y",
    b"X: \x00",
    b"X: \xff\xfe",
    b"X: a\rb",
    b"X: a\nY: b",
    b"X: " + b"v" * 9000,
    b"X: " + b"v" * 17_000,
    b"N" * 9000 + b": v",
    b"Cookie: " + b"a=b; " * 800,
    b"Origin: null",
    b"Origin: https://evil.example",
    b"Authorization: Bearer x",
    b"X-Forwarded-For: ::1, x",
    b"Trailer: X",
    *(b"\r\n".join(b"X-%d: y" % n for n in range(count)) for count in (20, 120, 900)),
]
TAILS = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /livez HTTP/1.1\r\n\r\n" * 3,
    b"0\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\nx",
    b"-1\r\nx\r\n",
    b"zz\r\n",
    b"x" * 70_000,
    b"1;" + b"e" * 20_000 + b"\r\nx",
    b"\x81\x80\x00\x00\x00\x00",
    b"\x00" * 100,
]
FOREIGN = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"SSH-2.0-x\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\r\n" * 3000,
    b"\n" * 30_000,
    b"\x00" * 5000,
    b"GET " + b"a" * 40_000,
    b"GET / HTTP/1.1\r\n" + b"a" * 40_000,
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000,
    b"{}",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
]


def whole(number: int, *steps: Step) -> tuple[Step, ...]:
    return (Step(number, "dial"), *steps)


def good_path(chance: Random) -> bytes:
    return target(chance.choice([ROBOT, TOOL_SERVER]), some_agent(chance)).encode()


def request(chance: Random) -> bytes:
    """A handshake of which some lines are others than they should be."""
    line = [b"GET", good_path(chance), b"HTTP/1.1"]
    headers: Lines = handshake("/").split(b"\r\n")[1:-2]
    for _ in range(chance.randint(1, 3)):
        match chance.randrange(7):
            case 0:
                line[0] = chance.choice(METHODS)
            case 1:
                line[1] = chance.choice(PATHS)
            case 2:
                line[2] = chance.choice(VERSIONS)
            case 3 if headers:
                del headers[chance.randrange(len(headers))]
            case 4 if headers:
                headers.append(chance.choice(headers))
            case _:
                headers.insert(chance.randrange(len(headers) + 1), chance.choice(HEADERS))
    end = chance.choice([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])
    tail = chance.choice(TAILS) if chance.random() < 0.3 else b""
    return end.join([b" ".join(line), *headers, b"", b""]) + tail


def odd_request(chance: Random) -> tuple[Step, ...]:
    return whole(0, Step(0, "send", request(chance)), Step(0, "pause", seconds=chance.choice([0, 0, 0.02])))


def wounded_request(chance: Random) -> tuple[Step, ...]:
    good = handshake(good_path(chance).decode())
    return whole(0, Step(0, "send", mutated(chance, good)))


def half_request(chance: Random) -> tuple[Step, ...]:
    data = request(chance)
    end = Step(0, chance.choice(["eof", "reset"]))
    return whole(0, Step(0, "send", data[: chance.randrange(len(data) + 1)]), end)


def dripped_request(chance: Random) -> tuple[Step, ...]:
    """Slowloris: byte by byte; some never come to an end, and are to be told so."""
    data = handshake(good_path(chance).decode())
    if chance.random() < 0.7:
        size = chance.choice([1, 3, 7, 30])
        return whole(0, Step(0, "send", data, size, 0.0), Step(0, "wait", count=1, seconds=0.05))
    return whole(0, Step(0, "send", data[: chance.randrange(1, 60)], 1, 0.04), Step(0, "pause", seconds=1.3))


def pipelined(chance: Random) -> tuple[Step, ...]:
    one = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % chance.choice(PATHS[:12])
    rest = chance.choice([b"", request(chance), handshake(good_path(chance).decode())])
    return whole(0, Step(0, "send", one * chance.choice([1, 2, 5, 15, 17, 40, 200]) + rest))


def foreign(chance: Random) -> tuple[Step, ...]:
    data = chance.choice(FOREIGN)
    return whole(0, Step(0, "send", data if chance.random() < 0.5 else mutated(chance, data)))


def guessed_token(chance: Random) -> tuple[Step, ...]:
    """Tokens of others, wounded, cut or made up: nobody must come in by them, nor learn why not."""
    right = token(OTHER).encode()
    made_up = base64.b64encode(chance.randbytes(chance.choice([0, 1, 15, 16, 32, 48, 1024, 3100])))
    other_key = base64.b64encode(KEY.encode())
    wrong = chance.choice(
        [mutated(chance, right), right[: chance.randrange(len(right))], made_up, other_key, right * 40]
    )
    escaped = b"".join(b"%%%02x" % byte for byte in wrong[:3000])
    path = b"/mcp_endpoint/%s/?token=%s" % (chance.choice([b"mcp", b"call"]), escaped)
    return whole(0, Step(0, "send", handshake(path.decode())))


def eager(chance: Random) -> tuple[Step, ...]:
    """A whole flood of frames behind the handshake, in the same packet or in pieces."""
    frame = b"\x81\x84\x00\x00\x00\x00null"
    flood = frame * chance.choice([1, 10, 7000, 20_000]) if chance.random() < 0.5 else chance.randbytes(100_000)
    size = chance.choice([0, 0, 1000, 20_000])
    data = handshake(good_path(chance).decode()) + flood
    return whole(0, Step(0, "send", data, size))


Play = Callable[[Random], tuple[Step, ...]]

PLAYS: dict[str, tuple[Play, float]] = {
    "odd request": (odd_request, 6),
    "wounded request": (wounded_request, 4),
    "half request": (half_request, 2),
    "dripped request": (dripped_request, 0.6),
    "pipelined requests": (pipelined, 1),
    "foreign protocol": (foreign, 1),
    "guessed token": (guessed_token, 2),
    "eager frames": (eager, 0.5),
}
"""What is played, and how often beside the others."""
