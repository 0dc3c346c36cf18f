"""The decoders in this process: whatever comes in, only what they declare comes out, and never more than is allowed.

Each target takes dice, makes an input and judges what becomes of it: an AssertionError, or any exception that the
decoder has not declared, is a finding. Nothing here needs a socket, so a case takes microseconds.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from ipaddress import ip_address
from random import Random

import orjson

from gateway import auth, jsonrpc, knock, names, results, tools, urls
from gateway.auth import TokenProblem
from gateway.backplane import envelope, rows
from gateway.backplane.envelope import EnvelopeError
from gateway.catalog import paginate
from gateway.frames import FrameCutter, text_head, unmask
from gateway.jsonrpc import Garbage, Invalid, Request, Response
from gateway.logs import JsonFormatter, TextFormatter
from gateway.origins import Origins
from gateway.results import Shape
from gateway.robotsession import Answer, RobotSession
from gateway.sources import Proxies
from gateway.toolsession import Limits, Send, ToolSession
from tests.fuzz import framing, grammar, messages
from tests.fuzz.cast import KEY, OWN, token

INFO = {"name": "gateway", "version": "1"}
LIMIT_BYTES = 4096
FRAME_LIMIT = 2**23
HELD_BYTES = 1024


def parsing(chance: Random) -> None:
    """`parse` never raises, and never calls something an id that can't be one."""
    frame = (
        grammar.mutated(chance, messages.any_message(chance)) if chance.random() < 0.5 else messages.any_message(chance)
    )
    for parsed in (jsonrpc.parse(frame), jsonrpc.standard_parse(frame)):
        for message in [jsonrpc.classify(member) for member in parsed] if isinstance(parsed, list) else [parsed]:
            if isinstance(message, Request | Response):
                assert jsonrpc.usable_id(message.id) == message.id
                assert type(message.id) in (int, str)
            if isinstance(message, Garbage | Invalid):
                assert len(message.what) < 500
        jsonrpc.excerpt(parsed if isinstance(parsed, list) else frame.decode("utf-8", "replace"), 50)


def robot_conversation(chance: Random) -> None:
    """A robot's session takes any message, and gives each request with an id its one step."""
    session = RobotSession("agent", INFO)
    for _ in range(chance.randint(1, 6)):
        message = jsonrpc.parse(messages.robot_line(chance))
        steps = session.on_message(message)
        if isinstance(message, Request):
            assert len(steps) == 1, (message, steps)
        for step in steps:
            assert not isinstance(step, Answer) or len(step.frame) < 16 * 1024
        assert len(session.client_name) <= 64


def tool_conversation(chance: Random) -> None:
    """So does a tool server's, whatever it answers, at any time; its list stays below the limits."""
    limits = Limits(0.01, 5.0, 20.0, 300.0, 20, 20_000)
    session = ToolSession(limits, INFO)
    now = chance.random()
    session.start(now)
    lines = [
        grammar.answer(chance, b"0", messages.introduction(chance)),
        grammar.answer(chance, b"1", messages.tools(chance)),
    ]
    for line in [*lines, *(messages.server_line(chance) for _ in range(5))]:
        now += chance.choice([0.0, 0.02, 1.0, 25.0])
        for step in [
            *session.on_time(now, is_busy=chance.random() < 0.5),
            *session.on_message(jsonrpc.parse(line), now),
        ]:
            if isinstance(step, Send):
                assert len(step.frame) < 16 * 1024
            assert len(getattr(step, "tools", [])) <= 20
            assert len(getattr(step, "encoded", b"")) <= 20_000
    assert session.due >= 0
    assert len(session.name) <= 128


def cutting(chance: Random) -> None:
    """However a stream is cut into packets, the same frames come out; what has only been announced costs nothing."""
    data = b"".join(chance.choice(framing.MAKERS)(chance) for _ in range(chance.randint(1, 4)))
    whole = _cut(data, [len(data)])
    sizes = [chance.choice([1, 2, 3, 7, 50, 4096]) for _ in range(20)]
    assert whole == _cut(data, sizes)


def _cut(data: bytes, sizes: list[int]) -> list[tuple[bytes, int, bytes]]:
    cutter, found, at = FrameCutter(), [], 0
    for turn in range(len(data) + 1):
        size = sizes[turn % len(sizes)]
        for frame, start in cutter.cut(data[at : at + size], FRAME_LIMIT):
            assert len(frame) <= FRAME_LIMIT + 14
            found.append((bytes(frame), start, unmask(frame, start) if start else b""))
            if not start:
                return found
        at += size
        held = sum(sys.getsizeof(getattr(cutter, slot)) for slot in cutter.__slots__)
        assert held <= 2 * at + HELD_BYTES, f"{held} bytes are held after {at} have come"
        if at >= len(data):
            break
    return found


