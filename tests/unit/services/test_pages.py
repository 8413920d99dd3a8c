"""Pages: any size, and tokens that survive changes of the list."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.model.errors import BadRequest
from devicehost_server.services.pages import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, Key, page


@dataclass(frozen=True, slots=True)
class Request:
    page_size: int = 0
    page_token: str = ""


def key_of(item: tuple[str, int]) -> Key:
    return item


def walk(items: list[tuple[str, int]], size: int) -> list[tuple[str, int]]:
    """All items, by pages of `size`."""
    found: list[tuple[str, int]] = []
    token = ""
    while True:
        part, token = page(Request(size, token), "things", items, key_of)
        assert 0 < len(part) <= size or not items
        found += part
        if not token:
            return found


things = st.lists(st.tuples(st.text(max_size=3), st.integers()), unique=True).map(sorted)


@given(things, st.integers(1, 40))
def test_pages_of_any_size_make_up_the_list(items: list[tuple[str, int]], size: int) -> None:
    assert walk(items, size) == items


@given(things, things, st.integers(1, 5))
def test_what_stays_is_seen_once_whatever_else_comes_and_goes(
    before: list[tuple[str, int]], after: list[tuple[str, int]], size: int
) -> None:
    first, token = page(Request(size), "things", before, key_of)
    rest: list[tuple[str, int]] = []
    while token:
        part, token = page(Request(size, token), "things", after, key_of)
        rest += part
    seen = [*first, *rest]
    assert len(set(seen)) == len(seen)
    if len(before) > size:
        assert {item for item in after if item > first[-1]} == set(rest)


def test_a_size_is_the_default_or_as_asked_up_to_a_bound() -> None:
    items = [("", number) for number in range(3000)]
    for asked, given_size in (
        (0, PAGE_SIZE_DEFAULT),
        (1, 1),
        (999, 999),
        (5000, PAGE_SIZE_MAX),
        ((1 << 32) - 1, PAGE_SIZE_MAX),
    ):
        part, token = page(Request(asked), "things", items, key_of)
        assert len(part) == given_size
        assert token


def test_the_last_page_has_no_token_even_if_it_is_full() -> None:
    items = [("", number) for number in range(4)]
    _, token = page(Request(2), "things", items, key_of)
    part, token = page(Request(2, token), "things", items, key_of)
    assert (part, token) == (items[2:], "")


def token_of(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "\u00e4",
        "=" * 9,
        base64.urlsafe_b64encode(b"\xff\xff").decode(),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        base64.urlsafe_b64encode(b"1" * 100_000).decode(),
        token_of("things"),
        token_of({"things": 1}),
        token_of([]),
        token_of(["others", "a", 1]),
        token_of(["things", 1, "a"]),
        token_of(["things", None, None]),
        token_of(["things", ["a"], 1]),
    ],
)
def test_a_token_that_is_none_of_this_list_is_refused(token: str) -> None:
    with pytest.raises(BadRequest, match="is not one of the things") as caught:
        page(Request(1, token), "things", [("a", 1), ("b", 2)], key_of)
    assert caught.value.metadata == {"field": "page_token"}


@given(st.text())
def test_any_text_is_a_token_or_is_refused(token: str) -> None:
    with suppress(BadRequest):
        page(Request(1, token), "things", [("a", 1), ("b", 2)], key_of)
