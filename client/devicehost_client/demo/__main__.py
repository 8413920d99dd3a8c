"""Run the demonstration. `--guest` chooses one; by default it is the best that runs here."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

from devicehost_client.adapters.kvm import exit_times_ns
from devicehost_client.demo import report
from devicehost_client.demo.guests import (
    Guest,
    GuestDied,
    NoGuest,
    find_seabios,
    seabios_on_kvm,
    small_guest_on_kvm,
    small_guest_on_unicorn,
)
from devicehost_client.demo.measured_port import MeasuredPort
from devicehost_client.demo.server_process import StartFailed, device_server
from devicehost_client.errors import ClientError
from devicehost_client.host import DeviceHost, connect

END_TIMEOUT_S = 60.0
EXITS = 5000
"""KVM exits that are timed, to compare with."""
CACHE = Path("build")


def main() -> int:
    """Run the demonstration; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m devicehost_client.demo", description=__doc__)
    parser.add_argument("--guest", choices=("seabios", "kvm", "unicorn"))
    options = parser.parse_args()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="devicehost-") as name,
            device_server(Path(name)) as endpoint,
            connect(endpoint) as host,
        ):
            return demonstrate(host, Path(name), options.guest)
    except (StartFailed, NoGuest, GuestDied, ClientError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1


def demonstrate(host: DeviceHost, folder: Path, choice: str | None) -> int:
    """Run a guest on the devices of `host`, and say what happened."""
    guest = choose_guest(choice, host)
    try:
        say(f"Server: pid {host.server().pid}. Guest: {guest.name}.")
        for device_id, (device_type, config) in guest.devices.items():
            placed = {key: value.format(folder=folder) for key, value in config.items()}
            host.hotplug.plug(device_type, placed, device_id=device_id)
        port = MeasuredPort(host.vcpu(0))
        started = time.monotonic()
        came_to_end = run(guest, port, folder / guest.console)
        seconds = time.monotonic() - started
        for device_id, (device_type, config) in guest.devices.items():
            if "chardev" in config:
                say(f"\n--- {device_id} ({device_type}) ---")
                say(report.console_text((folder / device_id).read_bytes()))
        ranges = host.ranges()
        say("\n--- address map ---", *report.address_map(ranges), sep="\n")
        say("\n--- accesses by device ---", *report.accesses(port, ranges), sep="\n")
        say(f"\n{report.round_trip(port, host.transport)}")
        if guest.quiet_port is not None:
            forwarded = exit_times_ns(EXITS, host.vcpu(1), guest.quiet_port)
            say(report.share_of_exit(exit_times_ns(EXITS), forwarded))
        if not came_to_end:
            raise GuestDied(f"{guest.name} did not say {guest.last_words!r} in {seconds:.0f} s")
        say(f"The guest came to its end ({guest.last_words!r}) in {seconds:.1f} s.")
        return 0
    finally:
        guest.close()


def choose_guest(choice: str | None, host: DeviceHost) -> Guest:
    """Set up the guest that was asked for, or else the best that runs here.

    Raises:
        NoGuest: it doesn't run here.
    """
    if choice in (None, "seabios"):
        try:
            return seabios_on_kvm(host, find_seabios(CACHE))
        except NoGuest as why:
            if choice:
                raise
            say(f"Instead of SeaBIOS a small guest runs: {why}")
    if choice in (None, "kvm"):
        try:
            return small_guest_on_kvm(host)
        except NoGuest:
            if choice:
                raise
    return small_guest_on_unicorn(host)


def run(guest: Guest, port: MeasuredPort, console: Path) -> bool:
    """Run the guest until its last words; return whether it came so far."""
    ended = threading.Event()
    errors: list[BaseException] = []

    def run_guest() -> None:
        try:
            guest.run(port)
        except BaseException as error:  # noqa: BLE001 # raised again below, on the main thread
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=run_guest, name="vcpu 0")
    thread.start()
    deadline = time.monotonic() + END_TIMEOUT_S
    last_words = guest.last_words.encode()
    came_to_end = False
    while not came_to_end and not ended.wait(0.05) and time.monotonic() < deadline:
        came_to_end = last_words in console.read_bytes()
    guest.stop()
    thread.join()
    if errors:
        raise errors[0]
    return came_to_end


def say(*lines: str, sep: str = "\n") -> None:
    """Print to the person who watches."""
    sys.stdout.write(sep.join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