def heading(chance: Random) -> None:
    size = chance.choice([0, 1, 125, 126, 127, 65535, 65536, chance.randrange(2**40)])
    head = text_head(size)
    assert head[0] == 0x81
    assert head[1] < 0x80
    told = head[1] if head[1] < 126 else int.from_bytes(head[2:])
    assert told == size


def opening_envelopes(chance: Random) -> None:
    """A mailbox may hold anything: envelopes come out, or EnvelopeError."""
    made = envelope.Envelope(
        chance.choice([*envelope.TYPES, "?"]),
        id=chance.choice(["", "x", "5b1f09aa-1.2", "a" * 300]),
        tool=chance.choice(["", "电", "\u202e"]),
        epoch=chance.randrange(2**62),
        body=chance.randbytes(9),
    )
    good = envelope.encode(made)
    assert list(envelope.decode(good * 2)) == [made, made]
    header = grammar.thing(
        [(chance.choice([b"t", b"len", b"v", b"id", b"ms", b"due"]), grammar.value(chance)) for _ in range(4)]
    )
    wrong = chance.choice(
        [grammar.mutated(chance, good * 2), header + b"\n" + chance.randbytes(20), header, chance.randbytes(30)]
    )
    for decode in (envelope.decode, envelope.decode_notice):
        with contextlib.suppress(EnvelopeError):
            for opened in decode(wrong):
                assert type(opened.type) is str
                assert type(opened.ms) is type(opened.due) is type(opened.epoch) is int


def verifying(chance: Random) -> None:
    """A wounded token is refused, or still says whose it is: ECB blocks may be rearranged, never into another key's."""
    right = token(chance.choice(OWN))
    wrong = chance.choice(
        [grammar.mutated(chance, right.encode()), chance.randbytes(48), right.encode() * 3, grammar.value(chance)]
    )
    text = wrong.decode("latin-1") if chance.random() < 0.5 else wrong.decode("utf-8", "replace")
    with contextlib.suppress(TokenProblem):
        agent = auth.verify(text, (KEY, "another"))
        assert auth.is_agent_id(agent)
    assert auth.verify(right.replace("+", " ").replace("/", "_"), ("another", KEY)) in OWN
    auth.is_bearer(text, KEY)
    auth.is_key(text, (KEY,))


PROXIES = Proxies(("10.0.0.0/8", "fd00::/8"))
PAGES = Origins(("https://a.example", "http://[::1]:8002"))
HEADER_VALUES = (
    *(b"10.0.0.1, 1.2.3.4:80", b"[2001:db8::1]:443,fe80::1%eth0", b"::ffff:1.2.3.4, unknown", b"https://a.example:443"),
    *(b"null", b"http://[::1]:8002/", b"Bearer eyJ.eyJ.x", b"bearer  ", b"Basic YTpi", b"Bearer " + b"a" * 5000, b","),
)
TARGETS_DIALLED = (b"/mcp_endpoint/mcp/?token=a%2Bb&server_id=x", b"/x%2fmcp_endpoint/call?token=&token=%ff", b"*?&=&%")


def knocking(chance: Random) -> None:
    """Whatever a stranger writes into a request's head, it is read, and says nothing that it can't mean."""
    names = (b"authorization", b"origin", b"x-forwarded-for")
    headers = [
        (chance.choice(names), grammar.mutated(chance, chance.choice(HEADER_VALUES)))
        for _ in range(chance.randint(0, 4))
    ]
    target = grammar.mutated(chance, chance.choice(TARGETS_DIALLED))
    assert knock.role_of(target) in ("mcp", "call", None)
    assert isinstance(knock.token_of(target.partition(b"?")[2], headers), str)
    assert str(ip_address(PROXIES.source("10.9.9.9", headers)))
    assert PROXIES.source("1.2.3.4", headers) == "1.2.3.4"
    if PAGES.allow(headers):
        assert all(b"a.example" in value.lower() or b"[::1]" in value for name, value in headers if name == b"origin")


def issuing(chance: Random) -> None:
    """Every agent id that may be one survives its token; every other one is refused."""
    agent = "".join(chance.choice("abc 电\u202e\ud800\x00\"'{}&?+/") for _ in range(chance.choice([0, 1, 5, 256, 257])))
    try:
        issued = urls.paste_safe_token(agent, KEY)
    except ValueError:
        assert not auth.is_agent_id(agent)
        return
    assert auth.verify(issued, (KEY,)) == agent
    base = chance.choice(["http://h", "wss://h:1/x", "http://[::1]:8004"])
    assert urls.robot_url(base, issued).startswith("ws")


def reading_urls(chance: Random) -> None:
    text = grammar.mutated(chance, b"https://gateway.example:8004/mcp_endpoint").decode("latin-1")
    if not urls.public_url_problem(text):
        urls.base_warnings(urls.base_url(text, "0.0.0.0", 8004, "h"))


