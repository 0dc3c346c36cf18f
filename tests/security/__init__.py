"""Attacks, each by its name."""
