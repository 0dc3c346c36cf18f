"""What peers see of the gateway: an overview, calls, connections."""

from deploy.observability.panel import GATEWAYS_FAULT, Panel, Row, each, quantiles, rate, stat

OVERVIEW = Row(
    "概览 / Overview",
    (
        stat(
            "就绪进程 / Workers ready",
            "接受连接的工作进程数 / Worker processes that take connections.",
            'sum(mcpgw_workers{$, state="ready"})',
        ),
        stat(
            "连接 / Connections",
            "小智端与工具端的连接总数 / Robots and tool servers together.",
            "sum(mcpgw_connections{$})",
        ),
        stat(
            "调用 / Calls",
            "每秒结束的调用 / Calls that end, per second.",
            "sum(rate(mcpgw_calls_total{$}[5m]))",
            unit="cps",
        ),
        stat(
            "网关造成的失败 / Failed by the gateway",
            "因网关或其环境（Redis、过载、排空……）而失败的调用所占比例；工具自己的错误不算"
            " / Share of calls that failed because of the gateway or what it stands on. Errors of tools don't count.",
            f'sum(rate(mcpgw_calls_total{{$, outcome=~"{GATEWAYS_FAULT}"}}[5m]))'
            " / sum(rate(mcpgw_calls_total{$}[5m]))",
            unit="percentunit",
            alert="McpGatewayErrors",
            threshold=0.02,
        ),
        stat(
            "超时未结束 / Overdue calls",
            "超过时限仍无结果的调用，必须为 0 / Calls past their deadline without an outcome. Must be 0.",
            "sum(mcpgw_calls_overdue{$})",
            alert="McpGatewayCallsOverdue",
            threshold=0,
        ),
        stat(
            "告警 / Alerts",
            "正在触发的网关告警，见 docs/operations.md / Alerts that are firing; docs/operations.md explains each.",
            'count(ALERTS{alertname=~"McpGateway.+", alertstate="firing"}) or vector(0)',
            threshold=0,
        ),
    ),
)

CALLS = Row(
    "调用 / Calls",
    (
        Panel(
            "结果 / Outcomes",
            "每秒结束的调用，按结果。result、tool_error、rpc_error 是工具自己的回答"
            " / Calls that end, per second, by outcome. result, tool_error and rpc_error are the tool's own words.",
            ((rate("mcpgw_calls_total", "outcome"), "{{outcome}}"),),
            "cps",
            is_stacked=True,
        ),
        Panel(
            "失败比例 / Shares of failures",
            "每种失败占全部调用的比例 / Share of all calls, by outcome, of those that failed.",
            (
                (
                    "sum by (outcome) (rate(mcpgw_calls_total"
                    f'{{$, outcome=~"{GATEWAYS_FAULT}|timed_out|tool_server_lost|offline"}}'
                    "[$__rate_interval])) / ignoring (outcome) group_left ()"
                    " sum(rate(mcpgw_calls_total{$}[$__rate_interval]))",
                    "{{outcome}}",
                ),
            ),
            "percentunit",
            alert="McpGatewayErrors",
            threshold=0.02,
        ),
        Panel(
            "是否执行 / Executed",
            "true 已执行，false 肯定未执行，unknown 已发出而无回应"
            " / true: it ran; false: it certainly did not; unknown: it was sent and nobody answered.",
            ((rate("mcpgw_calls_total", "executed"), "{{executed}}"),),
            "cps",
        ),
        Panel(
            "本机调用耗时 / Local calls",
            "小智端与工具端在同一进程；主要是工具自己的时间"
            " / Robot and tool server on one worker. Mostly the tool's own time.",
            quantiles("mcpgw_call_seconds", matchers=', path="local"'),
            "s",
        ),
        Panel(
            "跨进程调用耗时 / Remote calls",
            "经过 Redis 的调用；与本机的差别是网关的代价，应为毫秒级"
            " / Calls by way of Redis. What they take more than local ones is the gateway's share: milliseconds.",
            quantiles("mcpgw_call_seconds", matchers=', path="remote"'),
            "s",
        ),
        Panel(
            "进行中 / In flight",
            "robot：本机小智端等待的调用；tool_server：本机工具端正在执行的调用"
            " / robot: calls that robots here wait for; tool_server: calls that tool servers here are executing.",
            ((each("mcpgw_calls_in_flight", "instance, side"), "{{instance}} {{side}}"),),
        ),
        Panel(
            "等待重连 / Parked",
            "等待工具端重连的调用 / Calls that wait for their tool server to redial: now, and new ones per second.",
            (
                (each("mcpgw_calls_parked"), "{{instance}}"),
                (rate("mcpgw_calls_parked_total", "job"), "每秒 / per second"),
            ),
        ),
        Panel(
            "等待多久 / How long they waited",
            "多数桥接一两秒内重连；接近 15 秒（GATEWAY_PARK_SECONDS）即是白等"
            " / Most bridges redial within seconds. Near 15 s (GATEWAY_PARK_SECONDS) they waited in vain.",
            quantiles("mcpgw_park_seconds"),
            "s",
        ),
        Panel(
            "进度通知 / Progress",
            "每秒收到的进度通知；它们延长调用的时限 / Progress notifications per second; each extends a deadline.",
            ((rate("mcpgw_progress_total", "instance"), "{{instance}}"),),
            "cps",
        ),
    ),
)

