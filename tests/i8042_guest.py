"""A guest that drives a keyboard controller: what the tests of the i8042 share."""

from __future__ import annotations

from devicehost_server.devices.i8042 import I8042, Config
from devicehost_server.model.interrupts import InterruptEvent
from devicelab import Lab, pio_in, pio_out

KEYBOARD_IRQ, AUX_IRQ, RESET_IRQ, A20_IRQ = 1, 12, 100, 101

FULL, INPUT_FULL, SYSTEM, COMMAND, UNLOCKED, AUX, TIMEOUT, PARITY = (1 << bit for bit in range(8))


class Guest:
    """A guest that drives a controller, and never waits in vain."""

    def __init__(self, config: Config | None = None) -> None:
        self.lab = Lab()
        self.device = self.lab.host(I8042(config or Config(reset_irq=RESET_IRQ, a20_irq=A20_IRQ)))

    @property
    def status(self) -> int:
        return pio_in(self.device, 0x64)

    def command(self, command: int, *data: int) -> None:
        pio_out(self.device, 0x64, command)
        for octet in data:
            self.send(octet)

    def send(self, octet: int) -> None:
        """Write to port 0x60."""
        assert not self.status & INPUT_FULL
        pio_out(self.device, 0x60, octet)

    def receive(self, *, aux: bool = False) -> int:
        """Read the byte that there must be, from the source that it must be from."""
        assert self.status & (FULL | AUX) == (FULL | AUX if aux else FULL)
        return pio_in(self.device, 0x60)

    def receive_all(self, *, aux: bool = False) -> list[int]:
        octets: list[int] = []
        while self.status & FULL:
            octets.append(self.receive(aux=aux))
        return octets

    def ask(self, command: int) -> int:
        """Give a command, and receive its reply."""
        self.command(command)
        return self.receive()

    def keyboard(self, octet: int) -> list[int]:
        """Send to the keyboard, and receive all of its answer."""
        self.send(octet)
        return self.receive_all()

    def mouse(self, octet: int) -> list[int]:
        """Send to the mouse, and receive all of its answer."""
        self.command(0xD4, octet)
        return self.receive_all(aux=True)

    def asserted(self) -> set[int]:
        return set(self.lab.interrupts.asserted())

    def watch(self) -> list[InterruptEvent]:
        """Return a list that collects events from now on."""
        events: list[InterruptEvent] = []
        self.lab.interrupts.subscribe(events.append)
        return events
