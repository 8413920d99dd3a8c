"""What a KVM exit costs here: a guest reads a port in a loop, which answers on the spot.

That is the way out of the guest, the adapter's loop, and the way back in: all that a
trapped access takes with the device in the VMM itself.
"""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter_ns

from devicehost_client.adapters.kvm.vcpu import Vcpu
from devicehost_client.adapters.kvm.vm import Vm
from devicehost_client.port import ReadableBuffer, WritableBuffer

_CODE = 0x1000
_PROGRAM = bytes.fromhex(
    "ba 00 50"  # mov dx, 0x5000
    "ec"  # again: in al, dx
    "eb fd"  # jmp again
)


def exit_times_ns(exits: int) -> list[int]:
    """Return how long each of so many exits took, in nanoseconds.

    Raises:
        KvmUnavailable: KVM can't be used here.
    """
    with Vm(irqchip=False) as vm:
        vm.memory.add_ram(0, 0x10000)
        vm.memory.load(_CODE, _PROGRAM)
        vcpu = vm.create_vcpu()
        vcpu.enter_real_mode(0, _CODE)
        port = _Clock(vcpu, exits)
        vcpu.run(port)
        return [after - before for before, after in pairwise(port.read_at_ns)]


class _Clock:
    """A port that notes when it is read, and stops the guest in the end."""

    def __init__(self, vcpu: Vcpu, exits: int) -> None:
        self._vcpu = vcpu
        self._left = exits + 1
        self.read_at_ns: list[int] = []

    def pio_read_into(self, port: int, data: WritableBuffer, size: int) -> None:
        del port, size
        self.read_at_ns.append(perf_counter_ns())
        data[:] = b"\0"
        self._left -= 1
        if not self._left:
            self._vcpu.stop()

    def pio_write_from(self, port: int, data: ReadableBuffer, size: int) -> None:
        raise AssertionError(f"the guest wrote {size} bytes of {data!r} to port {port:#x}")

    def mmio_read_into(self, address: int, data: WritableBuffer) -> None:
        raise AssertionError(f"the guest read {len(data)} bytes at {address:#x}")

    def mmio_write_from(self, address: int, data: ReadableBuffer) -> None:
        raise AssertionError(f"the guest wrote {data!r} to {address:#x}")