def listing(chance: Random) -> None:
    """Whatever a tool server lists: what is shown can be written, keeps to the limits, and has one name each."""
    parsed = jsonrpc.parse(b'{"id":1,"result":%s}' % messages.tools(chance))
    result = parsed.message["result"] if isinstance(parsed, Response) else None
    listed = result.get("tools") if isinstance(result, dict) else None
    entries = listed if isinstance(listed, list) else []
    taken = tools.take(entries, tools.Bounds(20, 20_000, 8_000, 16))
    kept, text = taken.tools, taken.encoded
    assert len(kept) <= 20
    assert len(text) <= 20_000
    assert len(kept) + taken.dropped + taken.oversized + taken.cut == len(entries)
    assert min(taken.dropped, taken.oversized, taken.cut) >= 0
    assert orjson.loads(text) == kept
    for tool in kept:
        assert type(tool["description"]) is str
        assert tool["inputSchema"]["type"] == "object"
        assert all(type(name) is str for name in tool["inputSchema"]["required"])
    local = names.local_names((tool["name"] for tool in kept), {})
    assert len(set(local.values())) == len(local)
    assert all(len(name) <= names.NAME_CHARACTERS_MAX and names.fold(name) == name for name in local.values())
    pages, _ = paginate(
        [(name, tools.encode([tool])[1:-1]) for name, tool in zip(local.values(), kept, strict=True)], 8192
    )
    assert all(len(page) <= 8192 and orjson.loads(page) for page in pages)


def shaping(chance: Random) -> None:
    """Whatever a tool server answers: the robot gets one JSON-RPC answer under its own id, below the limit."""
    parsed = jsonrpc.parse(grammar.answer(chance, b"7", messages.result(chance)))
    if not isinstance(parsed, Response):
        return
    ids: list[int | str] = [0, 1, "", "x", "i" * jsonrpc.ID_CHARACTERS_MAX, 2**63 - 1]
    rpc_id = chance.choice(ids)
    limit = chance.choice([LIMIT_BYTES, 65536])
    frame = results.answer(rpc_id, parsed.message, Shape(limit, chance.random() < 0.5))
    answered = orjson.loads(frame)
    assert answered["id"] == rpc_id
    assert ("result" in answered) != ("error" in answered)
    assert len(frame) <= limit, f"{len(frame)} bytes, limit {limit}"


def reporting(chance: Random) -> None:
    parsed = jsonrpc.parse(messages.progress(chance))
    params = getattr(parsed, "params", None)
    if type(params) is dict:
        with contextlib.suppress(jsonrpc.Undumpable):
            frame = results.progress_frame(7, params, LIMIT_BYTES)
            assert len(frame) <= LIMIT_BYTES
            assert orjson.loads(frame)["params"]["progressToken"] == 7


def reading_rows(chance: Random) -> None:
    """What somebody else has written into Redis is a row, or none."""
    members = [
        (
            chance.choice(
                [b"conn", b"state", b"since", b"worker", b"epoch", b"tools", b"toolset", b"server", b"original"]
            ),
            grammar.value(chance),
        )
        for _ in range(6)
    ]
    text = grammar.thing(members)
    for load in (rows.load_row, rows.load_claim, rows.load_seen, rows.load_robot, rows.noted_agent, rows.load_member):
        load(text)


def logging_lines(chance: Random) -> None:
    """A line of the log stays one line, whatever a peer is called, and without a token."""
    said = grammar.value(chance).decode("utf-8", "surrogateescape")
    record = logging.makeLogRecord(
        {
            "name": "gateway.x",
            "levelname": "INFO",
            "msg": "said",
            "kind": said,
            "agent": {"a": [said]},
            "token": token(OWN[0]),
        }
    )
    shown = JsonFormatter().format(record)
    assert "\n" not in shown
    assert orjson.loads(shown)["message"]
    assert "\n" not in TextFormatter().format(record)
    assert token(OWN[0])[:21] not in shown


Target = Callable[[Random], None]

TARGETS: dict[str, Target] = {
    target.__name__.replace("_", " "): target
    for target in (
        parsing,
        robot_conversation,
        tool_conversation,
        cutting,
        heading,
        opening_envelopes,
        verifying,
        knocking,
        issuing,
        reading_urls,
        listing,
        shaping,
        reporting,
        reading_rows,
        logging_lines,
    )
}
_NAMES = list(TARGETS)


def target_of(number: int) -> str:
    """The target whose turn a case of this number is."""
    return _NAMES[number % len(_NAMES)]


def chance_of(seed: int, number: int) -> Random:
    return Random(f"{seed}:{target_of(number)}:{number}")


def judge(seed: int, number: int) -> str:
    """What is wrong with the case of this number; empty if nothing is."""
    name = target_of(number)
    try:
        TARGETS[name](chance_of(seed, number))
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - every exception is what is looked for, RecursionError as well
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "?"
        return f"{name}: {type(error).__name__} at {place}: {str(error)[:300]}"
    return ""


def run(seed: int, cases: int, first: int = 0) -> list[tuple[int, str]]:
    """The findings of so many cases: number and text."""
    return [(number, text) for number in range(first, first + cases) if (text := judge(seed, number))]
