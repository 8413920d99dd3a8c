"""The register maps of all devices that ship: true, complete, and looked at without a trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from devicehost.recording.events import Operation
from devicehost.registers import Decoder, OnRead, Place, RegisterMap, check, places
from devicehost_server.devices.base import Hosted
from devicehost_server.devices.i8042 import I8042
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.devices.uart16550 import Uart16550
from devicehost_server.model.errors import (
    BadRequest,
    NoSuchRegister,
    NotPeekable,
)
from devicehost_server.model.interrupts import InterruptEvent
from devicehost_server.model.resources import MmioAddressRange
from devicelab import Lab, mmio_in, mmio_out, pio_in, pio_out

NOW_NS = 1_700_000_000_400_000_000
TYPES = DeviceTypes()
SHIPPED = (
    "debugcon",
    "edu",
    "fw-cfg",
    "i8042",
    "mc146818",
    "pl031",
    "postcode",
    "scratch",
    "uart16550",
    "virtio-blk",
    "virtio-console",
    "virtio-net",
    "virtio-rng",
)
ON_PCI = " on PCI"
VIRTIO = [kind for kind in SHIPPED if kind.startswith("virtio-")]
KINDS = (*SHIPPED, *(kind + ON_PCI for kind in VIRTIO))
"""A virtio device has other registers as a PCI function than on the bus."""

WITHOUT_REGISTERS = ("shared-memory",)
NEEDED = {"virtio-blk": {"file": "disk.img"}, "virtio-net": {"netdev": "hub:lan"}}
"""What a configuration must have. The guest's memory isn't there, so nothing is opened."""
UNTELLABLE = {("uart16550", "THR"), ("i8042", "COMMAND"), ("debugcon", "OUT"), ("pl031", "ICR")}
UNSETTABLE = {
    *UNTELLABLE,
    ("debugcon", "ID"),
    ("fw-cfg", "DATA"),
    ("mc146818", "REG_D"),
    ("pl031", "MIS"),
    ("uart16550", "IIR"),
}
UNSETTABLE -= {("pl031", "ICR")}  # it is stored, though nothing comes of it
VIRTIO_COMMANDS = {"INTERRUPT_ACK", "NOTIFY", "QUEUE_NOTIFY", "SHM_SEL"}
VIRTIO_SETTABLE = {
    *("DEVICE_FEATURES_SEL", "DRIVER_FEATURES_SEL", "QUEUE_SEL", "INTERRUPT_STATUS"),
    *("DEVICE_FEATURE_SELECT", "DRIVER_FEATURE_SELECT", "QUEUE_SELECT", "ISR_STATUS"),
}
"""What a driver writes step by step makes a state together, so the rest isn't set alone."""


def is_tellable(device: Hosted[Any], place: Place) -> bool:
    name = place.register.name
    if device.type_name in VIRTIO:
        return name not in VIRTIO_COMMANDS
    return (device.type_name, name) not in UNTELLABLE


def is_settable(device: Hosted[Any], place: Place) -> bool:
    name = place.register.name
    if device.type_name in VIRTIO:
        return name in VIRTIO_SETTABLE
    return (device.type_name, name) not in UNSETTABLE


def hosted(kind: str, lab: Lab | None = None, **config: str) -> Any:
    type_name = kind.removesuffix(ON_PCI)
    device: Any = TYPES.make(type_name, NEEDED.get(type_name, {}) | config)
    if type_name != kind:
        device.describe_function()
    return (lab or Lab(NOW_NS)).host(device)


@dataclass(frozen=True)
class Guest:
    """Accesses of a device by range and offset."""

    device: Any

    def read(self, range_: int, offset: int, size: int = 1) -> int:
        trapped = self._range(range_)
        access = mmio_in if isinstance(trapped, MmioAddressRange) else pio_in
        return access(self.device, trapped.base + offset, size)

    def write(self, range_: int, offset: int, value: int, size: int = 1) -> None:
        trapped = self._range(range_)
        access = mmio_out if isinstance(trapped, MmioAddressRange) else pio_out
        access(self.device, trapped.base + offset, value, size)

    def write_register(self, name: str, value: int) -> None:
        register = self.device.get_register_map().register(name)
        self.write(register.range, register.offset, value, register.size)

    def read_place(self, place: Place) -> int:
        """Read a register as a driver does that knows the map."""
        register = place.register
        if register.when:
            deciding = self.device.get_register_map().register(register.when.register)
            field = deciding.field(register.when.field)
            old = self.device.peek(deciding.name)
            new = old & ~field.mask | register.when.value << field.lsb
            self.write_register(deciding.name, new)
        if register.via:
            assert place.number is not None
            self.write_register(register.via.index, place.number)
        return self.read(place.range, place.offset, place.size)

    def _range(self, number: int) -> Any:
        return self.device.get_assigned_resources().trapped()[number]


