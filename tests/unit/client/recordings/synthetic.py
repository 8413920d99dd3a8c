"""Recordings that were never made: a guest that boots, with all that `lint` looks for.

The devices' maps are small ones of our own, so that these tests say themselves what is
reserved and what isn't. Times are invented, but of the size that real ones have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

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
    Operation,
    RecordingWriter,
    Space,
    Told,
)
from devicehost.registers import Access as Allowed
from devicehost.registers import (
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
    check,
    to_json,
)

DLAB_OFF = When("LCR", "DLAB", 0)
DLAB_ON = When("LCR", "DLAB", 1)

UART = RegisterMap(
    "uart",
    registers=(
        Register(
            "RBR", 0, access=Allowed.READ_ONLY, when=DLAB_OFF, on_read=OnRead.CHANGES, reset=None
        ),
        Register(
            "THR", 0, access=Allowed.WRITE_ONLY, when=DLAB_OFF, on_write=OnWrite.CHANGES, reset=None
        ),
        Register("DLL", 0, when=DLAB_ON, reset=None),
        Register(
            "IER",
            1,
            when=DLAB_OFF,
            fields=(
                Field("ERBFI", 0x01),
                Field("ETBEI", 0x02),
                Field("ELSI", 0x04),
                Field("EDSSI", 0x08),
            ),
        ),
        Register("DLM", 1, when=DLAB_ON, reset=None),
        Register(
            "IIR",
            2,
            access=Allowed.READ_ONLY,
            reset=1,
            fields=(
                Field(
                    "ID",
                    0x0F,
                    values={0: "modem status", 1: "none", 2: "THR empty", 4: "data", 6: "line"},
                ),
                Field("FIFO", 0xC0),
            ),
        ),
        Register("FCR", 2, access=Allowed.WRITE_ONLY, on_write=OnWrite.CHANGES, reset=None),
        Register(
            "LCR",
            3,
            fields=(
                Field("DLAB", 0x80, "divisor latch"),
                Field("BREAK", 0x40),
                Field("PARITY", 0x38),
                Field("STB", 0x04),
                Field(
                    "WLS", 0x03, values={0: "5 bits", 1: "6 bits", 2: "7 bits", 3: "8 bits"}
                ),
            ),
        ),
        Register("MCR", 4, fields=(Field("DTR", 0x01), Field("RTS", 0x02), Field("LOOP", 0x10))),
        Register(
            "LSR",
            5,
            access=Allowed.READ_ONLY,
            reset=0x60,
            fields=(
                Field("DR", 0x01, "data ready"),
                Field("OE", 0x02),
                Field("THRE", 0x20, "holding register empty"),
                Field("TEMT", 0x40, "all sent"),
            ),
        ),
        Register("MSR", 6, access=Allowed.READ_ONLY, reset=None),
        Register("SCR", 7),
    ),
)  # fmt: skip

RTC = RegisterMap(
    "rtc",
    registers=(
        Register("INDEX", 0, fields=(Field("NUMBER", 0x7F), Field("NMI", 0x80))),
        Register("DATA", 1, reset=None),
        Register("SECONDS", 0x00, via=Via("INDEX", "DATA", 0x7F), reset=None),
        Register(
            "REG_A",
            0x0A,
            via=Via("INDEX", "DATA", 0x7F),
            reset=0x26,
            fields=(Field("UIP", 0x80), Field("DV", 0x70), Field("RS", 0x0F)),
        ),
    ),
)

TIMER = RegisterMap(
    "timer",
    registers=(
        Register("COUNT", 0, 4, access=Allowed.READ_ONLY, reset=None),
        Register("LIMIT", 4, 4),
        Register(
            "CONTROL",
            8,
            4,
            fields=(
                Field("ENABLE", 0x1),
                Field("MODE", 0x6, values={0: "one shot", 1: "periodic"}),
            ),
        ),
        Register(
            "CHANNEL",
            16,
            4,
            on_write=OnWrite.CHANGES,
            fields=(Field("NUMBER", 0xFFFF_FFFF, values={0: "none", 1: "first", 2: "all"}),),
        ),
        Register("CLEAR", 12, 4, access=Allowed.WRITE_ONLY, on_write=OnWrite.CLEARS),
    ),
)

for each in (UART, RTC, TIMER):
    check(each)

COM1 = 0x3F8
CMOS = 0x70
TIMER_BASE = 0xD000_0000

DEVICES = (
    DeviceRecord(
        "com1",
        "uart16550",
        config={"chardev": "stdio", "clock": 1_843_200},
        ranges=((Space.PIO, COM1, 8),),
        registers=to_json(UART),
        state={},
    ),
    DeviceRecord("rtc", "mc146818", ranges=((Space.PIO, CMOS, 2),), registers=to_json(RTC)),
    DeviceRecord("timer0", "sp804", ranges=((Space.MMIO, TIMER_BASE, 0x1000),),
                 registers=to_json(TIMER)),
    DeviceRecord("debugcon", "debugcon", ranges=((Space.PIO, 0x402, 1),)),
)  # fmt: skip

HEADER = Header(
    devices=DEVICES,
    version="0.1.0",
    started="2026-03-14T09:26:53.589+00:00",
    wall_ns=1_773_480_413_589_000_000,
    now_ns=5_000_000_000,
    note="a boot on two vCPUs that nobody has made",
)


class Guest:
    """Makes accesses, one after the other.

    Args:
        now_ns: when the first begins.
        vcpu: who makes them.
        seed: of what is left to chance, which is only how long an access takes.
    """

    def __init__(self, now_ns: int = 5_000_000_000, vcpu: int | None = 0, seed: int = 1) -> None:
        self.now_ns = now_ns
        self.vcpu = vcpu
        self._random = Random(seed)

    def access(
        self,
        operation: Operation,
        space: Space,
        address: int,
        value: int,
        *,
        size: int = 1,
        status: AccessStatus = AccessStatus.OK,
        took_ns: int | None = None,
    ) -> Access:
        if took_ns is None:
            took_ns = int(self._random.lognormvariate(7.2, 0.45))
        access = Access(
            self.now_ns,
            took_ns,
            self.vcpu,
            space,
            operation,
            address,
            size,
            b"" if status and operation is Operation.READ else value.to_bytes(size, "little"),
            status,
        )
        self.now_ns += took_ns + 900
        return access

    def inb(self, address: int, value: int, *, took_ns: int | None = None) -> Access:
        return self.access(Operation.READ, Space.PIO, address, value, took_ns=took_ns)

    def outb(self, address: int, value: int, *, took_ns: int | None = None) -> Access:
        return self.access(Operation.WRITE, Space.PIO, address, value, took_ns=took_ns)

    def readl(self, address: int, value: int, *, size: int = 4) -> Access:
        return self.access(Operation.READ, Space.MMIO, address, value, size=size)

    def writel(self, address: int, value: int, *, size: int = 4) -> Access:
        return self.access(Operation.WRITE, Space.MMIO, address, value, size=size)

    def setup(self) -> Iterator[Event]:
        """Set up the UART, as drivers do."""
        for offset, value in ((3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0xC7), (4, 0x03), (1, 0)):
            yield self.outb(COM1 + offset, value)

    def prints(self, text: str, polls: int = 1) -> Iterator[Event]:
        """Print, and wait for the UART before each character."""
        for char in text.encode():
            for _ in range(polls - 1):
                yield self.inb(COM1 + 5, 0x00)
            yield self.inb(COM1 + 5, 0x60)
            yield self.outb(COM1, char)

    def reads_clock(self, polls: int = 1) -> Iterator[Event]:
        """Wait until no update is in progress, and read the seconds."""
        yield self.outb(CMOS, 0x0A)
        for _ in range(polls):
            yield self.inb(CMOS + 1, 0xA6)
        yield self.inb(CMOS + 1, 0x26)
        yield self.outb(CMOS, 0x00)
        yield self.inb(CMOS + 1, 0x59)

    def interrupt(self, gsi: int, device: str) -> Iterator[Event]:
        """Be interrupted: a level that falls when the UART's IIR is read."""
        yield Interrupt(self.now_ns, gsi, InterruptKind.ASSERTED, device)
        yield self.inb(COM1 + 2, 0xC2)
        yield Interrupt(self.now_ns, gsi, InterruptKind.DEASSERTED, device)

    def misbehaves(self) -> Iterator[Event]:
        """Do everything once that a data sheet forbids."""
        yield self.outb(COM1 + 4, 0x6B)  # reserved bits
        yield self.outb(COM1 + 6, 0x00)  # read-only
        yield self.readl(TIMER_BASE + 12, 0)  # write-only
        yield self.writel(TIMER_BASE + 8, 0x5)  # a mode that there isn't
        yield self.readl(TIMER_BASE + 4, 0x12, size=2)  # a part of a register
        yield self.readl(TIMER_BASE + 0x100, 0)  # no register
        yield self.access(
            Operation.READ, Space.PIO, 0x510, 0, size=2, status=AccessStatus.NO_DEVICE
        )
        yield self.access(
            Operation.READ,
            Space.MMIO,
            TIMER_BASE,
            0,
            size=4,
            status=AccessStatus.DEVICE_TIMEOUT,
            took_ns=2_000_000,
        )


