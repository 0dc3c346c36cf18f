"""The MCP gateway of the xiaozhi world: tool servers and robots dial in, calls find their way."""

__version__ = "0.1.0"
