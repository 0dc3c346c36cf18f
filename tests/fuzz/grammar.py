"""JSON and JSON-RPC as text, right and wrong: built as bytes, since no encoder writes what must be tried here."""

from collections.abc import Sequence
from random import Random

TEXTS = [
    b'""',
    b'"x"',
    b'"1"',
    b'"2.0"',
    b'"__proto__"',
    b'"\\u0000"',
    b'"\\ud800"',
    b'"\\udfff\\ud800"',
    b'"\xff\xfe"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"',
    '"\u202e\u200b\ufeff\u2028"'.encode(),
    '"工具"'.encode(),
    b'"\\u202e\\u200b\\ufeff\\u0007\\u001b[31m"',
    b'"a\\n2026 ERROR x\\r\\n{}"',
    b'"\t"',
    b'"\\x41"',
    b'"unended',
    b'"' + b"x" * 1024 + b'"',
    b'"' + b"x" * 5000 + b'"',
    b'"%s%n%(x)s{0}"',
    b'"../../etc"',
    b'"mcpgw:call:*"',
    b'"{home}"',
]
NUMBERS = [
    b"0",
    b"1",
    b"2",
    b"-1",
    b"-0",
    b"0.0",
    b"1.0",
    b"1.5",
    b"1e3",
    b"1e308",
    b"1e999",
    b"-1e999",
    b"1e-400",
    b"2147483647",
    b"2147483648",
    b"9007199254740993",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9" * 400,
    b"0." + b"9" * 400,
    b"01",
    b"+1",
    b".5",
    b"1.",
    b"0x10",
    b"NaN",
    b"Infinity",
    b"-Infinity",
]
OTHERS = [
    b"null",
    b"true",
    b"false",
    b"[]",
    b"{}",
    b"[null]",
    b'{"":{}}',
    b"",
    b" ",
    b"undefined",
    b"None",
    b"//",
    b"]",
    b"}",
]
DEEP = [b"[" * depth + b"1" + b"]" * depth for depth in (100, 250, 260, 1000, 1030, 5000)] + [
    b'{"a":' * depth + b"1" + b"}" * depth for depth in (100, 250, 260, 1000, 1030, 5000)
]
DEEP += [b"[" * 20_000, b'{"a":' * 5_000]
WIDE = [b"[" + b"0," * 9_000 + b"NaN]", b"[" + b"{}," * 6_000 + b"0]", b'{"a":0,' + b'"b":{},' * 3_000 + b'"c":1}']
IDS = [
    *(b"0", b"1", b"2", b"3", b"-1", b'"1"', b'""', b"1.0", b"1.5", b"true", b"false", b"null", b"[]", b"{}", b"[1]"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"1e3", b"9" * 400),
    *(b'"' + b"i" * size + b'"' for size in (64, 1024, 1025, 9000)),
    *(b'"\\ud800"', b'"\\u0000"', '"编号"'.encode(), b"NaN"),
]
METHODS = [
    *(b"initialize", b"notifications/initialized", b"ping", b"tools/list", b"tools/call", b"notifications/cancelled"),
    *(b"notifications/progress", b"notifications/tools/list_changed", b"notifications/message", b"roots/list"),
    *(b"sampling/createMessage", b"elicitation/create", b"resources/list", b"prompts/get", b"logging/setLevel"),
    *(b"completion/complete", b"tasks/get", b"rpc.discover", b"", b"x" * 4000, b"\\ud800", b"\\u0000"),
]
VERSIONS = [b'"2024-11-05"', b'"2025-03-26"', b'"2025-06-18"', b'"2025-11-25"', b'"1.0"', b'""', b"null", b"1", b"[]"]
KEYS = [
    b"a",
    b"",
    b"id",
    b"name",
    b"method",
    b"type",
    b"_meta",
    b"__proto__",
    b"\\u0000",
    b"\\ud800",
    b"required",
    b"error",
]


