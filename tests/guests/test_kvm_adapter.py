"""The KVM adapter with real guests: a few bytes of real-mode code each, assembled by hand."""

from __future__ import annotations

import os
import platform
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import NamedTuple

import pytest

from devicehost_client.adapters.kvm import (
    KICK_SIGNAL,
    BadVmArgument,
    BadVmState,
    EntryFailed,
    Halted,
    InternalError,
    KvmCallFailed,
    KvmForbidden,
    KvmUnavailable,
    NoKvm,
    RunEnd,
    Shutdown,
    Stopped,
    SystemEvent,
    UnknownExit,
    Vcpu,
    Vm,
    WrongPlatform,
)
from devicehost_client.port import AccessPort, ReadableBuffer, WritableBuffer

KVM = Path("/dev/kvm")
SKIP = pytest.mark.skipif(
    not os.access(KVM, os.R_OK | os.W_OK), reason="needs /dev/kvm, readable and writable"
)
CODE = 0x1000
DATA = 0x3000
SOON = 20.0
"""Seconds after which something that must happen has not happened."""


class Access(NamedTuple):
    kind: str
    address: int
    data: bytes
    size: int


class Recorder:
    """A port that notes each access, and fills reads with 1, 2, 3, and so on."""

    def __init__(self) -> None:
        self.seen: list[Access] = []
        self.arrived: SimpleQueue[Access] = SimpleQueue()

    def mmio_read_into(self, address: int, data: WritableBuffer) -> None:
        data[:] = bytes(range(1, len(data) + 1))
        self.note(Access("mmio read", address, bytes(data), len(data)))

    def mmio_write_from(self, address: int, data: ReadableBuffer) -> None:
        self.note(Access("mmio write", address, bytes(data), len(data)))

    def pio_read_into(self, port: int, data: WritableBuffer, size: int) -> None:
        data[:] = bytes(range(1, len(data) + 1))
        self.note(Access("in", port, bytes(data), size))

    def pio_write_from(self, port: int, data: ReadableBuffer, size: int) -> None:
        self.note(Access("out", port, bytes(data), size))

    def note(self, access: Access) -> None:
        self.seen.append(access)
        self.arrived.put(access)


