"""What is known of texts: how long they run, as far as rounding goes, and how many are kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from greenpg.multiplexer import _texts
from greenpg.multiplexer._texts import Texts

SLOW = 0.05


@given(st.lists(st.floats(0, SLOW / 10), max_size=9))
def test_text_never_seen_fills_a_line_whatever_ran_before_it(others):
    unseen = Texts(SLOW)["select 1"].pace.seconds

    load = sum(others) + unseen
    for other in others:
        load -= other

    assert load >= SLOW


def test_large_texts_are_not_kept_for_long(monkeypatch):
    monkeypatch.setattr(_texts, "CHARACTERS", 1000)
    texts = Texts(SLOW)

    for number in range(100):
        assert texts[f"select '{'x' * 300}', {number}"].refusal is None
        texts.pace(f"select {'x' * 300}{number}x")

    assert sum(map(len, texts)) <= 1000
    assert sum(map(len, texts._paces)) <= 1000
    assert texts["select 1"] is texts["select 1"]


def test_text_larger_than_all_that_is_kept_is_answered(monkeypatch):
    monkeypatch.setattr(_texts, "CHARACTERS", 10)
    texts = Texts(SLOW)

    assert texts["begin transaction read only"].refusal
    assert len(texts) <= 1
