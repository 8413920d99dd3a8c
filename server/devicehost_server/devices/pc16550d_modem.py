"""The modem side of a 16550A: inputs, outputs, and what has changed of the inputs.

In loopback the outputs are connected to the inputs, and both pins to nothing: DTR to DSR,
RTS to CTS, OUT1 to RI and OUT2 to DCD (PC16550D data sheet, 8.8, bit 4).
"""

from __future__ import annotations

from devicehost_server.devices.pc16550d_registers import (
    MCR_DTR,
    MCR_LOOP,
    MCR_OUT1,
    MCR_OUT2,
    MCR_RTS,
    MSR_CTS,
    MSR_DCD,
    MSR_DELTAS,
    MSR_DSR,
    MSR_INPUTS,
    MSR_RI,
    MSR_TERI,
)


class Modem:
    """The registers MCR and MSR.

    Attributes:
        inputs: what is outside of the chip: bits 7:4 of MSR.
        control: MCR.
        deltas: bits 3:0 of MSR.
    """

    def __init__(self) -> None:
        self.inputs = 0
        self.reset()

    def reset(self) -> None:
        """Switch the outputs off, and forget changes."""
        self.control = self.deltas = 0
        self._levels = self.inputs  # bits 7:4 of MSR

    @property
    def loop(self) -> bool:
        """Whether the outputs are connected to the inputs."""
        return self.control & MCR_LOOP != 0

    @property
    def out2(self) -> bool:
        """Whether the pin OUT2 is on. In loopback it is off, whatever the bit."""
        return self.control & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2

    @property
    def status(self) -> int:
        """MSR."""
        return self._levels | self.deltas

    def set_status(self, status: int) -> None:
        """Set MSR. Inputs that aren't so are a change when they are next sensed."""
        self._levels, self.deltas = status & MSR_INPUTS, status & MSR_DELTAS

    def set_control(self, control: int) -> None:
        """Set MCR. The inputs follow without a change being noted."""
        self.control = control
        self._levels = self._connected()

    def sense(self) -> None:
        """Look at the inputs, and note what has changed of them."""
        levels = self._connected()
        changed = levels ^ self._levels
        self.deltas |= (changed & ~MSR_RI) >> 4
        if changed & self._levels & MSR_RI:
            self.deltas |= MSR_TERI
        self._levels = levels

    def _connected(self) -> int:
        control = self.control
        if not control & MCR_LOOP:
            return self.inputs
        return (
            (MSR_DSR if control & MCR_DTR else 0)
            | (MSR_CTS if control & MCR_RTS else 0)
            | (MSR_RI if control & MCR_OUT1 else 0)
            | (MSR_DCD if control & MCR_OUT2 else 0)
        )
