"""A primary, its replicas and the sentinels that watch them, all on 127.0.0.1 and of the tests' own."""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import redis

from tests.support.redis_server import RedisServer
from tests.support.tls import server_context
from tests.support.toxics import Toxics

SERVICE = "main"
BOUND_SECONDS = 15.0
_PAUSE_SECONDS = 0.02

# How often sentinels look and talk. By default they take up to 20 s to make a replica of an old primary.
_HURRIED = {"info-period": 200, "publish-period": 200, "ask-period": 200, "ping-period": 200}

_EAGER = ("--repl-diskless-sync-delay", "0")


class Sentinel(RedisServer):
    """One `--sentinel` process. Its configuration file is written before the first start, and then its own."""

    def __init__(self, program: str, lines: Callable[[], list[str]], password: str = "") -> None:
        super().__init__(program, password=password)
        self._lines = lines

    def _prepare(self) -> None:
        path = self.folder / "sentinel.conf"
        if not path.exists():
            own = [
                f"port {self.port}",
                "bind 127.0.0.1",
                f"unixsocket {self.socket_path}",
                "protected-mode no",
                f"dir {self.folder}",
            ]
            secret = [f"requirepass {self._password}", f"sentinel sentinel-pass {self._password}"]
            path.write_text("\n".join([*own, *(secret if self._password else []), *self._lines()]) + "\n")

    def start(self, *options: str) -> None:
        super().start(*options)
        with self.client() as client:
            for name, value in _HURRIED.items():
                client.execute_command("SENTINEL DEBUG", name, value)

    def _command(self) -> list[str]:
        return [self._program, str(self.folder / "sentinel.conf"), "--sentinel"]


