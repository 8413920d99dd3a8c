"""QEMU's firmware configuration device: what a VMM has to tell its firmware.

The guest writes the number of an item, 16 bits wide, to the selector port, and then reads
the item byte by byte from the data port, one above it. After the last byte, and for items
that don't exist, it reads zeros. Beside numbered items there are files, with names: item
0x19 is their directory.

    fw-cfg,memory=128M,files=etc/sercon-port=0x3f8:2;opt/motd='hello';opt/logo=@/srv/logo.bmp

`files` are separated by semicolons. Each is a name and what it holds:

    NAME=NUMBER:SIZE    a little-endian number of 1, 2, 4 or 8 bytes
    NAME='TEXT'         the text as UTF-8, without a zero at the end; it may hold semicolons
    NAME=@PATH          what the file at PATH on the server held when the device was plugged

`memory` makes a map of the guest's memory, the file etc/e820: RAM from 0 to 3 GiB, and what
is more than that from 4 GiB on.

Invariants:
    Nothing changes what an item holds while the device exists; writes of data are ignored.
    Files are numbered from `FIRST_FILE` on, in the order of their names, as the directory is.

After QEMU's docs/specs/fw_cfg.rst: the traditional interface, without DMA.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from devicehost.registers import Access, Field, OnRead, OnWrite, Register, RegisterMap
from devicehost_server.devices.base import DeviceContext, State
from devicehost_server.devices.config import option, parse_int
from devicehost_server.devices.peeking import Peekable, View, Views
from devicehost_server.devices.state import StateReader
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.errors import BadConfig
from devicehost_server.model.resources import PioAddressConstraint, ResourceConstraint

# The numbers of items ("Firmware Configuration Items"; the rest is in QEMU's source).
SIGNATURE = 0x00  # "QEMU"
FEATURES = 0x01  # u32: bit 0 the traditional interface, bit 1 DMA
MEMORY_SIZE = 0x03  # u64, bytes
CPU_COUNT = 0x05  # u16
CPU_COUNT_MAX = 0x0F  # u16
DIRECTORY = 0x19  # u32 big-endian, the number of files, and an entry for each
FIRST_FILE = 0x20

# A bit of the selector. Bit 15 is a part of the number: of items of one architecture.
WRITE_CHANNEL = 0x4000

_SELECTOR = Register(
    "SELECTOR",
    0,
    2,
    Access.WRITE_ONLY,
    fields=(
        # One field: the items of an architecture are others, with meanings of their own.
        Field(
            "KEY",
            0xFFFF,
            "the number of an item; with bit 14 to write it, which has no effect any more; with"
            " bit 15 one of a single architecture, of which there are none",
            {
                SIGNATURE: "signature",
                FEATURES: "features",
                MEMORY_SIZE: "memory size",
                CPU_COUNT: "number of processors",
                CPU_COUNT_MAX: "most processors there can be",
                DIRECTORY: "directory of files",
            },
        ),
    ),
    help="selects an item, and begins at its first byte",
    on_write=OnWrite.CHANGES,
)
_DATA = Register(
    "DATA",
    1,
    access=Access.READ_ONLY,
    reset=None,
    help="the next byte of the item; zero after the last",
    on_read=OnRead.CHANGES,
)
MAP = RegisterMap("fw-cfg", (_SELECTOR, _DATA), "numbered items and files for firmware to read")

_TRADITIONAL = 0x01
_FILES_MAX = WRITE_CHANNEL - FIRST_FILE
_ENTRY = struct.Struct(">IHxx56s")  # size, number, name
_NAME_SIZE_MAX = 55  # of 56 bytes, the last is zero
_E820_ENTRY = struct.Struct("<QQI")  # base, size, kind
_E820_RAM = 1
_E820_FILE = "etc/e820"
_HOLE = 3 << 30  # where memory below 4 GiB ends, for the sake of devices
_ABOVE_HOLE = 4 << 30

_FILE_SPEC = re.compile(
    r"""
    \s* (?P<name> [^\s;=']+ ) \s* = \s*
    (?: @ (?P<path> [^;]* [^\s;] )
      | ' (?P<text> [^']* ) '
      | (?P<number> [^\s;:@']+ ) \s* : \s* (?P<size> [1248] )
    ) \s* (?: ; | $ )
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of an `fw-cfg`; the module's text says how `files` are written."""

    base: int = option(0x510, "the selector's port; data is one above", minimum=0, maximum=0xFFFE)
    cpus: int = option(1, "how many processors there are", minimum=1, maximum=0xFFFF)
    memory: int | None = option(None, "bytes of guest memory", minimum=0x1000, maximum=1 << 52)
    files: str = option("", "NAME=NUMBER:SIZE, NAME='TEXT' or NAME=@PATH; more after a ;")


class FwCfg(Peekable[Config]):
    """QEMU's fw_cfg: numbered items and named files for the firmware to read.

    Raises:
        BadConfig: `files` can't be understood.
    """

    type_name = "fw-cfg"
    config_type = Config
    register_map = MAP

    _items: Mapping[int, bytes]
    _item: bytes

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._files = dict(_parse_files(config.files))
        if config.memory is not None:
            if _E820_FILE in self._files:
                raise _bad(f"{_E820_FILE!r} is already there, made from 'memory'")
            self._files[_E820_FILE] = e820(config.memory)
        if len(self._files) > _FILES_MAX:
            raise _bad(f"there are {len(self._files)} files, allowed: at most {_FILES_MAX}")

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        """Two ports."""
        return [PioAddressConstraint.exact(self.config.base, 2)]

    def assign(self, context: DeviceContext) -> None:
        """Take the resources, and read the files that are files on the server.

        Raises:
            BadConfig: one of them can't be read.
        """
        super().assign(context)
        files = {
            name: _content(name, source) if isinstance(source, Path) else source
            for name, source in self._files.items()
        }
        items = {
            SIGNATURE: b"QEMU",
            FEATURES: struct.pack("<I", _TRADITIONAL),
            CPU_COUNT: struct.pack("<H", self.config.cpus),
            CPU_COUNT_MAX: struct.pack("<H", self.config.cpus),
            **_file_items(files),
        }
        if self.config.memory is not None:
            items[MEMORY_SIZE] = struct.pack("<Q", self.config.memory)
        self._items = items
        self.reset()

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:  # noqa: ARG002 # one range
        """Read the next byte of the selected item. The selector can't be read."""
        if offset == _DATA.offset and self._offset < len(self._item):
            data[0] = self._item[self._offset]
            self._offset += 1

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:  # noqa: ARG002 # one range
        """Select an item, and begin at its first byte. Only 16 bits at once select."""
        if offset == _SELECTOR.offset and len(data) == _SELECTOR.size:
            self._select(int.from_bytes(data, "little"))

    def get_register_map(self) -> RegisterMap:
        """Its registers, with the names of the files that it holds."""
        (key,) = _SELECTOR.fields
        files = dict(enumerate(sorted(self._files), FIRST_FILE))
        key = replace(key, values={**key.values, **files})
        return replace(MAP, registers=(replace(_SELECTOR, fields=(key,)), _DATA))

    def views(self) -> Views:
        """How to tell the registers, and set the selector: that begins at the first byte."""
        return {"SELECTOR": View(lambda: self._selector, self._select), "DATA": View(self._next)}

    def reset(self) -> None:
        """Select the signature."""
        with self.lock:
            self._select(SIGNATURE)

    def save(self) -> State:
        """Return how far reading got. What the items hold is in the configuration."""
        with self.lock:
            return {"selector": self._selector, "offset": self._offset}

    def restore(self, state: State) -> None:
        """Take over a saved state.

        Raises:
            BadState: it doesn't fit, or the item is shorter here; the device is as it was.
        """
        reader = StateReader(self.name, state)
        selector = reader.integer("selector", maximum=0xFFFF)
        offset = reader.integer("offset", maximum=len(self._find(selector)))
        reader.finish()
        with self.lock:
            self._select(selector)
            self._offset = offset

    def _next(self) -> int:
        """Return the next byte without going on."""
        return self._item[self._offset] if self._offset < len(self._item) else 0

    def _select(self, selector: int) -> None:
        self._selector = selector
        self._offset = 0
        self._item = self._find(selector)

    def _find(self, selector: int) -> bytes:
        return self._items.get(selector & ~WRITE_CHANNEL, b"")


def e820(memory: int) -> bytes:
    """Make the memory map of a guest with `memory` bytes: little-endian base, size, kind."""
    below = min(memory, _HOLE)
    table = _E820_ENTRY.pack(0, below, _E820_RAM)
    if memory > below:
        table += _E820_ENTRY.pack(_ABOVE_HOLE, memory - below, _E820_RAM)
    return table


def _file_items(files: Mapping[str, bytes]) -> dict[int, bytes]:
    """Number the files, and make their directory."""
    items: dict[int, bytes] = {}
    directory = bytearray(struct.pack(">I", len(files)))
    for number, (name, content) in enumerate(sorted(files.items()), FIRST_FILE):
        items[number] = content
        directory += _ENTRY.pack(len(content), number, name.encode("ascii"))
    items[DIRECTORY] = bytes(directory)
    return items


def _parse_files(text: str) -> Iterator[tuple[str, bytes | Path]]:
    """Read the `files` of a configuration: each file's name, and what it holds or where it is.

    Raises:
        BadConfig: it isn't written as it should be, or a name is there twice.
    """
    seen: set[str] = set()
    text = text.strip()
    position = 0
    while position < len(text):
        if (spec := _FILE_SPEC.match(text, position)) is None:
            raise _bad(
                f"{text[position:]!r} is not allowed; allowed: NAME=NUMBER:SIZE with a size of "
                "1, 2, 4 or 8, NAME='TEXT' or NAME=@PATH, separated by semicolons"
            )
        position = spec.end()
        name = spec["name"]
        if not (name.isascii() and name.isprintable() and len(name) <= _NAME_SIZE_MAX):
            allowed = f"allowed: 1 to {_NAME_SIZE_MAX} ASCII characters"
            raise _bad(f"name {name!r} is not allowed; {allowed}")
        if name in seen:
            raise _bad(f"name {name!r} is there twice")
        seen.add(name)
        yield name, _source(spec)


def _source(spec: re.Match[str]) -> bytes | Path:
    if spec["path"] is not None:
        return Path(spec["path"])
    if spec["text"] is not None:
        return spec["text"].encode(errors="surrogateescape")  # as a command line was decoded
    size = int(spec["size"])
    try:
        return parse_int(spec["number"]).to_bytes(size, "little")
    except (ValueError, OverflowError):
        allowed = f"allowed: a number from 0 to {(1 << 8 * size) - 1:#x}"
        raise _bad(f"{spec['name']!r} is {spec['number']!r}, {allowed}") from None


def _content(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # a ValueError is a zero in the path
        raise _bad(f"{name!r}: can't read {str(path)!r}: {error}") from error


def _bad(why: str) -> BadConfig:
    return BadConfig(f"device type 'fw-cfg': field 'files': {why}", field="files", type="fw-cfg")
