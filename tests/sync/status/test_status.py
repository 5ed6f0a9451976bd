"""The status: progress, priorities, what the file tells, and when something is tried again."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import time_machine

from sync import PowerSyncDatabase, ProgressWithOperations, SyncOptions, SyncPriorityStatus, SyncStatus
from sync.protocol.lines import BucketChecksum
from sync.status.progress import BucketCounts, SubscriptionInTarget, TargetProgress
from tests.kit import inside
from tests.kit.service import Exchange, scripted_service
from tests.sync.rig import QUICK, SCHEMA, ServiceConnector, rows
from tests.sync.stepwise import (
    COMPLETE,
    LAST_OP,
    bucket,
    checkpoint,
    data,
    diff,
    partly_complete,
    stepwise,
    stream,
)
from tests.sync.test_transcripts import NAMES, load, prepare


def amount(status: SyncStatus) -> tuple[int, int] | None:
    progress = status.download_progress
    return None if progress is None else (progress.downloaded_operations, progress.total_operations)


def all_statuses(database: PowerSyncDatabase) -> list[SyncStatus]:
    """Every status from now on; a watcher that is slow would miss some."""
    seen: list[SyncStatus] = []
    inside.on_status(database, lambda: seen.append(database.status))
    return seen


def assert_sound(statuses: list[SyncStatus]) -> None:
    for status in statuses:
        progress = status.download_progress
        assert (progress is not None) == status.downloading
        parts = [stream.progress for stream in status.streams if stream.progress is not None]
        if progress is not None:
            parts += [progress, *(part for _, part in progress.priorities)]
        for part in parts:
            assert 0 <= part.downloaded_operations <= part.total_operations
            assert 0.0 <= part.downloaded_fraction <= 1.0


async def test_progress_by_priority_and_by_stream(database: PowerSyncDatabase) -> None:
    first = bucket("urgent", range(1, 3), priority=1, subscriptions=[{"default": 0}])
    later = bucket("bulk", range(10, 14), subscriptions=[{"sub": 0}])
    subscription = await database.sync_stream("todos", {"list": "a"}).subscribe()
    seen = all_statuses(database)
    target = checkpoint(first, later, streams=[stream("lists", is_default=True), stream("todos")])
    async with stepwise(target) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        status = await database.wait_for_status(lambda status: amount(status) == (0, 6), 10)
        assert status.downloading
        await service.send(data("urgent", [1]))
        status = await database.wait_for_status(lambda status: amount(status) == (1, 6), 10)
        assert status.download_progress is not None
        assert status.download_progress.until_priority(1) == ProgressWithOperations(1, 2)
        assert status.download_progress.until_priority(2) == ProgressWithOperations(1, 2)
        assert status.download_progress.until_priority(3) == ProgressWithOperations(1, 6)
        assert status.download_progress.until_priority(0).downloaded_fraction == 0.0
        await service.send(data("urgent", [2]), partly_complete(1))
        await database.wait_for_first_sync(10, priority=1)
        status = database.status
        assert amount(status) == (2, 6)
        assert not status.has_synced
        assert [entry.priority for entry in status.priorities] == [1]
        assert status.status_for_priority(0).has_synced
        assert status.status_for_priority(1) == status.priorities[0]
        assert status.status_for_priority(2) == SyncPriorityStatus(2, None)
        await service.send(data("bulk", range(10, 13)))
        status = await database.wait_for_status(lambda status: amount(status) == (5, 6), 10)
        lists, todos = status.for_stream("lists"), subscription.status
        assert lists is not None
        assert todos is not None
        assert (lists.progress, lists.priority, lists.has_synced) == (ProgressWithOperations(2, 2), 1, True)
        assert (todos.progress, todos.priority, todos.has_synced) == (ProgressWithOperations(3, 4), 3, False)
        await service.send(data("bulk", [13]), COMPLETE)
        await subscription.wait_for_first_sync(10)
        status = await database.wait_for_status(lambda status: not status.downloading, 10)
        assert [entry.priority for entry in status.priorities] == [None]
        assert status.status_for_priority(3).last_synced_at == status.last_synced_at
        assert all(stream.progress is None for stream in status.streams)
    assert_sound(seen)


async def test_a_checkpoint_that_is_overtaken_keeps_its_progress(database: PowerSyncDatabase) -> None:
    seen = all_statuses(database)
    async with stepwise(checkpoint(bucket("b", range(1, 5)))) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_status(lambda status: amount(status) == (0, 4), 10)
        await service.send(data("b", [1, 2, 3]), diff(bucket("b", range(1, 9))))
        await database.wait_for_status(lambda status: amount(status) == (3, 8), 10)
        await service.send(data("b", range(4, 9)))
        await database.wait_for_status(lambda status: amount(status) == (8, 8), 10)
        await service.send(COMPLETE)
        await database.wait_for_first_sync(10)
        # What is published does not count again.
        more = bucket("b", [*range(1, 9), LAST_OP + 1, LAST_OP + 2])
        await service.send(diff(more, last_op_id=str(LAST_OP + 2)), data("b", [LAST_OP + 1]))
        await database.wait_for_status(lambda status: amount(status) == (1, 2), 10)
    assert_sound(seen)


async def test_progress_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with stepwise(checkpoint(bucket("b", range(1, 5)))) as service:
        for start, done in ((1, 2), (3, 3)):
            async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
                await database.connect(ServiceConnector(service.url), QUICK)
                await database.wait_for_status(lambda status, start=start: amount(status) == (start - 1, 4), 10)
                await service.send(data("b", range(start, done + 1)))
                await database.wait_for_status(lambda status, done=done: amount(status) == (done, 4), 10)


async def test_a_bucket_that_shrank_never_shows_more_than_all(database: PowerSyncDatabase) -> None:
    """The service compacted it: the counts of the file can tell nothing."""
    seen = all_statuses(database)
    async with stepwise(checkpoint(bucket("b", range(1, 9)), bucket("c", [20]))) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_status(lambda status: amount(status) == (0, 9), 10)
        await service.send(data("b", range(1, 7)))
        await database.wait_for_status(lambda status: amount(status) == (6, 9), 10)
        await service.send(diff(bucket("b", [1, 2, 3])))
        await database.wait_for_status(lambda status: amount(status) == (0, 4), 10)
        await service.send(data("b", range(7, 12)))
        await database.wait_for_status(lambda status: amount(status) == (3, 4), 10)
        assert await rows(database, "SELECT count_at_last FROM ps_buckets WHERE name = 'b'") == [[0]]
    assert_sound(seen)


# The service compacted a bucket and announces more operations than it then sends.
COMPACTED = {"clear-op"}


@pytest.mark.parametrize("name", NAMES)
async def test_progress_over_real_streams(name: str, database: PowerSyncDatabase) -> None:
    """When a checkpoint of the real service is about to be complete, all of it has come; and never more than all."""
    lines, expected = load(name)
    request = expected["request"]
    await prepare(database, request)
    seen = all_statuses(database)
    first_end = next((n for n, line in enumerate(lines) if line.startswith('{"checkpoint_complete"')), len(lines))
    brings_data = any('"op_id"' in line for line in lines[:first_end])
    go_on = asyncio.Event()
    sent = asyncio.Event()

    async def service(exchange: Exchange) -> None:
        await exchange.begin_stream()
        for number, line in enumerate(lines if len(server.requests) == 1 else ()):
            if number == first_end:
                await go_on.wait()
            await exchange.send(f"{line}\n")
        sent.set()
        await exchange.closed_by_client()

    async with scripted_service(service) as server:
        options = SyncOptions(
            crud_throttle=0,
            retry_delay=1000,
            max_retry_delay=1000,
            include_default_streams=request["streams"]["include_defaults"],
        )
        await database.connect(ServiceConnector(server.url), options)
        if first_end < len(lines) and brings_data and not request["buckets"]:
            least = 0.01 if name in COMPACTED else 1.0
            await database.wait_for_status(
                lambda s: s.download_progress is not None and s.download_progress.downloaded_fraction >= least, 10
            )
        go_on.set()
        async with asyncio.timeout(10):
            await sent.wait()
        await database.wait_for_status(lambda status: not status.downloading, 10)
    assert_sound(seen)


def test_progress_adds_up_whatever_comes() -> None:
    buckets = [BucketChecksum("a", 0, 1, 5), BucketChecksum("b", 0, 3, 2), BucketChecksum("c", 0, 3, 0)]
    subscriptions = [
        SubscriptionInTarget(7, True, None, (buckets[0], buckets[1], buckets[0])),
        SubscriptionInTarget(8, False, "no", ()),
    ]
    target = TargetProgress(buckets, {"a": BucketCounts(1, 2), "gone": BucketCounts(9, 9)}, subscriptions)
    assert target.progress() == type(target.progress())(
        2, 6, ((1, ProgressWithOperations(2, 4)), (3, ProgressWithOperations(0, 2)))
    )
    for name, count in (("a", 1), ("a", 50), ("unknown", 3), ("c", 4)):
        target.received(name, count)
    assert not target.is_complete
    assert target.progress().downloaded_fraction == 4 / 6
    streams = target.streams()
    assert (streams[7].progress, streams[7].priority) == (ProgressWithOperations(4, 6), 1)
    assert (streams[8].progress.downloaded_fraction, streams[8].priority) == (0.0, None)
    target.received("b", 2)
    assert target.is_complete


async def test_what_the_file_tells_is_right_offline_after_a_restart(tmp_path: Path) -> None:
    target = checkpoint(
        bucket("b", [1], priority=1, subscriptions=[{"default": 0}]), streams=[stream("s", is_default=True)]
    )
    async with (
        stepwise(target, data("b", [1]), partly_complete(1), COMPLETE) as service,
        PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database,
    ):
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_first_sync(10)
        await database.disconnect()
        await database.execute("INSERT INTO lists(id, name) VALUES ('x', 'x')")
        before = await database.wait_for_status(lambda status: status.upload_queue_count == 1, 10)
    async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
        after = database.status
        assert (after.last_synced_at, after.priorities, after.upload_queue_count) == (
            before.last_synced_at,
            before.priorities,
            1,
        )
        assert [(stream.name, stream.last_synced_at, stream.offered) for stream in after.streams] == [
            ("s", before.last_synced_at, True)
        ]
        assert after.seconds_since_last_line() is None
        await database.wait_for_first_sync(0)
        await database.wait_for_first_sync(0, priority=3)


async def test_the_last_sync_never_goes_back(tmp_path: Path) -> None:
    """Not by new connections, checkpoints that are partly complete, mismatches, restarts, or the clock."""
    times: list[datetime | None] = []
    async with stepwise(checkpoint(bucket("b", [1])), data("b", [1])) as service:
        for hours in (0, -5, -3):
            with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True):
                async with PowerSyncDatabase(tmp_path / "c.db", SCHEMA) as database:
                    seen = all_statuses(database)
                    times.append(database.status.last_synced_at)
                    await database.connect(ServiceConnector(service.url), QUICK)
                    await service.streams.get()
                    await service.send(partly_complete(3), COMPLETE)
                    last = times[-1]
                    await database.wait_for_status(lambda s, last=last: s.last_synced_at not in {None, last}, 10)
                    await service.send(diff(bucket("b", [5])), COMPLETE)
                    await database.wait_for_status(lambda status: status.download_error is not None, 10)
                    times += [status.last_synced_at for status in seen]
    known = times[times.index(next(filter(None, times))) :]
    assert None not in known
    assert all(one is not None and other is not None and one <= other for one, other in pairwise(known))


async def test_the_last_line_ages_without_a_new_status(database: PowerSyncDatabase) -> None:
    async with stepwise(checkpoint(), COMPLETE) as service:
        assert database.status.seconds_since_last_line() is None
        await database.connect(ServiceConnector(service.url), QUICK)
        await database.wait_for_first_sync(10)
        status = await database.wait_for_status(lambda status: status.connected and not status.downloading, 10)
        seen = all_statuses(database)
        began = time.monotonic()
        while (age := status.seconds_since_last_line()) is None or age < 0.2:
            await asyncio.sleep(0.05)
        await service.send({"token_expires_in": 3600})
        while (age := status.seconds_since_last_line()) is None or age > time.monotonic() - began:
            await asyncio.sleep(0)
        assert seen == []
    age = database.status.seconds_since_last_line()
    assert age is not None


async def test_the_next_retry_is_told(database: PowerSyncDatabase) -> None:
    async def service(exchange: Exchange) -> None:
        await exchange.answer(500, {})

    async def upload(_: PowerSyncDatabase) -> None:
        raise OSError("no backend")

    patient = SyncOptions(retry_delay=1000, max_retry_delay=1000, crud_throttle=0)
    async with scripted_service(service) as server:
        connector = ServiceConnector(server.url, upload)
        began = datetime.now(UTC)
        await database.connect(connector, patient)
        status = await database.wait_for_status(lambda status: status.download_retry_at is not None, 10)
        assert status.download_retry_at is not None
        assert began < status.download_retry_at
        assert status.download_retry_at < datetime.now(UTC) + timedelta(seconds=1000)
        assert (status.next_retry_at, status.upload_retry_at) == (status.download_retry_at, None)
        await database.execute("INSERT INTO lists(id, name) VALUES ('a', 'x')")
        status = await database.wait_for_status(lambda status: status.upload_retry_at is not None, 10)
        status = await database.wait_for_status(lambda status: status.download_retry_at is not None, 10)
        assert status.next_retry_at == min(filter(None, (status.download_retry_at, status.upload_retry_at)))
        await database.disconnect()
        assert database.status.next_retry_at is None


async def test_a_status_is_told_once(database: PowerSyncDatabase) -> None:
    """No two statuses in a row are equal, also while data comes."""
    seen = all_statuses(database)
    async with stepwise(checkpoint(bucket("b", range(1, 4)))) as service:
        await database.connect(ServiceConnector(service.url), QUICK)
        for op in range(1, 4):
            await service.streams.get() if op == 1 else None
            await service.send({"token_expires_in": 3600}, data("b", [op]))
            await database.wait_for_status(lambda status, op=op: amount(status) == (op, 3), 10)
        await service.send(COMPLETE, {"token_expires_in": 3600})
        await database.wait_for_first_sync(10)
    assert all(one != other for one, other in pairwise(seen))
