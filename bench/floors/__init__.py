"""Bare relays: the least that any program on this server stack must spend to move a call."""
