"""What an app may set of the engine's HTTP client, and that the network's return is noticed."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sync import NetworkError, PowerSyncDatabase, SyncOptions
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, ServiceConnector

EMPTY = {"checkpoint": {"last_op_id": "1", "buckets": [], "streams": []}}
COMPLETE = {"checkpoint_complete": {"last_op_id": "1"}}


async def hold(exchange: Exchange) -> None:
    await exchange.begin_stream()
    await exchange.send_line(EMPTY)
    await exchange.send_line(COMPLETE)
    await exchange.closed_by_client()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of its own authority, for this machine, and its key."""
    path = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A test's own authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (path / "own.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path / "own.pem", path / "key.pem"


@pytest.mark.parametrize("way", ["system", "own authority", "own context", "unchecked"])
async def test_whose_certificates_are_trusted_can_be_set(
    database: PowerSyncDatabase, authority: tuple[Path, Path], way: str
) -> None:
    certificate, key = authority
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    verify: dict[str, bool | Path | ssl.SSLContext] = {
        "system": True,
        "own authority": certificate,
        "own context": ssl.create_default_context(cafile=certificate),
        "unchecked": False,
    }
    async with scripted_service(hold, tls=context) as server:
        options = SyncOptions(retry_delay=0.01, max_retry_delay=0.05, verify=verify[way])
        await database.connect(ServiceConnector(server.url.replace("http:", "https:")), options)
        async with asyncio.timeout(10):
            async for status in database.watch_status():
                if status.connected or status.download_error is not None:
                    break
        assert status.connected == (way != "system")
        assert isinstance(status.download_error, NetworkError) == (way == "system")
        await database.disconnect()


async def test_a_proxy_gets_the_requests(database: PowerSyncDatabase) -> None:
    async with scripted_service(hold) as proxy:
        options = SyncOptions(retry_delay=0.01, proxy=proxy.url)
        await database.connect(ServiceConnector("http://sync.invalid"), options)
        await database.wait_for_first_sync(10)
        assert proxy.requests[0].target == "http://sync.invalid/sync/stream"


async def test_the_user_agent_can_be_set_and_names_the_engine_otherwise(database: PowerSyncDatabase) -> None:
    async with scripted_service(hold) as server, httpx.AsyncClient(headers={"User-Agent": "the app's"}) as client:
        for options in (
            QUICK,
            SyncOptions(user_agent="set/1"),
            SyncOptions(http_client=client),
            SyncOptions(http_client=client, user_agent="set/2"),
        ):
            asked = len(server.requests)
            await database.connect(ServiceConnector(server.url), options)
            async with asyncio.timeout(10):
                while len(server.requests) == asked or not database.status.connected:
                    await asyncio.sleep(0.01)
        said = [request.headers["user-agent"] for request in server.requests]
        await database.disconnect()
        assert not client.is_closed
    assert said[0].startswith("todo-tui-sync ")
    assert said[1:] == ["set/1", "the app's", "set/2"]


async def test_what_the_app_has_to_say_to_the_service_is_in_the_request(database: PowerSyncDatabase) -> None:
    async with scripted_service(hold) as server:
        options = SyncOptions(params={"a": [1]}, app_metadata={"version": "1.2"}, include_default_streams=False)
        await database.connect(ServiceConnector(server.url), options)
        await database.wait_for_first_sync(10)
        await database.disconnect()
        body = server.requests[0].json
    assert (body["parameters"], body["app_metadata"]) == ({"a": [1]}, {"version": "1.2"})
    assert body["streams"]["include_defaults"] is False


NETWORK_RETURNS = """
import asyncio, subprocess
from sync.client.network import follow_network

async def main():
    changed = asyncio.Event()
    following = asyncio.create_task(follow_network(changed.set))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await asyncio.to_thread(subprocess.run, ["ip", "link", "set", "lo", "up"], check=True)
        await changed.wait()
    following.cancel()

asyncio.run(main())
"""


def _may_make_networks() -> bool:
    if sys.platform != "linux" or shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return (
        subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _may_make_networks(), reason="needs a network namespace of its own")
async def test_the_networks_return_is_noticed() -> None:
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", NETWORK_RETURNS),
        cwd=Path(__file__).parents[3],
    )
    assert await process.wait() == 0
