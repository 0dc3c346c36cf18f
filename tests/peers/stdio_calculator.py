"""A small MCP server over stdio, for the public bridges: run as a program, raw JSON-RPC, nothing but Python needed.

`CALCULATOR_BANNER` is printed first, as real ones do by accident (bridges pass that on as a frame);
`CALCULATOR_NAME` is what it calls itself, and its tool in small letters.
"""

import json
import os
import sys
from typing import Any

NAME = os.environ.get("CALCULATOR_NAME", "Calculator")
TOOLS = [
    {
        "name": NAME.lower(),
        "description": "Evaluates a sum: the two numbers are added.",
        "inputSchema": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    }
]


def result_of(method: str, params: dict[str, Any]) -> Any:
    """The result of a request; None for a method that is not known."""
    match method:
        case "initialize":
            version = params.get("protocolVersion", "2024-11-05")
            info = {"name": NAME, "version": "1.0.0"}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        case "ping":
            return {}
        case "tools/list":
            return {"tools": TOOLS}
        case "tools/call":
            arguments = params.get("arguments") or {}
            text = str(arguments.get("a", 0) + arguments.get("b", 0))
            return {"content": [{"type": "text", "text": text}], "isError": False}
    return None


def answer(line: str) -> None:
    """Read one message and print what it deserves."""
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        return
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    result = result_of(message["method"], message.get("params") or {})
    if result is None:
        reply["error"] = {"code": -32601, "message": "Method not found"}
    else:
        reply["result"] = result
    print(json.dumps(reply), flush=True)  # noqa: T201 - stdout is the wire


def main() -> None:
    """Serve until stdin ends."""
    if banner := os.environ.get("CALCULATOR_BANNER"):
        print(banner, flush=True)  # noqa: T201 - noise, on purpose
    for line in sys.stdin:
        if line.strip():
            answer(line)


if __name__ == "__main__":
    main()