def all_places(device: Hosted[Any]) -> list[Place]:
    register_map = device.get_register_map()
    assert register_map is not None
    return list(places(register_map))


def tellable(device: Hosted[Any]) -> list[Place]:
    return [place for place in all_places(device) if is_tellable(device, place)]


def peek_all(device: Any) -> dict[str, int]:
    return {place.name: device.peek(place.name) for place in tellable(device)}


def read_has_an_effect(place: Place) -> bool:
    register = place.register
    return register.on_read is not None or any(field.on_read for field in register.fields)


# What devices are like in the midst of things, by the device.


def busy_uart(lab: Lab, *, bus: str = "pio", shift: int = 0) -> Any:
    """Its FIFO is full in loopback, with an overrun and a break; every interrupt is pending."""
    device = hosted("uart16550", lab, bus=bus, reg_shift=str(shift))
    guest = Guest(device)
    for name, value in (("FCR", 0xC7), ("IER", 0x0F), ("MCR", 0x1F), ("SCR", 0x5A)):
        guest.write_register(name, value)
    guest.write_register("LCR", 0x43)
    for character in range(20):
        guest.write_register("LCR", 0x03)
        guest.write_register("THR", character)
    return device


def busy_i8042(lab: Lab) -> Any:
    """A byte of the mouse's is in the output buffer, and more waits behind it."""
    device = hosted("i8042", lab)
    assert isinstance(device, I8042)
    guest = Guest(device)
    guest.write(1, 0, 0xD4)
    guest.write(0, 0, 0xF4)
    device.press("a")
    device.move_mouse(3, -4)
    guest.write(1, 0, 0xAA)
    return device


def busy_mc146818(lab: Lab) -> Any:
    """Its flags are set, and its line is asserted."""
    device = hosted("mc146818", lab)
    guest = Guest(device)
    guest.write(0, 0, 0x0B)
    guest.write(0, 1, 0x72)
    lab.clock.advance(3_300_000_000)
    guest.write(0, 0, 0x0C)
    return device


def busy_pl031(lab: Lab) -> Any:
    """It has passed its match, and nobody has looked yet."""
    device = hosted("pl031", lab, irq="5")
    guest = Guest(device)
    guest.write_register("LR", 100)
    guest.write_register("MR", 102)
    lab.clock.advance(5_000_000_000)
    guest.write_register("IMSC", 1)
    guest.write_register("MR", 107)
    lab.clock.advance(1_000_000_000)
    return device


def busy_fw_cfg(lab: Lab) -> Any:
    device = hosted("fw-cfg", lab, files="opt/motd='hello'", memory="5G")
    guest = Guest(device)
    guest.write_register("SELECTOR", 0x21)
    guest.read(0, 1)
    return device


def busy_scratch(lab: Lab) -> Any:
    device = hosted("scratch", lab, size="32", irq="5")
    Guest(device).write(0, 24, 0x0123_4567_89AB_CDEF, 8)
    return device


def busy_postcode(lab: Lab) -> Any:
    device = hosted("postcode", lab)
    Guest(device).write(0, 0, 0xA5)
    return device


def busy_edu(lab: Lab) -> Any:
    """It computes, and has an interrupt that nobody has acknowledged."""
    device = hosted("edu", lab)
    guest = Guest(device)
    guest.write_register("LIVENESS", 0x1234_5678)
    guest.write_register("IRQ_RAISE", 0x55)
    guest.write_register("FACTORIAL", 7)
    return device


def busy_virtio_mmio(lab: Lab, kind: str) -> Any:
    """A driver has set up half of a queue, and hasn't acknowledged an interrupt."""
    device = hosted(kind, lab)
    guest = Guest(device)
    guest.write_register("STATUS", 0x03)
    guest.write_register("DEVICE_FEATURES_SEL", 1)
    guest.write_register("QUEUE_NUM", 8)
    guest.write_register("QUEUE_DESC_LOW", 0x1000)
    device.poke("INTERRUPT_STATUS", 1)
    return device


