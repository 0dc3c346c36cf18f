"""How a setting is declared: its kind and unit, its default, its range, and the reason for it."""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gateway.quantities import KIB, MIB, format_size


class Kind(Enum):
    """How a setting is written. The value is its unit, for `.env.example`."""

    TEXT = "文本 text"
    LIST = "逗号分隔 comma-separated"
    COUNT = "个 count"
    SIZE = "字节 bytes (KiB, MiB)"
    SECONDS = "秒 seconds"
    SHARE = "比例 share"


@dataclass(frozen=True, slots=True)
class Spec:
    """What is known of one setting besides its name and default."""

    kind: Kind
    reason: str
    low: float = -math.inf
    high: float = math.inf
    example: str = ""
    choices: tuple[str, ...] = ()
    is_secret: bool = False
    """Never shown: not in an error, not in a repr."""


def text(
    default: str, reason: str, *, example: str = "", choices: tuple[str, ...] = (), is_secret: bool = False
) -> str:
    spec = Spec(Kind.TEXT, reason, example=example, choices=choices, is_secret=is_secret)
    return field(default=default, metadata={"spec": spec})


def names(default: tuple[str, ...], reason: str, *, example: str, is_secret: bool = False) -> tuple[str, ...]:
    spec = Spec(Kind.LIST, reason, example=example, is_secret=is_secret)
    return field(default=default, metadata={"spec": spec})


def count(default: int, reason: str, *, low: int = 1, high: float = 10_000_000) -> int:
    return field(default=default, metadata={"spec": Spec(Kind.COUNT, reason, low, high)})


def size(default: int, reason: str, *, low: int = 4 * KIB, high: int = 256 * MIB) -> int:
    return field(default=default, metadata={"spec": Spec(Kind.SIZE, reason, low, high)})


def seconds(default: float, reason: str, *, low: float = 0.001, high: float = 86_400.0) -> float:
    return field(default=default, metadata={"spec": Spec(Kind.SECONDS, reason, low, high)})


def share(default: float, reason: str) -> float:
    return field(default=default, metadata={"spec": Spec(Kind.SHARE, reason, 0.0, 1.0)})


def written(kind: Kind, value: Any) -> str:
    """Return a value as it is written in the environment."""
    match kind:
        case Kind.LIST:
            return ",".join(value)
        case Kind.SIZE:
            return format_size(value)
        case Kind.SECONDS | Kind.SHARE:
            return f"{value:.12g}"  # a month has more digits than `g` shows
        case _:
            return str(value)
