"""What URLs mean, and that nothing secret of them is ever told."""

from pathlib import Path

import pytest
from redis.asyncio.connection import Connection, SSLConnection

from gateway.backplane.redis import RedisBackplane
from gateway.backplane.redis.address import Node, parse
from gateway.backplane.redis.connector import Connector
from gateway.backplanes import make_backplane
from gateway.configuration import SettingsError, load


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("redis+sentinel://one:1,two:2/main", [("one", 1), ("two", 2)]),
        ("redis+sentinel://one,two/main", [("one", 26379), ("two", 26379)]),
        ("redis+sentinel://[::1]:5,[fe80::2]/main", [("::1", 5), ("fe80::2", 26379)]),
        ("redis+cluster://one", [("one", 6379)]),
        ("redis+cluster://one:7000,two:7001/", [("one", 7000), ("two", 7001)]),
        ("redis+cluster://one:7000/0", [("one", 7000)]),
        ("redis://one:7", [("one", 7)]),
        ("redis://", [("localhost", 6379)]),
        ("unix:///run/redis.sock", []),
    ],
)
def test_hosts_are_read_with_the_usual_ports(url: str, nodes: list[tuple[str, int]]) -> None:
    assert list(parse(url).nodes) == nodes


def test_a_service_of_sentinels_may_have_a_database() -> None:
    address = parse("redis+sentinel://h/main/3")
    assert (address.kind, address.service, address.options) == ("sentinel", "main", {"db": 3})


def test_redis_and_its_sentinels_have_logins_of_their_own() -> None:
    address = parse("redis+sentinel://us%40er:p%2Fw@h/main?sentinel_username=watch&sentinel_password=d%26g")
    assert (address.options["username"], address.options["password"]) == ("us@er", "p/w")
    assert address.sentinel_options == {"username": "watch", "password": "d&g"}


def test_tls_is_for_redis_and_its_sentinels() -> None:
    address = parse("rediss+sentinel://:pw@h/main?ssl_ca_certs=/ca.pem&ssl_check_hostname=no")
    assert address.connection_class is SSLConnection
    assert address.options["ssl_ca_certs"] == address.sentinel_options["ssl_ca_certs"] == "/ca.pem"
    assert address.sentinel_options["ssl_check_hostname"] is False
    assert "password" not in address.sentinel_options
    assert parse("redis+cluster://h").connection_class is Connection
    assert parse("rediss+cluster://h").connection_class is SSLConnection


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:s3cret@h",
        "redis+sentinel://:s3cret@h/",
        "redis+sentinel://:s3cret@h/main/x",
        "redis+sentinel://:s3cret@h/main/1/2",
        "redis+sentinel://:s3cret@h:0/main",
        "redis+sentinel://:s3cret@h:99999/main",
        "redis+sentinel://:s3cret@h,/main",
        "redis+sentinel://:s3cret/x@h/main",
        "redis+sentinel://:s3cret@h/main?nonsense=1",
        "redis+sentinel://h/main?sentinel_password=s3cret&db=x",
        "rediss+sentinel://:s3cret@h/main?ssl_cert_reqs=maybe",
        "redis+cluster://:s3cret@h/1",
        "redis+cluster://:s3cret@h?db=1",
        "redis+cluster://h?sentinel_password=s3cret",
        "redis+cluster://:s3cret@h:x",
        "redis+cluster://:s3cret@",
        "redis+nonsense://:s3cret@h",
    ],
)
def test_what_can_not_be_used_is_refused_without_telling_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="GATEWAY_REDIS_URL") as refused:
        RedisBackplane(url, "w")
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:s3cret@h",
        "redis+sentinel://:s3cret/x@h/main",
        "redis+cluster://:s3cret@h/1",
        "redis+cluster://h/?#",
        "redis+nonsense://:s3cret@h",
        "rediss+unix://:s3cret@h",
    ],
)
def test_the_settings_refuse_such_urls_with_an_example(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        load({"GATEWAY_KEY": "k" * 32, "GATEWAY_REDIS_URL": url}, dotenv=None, cwd=tmp_path)
    assert f"{url.partition(':')[0].replace('nonsense', 'sentinel').replace('rediss+unix', 'redis+cluster')}://" in str(
        refused.value
    )
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:s3cret@one:1,two/main/3?sentinel_password=s3cret",
        "rediss+cluster://us:s3cret@[::1]:7000,two/?ssl_password=s3cret",
    ],
)
def test_the_settings_take_them_and_keep_their_secrets(url: str, tmp_path: Path) -> None:
    settings, _ = load({"GATEWAY_KEY": "k" * 32, "GATEWAY_REDIS_URL": url}, dotenv=None, cwd=tmp_path)
    assert settings.redis_url == url
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in repr(make_backplane(settings))


@pytest.mark.parametrize("secret", ["pw-of-redis", "pw-of-sentinel", "pw-of-key"])
def test_no_text_has_a_secret_of_any_part_of_the_url(secret: str) -> None:
    url = "rediss+sentinel://:pw-of-redis@h/main?sentinel_password=pw-of-sentinel&ssl_password=pw-of-key"
    connector = Connector(url, "w", 1.0)
    sentinel = connector.to_sentinel(Node("h", 1))
    for one in (connector, sentinel, connector.at(Node("h", 2))):
        told = f"{one.describe(ConnectionError(f'wrong {secret}'))} {one.where}"
        assert secret not in told
        assert "***" in told