def busy_virtio_pci(lab: Lab, kind: str) -> Any:
    """The same."""
    device = hosted(kind, lab)
    guest = Guest(device)
    guest.write_register("DEVICE_STATUS", 0x03)
    guest.write_register("DEVICE_FEATURE_SELECT", 1)
    guest.write_register("CONFIG_MSIX_VECTOR", 0)
    guest.write_register("QUEUE_SIZE", 8)
    guest.write_register("QUEUE_DESC", 0x1_0000_1000)
    device.poke("ISR_STATUS", 1)
    return device


BUSY: dict[str, Callable[[Lab], Any]] = {
    "debugcon": lambda lab: hosted("debugcon", lab),
    "fw-cfg": busy_fw_cfg,
    "i8042": busy_i8042,
    "mc146818": busy_mc146818,
    "pl031": busy_pl031,
    "postcode": busy_postcode,
    "scratch": busy_scratch,
    "uart16550": busy_uart,
    "edu": busy_edu,
    "uart16550 on a board": lambda lab: busy_uart(lab, bus="mmio", shift=2),
    **{kind: partial(busy_virtio_mmio, kind=kind) for kind in VIRTIO},
    **{kind + ON_PCI: partial(busy_virtio_pci, kind=kind + ON_PCI) for kind in VIRTIO},
}
every_device = pytest.mark.parametrize("kind", KINDS)
every_busy_device = pytest.mark.parametrize("kind", BUSY)


def test_every_device_that_ships_is_looked_at_here() -> None:
    assert TYPES.names() == sorted((*SHIPPED, *WITHOUT_REGISTERS))
    for kind in WITHOUT_REGISTERS:
        assert TYPES.make(kind, {}).get_register_map() is None  # type: ignore[attr-defined] # it is hosted


@every_device
def test_every_map_keeps_the_rules(kind: str) -> None:
    device = hosted(kind)
    own = device.get_register_map()
    assert isinstance(own, RegisterMap)
    check(own)
    if device.type_name in VIRTIO:
        assert type(device).register_map is None  # it depends on where the device is
    else:
        check(type(device).register_map)


@every_device
def test_a_map_says_what_everything_is(kind: str) -> None:
    for register in hosted(kind).get_register_map():
        assert register.help, register.name
        for field in register.fields:
            assert field.help or field.values, f"{register.name}.{field.name}"


@every_device
def test_what_a_map_says_of_resets_is_what_a_fresh_device_has(kind: str) -> None:
    device = hosted(kind)
    for place in tellable(device):
        if place.register.reset is not None:
            assert device.peek(place.name) == place.register.reset, place.name


@every_busy_device
def test_registers_lie_within_the_ranges_that_the_device_traps(kind: str) -> None:
    device = BUSY[kind](Lab(NOW_NS))
    trapped = device.get_assigned_resources().trapped()
    for place in all_places(device):
        assert place.last < trapped[place.range].size, place.name


@every_busy_device
def test_a_peek_tells_what_a_read_would_return(kind: str) -> None:
    checked = 0
    for place in all_places(BUSY[kind](Lab(NOW_NS))):
        device = BUSY[kind](Lab(NOW_NS))  # a fresh one for each: some reads change something
        if place.register.readable:
            peeked = device.peek(place.name)
            assert Guest(device).read_place(place) == peeked, place.name
            checked += 1
    assert checked


@every_busy_device
def test_a_read_that_has_no_effect_can_be_repeated(kind: str) -> None:
    device = BUSY[kind](Lab(NOW_NS))
    guest = Guest(device)
    for place in all_places(device):
        if place.register.readable and not read_has_an_effect(place):
            first = guest.read_place(place)
            assert guest.read_place(place) == first == device.peek(place.name), place.name


@every_busy_device
def test_a_peek_changes_nothing(kind: str) -> None:
    lab = Lab(NOW_NS)
    device = BUSY[kind](lab)
    events: list[InterruptEvent] = []
    lab.interrupts.subscribe(events.append)
    timer = lab.clock._timers.next_deadline_ns()
    peeked = peek_all(device)
    for _ in range(3):
        assert peek_all(device) == peeked
    assert lab.clock._timers.next_deadline_ns() == timer

    other_lab = Lab(NOW_NS)
    other = BUSY[kind](other_lab)  # nobody peeks at this one
    assert device.save() == other.save()
    assert events == []
    assert lab.interrupts.asserted() == other_lab.interrupts.asserted()
    for place in all_places(device):
        if place.register.readable:
            assert Guest(device).read_place(place) == Guest(other).read_place(place), place.name


