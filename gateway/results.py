"""A tool server's answer as a robot can bear it: one of result or error, its own id, and below the size limit."""

from dataclasses import dataclass
from typing import Any

from gateway import jsonrpc
from gateway.errors import Code
from gateway.jsonrpc import RpcId

# What belongs to one connection and says nothing to the next (`mcp-protocol.md` §3).
CONNECTION_META = frozenset(
    f"io.modelcontextprotocol/{name}"
    for name in ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel", "serverInfo", "subscriptionId")
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What one robot needs of an answer."""

    limit_bytes: int
    with_error_text: bool
    """Repeat the text of an isError result as `result.error`: xiaozhi-server shows nothing else of it."""


def answer(rpc_id: RpcId, message: dict[str, Any], shape: Shape) -> bytes:
    """The frame that answers `rpc_id` with a tool server's response. Never above the limit."""
    error = message.get("error")
    if error is not None or "result" not in message:
        return error_frame(rpc_id, error, shape.limit_bytes)
    result = message["result"]
    if shape.with_error_text and type(result) is dict and result.get("isError") is True:
        result = {**result, "error": result.get("error") or _text_of(result) or "error"}
    try:
        frame = jsonrpc.result(rpc_id, result)
    except jsonrpc.Undumpable:
        return jsonrpc.error(rpc_id, _internal("the result is nested too deep"))
    if len(frame) <= shape.limit_bytes:
        return frame
    room_bytes = shape.limit_bytes - len(jsonrpc.dumps(rpc_id))
    return jsonrpc.result(rpc_id, shrink(result, len(frame), shape, room_bytes))


def error_frame(rpc_id: RpcId, error: Any, limit_bytes: int) -> bytes:
    """A tool server's own error, verbatim where it is one."""
    if type(error) is not dict or type(error.get("code")) is not int or type(error.get("message")) is not str:
        error = _internal(jsonrpc.excerpt(error, 200))
    try:
        frame = jsonrpc.error(rpc_id, error)
    except jsonrpc.Undumpable:
        frame = b""
    if frame and len(frame) <= limit_bytes:
        return frame
    room_bytes = (limit_bytes - len(jsonrpc.dumps(rpc_id))) // 2
    return jsonrpc.error(rpc_id, {"code": error["code"], "message": _fitting(error["message"], room_bytes)})


def progress_frame(token: RpcId | None, params: dict[str, Any], limit_bytes: int) -> bytes:
    """A progress notification under this token; of one above the limit only the numbers are left.

    Raises jsonrpc.Undumpable.
    """
    frame = jsonrpc.notification("notifications/progress", {**params, "progressToken": token})
    if len(frame) <= limit_bytes:
        return frame
    numbers = {key: params[key] for key in ("progress", "total") if type(params.get(key)) in (int, float)}
    return jsonrpc.notification("notifications/progress", {**numbers, "progressToken": token})


def shrink(result: Any, size_bytes: int, shape: Shape, room_bytes: int) -> dict[str, Any]:
    """A result that is too large: its text cut with a notice if it is text only, else an isError that says so.

    `room_bytes` is what the robot's id leaves of the limit.
    """
    notice = (
        f"\n[结果过长已截断：{size_bytes} 字节，上限 {shape.limit_bytes} / "
        f"result cut: {size_bytes} bytes, limit {shape.limit_bytes}]"
    )
    if _is_text_only(result):
        return _cut(result, room_bytes, notice)
    text = (
        f"工具结果过大：{size_bytes} 字节，上限 {shape.limit_bytes} 字节 / "
        f"the tool's result is too large: {size_bytes} bytes, limit {shape.limit_bytes} bytes"
    )
    too_large: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": True}
    return {**too_large, "error": text} if shape.with_error_text else too_large


def _cut(result: dict[str, Any], room_bytes: int, notice: str) -> dict[str, Any]:
    """The blocks from the front as far as they fit, the last one cut between two characters."""
    error = {"error": _fitting(str(result["error"]), 1024)} if "error" in result else {}
    room = room_bytes - len(jsonrpc.dumps({"notice": notice, **error})) - 512
    kept: list[dict[str, Any]] = []
    for block in result["content"]:
        size = len(jsonrpc.dumps(block)) + 1
        if size > room:
            kept.append({"type": "text", "text": _fitting(block["text"], room - 64) + notice})
            break
        kept.append(block)
        room -= size
    flag = {"isError": True} if result.get("isError") is True else {}
    return {"content": kept, **flag, **error}


def _fitting(text: str, room_bytes: int) -> str:
    """The longest beginning of the text whose JSON form takes at most `room_bytes`."""
    low, high = 0, min(len(text), max(0, room_bytes))
    while low < high:
        middle = (low + high + 1) // 2
        if len(jsonrpc.dumps(text[:middle])) <= room_bytes:
            low = middle
        else:
            high = middle - 1
    return text[:low]


def _is_text_only(result: Any) -> bool:
    if type(result) is not dict or result.get("structuredContent") is not None:
        return False
    content = result.get("content")
    return type(content) is list and all(
        type(block) is dict and block.get("type") == "text" and type(block.get("text")) is str for block in content
    )


def _text_of(result: dict[str, Any]) -> str:
    content = result.get("content")
    blocks = content if type(content) is list else []
    texts = [block.get("text") for block in blocks if type(block) is dict]
    return "\n".join(text for text in texts if type(text) is str)


def _internal(what: str) -> dict[str, Any]:
    return {
        "code": int(Code.INTERNAL_ERROR),
        "message": f"MCP 服务器的回应无法使用：{what} / unusable answer of the tool server: {what}",
    }


def without_connection_meta(container: dict[str, Any]) -> dict[str, Any]:
    """The params or result without the `_meta` entries that belong to the connection it came over."""
    meta = container.get("_meta")
    if type(meta) is not dict or CONNECTION_META.isdisjoint(meta):
        return container
    return {**container, "_meta": {key: value for key, value in meta.items() if key not in CONNECTION_META}}
