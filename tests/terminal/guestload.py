"""A guest that uses its devices as firmware and drivers do, for somebody to look at.

with daemon(tmp_path, *DEVICES) as running, load(running.host()):
    ...
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from devicehost_client import DeviceHost, Vcpu

COM1, RTC, KBD, POST = 0x3F8, 0x70, 0x60, 0x80
PL031, SCRATCH = 0xC900_0000, 0xD000_0000
NOBODY = 0xCF8

DEVICES = tuple(
    argument
    for device in (
        "uart16550,id=com1,chardev=null",
        "mc146818,id=rtc",
        "i8042,id=kbd",
        "postcode,id=post",
        f"pl031,id=clock,base={PL031}",
        f"scratch,id=nic,base={SCRATCH},size=0x1000,irq=5",
        "debugcon,id=debug,chardev=null",
    )
    for argument in ("--device", device)
)

_STEP_S = 0.02
_DISK_S, _CONSOLE_S = 9.0, 14.0


@contextmanager
def load(host: DeviceHost) -> Iterator[None]:
    """Access the devices of `DEVICES` until the block ends, on a thread of its own."""
    ended = threading.Event()
    thread = threading.Thread(target=_run, args=(host.vcpu(0), ended), name="guest")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _run(vcpu: Vcpu, ended: threading.Event) -> None:
    vcpu.pio_write(COM1 + 3, 1, 0x03)
    vcpu.pio_write(COM1 + 1, 1, 0x02)
    began = time.monotonic()
    step = 0
    while not ended.wait(_STEP_S):
        now = time.monotonic() - began
        step += 1
        for device, often in _PARTS:
            for _ in range(round(often(now))):
                device(vcpu, step)


def _console(vcpu: Vcpu, step: int) -> None:
    """A driver that polls the line status before each character."""
    for _ in range(3):
        vcpu.pio_read(COM1 + 5, 1)
    vcpu.pio_read(COM1 + 2, 1)
    vcpu.pio_write(COM1, 1, 0x20 + step % 0x5F)


def _clock(vcpu: Vcpu, step: int) -> None:
    """One that waits for the end of an update, then reads the time."""
    for register in (0x0A, 0x00, 0x02, 0x04):
        vcpu.pio_write(RTC, 1, register)
        vcpu.pio_read(RTC + 1, 1)
    if not step % 4:
        vcpu.mmio_read(PL031, 4)


def _keyboard(vcpu: Vcpu, step: int) -> None:
    vcpu.pio_read(KBD + 4, 1)
    if not step % 10:
        vcpu.pio_write(POST, 1, step & 0xFF)


def _network(vcpu: Vcpu, step: int) -> None:
    """Rings, and an interrupt that is acknowledged."""
    for ring in range(4):
        vcpu.mmio_write(SCRATCH + 0x10 * ring, 4, step)
        vcpu.mmio_read(SCRATCH + 0x10 * ring + 4, 4)
    vcpu.mmio_write(SCRATCH + 0xFFF, 1, bool(step % 4))


def _probe(vcpu: Vcpu, step: int) -> None:
    """A scan for hardware that isn't there."""
    if not step % 25:
        vcpu.pio_read(NOBODY, 4)


_PARTS: tuple[tuple[Callable[[Vcpu, int], None], Callable[[float], float]], ...] = (
    (_console, lambda now: max(0.0, 12 * math.sin(now / _CONSOLE_S * math.pi) ** 3)),
    (_clock, lambda now: 1 + 2 * (now % _DISK_S < 1)),
    (_keyboard, lambda now: 3 + 2 * math.sin(now)),
    (_network, lambda now: 6 + 5 * math.sin(now / _DISK_S * math.tau) * math.cos(now / 5)),
    (_probe, lambda _now: 1),
)
