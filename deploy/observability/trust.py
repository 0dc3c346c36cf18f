"""What the dashboard shows of those who are not trusted: forged messages, changed definitions, the audit."""

from deploy.observability.panel import Panel, Row, rate

TRUST = Row(
    "信任 / Trust",
    (
        Panel(
            "伪造的消息 / Forged messages",
            "每秒丢弃的进程间消息；应为 0：有人写入 Redis，或各进程的 GATEWAY_ENVELOPE_KEY 不同"
            " / Messages between workers that were dropped, per second. Should be 0: somebody writes to Redis, or the"
            " workers' keys differ.",
            ((rate("mcpgw_forged_total", "cause"), "{{cause}}"),),
            "cps",
        ),
        Panel(
            "与记录不符的工具 / Tools unlike their pins",
            "每秒报告的定义变更，按种类 / Definitions that differ from what was pinned, per second, by kind.",
            ((rate("mcpgw_pin_reports_total", "kind"), "{{kind}}"),),
            "cps",
        ),
        Panel(
            "审计记录 / Audit records",
            "每秒写入的、丢失的（Redis 不可用）、合并的（拒绝的握手太多）"
            " / Written, lost (Redis was away), suppressed (of a flood of refused handshakes), per second.",
            ((rate("mcpgw_audit_records_total", "fate"), "{{fate}}"),),
            "cps",
        ),
    ),
)
