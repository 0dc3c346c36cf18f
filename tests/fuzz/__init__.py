"""Peers made of chance: bytes, frames, messages and conversations that no client sends, against a live worker."""
