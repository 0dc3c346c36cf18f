"""MCP as it must not be spoken: robots and tool servers with valid tokens, and calls between them."""

from random import Random

from tests.fuzz import grammar
from tests.fuzz.cast import ROBOT, SHARED, TOOL_SERVER, handshake, some_agent, some_stage, target
from tests.fuzz.framing import FENCE, FENCE_ID
from tests.fuzz.grammar import answer, array, notification, request, text, thing, usual, value
from tests.fuzz.handshakes import Play
from tests.fuzz.script import RIGHT, Step
from tests.peers.raw import BINARY, TEXT, masked_frame

STEADY = "steady"
"""The tool of the innocent."""
NAMES = [
    b"echo",
    STEADY.encode(),
    b"good__steady",
    b"",
    b"x" * 300,
    b"a b",
    b"\\u0000",
    b"\\ud800",
    b"__",
    "工具".encode(),
]
MANY = 80  # above what an array may hold


def frame(chance: Random, text_: bytes) -> bytes:
    return masked_frame(TEXT if chance.random() < 0.9 else BINARY, text_)


def sent(chance: Random, number: int, text_: bytes) -> Step:
    return Step(number, "send", frame(chance, text_))


def dialled(number: int, kind: str, agent: str, server_id: str = "") -> tuple[Step, ...]:
    return (
        Step(number, "dial"),
        Step(number, "send", handshake(target(kind, agent, server_id))),
        Step(number, "wait", seconds=8.0),
    )


def unique(chance: Random) -> str:
    return f"{chance.getrandbits(48):x}"


# What a robot says


def initialize(chance: Random) -> bytes:
    name = chance.choice([b"XiaozhiMCPEndpointClient", b"robot", b"r" * 2000])
    client = thing([(b"name", usual(chance, text(name))), (b"version", usual(chance, b'"1"'))])
    version = chance.choice(grammar.VERSIONS)
    members = [
        (b"protocolVersion", version),
        (b"capabilities", usual(chance, b"{}")),
        (b"clientInfo", usual(chance, client)),
    ]
    return request(chance, b"initialize", usual(chance, thing(members), wrong=0.05))


def call(chance: Random) -> bytes:
    meta = thing([(b"progressToken", chance.choice(grammar.IDS)), (chance.choice(grammar.KEYS), value(chance, 2))])
    members = [(b"name", usual(chance, text(chance.choice(NAMES)))), (b"arguments", value(chance, 3))]
    members += [(b"_meta", usual(chance, meta))] if chance.random() < 0.4 else []
    return request(chance, b"tools/call", usual(chance, thing(members), wrong=0.05))


def listing(chance: Random) -> bytes:
    cursor = chance.choice(
        [b'"page-1"', b'"page-0"', b'"page-99999999"', b'"page--1"', '"page-²"'.encode(), value(chance, 1)]
    )
    return request(
        chance, b"tools/list", chance.choice([None, b"{}", b"null", thing([(b"cursor", cursor)]), value(chance)])
    )


def cancelling(chance: Random) -> bytes:
    members = [(b"requestId", chance.choice(grammar.IDS)), (b"reason", value(chance, 1))]
    return notification(chance, b"notifications/cancelled", usual(chance, thing(members)))


def progress(chance: Random) -> bytes:
    members = [
        (b"progressToken", chance.choice(grammar.IDS)),
        (b"progress", value(chance, 1)),
        (b"message", value(chance, 1)),
    ]
    return notification(chance, b"notifications/progress", usual(chance, thing(members)))


def other_request(chance: Random) -> bytes:
    return request(chance, chance.choice(grammar.METHODS), chance.choice([None, value(chance)]))


def other_notification(chance: Random) -> bytes:
    return notification(chance, chance.choice(grammar.METHODS), chance.choice([None, value(chance)]))


def unasked_answer(chance: Random) -> bytes:
    return answer(chance, chance.choice(grammar.IDS), value(chance))


def no_message(chance: Random) -> bytes:
    return value(chance)


ROBOTS = [
    initialize,
    call,
    call,
    listing,
    cancelling,
    progress,
    other_request,
    other_notification,
    unasked_answer,
    no_message,
]