def boot(rounds: int = 20) -> Iterator[Event]:
    """A boot: about 150 events in a round."""
    guest = Guest()
    other = Guest(vcpu=1, seed=2)
    random = Random(3)
    yield from guest.setup()
    for turn in range(rounds):
        yield from guest.prints(f"[{turn:5}] device {turn % 7} is up\r\n", polls=1 + turn % 3)
        yield from guest.reads_clock(polls=12 if turn % 5 == 1 else 1)
        yield Learned(guest.now_ns, "rtc", "now", guest.now_ns)
        yield from guest.interrupt(4, "com1")
        other.now_ns = guest.now_ns + 40_000
        for _ in range(10 + turn % 13):
            yield other.readl(TIMER_BASE, other.now_ns >> 8 & 0xFFFF_FFFF)
            other.now_ns += int(random.expovariate(1 / 30_000))
        yield other.writel(TIMER_BASE + 12, 1)
        yield Interrupt(other.now_ns, 33, InterruptKind.PULSED, "timer0")
        if turn % 6 == 2:
            yield from other.misbehaves()
        yield guest.outb(0x402, 0x2E)
        yield Told(guest.now_ns, "debugcon", b".")
        yield Dma(guest.now_ns, "timer0", Operation.WRITE, 0x10_0000, bytes(64))
        guest.now_ns = max(guest.now_ns, other.now_ns) + int(random.expovariate(1 / 2_000_000))


def write(path: Path, events: Iterable[Event], header: Header = HEADER) -> Path:
    """Write a recording, and return where it is."""
    with path.open("wb") as file:
        writer = RecordingWriter(file, header)
        for event in events:
            writer.write(event)
        writer.close()
    return path
