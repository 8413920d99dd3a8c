"""QEMU's firmware configuration device, as firmware reads it."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicehost_server.devices.config import parse
from devicehost_server.devices.fw_cfg import Config, FwCfg, e820
from devicehost_server.model.errors import BadConfig, BadState
from devicehost_server.model.resources import PioAddressConstraint
from devicelab import Lab, pio_in, pio_out

SELECTOR, DATA = 0x510, 0x511

GIB = 1 << 30


def fw_cfg(**values: str) -> FwCfg:
    return Lab().host(FwCfg(parse("fw-cfg", Config, values)))


def select(device: FwCfg, item: int) -> None:
    pio_out(device, SELECTOR, item, 2)


def read(device: FwCfg, size: int) -> bytes:
    return bytes(pio_in(device, DATA) for _ in range(size))


def item(device: FwCfg, number: int, size: int) -> bytes:
    select(device, number)
    return read(device, size)


def directory(device: FwCfg) -> list[tuple[str, int, int]]:
    """Read the directory: name, item and size of each file."""
    (count,) = struct.unpack(">I", item(device, 0x19, 4))
    entries = []
    for _ in range(count):
        size, number, reserved, name = struct.unpack(">IHH56s", read(device, 64))
        assert reserved == 0
        entries.append((name.rstrip(b"\0").decode("ascii"), number, size))
    assert read(device, 16) == bytes(16)
    return entries


def content(device: FwCfg, name: str) -> bytes:
    """Find a file as firmware does, and read it."""
    (found,) = [(number, size) for known, number, size in directory(device) if known == name]
    return item(device, *found)


def test_it_asks_for_two_ports() -> None:
    assert FwCfg(Config()).get_resource_constraints() == [PioAddressConstraint.exact(0x510, 2)]
    assert FwCfg(Config(base=0x600)).get_resource_constraints() == [
        PioAddressConstraint.exact(0x600, 2)
    ]


def test_it_says_qemu_also_before_anything_is_selected() -> None:
    device = fw_cfg()
    assert read(device, 4) == b"QEMU"
    assert item(device, 0x00, 4) == b"QEMU"


def test_it_has_the_traditional_interface_and_no_dma() -> None:
    assert item(fw_cfg(), 0x01, 4) == bytes((1, 0, 0, 0))


def test_it_tells_how_many_processors_there_are() -> None:
    device = fw_cfg(cpus="0x102")
    assert item(device, 0x05, 2) == bytes((0x02, 0x01))
    assert item(device, 0x0F, 2) == bytes((0x02, 0x01))


def test_it_tells_how_much_memory_there_is() -> None:
    assert item(fw_cfg(memory="5G"), 0x03, 8) == (5 * GIB).to_bytes(8, "little")


def test_without_files_the_directory_is_empty() -> None:
    assert directory(fw_cfg()) == []


def test_items_that_do_not_exist_read_as_zeros() -> None:
    device = fw_cfg()
    for number in (0x02, 0x03, 0x04, 0x0D, 0x0E, 0x20, 0x3FFF, 0x8000, 0x8003, 0xFFFF):
        assert item(device, number, 8) == bytes(8)


def test_after_the_last_byte_come_zeros() -> None:
    assert item(fw_cfg(), 0x00, 8) == b"QEMU\0\0\0\0"


def test_selecting_begins_at_the_first_byte_again() -> None:
    device = fw_cfg()
    assert item(device, 0x00, 2) == b"QE"
    assert item(device, 0x00, 4) == b"QEMU"


def test_the_write_channel_of_an_item_reads_the_same() -> None:
    assert item(fw_cfg(), 0x4000, 4) == b"QEMU"


def test_writing_data_changes_nothing() -> None:
    device = fw_cfg()
    select(device, 0x4000)
    pio_out(device, DATA, 0xFF)
    assert read(device, 4) == b"QEMU"


def test_only_16_bits_at_once_select() -> None:
    device = fw_cfg()
    pio_out(device, SELECTOR, 0x19)
    assert read(device, 4) == b"QEMU"


def test_the_selector_reads_as_zero_and_does_not_move_on() -> None:
    device = fw_cfg()
    assert pio_in(device, SELECTOR) == 0
    assert pio_in(device, SELECTOR, 2) == 0
    assert read(device, 4) == b"QEMU"


# Files.


def test_files_are_numbered_and_listed_by_name() -> None:
    device = fw_cfg(files="opt/z='zz';etc/b=1:1;opt/a='a';bootorder=''")
    assert directory(device) == [
        ("bootorder", 0x20, 0),
        ("etc/b", 0x21, 1),
        ("opt/a", 0x22, 1),
        ("opt/z", 0x23, 2),
    ]
    assert item(device, 0x23, 3) == b"zz\0"


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        ("0x3f8:2", b"\xf8\x03"),
        ("1:1", b"\x01"),
        ("0xffffffff:4", b"\xff\xff\xff\xff"),
        ("4K:8", b"\x00\x10\x00\x00\x00\x00\x00\x00"),
        ("'hello'", b"hello"),
        ("' a;b=@c:1 '", b" a;b=@c:1 "),
        ("'grüße'", b"gr\xc3\xbc\xc3\x9fe"),
    ],
)
def test_a_file_holds_a_number_or_text(value: str, octets: bytes) -> None:
    assert content(fw_cfg(files=f"opt/x={value}"), "opt/x") == octets


def test_a_file_holds_what_a_file_on_the_server_holds(tmp_path: Path) -> None:
    path = tmp_path / "a file.bin"
    path.write_bytes(bytes(range(256)))
    device = fw_cfg(files=f"opt/a=@{path} ; opt/b='b'")
    path.write_bytes(b"changed later")
    assert content(device, "opt/a") == bytes(range(256))
    assert content(device, "opt/b") == b"b"


def test_text_keeps_the_bytes_of_a_command_line_that_is_not_utf_8() -> None:
    argument = os.fsdecode(b"opt/x='\xff\xfe'")
    assert content(fw_cfg(files=argument), "opt/x") == b"\xff\xfe"


def test_spaces_around_a_file_and_a_last_semicolon_do_not_matter() -> None:
    device = fw_cfg(files="  etc/a = 1 : 1 ;\n etc/b = 'b' ; ")
    assert [name for name, _, _ in directory(device)] == ["etc/a", "etc/b"]


def test_a_name_may_have_55_characters() -> None:
    name = "n" * 55
    assert [entry[0] for entry in directory(fw_cfg(files=f"{name}=1:1"))] == [name]


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ("etc/a", "'etc/a' is not allowed; allowed: NAME=NUMBER:SIZE"),
        ("etc/a=1", "NAME=NUMBER:SIZE"),
        ("etc/a=1:3", "size of 1, 2, 4 or 8"),
        ("etc/a='open", "NAME='TEXT'"),
        ("etc/a='x'y", "NAME='TEXT'"),
        ("etc/a=@", "NAME=@PATH"),
        ("=1:1", "NAME=NUMBER:SIZE"),
        ("etc/a=1:1;;etc/b=1:1", "';etc/b=1:1' is not allowed"),
        ("etc a=1:1", "'etc a=1:1' is not allowed"),
        ("etc/a=256:1", "'etc/a' is '256', allowed: a number from 0 to 0xff"),
        ("etc/a=-1:2", "allowed: a number from 0 to 0xffff"),
        ("etc/a=one:2", "'one', allowed: a number from 0 to 0xffff"),
        ("etc/ä=1:1", "'etc/ä' is not allowed; allowed: 1 to 55 ASCII"),
        (f"{'n' * 56}=1:1", "allowed: 1 to 55 ASCII"),
        ("etc/a=1:1;etc/a=2:1", "'etc/a' is there twice"),
    ],
)
def test_files_that_make_no_sense_are_refused(files: str, why: str) -> None:
    with pytest.raises(BadConfig) as refused:
        fw_cfg(files=files)
    assert why in str(refused.value)
    assert refused.value.metadata["field"] == "files"


def test_there_can_not_be_more_files_than_numbers_for_them() -> None:
    numbers = range(0x20, 0x4000)
    files = ";".join(f"{number:05}={number}:2" for number in numbers)
    assert item(fw_cfg(files=files), 0x3FFF, 2) == b"\xff\x3f"
    with pytest.raises(BadConfig, match="16353 files, allowed: at most 16352"):
        fw_cfg(files=f"{files};one_more=1:1")


@pytest.mark.parametrize("path", ["/no/such/file", "/", "\0"])
def test_a_file_that_can_not_be_read_is_refused(path: str) -> None:
    device = FwCfg(Config(files=f"etc/a=@{path}"))
    with pytest.raises(BadConfig, match="'etc/a': can't read"):
        Lab().host(device)
    device.close()


# The memory map.


def entries(table: bytes) -> list[tuple[int, int, int]]:
    return list(struct.iter_unpack("<QQI", table))


@pytest.mark.parametrize(
    ("memory", "table"),
    [
        (128 << 20, [(0, 128 << 20, 1)]),
        (3 * GIB, [(0, 3 * GIB, 1)]),
        (3 * GIB + 0x1000, [(0, 3 * GIB, 1), (4 * GIB, 0x1000, 1)]),
        (1 << 40, [(0, 3 * GIB, 1), (4 * GIB, (1 << 40) - 3 * GIB, 1)]),
    ],
)
def test_memory_lies_below_3_gib_and_from_4_gib_on(
    memory: int, table: list[tuple[int, int, int]]
) -> None:
    assert entries(e820(memory)) == table
    assert entries(content(fw_cfg(memory=str(memory)), "etc/e820")) == table


def test_a_map_of_ones_own_is_taken_if_memory_is_not_given() -> None:
    assert content(fw_cfg(files="etc/e820='mine'"), "etc/e820") == b"mine"
    with pytest.raises(BadConfig, match="etc/e820"):
        fw_cfg(memory="1M", files="etc/e820='mine'")


# Its life.


def test_a_reset_selects_the_signature() -> None:
    device = fw_cfg()
    item(device, 0x05, 1)
    device.reset()
    assert read(device, 4) == b"QEMU"


FILES = "etc/a='some text';etc/b=0x1234:2"
ITEMS = st.one_of(
    st.sampled_from([0x00, 0x01, 0x03, 0x05, 0x0F, 0x19, 0x20, 0x21, 0x22, 0x4019]),
    st.integers(0, 0xFFFF),
)
OPERATIONS = st.lists(st.tuples(ITEMS, st.integers(0, 300)), max_size=8)


@given(operations=OPERATIONS)
def test_reading_never_runs_out_of_an_item(operations: list[tuple[int, int]]) -> None:
    device = fw_cfg(memory="8M", files=FILES)
    for number, size in operations:
        whole = item(device, number, 400)
        assert item(device, number, size) == whole[:size]
        assert not any(whole[300:])


@given(operations=OPERATIONS, last=ITEMS, size=st.integers(0, 300))
def test_a_restored_device_has_the_same_future(
    operations: list[tuple[int, int]], last: int, size: int
) -> None:
    original, copy = (fw_cfg(memory="8M", files=FILES) for _ in range(2))
    for number, length in operations:
        item(original, number, length)
    item(original, last, size)
    copy.restore(json.loads(json.dumps(original.save())))
    assert read(copy, 100) == read(original, 100)
    assert copy.save() == original.save()


@pytest.mark.parametrize(
    "state",
    [
        {"offset": 0},
        {"selector": 0},
        {"selector": 0x10000, "offset": 0},
        {"selector": 0, "offset": 5},
        {"selector": 0x20, "offset": 1},
        {"selector": 0, "offset": 0, "item": "00"},
    ],
)
def test_a_bad_state_is_refused_and_changes_nothing(state: dict[str, object]) -> None:
    device = fw_cfg()
    read(device, 2)
    with pytest.raises(BadState):
        device.restore(state)
    assert read(device, 2) == b"MU"
