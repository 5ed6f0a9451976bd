"""The command palette: every action of the registry that is in force, found by a part of its words.

Owns how actions become commands. What an action does is done where its key would do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.dom import DOMNode

from app.settings.keymap import ACTIONS, Action, Place
from app.tui.actions import keymap_of

_LEFT_OUT = {Place.ROWS, Place.ENTRY, Place.FILTER, Place.PICK, Place.CONFIRM, Place.HELP}
_NOT_HERE = {"command_palette", "tell_quit"}


class ActionsProvider(Provider):
    """Offers the actions that could be started by a key on the screen below the palette."""

    async def discover(self) -> Hits:
        """All of them, while nothing is typed."""
        for action, node in self._actions():
            yield DiscoveryHit(self._words(action), partial(self._run, action, node), help=self._keys(action))

    async def search(self, query: str) -> Hits:
        """Those that match."""
        matcher = self.matcher(query)
        for action, node in self._actions():
            words = self._words(action)
            score = matcher.match(words)
            if score > 0:
                yield Hit(score, matcher.highlight(words), partial(self._run, action, node), help=self._keys(action))

    def _actions(self) -> Iterator[tuple[Action, DOMNode]]:
        performers = {
            binding.id: node
            for node in (self.screen, *self.screen.walk_children(), self.app)
            # Textual lists only the bindings of what has the focus.
            for bindings in node._bindings.key_to_bindings.values()  # pyright: ignore[reportPrivateUsage]
            for binding in bindings
        }
        listed: set[str] = set()
        for action in ACTIONS:
            node = performers.get(action.id)
            if node is None or action.place in _LEFT_OUT or action.name in _NOT_HERE or action.help in listed:
                continue
            name, _, argument = action.name.rstrip(")").partition("(")
            parameters = (int(argument),) if argument else ()
            if node.check_action(name, parameters):
                listed.add(action.help)
                yield action, node

    def _words(self, action: Action) -> str:
        return action.help

    def _keys(self, action: Action) -> str:
        return " ".join(keymap_of(self.screen).shown(action.id))

    async def _run(self, action: Action, node: DOMNode) -> None:
        await self.app.run_action(action.name, default_namespace=node)