@every_busy_device
def test_peeking_at_each_register_leaves_the_state_as_it_is(kind: str) -> None:
    device = BUSY[kind](Lab(NOW_NS))
    for place in tellable(device):
        before = json.dumps(device.save())
        device.peek(place.name)
        assert json.dumps(device.save()) == before, place.name


@every_busy_device
def test_a_poke_of_what_is_there_changes_nothing(kind: str) -> None:
    device = BUSY[kind](Lab(NOW_NS))
    before = peek_all(device)
    for place in tellable(device):
        if is_settable(device, place):
            if (device.type_name, place.register.name) == ("fw-cfg", "SELECTOR"):
                continue  # begins at the first byte
            device.poke(place.name, device.peek(place.name))
            assert peek_all(device) == before, place.name


@every_busy_device
def test_registers_that_cannot_be_told_or_set_say_so(kind: str) -> None:
    device = BUSY[kind](Lab(NOW_NS))
    for place in all_places(device):
        is_stored = (device.type_name, place.register.name) == ("pl031", "ICR")
        if not is_tellable(device, place) and not is_stored:
            with pytest.raises(NotPeekable, match=place.register.name):
                device.peek(place.name)
        if not is_settable(device, place):
            before = peek_all(device)
            with pytest.raises(NotPeekable, match=place.register.name):
                device.poke(place.name, 0)
            assert peek_all(device) == before


@every_busy_device
def test_any_poke_leaves_a_state_that_can_be_restored(kind: str) -> None:
    for value in (0, 0x55, 0xAA, 0xFF):
        lab = Lab(NOW_NS)
        device = BUSY[kind](lab)
        for place in all_places(device):
            if is_settable(device, place):
                device.poke(place.name, value)
            device.restore(json.loads(json.dumps(device.save())))
            state = device.save()  # what the world has changed is noticed once
            device.restore(json.loads(json.dumps(state)))
            assert device.save() == state, place.name


@every_device
def test_a_register_that_is_not_there_is_an_error_that_names_the_known_ones(kind: str) -> None:
    device = hosted(kind)
    first = device.get_register_map().registers[0]
    for name in ("NOPE", "", first.name.lower(), f"{first.name}[100000]", f"{first.name}[-1]"):
        with pytest.raises(NoSuchRegister) as missing:
            device.peek(name)
        assert str(missing.value).startswith(f"device 'dut' has no register {name!r}; known: ")
        assert first.name in str(missing.value)
        assert missing.value.metadata["device"] == "dut"
        assert missing.value.metadata["register"] == name
        with pytest.raises(NoSuchRegister):
            device.poke(name, 0)


def test_a_row_needs_an_index_and_a_single_register_takes_none() -> None:
    with pytest.raises(NoSuchRegister, match=r"known: R\[0\] to \[255\]"):
        hosted("scratch").peek("R")
    with pytest.raises(NoSuchRegister):
        hosted("uart16550").peek("LCR[0]")


@pytest.mark.parametrize("value", [-1, 0x100])
def test_a_value_that_does_not_fit_is_refused(value: int) -> None:
    device = hosted("uart16550")
    with pytest.raises(BadRequest, match=r"'SCR'.*allowed: 0 to 0xff") as refused:
        device.poke("SCR", value)
    assert refused.value.metadata["field"] == "value"
    assert device.peek("SCR") == 0


def test_reads_that_do_something_are_declared() -> None:
    """Those of which a second read may return something else."""
    with_effect = {
        f"{kind}.{place.register.name}"
        for kind in KINDS
        for place in all_places(hosted(kind))
        if read_has_an_effect(place)
    }
    assert with_effect == {
        "fw-cfg.DATA",
        "i8042.DATA",
        "mc146818.DATA",
        "mc146818.REG_C",
        "uart16550.IIR",
        "uart16550.LSR",
        "uart16550.MSR",
        "uart16550.RBR",
        *(f"{kind}{ON_PCI}.ISR_STATUS" for kind in VIRTIO),
    }
    assert hosted("mc146818").get_register_map().register("DATA").on_read is OnRead.CHANGES_OTHERS


