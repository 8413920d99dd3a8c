"""`devicehostd`: a device server as a process.

It stays in the foreground, fails early with a message on stderr and a status that isn't
zero, tells the service manager when it is ready, and ends cleanly on SIGTERM or SIGINT:
it takes no new work, finishes what is in flight, unplugs its devices, and removes its
sockets. A second signal ends it at once.

Exit status: 0 after a clean end, 1 if it could not start, if a device hung at the end or
if what it holds could not be kept, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import structlog

from devicehost_server import VERSION, logs
from devicehost_server.config import SETTINGS, DaemonConfig, load
from devicehost_server.config_check import check_devices
from devicehost_server.device_info import SavedDevice
from devicehost_server.devices import placement
from devicehost_server.devices.registry import DeviceTypes
from devicehost_server.features import FEATURES
from devicehost_server.listeners import ListenError
from devicehost_server.model.errors import BadState
from devicehost_server.notify import notify
from devicehost_server.server import DeviceServer
from devicehost_server.settings import ConfigError
from devicehost_server.state_file import StateFile, plug_all

_log = structlog.get_logger(__name__)

_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STARTED = signal.SIGUSR1
"""What the thread that starts the server sends to the main one."""

_SWITCH_S = 50e-6
"""How long a thread that never waits keeps the interpreter from others that want it. The
ring's poller is one, while it spins: at Python's own 5 ms, a gRPC call would wait for that
long each time that one of its threads has a turn."""

_FILES_MAX = 1 << 14
"""Open files that are enough: a client may hand over one for each interrupt, and one for
each block of memory."""

_END_S = 5.0
"""How long devices have to close, beyond the time for accesses in flight."""

# Threads that are idle end at once when the server does; only one in a device may not.

_DESCRIPTION = """\
Host the devices of one virtual machine in a process of their own.

A VMM forwards each access that traps to this server, and the devices answer. On one host
it does so by the local socket, and by memory that it shares there; from anywhere, over
gRPC. Devices are plugged at the start, with --device or from a file, or at any time later,
through the gRPC API (devicehostctl device plug).
"""

_EPILOG = """\
files:
  A configuration file is TOML. Its keys are the settings above without the dashes in
  front, and devices are tables:

      socket-path = "/run/vm1/devices.sock"
      access-timeout = 0.5

      [[device]]
      type = "uart16550"
      id = "com1"
      chardev = "pty:/run/vm1/com1"

environment:
  Each setting can be given as DEVICEHOST_NAME, for instance DEVICEHOST_SOCKET_PATH.
  A flag goes over the environment, the environment over the file.
  NOTIFY_SOCKET   gets READY=1 and STOPPING=1 (sd_notify(3)).

signals:
  SIGTERM, SIGINT   end cleanly; a second one ends at once.

exit status:
  0   a clean end
  1   it could not start, a device hung at the end, or what a device holds could not be
      kept in the state file; the reason is on stderr
  2   wrong usage

PCI functions:
  Any type of device can be one, on a socket of its own, where QEMU (-device vfio-user-pci)
  or another vfio-user client attaches. These keys say so, beside those of its type:

{placement}

examples:
  devicehostd --socket-path /run/vm1/devices.sock \\
      --device uart16550,id=com1,chardev=stdio --device mc146818
  devicehostd --socket-path /run/vm1/devices.sock \\
      --device virtio-blk,id=disk0,file=disk.img,pci-socket=/run/vm1/disk0.sock
  devicehostd --config /etc/devicehost/vm1.toml --check-config
  devicehostd --tcp 0.0.0.0:7700 --tls-cert server.pem --tls-key server.key \\
      --tls-client-ca clients.pem --tls-allow vmm1
"""


def parser() -> argparse.ArgumentParser:
    """The flags of `devicehostd`."""
    result = argparse.ArgumentParser(
        prog="devicehostd",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(placement=_placement_help()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("--version", action="version", version=f"devicehostd {VERSION}")
    result.add_argument("--config", type=Path, metavar="FILE", help="read settings from FILE")
    result.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="TYPE,key=value,...",
        help="plug a device; id=NAME names it, pci-socket=PATH makes it a PCI function, a comma in"
        " a value is written twice",
    )
    result.add_argument(
        "--check-config", action="store_true", help="check all settings and devices, and exit"
    )
    result.add_argument(
        "--print-capabilities",
        action="store_true",
        help="print what this program can do as JSON, and exit",
    )
    groups: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.group not in groups:
            groups[setting.group] = result.add_argument_group(setting.group)
        group = groups[setting.group]
        if setting.metavar:
            group.add_argument(f"--{setting.name}", metavar=setting.metavar, help=setting.help)
        else:
            group.add_argument(
                f"--{setting.name}", action="store_const", const="true", help=setting.help
            )
    return result


def _placement_help() -> str:
    """The keys that make a device a PCI function, a line for each."""
    return "\n".join(f"      {each.name:<25}{each.help}" for each in placement.options())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status."""
    options = parser().parse_args(arguments)
    if options.print_capabilities:
        print(json.dumps(capabilities(), indent=2))  # noqa: T201 # what was asked for
        return 0
    # Before any thread starts, so that all inherit it, and the signals wait for us.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_END_SIGNALS, _STARTED})
    try:
        config = load(
            flags={setting.key: getattr(options, setting.key) for setting in SETTINGS},
            device_flags=options.device,
            file=options.config,
            environment=os.environ,
        )
        if config.state_file is not None:
            StateFile(config.state_file).check()
        if options.check_config:
            check_devices(config)
            return 0
        return serve(config)
    except (ConfigError, ListenError) as error:
        _fail(str(error))