def value(chance: Random, depth: int = 3) -> bytes:
    """The text of any JSON value, or of something that is none."""
    roll = chance.random()
    if roll < 0.03:
        return chance.choice(DEEP if roll < 0.025 else WIDE)
    if depth and roll < 0.25:
        return array([value(chance, depth - 1) for _ in range(chance.randrange(4))])
    if depth and roll < 0.5:
        return thing([(chance.choice(KEYS), value(chance, depth - 1)) for _ in range(chance.randrange(5))])
    return chance.choice(chance.choice([TEXTS, NUMBERS, OTHERS]))


def thing(members: Sequence[tuple[bytes, bytes]]) -> bytes:
    """An object; a key may be in it twice."""
    return b"{" + b",".join(b'"%s":%s' % member for member in members) + b"}"


def array(members: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(members) + b"]"


def text(words: bytes | str) -> bytes:
    """A string that needs no escapes."""
    return b'"' + (words.encode() if isinstance(words, str) else words) + b'"'


def usual(chance: Random, right: bytes, *, wrong: float = 0.2) -> bytes:
    """The right value, or now and then any other."""
    return value(chance, 2) if chance.random() < wrong else right


def message(chance: Random, members: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A JSON-RPC message of these members; one of them missing, doubled or replaced now and then."""
    whole = [(b"jsonrpc", b'"2.0"'), *members]
    roll = chance.random()
    place = chance.randrange(len(whole))
    if roll < 0.06:
        del whole[place]
    elif roll < 0.12:
        whole.append((whole[place][0], value(chance, 2)))
    elif roll < 0.22:
        whole[place] = (whole[place][0], value(chance, 2))
    elif roll < 0.26:
        whole.insert(place, (chance.choice(KEYS), value(chance, 2)))
    return thing(whole)


def request(chance: Random, method: bytes, params: bytes | None, rpc_id: bytes | None = None) -> bytes:
    members = [(b"id", chance.choice(IDS) if rpc_id is None else rpc_id), (b"method", text(method))]
    return message(chance, members if params is None else [*members, (b"params", params)])


def notification(chance: Random, method: bytes, params: bytes | None) -> bytes:
    return message(chance, [(b"method", text(method)), *([] if params is None else [(b"params", params)])])


def answer(chance: Random, rpc_id: bytes, result: bytes) -> bytes:
    """A response; with an error instead of a result, or with both, now and then."""
    roll = chance.random()
    error = thing(
        [(b"code", usual(chance, b"-32000")), (b"message", usual(chance, b'"no"')), (b"data", value(chance, 2))]
    )
    members = [(b"result", result)] if roll < 0.85 else [(b"error", usual(chance, error, wrong=0.5))]
    return message(chance, [(b"id", rpc_id), *members, *([(b"error", value(chance, 1))] if roll > 0.95 else [])])


def mutated(chance: Random, data: bytes, most: int = 4) -> bytes:
    """The bytes with up to so many wounds: flipped, cut, doubled, inserted, moved."""
    bytes_ = bytearray(data)
    for _ in range(chance.randint(1, most)):
        start = chance.randrange(len(bytes_) + 1)
        end = min(len(bytes_), start + chance.choice([1, 1, 2, 4, 16, 200]))
        match chance.randrange(6):
            case 0 if start < len(bytes_):
                bytes_[start] ^= 1 << chance.randrange(8)
            case 1:
                del bytes_[start:end]
            case 2:
                bytes_[start:start] = bytes_[start:end]
            case 3:
                bytes_[start:start] = chance.choice(
                    [b"\x00", b"\xff", b"\r\n", b"\n", b" ", b'"', b"{", b"[", b"\x81\xfe\xff\xff"]
                )
            case 4:
                bytes_[start:end] = chance.randbytes(end - start)
            case _:
                bytes_ = bytes_[start:] + bytes_[:start]
    return bytes(bytes_)
