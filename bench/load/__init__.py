"""Generators of load, each a process of its own."""
