"""Activity to make frames of `top` from."""

from __future__ import annotations

from devicehost.recording.events import Space
from devicehost_client.ctl.top.frames import Device, Range, ServerInfo
from devicehost_client.ctl.top.model import Model
from devicehost_client.debug import Activity, InterruptActivity, PlaceActivity

SERVER = ServerInfo("1.2.3", "one", 60.0)
COM1 = Device("com1", "uart16550", (("chardev", "null"),), ("pio:0x3f8+0x8", "irq:4"), (4,))
RAM = Device("ram", "scratch", (), ("mmio:0xd0000000+0x1000",))
COM1_RANGE = Range(Space.PIO, 0x3F8, 0x3FF, "com1")
RAM_RANGE = Range(Space.MMIO, 0xD000_0000, 0xD000_0FFF, "ram")

LSR = PlaceActivity("com1", "LSR", Space.PIO, 0x3FD, 300, 0, 0, 300_000, 5000)
THR = PlaceActivity("com1", "THR", Space.PIO, 0x3F8, 0, 100, 0, 300_000, 9000)
WORD = PlaceActivity("ram", "R[0]", Space.MMIO, 0xD000_0000, 20, 0, 0, 20_000, 1000)
NOBODY = PlaceActivity("", "", Space.PIO, 0xCF8, 2, 0, 2, 60_000, 40_000)


def activity(
    *places: PlaceActivity,
    interval_s: float = 2.0,
    interrupts: tuple[InterruptActivity, ...] = (),
    latency: tuple[int, ...] = (),
) -> Activity:
    """What was accessed in an interval."""
    return Activity(round(interval_s * 1e9), places, interrupts, latency)


def model(*activities: Activity) -> Model:
    """A model that knows a server with two devices, and these intervals."""
    result = Model()
    result.meet(SERVER)
    result.place([COM1, RAM], [RAM_RANGE, COM1_RANGE])
    for each in activities:
        result.add(each)
    return result
