"""The guests, and what they run on.

SeaBIOS is a PC's firmware that nobody here wrote. It runs as Debian ships it, in a VM of
KVM's with the interrupt controllers and the timer in the kernel and everything else
behind the port. The small guest needs less: real mode and 64 KiB, under KVM or Unicorn.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from devicehost_client.adapters.kvm import KvmUnavailable, Stopped, Vm, attach
from devicehost_client.demo import small_guest
from devicehost_client.host import DeviceHost
from devicehost_client.port import AccessPort

MEMORY_SIZE = 32 << 20

_SEABIOS = Path("usr/share/seabios/bios.bin")
_FOUR_GIB = 1 << 32
_ONE_MIB = 1 << 20
# Where a PC has its video memory: not backed, so that accesses to it trap.
_HOLE_BASE = 0xA0000
_HOLE_LAST = 0xBFFFF
_FIRST_PIC_VECTOR = 8


Devices: TypeAlias = Mapping[str, tuple[str, Mapping[str, str]]]
"""Type and configuration by id; `{folder}` stands for where files go."""


class NoGuest(Exception):
    """The guest can't run here; the message says why."""


class GuestDied(Exception):
    """The guest ended by itself; the message says how."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest, ready to run.

    Attributes:
        name: what it is and what it runs on, for people.
        devices: what it needs: type and configuration by id.
        console: the id of the device that has its last words.
        last_words: how it ends.
        run: runs it on this thread until `stop`, which another thread calls.
        stop: ends `run`.
        close: gives back what it stands on.
        quiet_port: on KVM, a port that can be read without any effect; else None.
    """

    name: str
    devices: Devices
    console: str
    last_words: str
    run: Callable[[AccessPort], None]
    stop: Callable[[], None]
    close: Callable[[], None]
    quiet_port: int | None = None


def find_seabios(cache: Path) -> Path:
    """Find SeaBIOS's image: on the system, or in Debian's package, fetched into `cache`.

    Raises:
        NoGuest: neither is to be had.
    """
    for root in (Path("/"), cache / "seabios"):
        if (root / _SEABIOS).exists():
            return root / _SEABIOS
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NoGuest("no SeaBIOS: apt install seabios")
    cache.mkdir(parents=True, exist_ok=True)
    fetched = subprocess.run(
        ["apt-get", "download", "-qq", "seabios"],  # noqa: S607 # the system's
        cwd=cache,
        capture_output=True,
        check=False,
    )
    packages = sorted(cache.glob("seabios_*.deb"))
    if fetched.returncode or not packages:
        raise NoGuest("no SeaBIOS: apt install seabios")
    extract = ["dpkg-deb", "--extract", str(packages[-1]), str(cache / "seabios")]
    subprocess.run(extract, check=True)  # noqa: S603 # likewise
    return cache / "seabios" / _SEABIOS


def seabios_on_kvm(host: DeviceHost, image_path: Path) -> Guest:
    """Set up a PC without disks, whose firmware is SeaBIOS.

    Raises:
        NoGuest: there is no KVM here.
    """
    image = image_path.read_bytes()
    vm = _open_vm()
    ram = vm.memory.create("ram", MEMORY_SIZE)
    vm.memory.map(ram, 0, size=_HOLE_BASE)
    above_hole = _HOLE_LAST + 1
    vm.memory.map(ram, above_hole, offset=above_hole)
    # The copy below 1 MiB is RAM: SeaBIOS keeps its variables there. The processor starts
    # in the other one, below 4 GiB.
    vm.memory.load(_ONE_MIB - len(image), image)
    vm.memory.add_rom(_FOUR_GIB - len(image), image, "bios")
    devices = {
        "debug": ("debugcon", {"chardev": "file:{folder}/debug"}),
        "com1": ("uart16550", {"chardev": "file:{folder}/com1"}),
        "rtc": ("mc146818", {"memory": str(MEMORY_SIZE)}),
        "kbd": ("i8042", {}),
        "post": ("postcode", {}),
        # The screen goes to COM1, and a failed boot is final.
        "fw": ("fw-cfg", {"files": "etc/sercon-port=0x3f8:2;etc/boot-fail-wait=0xffffffff:4"}),
    }
    return _on_kvm(
        "SeaBIOS on KVM",
        vm,
        devices,
        "debug",
        "No bootable device",
        host=host,
        quiet_port=0x402,  # the debug console says that it is there
    )


def small_guest_on_kvm(host: DeviceHost) -> Guest:
    """Set up the small guest in a VM of KVM's.

    Raises:
        NoGuest: there is no KVM here.
    """
    vm = _open_vm()
    vm.memory.add_ram(0, 1 << 16)
    vm.memory.load(small_guest.BASE, small_guest.program())
    return _on_kvm(
        "a small guest on KVM",
        vm,
        small_guest.DEVICES,
        small_guest.CONSOLE,
        small_guest.LAST_WORDS,
        host=host,
        quiet_port=0x3FF,  # the UART's scratch register
        entry=small_guest.BASE,
    )


def small_guest_on_unicorn(host: DeviceHost) -> Guest:
    """Set up the small guest in Unicorn, an emulator.

    Raises:
        NoGuest: Unicorn isn't installed.
    """
    try:
        from unicorn import UC_ARCH_X86, UC_MODE_16  # noqa: PLC0415 # an extra
        from unicorn.unicorn import Uc  # noqa: PLC0415 # likewise

        from devicehost_client.adapters.unicorn import UnicornCpu  # noqa: PLC0415 # likewise
    except ImportError as error:
        raise NoGuest(f"no Unicorn: {error}; install devicehost[unicorn]") from error
    uc = Uc(UC_ARCH_X86, UC_MODE_16)
    uc.mem_map(0, 1 << 16)
    uc.mem_write(small_guest.BASE, small_guest.program())
    cpus: list[UnicornCpu] = []

    def run(port: AccessPort) -> None:
        cpu = UnicornCpu(uc, port)
        cpus.append(cpu)

        def on_level(gsi: int, /, *, asserted: bool) -> None:
            if asserted:
                cpu.interrupt(_FIRST_PIC_VECTOR + gsi)

        host.interrupts.start(on_level=on_level)
        cpu.run(small_guest.BASE)

    def stop() -> None:
        for cpu in cpus:
            cpu.stop()

    return Guest(
        "a small guest on Unicorn",
        small_guest.DEVICES,
        small_guest.CONSOLE,
        small_guest.LAST_WORDS,
        run,
        stop=stop,
        close=lambda: None,
    )


def _open_vm() -> Vm:
    try:
        return Vm()
    except KvmUnavailable as error:
        raise NoGuest(f"no KVM: {error}") from error


def _on_kvm(
    name: str,
    vm: Vm,
    devices: Devices,
    console: str,
    last_words: str,
    *,
    host: DeviceHost,
    quiet_port: int,
    entry: int | None = None,
) -> Guest:
    vcpu = vm.create_vcpu()
    if entry is not None:
        vcpu.enter_real_mode(0, entry)

    def run(port: AccessPort) -> None:
        attach(vm, host)
        end = vcpu.run(port)
        if not isinstance(end, Stopped):
            raise GuestDied(f"{name}: {end}")

    return Guest(name, devices, console, last_words, run, vcpu.stop, vm.close, quiet_port)
