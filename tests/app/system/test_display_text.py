"""Text from elsewhere, made harmless and measured."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from app.system.display_text import StandIns, fit, sanitized


def test_control_characters_are_shown_as_symbols():
    assert sanitized("a\x1b[31m\x00\x7f\x9b") == "a␛[31m␀␡�"
    assert sanitized("a\tb\nc\r\nd\re") == "a⇥b↵c↵d↵e"


def test_plain_text_stays_as_it_is():
    assert sanitized("[b]Bread & 日本語 é [/b]") == "[b]Bread & 日本語 é [/b]"


def test_what_fits_is_not_cut():
    assert fit("Bread", 5) == ("Bread", 5)
    assert fit("日本", 4) == ("日本", 4)


def test_what_does_not_fit_ends_in_an_ellipsis():
    assert fit("Bread", 4) == ("Bre…", 4)
    assert fit("日本", 3) == ("日…", 3)
    assert fit("日本", 2) == ("…", 1)
    assert fit("Bread", 0) == ("", 0)


@given(st.text(), st.integers(0, 40))
def test_it_always_fits(text: str, width: int):
    shown, cells = fit(text, width)
    assert cells == cell_len(shown) <= width


@given(st.lists(st.text(st.sampled_from("a\t\r\n\x1b↵\x85\u2028\U00100000\U00100001\U0010fffd") | st.characters())))
def test_stand_ins_lose_nothing_and_are_one_cell_each(texts: list[str]):
    stand_ins = StandIns()
    for text in texts:
        held = stand_ins.held(text)
        assert stand_ins.meant(held) == text
        assert len(stand_ins.shown(held)) == len(held)
        assert stand_ins.shown(held) == sanitized(text)
        assert cell_len(held) == cell_len(sanitized(text))
