"""The promise, checked by accounting: what robots asked, what they were told, and what tool servers ran.

Theory of operation
-------------------
A pure function over the entries of the logbook; the gateway is never asked. Every request gets exactly one answer by
its deadline and `SLACK_SECONDS`, unless its robot's socket was closed, or its robot took it back, before that. No
call is run twice. None is run that was answered with `executed: false`, and none begins to run after its robot was
told how it ended. An answer reaches only the robot that asked, and a tool server sees only its own agent's calls.

Whoever was frozen (`frozen` entries: a worker, a process of peers, one deaf tool server) could not answer meanwhile:
that time is added to the deadlines of the calls that went through its hands.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.logbook import Entry

SLACK_SECONDS = 2.0
RUN_SLACK_SECONDS = 1.0
"""Between an answer and the tool server's own note of a call that was on its way to it: scheduling, not forgetting."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise, with what the logs say of it."""

    kind: str
    call: int
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: call {self.call}: {self.text}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the calls, and every broken promise."""

    counts: Counter[str]
    """issued, result, error:false, error:unknown, error:true, error:none, abandoned, cancelled, run"""
    violations: list[Violation]

    def of_kind(self, *kinds: str) -> int:
        return sum(violation.kind in kinds for violation in self.violations)


@dataclass(slots=True)
class Fate:
    """All that is known of one call."""

    ask: Entry | None = None
    answers: list[Entry] = field(default_factory=list)
    cancelled_at: float | None = None
    runs: list[Entry] = field(default_factory=list)


class Books:
    """The entries, sorted by call; made once, asked often."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.fates: dict[int, Fate] = defaultdict(Fate)
        self.closed_at: dict[str, float] = {}
        self.strays: list[Entry] = []
        self.frozen: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.ended_at: dict[str, list[float]] = defaultdict(list)
        for entry in entries:
            self._sort_in(entry)

    def _sort_in(self, entry: Entry) -> None:
        match entry["kind"]:
            case "ask":
                self.fates[entry["call"]].ask = entry
            case "answer":
                self.fates[entry["call"]].answers.append(entry)
            case "cancel":
                self.fates[entry["call"]].cancelled_at = entry["at"]
            case "begin":
                self.fates[entry["call"]].runs.append(entry)
            case "stray":
                self.strays.append(entry)
            case _:
                self._note_absence(entry)

    def _note_absence(self, entry: Entry) -> None:
        match entry["kind"]:
            case "closed":
                self.closed_at.setdefault(entry["robot"], entry["at"])
            case "ended":
                self.ended_at[entry["name"]].append(entry["at"])
            case "frozen":
                self.frozen[entry["name"]].append((entry["since"], entry["until"]))

    def pardon(self, names: Iterable[str], since: float) -> float:
        """How long any of these were frozen after that moment."""
        return sum(max(0.0, until - max(begun, since)) for name in names for begun, until in self.frozen.get(name, ()))

    def gone_at(self, ask: Entry) -> float:
        """When there was nobody left to be answered: its socket was closed, or its process ended."""
        ends = [at for at in self.ended_at.get(ask["who"], ()) if at >= ask["at"]]
        return min([self.closed_at.get(ask["robot"], math.inf), *ends])

    def due(self, ask: Entry) -> float:
        """When the answer is owed at the latest."""
        pardon = self.pardon((ask["who"], ask["worker"], ask["robot"]), ask["at"])
        return float(ask["at"]) + float(ask["seconds"]) + SLACK_SECONDS + pardon


