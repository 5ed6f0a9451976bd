"""What is fuzzed: how an input is made from a seed, and what must hold for whatever is made of it.

Each target is opened with an empty directory of its own, and then takes random generators. It raises if something is
wrong: a crash with another error than the one that is promised, a wrong reading, or an input that takes too long.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from app import todo_text
from app.backend.http import bson
from app.settings.keymap import ACTIONS, Keymap, KeymapError
from app.settings.sources import SettingsError, load_settings
from app.system.display_text import sanitized
from app.todo_text.transfer import READERS, WRITERS, TransferError
from sync.errors import ProtocolError
from sync.protocol.lines import decode_line
from tests.fuzz.engine_targets import responses, streams
from tests.fuzz.mutation import mutated, transcripts
from tests.kit.bson_reader import decode

NOW: Final = datetime(2026, 11, 26, 12, 0)  # noqa: DTZ001 -- local time
_WORDS: Final = (
    *("Pay", "rent", "today", "tom", "fri", "next", "week", "in", "2", "weeks", "3d", "15", "jan", "2027"),
    *("9am", "at", "21:00", "every", "other", "month", "mon", "p1", "P4", "p9", "#home", "#", "\\p1", "\\"),
    *("due:x", "due:2026-12-01T09:00", "due:9999-12-31", "rec:1m", "rec:+9999y", "rec:0d", "2026-12-01"),
    *("\n", "\r\n", "\t", "\0", "日本", "\u202e"),
)
_MARKDOWN: Final = (
    *("# ", "- [ ] ", "- [x] ", "  ", "\n", "\\n", "(A) ", "x ", "list:", "created:", "%20", "{", '"', "["),
)
_TOML: Final = (
    *("data_dir", "backend_url", "port", "keymap", "keys", "profiles", "profile"),
    *("=", '"', "[", "]", "\n", "1", "{"),
)


def hold(condition: object) -> None:
    """Raise if it does not hold."""
    assert condition


def words(chance: random.Random) -> str:
    return " ".join(chance.choice(_WORDS) for _ in range(chance.randrange(12)))


def noise(chance: random.Random, most: int = 30) -> str:
    kinds = [128, 0x3000]
    return "".join(chr(chance.randrange(chance.choice(kinds))) for _ in range(chance.randrange(most)))


def grammar(chance: random.Random) -> None:
    """Any typed text has a reading, and what is stored says the same when it is edited."""
    text = words(chance) if chance.random() < 0.7 else noise(chance)
    understood = todo_text.understand(text, NOW)
    end = 0
    for part in understood.parts:
        assert end <= part.start < part.end <= len(text)
        end = part.end
    stored = understood.stored
    assert todo_text.understand(stored, NOW, todo_text.phrases_to_keep(stored, NOW)).stored == stored
    assert todo_text.read(todo_text.set_priority(stored, 2)).priority == 2
    todo_text.next_description(stored, NOW.date())


def lines(chance: random.Random) -> None:
    """A line that was spoiled is read, or refused as what it is."""
    spoiled = mutated(chance, chance.choice(chance.choice(transcripts())))
    with suppress(ProtocolError):
        decode_line(spoiled)


def imports(chance: random.Random) -> None:
    """A file of another program is read, or refused in a sentence; what was read is written and read again."""
    text = "".join(
        chance.choice([chance.choice(_MARKDOWN), words(chance), noise(chance, 8)]) for _ in range(chance.randrange(12))
    )
    name = chance.choice(sorted(READERS))
    try:
        lists = READERS[name](text)
    except TransferError as error:
        hold(str(error).endswith("."))
        return
    assert READERS["json"](WRITERS["json"](lists)) == lists
    WRITERS["csv"](lists)


@contextmanager
def config(scratch: Path) -> Generator[Callable[[random.Random], None]]:
    """A config file can be used, or is refused in one sentence that names it."""
    path = scratch / "config.toml"
    yield lambda chance: _load_settings(chance, path)


def _load_settings(chance: random.Random, path: Path) -> None:
    made = "".join(
        chance.choice([chance.choice(_TOML), noise(chance, 6), words(chance)]) for _ in range(chance.randrange(10))
    )
    path.write_text(made, "utf-8")
    try:
        load_settings(path)
    except SettingsError as error:
        hold("\n" not in str(error))


def keymaps(chance: random.Random) -> None:
    """Keys are those that were given, or refused in a sentence."""
    action = chance.choice(ACTIONS).id if chance.random() < 0.8 else noise(chance, 10)
    try:
        Keymap.of(chance.choice(["default", "vim", "plain"]), {action: noise(chance, 6)})
    except KeymapError as error:
        hold(str(error))


def texts(chance: random.Random) -> None:
    """Nothing that a terminal would obey is left in what is shown."""
    shown = sanitized(noise(chance, 60))
    assert not any(ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0 for each in shown)


def answers(chance: random.Random) -> None:
    """What a backend answers is a verdict, or an error that is tried again: read as JSON whatever it is."""
    import httpx

    from app.connection.upload_interfaces import json_object, sentence_of

    made: Any = chance.choice(
        [{"error": {"code": noise(chance)}}, {"results": [noise(chance)]}, [], 1, None, {"error": noise(chance)}]
    )
    body = mutated(chance, json.dumps(made).encode()) if chance.random() < 0.6 else json.dumps(made).encode()
    response = httpx.Response(chance.choice([200, 400, 401, 409, 500, 503]), content=body)
    json_object(response)
    assert isinstance(sentence_of(response), str)


def documents(chance: random.Random) -> None:
    """A line as BSON says what the line said, also to a reader that knows nothing of the backend."""
    line = _document(chance, 0)
    assert decode(bson.encode(line)) == line


def _document(chance: random.Random, depth: int) -> dict[str, Any]:
    return {noise(chance, 8).replace("\0", ""): _value(chance, depth) for _ in range(chance.randrange(5))}


def _value(chance: random.Random, depth: int) -> Any:
    match chance.randrange(7 if depth < 4 else 5):
        case 0:
            return None
        case 1:
            return chance.random() < 0.5
        case 2:
            return chance.choice([0, -1, 2**31 - 1, 2**31, -(2**31) - 1, 2**32 - 1, chance.randrange(2**53)])
        case 3 | 4:
            return noise(chance)
        case 5:
            return [_value(chance, depth + 1) for _ in range(chance.randrange(12))]
        case _:
            return _document(chance, depth + 1)


Target = Callable[[Path], AbstractContextManager[Callable[[random.Random], None]]]


def _stateless(check: Callable[[random.Random], None]) -> Target:
    return lambda _: nullcontext(check)


TARGETS: Final[dict[str, Target]] = {
    "grammar": _stateless(grammar),
    "lines": _stateless(lines),
    "imports": _stateless(imports),
    "config": config,
    "keymaps": _stateless(keymaps),
    "texts": _stateless(texts),
    "answers": _stateless(answers),
    "documents": _stateless(documents),
    "streams": streams,
    "responses": responses,
}
