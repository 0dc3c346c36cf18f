"""Whole workers on a small Redis, in virtual time, with faults by seed: see `tests.simulation.__main__`."""