def batch(chance: Random) -> bytes:
    return array([chance.choice(ROBOTS)(chance) for _ in range(chance.choice([0, 1, 2, 5, 64, MANY]))])


def robot_line(chance: Random) -> bytes:
    line = batch(chance) if chance.random() < 0.1 else chance.choice(ROBOTS)(chance)
    return grammar.mutated(chance, line) if chance.random() < 0.1 else line


def robot(chance: Random) -> tuple[Step, ...]:
    """A robot that says anything, and is answered to the last."""
    opening = [initialize(chance)] if chance.random() < 0.5 else []
    lines = [*opening, *(robot_line(chance) for _ in range(chance.randint(1, 8)))]
    says = (sent(chance, 0, line) for line in lines)
    return *dialled(0, ROBOT, some_agent(chance)), *says, Step(0, "send", FENCE), Step(0, "expect", FENCE_ID)


def listing_flood(chance: Random) -> tuple[Step, ...]:
    lines = frame(chance, request(chance, b"tools/list", None, b"1")) * chance.choice([20, 300])
    end = (Step(0, "send", FENCE), Step(0, "expect", FENCE_ID))
    return *dialled(0, ROBOT, some_agent(chance)), Step(0, "send", lines), *end


# What a tool server says


def tool(chance: Random) -> bytes:
    """A definition, of every broken shape."""
    properties = thing([(chance.choice(grammar.KEYS), value(chance, 2)) for _ in range(chance.randrange(4))])
    required = usual(chance, array([chance.choice(grammar.TEXTS) for _ in range(chance.randrange(3))]))
    schema = thing(
        [(b"type", usual(chance, b'"object"')), (b"properties", usual(chance, properties)), (b"required", required)]
    )
    ref = thing(
        [(b"$ref", b'"http://127.0.0.1:9/x"'), (b"$defs", value(chance, 1)), (b"allOf", array([value(chance, 2)]))]
    )
    members = [
        (b"name", usual(chance, text(chance.choice([*NAMES, unique(chance).encode()])))),
        (b"description", usual(chance, b'"d"')),
        (b"inputSchema", usual(chance, chance.choice([schema, schema, ref]))),
    ]
    extra = [b"outputSchema", b"annotations", b"_meta", b"icons", b"title", b"execution", b"server_id", b"name"]
    members += [(chance.choice(extra), value(chance, 2)) for _ in range(chance.randrange(3))]
    return thing(members)


def tools(chance: Random) -> bytes:
    """The result of tools/list."""
    count = chance.choice([0, 1, 1, 3, 10, 120])
    listed = usual(chance, array([usual(chance, tool(chance), wrong=0.1) for _ in range(count)]), wrong=0.1)
    cursor = [(b"nextCursor", usual(chance, b'"next"'))] if chance.random() < 0.3 else []
    return usual(chance, thing([(b"tools", listed), *cursor]), wrong=0.05)


def introduction(chance: Random) -> bytes:
    """The result of initialize; one that takes the innocent's name among them."""
    name = chance.choice(
        [b"good", STEADY.encode(), unique(chance).encode(), b"n" * 3000, b"\\u0000", b"\\ud800", b"~x", b""]
    )
    info = thing([(b"name", usual(chance, text(name))), (b"version", usual(chance, b'"1"'))])
    version = usual(chance, chance.choice(grammar.VERSIONS))
    members = [
        (b"protocolVersion", version),
        (b"capabilities", usual(chance, b"{}")),
        (b"serverInfo", usual(chance, info)),
    ]
    return usual(chance, thing(members), wrong=0.05)


def result(chance: Random) -> bytes:
    """The result of a call, of every broken shape."""
    kind = chance.choice([b"text", b"image", b"audio", b"resource", b"resource_link", b"?"])
    content = thing([(b"type", usual(chance, text(kind))), (b"text", value(chance, 1)), (b"data", value(chance, 1))])
    long = thing([(b"type", b'"text"'), (b"text", b'"' + b"\\u00e9x" * chance.choice([10, 20_000]) + b'"')])
    members = [
        (b"content", usual(chance, array([chance.choice([content, long]) for _ in range(chance.randrange(4))]))),
        (b"isError", chance.choice([b"true", b"false", value(chance, 1)])),
        (chance.choice([b"structuredContent", b"_meta", b"error", b"x"]), value(chance)),
    ]
    return usual(chance, thing(members), wrong=0.1)


