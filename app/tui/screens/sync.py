"""The sync screen: why it is or is not synced, what the backend rejected, and what others have replaced.

Owns its layout, the rows and details of both, and what its keys do. What it shows comes from the store's report.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Final

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Static

from app.settings.keymap import Place
from app.store import Store
from app.store.change_words import counted
from app.store.failures import StoreError
from app.store.sync_report import RejectedChange, ReplacedChange, WaitingChange
from app.system.display_text import sanitized
from app.tui.actions import bindings, performs
from app.tui.attempts import attempt, notify_retry
from app.tui.typed_textual import app_of
from app.tui.widgets.drawn_row import DrawnRow
from app.tui.widgets.lines import KeyBar, StatusLine, TitleLine
from app.tui.widgets.row_list import RowList, RowSelected
from app.tui.words import DownloadRate, ago

EXPLAIN_SECONDS: Final = 2.0
NOTHING: Final = ("All clear", "None of your changes were rejected or replaced.")
_MOST_LISTED: Final = 50


SyncRow = RejectedChange | ReplacedChange | WaitingChange
"""What the screen has rows of."""


def headline(change: SyncRow) -> str:
    """A change in one line: any text."""
    if isinstance(change, WaitingChange):
        more = len(change.doing) - 1
        return f"{change.doing[0]}{f' and {more:,} more' if more else ''}"
    if isinstance(change, ReplacedChange):
        return f"{change.about}: {change.mine} → {change.theirs}"
    more = len(change.tried) - 1
    return f"{change.tried[0] if change.tried else 'A change'}{f' and {more:,} more' if more > 0 else ''}"


@performs(Place.SYNC)
class SyncScreen(Screen[None]):
    """Explains the state of synchronization, and lets the user resolve rejected and replaced changes.

    Args:
        store: what is synced.
        now: the clock, giving aware datetimes.
        log: returns the last lines of the log, the newest first.
    """

    BINDINGS: ClassVar[list[BindingType]] = bindings(Place.SYNC)
    CSS_PATH = "sync.tcss"
    AUTO_FOCUS = "RowList"

    def __init__(self, store: Store, now: Callable[[], datetime], log: Callable[[], list[str]] = list) -> None:
        super().__init__()
        self._log_lines = log
        self._shows_log = False
        self._store = store
        self._now = now
        self._status = store.status
        self._status_changed = asyncio.Event()
        self._title = TitleLine("Sync")
        self._explanation = Static(id="explanation", markup=False)
        self._rows: RowList[SyncRow] = RowList(self._draw)
        self._detail = Static(id="detail", markup=False)
        self._status_line = StatusLine(now)
        self._rejected: list[RejectedChange] = []
        self._replaced: list[ReplacedChange] = []
        self._waiting: list[WaitingChange] = []
        self._words = ""
        self._rate = DownloadRate()

    def compose(self) -> ComposeResult:
        """The explanation, the rows, the details of the row under the cursor, and the lines below."""
        yield self._title
        with VerticalScroll(id="explaining"):
            yield self._explanation
        yield self._rows
        with VerticalScroll(id="detailing"):
            yield self._detail
        yield self._status_line
        yield KeyBar()

    def on_mount(self) -> None:
        """Follow everything for as long as the screen is open."""
        attempt(self, self._follow_status(), group="follow")
        attempt(self, self._follow_rejected(), group="follow")
        attempt(self, self._follow_replaced(), group="follow")
        attempt(self, self._follow_waiting(), group="follow")
        attempt(self, self._follow_explanation(), group="follow")

    async def _follow_status(self) -> None:
        async for status in self._store.watch_status():
            self._status = status
            self._status_line.show(status)
            self._rate.add(status, time.monotonic())
            self._show_words()
            self.refresh_bindings()
            self._status_changed.set()

    async def _follow_rejected(self) -> None:
        async for rejected in self._store.report.watch_rejected(notify_retry(self)):
            self.show_changes(rejected, self._replaced)

    async def _follow_replaced(self) -> None:
        async for replaced in self._store.report.watch_replaced(notify_retry(self)):
            self.show_changes(self._rejected, replaced)

    async def _follow_waiting(self) -> None:
        async for waiting in self._store.report.watch_waiting(notify_retry(self)):
            self._waiting = waiting
            self.show_changes(self._rejected, self._replaced)

    def _show_words(self) -> None:
        """The explanation, how far a download is, and how many streams are synced."""
        streams = self._status.streams
        synced = sum(stream.has_synced for stream in streams)
        more = [self._rate.describe()]
        if streams and synced < len(streams):
            more.append(f"{synced:,} of {len(streams):,} streams synced.")
        self._explanation.update(sanitized(" ".join([self._words, *filter(None, more)])))

    async def _follow_explanation(self) -> None:
        """Explain again when the status changes, and from time to time: the explanation mentions times, too."""
        while True:
            self._status_changed.clear()
            try:
                words = await self._store.report.explain()
            except StoreError as error:
                words = str(error)
            self._words = words
            self._show_words()
            if self._shows_log:
                self._show_detail()
            with suppress(TimeoutError):
                async with asyncio.timeout(EXPLAIN_SECONDS):
                    await self._status_changed.wait()

    def show_problem(self, problem: str | None) -> None:
        """Show why there is nothing to sync with, in the status line."""
        self._status_line.show_problem(problem)

    def show_changes(self, rejected: list[RejectedChange], replaced: list[ReplacedChange]) -> None:
        """Show these changes: the rejected ones first."""
        self._rejected, self._replaced = rejected, replaced
        self._status_line.show_rejected(len(rejected))
        counts = [f"{len(rejected):,} rejected"] if rejected else []
        counts += [f"{len(replaced):,} replaced"] if replaced else []
        counts += [f"{self._status.upload_queue_count:,} waiting"] if self._waiting else []
        self._title.set("Sync", " · ".join(counts))
        self._rows.set_empty(NOTHING)
        self._rows.set_rows([*rejected, *replaced, *self._waiting])
        self._show_detail()

    def _draw(self, change: SyncRow) -> DrawnRow:
        if isinstance(change, WaitingChange):
            return DrawnRow(headline(change), mark="↑")
        if isinstance(change, RejectedChange):
            return DrawnRow(headline(change), mark="✗", tail=ago(change.rejected_at, self._now()))
        return DrawnRow(headline(change), mark="≠", tail=ago(change.found_at, self._now()))

    @on(RowSelected)
    def _row_selected(self, event: RowSelected) -> None:
        event.stop()
        self._show_detail()

    def _show_detail(self) -> None:
        change = self._rows.selected
        self.set_class(change is not None or self._shows_log, "-changes")
        if self._shows_log:
            lines = [sanitized(line) for line in self._log_lines()] or ["The log is empty."]
            self._detail.update(Text("\n".join(lines)))
        elif isinstance(change, RejectedChange):
            self._detail.update(self._rejected_detail(change))
        elif isinstance(change, WaitingChange):
            self._detail.update(Text("\n".join(map(sanitized, ["Waiting to be uploaded:", *change.doing]))))
        elif change is not None:
            found = f"Found {ago(change.found_at, self._now())}"
            lines = [change.about, f"Yours: {change.mine}", f"Theirs: {change.theirs}", found]
            self._detail.update(Text("\n".join(map(sanitized, lines))))
        self.refresh_bindings()

    def _rejected_detail(self, change: RejectedChange) -> Text:
        times = f", {change.attempts:,} times in all" if change.attempts > 1 else ""
        reason = f"Reason: {change.reason or '(none given)'}"
        lines = [*change.tried[:1], reason, f"Rejected {ago(change.rejected_at, self._now())}{times}"]
        if rest := change.tried[1:]:
            lines += ["Together with:", *rest[:_MOST_LISTED]]
        if len(rest) > _MOST_LISTED:
            lines.append(f"and {len(rest) - _MOST_LISTED:,} more")
        return Text("\n".join(map(sanitized, lines)))

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """What can be done depends on the row under the cursor, and on whether syncing is paused."""
        change = self._rows.selected
        if action in {"retry_change", "discard_change", "copy_change"}:
            return isinstance(change, RejectedChange)
        if action == "export_changes":
            return bool(self._rejected)
        if action == "edit_change":
            return isinstance(change, RejectedChange) and self._store.report.text_of(change.id) is not None
        if action == "dismiss_replaced":
            return isinstance(self._rows.selected, ReplacedChange)
        if action == "connect":
            return not self._status.wanted
        if action == "disconnect":
            return self._status.wanted
        return True

    def action_retry_change(self) -> None:
        """Retry the rejected change."""
        change = self._rows.selected
        if isinstance(change, RejectedChange):
            attempt(self, self._store.report.retry(change.id))

    def action_edit_change(self) -> None:
        """Ask for another text, and retry the rejected change with it."""
        change = self._rows.selected
        before = self._store.report.text_of(change.id) if isinstance(change, RejectedChange) else None
        if change is None or before is None:
            return
        from app.tui.screens.ask import AskScreen

        def send(text: str) -> None:
            attempt(self, self._store.report.retry_with_text(change.id, text))

        app_of(self).push_screen(AskScreen("Send again as", before, send))

    def action_copy_change(self) -> None:
        """Copy the rejected change as JSON."""
        change = self._rows.selected
        if isinstance(change, RejectedChange):
            app_of(self).copy_to_clipboard(self._store.report.as_json(change.id))
            self.notify("Copied.", timeout=2, markup=False)

    def action_export_changes(self) -> None:
        """Ask for a file, and export all rejected changes to it."""
        from app.tui.screens.ask import AskScreen

        def export(typed: str) -> None:
            attempt(self, self._export(Path(os.path.expanduser(typed.strip()))))  # noqa: PTH111 -- fails for no user

        name = f"~/todo-tui-rejected-{self._now():%Y-%m-%d}.json"
        app_of(self).push_screen(AskScreen("Export the rejected changes to", name, export))

    async def _export(self, path: Path) -> None:
        count = await self._store.report.export(path)
        self.notify(sanitized(f"Exported {counted(count)} to {path}."), markup=False)

    def action_show_log(self) -> None:
        """Show or hide the latest log lines."""
        self._shows_log = not self._shows_log
        self._show_detail()

    def action_copy_diagnostics(self) -> None:
        """Copy the sync state, without names or texts."""
        attempt(self, self._copy_diagnostics())

    async def _copy_diagnostics(self) -> None:
        app_of(self).copy_to_clipboard(await self._store.report.diagnostics())
        self.notify("Copied the diagnostics, without names or texts.", timeout=2, markup=False)

    def action_discard_change(self) -> None:
        """Ask whether to discard the rejected change."""
        change = self._rows.selected
        if not isinstance(change, RejectedChange):
            return
        from app.tui.screens.confirm import ConfirmScreen

        def discard() -> None:
            attempt(self, self._store.report.discard(change.id))

        app_of(self).push_screen(
            ConfirmScreen(
                "Discard this rejected change?",
                sanitized(headline(change)),
                discard,
                "It cannot be recovered.",
                yes="Discard",
            )
        )

    def action_dismiss_replaced(self) -> None:
        """Ask whether to dismiss the conflict and those before it."""
        change = self._rows.selected
        if not isinstance(change, ReplacedChange):
            return
        from app.tui.screens.confirm import ConfirmScreen

        count = 1 + self._replaced.index(change)
        question = "Dismiss this conflict?" if count == 1 else f"Dismiss this and {count - 1:,} older conflicts?"

        def dismiss() -> None:
            attempt(self, self._store.report.dismiss(change.id))

        consequence = "Their version stays; yours cannot be recovered."
        app_of(self).push_screen(
            ConfirmScreen(question, sanitized(headline(change)), dismiss, consequence, yes="Dismiss")
        )

    def action_connect(self) -> None:
        """Start syncing."""
        attempt(self, self._store.connect(), group="connect")

    def action_disconnect(self) -> None:
        """Stop syncing."""
        attempt(self, self._store.disconnect(), group="connect")

    def action_next_part(self) -> None:
        """Go to the next part of the screen, to scroll it."""
        self.focus_next()

    def action_help(self) -> None:
        """Show all keys."""
        from app.tui.screens.help import HelpScreen

        app_of(self).push_screen(HelpScreen())

    def action_close_sync(self) -> None:
        """Back to the lists."""
        self.dismiss(None)
