"""`rediss://`: through a small TLS proxy, since the bundled server has no TLS of its own."""

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.backplane.base import BackplaneUnavailable, Verdict
from gateway.backplane.redis import RedisBackplane
from tests.backplane.cluster import Ear, RedisEngine, seated
from tests.backplane.proxy import proxied
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_redis_behind_tls_does_all_that_redis_does(redis_engine: RedisEngine, certificate: Path) -> None:
    async with proxied(redis_engine.server.port, server_side(certificate)) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificate}"
        async with seated(RedisBackplane(url, "v"), RedisBackplane(url, "w")) as (v, w):
            assert await v.dispatch("w", "1", body=b"x" * 300_000) == [Verdict.OK]
            assert len((await w.ear.next()).body) == 300_000
            proxy.cut()
            await wait_until(lambda: w.ear.gaps == 1, "the loss is noticed and healed")
            assert await v.dispatch("w", "2") == [Verdict.OK]
            assert (await w.ear.next()).id == "2"


async def test_a_certificate_that_nobody_vouches_for_is_refused(redis_engine: RedisEngine, certificate: Path) -> None:
    async with proxied(redis_engine.server.port, server_side(certificate)) as proxy:
        backplane = RedisBackplane(f"rediss://127.0.0.1:{proxy.port}", "w")
        with pytest.raises(BackplaneUnavailable, match=r"(?i)certificate"):
            async with backplane.session(Ear()):
                pass


async def test_a_certificate_need_not_be_checked_if_people_say_so(redis_engine: RedisEngine, certificate: Path) -> None:
    async with proxied(redis_engine.server.port, server_side(certificate)) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}/0?ssl_cert_reqs=none"
        async with seated(RedisBackplane(url, "w")) as (w,):
            assert await w.dispatch("w", "1") == [Verdict.OK]
