"""What a token says once it has been verified: which agent, in which role, as which tool server, and until when."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["mcp", "call"]
"""The last part of the path that is dialled: a tool server's, or a robot's."""

LIFETIME_DAYS_MAX = 3650
"""Of a signed token: so long an entry about an id alone has to be kept (`gateway.token_command`)."""
SERVER_ID_CHARS_MAX = 64
SERVER_ID_RULE = "server_id 须为至多 64 个可打印字符，不以 ~ 开头 / at most 64 printable characters, the first no ~"


@dataclass(frozen=True, slots=True)
class Credential:
    """A verified token. There is no secret in it: an id of a token opens nothing."""

    agent: str
    role: Role | None = None
    """None: a legacy token, which is good for both."""
    server_id: str = ""
    """The only tool server that it may be; empty: any."""
    token_id: str = ""
    """Its `jti`; empty: a legacy token, which has none."""
    issued_ms: int = 0
    expires_ms: int = 0
    """0: never."""

    @property
    def is_legacy(self) -> bool:
        """Whether it is a token of the old kind: no id, no role, no expiry."""
        return not self.token_id


def is_server_id(text: str) -> bool:
    """Whether that may be a tool server's id, as it is dialled or as a token claims it; empty is none, and may be."""
    return len(text) <= SERVER_ID_CHARS_MAX and text.isprintable() and not text.startswith("~") and text == text.strip()
