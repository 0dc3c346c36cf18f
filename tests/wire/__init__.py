"""The wire on real sockets: a tiny app behind the gateway's server, and peers that behave as badly as they can."""
