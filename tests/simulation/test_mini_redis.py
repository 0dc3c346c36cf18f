"""The simulation's Redis answers as a real one does."""

from random import Random
from typing import Any

import redis

from tests.simulation.loop import SimLoop
from tests.simulation.mini_redis import MiniRedis
from tests.simulation.net import Net
from tests.simulation.store import Refused
from tests.support.redis_server import RedisServer

KEYS = ("a", "b", "c")
SCRIPT = """
local found = redis.call('HGETALL', KEYS[1])
local refused = redis.pcall('GET', KEYS[1])
return {#found, found, type(refused) == 'table' and refused.err ~= nil, redis.call('PTTL', KEYS[2]) > 0, 3.9, false, 1}
"""


def _command(random: Random) -> list[str]:
    """Some command of those that the gateway uses; replies that depend on the clock are not among them."""
    key, member, number = random.choice(KEYS), random.choice("xyz"), str(random.randrange(-2, 6))
    hashes, sets, zsets, strings = f"h{key}", f"s{key}", f"z{key}", f"t{key}"
    return random.choice(
        [
            ["SET", strings, number, "PX", "100000"],
            ["GET", strings],
            ["GET", hashes],
            ["HSET", hashes, member, number, "w", "1"],
            ["HGET", hashes, member],
            ["HGETALL", hashes],
            ["HDEL", hashes, member, "w"],
            ["HLEN", hashes],
            ["SADD", sets, member, "w"],
            ["SREM", sets, member],
            ["ZADD", zsets, number, member],
            ["ZADD", zsets, "GT", number, member],
            ["ZADD", zsets, "NX", number, member],
            ["ZSCORE", zsets, member],
            ["ZRANGE", zsets, "0", "-1"],
            ["ZREVRANGE", zsets, "0", "1", "WITHSCORES"],
            ["ZRANGEBYSCORE", zsets, number, "+inf", "WITHSCORES", "LIMIT", "0", "2"],
            ["ZRANGEBYSCORE", zsets, f"({number}", "+inf"],
            ["ZREMRANGEBYSCORE", zsets, "-inf", number],
            ["ZREMRANGEBYRANK", zsets, "0", number],
            ["ZREM", zsets, member],
            ["DEL", hashes, zsets],
            ["EXISTS", hashes, sets, zsets, strings],
            ["PEXPIRE", hashes, "100000"],
            ["PTTL", sets],
            ["EVAL", SCRIPT, "2", hashes, strings],
            ["EVALSHA", "0" * 40, "0"],
            ["NONSENSE", member],
            ["PUBLISH", "nobody", "hears"],
        ]
    )


def _real(client: Any, command: list[str]) -> Any:
    try:
        return client.execute_command(*command)
    except redis.ResponseError as error:
        return f"error {type(error).__name__}"


def _simulated(server: MiniRedis, command: list[str]) -> Any:
    try:
        return server.run([word.encode() for word in command])
    except Refused as refused:
        kind = "NoScriptError" if str(refused).startswith("NOSCRIPT") else "ResponseError"
        return f"error {kind}"


def test_it_answers_random_commands_as_a_real_one_does(redis_server: RedisServer) -> None:
    loop = SimLoop()
    server = MiniRedis(loop, Net(loop, Random(0)))
    random = Random(1)
    with redis_server.client() as client:
        client.flushall()
        client.response_callbacks.clear()
        for _ in range(1500):
            command = _command(random)
            assert _simulated(server, command) == _real(client, command), command
    loop.close()
