"""The floor of two workers: as `relay`, with Redis between. One pipeline of publishes for each tick of the loop.

Robots at one process, tool servers at the other; each hears the channel that has its own name.
"""

import asyncio
import itertools
import sys
from typing import Any

import orjson
from redis.asyncio import Redis

from bench.floors.serve import serve


class Relay:
    def __init__(self, me: str, peer: str, redis_url: str) -> None:
        self.me, self.peer, self.redis = me, peer, Redis.from_url(redis_url, protocol=2)
        self.tool_servers, self.calls = dict[bytes, Any](), dict[int, tuple[Any, Any]]()
        self.ids, self.batch = itertools.count(), list[bytes]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        token, is_robot = scope["query_string"], "/call/" in scope["path"]
        self.tool_servers[token] = send  # a robot's is never asked for: its tool server is at the other process
        while (event := await receive())["type"] == "websocket.receive":
            text = event["text"].encode()
            if is_robot and "id" in (message := orjson.loads(text)):
                self.calls[id := next(self.ids)] = (send, message["id"])
                message["id"] = id
                text = orjson.dumps(message)
            if not self.batch:
                self.tasks.create_task(self.publish())
            self.batch.append((token if is_robot else b"") + b"\n" + text)

    async def publish(self) -> None:
        batch, self.batch = self.batch, []
        pipeline = self.redis.pipeline(transaction=False)
        for message in batch:
            pipeline.publish(self.peer, message)
        await pipeline.execute()

    async def hear_redis(self) -> None:
        async with asyncio.TaskGroup() as self.tasks, self.redis.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(self.me)
            async for event in channel.listen():
                token, _, body = event["data"].partition(b"\n")
                if not token:
                    message = orjson.loads(body)
                    robot, message["id"] = self.calls.pop(message["id"])
                    body = orjson.dumps(message)
                send = self.tool_servers[token] if token else robot
                await send({"type": "websocket.send", "text": body.decode()})


if __name__ == "__main__":
    serve(relay := Relay(*sys.argv[2:5]), int(sys.argv[1]), relay.hear_redis)
