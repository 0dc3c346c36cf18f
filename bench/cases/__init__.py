"""Every case, in the order of the table."""

from bench.case import Case
from bench.cases import calls, connections, door, scale, trouble

ALL: tuple[Case, ...] = (*calls.CASES, *connections.CASES, *door.CASES, *scale.CASES, *trouble.CASES)
