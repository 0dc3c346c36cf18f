"""What settings demand of each other, each demand with the sentence that explains it."""

from collections.abc import Callable, Iterable

from gateway.origins import ANY, normal
from gateway.quantities import KIB
from gateway.settings import Settings
from gateway.sources import network

_Rule = tuple[Callable[[Settings], bool], str]

HOW_TO_MAKE_A_KEY = "openssl rand -hex 16    (python -c 'import secrets; print(secrets.token_hex(16))')"
ADMIN_KEY_CHARS_MIN = 16
RATE_BYTES_MIN = 64 * KIB
UNSIGNED = "unsigned"
"""In GATEWAY_ENVELOPE_KEY, beside keys: unsigned messages are taken, too, while not every worker signs yet."""


def _unread(texts: Iterable[str], read: Callable[[str], object]) -> list[str]:
    """The texts that `read` raises ValueError for, or makes nothing of."""

    def is_read(text: str) -> bool:
        try:
            return bool(read(text))
        except ValueError:
            return False

    return [text for text in texts if not is_read(text)]


def _is_strong(key: str) -> bool:
    return len(key) >= ADMIN_KEY_CHARS_MIN and all("!" <= char <= "~" for char in key) and "<" not in key


def _envelope_keys(settings: Settings) -> list[str]:
    return [key for key in settings.envelope_key if key != UNSIGNED]


def _are_apart(settings: Settings) -> bool:
    """Whether no key opens what is another's."""
    alone = [settings.health_key, settings.metrics_key, settings.admin_key]
    given = [*set(settings.key), *set(settings.envelope_key), *filter(None, alone)]
    return len(given) == len(set(given))


