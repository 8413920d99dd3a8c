"""A vCPU: it runs the guest, and each trapped access becomes a call of an `AccessPort`.

    >>> def run_to_the_end(vcpu: Vcpu, port: AccessPort) -> RunEnd:
    ...     while isinstance(end := vcpu.run(port), Stopped):
    ...         pass  # whatever the VMM stopped it for
    ...     return end

The loop of `Vcpu.run` hands out windows on the page that the vCPU shares with the kernel:
an access is not copied, and a port fills a read in place.

Invariants:
    One thread at a time runs a vCPU.
    After `stop`, a run that is going on ends; if none is, the next one ends at once.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
from fcntl import ioctl
from typing import Final, TypeVar

from devicehost_client.adapters.kvm.errors import BadVmState, KvmCallFailed
from devicehost_client.adapters.kvm.exits import (
    EntryFailed,
    ExitCounts,
    Halted,
    InternalError,
    RunEnd,
    Shutdown,
    Stopped,
    SystemEvent,
    UnknownExit,
)
from devicehost_client.adapters.kvm.ioctl import (
    FAIL_ENTRY,
    IO_COUNT,
    IO_DATA,
    IO_DIRECTION,
    IO_PORT,
    IO_SIZE,
    MMIO_ADDRESS,
    MMIO_DATA,
    MMIO_IS_WRITE,
    MMIO_SIZE,
    NUMBER_AND_WORDS,
    RUN_EXIT_DATA,
    RUN_EXIT_REASON,
    RUN_IMMEDIATE_EXIT,
    SIGNAL_MASK,
    SIGNAL_MASK_BYTES,
    Call,
    ExitReason,
    call,
)
from devicehost_client.adapters.kvm.registers import RFLAGS_FIXED, Registers, SpecialRegisters
from devicehost_client.port import AccessPort

KICK_SIGNAL: Final = signal.SIGRTMIN
"""Gets a thread out of KVM_RUN. It is blocked during a run and no handler ever sees it, so a
program may use it in other threads, but not send it to one that runs a vCPU."""

_KICK: Final = frozenset({KICK_SIGNAL})

_Registers = TypeVar("_Registers", Registers, SpecialRegisters)

# What the loop compares and indexes with, as plain integers; indexes count in the width of
# the view that they are for.
_RUN: Final = int(Call.KVM_RUN)
_EXIT_IO: Final = int(ExitReason.KVM_EXIT_IO)
_EXIT_MMIO: Final = int(ExitReason.KVM_EXIT_MMIO)
_REASON: Final = RUN_EXIT_REASON // 4
_IO_PORT: Final = IO_PORT // 2
_IO_COUNT: Final = IO_COUNT // 4
_MMIO_ADDRESS: Final = MMIO_ADDRESS // 8
_MMIO_SIZE: Final = MMIO_SIZE // 4


class Vcpu:
    """One virtual processor. `Vm.create_vcpu` makes it, and the VM closes it.

    It starts as a processor does after power-on: in real mode, at F000:FFF0, with CS's base
    at FFFF0000, so the first instruction is fetched from guest-physical FFFFFFF0.

    Attributes:
        number: The vCPU's number and APIC id.
        counts: The accesses that its runs have handed to their ports; any thread may look.
    """

    def __init__(self, vm_fd: int, number: int, page_size: int, cpuid: bytearray) -> None:
        self.number = number
        self.counts = ExitCounts()
        self._about = f"vCPU {number}"
        # Who runs (a thread, or None) and whether it shall stop; see `stop`.
        self._state = threading.Condition()
        self._runner: int | None = None
        self._closed = False

        self._fd = call(vm_fd, Call.KVM_CREATE_VCPU, number, about=self._about)
        try:
            call(self._fd, Call.KVM_SET_CPUID2, cpuid, about=self._about)
            self._page = mmap.mmap(self._fd, page_size)
        except BaseException:
            os.close(self._fd)
            raise
        # The page as numbers of each width, and the places of operands by their size.
        self._u8 = memoryview(self._page)
        self._u16 = self._u8.cast("H")
        self._u32 = self._u8.cast("I")
        self._u64 = self._u8.cast("Q")
        self._pio = tuple(self._u8[IO_DATA : IO_DATA + size] for size in range(5))
        self._mmio = tuple(self._u8[MMIO_DATA : MMIO_DATA + size] for size in range(9))

    def __repr__(self) -> str:
        return f"Vcpu(number={self.number})"

    # --- registers ------------------------------------------------------------------------

    @property
    def registers(self) -> Registers:
        """A copy of the general registers; assign one to set them.

        Raises:
            BadVmState: Another thread runs the vCPU, or it is closed.
        """
        return self._access(Call.KVM_GET_REGS, Registers())

    @registers.setter
    def registers(self, registers: Registers) -> None:
        self._access(Call.KVM_SET_REGS, registers)

    @property
    def special_registers(self) -> SpecialRegisters:
        """A copy of the special registers; assign one to set them.

        Raises:
            BadVmState: Another thread runs the vCPU, or it is closed.
        """
        return self._access(Call.KVM_GET_SREGS, SpecialRegisters())

    @special_registers.setter
    def special_registers(self, registers: SpecialRegisters) -> None:
        self._access(Call.KVM_SET_SREGS, registers)

    def enter_real_mode(self, segment: int, offset: int) -> None:
        """Let the next run begin at segment:offset in real mode, as a boot sector would.

        All six segment registers get `segment`. The general registers are zero, interrupts
        are off, and the stack grows down from the segment's last bytes.

        Args:
            segment: 0 to 0xFFFF; its base is 16 times that.
            offset: Where in the segment the first instruction is, 0 to 0xFFFF.

        Raises:
            BadVmState: Another thread runs the vCPU, or it is closed.
        """
        special = self.special_registers
        for register in (special.cs, special.ds, special.es, special.fs, special.gs, special.ss):
            register.selector = segment
            register.base = segment << 4
        self.special_registers = special
        self.registers = Registers(rip=offset, rflags=RFLAGS_FIXED)

    # --- running --------------------------------------------------------------------------

    def run(self, port: AccessPort) -> RunEnd:
        """Run the guest on this thread until something other than an access ends it.

        An exception out of `port` goes through and leaves its access undone: the next run
        would complete it with whatever bytes the port left.

        Args:
            port: What each access is handed to. The buffers that it gets are windows on
                memory that the next access reuses.

        Returns:
            How it ended. After `Stopped`, run again to go on.

        Raises:
            BadVmState: The vCPU is closed, or another thread runs it.
            KvmCallFailed: The kernel refused to run it.
        """
        self._begin()
        end: RunEnd | None = None
        try:
            end = self._loop(port)
        finally:
            self._finish(stopped=isinstance(end, Stopped))
        return end

    def stop(self) -> None:
        """End the run that is going on, or else the next one; from any thread, at any time.

        The run returns `Stopped` as soon as the guest is out of the processor, or the port
        has come back from the access that is under way. A run that ends for another reason
        at the same moment leaves the stop to the next one. Further calls before that change
        nothing, nor does one on a closed vCPU.
        """
        # No kick is lost. The flag is set first and stays set, and KVM_RUN looks at it when
        # it begins; so only a KVM_RUN that looked before the flag was set needs the signal.
        # The signal is blocked in that thread, except inside of KVM_RUN: whenever it comes,
        # it stays pending until KVM_RUN finds it, on its way into the guest or out of it.
        # Nothing but `_finish` takes it away. The lock makes sure that the thread is alive.
        with self._state:
            if self._closed or self._u8[RUN_IMMEDIATE_EXIT]:
                return
            self._u8[RUN_IMMEDIATE_EXIT] = 1
            if self._runner is not None:
                signal.pthread_kill(self._runner, KICK_SIGNAL)

    def close(self) -> None:
        """Stop the run that is going on, wait for its end, and give everything back.

        Raises:
            BadVmState: The port of this vCPU's own run called.
        """
        with self._state:
            if self._runner == threading.get_ident():
                raise BadVmState(f"{self._about} can't be closed from inside of its own run")
            self.stop()
            self._closed = True
            self._state.wait_for(lambda: self._runner is None)
            if self._fd < 0:
                return
            for view in (*self._mmio, *self._pio, self._u64, self._u32, self._u16, self._u8):
                view.release()
            del self._page  # unmaps it, unless a port has kept a window on it
            os.close(self._fd)
            self._fd = -1

    # --- inside ---------------------------------------------------------------------------

    def _access(self, number: Call, registers: _Registers) -> _Registers:
        # Only the port of a run may look in the middle of it; KVM would let others wait.
        with self._state:
            if self._runner not in {None, threading.get_ident()}:
                raise BadVmState(f"{self._about} is running; stop it to reach its registers")
            call(self._fd, number, registers, about=self._about)
        return registers

    def _begin(self) -> None:
        """Make this thread the runner, with the kick blocked except inside of KVM_RUN."""
        with self._state:
            if self._closed:
                raise BadVmState(f"{self._about} is closed")
            if self._runner is not None:
                raise BadVmState(f"{self._about} is running already")
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            bits = sum(1 << number - 1 for number in blocked - _KICK)
            mask = SIGNAL_MASK.pack(SIGNAL_MASK_BYTES, bits)
            call(self._fd, Call.KVM_SET_SIGNAL_MASK, mask, about=self._about)
            signal.pthread_sigmask(signal.SIG_BLOCK, _KICK)
            self._runner = threading.get_ident()

    def _finish(self, *, stopped: bool) -> None:
        """Undo `_begin`, and take back the stop if the run has obeyed it."""
        with self._state:
            # The signal's default action ends the process: take it before it is unblocked.
            signal.sigtimedwait(_KICK, 0)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _KICK)
            if stopped:
                self._u8[RUN_IMMEDIATE_EXIT] = 0
            self._runner = None
            self._state.notify_all()

    def _loop(self, port: AccessPort) -> RunEnd:
        fd, counts = self._fd, self.counts
        u8, u16, u32, u64 = self._u8, self._u16, self._u32, self._u64
        pio, mmio = self._pio, self._mmio
        pio_read, pio_write = port.pio_read_into, port.pio_write_from
        mmio_read, mmio_write = port.mmio_read_into, port.mmio_write_from
        while True:
            try:
                # Without an argument: with one, CPython first tries it as a buffer. It lets
                # go of the GIL, and it doesn't repeat the call after EINTR.
                ioctl(fd, _RUN)
            except InterruptedError:
                if u8[RUN_IMMEDIATE_EXIT]:
                    return Stopped()
                continue  # somebody else's signal; Python has run its handler
            except BlockingIOError:
                continue  # a vCPU that waited for another to start it has been started
            except OSError as error:
                raise KvmCallFailed("KVM_RUN", error.errno or 0, self._about) from error

            reason = u32[_REASON]
            if reason == _EXIT_IO:
                size, count = u8[IO_SIZE], u32[_IO_COUNT]
                data = pio[size] if count == 1 else u8[IO_DATA : IO_DATA + size * count]
                if u8[IO_DIRECTION]:
                    counts.pio_writes += 1
                    pio_write(u16[_IO_PORT], data, size)
                else:
                    counts.pio_reads += 1
                    pio_read(u16[_IO_PORT], data, size)
            elif reason == _EXIT_MMIO:
                data = mmio[u32[_MMIO_SIZE]]
                if u8[MMIO_IS_WRITE]:
                    counts.mmio_writes += 1
                    mmio_write(u64[_MMIO_ADDRESS], data)
                else:
                    counts.mmio_reads += 1
                    mmio_read(u64[_MMIO_ADDRESS], data)
            else:
                return self._end(reason)

    def _end(self, reason: int) -> RunEnd:
        match reason:
            case ExitReason.KVM_EXIT_HLT:
                return Halted()
            case ExitReason.KVM_EXIT_SHUTDOWN:
                return Shutdown()
            case ExitReason.KVM_EXIT_FAIL_ENTRY:
                return EntryFailed(*FAIL_ENTRY.unpack_from(self._page, RUN_EXIT_DATA))
            case ExitReason.KVM_EXIT_INTERNAL_ERROR:
                return InternalError(*self._number_and_words())
            case ExitReason.KVM_EXIT_SYSTEM_EVENT:
                return SystemEvent(*self._number_and_words())
        return UnknownExit(reason)

    def _number_and_words(self) -> tuple[int, tuple[int, ...]]:
        number, count, *words = NUMBER_AND_WORDS.unpack_from(self._page, RUN_EXIT_DATA)
        return number, tuple(words[:count])
