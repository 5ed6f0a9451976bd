"""The words for states and ages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.tui.words import DownloadRate, ago, state_of, status_words
from sync import NetworkError, SyncProgress, SyncStatus
from tests.app.conftest import NOW

OFFLINE = SyncStatus(wanted=True, download_error=NetworkError("no route"))
CONNECTED = SyncStatus(wanted=True, connected=True, last_synced_at=NOW)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (SyncStatus(), "paused"),
        (SyncStatus(wanted=True), "connecting"),
        (SyncStatus(wanted=True, connecting=True), "connecting"),
        (CONNECTED, "connected"),
        (OFFLINE, "offline"),
        (replace(OFFLINE, connecting=True), "offline"),
        (SyncStatus(wanted=True, syncing_elsewhere=True), "elsewhere"),
    ],
)
def test_each_status_is_one_state(status: SyncStatus, state: str):
    assert state_of(status) == state


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (CONNECTED, "Connected · all changes synced"),
        (replace(CONNECTED, upload_queue_count=1), "Connected · 1 change waiting"),
        (replace(CONNECTED, upload_queue_count=1234, uploading=True), "Connected · uploading 1,234 changes"),
        (
            replace(CONNECTED, upload_queue_count=2, upload_error=NetworkError("x")),
            "Connected · 2 changes waiting",
        ),
        (OFFLINE, "Offline"),
        (replace(OFFLINE, upload_queue_count=3), "Offline · 3 changes waiting"),
        (SyncStatus(), "Paused"),
        (SyncStatus(upload_queue_count=3), "Paused · 3 changes waiting"),
    ],
)
def test_the_longest_wording(status: SyncStatus, words: str):
    assert status_words(status, NOW).left[0] == words


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (CONNECTED, "Connected · 2 rejected"),
        (replace(CONNECTED, upload_queue_count=1), "Connected · 1 change waiting · 2 rejected"),
        (OFFLINE, "Offline · 2 rejected"),
    ],
)
def test_rejected_changes_are_told_in_every_length(status: SyncStatus, words: str):
    left = status_words(status, NOW, rejected=2).left
    assert left[0] == words
    assert all(each.endswith(" · 2 rejected") for each in left)


@pytest.mark.parametrize(
    ("status", "problem", "reason"),
    [
        (CONNECTED, None, ""),
        (OFFLINE, None, " · no route"),
        (OFFLINE, "Port taken.", " · Port taken"),
        (replace(CONNECTED, upload_queue_count=2, upload_error=NetworkError("Not\nnow.")), None, ": Not now"),
        (replace(CONNECTED, upload_error=NetworkError("x")), None, ""),
        (replace(OFFLINE, wanted=False), None, ""),
        (replace(OFFLINE, download_error=NetworkError()), None, " · NetworkError"),
    ],
)
def test_the_reason(status: SyncStatus, problem: str | None, reason: str):
    assert status_words(status, NOW, problem).reason == reason


def test_a_first_sync_tells_how_far_it_is():
    downloading = SyncStatus(wanted=True, connected=True, downloading=True, download_progress=SyncProgress(45, 100))
    assert status_words(downloading, NOW).left == ("Downloading 45% ▰▰▰▰▱▱▱▱▱▱", "Downloading 45%")
    assert "Downloading" not in status_words(replace(downloading, last_synced_at=NOW), NOW).left[0]


@pytest.mark.parametrize(
    ("status", "again"),
    [
        (replace(OFFLINE, download_retry_at=NOW + timedelta(seconds=11.2)), "retrying in 12 s · "),
        (replace(OFFLINE, download_retry_at=NOW - timedelta(seconds=1)), "retrying in 1 s · "),
        (replace(OFFLINE, download_retry_at=NOW + timedelta(seconds=9), connecting=True), ""),
        (replace(CONNECTED, upload_retry_at=NOW + timedelta(seconds=3)), "retrying in 3 s · "),
        (replace(OFFLINE, wanted=False, download_retry_at=NOW + timedelta(seconds=3)), ""),
        (OFFLINE, ""),
    ],
)
def test_the_next_attempt_is_told_where_there_is_room(status: SyncStatus, again: str):
    ages = status_words(replace(status, download_retry_at=None, upload_retry_at=None), NOW).right
    assert status_words(status, NOW).right == (*([again + ages[0]] if again else []), *ages)


def test_wordings_get_shorter():
    for status in (CONNECTED, OFFLINE, SyncStatus(upload_queue_count=3), replace(CONNECTED, upload_queue_count=9)):
        lengths = [len(words) for words in status_words(status, NOW).left]
        assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=59), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(minutes=59), "59 minutes ago"),
        (timedelta(hours=1), "1 hour ago"),
        (timedelta(hours=47), "1 day ago"),
        (timedelta(days=13), "13 days ago"),
        (timedelta(days=30), "on 2026-02-12"),
    ],
)
def test_ages(passed: timedelta, words: str):
    assert ago(NOW - passed, NOW) == words


def test_the_rate_of_a_download_and_the_time_that_is_left():
    rate = DownloadRate()
    assert rate.describe() == ""
    for at, done in ((0.0, 100), (1.0, 1100), (2.0, 2100)):
        rate.add(SyncStatus(download_progress=SyncProgress(done, 10_100)), at)
    assert rate.describe() == "2,100 of 10,100 changes downloaded (1,000 per second, about 8 s left)."
    rate.add(SyncStatus(download_progress=SyncProgress(2_100, 10_100)), 60.0)
    assert rate.describe() == "2,100 of 10,100 changes downloaded."
    rate.add(SyncStatus(), 61.0)
    assert rate.describe() == ""
