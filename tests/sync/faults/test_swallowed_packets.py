"""Half-open connections: packets that are really swallowed, on the wire between two network namespaces.

Nothing resets the connection and no link goes down, so only the engine's own deadlines can notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator

import pytest

from sync import NetworkError, PowerSyncCredentials, PowerSyncDatabase, SyncOptions
from tests.kit import network as kit_network
from tests.kit.network import Host, Network
from tests.kit.small_service import SmallConnector, SmallService
from tests.sync.faults.test_faults import synced, until, uploaded_once
from tests.sync.rig import rows

pytestmark = pytest.mark.skipif(
    kit_network.missing() is not None, reason=f"no packets can be swallowed here: {kit_network.missing()}"
)

DEADLINE = 1.0

WAKEFUL = SyncOptions(
    crud_throttle=0,
    retry_delay=0.01,
    max_retry_delay=0.05,
    credentials_timeout=DEADLINE,
    upload_timeout=DEADLINE,
    connect_timeout=DEADLINE,
    silence_timeout=DEADLINE,
)


@pytest.fixture
def network() -> Generator[Network]:
    network = Network()
    try:
        network.add("device")
        network.add("service")
        yield network
    finally:
        network.close()


@pytest.fixture
def device(network: Network) -> Host:
    return network.hosts["device"]


@pytest.fixture
async def service(network: Network, device: Host) -> AsyncGenerator[SmallService]:
    """A service on its own host. What the test opens from here on is on the device's."""
    network.start()
    host = network.hosts["service"]
    service = SmallService(host.address)
    service.keepalive_seconds = 0.05
    with host.inside():
        await service.start()
    with device.inside():
        yield service
    network.heal()
    await service.stop()


@pytest.fixture
async def connector(service: SmallService) -> AsyncGenerator[SmallConnector]:
    connector = SmallConnector(service.url)
    yield connector
    await connector.aclose()


async def noticed(database: PowerSyncDatabase, what: str) -> Exception:
    """The error that a direction, download or upload, comes to show: without its deadline, none for minutes."""
    status = await until(database, lambda status: getattr(status, f"{what}_error"))
    return getattr(status, f"{what}_error")


@pytest.mark.parametrize("direction", ["both", "received"])
async def test_a_stream_whose_packets_are_swallowed_is_given_up_and_found_again(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector, device: Host, direction: str
) -> None:
    service.write("lists", "a", {"name": "before"})
    await database.connect(connector, WAKEFUL)
    await synced(database, service)
    device.cut(sent=direction == "both")
    service.write("lists", "b", {"name": "meanwhile"})
    error = await noticed(database, "download")
    assert isinstance(error, NetworkError)
    assert "silent for 1 seconds" in str(error)
    assert device.swallowed > 0
    assert await rows(database, "SELECT id FROM lists") == [["a"]]
    device.heal()
    await synced(database, service)
    assert len(await rows(database, "SELECT id FROM lists")) == 2


@pytest.mark.parametrize("direction", ["both", "sent", "received"])
async def test_an_upload_whose_packets_are_swallowed_is_given_up_and_made_again(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector, device: Host, direction: str
) -> None:
    await database.connect(connector, WAKEFUL)
    await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'before')")
    await synced(database, service)
    device.cut(sent=direction != "received", received=direction != "sent")
    await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'written into the void')")
    error = await noticed(database, "upload")
    assert isinstance(error, NetworkError)
    assert device.swallowed > 0
    assert await rows(database, "SELECT count(*) FROM ps_crud") == [[1]]
    device.heal()
    await synced(database, service)
    assert set(service.rows) == {("lists", "a"), ("lists", "b")}
    if direction != "received":
        uploaded_once(service)  # with answers swallowed the service cannot know which of them were lost


async def test_a_connection_whose_first_packet_is_swallowed_is_given_up_and_made_again(
    database: PowerSyncDatabase,
    service: SmallService,
    connector: SmallConnector,
    device: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service.write("lists", "a", {"name": "theirs"})
    credentials = await connector.fetch_credentials()

    async def remembered() -> PowerSyncCredentials:
        return credentials

    monkeypatch.setattr(connector, "fetch_credentials", remembered)  # so that the stream's connection is the first
    device.cut()
    await database.execute("INSERT INTO lists(id, name) VALUES ('b', 'mine')")
    await database.connect(connector, WAKEFUL)
    error = await noticed(database, "download")
    assert isinstance(error, NetworkError)
    assert "cannot be reached" in str(error)
    assert service.streams == 0
    device.heal()
    await synced(database, service)
    assert set(service.rows) == {("lists", "a"), ("lists", "b")}


async def test_lost_and_late_packets_only_make_it_slow(
    database: PowerSyncDatabase, service: SmallService, connector: SmallConnector, device: Host
) -> None:
    device.latency, device.loss = 0.01, 0.03
    await database.connect(connector, SyncOptions(crud_throttle=0, retry_delay=0.01, max_retry_delay=0.05))
    for number in range(10):
        await database.execute("INSERT INTO lists(id, name) VALUES (?, 'mine')", [f"m{number}"])
        service.write("lists", f"t{number}", {"name": "theirs"})
        await asyncio.sleep(0)
    await synced(database, service)
    assert len(service.rows) == 20
    uploaded_once(service)