# Decoding.


def decoded(device: Any, *accesses: tuple[str, int, int]) -> list[str]:
    """Decode accesses of one byte: what, offset, value."""
    decoder = Decoder(device.get_register_map())
    return [
        str(each)
        for what, offset, value in accesses
        for each in decoder.decode(0, offset, Operation(what), bytes([value]))
    ]


def test_the_init_sequence_of_a_serial_driver_is_told_by_names() -> None:
    assert decoded(
        hosted("uart16550"),
        ("write", 3, 0x80),
        ("write", 0, 0x01),
        ("write", 1, 0x00),
        ("write", 3, 0x03),
        ("write", 2, 0xC7),
        ("write", 4, 0x0B),
        ("read", 5, 0x60),
        ("write", 0, 0x41),
        ("read", 2, 0xC2),
        ("read", 0, 0x42),
    ) == [
        "LCR = 0x80 (DLAB=1, WLS=0 5 bits)",
        "DLL = 0x01",
        "DLM = 0x00",
        "LCR = 0x03 (WLS=3 8 bits)",
        "FCR = 0xc7 (TRIGGER=3 14 or more, CLEAR_TX=1, CLEAR_RX=1, ENABLE=1)",
        "MCR = 0x0b (OUT2=1, RTS=1, DTR=1)",
        "LSR = 0x60 (TEMT=1, THRE=1)",
        "THR = 0x41",
        "IIR = 0xc2 (FIFOS=3 enabled, ID=2 transmitter holding register empty)",
        "RBR = 0x42",
    ]


def test_a_stride_spreads_the_registers() -> None:
    device = hosted("uart16550", bus="mmio", reg_shift="2")
    assert isinstance(device, Uart16550)
    register_map = device.get_register_map()
    assert [register_map.register(name).offset for name in ("RBR", "LCR", "SCR")] == [0, 12, 28]
    assert register_map.register("LSR").sizes == (1, 2, 4)
    assert decoded(device, ("read", 20, 0x60)) == ["LSR = 0x60 (TEMT=1, THRE=1)"]


def test_the_clock_is_told_by_the_names_behind_its_index() -> None:
    assert decoded(
        hosted("mc146818"),
        ("write", 0, 0x8C),
        ("read", 1, 0xC0),
        ("write", 0, 0x32),
        ("read", 1, 0x20),
        ("write", 0, 0x5C),
        ("read", 1, 0x01),
        ("write", 0, 0x40),
        ("write", 1, 0x99),
    ) == [
        "INDEX = 0x8c (NMI=1, NUMBER=0xc)",
        "REG_C = 0xc0 (IRQF=1, PF=1)",
        "INDEX = 0x32 (NUMBER=0x32)",
        "CENTURY = 0x20",
        "INDEX = 0x5c (NUMBER=0x5c)",
        "MEMORY_ABOVE_4G[1] = 0x01",
        "INDEX = 0x40 (NUMBER=0x40)",
        "RAM_3E[2] = 0x99",
    ]


def test_every_byte_behind_the_index_has_a_name() -> None:
    numbers = sorted(
        place.number for place in all_places(hosted("mc146818")) if place.number is not None
    )
    assert numbers == list(range(128))


def test_commands_of_the_keyboard_controller_have_names() -> None:
    decoder = Decoder(hosted("i8042").get_register_map())
    told = decoder.decode(1, 0, Operation.WRITE, b"\xad")
    assert [str(each) for each in told] == ["COMMAND = 0xad (COMMAND=0xad disable the keyboard)"]
    status = decoder.decode(1, 0, Operation.READ, b"\x1d")
    assert [str(each) for each in status] == [
        "STATUS = 0x1d (NOT_INHIBITED=1, CMD=1, SYS=1, OBF=1)"
    ]


def test_files_for_the_firmware_are_called_by_their_names() -> None:
    device = hosted("fw-cfg", files="opt/motd='hello'", memory="1G")
    decoder = Decoder(device.get_register_map())
    for number, name in ((0x20, "etc/e820"), (0x21, "opt/motd"), (0x19, "directory of files")):
        told = decoder.decode(0, 0, Operation.WRITE, number.to_bytes(2, "little"))
        assert [str(each) for each in told] == [
            f"SELECTOR = 0x{number:04x} (KEY={number:#x} {name})"
        ]
