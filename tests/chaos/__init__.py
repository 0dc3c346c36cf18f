"""Faults on purpose, and a checker that believes only the clients: `checker` has the promise, `faults` the list."""