def asking(chance: Random) -> bytes:
    """What only a server may ask of a client, and the gateway has not offered."""
    method = chance.choice([b"sampling/createMessage", b"elicitation/create", b"roots/list", b"ping", b"initialize"])
    return request(chance, method, chance.choice([None, value(chance), b'{"messages":[],"maxTokens":1}']))


def changed(chance: Random) -> bytes:
    return notification(chance, b"notifications/tools/list_changed", None)


def small_answer(chance: Random) -> bytes:
    """To a request that there is, was, will be or never was."""
    return answer(
        chance, chance.choice([b"0", b"1", b"2", b"3", b'"1"', b'"2"']), chance.choice([result, tools])(chance)
    )


SERVERS = [
    asking,
    changed,
    small_answer,
    small_answer,
    progress,
    cancelling,
    other_request,
    other_notification,
    no_message,
]


def server_line(chance: Random) -> bytes:
    if chance.random() < 0.08:
        return array([chance.choice(SERVERS)(chance) for _ in range(chance.choice([0, 1, 5, MANY]))])
    line = chance.choice(SERVERS)(chance)
    return grammar.mutated(chance, line) if chance.random() < 0.1 else line


def tool_server(chance: Random) -> tuple[Step, ...]:
    """One that goes through the handshake in its own way, or not at all, and then says anything."""
    server_id = chance.choice(["", "", "mine", unique(chance), "服务", "a" * 64])
    steps = list(dialled(0, TOOL_SERVER, some_agent(chance), server_id))
    if chance.random() < 0.85:
        steps += [Step(0, "wait", count=1, seconds=1.0), sent(chance, 0, answer(chance, b"0", introduction(chance)))]
        steps += [Step(0, "wait", count=3, seconds=0.3), sent(chance, 0, answer(chance, b"1", tools(chance)))]
    steps += [sent(chance, 0, server_line(chance)) for _ in range(chance.randint(0, 8))]
    return *steps, Step(0, "send", FENCE), Step(0, "expect", FENCE_ID)


def change_flood(chance: Random) -> tuple[Step, ...]:
    """list_changed without end, each list another one."""
    steps = good_server(0, some_agent(chance), unique(chance), unique(chance))
    floods = [Step(0, "send", frame(chance, changed(chance)) * 100) for _ in range(3)]
    answers = [sent(chance, 0, answer(chance, b"%d" % rpc_id, tools(chance))) for rpc_id in range(2, 6)]
    mixed = [step for pair in zip(floods, answers, strict=False) for step in pair]
    return *steps, *mixed, Step(0, "send", FENCE), Step(0, "expect", FENCE_ID)


