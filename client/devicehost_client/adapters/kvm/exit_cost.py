"""What a KVM exit costs here, and what an access adds to it: a guest reads a port in a loop.

A port that answers on the spot shows the way out of the guest, the adapter's loop, and the
way back in: all that a trapped access takes with the device in the VMM itself. A port whose
device is elsewhere shows what the way there and back comes to.
"""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter_ns

from devicehost_client.adapters.kvm.vcpu import Vcpu
from devicehost_client.adapters.kvm.vm import Vm
from devicehost_client.port import AccessPort, ReadableBuffer, WritableBuffer

_CODE = 0x1000
_PROGRAM = (
    "ba {}"  # mov dx, port
    "ec"  # again: in al, dx
    "eb fd"  # jmp again
)


def exit_times_ns(exits: int, port: AccessPort | None = None, number: int = 0x5000) -> list[int]:
    """Return how long each of so many exits took, with its access, in nanoseconds.

    Args:
        exits: how many.
        port: makes the accesses; None to answer them on the spot.
        number: the I/O port that the guest reads, a byte each time.

    Raises:
        KvmUnavailable: KVM can't be used here.
    """
    with Vm(irqchip=False) as vm:
        vm.memory.add_ram(0, 0x10000)
        vm.memory.load(_CODE, bytes.fromhex(_PROGRAM.format(number.to_bytes(2, "little").hex())))
        vcpu = vm.create_vcpu()
        vcpu.enter_real_mode(0, _CODE)
        clock = _Clock(vcpu, exits, port)
        vcpu.run(clock)
        return [after - before for before, after in pairwise(clock.read_at_ns)]


class _Clock:
    """A port that notes when it is read, and stops the guest in the end."""

    def __init__(self, vcpu: Vcpu, exits: int, port: AccessPort | None) -> None:
        self._vcpu = vcpu
        self._port = port
        self._left = exits + 1
        self.read_at_ns: list[int] = []

    def pio_read_into(self, port: int, data: WritableBuffer, size: int) -> None:
        self.read_at_ns.append(perf_counter_ns())
        if self._port is None:
            data[:] = b"\0"
        else:
            self._port.pio_read_into(port, data, size)
        self._left -= 1
        if not self._left:
            self._vcpu.stop()

    def pio_write_from(self, port: int, data: ReadableBuffer, size: int) -> None:
        raise AssertionError(f"the guest wrote {size} bytes of {data!r} to port {port:#x}")

    def mmio_read_into(self, address: int, data: WritableBuffer) -> None:
        raise AssertionError(f"the guest read {len(data)} bytes at {address:#x}")

    def mmio_write_from(self, address: int, data: ReadableBuffer) -> None:
        raise AssertionError(f"the guest wrote {data!r} to {address:#x}")
