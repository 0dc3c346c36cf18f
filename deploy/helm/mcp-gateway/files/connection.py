"""Does a release answer? Public and admin port, as base URLs. Standard library only: it runs in the image."""

import http.client
import sys
import urllib.parse

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def status(url, headers):
    """The status that a request gets."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("GET", parts.path, headers=headers)
    return connection.getresponse().status


def main(public, admin):
    """Print each question and its answer; return how many were answered wrongly."""
    questions = [
        (f"{public}/livez", {}, {200}),
        (f"{public}/readyz", {}, {200}),
        (f"{public}/metrics", {}, {404}),
        # A WebSocket without a token: the gateway itself refuses it.
        (f"{public}/mcp_endpoint/mcp/", UPGRADE, {400}),
        (f"{admin}/readyz", {}, {200}),
        (f"{admin}/metrics", {}, {200, 401}),
    ]
    failures = 0
    for url, headers, right in questions:
        got = status(url, headers)
        failures += got not in right
        sys.stdout.write(f"{'ok  ' if got in right else 'FAIL'} {got} {url}\n")
    return failures


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
