"""The peers of the gateway, as the tests play them: every client that is deployed today, in small.

`wire` is one WebSocket and everything that arrived on it. `tool_server` and `robot` are plain, scriptable MCP peers;
the other files imitate one real program each, quirks included, and their docstrings say which.
"""