_RULES: tuple[_Rule, ...] = (
    (
        lambda s: s.workers == 1 or bool(s.redis_url),
        "GATEWAY_WORKERS={0.workers} 需要 Redis，请设置 GATEWAY_REDIS_URL，例如 redis://127.0.0.1:6379；或只用 1 个 / "
        "GATEWAY_WORKERS={0.workers} needs Redis between the workers: set GATEWAY_REDIS_URL, "
        "for example redis://127.0.0.1:6379, or run 1 worker",
    ),
    (
        lambda s: not s.redis_url or bool(s.key),
        "用 Redis 时必须设置 GATEWAY_KEY，且所有进程相同；生成方法 / "
        "with Redis GATEWAY_KEY is required, the same for every worker; make one with: " + HOW_TO_MAKE_A_KEY,
    ),
    (
        lambda s: s.beat_seconds * 3 <= s.lease_seconds,
        "GATEWAY_BEAT_SECONDS={0.beat_seconds:g} 的 3 倍不能超过 GATEWAY_LEASE_SECONDS={0.lease_seconds:g}，"
        "否则错过两次心跳的进程会被当作死亡 / "
        "three times GATEWAY_BEAT_SECONDS={0.beat_seconds:g} must fit into GATEWAY_LEASE_SECONDS={0.lease_seconds:g}, "
        "else a worker that misses two beats is taken for dead",
    ),
    (
        lambda s: s.redis_timeout_seconds * 2 <= s.lease_seconds,
        "GATEWAY_REDIS_TIMEOUT_SECONDS={0.redis_timeout_seconds:g} 的 2 倍不能超过"
        " GATEWAY_LEASE_SECONDS={0.lease_seconds:g}，否则一条慢命令就会丢掉租约 / "
        "twice GATEWAY_REDIS_TIMEOUT_SECONDS={0.redis_timeout_seconds:g} must fit into "
        "GATEWAY_LEASE_SECONDS={0.lease_seconds:g}, else one slow command costs the lease",
    ),
    (
        lambda s: s.call_seconds <= s.call_max_seconds,
        "GATEWAY_CALL_SECONDS={0.call_seconds:g} 不能超过 GATEWAY_CALL_MAX_SECONDS={0.call_max_seconds:g}，"
        "那是任何调用的上限 / "
        "GATEWAY_CALL_SECONDS={0.call_seconds:g} must not exceed GATEWAY_CALL_MAX_SECONDS={0.call_max_seconds:g}, "
        "which ends every call",
    ),
    (
        lambda s: s.outbox_bytes > max(s.result_bytes, s.robot_frame_bytes),
        "GATEWAY_OUTBOX_BYTES={0.outbox_bytes} 必须大于 GATEWAY_RESULT_BYTES={0.result_bytes} 和"
        " GATEWAY_ROBOT_FRAME_BYTES={0.robot_frame_bytes}，否则一条消息就会断开对方 / "
        "GATEWAY_OUTBOX_BYTES={0.outbox_bytes} must be larger than GATEWAY_RESULT_BYTES={0.result_bytes} and "
        "GATEWAY_ROBOT_FRAME_BYTES={0.robot_frame_bytes}, else a single message closes its receiver",
    ),
    (
        lambda s: s.name_hold_seconds >= s.grace_seconds,
        "GATEWAY_NAME_HOLD_SECONDS={0.name_hold_seconds:g} 不能小于 GATEWAY_GRACE_SECONDS={0.grace_seconds:g}，"
        "否则还在列表里的工具名会被别人占用 / "
        "GATEWAY_NAME_HOLD_SECONDS={0.name_hold_seconds:g} must not be less than "
        "GATEWAY_GRACE_SECONDS={0.grace_seconds:g}, else others take the name of a tool that is still listed",
    ),
    (
        lambda s: not s.drain_seconds or s.drain_grace_seconds < s.drain_seconds,
        "GATEWAY_DRAIN_GRACE_SECONDS={0.drain_grace_seconds:g} 必须小于 GATEWAY_DRAIN_SECONDS={0.drain_seconds:g}，"
        "否则没有时间让连接逐个离开 / "
        "GATEWAY_DRAIN_GRACE_SECONDS={0.drain_grace_seconds:g} must be less than "
        "GATEWAY_DRAIN_SECONDS={0.drain_seconds:g}, else no time is left for connections to leave one by one",
    ),
    (
        lambda s: not s.admin_port or s.admin_port != s.port,
        "GATEWAY_ADMIN_PORT={0.admin_port} 不能与 GATEWAY_PORT 相同：管理端口要与对外端口分开 / "
        "GATEWAY_ADMIN_PORT={0.admin_port} must differ from GATEWAY_PORT: what it serves is kept off the public port",
    ),
    (
        lambda s: s.audit != "stream" or bool(s.redis_url),
        "GATEWAY_AUDIT=stream 需要 GATEWAY_REDIS_URL；没有 Redis 时用 GATEWAY_AUDIT=log / "
        "GATEWAY_AUDIT=stream needs GATEWAY_REDIS_URL; without Redis use GATEWAY_AUDIT=log",
    ),
    (
        lambda s: not s.metrics_key or s.admin_port > 0,
        "GATEWAY_METRICS_KEY 需要 GATEWAY_ADMIN_PORT，否则没有 /metrics；例如 GATEWAY_ADMIN_PORT=9090 / "
        "GATEWAY_METRICS_KEY needs GATEWAY_ADMIN_PORT: without it there is no /metrics; "
        "for example GATEWAY_ADMIN_PORT=9090",
    ),
    (
        lambda s: not s.admin_host or s.admin_port > 0,
        "GATEWAY_ADMIN_HOST 需要 GATEWAY_ADMIN_PORT，例如 9090 / "
        "GATEWAY_ADMIN_HOST needs GATEWAY_ADMIN_PORT, for example 9090",
    ),
    (
        lambda s: not s.metrics_key or (len(s.metrics_key) >= ADMIN_KEY_CHARS_MIN and s.metrics_key.isascii()),
        f"GATEWAY_METRICS_KEY 至少 {ADMIN_KEY_CHARS_MIN} 个 ASCII 字符，否则会被猜到；生成方法 / "
        f"GATEWAY_METRICS_KEY must have {ADMIN_KEY_CHARS_MIN} or more ASCII characters, else it is guessed; "
        "make one with: " + HOW_TO_MAKE_A_KEY,
    ),
    (
        lambda s: not s.admin_key or (len(s.admin_key) >= ADMIN_KEY_CHARS_MIN and s.admin_key.isascii()),
        f"GATEWAY_ADMIN_KEY 至少 {ADMIN_KEY_CHARS_MIN} 个 ASCII 字符，否则会被猜到；生成方法 / "
        f"GATEWAY_ADMIN_KEY must have {ADMIN_KEY_CHARS_MIN} or more ASCII characters, else it is guessed; "
        "make one with: " + HOW_TO_MAKE_A_KEY,
    ),
    (
        lambda s: not s.health_key or (len(s.health_key) >= ADMIN_KEY_CHARS_MIN and s.health_key.isascii()),
        f"GATEWAY_HEALTH_KEY 至少 {ADMIN_KEY_CHARS_MIN} 个 ASCII 字符，否则会被猜到；生成方法 / "
        f"GATEWAY_HEALTH_KEY must have {ADMIN_KEY_CHARS_MIN} or more ASCII characters, else it is guessed; "
        "make one with: " + HOW_TO_MAKE_A_KEY,
    ),
    (
        lambda s: all(_is_strong(key) for key in _envelope_keys(s)),
        f"GATEWAY_ENVELOPE_KEY 的每个密钥至少 {ADMIN_KEY_CHARS_MIN} 个 ASCII 字符，且不能是示例；生成方法 / "
        f"each key of GATEWAY_ENVELOPE_KEY must have {ADMIN_KEY_CHARS_MIN} or more ASCII characters and not be the "
        "example; make one with: " + HOW_TO_MAKE_A_KEY,
    ),
    (
        lambda s: UNSIGNED not in s.envelope_key or bool(_envelope_keys(s)),
        "GATEWAY_ENVELOPE_KEY=unsigned 之外还要有密钥：它只在逐步启用签名时与密钥并列，例如 <密钥>,unsigned / "
        "GATEWAY_ENVELOPE_KEY=unsigned needs a key beside it: it is for the time of a roll-out, as in <key>,unsigned",
    ),
    (
        _are_apart,
        "GATEWAY_KEY、GATEWAY_HEALTH_KEY、GATEWAY_METRICS_KEY、GATEWAY_ADMIN_KEY、GATEWAY_ENVELOPE_KEY 必须各不相同，"
        "否则一把钥匙会打开别的门；生成方法 / "
        "GATEWAY_KEY, GATEWAY_HEALTH_KEY, GATEWAY_METRICS_KEY, GATEWAY_ADMIN_KEY and GATEWAY_ENVELOPE_KEY must all "
        "differ, else one opens what is another's; make one with: " + HOW_TO_MAKE_A_KEY,
    ),
    (
        lambda s: not 0 < s.connection_rate_bytes < RATE_BYTES_MIN,
        "GATEWAY_CONNECTION_RATE_BYTES={0.connection_rate_bytes} 至少为 64KiB，或 0 = 不限；再小，一个连接会停读太久 / "
        "GATEWAY_CONNECTION_RATE_BYTES={0.connection_rate_bytes} must be 64KiB or more, or 0 for no limit: with less "
        "a connection would not be read for too long at a time",
    ),
    (
        lambda s: not _unread(s.trusted_proxies, network),
        "GATEWAY_TRUSTED_PROXIES={0.trusted_proxies} 须为 IP 地址或网段，例如 10.0.0.0/8,192.168.1.7；不能是全部地址，"
        "否则谁都能假冒来源 / "
        "GATEWAY_TRUSTED_PROXIES={0.trusted_proxies} must be addresses or networks, for example "
        "10.0.0.0/8,192.168.1.7, and not all addresses: then anybody could forge where he comes from",
    ),
    (
        lambda s: not _unread(s.origins, lambda text: text == ANY or normal(text)),
        "GATEWAY_ORIGINS={0.origins} 须为 * 或网页来源，例如 https://console.example.com,http://192.168.1.7:8002，"
        "不带路径 / "
        "GATEWAY_ORIGINS={0.origins} must be * or origins of web pages, for example "
        "https://console.example.com,http://192.168.1.7:8002, without a path",
    ),
)


def broken_rules(settings: Settings) -> list[str]:
    """Return one sentence for people for each demand that the settings don't meet."""
    return [sentence.format(settings) for is_met, sentence in _RULES if not is_met(settings)]
