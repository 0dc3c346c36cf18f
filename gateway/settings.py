"""Every setting of the gateway, each declared once: name, default, unit, range and reason.

Theory of operation
-------------------
A setting `frame_bytes` is the environment variable `GATEWAY_FRAME_BYTES`. `.env.example` is generated from the
declarations below (`python -m gateway.settings`), and `gateway.configuration` reads the values: the environment wins
over `.env`, that over an existing `mcp-endpoint-server.cfg`, that over the defaults. The name ends in the unit.

A `Settings` built directly is not checked: ranges guard what people type, and tests need times that nobody should.
"""

import dataclasses
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.declared import Spec, count, names, seconds, share, size, text, written
from gateway.quantities import KIB, MIB
from gateway.redaction import HIDDEN, redact

ENV_PREFIX = "GATEWAY_"


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """One gateway process's settings; the name ends in the unit. `gateway.configuration.load` makes checked ones."""

    host: str = text(
        "0.0.0.0", "监听地址；机器人和工具都要能连到 / Address to listen on; all peers dial in from other machines"
    )
    port: int = count(
        8004, "监听端口；与 mcp-endpoint-server 相同 / Port; that of mcp-endpoint-server", low=0, high=65_535
    )
    key: tuple[str, ...] = names(
        (),
        "密钥：第一个签发令牌，全部都可验证（便于轮换）。单机未设置时自动生成并保存；用 Redis 时必填\n"
        "Keys: the first signs tokens, all of them verify (rotation). Made and kept if unset; required with Redis",
        example="<openssl rand -hex 16>",
        is_secret=True,
    )
    redis_url: str = text(
        "",
        "工作进程之间的 Redis；空 = 单进程内存背板 / Redis between workers; empty = one process, memory only\n"
        "redis://, rediss:// (TLS), unix://, redis+sentinel://host,host/name, redis+cluster://host,host",
        example="redis://:password@redis:6379/0",
        is_secret=True,
    )
    redis_prefix: str = text(
        "mcpgw:", "Redis 键前缀，一个 Redis 可供几套网关 / Key prefix: several gateways may share one Redis"
    )
    workers: int = count(
        1, "本机工作进程数；多于 1 需要 Redis / Worker processes here; more than 1 needs Redis", high=256
    )
    public_url: str = text(
        "",
        "别人访问本网关的地址，用来打印要粘贴的网址；空 = 猜测局域网地址\n"
        "Base URL by which others reach the gateway, for the URLs to paste; empty = a guess at the LAN address",
        example="https://mcp.example.com",
    )
    log_level: str = text("INFO", "日志级别 / Log level", choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    log_format: str = text(
        "text", "日志格式：text 给人看，json 给机器 / text for people, json for machines", choices=("text", "json")
    )
    call_log: str = text(
        "errors",
        "哪些结束的调用写进日志：errors = 失败的，all = 全部，none = 不写\n"
        "Which ended calls are logged: errors = those that failed, all, none; a busy fleet ends thousands a second",
        choices=("errors", "all", "none"),
    )
    trace_url: str = text(
        "",
        "OpenTelemetry 链路追踪的 OTLP/HTTP 地址；空 = 关闭。需要 pip install 'xiaozhi-mcp-gateway[otel]'\n"
        "OTLP/HTTP endpoint of OpenTelemetry traces; empty = off. Needs the extra `otel`",
        example="http://otel-collector:4318/v1/traces",
        is_secret=True,
    )
    trace_share: float = share(
        1.0, "没有上级的调用中追踪多少 / Share of the calls without a parent span that are traced"
    )
    config_file: str = text(
        "",
        "现有的 mcp-endpoint-server.cfg；空 = 在 data/ 和当前目录里找\n"
        "An existing mcp-endpoint-server.cfg; empty = looked for in data/ and here",
        example="data/.mcp-endpoint-server.cfg",
    )
    data_dir: str = text(
        "data",
        "保存自动生成的密钥，以及不用 Redis 时的策略、吊销和工具定义\n"
        "Directory of the generated key and, without Redis, of policies, revocations and pins",
    )
    admin_port: int = count(
        0,
        "管理端口：/livez、/readyz、/metrics、/drain；0 = 没有，这时 /metrics 关闭。不要对外开放\n"
        "Port for /livez, /readyz, /metrics and /drain; 0 = none, and /metrics is off. Not for the public",
        low=0,
        high=65_535,
    )
    admin_host: str = text(
        "",
        "管理端口的监听地址；空 = 与 GATEWAY_HOST 相同 / Address of the admin port; empty = that of GATEWAY_HOST",
        example="127.0.0.1",
    )
    metrics_key: str = text(
        "",
        "/metrics 的密钥（Authorization: Bearer …），至少 16 个字符；空 = 不需要\n"
        "Key of /metrics (Authorization: Bearer …), 16 characters or more; empty = none is needed",
        example="<openssl rand -hex 16>",
        is_secret=True,
    )
    admin_key: str = text(
        "",
        "POST /drain 的密钥（Authorization: Bearer …），至少 16 个字符；空 = 没有这个接口\n"
        "Key of POST /drain (Authorization: Bearer …), 16 characters or more; empty = there is no such path",
        example="<openssl rand -hex 16>",
        is_secret=True,
    )
    origins: tuple[str, ...] = names(
        ("*",),
        "哪些网页可以连接 WebSocket、读取 HTTP 回答（CORS）；不是浏览器的客户端不受影响\n"
        "Web pages that may dial (WebSocket) and read HTTP answers (CORS); clients that are no browsers always may",
        example="https://console.example.com",
    )
    trusted_proxies: tuple[str, ...] = names(
        (),
        "可信的反向代理（IP 或网段）：只信它们的 X-Forwarded-For；空 = 谁都不信\n"
        "Reverse proxies (addresses or networks) whose X-Forwarded-For is believed; empty = nobody's",
        example="10.0.0.0/8,192.168.1.7",
    )
    health_key: str = text(
        "",
        "只能打开健康检查的密钥，给监控用，至少 16 个字符；空 = 只有 GATEWAY_KEY\n"
        "Key that opens the health answer only, for monitors, 16 characters or more; empty = only GATEWAY_KEY does",
        example="<openssl rand -hex 16>",
        is_secret=True,
    )
    legacy_tokens: str = text(
        "all",
        "旧式令牌（不过期、不能逐个吊销）还可用于哪个角色：mcp = 只作工具服务器，call = 只作小智端，none = 都不行\n"
        "For which role the old tokens (no expiry, revoked per agent only) still work: all, mcp, call or none",
        choices=("all", "mcp", "call", "none"),
    )
    envelope_key: tuple[str, ...] = names(
        (),
        "进程间消息的签名密钥，至少 16 个字符，各进程相同：第一个签名，全部都可验证；空 = 不签名\n"
        "Keys that sign messages between workers, the same for all: the first signs, all verify; empty = none.\n"
        "docs/redis.md, Signatures, has how to begin, and how to change them, without a gap",
        example="<openssl rand -hex 32>",
        is_secret=True,
    )
    call_records: str = text(
        "full",
        "Redis 里的调用记录：full = 含参数和结果（丢失的消息可找回），bare = 不含内容\n"
        "Records of calls in Redis: full = with arguments and result (a lost message is found again), bare = without",
        choices=("full", "bare"),
    )
    pins: str = text(
        "off",
        "首次使用时记住工具的定义，之后变了怎么办：off = 不管，warn = 报告，block = 批准前不列出也不能调用\n"
        "Tools' definitions are pinned on first use; when one changes: off, warn = report it, block = until approved",
        choices=("off", "warn", "block"),
    )
    audit: str = text(
        "off",
        "审计记录（握手、调用、策略和令牌的变更；不含内容）写到哪里：off、log = 日志、stream = Redis 流\n"
        "Where audit records (handshakes, calls, changes of policy and tokens; never contents) go: off, log, stream",
        choices=("off", "log", "stream"),
    )
    audit_records: int = count(
        100_000, "审计流最多保留多少条 / Records kept in the audit stream; the oldest go first", low=1000
    )
    audit_seconds: float = seconds(
        2_592_000, "审计流里的记录最多保留多久 / How long records stay in the audit stream", low=60, high=1e9
    )
    audit_addresses: str = text(
        "whole",
        "审计记录里的地址：完整、只到网段、不记 / Addresses in audit records: whole, cut to a /24 or /48, or none",
        choices=("whole", "network", "none"),
    )

    frame_bytes: int = size(
        8 * MIB,
        "工具服务器一条消息的上限 / Largest message from a tool server; one may fill memory otherwise",
        low=64 * KIB,
    )
    robot_frame_bytes: int = size(1 * MIB, "小智端一条消息的上限 / Largest message from a robot; they send small ones")
    header_bytes: int = size(16 * KIB, "HTTP 请求头的上限 / Largest HTTP request head", low=KIB, high=MIB)
    header_seconds: float = seconds(
        10, "请求头必须在此时间内到齐 / A request head must be complete by then (slow senders)", high=300
    )
    result_bytes: int = size(
        512 * KIB,
        "发给小智端的一帧的上限，也是工具列表一页的上限；小智端在 1 MiB 时断开\n"
        "Largest frame to a robot, also one page of a tool list; robots hang up at 1 MiB",
        high=960 * KIB,
    )
    tools_per_server: int = count(1000, "一个工具服务器最多的工具 / Tools of one tool server; the rest is not listed")
    tools_per_agent: int = count(2000, "一个智能体最多的工具 / Tools of one agent; language models cope with far fewer")
    toolset_bytes: int = size(
        4 * MIB, "一个工具服务器的工具列表的上限 / All tools of one tool server together", low=16 * KIB
    )
    tool_bytes: int = size(
        128 * KIB,
        "一个工具的定义的上限；超过的不列出 / Largest definition of one tool; a larger one is not listed",
    )
    schema_depth: int = count(
        64, "工具的 schema 最多嵌套多深；超过的不列出 / Deepest schema of a tool; a deeper one is not listed", low=8
    )
    catalog_bytes: int = size(
        8 * MIB, "一个智能体全部工具列表的上限 / All tool lists of one agent together", low=64 * KIB
    )
    servers_per_agent: int = count(64, "一个智能体最多的工具服务器 / Tool servers of one agent")
    robots_per_agent: int = count(
        5000, "一个智能体最多的小智端，全部进程合计 / Robots of one agent on all workers; one per conversation"
    )
    calls_per_connection: int = count(64, "一个连接上同时的调用 / Calls in flight on one connection")
    calls_per_worker: int = count(10_000, "一个工作进程同时的调用 / Calls in flight in one worker")
    calls_bytes: int = size(
        256 * MIB,
        "一个工作进程上全部进行中调用的请求大小 / Requests of all calls in flight in one worker",
        low=1 * MIB,
        high=16 * 1024 * MIB,
    )
    outbox_bytes: int = size(
        8 * MIB, "对方未读走的数据上限，超过即断开 / Unread bytes before a slow peer is closed", low=64 * KIB
    )

    call_seconds: float = seconds(
        27, "一次调用的时限；xiaozhi-server 等 30 秒 / Time of one call; xiaozhi-server gives up at 30"
    )
    call_max_seconds: float = seconds(
        300, "有进度的调用的最长时限 / Longest time of a call that reports progress", high=3600
    )
    handshake_seconds: float = seconds(
        60, "工具服务器握手的时限；有的子进程启动很慢 / MCP handshake; some children start slowly", high=600
    )
    hello_pause_seconds: float = seconds(
        0.05,
        "连接后到第一帧的停顿；有的桥接会丢掉太早的一帧\n"
        "Pause before our first frame; some bridges lose one that comes with the handshake",
        low=0,
        high=5,
    )
    list_wait_seconds: float = seconds(
        2,
        "工具服务器正在握手时，列表最多等多久；智控台只等 10 秒\n"
        "How long a list waits for a tool server in its handshake; the console waits 10 s in all",
        low=0,
        high=8,
    )
    grace_seconds: float = seconds(
        30, "断线后工具保留在列表里多久 / How long an offline server's tools stay listed", low=0, high=3600
    )
    park_seconds: float = seconds(
        15, "调用等待工具服务器重连多久 / How long a call waits for its server to redial", low=0, high=3600
    )
    name_hold_seconds: float = seconds(
        86_400,
        "断线后工具名保留多久 / How long a tool name stays reserved for its last holder",
        low=0,
        high=30 * 86_400,
    )
    connections: int = count(
        20_000, "每个工作进程的连接数 / Connections per worker; each costs memory and a file descriptor"
    )
    handshakes_per_second: int = count(
        1000, "每个工作进程每秒的握手 / Handshakes per second and worker; a flood must not starve calls"
    )
    tool_handshakes_per_second: int = count(
        250,
        "每进程每秒放行的工具服务器；其余排队等候，调用不受影响\n"
        "Tool servers let in per second on one worker; the others wait their turn, so that calls go on meanwhile",
    )
    calls_per_second: int = count(
        2000, "每个智能体每秒的调用，全部进程合计 / Calls per second of one agent, on all workers together"
    )
    server_calls_per_second: int = count(
        0,
        "每个工具服务器每秒的调用，全部进程合计；0 = 不限 / Calls per second of one tool server; 0 = no limit",
        low=0,
    )
    agent_handshakes_per_minute: int = count(
        6000,
        "每个智能体每分钟的握手，全部进程合计；0 = 不限 / Handshakes per minute of one agent; 0 = no limit",
        low=0,
    )
    source_handshakes_per_minute: int = count(
        0,
        "每个来源地址每分钟的握手；0 = 不限。在代理后面须先设 GATEWAY_TRUSTED_PROXIES\n"
        "Handshakes per minute of one source address; 0 = no limit. Behind a proxy set GATEWAY_TRUSTED_PROXIES first",
        low=0,
    )
    connection_rate_bytes: int = size(
        0,
        "从一个连接每秒读多少；快的对方被放慢；0 = 不限 / Bytes read of one connection per second; 0 = no limit",
        low=0,
    )
    ping_seconds: float = seconds(
        20,
        "沉默多久后发 WebSocket ping；nginx 在 60 秒空闲后断开 / WebSocket ping after silence; nginx cuts after 60",
        high=29,
    )
    pong_seconds: float = seconds(20, "等 pong 的时限 / A peer without a pong for this long is gone", high=300)
    mcp_ping_seconds: float = seconds(
        50, "MCP ping 的间隔；有的桥接 120 秒没有就断开 / MCP ping; bridges leave without one", high=60
    )
    reread_seconds: float = seconds(
        300, "多久重读工具列表；多数不通知变化 / Re-read of tools; most servers never notify"
    )
    ghost_seconds: float = seconds(
        5, "半开的旧连接多久不答即关闭 / A half-open twin that is silent this long is closed", high=60
    )
    debounce_seconds: float = seconds(
        0.3, "合并多个列表变化的时间 / List changes within this time are told once", low=0, high=5
    )
    close_seconds: float = seconds(5, "等对方完成关闭握手多久 / How long a closing handshake may take", high=60)
    drain_seconds: float = seconds(
        150,
        "收到 SIGTERM 后最多用多久让连接逐个离开；对话空闲 120 秒即结束；0 = 立即结束\n"
        "How long connections have to leave one by one after SIGTERM; conversations idle out at 120; 0 = end at once",
        low=0,
        high=3600,
    )
    drain_grace_seconds: float = seconds(
        5,
        "排空开始后多久不关闭任何连接，让负载均衡先得知\n"
        "Nothing is closed in the first seconds of a drain: load balancers must know first, or sockets come back",
        low=0,
        high=600,
    )

    lease_seconds: float = seconds(
        8, "工作进程多久没有心跳即视为死亡 / A worker without a beat for this long is dead", high=120
    )
    beat_seconds: float = seconds(2, "心跳间隔 / A worker renews its lease this often", high=40)
    renew_seconds: float = seconds(600, "Redis 键续期的间隔 / How often keys in Redis get a new time to live")
    unready_after_seconds: float = seconds(
        0,
        "Redis 断开多久后 /readyz 报未就绪；0 = 从不（本机的调用照常）\n"
        "/readyz fails after Redis was away this long; 0 = never, since local calls go on without it",
        low=0,
    )
    health_agents: int = count(
        100, "健康检查最多列出的智能体 / Agents in one health answer; more are cut, visibly", high=10_000
    )
    redis_timeout_seconds: float = seconds(2, "一条 Redis 命令的时限 / Time of one Redis command", low=0.05, high=60)

    def __repr__(self) -> str:
        changed = (f"{name}={_shown(spec, value)}" for name, spec, default, value in _rows(self) if value != default)
        return f"<Settings {' '.join(changed)}>".replace(" >", ">")


def specs() -> dict[str, Spec]:
    """Return every setting's declaration, in the order of declaration."""
    return {one.name: one.metadata["spec"] for one in dataclasses.fields(Settings)}


def env_name(name: str) -> str:
    """Return the environment variable of a field."""
    return ENV_PREFIX + name.upper()


def example_env() -> str:
    """Return the text of `.env.example`: every setting, commented out, with default, unit, range and reason."""
    head = (
        "# 网关的全部设置。复制为 .env，去掉需要的行首的 #。环境变量优先于 .env。\n"
        "# Every setting of the gateway. Copy to .env and uncomment what you need. The environment wins over .env.\n"
        "# 由 python -m gateway.settings 生成 / Generated by python -m gateway.settings\n"
    )
    return head + "".join(_example(name, spec, default) for name, spec, default, _ in _rows(Settings()))


def _example(name: str, spec: Spec, default: Any) -> str:
    facts = [f"默认 default: {written(spec.kind, default) or '(空 empty)'}", f"单位 unit: {spec.kind.value}"]
    if spec.low > -math.inf:
        facts.append(f"范围 range: {written(spec.kind, spec.low)}…{written(spec.kind, spec.high)}")
    if spec.choices:
        facts.append(f"可选 one of: {', '.join(spec.choices)}")
    if spec.example:
        facts.append(f"例 example: {spec.example}")
    reason = "".join(f"# {line}\n" for line in spec.reason.split("\n"))
    return f"\n{reason}# {' · '.join(facts)}\n# {env_name(name)}={written(spec.kind, default)}\n"


def _shown(spec: Spec, value: Any) -> str:
    if spec.is_secret:
        if isinstance(value, str):
            return redact(value) if "://" in value else HIDDEN
        return f"({len(value)}×{HIDDEN})"
    return repr(value)


def _rows(settings: Settings) -> Iterator[tuple[str, Spec, Any, Any]]:
    for one in dataclasses.fields(settings):
        yield one.name, one.metadata["spec"], one.default, getattr(settings, one.name)


if __name__ == "__main__":
    sys.stdout.write(example_env())
