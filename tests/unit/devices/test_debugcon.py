"""The debug console: bytes out, a signature in, and never a wait."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from structlog.testing import capture_logs

from devicehost_server.devices.config import parse
from devicehost_server.devices.debugcon import Config, DebugConsole
from devicehost_server.model.errors import BadConfig
from devicehost_server.model.resources import PioAddressConstraint
from devicelab import Lab, pio_in, pio_out

DEADLINE_S = 20.0
PORT = 0x402


class Maker(Protocol):
    def __call__(self, **config: str) -> DebugConsole: ...


@pytest.fixture(name="make")
def make_fixture() -> Iterator[Maker]:
    with capture_logs(), contextlib.ExitStack() as stack:

        def make(**config: str) -> DebugConsole:
            device = Lab().host(DebugConsole(parse("debugcon", Config, config)))
            stack.callback(device.close)
            return device

        yield make


def log(device: DebugConsole, text: bytes) -> None:
    for character in text:
        with device.lock:  # as the bus does
            pio_out(device, PORT, character)


def until(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.001)


def test_it_is_one_port_where_firmware_looks_for_it() -> None:
    device = DebugConsole(parse("debugcon", Config, {}))
    assert device.get_resource_constraints() == [PioAddressConstraint.exact(0x402, 1)]


def test_it_can_be_where_bochs_has_it(make: Maker) -> None:
    assert pio_in(make(base="0xe9"), 0xE9) == 0xE9


def test_a_read_says_that_it_is_there(make: Maker) -> None:
    device = make()
    log(device, b"\x00")
    assert pio_in(device, PORT) == 0xE9


def test_what_is_written_is_in_the_log(make: Maker, tmp_path: Path) -> None:
    device = make(chardev=f"file:{tmp_path}/log")
    log(device, b"SecCoreStartup\r\n\x00\xff")
    device.close()
    assert (tmp_path / "log").read_bytes() == b"SecCoreStartup\r\n\x00\xff"
    assert device.dropped == 0


def test_a_reader_that_has_not_read_yet_makes_nobody_wait_and_misses_nothing(
    make: Maker, tmp_path: Path
) -> None:
    device = make(chardev=f"unix:{tmp_path}/s")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(tmp_path / "s"))
        until(lambda: device._stream.attached)
        text = b"".join(b"%07x\n" % line for line in range(1 << 17))  # 1 MiB
        log(device, text)  # it comes back: the reader hasn't read
        received = bytearray()
        while len(received) < len(text):
            received += client.recv(1 << 16)
    assert received == text
    assert device.dropped == 0


def test_what_does_not_fit_the_buffer_is_dropped_and_counted(make: Maker) -> None:
    device = make(chardev="file:/dev/full", buffer="1000")
    log(device, bytes(1500))
    assert device.dropped == 500


def test_input_is_left_alone(make: Maker, tmp_path: Path) -> None:
    device = make(chardev=f"unix:{tmp_path}/s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        client.sendall(b"hello?")
        until(lambda: device._stream.pending)
        log(device, b"x")
        client.settimeout(DEADLINE_S)
        assert client.recv(1) == b"x"


def test_it_has_no_state_but_its_stream(make: Maker) -> None:
    device = make()
    log(device, b"x")
    assert device.save() == {}
    device.reset()
    device.restore({})
    assert pio_in(device, PORT) == 0xE9


def test_a_bad_chardev_is_refused_before_there_are_resources() -> None:
    with pytest.raises(BadConfig, match="printer"):
        DebugConsole(parse("debugcon", Config, {"chardev": "printer"}))


def test_close_works_without_a_start_and_twice(make: Maker, tmp_path: Path) -> None:
    DebugConsole(parse("debugcon", Config, {})).close()
    device = make(chardev=f"unix:{tmp_path}/s")
    device.close()
    device.close()
    assert not (tmp_path / "s").exists()
    assert not any(thread.name == "clock" for thread in threading.enumerate())
