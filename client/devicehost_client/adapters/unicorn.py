"""The Unicorn adapter: guest code in an emulator library, its accesses on an `AccessPort`.

    from unicorn import UC_ARCH_X86, UC_MODE_16, Uc

    uc = Uc(UC_ARCH_X86, UC_MODE_16)
    uc.mem_map(0, 1 << 20)
    uc.mem_write(0x7C00, boot_sector)
    cpu = UnicornCpu(uc, port)
    cpu.trap_mmio(0xD0000000, 0x1000)
    cpu.run(0x7C00)

It needs no /dev/kvm, which makes it the way to run firmware fragments and drivers in
tests anywhere. There is no interrupt controller in it: `interrupt` delivers a vector when
the guest has interrupts enabled, as a processor in real mode takes it (Intel SDM volume
3B, 21.1.4: FLAGS, CS and IP on the stack, then the vector's entry at 0).

Needs the extra `devicehost[unicorn]`.
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from typing import Any

import unicorn
from unicorn import x86_const as x86

from devicehost_client.port import AccessPort

_HLT = 0xF4
_INTERRUPT_FLAG = 1 << 9
_TRAP_FLAG = 1 << 8
_FOREVER = 0xFFFF_FFFF_FFFF_FFFF


class UnicornCpu:
    """One processor. `run` is for one thread; `interrupt` and `stop` for any.

    Args:
        uc: the emulator, with the guest's memory mapped.
        port: where its accesses go.
    """

    def __init__(self, uc: Any, port: AccessPort) -> None:
        self._uc = uc
        self._port = port
        self._changed = threading.Condition()
        self._pending: deque[int] = deque()
        self._stopped = False
        # A range that begins behind its end, 1 to 0, stands for all addresses.
        uc.hook_add(unicorn.UC_HOOK_INSN, self._in, None, 1, 0, x86.UC_X86_INS_IN)
        uc.hook_add(unicorn.UC_HOOK_INSN, self._out, None, 1, 0, x86.UC_X86_INS_OUT)

    def trap_mmio(self, base: int, size: int) -> None:
        """Trap accesses to these guest-physical addresses; both in bytes, whole pages."""

        def read(_uc: Any, offset: int, width: int, _data: Any) -> int:
            data = bytearray(width)
            self._port.mmio_read_into(base + offset, data)
            return int.from_bytes(data, "little")

        def write(_uc: Any, offset: int, width: int, value: int, _data: Any) -> None:
            self._port.mmio_write_from(base + offset, value.to_bytes(width, "little"))

        self._uc.mmio_map(base, size, read, None, write, None)

    def interrupt(self, vector: int) -> None:
        """Deliver `vector` as soon as the guest takes interrupts; each call once."""
        with self._changed:
            self._pending.append(vector)
            self._changed.notify()
        self._uc.emu_stop()

    def stop(self) -> None:
        """End the run that is going on, or else the next one."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._uc.emu_stop()

    def run(self, address: int) -> None:
        """Run the guest from a linear address until `stop`. A HLT waits for an interrupt.

        Raises:
            unicorn.UcError: the guest did what the emulator can't.
        """
        while True:
            self._uc.emu_start(address, _FOREVER)
            address = self._linear_ip()
            if self._uc.mem_read(address, 1)[0] == _HLT and self._pending:
                # An STI holds off interrupts for one instruction: were one delivered
                # between it and the HLT, the guest would sleep through it.
                self._uc.emu_start(address, _FOREVER, count=1)
                address = self._linear_ip()
            halted = self._uc.mem_read(address - 1, 1)[0] == _HLT
            with self._changed:
                while halted and not self._stopped and not self._may_deliver():
                    self._changed.wait()
                if self._stopped:
                    self._stopped = False
                    return
                if self._may_deliver():
                    self._deliver(self._pending.popleft())
                    address = self._linear_ip()

    def _may_deliver(self) -> bool:
        flags: int = self._uc.reg_read(x86.UC_X86_REG_EFLAGS)
        return bool(self._pending) and bool(flags & _INTERRUPT_FLAG)

    def _deliver(self, vector: int) -> None:
        uc = self._uc
        flags = uc.reg_read(x86.UC_X86_REG_EFLAGS)
        frame = struct.pack(
            "<HHH",
            uc.reg_read(x86.UC_X86_REG_IP),
            uc.reg_read(x86.UC_X86_REG_CS),
            flags & 0xFFFF,
        )
        stack = (uc.reg_read(x86.UC_X86_REG_SP) - len(frame)) & 0xFFFF
        uc.reg_write(x86.UC_X86_REG_SP, stack)
        uc.mem_write(uc.reg_read(x86.UC_X86_REG_SS) * 16 + stack, frame)
        uc.reg_write(x86.UC_X86_REG_EFLAGS, flags & ~(_INTERRUPT_FLAG | _TRAP_FLAG))
        ip, cs = struct.unpack("<HH", bytes(uc.mem_read(vector * 4, 4)))
        uc.reg_write(x86.UC_X86_REG_CS, cs)
        uc.reg_write(x86.UC_X86_REG_IP, ip)

    def _linear_ip(self) -> int:
        cs: int = self._uc.reg_read(x86.UC_X86_REG_CS)
        ip: int = self._uc.reg_read(x86.UC_X86_REG_IP)
        return cs * 16 + ip

    def _in(self, _uc: Any, port: int, size: int, _data: Any) -> int:
        data = bytearray(size)
        self._port.pio_read_into(port, data, size)
        return int.from_bytes(data, "little")

    def _out(self, _uc: Any, port: int, size: int, value: int, _data: Any) -> None:
        self._port.pio_write_from(
            port, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"), size
        )
