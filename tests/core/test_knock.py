"""What a handshake asks for, as its target and headers say it."""

from urllib.parse import unquote_plus

import pytest

from gateway.knock import PARAMETERS_MAX, parameter, role_of, token_of


def headers(*authorizations: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), *((b"authorization", one.encode("latin-1")) for one in authorizations)]


@pytest.mark.parametrize(
    ("target", "role"),
    [
        (b"/mcp_endpoint/mcp/?token=x", "mcp"),
        (b"/mcp_endpoint/mcp", "mcp"),
        (b"/mcp_endpoint/call/", "call"),
        (b"/a/b/mcp_endpoint/call?x=/mcp_endpoint/mcp/", "call"),
        (b"/mcp_endpoint/mcp_endpoint/mcp/", "mcp"),
        (b"/%E5%B0%8F/mcp%5Fendpoint/%63all/", "call"),
        ("".join(f"%{byte:02X}" for byte in b"/x" * 2000 + b"/mcp_endpoint/call/").encode(), "call"),
        (b"/" * 9000 + b"mcp_endpoint/mcp", "mcp"),
        ("".join(f"%{byte:02X}" for byte in b"xmcp_endpoint/call/").encode(), None),
        (b"/x" * 2000 + b"%252Fmcp_endpoint/call/", None),
        (b"/mcp_endpoint/mcp//", None),
        (b"/xmcp_endpoint/mcp/", None),
        (b"/mcp_endpoint/MCP/", None),
        (b"/mcp_endpoint/health", None),
        (b"/mcp_endpoint/mcp/?/../call/", "mcp"),
        (b"/mcp_endpoint/mcp/../call/x", None),
        (b"/", None),
        (b"", None),
        (b"?", None),
        (b"mcp_endpoint/mcp/", None),
        (b"/mcp_endpoint/mcp/%0A", None),
        (b"/\xff/mcp_endpoint/mcp/", "mcp"),
    ],
)
def test_the_role_is_that_of_the_path_that_is_dialled(target: bytes, role: str | None) -> None:
    assert role_of(target) == role


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (b"", ""),
        (b"token", ""),
        (b"token=", ""),
        (b"token=a%2Bb+c", "a+b c"),
        (b"token=a=b==", "a=b=="),
        (b"token=a&token=b", "b"),
        (b"Token=a", ""),
        (b"xtoken=a&tokenx=b", ""),
        (b"tok%65n=a", "a"),
        (b"&&token=a&", "a"),
        (b"token=%ff%zz", "\ufffd%zz"),
    ],
)
def test_a_parameter_is_read_as_forms_write_it_and_the_last_one_counts(query: bytes, value: str) -> None:
    assert parameter(query, "token") == value


@pytest.mark.parametrize("filler", [b"&", b"%41&", b"tok%66n&", b"a=b&"])
def test_a_query_of_any_length_costs_a_bounded_look(filler: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of parameters fit into a head, and each of them would take a stranger's handshake longer."""
    read: list[str] = []

    def counted(text: str) -> str:
        read.append(text)
        return unquote_plus(text)

    monkeypatch.setattr("gateway.knock.unquote_plus", counted)
    query = b"token=hidden&" + filler * 5000 + b"token=a"
    assert parameter(query, "token") == "a"
    assert parameter(query, "server_id") == ""
    assert len(read) <= 2 * PARAMETERS_MAX
    assert parameter(b"token=a&" + filler * (PARAMETERS_MAX - 2), "token") == "a"


@pytest.mark.parametrize("authorization", ["Bearer abc", "bearer abc", "BEARER   abc ", " Bearer abc"])
def test_a_bearer_is_a_token_whatever_the_case_of_the_word(authorization: str) -> None:
    assert token_of(b"", headers(authorization)) == "abc"


@pytest.mark.parametrize("authorization", ["Basic YWJj", "abc", "Bearer", "Bearer ", "", "BearerX abc", "Digest a=b"])
def test_other_schemes_are_somebody_elses(authorization: str) -> None:
    assert token_of(b"", headers(authorization)) == ""
    assert token_of(b"token=xyz", headers(authorization)) == "xyz"


def test_the_querys_token_counts_whatever_stands_in_the_header_and_without_one_the_header() -> None:
    """A proxy may send a Bearer of its own along."""
    for others in (["Bearer abd"], ["Bearer abc"], ["Bearer abd", "Bearer abe"], ["Basic eA==", "Bearer abd"]):
        assert token_of(b"token=abc", headers(*others)) == "abc"
    for blank in (b"", b"token", b"token=", b"token=+%20", b"token=abc&token="):
        assert token_of(blank, headers("Basic eA==", "Bearer", "Bearer abd", "Bearer abe")) == "abd"
