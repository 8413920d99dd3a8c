"""The demonstration, as `make demo` runs it: real guests on a real server process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devicehost_client.demo import small_guest
from devicehost_client.demo.guests import NoGuest, find_seabios

ROOT = Path(__file__).parents[2]


def run_demo(guest: str) -> str:
    command = [sys.executable, "-m", "devicehost_client.demo", "--guest", guest]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def needs_kvm() -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/kvm")


def assert_is_a_whole_report(report: str) -> None:
    assert "--- address map ---" in report
    assert "pio  0x03f8-0x03ff  com1" in report
    assert "--- accesses by device ---" in report
    assert "median" in report
    assert "99th percentile" in report


def test_seabios_runs_to_its_prompt_with_every_access_served_by_another_process() -> None:
    needs_kvm()
    try:
        find_seabios(ROOT / "build")
    except NoGuest as why:
        pytest.skip(f"needs SeaBIOS: {why}")
    report = run_demo("seabios")
    debug, _, rest = report.partition("--- com1 (uart16550) ---")
    screen, _, _ = rest.partition("--- address map ---")
    assert "Found 1 serial ports" in debug
    assert "PS2 keyboard initialized" in debug
    assert "No bootable device" in debug
    assert "imeout" not in debug
    assert "Booting from Hard Disk..." in screen
    assert_is_a_whole_report(report)


@pytest.mark.parametrize("machine", ["kvm", "unicorn"])
def test_the_small_guest_prints_reads_the_clock_and_takes_an_interrupt(machine: str) -> None:
    if machine == "kvm":
        needs_kvm()
    else:
        pytest.importorskip("unicorn", reason="needs the unicorn extra")
    report = run_demo(machine)
    assert "Hello from the guest. The clock says " in report
    assert "Port 5000 has no device and reads as FF." in report
    assert "Waiting for the interrupt of the UART... taken." in report
    assert_is_a_whole_report(report)


def test_the_small_guests_listing_has_the_addresses_that_it_says() -> None:
    program = small_guest.program()
    for line in small_guest._LISTING.splitlines():
        offset = int(line[:4], 16) - small_guest.BASE
        code = bytes.fromhex(line[6:24])
        assert program[offset : offset + len(code)] == code
