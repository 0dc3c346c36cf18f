"""Which case has which number: `case_of(seed, number)`, the same one every time."""

from tests.fuzz import framing, handshakes, messages
from tests.fuzz.handshakes import Play
from tests.fuzz.script import Case, chance_of

PLAYS: dict[str, tuple[Play, float]] = {**handshakes.PLAYS, **framing.PLAYS, **messages.PLAYS}
_KINDS = list(PLAYS)
_WEIGHTS = [weight for _, weight in PLAYS.values()]


def case_of(seed: int, number: int, kind: str = "") -> Case:
    """The case of this number; of one kind only, if one is given."""
    chance = chance_of(seed, number)
    chosen = kind or chance.choices(_KINDS, _WEIGHTS)[0]
    return Case(chosen, PLAYS[chosen][0](chance))