def check(
    entries: Sequence[Entry], *, since: float = 0.0, until: float = math.inf, results_due: bool = False
) -> Verdict:
    """The verdict on all entries; only calls asked from `since` on are counted (earlier ones are there to be known).

    What is not due before `until`, when the entries end, may still be answered. With `results_due` every call has to
    end in a result: for scenarios in which nothing else is excusable.
    """
    books = Books(entries)
    violations = [
        Violation("misdelivered", stray.get("call", 0), f"{stray['robot']}: {stray['what']}")
        for stray in books.strays
        if stray["at"] >= since
    ]
    counts: Counter[str] = Counter()
    known = min((fate.ask["call"] for fate in books.fates.values() if fate.ask is not None), default=0)
    for call, fate in books.fates.items():
        if fate.ask is None:
            violations += _unasked(call, fate, known)
            continue
        if fate.ask["at"] >= since:
            _count(counts, fate, books)
        is_due = results_due and fate.ask["at"] >= since
        violations += _of_answers(call, fate.ask, fate, books, results_due=is_due)
        if not fate.answers and books.due(fate.ask) <= until:
            violations += _of_silence(call, fate.ask, fate, books)
        violations += _of_runs(call, fate.ask, fate, books)
    return Verdict(counts, violations)


def _unasked(call: int, fate: Fate, known: int) -> list[Violation]:
    """Calls that nobody made; those from before the entries begin are not known here."""
    return [Violation("invented", call, _line(entry)) for entry in fate.runs + fate.answers if call >= known]


def _count(counts: Counter[str], fate: Fate, books: Books) -> None:
    if fate.ask is None or fate.ask["method"] != "tools/call":
        return
    counts["issued"] += 1
    counts["run"] += len(fate.runs)
    if fate.answers:
        answer = fate.answers[0]
        counts["result" if answer["outcome"] == "result" else f"error:{_said(answer)}"] += 1
    elif fate.cancelled_at is not None:
        counts["cancelled"] += 1
    elif fate.ask is not None and books.gone_at(fate.ask) < math.inf:
        counts["abandoned"] += 1


def _said(answer: Entry) -> str:
    return str(answer["executed"]).lower()


def _of_answers(call: int, ask: Entry, fate: Fate, books: Books, *, results_due: bool) -> list[Violation]:
    found = []
    due = books.due(ask)
    if len(fate.answers) > 1:
        found.append(Violation("answered twice", call, " · ".join(map(_line, fate.answers))))
    for answer in fate.answers:
        if answer["robot"] != ask["robot"]:
            found.append(Violation("misdelivered", call, f"asked by {ask['robot']}, answered to {answer['robot']}"))
        if answer["at"] > due:
            found.append(Violation("late", call, f"{answer['at'] - ask['at']:.2f} s after it was asked; {_line(ask)}"))
        if results_due and answer["outcome"] != "result":
            found.append(Violation("no result", call, _line(answer)))
    return found


def _of_silence(call: int, ask: Entry, fate: Fate, books: Books) -> list[Violation]:
    if fate.cancelled_at is not None or books.gone_at(ask) <= books.due(ask):
        return []
    return [Violation("lost", call, f"never answered; {_line(ask)}")]


def _of_runs(call: int, ask: Entry, fate: Fate, books: Books) -> list[Violation]:
    found = []
    if len(fate.runs) > 1:
        found.append(Violation("doubled", call, " · ".join(map(_line, fate.runs))))
    for run in fate.runs:
        if not run["agent"] == run["of"] == ask["agent"]:
            found.append(Violation("crossed", call, f"a call of {ask['agent']} was run by a server of {run['agent']}"))
        for answer in fate.answers[:1]:
            found += _of_run_and_answer(call, run, answer, books)
    return found


def _of_run_and_answer(call: int, run: Entry, answer: Entry, books: Books) -> list[Violation]:
    if answer["outcome"] == "error" and answer["executed"] is False:
        return [Violation("ran though refused", call, f"{_line(answer)} · {_line(run)}")]
    pardon = books.pardon((run["who"], f"{run['agent']}/{run['server']}"), answer["at"])
    late_seconds = run["at"] - answer["at"] - pardon
    if late_seconds > RUN_SLACK_SECONDS:
        return [Violation("ran after its end", call, f"{late_seconds:.2f} s after {_line(answer)}")]
    return []


def _line(entry: Entry) -> str:
    shown: dict[str, Any] = {name: value for name, value in entry.items() if name not in ("at", "call", "nonce")}
    return f"{entry['at']:.3f} " + " ".join(f"{name}={value}" for name, value in shown.items())
