"""Lists in pages. A page's token is where it ended, so that a list may change meanwhile."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar

from devicehost_server.model.errors import BadRequest

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000

Key: TypeAlias = tuple[str | int, ...]
"""What a list is sorted by; no two items share one."""

_T = TypeVar("_T")


class PageRequest(Protocol):
    """The fields that each request for a page has."""

    @property
    def page_size(self) -> int:
        """At most so many items; 0 for the default."""

    @property
    def page_token(self) -> str:
        """Where the page before ended; empty for the first."""


def page(
    request: PageRequest, list_name: str, items: Sequence[_T], key: Callable[[_T], Key]
) -> tuple[Sequence[_T], str]:
    """Return a page of `items`, and the token of the next one ("" if this is the last).

    Args:
        request: says which page.
        list_name: what the list is called; a token of another list is refused.
        items: all items, sorted by `key`.
        key: an item's place in the order.

    Raises:
        BadRequest: the token isn't one of this list.
    """
    size = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
    if request.page_token:
        after = _decode(request.page_token, list_name)
        try:
            items = [item for item in items if key(item) > after]
        except TypeError:
            raise _bad_token(request.page_token, list_name) from None
    if len(items) <= size:
        return items, ""
    return items[:size], _encode(list_name, key(items[size - 1]))


def _encode(list_name: str, key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([list_name, *key]).encode()).decode()


def _decode(token: str, list_name: str) -> Key:
    try:
        decoded = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, RecursionError):
        raise _bad_token(token, list_name) from None
    if not isinstance(decoded, list) or decoded[:1] != [list_name]:
        raise _bad_token(token, list_name)
    return tuple(decoded[1:])


def _bad_token(token: str, list_name: str) -> BadRequest:
    return BadRequest(
        f"page_token {token!r} is not one of the {list_name}; allowed: next_page_token of the"
        " page before, or nothing",
        field="page_token",
    )
