"""What every command for operators needs first: a window into the cluster, or a sentence why there is none."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from gateway.backplane.base import BackplaneUnavailable
from gateway.backplane.redis.reading import reading
from gateway.backplane.redis.window import Window
from gateway.settings import Settings

NO_REDIS = """\
没有设置 GATEWAY_REDIS_URL：内存背板的状态只在网关进程里，这里看不到。
  · 是 Redis 集群：加 --redis-url，或设置 GATEWAY_REDIS_URL（见 docs/redis.md 的 Rights）
  · 是单进程：直接问网关 GET /mcp_endpoint/health?key=… 或 GET /mcp_endpoint/status?token=…
GATEWAY_REDIS_URL is not set: with the memory backplane everything is inside the gateway's process, out of sight here.
  · with Redis: give --redis-url, or set GATEWAY_REDIS_URL (docs/redis.md, Rights, has a user for it)
  · one process alone: ask it: GET /mcp_endpoint/health?key=… or, for one agent, GET /mcp_endpoint/status?token=…"""


class CannotOperate(Exception):
    """It can't be done as asked; the text says why and what to do, for people and without secrets."""


@asynccontextmanager
async def window_into(settings: Settings) -> AsyncGenerator[Window]:
    """The window. Raises CannotOperate where Redis is not set, not to be reached, or refuses."""
    if not settings.redis_url:
        raise CannotOperate(NO_REDIS)
    try:
        async with reading(settings.redis_url, settings.redis_timeout_seconds) as reader:
            yield Window(reader, settings.redis_prefix)
    except (BackplaneUnavailable, ValueError) as error:
        raise CannotOperate(str(error)) from None