def other_tools(chance: Random) -> tuple[Step, ...]:
    """Another list of tools again and again, each as large as may be: none of the old ones is kept for long."""
    steps = list(good_server(0, some_agent(chance), unique(chance), unique(chance)))
    for rpc_id in range(2, 8):
        one = b'{"name":"t","description":"%s%s"}' % (unique(chance).encode(), b"x" * 20_000)
        steps += [Step(0, "send", frame(chance, b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'))]
        steps += [Step(0, "wait", count=rpc_id + 2, seconds=0.4)]
        steps += [Step(0, "send", right_line(rpc_id, b'{"tools":[%s]}' % one))]
    return *steps, Step(0, "send", FENCE), Step(0, "expect", FENCE_ID)


# Calls


def right_line(rpc_id: int, body: bytes) -> bytes:
    return masked_frame(TEXT, b'{"jsonrpc":"2.0","id":%d,"result":%s}' % (rpc_id, body))


def good_server(number: int, agent: str, server_id: str, name: str) -> tuple[Step, ...]:
    """A tool server with one tool, as it should be; its first call has the id 2."""
    info = b'{"protocolVersion":"2024-11-05","capabilities":{},"serverInfo":{"name":"s","version":"1"}}'
    listed = b'{"tools":[{"name":"%s","inputSchema":{"type":"object"}}]}' % name.encode()
    return (
        *dialled(number, TOOL_SERVER, agent, server_id),
        Step(number, "wait", count=1, seconds=8.0),
        Step(number, "send", right_line(0, info)),
        Step(number, "wait", count=3, seconds=8.0),
        Step(number, "send", right_line(1, listed)),
    )


def calling(number: int, name: str, rpc_id: bytes = b'"c"') -> Step:
    params = b'{"name":"%s","arguments":{},"_meta":{"progressToken":7}}' % name.encode()
    line = b'{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":%s}' % (rpc_id, params)
    return Step(number, "send", masked_frame(TEXT, line))


def scene(chance: Random, agent: str) -> tuple[str, tuple[Step, ...]]:
    """A tool server (0) and a robot (1) that has just called its tool; the tool's name."""
    name = f"t{unique(chance)}"
    server = good_server(0, agent, unique(chance), name)
    steps = (*dialled(1, ROBOT, agent), Step(1, "seek", name.encode(), seconds=8.0), calling(1, name))
    return name, (*server, *steps, Step(0, "wait", count=4, seconds=8.0))


def broken_result(chance: Random) -> tuple[Step, ...]:
    """A call that is answered in broken ways, twice or never: it ends once, at the latest with the tool server."""
    _, steps = scene(chance, some_stage(chance))
    lines = [answer(chance, b"2", result(chance)) for _ in range(chance.choice([0, 1, 1, 2]))]
    lines += [progress(chance), notification(chance, b"notifications/progress", b'{"progressToken":2,"progress":1}')]
    chance.shuffle(lines)
    says = [sent(chance, 0, grammar.mutated(chance, line) if chance.random() < 0.1 else line) for line in lines]
    return *steps, *says, Step(0, "eof"), Step(1, "expect", b'"c"'), Step(1, "send", FENCE), Step(1, "expect", FENCE_ID)


def meddling(chance: Random) -> tuple[Step, ...]:
    """Others of the same agent, and of another, cancel, answer and report on a call that is not theirs."""
    agent = some_stage(chance)
    _, steps = scene(chance, agent)
    elsewhere = chance.choice([agent, agent, SHARED])
    kind = chance.choice([ROBOT, TOOL_SERVER])
    lines = [
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1}}',
        b'{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"wrong"}]}}',
    ]
    ids = [b'"c"', b"0", b"1", b"2", b"3", b"7", b'"2"']
    says = [Step(2, "send", masked_frame(TEXT, chance.choice(lines) % chance.choice(ids))) for _ in range(8)]
    end = (Step(2, "send", FENCE), Step(2, "expect", FENCE_ID))
    right = right_line(2, b'{"content":[{"type":"text","text":"%s"}]}' % RIGHT)
    return *steps, *dialled(2, kind, elsewhere), *says, *end, Step(0, "send", right), Step(1, "expect", b'"c"', count=1)


def cancelled_call(chance: Random) -> tuple[Step, ...]:
    """Cancelled, answered nevertheless, and cancelled again; with ids used twice."""
    name, steps = scene(chance, some_stage(chance))
    again = [calling(1, name, chance.choice([b'"c"', b"1", b"2", *grammar.IDS])) for _ in range(chance.randrange(5))]
    cancels = [sent(chance, 1, cancelling(chance)) for _ in range(3)]
    says = [
        *again,
        *cancels,
        Step(
            1,
            "send",
            masked_frame(TEXT, b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c"}}'),
        ),
    ]
    chance.shuffle(says)
    answers = [sent(chance, 0, answer(chance, b"%d" % rpc_id, result(chance))) for rpc_id in range(2, 6)]
    return *steps, *says, *answers, Step(1, "send", FENCE), Step(1, "expect", FENCE_ID)


def any_message(chance: Random) -> bytes:
    """One message of either side, for the decoders."""
    return chance.choice([robot_line, server_line, no_message])(chance)


PLAYS: dict[str, tuple[Play, float]] = {
    "robot": (robot, 9),
    "tool server": (tool_server, 7),
    "list flood": (listing_flood, 0.2),
    "change flood": (change_flood, 0.3),
    "other tools": (other_tools, 0.8),
    "broken result": (broken_result, 2),
    "meddling": (meddling, 1.5),
    "cancelled call": (cancelled_call, 1),
}