CONNECTIONS = Row(
    "连接 / Connections",
    (
        Panel(
            "连接数 / Open",
            "每个进程的连接，按种类 / Per worker, by kind.",
            ((each("mcpgw_connections", "instance, kind"), "{{instance}} {{kind}}"),),
            is_stacked=True,
        ),
        Panel(
            "占上限的比例 / Share of the limit",
            "GATEWAY_CONNECTIONS 的占用；计划值是一半 / Use of GATEWAY_CONNECTIONS; half of it is planned for.",
            ((f"{each('mcpgw_connections')} / {each('mcpgw_connections_limit')}", "{{instance}}"),),
            "percentunit",
            alert="McpGatewayConnectionsNearLimit",
            threshold=0.8,
        ),
        Panel(
            "新连接 / Opened",
            "每秒接受的连接。小智端每次对话一个 / Accepted per second. A robot's connection is one conversation.",
            ((rate("mcpgw_connections_opened_total", "kind"), "{{kind}}"),),
            "cps",
        ),
        Panel(
            "断开 / Closed",
            "每秒断开的连接，按关闭码：1006 没有告别，1012 重启或排空，1013 稍后再来"
            " / Per second, by close code: 1006 without a goodbye, 1012 restart or drain, 1013 try again later.",
            ((rate("mcpgw_connections_closed_total", "kind, code"), "{{kind}} {{code}}"),),
            "cps",
        ),
        Panel(
            "拒绝的握手 / Refused",
            "每秒拒绝的握手，按原因 / Handshakes refused per second, by cause.",
            ((rate("mcpgw_handshakes_refused_total", "cause"), "{{cause}}"),),
            "cps",
            alert="McpGatewayRefusing",
            threshold=0.1,
        ),
        Panel(
            "工具端握手 / Tool servers' handshakes",
            "每秒结束的 MCP 握手（ready 成功，failed 失败，left 中途离开）与正在进行的"
            " / MCP handshakes that end, per second (ready, failed, left in between), and those under way.",
            (
                (rate("mcpgw_tool_server_handshakes_total", "outcome"), "{{outcome}}"),
                ("sum(mcpgw_tool_server_handshakes{$})", "进行中 / under way"),
            ),
        ),
        Panel(
            "握手耗时 / Handshake time",
            "从连接到工具可用 / From the connection to the registered tools.",
            quantiles("mcpgw_tool_server_handshake_seconds"),
            "s",
        ),
        Panel(
            "未读数据 / Unread bytes",
            "已写给对方而未被读走的数据：全部，以及最多的一个连接（上限 GATEWAY_OUTBOX_BYTES）"
            " / Written to peers and not read: all together, and the largest (GATEWAY_OUTBOX_BYTES at most).",
            (
                (each("mcpgw_outbox_bytes"), "{{instance}}"),
                ("max by (instance) (mcpgw_outbox_bytes_max{$})", "{{instance}} 最大 / largest"),
            ),
            "bytes",
        ),
        Panel(
            "慢与顶替 / Slow peers and takeovers",
            "每秒因不读数据而断开的连接；每秒同一 server_id 的新连接顶替旧连接"
            " / Peers dropped because they don't read, and connections that took over their server_id, per second.",
            (
                (rate("mcpgw_slow_peers_total", "instance"), "{{instance}} 慢 / slow"),
                (rate("mcpgw_takeovers_total", "instance"), "{{instance}} 顶替 / takeovers"),
            ),
            "cps",
        ),
        Panel(
            "智能体 / Agents",
            "每个进程负责的智能体 / Agents that each worker looks after.",
            ((each("mcpgw_agents"), "{{instance}}"),),
        ),
        Panel(
            "工具目录 / Catalogs",
            "目录中的工具数，以及每秒变化的目录 / Tools in all catalogs, and catalogs that change, per second.",
            (
                (each("mcpgw_catalog_tools"), "{{instance}}"),
                (rate("mcpgw_catalog_changes_total", "job"), "变化每秒 / changes per second"),
            ),
        ),
        Panel(
            "目录大小 / Catalog bytes",
            "工具列表占用的内存 / What the lists of tools take.",
            ((each("mcpgw_catalog_bytes"), "{{instance}}"),),
            "bytes",
        ),
    ),
)
