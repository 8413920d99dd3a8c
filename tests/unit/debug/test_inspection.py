"""The live state as a tree: paths, depth, bounds, and what can't be seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from debuglab import DebugBench, debugging, occupied
from devicehost_server.debug import entered, inspection, views
from devicehost_server.debug.inspection import Branch, Inspection, Look, Node
from devicehost_server.model.errors import (
    DeviceTimeout,
    NoRegisterMap,
    NoSuchPath,
    NotArmed,
)
from devicehost_server.model.guest_memory import MappedBacking, MemoryBlock


@pytest.fixture
def bench() -> Iterator[DebugBench]:
    with debugging() as running:
        yield running


@pytest.fixture
def tree(bench: DebugBench) -> Inspection:
    """All that is to be seen of the bench."""
    tree = Inspection()
    seen = views.DevicesView(bench.devices, bench.io, bench.registers, bench.states)
    tree.add("devices", seen)
    tree.add("ranges", views.ranges_view(bench.io))
    tree.add("interrupts", views.interrupts_view(bench.interrupts, bench.resources))
    tree.add("resources", views.resources_view(bench.resources))
    tree.add("memory", views.memory_view(bench.memory))
    tree.add("threads", views.threads_view)
    return tree


def of(look: Look) -> Inspection:
    """A tree with one branch, `x`."""
    tree = Inspection()
    tree.add("x", lambda: look)
    return tree


def values(node: Node) -> dict[str, str | None]:
    """The values below a node, by name."""
    return {each.name: each.value for each in node.nodes}


# The tree as such.


def test_a_path_leads_to_a_node_and_what_is_below_it() -> None:
    tree = of({"a": {"b": 5, "c": Branch("both", {"d": None})}})
    assert tree.inspect("x/a/b") == Node("b", "5")
    assert tree.inspect("/x/a/c/") == Node("c", "both", (Node("d"),))
    assert tree.inspect() == Node("", None, (tree.inspect("x"),))


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (False, "no"), (0, "0"), (-5, "-5"), ("", ""), ("t", "t"), (None, None)],
)
def test_values_are_text(value: Look, text: str | None) -> None:
    assert of(value).inspect("x") == Node("x", text)


def test_no_deeper_than_asked_for_is_shown_and_a_node_says_that_there_is_more() -> None:
    tree = of({"a": {"b": {"c": 1}}, "empty": {}, "leaf": 2})
    one = tree.inspect("x", 1)
    assert one == Node("x", None, (Node("a", cut=True), Node("empty"), Node("leaf", "2")))
    assert tree.inspect("x", 2).nodes[0] == Node("a", None, (Node("b", cut=True),))
    assert tree.inspect("", 1) == Node("", None, (Node("x", cut=True),))


def test_only_what_the_path_asks_for_is_looked_at() -> None:
    asked: list[str] = []

    def look(name: str) -> Look:
        asked.append(name)
        return {"z": 1}

    tree = of({"a": lambda: look("a"), "b": lambda: look("b")})
    tree.add("y", lambda: look("y"))
    tree.inspect("x/b/z")
    assert asked == ["b"]


def test_a_name_with_a_slash_is_found_and_the_longest_is_meant() -> None:
    tree = of({"etc": {"e820": 1, "other": 2}, "etc/e820": 3, "etc/": 4})
    assert tree.inspect("x/etc/e820").value == "3"
    assert tree.inspect("x/etc/other").value == "2"


@pytest.mark.parametrize("path", ["y", "x/b", "x/a/b", "x/a/", "xx", "x//a", "x/a/c"])
def test_a_path_that_leads_nowhere_says_what_is_there(path: str) -> None:
    tree = of({"a": {"d": 1}})
    if path == "x/a/":
        assert tree.inspect(path).name == "a"
        return
    with pytest.raises(NoSuchPath) as caught:
        tree.inspect(path)
    assert caught.value.metadata["path"] == path
    assert caught.value.metadata["known"] in {"x", "a", "d"}


def test_of_many_names_that_would_do_an_error_lists_a_few() -> None:
    tree = of({str(number): 1 for number in range(100)})
    with pytest.raises(NoSuchPath) as caught:
        tree.inspect("x/none")
    assert caught.value.metadata["known"].endswith("18, 19, …")


def test_what_cannot_be_seen_says_why_and_hides_nothing_else() -> None:
    def hidden() -> Look:
        raise NotArmed("it isn't there now")

    tree = of({"a": hidden, "b": 1})
    assert values(tree.inspect("x")) == {"a": "(it isn't there now)", "b": "1"}
    with pytest.raises(NotArmed):
        tree.inspect("x/a")
    with pytest.raises(NotArmed):
        tree.inspect("x/a/below")


# Bounds.


def test_of_a_tree_without_end_a_bounded_part_is_shown() -> None:
    def endless() -> Look:
        return {"more": endless}

    node = of(endless).inspect()
    depth = 0
    while node.nodes:
        (node,) = node.nodes
        depth += 1
    assert node.cut
    assert depth == inspection.DEPTH_MAX
    assert of(endless).inspect("x/more/more", 1 << 31).name == "more"


def test_of_too_many_nodes_a_part_is_shown_and_the_one_above_is_cut() -> None:
    tree = of({"many": {f"{number:0100}": "v" * 100 for number in range(20_000)}, "last": 1})
    top = tree.inspect("x")
    (many,) = top.nodes
    assert many.cut
    assert top.cut
    assert inspection.SIZE_MAX / 300 < len(many.nodes) < inspection.SIZE_MAX / 200
    assert tree.inspect("x/last").value == "1"


def test_a_long_value_is_shown_in_part() -> None:
    value = of("ä" * 100_000).inspect("x").value
    assert value == "ä" * inspection.VALUE_MAX + "… (100000 characters)"


# What there is to be seen.


def test_a_device_shows_what_it_is_and_has(bench: DebugBench, tree: Inspection) -> None:
    bench.devices.plug("scratch", {"size": "16", "irq": "5", "base": "0xd0000000"}, device_id="s")
    bench.io.mmio_write(0xD000_0000, b"\x05")
    device = tree.inspect("devices/s")
    assert device.value == "scratch"
    assert values(device) | {"generation": None} == {
        "type": "scratch",
        "state": "plugged",
        "generation": None,
        "config": None,
        "resources": None,
        "ranges": None,
        "counts": None,
        "registers": None,
        "inside": None,
        "saved": None,
    }
    assert values(tree.inspect("devices/s/config")) == {
        "size": "16",
        "irq": "5",
        "base": "0xd0000000",
    }
    assert values(tree.inspect("devices/s/resources")) == {
        "0": "mmio 0xd0000000-0xd000000f",
        "1": "irq 5",
    }
    assert values(tree.inspect("devices/s/counts")) == {"reads": "0", "writes": "1", "faults": "0"}
    assert tree.inspect("devices/s/saved/registers").value == "05" + "00" * 15
    assert "mmio 0xd0000000-0xd000000f" in values(tree.inspect("devices/s/ranges"))


def test_registers_show_their_fields(bench: DebugBench, tree: Inspection) -> None:
    teller = bench.teller("t")
    teller.values.update({"MODE": 0x13, "ROW[1]": 0xBEEF, "WIDE": 5})
    mode = tree.inspect("devices/t/registers/MODE")
    assert mode.value == "0x13"
    assert values(mode) == {"BANK": "0x0", "SPEED": "0x3 fast", "(reserved)": "0x10"}
    assert tree.inspect("devices/t/registers/ROW[1]").value == "0xbeef"
    assert tree.inspect("devices/t/registers/WIDE").value == "0x00000005"


def test_to_look_at_one_device_asks_no_other(bench: DebugBench, tree: Inspection) -> None:
    bench.teller("t")
    other = bench.teller("u")
    tree.inspect("devices/t")
    tree.inspect("devices", 1)
    assert other.peeked == []


def test_a_device_without_a_map_or_that_fails_is_seen_all_the_same(
    bench: DebugBench, tree: Inspection
) -> None:
    bench.teller("t", mapped="no")
    assert "no register map" in str(values(tree.inspect("devices/t"))["registers"])
    with pytest.raises(NoRegisterMap):
        tree.inspect("devices/t/registers")
    bench.teller("u").raises = RuntimeError("broken")
    seen = values(tree.inspect("devices/u"))
    assert "broken" in str(seen["registers"])
    assert "broken" in str(seen["saved"])
    assert seen["type"] == "teller"


def test_a_device_that_hangs_is_seen_as_far_as_that_is_possible(
    bench: DebugBench, tree: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entered, "LOCK_TIMEOUT_S", 0.01)
    with occupied(bench.teller("t")):
        assert "in use" in str(values(tree.inspect("devices/t"))["registers"])
        with pytest.raises(DeviceTimeout):
            tree.inspect("devices/t/registers/A")


def test_saved_objects_and_lists_of_them_are_nodes_and_other_lists_values(
    bench: DebugBench, tree: Inspection
) -> None:
    bench.teller("t").values = {"a": [1, 2], "b": [[1], {"c": True}], "n": None, "f": 0.5}  # type: ignore[dict-item] # any JSON
    saved = "devices/t/saved/values"
    assert values(tree.inspect(saved)) == {"a": "[1, 2]", "b": None, "n": "null", "f": "0.5"}
    assert tree.inspect(f"{saved}/b/0").value == "[1]"
    assert tree.inspect(f"{saved}/b/1/c").value == "yes"


def test_the_address_map_is_shown_by_space(bench: DebugBench, tree: Inspection) -> None:
    bench.devices.plug("uart16550", {"base": "0x3f8"}, device_id="u")
    bench.devices.plug("scratch", {"size": "16", "base": "0xd0000000"}, device_id="s")
    assert values(tree.inspect("ranges/pio")) == {"0x3f8-0x3ff": "u"}
    assert values(tree.inspect("ranges/mmio")) == {"0xd0000000-0xd000000f": "s"}


def test_interrupts_show_their_level_and_who_has_them(bench: DebugBench, tree: Inspection) -> None:
    bench.devices.plug("scratch", {"irq": "5", "base": "0xd0000000"}, device_id="s")
    bench.devices.plug("uart16550", {"irq": "4"}, device_id="u")
    bench.io.mmio_write(0xD000_00FF, b"\1")
    bench.interrupts.line(9, "elsewhere").set_level(asserted=True)
    assert tree.inspect("interrupts/asserted").value == "5, 9"
    assert tree.inspect("interrupts/generation").value == "2"
    assert tree.inspect("interrupts/gsi/5").value == "asserted"
    assert values(tree.inspect("interrupts/gsi/5")) == {"owners": "device/s"}
    assert tree.inspect("interrupts/gsi/4").value == "deasserted"
    assert values(tree.inspect("interrupts/gsi/9")) == {"owners": ""}


def test_pools_show_what_is_left_and_whose_the_rest_is(bench: DebugBench, tree: Inspection) -> None:
    bench.devices.plug("uart16550", {"base": "0x3f8", "irq": "4"}, device_id="u")
    pool = values(tree.inspect("resources/pools/pio"))
    assert (pool["total"], pool["used"], pool["free"]) == ("65536", "8", "65528")
    assert values(tree.inspect("resources/owners/device/u")) == {
        "0": "pio 0x3f8-0x3ff",
        "1": "irq 4",
    }


def test_memory_shows_what_the_vmm_has_shared(bench: DebugBench, tree: Inspection) -> None:
    block = MemoryBlock(
        0x10_0000,
        0x1000,
        readable=True,
        writable=False,
        backing=MappedBacking(memoryview(bytearray(0x1000))),
    )
    bench.memory.add(block)
    (node,) = tree.inspect("memory").nodes
    assert node.name == "0x100000-0x100fff"
    assert values(node) == {"size": "4096", "readable": "yes", "writable": "no"}


def test_threads_show_where_they_are(tree: Inspection) -> None:
    waiting, leave = threading.Event(), threading.Event()

    def stay() -> None:
        waiting.set()
        leave.wait(60)

    thread = threading.Thread(target=stay, name="stays here")
    thread.start()
    try:
        waiting.wait(60)
        node = tree.inspect(f"threads/{thread.native_id}")
    finally:
        leave.set()
        thread.join()
    assert node.value == "stays here"
    assert values(node)["daemon"] == "no"
    assert "threading.py" in str(values(node)["at"])