def capabilities() -> dict[str, Any]:
    """What this program can do, for those who start it."""
    return {
        "type": "devicehost",
        "version": VERSION,
        "features": list(FEATURES),
        "device-types": DeviceTypes().names(),
    }


def serve(config: DaemonConfig) -> int:
    """Plug the devices and serve until a signal comes; return the exit status.

    Raises:
        ConfigError: a device can't be plugged.
        ListenError: it can't listen where it should.
    """
    logs.set_up(config.log_level, config.log_format)
    sys.setswitchinterval(_SWITCH_S)
    _allow_files()
    server = DeviceServer(config.server)
    starting = _Start(server, config)
    number = signal.sigwait({*_END_SIGNALS, _STARTED})
    if number == _STARTED:
        starting.join()
        if starting.error is not None:
            _stop(server, starting, config)
            raise starting.error
        _announce(server, config)
        number = signal.sigwait(_END_SIGNALS)
    notify("STOPPING=1")
    _log.info("stopping", signal=signal.Signals(number).name)
    for again in _END_SIGNALS:
        signal.signal(again, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
    return _stop(server, starting, config)


def _allow_files() -> None:
    """Let the process have as many open files as it may, and may need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Start(threading.Thread):
    """Listens, plugs and serves, while the main thread waits for signals.

    A device may take its time, or hang; the daemon can be ended all the same.

    Attributes:
        error: what went wrong, or None.
    """

    def __init__(self, server: DeviceServer, config: DaemonConfig) -> None:
        super().__init__(name="start", daemon=True)
        self.error: Exception | None = None
        self._lock = threading.Lock()  # of the next two
        self._went_on = False
        self._abandoned = False
        self._server = server
        self._config = config
        self._main = threading.get_ident()
        self.start()

    def run(self) -> None:
        """Start the server, and wake the main thread."""
        try:
            self._server.listen()
            file = StateFile(self._config.state_file) if self._config.state_file else None
            saved = file.read() if file else ()
            plug_all(self._server.devices, self._config.devices, saved)
            with self._lock:
                if self._abandoned:
                    return
                if file:
                    file.discard()
                self._went_on = True
            self._server.start()
        except Exception as error:  # noqa: BLE001 # the main thread raises it
            self.error = error
        finally:
            signal.pthread_kill(self._main, _STARTED)

    def abandon(self) -> bool:
        """End it, and return whether the devices went on from the state file.

        If they didn't, what they are to go on from is still there.
        """
        with self._lock:
            self._abandoned = True
            return self._went_on


def _announce(server: DeviceServer, config: DaemonConfig) -> None:
    """Tell everybody that the server is ready."""
    unix, local = config.server.unix, config.server.local
    _log.info(
        "ready",
        version=VERSION,
        pid=os.getpid(),
        socket=str(unix.path) if unix else None,
        local_socket=str(local.path) if local else None,
        tcp_port=server.tcp_port,
        devices=len(config.devices),
    )
    notify("READY=1")


def _stop(server: DeviceServer, starting: _Start, config: DaemonConfig) -> int:
    """Stop the server, and keep what its devices hold, if it is to; return the exit status.

    A device that hangs gets some time, and then the process ends.
    """
    timeout_s = config.server.drain_timeout_s + _END_S

    def give_up() -> None:
        _log.error("device_hangs", waited_s=timeout_s)
        server.close_sockets()
        os._exit(1)

    timer = threading.Timer(timeout_s, give_up)
    timer.daemon = True
    timer.start()
    if config.state_file is None or not starting.abandon():
        return 1 if server.stop() else 0
    kept: list[SavedDevice] = []
    failed = server.stop(kept.append)
    try:
        StateFile(config.state_file).write(kept[::-1])  # the first plugged was the last unplugged
    except (OSError, BadState) as error:
        _log.error("state_not_kept", file=str(config.state_file), error=str(error))
        return 1
    _log.info("state_kept", file=str(config.state_file), devices=len(kept), not_kept=failed)
    return 1 if failed else 0


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"devicehostd: {message}\n")
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
