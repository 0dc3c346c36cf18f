"""A case: what its peers do to the gateway, step by step, as a value that can be kept, played again and cut down."""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any, Literal

import orjson

Deed = Literal["dial", "send", "wait", "pause", "expect", "seek", "stall", "eof", "reset"]

RIGHT = b"the right result"


@dataclass(frozen=True, slots=True)
class Step:
    """One deed of one peer.

    * dial: connect
    * send: `data`, in pieces of `count` bytes with `seconds` between them, if given
    * wait: until it has got an answer to its handshake and `count` text frames, or `seconds` are over
    * pause: `seconds`
    * expect: the request whose id is `data` must be answered, unless the connection ends; with `count`, it must be
      answered with the result `RIGHT`, whatever else happens
    * seek: ask for the list of tools until `data` is in it, or `seconds` are over
    * stall: read no more
    * eof: close for writing
    * reset: drop the socket
    """

    peer: int
    do: Deed
    data: bytes = b""
    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """What is played. `kind` names the generator."""

    kind: str
    steps: tuple[Step, ...]

    @property
    def peers(self) -> list[int]:
        return sorted({step.peer for step in self.steps})

    def dump(self) -> bytes:
        """The case as JSON text; bytes are in base64."""
        steps = [{**asdict(step), "data": base64.b64encode(step.data).decode()} for step in self.steps]
        return orjson.dumps({"kind": self.kind, "steps": steps}, option=orjson.OPT_INDENT_2)


def load(text: bytes) -> Case:
    """What `Case.dump` has written."""
    whole: dict[str, Any] = orjson.loads(text)
    steps = (Step(**{**step, "data": base64.b64decode(step["data"])}) for step in whole["steps"])
    return Case(whole["kind"], tuple(steps))


def chance_of(seed: int, number: int) -> Random:
    """The dice of one case: the same ones whatever was played before it."""
    return Random(f"{seed}:{number}")


def smaller(steps: Sequence[Step]) -> Iterator[tuple[Step, ...]]:
    """Versions of these steps with something left out, the largest cuts first."""
    size = len(steps) // 2
    while size:
        for start in range(0, len(steps), size):
            yield (*steps[:start], *steps[start + size :])
        size //= 2
    for place, step in enumerate(steps):
        size = len(step.data) // 2 if step.do == "send" else 0
        while size:
            for start in range(0, len(step.data), size):
                cut = replace(step, data=step.data[:start] + step.data[start + size :])
                yield (*steps[:place], cut, *steps[place + 1 :])
            size //= 2


def minimised(case: Case, still_fails: Callable[[Case], bool], tries: int) -> Case:
    """The smallest case found that still fails, with at most so many tries."""
    found = True
    while found:
        found = False
        for steps in smaller(case.steps):
            if tries <= 0:
                return case
            tries -= 1
            if steps and still_fails(Case(case.kind, steps)):
                case, found = Case(case.kind, steps), True
                break
    return case
