"""Events of all kinds, and a header, for the tests of recordings."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Final

from devicehost.access_status import AccessStatus
from devicehost.recording import (
    Access,
    DeviceRecord,
    Dma,
    Event,
    Header,
    Interrupt,
    InterruptKind,
    Learned,
    Lost,
    Operation,
    Plugged,
    RecordingWriter,
    Space,
    Told,
    Unplugged,
    Woken,
)

T0: Final = 5_000_000_000_000
"""A moment, on the monotonic clock."""

UART: Final = DeviceRecord(
    "uart0",
    "uart16550",
    {"chardev": "null"},
    ({"kind": "pio", "base": 0x3F8, "size": 8}, {"kind": "irq", "irq": 4}),
    ((Space.PIO, 0x3F8, 8),),
    {
        "name": "pc16550d",
        "registers": [
            {"name": "LCR", "offset": 3, "fields": [{"name": "DLAB", "mask": 128}]},
            {"name": "LSR", "offset": 5, "access": "read-only"},
        ],
    },
    {"LCR": 3},
    {"LCR": 3},
)
RAM: Final = DeviceRecord("ram.0", "scratch", ranges=((Space.MMIO, 0xFEB0_0000, 0x1000),))
HEADER: Final = Header(
    (UART, RAM), "1.2.3", "2026-01-02T03:04:05+00:00", 1_767_323_045_000_000_000, T0, "a test"
)


def read(
    time_ns: int = T0,
    address: int = 0xFEB0_0010,
    data: bytes = b"abcd",
    *,
    took_ns: int = 1800,
    vcpu: int | None = 0,
    space: Space = Space.MMIO,
    operation: Operation = Operation.READ,
    size: int | None = None,
    status: AccessStatus = AccessStatus.OK,
) -> Access:
    """An access; without more, a read of 4 bytes of memory."""
    size = len(data) if size is None else size
    return Access(time_ns, took_ns, vcpu, space, operation, address, size, data, status)


def write(time_ns: int = T0, address: int = 0x3FB, data: bytes = b"\x83") -> Access:
    """A write of a port."""
    return read(time_ns, address, data, space=Space.PIO, operation=Operation.WRITE)


ACCESSES: Final[dict[str, Access]] = {
    **{f"read of {size} bytes": read(data=bytes(range(size))) for size in (1, 2, 4, 8)},
    **{f"write of {size} bytes": write(data=bytes(range(size))) for size in (1, 2, 4, 8)},
    "unknown vCPU": read(vcpu=None),
    "vCPU 127": read(vcpu=127),
    "vCPU 128": read(vcpu=128),
    "vCPU 32768": read(vcpu=32768),
    "65535 ns": read(took_ns=65535),
    "65536 ns": read(took_ns=65536),
    "an hour": read(took_ns=3_600_000_000_000),
    "last port": write(address=0xFFFF),
    "port that can't be": write(address=0x1_0000),
    "port that can't be at all": write(address=1 << 40),
    "end of the first 4 GiB": read(address=0xFFFF_FFFF),
    "above 4 GiB": read(address=1 << 32),
    "end of memory": read(address=(1 << 64) - 8, data=bytes(8)),
    "above 4 GiB, slow": read(address=1 << 40, took_ns=1 << 20),
    "3 bytes": read(data=b"abc"),
    "16 bytes": read(data=bytes(range(16))),
    "a string": read(address=0x60, space=Space.PIO, data=b"abcdef", size=2),
    "a string of one": read(address=0x60, space=Space.PIO, data=b"ab", size=2),
    "a failed read": read(data=b"", size=4, status=AccessStatus.NO_DEVICE),
    "a failed write": read(operation=Operation.WRITE, status=AccessStatus.DEVICE_FAULT),
    "a megabyte": read(data=bytes(1 << 20)),
    "nothing": read(data=b""),
}

OTHERS: Final[dict[str, Event]] = {
    "interrupt": Interrupt(T0, 4, InterruptKind.ASSERTED, "uart0"),
    "nobody's interrupt": Interrupt(T0, (1 << 32) - 1, InterruptKind.PULSED, ""),
    "DMA": Dma(T0, "disk", Operation.WRITE, 1 << 40, b"abc"),
    "plugged": Plugged(T0, UART.to_json()),
    "unplugged": Unplugged(T0, "uart0"),
    "time": Learned(T0, "rtc", "wall", 1_767_323_045_000_000_000),
    "negative": Learned(T0, "rtc", "now", -(1 << 63)),
    "bytes": Learned(T0, "uart0", "read", b"hello"),
    "woken": Woken(T0, "rtc", "timer:_tick"),
    "told": Told(T0, "gerät", b"hi"),
    "lost": Lost(1 << 40),
}

EVENTS: Final = (*ACCESSES.values(), *OTHERS.values())


def recorded(events: Iterable[Event], *, capacity: int = 256) -> bytes:
    """A file with events, in blocks that are small enough for several."""
    file = io.BytesIO()
    writer = RecordingWriter(file, HEADER, capacity=capacity)
    for event in events:
        writer.write(event)
    writer.close()
    return file.getvalue()
