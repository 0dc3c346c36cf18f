"""Operators as docs/redis.md has them: their users, granted as written there, and the commands that they run."""

from tests.cli.command_line import CommandLine, Started
from tests.docs.markdown import read
from tests.docs.redis_cli import client, run
from tests.support.redis_server import RedisServer

PEOPLE = ("operator", "doctor", "foreman")
DOCUMENTED = {
    "maxmemory-policy": "noeviction",
    "client-output-buffer-limit": "pubsub 256mb 64mb 60",
    "tcp-keepalive": "60",
}


def grant(*servers: RedisServer, password: str = "", also: str = "") -> None:
    """Create the documented users, with the rights that they need in a Cluster `also`."""
    [block] = read("docs/redis.md").blocks_of("Rights")
    for server in servers:
        options = {"password": password} if password else {}
        with client(server.port, **options) as admin:
            for line in block.commands:
                assert run(admin, f"{line} {also}".strip()) == "OK"


def as_user(url: str, user: str) -> str:
    """The URL with the user and the documented password in it."""
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{user}:PASSWORD@{rest.rpartition('@')[2]}"


def refusals(server: RedisServer) -> list[str]:
    """Commands that any of the people has been refused."""
    with server.client(decode_responses=True) as admin:
        entries = admin.acl_log()
        admin.acl_log_reset()
    return [f"{entry['username']}: {entry['object']}" for entry in entries if entry["username"] in PEOPLE]


class Operator:
    """One of the people at a terminal."""

    def __init__(self, cli: CommandLine, url: str, user: str = "operator") -> None:
        self._cli = cli
        self.url = as_user(url, user)

    async def begin(self, command: str, *more: str, **environ: str) -> Started:
        """Start a command, given as it is typed; `more` are words with blanks in them."""
        environ = {"COLUMNS": "0"} | environ  # pytest sets it for its own children
        return await self._cli.start(*command.split(), *more, GATEWAY_REDIS_URL=self.url, **environ)

    async def run(self, command: str, *more: str, **environ: str) -> tuple[int, str]:
        """Run a command to its end: the exit code, and all that it has written."""
        started = await self.begin(command, *more, **environ)
        return await started.ended(), started.text
