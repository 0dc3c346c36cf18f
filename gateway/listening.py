"""The sockets on which the gateway listens.

Several workers on one machine each have a socket of their own on the same port (SO_REUSEPORT): the kernel spreads
connections evenly over them, and what knocks while a worker is dead goes to the others. The supervisor keeps the port
with a socket that is bound but does not listen, so that nobody else takes it meanwhile.
"""

import socket

BACKLOG = 2048
PUBLIC = ("GATEWAY_HOST", "GATEWAY_PORT")
ADMIN = ("GATEWAY_ADMIN_HOST", "GATEWAY_ADMIN_PORT")
"""The settings that say where: named to people when it does not work."""


class ListenError(Exception):
    """The address can't be listened on; the text says why and what to do, for people."""


def listen(
    host: str, port: int, *, is_shared: bool = False, backlog: int = BACKLOG, named: tuple[str, str] = PUBLIC
) -> socket.socket:
    """Return a socket that listens there; port 0 takes a free one. Raise `ListenError` if that fails.

    With `is_shared` other sockets of this kind may listen on the same port.
    """
    bound = _bound(host, port, is_shared=is_shared, named=named)
    bound.listen(backlog)
    return bound


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that keeps the port for `listen(…, is_shared=True)`. Raise `ListenError` if it is taken.

    Another program's shared sockets would let us in beside them, so the port is first asked for alone.
    """
    alone = _bound(host, port, is_shared=False)
    try:
        alone.listen(1)
        port = alone.getsockname()[1]
    except OSError as error:
        raise _trouble(host, port, error, PUBLIC) from None
    finally:
        alone.close()
    return _bound(host, port, is_shared=True)


def _bound(host: str, port: int, *, is_shared: bool, named: tuple[str, str] = PUBLIC) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _trouble(host, port, error, named) from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # `::` means every address, of both families.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _trouble(host, port, error, named) from None
    return bound


def _trouble(host: str, port: int, error: OSError, named: tuple[str, str]) -> ListenError:
    host_setting, port_setting = named
    return ListenError(
        f"无法监听 {host}:{port}（{error.strerror}）；可能端口已被占用，请换 {port_setting} 或停掉另一个程序 / "
        f"can't listen on {host}:{port} ({error.strerror}); "
        f"if another program has the port, stop it or set {port_setting} ({host_setting} for the address)"
    )