class SentinelSet:
    """A watched service `main`. Entered, it is complete: replicas in sync, known to sentinels that agree.

    With `certificate` and its `key`, clients reach every address by TLS; the servers among themselves go on in plain.
    """

    def __init__(
        self,
        program: str,
        *,
        replicas: int = 1,
        sentinels: int = 1,
        password: str = "",
        sentinel_password: str = "",
        tls: tuple[Path, Path] | None = None,
        down_after_ms: int = 1000,
        options: tuple[str, ...] = (),
    ) -> None:
        self._tls = tls
        self._password, self._sentinel_password = password, sentinel_password
        self._down_after_ms = down_after_ms
        self._quorum = sentinels // 2 + 1
        self._stack = ExitStack()
        self._fronts: dict[int, int] = {}
        self.servers = [RedisServer(program, *_EAGER, *options, password=password) for _ in range(1 + replicas)]
        self.sentinels = [Sentinel(program, self._lines, sentinel_password) for _ in range(sentinels)]

    # -- life

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for one in (*self.servers, *self.sentinels):
                stack.callback(one.close)
            for server in self.servers:
                self._start(server, stack)
            self._first_address = self._address(self.servers[0])
            for sentinel in self.sentinels:
                self._start(sentinel, stack)
            self.settle()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, one: RedisServer, stack: ExitStack) -> None:
        one.start()
        if self._tls is not None:
            front = stack.enter_context(Toxics("127.0.0.1", one.port, tls=server_context(*self._tls)))
            self._fronts[front.port] = one.port
        if one in self.servers:
            self._tell_where(one)

    def _tell_where(self, server: RedisServer) -> None:
        port = self._address(server)[1]
        with server.client() as client:
            client.config_set("replica-announce-ip", "127.0.0.1")
            client.config_set("replica-announce-port", port)
            if server is not self.servers[0]:
                client.replicaof("127.0.0.1", str(self._address(self.servers[0])[1]))
                wait_for(lambda: client.info("replication")["master_link_status"] == "up", "a replica in sync")

    def _lines(self) -> list[str]:
        host, port = self._first_address
        lines = [
            "sentinel announce-ip 127.0.0.1",
            f"sentinel monitor {SERVICE} {host} {port} {self._quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {self._down_after_ms}",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel parallel-syncs {SERVICE} 8",
        ]
        return [*lines, f"sentinel auth-pass {SERVICE} {self._password}"] if self._password else lines

    def _address(self, one: RedisServer) -> tuple[str, int]:
        """Where clients find it."""
        fronts = [front for front, port in self._fronts.items() if port == one.port]
        return "127.0.0.1", (fronts or [one.port])[0]

    # -- what clients are told

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where the sentinels are."""
        return [self._address(sentinel) for sentinel in self.sentinels]

    @property
    def url(self) -> str:
        """For GATEWAY_REDIS_URL."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.addresses)
        secret = f":{self._password}@" if self._password else ""
        query = {"sentinel_password": self._sentinel_password} if self._sentinel_password else {}
        if self._tls is not None:
            query["ssl_ca_certs"] = str(self._tls[0])
        scheme = "redis+sentinel" if self._tls is None else "rediss+sentinel"
        return f"{scheme}://{secret}{hosts}/{SERVICE}" + (f"?{urlencode(query)}" if query else "")

    # -- who is who

    @property
    def primary(self) -> RedisServer:
        """Who the first sentinel that answers calls the primary."""
        for sentinel in self.sentinels:
            with suppress(redis.ConnectionError, redis.TimeoutError):
                _, port = self.ask(sentinel, "GET-MASTER-ADDR-BY-NAME", SERVICE)
                real = self._fronts.get(int(port), int(port))
                return next(server for server in self.servers if server.port == real)
        raise RuntimeError("no sentinel answers")

    @property
    def replica(self) -> RedisServer:
        """The first server that is not the primary."""
        primary = self.primary
        return next(server for server in self.servers if server is not primary)

    def ask(self, sentinel: RedisServer, *words: str) -> Any:
        """What that sentinel answers to a SENTINEL command."""
        with sentinel.client(decode_responses=True) as client:
            return client.execute_command(f"SENTINEL {words[0]}", *words[1:])

    # -- faults

    def failover(self) -> RedisServer:
        """Planned, as by an operator; returns the new primary once the sentinels name it."""
        old = self.primary
        self.ask(self.sentinels[0], "FAILOVER", SERVICE)
        return self.until_promoted(old)

    def until_promoted(self, old: RedisServer) -> RedisServer:
        """The primary that has taken the place of `old`, once it takes writes and every live sentinel names it."""

        def promoted() -> RedisServer | None:
            named = self.primary
            if named is old:
                return None
            with named.client() as client:
                return named if client.role()[0] == b"master" else None

        found: RedisServer = wait_for(promoted, "a promoted replica")
        return found

    def freeze_primary(self) -> RedisServer:
        """It stops answering, its connections stay; returns it, to be thawed."""
        primary = self.primary
        primary.freeze()
        return primary

    def kill_primary(self) -> RedisServer:
        """It is gone; returns it, to be started again."""
        primary = self.primary
        primary.stop()
        return primary

    def mend(self) -> None:
        """Thaw and start whoever needs it, and wait until all is as at the beginning, with whichever primary."""
        for server in self.servers:
            if server.is_running:
                server.thaw()
            else:
                server.start()
                self._rejoin(server)
        for sentinel in self.sentinels:
            if sentinel.is_running:
                sentinel.thaw()
            else:
                sentinel.start()
        self.settle()

    def _rejoin(self, server: RedisServer) -> None:
        with server.client() as client:
            client.config_set("replica-announce-ip", "127.0.0.1")
            client.config_set("replica-announce-port", self._address(server)[1])
            primary = self.primary
            if primary is not server:
                client.replicaof("127.0.0.1", str(self._address(primary)[1]))

    def settle(self) -> None:
        """Wait until the sentinels agree and know every replica as good for a failover."""
        for sentinel in self.sentinels:
            wait_for(partial(self._is_content, sentinel), "a sentinel that knows its replicas")

    def _is_content(self, sentinel: RedisServer) -> bool:
        with suppress(redis.RedisError):
            primary = self._flat(self.ask(sentinel, "MASTER", SERVICE))
            others = self.ask(sentinel, "REPLICAS", SERVICE)
            self.ask(sentinel, "CKQUORUM", SERVICE)
            return (
                primary["flags"] == "master"
                and int(primary["num-other-sentinels"]) == len(self.sentinels) - 1
                and sum(_is_good(self._flat(one)) for one in others) == len(self.servers) - 1
            )
        return False

    @staticmethod
    def _flat(answer: Any) -> dict[str, str]:
        """redis-py parses some of these by itself, depending on its version."""
        return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))


def _is_good(replica: dict[str, str]) -> bool:
    return replica["flags"] == "slave" and replica["master-link-status"] == "ok"


def wait_for(predicate: Callable[[], Any], description: str, seconds: float = BOUND_SECONDS) -> Any:
    """The first true value of the predicate; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {description}"
        time.sleep(_PAUSE_SECONDS)
    return value
