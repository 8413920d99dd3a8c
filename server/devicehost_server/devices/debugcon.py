"""The debug console of Bochs and QEMU: a port that firmware writes its log to.

A byte that is written goes to the stream. A read returns 0xE9, by which firmware finds out
that the port is there: OVMF and SeaBIOS look at 0x402, Bochs's own port is 0xE9.

    --device debugcon,chardev=file:/var/log/vm1-firmware.log

There is no way to make the guest wait. So a write always succeeds at once; what the sink
hasn't taken yet is buffered, and once `buffer` bytes wait, further ones are dropped and
counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from devicehost.registers import Access, Field, Register, RegisterMap
from devicehost_server.devices.base import DeviceContext
from devicehost_server.devices.chardev import DEFAULT_CAPACITY, open_stream, parse_spec
from devicehost_server.devices.config import option
from devicehost_server.devices.peeking import Peekable, View, Views
from devicehost_server.model.device_io import ReadableBuffer, WritableBuffer
from devicehost_server.model.resources import PioAddressConstraint, ResourceConstraint

PRESENT = 0xE9

MAP = RegisterMap(
    "debugcon",
    help="the port that firmware writes its log to",
    registers=(
        Register(
            "ID",
            0,
            access=Access.READ_ONLY,
            reset=PRESENT,
            fields=(Field("ID", 0xFF, "always the same", {PRESENT: "the port is there"}),),
            help="tells that the port is there",
        ),
        Register("OUT", 0, access=Access.WRITE_ONLY, reset=None, help="a byte of the log"),
    ),
)


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of a `debugcon`."""

    base: int = option(0x402, "the port", minimum=0, maximum=0xFFFF)
    chardev: str = option("null", "where the bytes go to")
    buffer: int = option(
        DEFAULT_CAPACITY, "bytes of output that wait for a slow sink", minimum=1, maximum=1 << 30
    )


class DebugConsole(Peekable[Config]):
    """The port that firmware writes its log to (Bochs, QEMU)."""

    type_name = "debugcon"
    config_type = Config
    register_map = MAP

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        parse_spec(config.chardev)
        self._stream = open_stream("null")  # until there are resources
        self._dropped = 0

    def get_resource_constraints(self) -> list[ResourceConstraint]:
        """One port."""
        return [PioAddressConstraint.exact(self.config.base, 1)]

    def assign(self, context: DeviceContext) -> None:
        """Open the stream.

        Raises:
            BadConfig: it can't be opened.
        """
        super().assign(context)
        self._stream = context.open_stream(self.config.chardev, capacity=self.config.buffer)

    def start(self) -> None:
        """Let bytes go. What comes back is left where it is."""
        self._stream.start(lambda: None)

    @property
    def dropped(self) -> int:
        """How many bytes were written while the buffer was full."""
        return self._dropped

    def pio_read(self, base: int, offset: int, data: WritableBuffer) -> None:  # noqa: ARG002 # one port
        """Say that the port is there."""
        data[0] = PRESENT

    def pio_write(self, base: int, offset: int, data: ReadableBuffer) -> None:  # noqa: ARG002 # one port
        """Write a byte of the log."""
        self._dropped += len(data) - self._stream.write(data)

    def views(self) -> Views:
        """How to tell the registers. What was written is gone."""
        return {"ID": View(lambda: PRESENT)}

    def close(self) -> None:
        """Send what the sink takes within a second."""
        self._stream.close()
