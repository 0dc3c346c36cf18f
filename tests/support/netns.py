"""Two network namespaces with a cable between them, where root may make such: a link that goes down in silence.

A proxy can't play this. Here the kernel itself has nowhere to send to: nothing is closed, nothing is refused, and TCP
sends again for minutes.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache

_RUN_SECONDS = 10.0


class Cable:
    """A namespace, reachable from here at `inside`; from in there, here is `outside`."""

    def __init__(self, number: int) -> None:
        self.name = f"gw{number}"
        # The range that is set aside for tests of networks.
        self.inside, self.outside = (f"198.{18 + number % 2}.{number // 2 % 256}.{host}" for host in (1, 2))
        self._here = f"{self.name}h"

    def open(self, stack: ExitStack) -> None:
        """Make it, until the stack ends."""
        _run("netns", "add", self.name)
        stack.callback(_run, "netns", "del", self.name)
        _run("link", "add", self._here, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        stack.callback(_run, "link", "del", self._here, is_checked=False)
        _run("addr", "add", f"{self.outside}/24", "dev", self._here)
        self.up()
        _run("-n", self.name, "addr", "add", f"{self.inside}/24", "dev", "eth0")
        _run("-n", self.name, "link", "set", "eth0", "up")
        _run("-n", self.name, "link", "set", "lo", "up")

    def command(self, *command: str) -> list[str]:
        """The command, to be run in the namespace."""
        return ["ip", "netns", "exec", self.name, *command]

    def up(self) -> None:
        """Plug it in."""
        _run("link", "set", self._here, "up")

    def down(self) -> None:
        """Pull it: from now on every packet of either side is lost."""
        _run("link", "set", self._here, "down")


@contextmanager
def cable() -> Iterator[Cable]:
    """A namespace and its cable for the length of the block; both are gone afterwards. One at a time in a process."""
    made = Cable(os.getpid())
    with ExitStack() as stack:
        made.open(stack)
        yield made


@cache
def why_not() -> str:
    """Why there can be no namespaces here, in one line; empty if there can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "network namespaces need Linux and `ip`"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with cable() as made:
            subprocess.run(made.command("true"), check=True, capture_output=True, timeout=_RUN_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return f"network namespaces are not permitted here: {error}"
    return ""


def _run(*words: str, is_checked: bool = True) -> None:
    command: Sequence[str] = ("ip", *words)
    subprocess.run(command, check=is_checked, capture_output=True, timeout=_RUN_SECONDS)
