"""What elements of an SVD file take over from others: `derivedFrom`.

Source: Open-CMSIS-SVD, "Special Elements" and the `derivedFrom` attribute of peripherals,
registers, clusters, fields and enumeratedValues.

An element that is derived has all of the other's children, but those that it has itself.
Registers, clusters and fields within it are added to the other's, in place of those of the
same name. The other is named by its path, from the inside or from the device; it is looked
for in the element around, then farther out.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from devicehost.registers.svd_xml import bad, name_of, position

_NAMED = frozenset({"peripheral", "register", "cluster", "field", "enumeratedValues"})
_CONTAINERS = frozenset({"peripherals", "registers", "fields"})
_POSITION = frozenset({"bitRange", "lsb", "msb", "bitOffset", "bitWidth"})
_CHAIN_MAX = 64
_SHOWN = 60


def bare(name: str) -> str:
    """Return a name without the place for an index."""
    return name.replace("[%s]", "").replace("%s", "")


def children(element: ET.Element) -> Iterator[ET.Element]:
    """Go through what is directly in an element and has a name, in order."""
    for child in element:
        if child.tag in _CONTAINERS:
            yield from child
        elif child.tag in _NAMED:
            yield child


class Derivation:
    """Follows `derivedFrom` in one file. What it returns is complete, and not to be changed."""

    def __init__(self) -> None:
        self._named: dict[ET.Element, dict[str, ET.Element]] = {}
        self._enumerations: dict[ET.Element, dict[str, ET.Element]] = {}
        self._resolved: dict[ET.Element, ET.Element | None] = {}
        self._chain: list[ET.Element] = []

    def resolve(self, element: ET.Element, around: Sequence[ET.Element]) -> ET.Element:
        """Return an element with what it takes over.

        Args:
            element: any that can be derived.
            around: the elements that it is in, resolved, the device first.

        Raises:
            BadRegisterMap: the other isn't there, or is derived from this one.
        """
        found = self.resolve_if_there(element, around)
        if found is None:
            raise bad(element, f"it is derived from {_origin(element)[:_SHOWN]!r}: there is none")
        return found

    def resolve_if_there(
        self, element: ET.Element, around: Sequence[ET.Element]
    ) -> ET.Element | None:
        """Return an element with what it takes over; None if the other isn't there.

        Raises:
            BadRegisterMap: the other is derived from this one.
        """
        if not _origin(element):
            return element
        if element not in self._resolved:
            if element in self._chain or len(self._chain) == _CHAIN_MAX:
                raise bad(element, f"it is derived from itself, or over {_CHAIN_MAX} others")
            self._chain.append(element)
            bases = (self._find(element, around[:depth]) for depth in range(len(around), 0, -1))
            base = next((each for each in bases if each is not None), None)
            self._chain.pop()
            self._resolved[element] = None if base is None else _merge(base, element)
        return self._resolved[element]

    def _find(self, element: ET.Element, around: Sequence[ET.Element]) -> ET.Element | None:
        """Return what an element's path leads to from the innermost of `around`."""
        scope = list(around)
        path = _origin(element).split(".")
        if element.tag == "enumeratedValues" and len(path) == 1:
            named = self._enumerations_in(scope[-1]).get(path[0])
            return None if named is element or named is None else named
        for part in path:
            found = self._by_name(scope[-1]).get(part)
            resolved = found if found is None else self.resolve_if_there(found, scope)
            if resolved is None or found is element:
                return None
            scope.append(resolved)
        return scope[-1] if scope[-1].tag == element.tag else None

    def _enumerations_in(self, element: ET.Element) -> dict[str, ET.Element]:
        """Return the enumeratedValues in a register or a peripheral, which need no path."""
        if element.tag not in {"register", "peripheral"}:
            return {}
        if element not in self._enumerations:
            named: dict[str, ET.Element] = {}
            for each in element.iter("enumeratedValues"):
                if not _origin(each):
                    named.setdefault((each.findtext("name") or "").strip(), each)
            self._enumerations[element] = named
        return self._enumerations[element]

    def _by_name(self, element: ET.Element) -> dict[str, ET.Element]:
        if element not in self._named:
            names: dict[str, ET.Element] = {}
            for each in children(element):
                name = name_of(each)
                names.setdefault(name, each)
                names.setdefault(bare(name), each)
            self._named[element] = names
        return self._named[element]


def _origin(element: ET.Element) -> str:
    return element.get("derivedFrom", "").strip()


def _merge(base: ET.Element, own: ET.Element) -> ET.Element:
    """Return `own`, with what only `base` has."""
    result = ET.Element(own.tag)
    tags = {each.tag for each in own}
    if tags & _POSITION == {"bitOffset"}:
        ET.SubElement(result, "bitWidth").text = str(position(base)[1])
    if tags & _POSITION:
        tags |= _POSITION
    names = {_key(each) for each in own if each.tag in _NAMED and each.tag != "enumeratedValues"}
    for each in base:
        if each.tag in {"register", "cluster", "field"}:
            if _key(each) not in names:
                result.append(each)
        elif each.tag in _CONTAINERS and each.tag in tags:
            result.append(_merge(each, next(child for child in own if child.tag == each.tag)))
        elif each.tag not in tags:
            result.append(each)
    result.extend(
        each for each in own if each.tag not in _CONTAINERS or base.find(each.tag) is None
    )
    return result


def _key(element: ET.Element) -> tuple[str, str]:
    return element.tag, name_of(element)