class Calling(Recorder):
    """A port that does something else as well, in the middle of each access."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self.then = then

    def note(self, access: Access) -> None:
        super().note(access)
        self.then()


def load(vm: Vm, code: str, data: bytes = b"") -> None:
    vm.memory.add_ram(0, 0x10000)
    vm.memory.load(CODE, bytes.fromhex(code))
    vm.memory.load(DATA, data)


def started(vm: Vm, code: str, data: bytes = b"") -> Vcpu:
    load(vm, code, data)
    vcpu = vm.create_vcpu()
    vcpu.enter_real_mode(0, CODE)
    return vcpu


class Running:
    """A vCPU that runs on a thread of its own until it ends or the test does."""

    def __init__(self, vcpu: Vcpu, port: AccessPort) -> None:
        self._ends: SimpleQueue[RunEnd] = SimpleQueue()
        self.thread = threading.Thread(target=lambda: self._ends.put(vcpu.run(port)))
        self.thread.start()

    def end(self) -> RunEnd:
        end = self._ends.get(timeout=SOON)
        self.thread.join(SOON)
        return end


@pytest.fixture
def vm() -> Iterator[Vm]:
    with Vm() as vm:
        yield vm


@pytest.fixture
def bare() -> Iterator[Vm]:
    """A VM without interrupt controllers in the kernel, whose HLT ends a run."""
    with Vm(irqchip=False) as vm:
        yield vm


def run(bare: Vm, code: str, data: bytes = b"") -> list[Access]:
    port = Recorder()
    assert started(bare, code, data).run(port) == Halted()
    return port.seen


# --- port I/O -------------------------------------------------------------------------------


@SKIP
@pytest.mark.parametrize(
    ("code", "port", "data"),
    [
        # mov eax, 0x44332211; out 0x80, al / ax / eax; hlt
        ("66b811223344 e680 f4", 0x80, "11"),
        ("66b811223344 e780 f4", 0x80, "1122"),
        ("66b811223344 66e780 f4", 0x80, "11223344"),
        # mov dx, 0xfffe; mov eax, 0x44332211; out dx, al; hlt
        ("bafeff 66b811223344 ee f4", 0xFFFE, "11"),
    ],
)
def test_an_out_arrives_with_its_port_size_and_bytes(
    bare: Vm, code: str, port: int, data: str
) -> None:
    expected = bytes.fromhex(data)
    assert run(bare, code) == [Access("out", port, expected, len(expected))]


@SKIP
@pytest.mark.parametrize(
    ("instruction", "size", "eax"),
    [
        ("ec", 1, 0xFFFFFF01),  # in al, dx
        ("ed", 2, 0xFFFF0201),  # in ax, dx
        ("66ed", 4, 0x04030201),  # in eax, dx
    ],
)
def test_an_in_gets_the_bytes_that_the_port_filled_in(
    bare: Vm, instruction: str, size: int, eax: int
) -> None:
    port = Recorder()
    # mov eax, 0xffffffff; mov dx, 0x3f8; in ...; hlt
    vcpu = started(bare, f"66b8ffffffff baf803 {instruction} f4")
    assert vcpu.run(port) == Halted()
    assert [(seen.kind, seen.address, seen.size) for seen in port.seen] == [("in", 0x3F8, size)]
    assert vcpu.registers.rax == eax


@SKIP
@pytest.mark.parametrize(
    ("instruction", "size"), [("f36c", 1), ("f36d", 2), ("f3666d", 4)], ids=["b", "w", "d"]
)
def test_a_rep_ins_is_one_read_of_many_operands(bare: Vm, instruction: str, size: int) -> None:
    # cld; mov di, 0x4000; mov dx, 0x1234; mov cx, 6; rep ins; hlt
    accesses = run(bare, f"fc bf0040 ba3412 b90600 {instruction} f4")
    expected = bytes(range(1, 6 * size + 1))
    assert accesses == [Access("in", 0x1234, expected, size)]
    assert bytes(bare.memory.view(0x4000, 6 * size + 1)) == expected + b"\0"


@SKIP
@pytest.mark.parametrize(
    ("instruction", "size"), [("f36e", 1), ("f36f", 2), ("f3666f", 4)], ids=["b", "w", "d"]
)
def test_a_rep_outs_arrives_whole_and_in_order(bare: Vm, instruction: str, size: int) -> None:
    text = bytes(range(40, 40 + 6 * size))
    # cld; mov si, 0x3000; mov dx, 0x1234; mov cx, 6; rep outs; hlt
    accesses = run(bare, f"fc be0030 ba3412 b90600 {instruction} f4", text)
    assert {(seen.kind, seen.address, seen.size) for seen in accesses} == {("out", 0x1234, size)}
    assert b"".join(seen.data for seen in accesses) == text


@SKIP
def test_accesses_to_the_in_kernel_chips_stay_in_the_kernel(vm: Vm) -> None:
    port = Recorder()
    # in al, 0x61; in al, 0x40; in al, 0x21; in al, 0x80; hlt
    running = Running(started(vm, "e461 e440 e421 e480 f4"), port)
    assert port.arrived.get(timeout=SOON).address == 0x80
    vm.close()
    assert running.end() == Stopped()
    assert len(port.seen) == 1


# --- memory ---------------------------------------------------------------------------------

UNMAPPED = 0xD0000


@SKIP
@pytest.mark.parametrize(
    ("instruction", "size"),
    [
        ("a00800", 1),  # mov al, [8]
        ("a10800", 2),  # mov ax, [8]
        ("66a10800", 4),  # mov eax, [8]
        ("0f6f060800", 8),  # movq mm0, [8]
    ],
)
def test_a_read_where_no_memory_is_becomes_an_mmio_read(
    bare: Vm, instruction: str, size: int
) -> None:
    # mov ax, 0xd000; mov ds, ax; ...; hlt
    accesses = run(bare, f"b800d0 8ed8 {instruction} f4")
    assert accesses == [Access("mmio read", UNMAPPED + 8, bytes(range(1, size + 1)), size)]


@SKIP
@pytest.mark.parametrize(
    ("instruction", "size"),
    [
        ("26a20800", 1),  # mov es:[8], al
        ("26a30800", 2),  # mov es:[8], ax
        ("2666a30800", 4),  # mov es:[8], eax
        ("0f6f060030 260f7f060800", 8),  # movq mm0, [0x3000]; movq es:[8], mm0
    ],
)
def test_a_write_where_no_memory_is_becomes_an_mmio_write(
    bare: Vm, instruction: str, size: int
) -> None:
    # mov ax, 0xd000; mov es, ax; mov eax, [0x3000]; ...; hlt
    accesses = run(bare, f"b800d0 8ec0 66a10030 {instruction} f4", b"abcdefgh")
    assert accesses == [Access("mmio write", UNMAPPED + 8, b"abcdefgh"[:size], size)]


@SKIP
def test_what_an_mmio_read_returned_is_what_the_guest_works_with(bare: Vm) -> None:
    # mov ax, 0xd000; mov es, ax; mov eax, es:[0]; mov [0x3000], eax; hlt
    run(bare, "b800d0 8ec0 2666a10000 66a30030 f4")
    assert bytes(bare.memory.view(DATA, 4)) == b"\1\2\3\4"


@SKIP
def test_a_new_vcpu_begins_at_the_reset_vector_in_the_rom_below_4_gib(bare: Vm) -> None:
    image = bytearray(0x10000)
    image[0xFFF0:0xFFF5] = bytes.fromhex("b05a e680 f4")  # mov al, 0x5a; out 0x80, al; hlt
    bare.memory.add_rom((1 << 32) - len(image), bytes(image))
    port = Recorder()
    assert bare.create_vcpu().run(port) == Halted()
    assert port.seen == [Access("out", 0x80, b"\x5a", 1)]


@SKIP
def test_a_write_to_rom_goes_to_the_port_and_leaves_the_rom_as_it_was(bare: Vm) -> None:
    bare.memory.add_rom(UNMAPPED, b"\x77" * 0x1000)
    # mov ax, 0xd000; mov ds, ax; mov al, [8]; mov [8], ah; out 0x80, al; hlt
    accesses = run(bare, "b800d0 8ed8 a00800 88260800 e680 f4")
    assert accesses == [
        Access("mmio write", UNMAPPED + 8, b"\xd0", 1),
        Access("out", 0x80, b"\x77", 1),
    ]
    assert bytes(bare.memory.view(UNMAPPED, 0x1000)) == b"\x77" * 0x1000


@SKIP
def test_one_region_may_be_seen_at_two_addresses_and_through_its_memfd(bare: Vm) -> None:
    region = bare.memory.create("shared", 0x2000)
    bare.memory.map(region, 0x20000, offset=0x1000)
    bare.memory.map(region, 0x30000, offset=0x1000, read_only=True)
    # mov ax, 0x2000; mov ds, ax; mov word [8], 0x4241
    # mov ax, 0x3000; mov ds, ax; mov ax, [8]; out 0x80, ax; hlt
    accesses = run(bare, "b80020 8ed8 c70608004142 b80030 8ed8 a10800 e780 f4")
    assert accesses == [Access("out", 0x80, b"AB", 2)]
    assert os.pread(region.fd, 2, 0x1008) == b"AB"
    assert not os.get_inheritable(region.fd)


@SKIP
def test_nobody_can_cut_a_region_short(bare: Vm) -> None:
    region = bare.memory.add_ram(0, 0x1000)
    with pytest.raises(PermissionError):
        os.ftruncate(region.fd, 0)


@SKIP
@pytest.mark.parametrize(
    ("base", "offset", "size", "message"),
    [
        (0x10800, 0, 0x1000, r"0x10800-0x117ff \(more\): .* must be multiples of 0x1000"),
        (0x20000, 0, 0x800, r"size 0x800 must be multiples"),
        (0x20000, 0x2000, None, r"offset 0x2000 and size 0x0 are outside .* 0x2000 bytes"),
        (0x20000, 0, 0x3000, r"size 0x3000 are outside of the region's 0x2000 bytes"),
        (0x20000, -0x1000, 0x1000, r"offset -0x1000"),
        (0xF000, 0, None, r"0xf000-0x10fff \(more\) overlaps slot 0x0-0xffff \(ram\)"),
        (0xFEFFF000, 0, None, r"overlaps the 0x4000 bytes at 0xfeffc000, which KVM needs"),
        (1 << 52, 0, None, r"at most 52 bits"),
    ],
)
def test_a_slot_that_makes_no_sense_is_refused_with_the_reason(
    bare: Vm, base: int, offset: int, size: int | None, message: str
) -> None:
    bare.memory.add_ram(0, 0x10000)
    region = bare.memory.create("more", 0x2000)
    with pytest.raises(BadVmArgument, match=message):
        bare.memory.map(region, base, offset=offset, size=size)
    assert [slot.last for slot in bare.memory.slots] == [0xFFFF]


@SKIP
def test_a_range_outside_of_all_slots_is_refused_with_the_slots_that_there_are(bare: Vm) -> None:
    with pytest.raises(BadVmArgument, match="0x1 bytes at 0x0; the slots are none"):
        bare.memory.load(0, b"x")
    bare.memory.add_ram(0, 0x1000)
    with pytest.raises(BadVmArgument, match=r"0x2 bytes at 0xfff; .* 0x0-0xfff \(ram\)"):
        bare.memory.load(0xFFF, b"xy")


@SKIP
@pytest.mark.parametrize("size", [0, 100, -0x1000])
def test_a_region_that_is_not_whole_pages_is_refused(bare: Vm, size: int) -> None:
    with pytest.raises(BadVmArgument, match=f"'ram': its size {size:#x} must be a positive"):
        bare.memory.add_ram(0, size)


# --- interrupts -----------------------------------------------------------------------------

ON_5 = 0x1100
ON_10 = 0x1140
# Vectors 0x20 to 0x2f are IRQ 0 to 15. Only IRQ 2 (the cascade), 5 and 10 are unmasked.
WAITING = (
    "c70694000011 c70696000000"  # mov word [0x25 * 4], ON_5; mov word [0x25 * 4 + 2], 0
    "c706a8004011 c706aa000000"  # mov word [0x2a * 4], ON_10; mov word [0x2a * 4 + 2], 0
    "b011 e620 e6a0"  # mov al, 0x11; out 0x20, al; out 0xa0, al
    "b020 e621 b028 e6a1"  # mov al, 0x20; out 0x21, al; mov al, 0x28; out 0xa1, al
    "b004 e621 b002 e6a1"  # mov al, 4; out 0x21, al; mov al, 2; out 0xa1, al
    "b001 e621 e6a1"  # mov al, 1; out 0x21, al; out 0xa1, al
    "b0db e621 b0fb e6a1"  # mov al, 0xdb; out 0x21, al; mov al, 0xfb; out 0xa1, al
    "e680 fb"  # out 0x80, al; sti
    "f4 ebfd"  # here: hlt; jmp here
)
HANDLE_5 = "b005 e681 b020 e620 cf"  # mov al, 5; out 0x81, al; mov al, 0x20; out 0x20, al; iret
# mov al, 10; out 0x81, al; mov al, 0x20; out 0xa0, al; out 0x20, al; iret
HANDLE_10 = "b00a e681 b020 e6a0 e620 cf"


@pytest.fixture
def interrupts(vm: Vm) -> Iterator[SimpleQueue[Access]]:
    """A guest that waits for interrupts, and writes the number of each IRQ to port 0x81."""
    port = Recorder()
    vcpu = started(vm, WAITING)
    vm.memory.load(ON_5, bytes.fromhex(HANDLE_5))
    vm.memory.load(ON_10, bytes.fromhex(HANDLE_10))
    running = Running(vcpu, port)
    assert port.arrived.get(timeout=SOON).address == 0x80
    yield port.arrived
    vm.close()
    assert running.end() == Stopped()
    assert port.arrived.empty(), "an interrupt came that nobody asked for"


@SKIP
@pytest.mark.parametrize("irq", [5, 10])
def test_a_guest_takes_an_interrupt_each_time_a_line_is_asserted(
    vm: Vm, interrupts: SimpleQueue[Access], irq: int
) -> None:
    for _ in range(100):
        vm.set_irq_line(irq, asserted=True)
        vm.set_irq_line(irq, asserted=False)
        assert interrupts.get(timeout=SOON) == Access("out", 0x81, bytes([irq]), 1)


@SKIP
@pytest.mark.parametrize("irq", [5, 10])
def test_a_guest_takes_an_interrupt_each_time_an_irqfd_is_signalled(
    vm: Vm, interrupts: SimpleQueue[Access], irq: int
) -> None:
    irqfd = vm.add_irqfd(irq)
    assert not os.get_inheritable(irqfd)
    for _ in range(100):
        os.eventfd_write(irqfd, 1)
        assert interrupts.get(timeout=SOON) == Access("out", 0x81, bytes([irq]), 1)


@SKIP
def test_an_irqfd_that_was_removed_interrupts_nobody(
    vm: Vm, interrupts: SimpleQueue[Access]
) -> None:
    irqfd = vm.add_irqfd(5)
    mine = os.dup(irqfd)
    try:
        vm.remove_irqfd(irqfd)
        os.eventfd_write(mine, 1)
    finally:
        os.close(mine)
    vm.set_irq_line(10, asserted=True)
    assert interrupts.get(timeout=SOON).data == b"\x0a"
    with pytest.raises(BadVmArgument, match=f"file descriptor {irqfd} isn't an irqfd"):
        vm.remove_irqfd(irqfd)


@SKIP
@pytest.mark.parametrize("gsi", [-1, 24])
def test_an_interrupt_line_that_does_not_exist_is_refused(vm: Vm, gsi: int) -> None:
    with pytest.raises(BadVmArgument, match=f"GSI {gsi} isn't one of 0 to 23"):
        vm.set_irq_line(gsi, asserted=True)
    with pytest.raises(BadVmArgument, match=f"GSI {gsi} isn't one of 0 to 23"):
        vm.add_irqfd(gsi)


@SKIP
def test_interrupts_need_the_in_kernel_controllers(bare: Vm) -> None:
    with pytest.raises(BadVmState, match="no in-kernel interrupt controllers"):
        bare.set_irq_line(5, asserted=True)
    with pytest.raises(BadVmState, match="no in-kernel interrupt controllers"):
        bare.add_irqfd(5)


# --- how a run ends -------------------------------------------------------------------------


@SKIP
def test_counts_tell_how_many_accesses_there_were_of_each_kind(bare: Vm) -> None:
    vcpu = started(
        bare,
        "e680 e680 e680 e480"  # out 0x80, al three times; in al, 0x80
        "bf0040 ba3412 b90600 f36c"  # mov di, 0x4000; mov dx, 0x1234; mov cx, 6; rep insb
        "b800d0 8ed8 a00000 a20000 a20000 f4",  # [d000:0] read once, written twice; hlt
    )
    assert vcpu.run(Recorder()) == Halted()
    counts = vcpu.counts
    assert (counts.pio_reads, counts.pio_writes) == (2, 3)
    assert (counts.mmio_reads, counts.mmio_writes) == (1, 2)


@SKIP
def test_a_triple_fault_ends_the_run_as_a_shutdown(bare: Vm) -> None:
    vcpu = started(bare, "0f0b")  # ud2
    special = vcpu.special_registers
    special.idt.limit = 0
    special.cr0 |= 1  # protected mode, in which a vector beyond the limit is a fault itself
    vcpu.special_registers = special
    assert vcpu.run(Recorder()) == Shutdown()


@SKIP
def test_code_where_no_memory_is_ends_the_run_as_an_internal_error(bare: Vm) -> None:
    vcpu = started(bare, "ea000000d0")  # jmp 0xd000:0
    end = vcpu.run(Recorder())
    assert isinstance(end, InternalError)
    assert end.suberror == 1  # emulation


@SKIP
@pytest.mark.parametrize(
    ("reason", "data", "end"),
    [
        (9, struct.pack("<QI", 0x80000021, 3), EntryFailed(0x80000021, 3)),
        (17, struct.pack("<II2Q", 3, 2, 7, 8), InternalError(3, (7, 8))),
        (24, struct.pack("<II2Q", 2, 1, 9, 0), SystemEvent(2, (9,))),
        (29, b"", UnknownExit(29)),
    ],
)
def test_what_the_kernel_reports_becomes_a_value(
    bare: Vm, reason: int, data: bytes, end: RunEnd
) -> None:
    vcpu = bare.create_vcpu()
    vcpu._page[32 : 32 + len(data)] = data
    assert vcpu._end(reason) == end


@SKIP
def test_an_exception_of_the_port_leaves_the_vcpu_ready_to_run_again(bare: Vm) -> None:
    class Failing(Recorder):
        def note(self, access: Access) -> None:
            raise LookupError(access.address)

    vcpu = started(bare, "e680 e681 f4")  # out 0x80, al; out 0x81, al; hlt
    with pytest.raises(LookupError, match="128"):
        vcpu.run(Failing())
    port = Recorder()
    assert vcpu.run(port) == Halted()
    assert [access.address for access in port.seen] == [0x81]


# --- stop -----------------------------------------------------------------------------------

SPIN = "ebfe"  # here: jmp here
BUSY = "e680 ebfc"  # here: out 0x80, al; jmp here
HALT = "f4 ebfd"  # here: hlt; jmp here


class Ignoring:
    """A port that does nothing."""

    def mmio_read_into(self, address: int, data: WritableBuffer) -> None:
        """Leave what is there."""

    def mmio_write_from(self, address: int, data: ReadableBuffer) -> None:
        """Drop it."""

    def pio_read_into(self, port: int, data: WritableBuffer, size: int) -> None:
        """Leave what is there."""

    def pio_write_from(self, port: int, data: ReadableBuffer, size: int) -> None:
        """Drop it."""


@SKIP
@pytest.mark.parametrize("code", [SPIN, BUSY, HALT], ids=["spinning", "accessing", "halted"])
def test_a_stop_at_any_moment_ends_exactly_one_run(vm: Vm, code: str) -> None:
    rounds = 300
    vcpu = started(vm, code)
    ends: SimpleQueue[RunEnd] = SimpleQueue()

    def run_again_and_again() -> None:
        for _ in range(rounds):
            ends.put(vcpu.run(Ignoring()))

    thread = threading.Thread(target=run_again_and_again)
    thread.start()
    for number in range(rounds):
        # The moments wander from before the run has begun to long after; the scheduler's
        # whims are larger than the steps, and there are several passes.
        time.sleep(number % 60 * 10e-6)
        vcpu.stop()
        assert ends.get(timeout=SOON) == Stopped()
    thread.join(SOON)
    assert not thread.is_alive()
    assert ends.empty()


@SKIP
def test_a_stop_before_a_run_ends_it_before_the_guest_has_done_anything(bare: Vm) -> None:
    vcpu = started(bare, "e680 f4")  # out 0x80, al; hlt
    port = Recorder()
    vcpu.stop()
    vcpu.stop()
    assert vcpu.run(port) == Stopped()
    assert port.seen == []
    assert vcpu.run(port) == Halted()


@SKIP
def test_a_port_may_stop_its_own_run_and_the_access_is_complete(bare: Vm) -> None:
    vcpu = started(bare, "e480 f4")  # in al, 0x80; hlt
    assert vcpu.run(Calling(vcpu.stop)) == Stopped()
    assert vcpu.registers.rax == 1
    assert vcpu.run(Recorder()) == Halted()


@SKIP
def test_many_stops_during_one_access_are_one_stop(vm: Vm) -> None:
    go_on = threading.Event()
    vcpu = started(vm, BUSY)
    port = Calling(lambda: None if go_on.wait(SOON) else pytest.fail("nobody let it go on"))
    running = Running(vcpu, port)
    port.arrived.get(timeout=SOON)
    for _ in range(100_000):  # more than signals that a process may have pending
        vcpu.stop()
    go_on.set()
    assert running.end() == Stopped()
    again = Running(vcpu, port)
    vcpu.stop()
    assert again.end() == Stopped()


@SKIP
def test_other_signals_reach_their_handlers_and_do_not_end_a_run(vm: Vm) -> None:
    vcpu = started(vm, SPIN)
    rings = 0

    def ring(_signal: int, _frame: FrameType | None) -> None:
        nonlocal rings
        rings += 1
        if rings == 20:
            vcpu.stop()

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        assert vcpu.run(Ignoring()) == Stopped()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert rings >= 20


@SKIP
def test_an_exception_of_a_signal_handler_gets_out_of_a_run(vm: Vm) -> None:
    vcpu = started(vm, SPIN)

    def fail(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, fail)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            vcpu.run(Ignoring())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    vcpu.stop()
    assert vcpu.run(Ignoring()) == Stopped()


@SKIP
def test_a_run_leaves_the_threads_signal_mask_as_it_was(bare: Vm) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert KICK_SIGNAL not in before
    assert started(bare, "f4").run(Recorder()) == Halted()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert signal.sigpending() == set()


@SKIP
def test_a_running_vcpu_is_for_its_own_thread_only(vm: Vm) -> None:
    go_on = threading.Event()
    vcpu = started(vm, "e680 f4")  # out 0x80, al; hlt
    seen: list[int] = []

    def look() -> None:
        seen.append(vcpu.registers.rip)
        go_on.wait(SOON)

    port = Calling(look)
    running = Running(vcpu, port)
    port.arrived.get(timeout=SOON)
    with pytest.raises(BadVmState, match="vCPU 0 is running already"):
        vcpu.run(port)
    with pytest.raises(BadVmState, match="vCPU 0 is running; stop it"):
        _ = vcpu.registers
    go_on.set()
    vcpu.stop()
    assert running.end() == Stopped()
    assert len(seen) == 1


# --- several vCPUs --------------------------------------------------------------------------


@SKIP
def test_each_vcpu_finds_its_own_number_and_a_kvm_in_cpuid(bare: Vm) -> None:
    load(
        bare,
        "66b801000000 0fa2 66891e0030 66890e0430"  # cpuid(1); [0x3000] = ebx; [0x3004] = ecx
        "66b800000040 0fa2 66891e0830 f4",  # cpuid(0x40000000); [0x3008] = ebx; hlt
    )
    for number in (0, 3):
        vcpu = bare.create_vcpu(number)
        vcpu.enter_real_mode(0, CODE)
        assert vcpu.run(Recorder()) == Halted()
        ebx, ecx = struct.unpack("<II", bare.memory.view(DATA, 8))
        assert ebx >> 24 == number
        assert ecx >> 31 == 1
        assert bytes(bare.memory.view(DATA + 8, 4)) == b"KVMK"


@SKIP
def test_the_second_vcpu_waits_until_the_first_one_starts_it(vm: Vm) -> None:
    first = started(
        vm,
        "66b91b000000 0f32 660d000c0000 0f30"  # APIC base: x2APIC mode
        "66b930080000 66ba01000000"  # the interrupt command register, for APIC id 1
        "66b800450000 0f30 66b802460000 0f30"  # INIT; start at page 2
        "f4 ebfd",  # here: hlt; jmp here
    )
    vm.memory.load(0x2000, bytes.fromhex("e681 f4 ebfd"))  # out 0x81, al; here: hlt; jmp here
    second = vm.create_vcpu(1)
    port = Recorder()
    waiting = Running(second, port)
    second.stop()
    assert waiting.end() == Stopped()

    runs = [Running(second, port), Running(first, Ignoring())]
    assert port.arrived.get(timeout=SOON).address == 0x81
    vm.close()
    assert [each.end() for each in runs] == [Stopped(), Stopped()]


@SKIP
def test_a_vcpu_number_is_given_once_and_within_bounds(vm: Vm) -> None:
    vm.create_vcpu(1)
    with pytest.raises(KvmCallFailed, match="KVM_CREATE_VCPU failed for vCPU 1: File exists"):
        vm.create_vcpu(1)
    for number in (-1, 255):
        with pytest.raises(BadVmArgument, match=f"vCPU {number} isn't one of 0 to 254"):
            vm.create_vcpu(number)


# --- opening and closing --------------------------------------------------------------------


def open_files() -> dict[str, str]:
    files = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            files[link.name] = str(link.readlink())
        except FileNotFoundError:
            continue  # the one that listed the directory
    return files


@SKIP
def test_a_hundred_vms_leave_no_file_descriptor_and_no_mapping_behind() -> None:
    before = open_files()
    for _ in range(100):
        with Vm() as vm:
            vcpu = started(vm, HALT)
            vm.create_vcpu(1)
            vm.add_irqfd(5)
            vm.memory.add_rom(UNMAPPED, bytes(0x1000))
            with pytest.raises(BadVmArgument):
                vm.memory.add_ram(0, 0x1000)
            vcpu.stop()
            assert vcpu.run(Ignoring()) == Stopped()
        with pytest.raises(NoKvm):
            Vm(device="/dev/null")
    assert open_files() == before
    maps = Path("/proc/self/maps").read_text()
    assert "kvm-vcpu" not in maps
    assert "memfd:ram" not in maps


@SKIP
def test_closing_a_vm_ends_its_runs_and_refuses_all_further_use(vm: Vm) -> None:
    vcpu = started(vm, SPIN)
    running = Running(vcpu, Ignoring())
    vm.close()
    assert running.end() == Stopped()
    vm.close()
    vcpu.close()
    vcpu.stop()
    for use in (
        lambda: vcpu.run(Ignoring()),
        lambda: vcpu.registers,
        lambda: vm.create_vcpu(1),
        lambda: vm.set_irq_line(5, asserted=True),
        lambda: vm.add_irqfd(5),
        lambda: vm.memory.add_ram(0, 0x1000),
    ):
        with pytest.raises(BadVmState, match="closed"):
            use()


@SKIP
def test_a_port_can_not_close_the_vm_that_is_in_its_access(bare: Vm) -> None:
    vcpu = started(bare, "e680 f4")  # out 0x80, al; hlt
    with pytest.raises(BadVmState, match="vCPU 0 can't be closed from inside of its own run"):
        vcpu.run(Calling(bare.close))
    assert vcpu.run(Recorder()) == Halted()


@SKIP
def test_windows_that_somebody_kept_do_not_keep_a_vm_from_closing() -> None:
    kept: list[WritableBuffer] = []

    class Keeping(Ignoring):
        def pio_read_into(self, port: int, data: WritableBuffer, size: int) -> None:
            assert (port, size) == (0x80, 1)
            kept.append(memoryview(data)[:])

    before = open_files()
    with Vm(irqchip=False) as vm:
        vcpu = started(vm, "e480 f4", b"still here")  # in al, 0x80; hlt
        window = vm.memory.view(DATA, 10)
        assert vcpu.run(Keeping()) == Halted()
    assert bytes(window) == b"still here"
    assert len(kept[0]) == 1
    window.release()
    kept.clear()
    assert open_files() == before


# --- where there is no KVM ------------------------------------------------------------------

ON_PC = pytest.mark.skipif(platform.machine() != "x86_64", reason="the adapter is for x86-64")


@ON_PC
def test_a_missing_kvm_device_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NoKvm, match=r"no KVM at .*/kvm \(No such file or directory\): is the"):
        Vm(device=str(tmp_path / "kvm"))


@ON_PC
def test_a_device_that_is_not_kvm_is_a_clear_error() -> None:
    with pytest.raises(NoKvm, match=r"no KVM at /dev/null \(it doesn't know KVM's calls\)"):
        Vm(device="/dev/null")


@ON_PC
def test_a_kvm_device_that_may_not_be_opened_is_a_clear_error(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nobody
    try:
        with pytest.raises(KvmForbidden, match=r"user \d+ may not open .*/kvm for reading and"):
            Vm(device=str(device))
    finally:
        os.seteuid(user)


def test_another_kind_of_machine_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(WrongPlatform, match="needs Linux on x86_64; this is Linux on aarch64"):
        Vm()
    assert issubclass(WrongPlatform, KvmUnavailable)
