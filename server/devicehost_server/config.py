"""What `devicehostd` can be told, and by which flag, variable or key of a file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devicehost_server.allocation import PoolConfig
from devicehost_server.debug.flight import FLIGHT_MAX
from devicehost_server.device_spec import DeviceSpec, device_from_table, parse_device
from devicehost_server.listeners import TcpListener, UnixListener
from devicehost_server.model.errors import BadConfig
from devicehost_server.server import SPIN_S, ServerConfig
from devicehost_server.setting_values import (
    NO_SOCKET,
    count,
    descriptor,
    flag,
    flight,
    host_and_port,
    names,
    number,
    numbers,
    octal_mode,
    one_of,
    path_or_none,
    seconds,
    spin,
)
from devicehost_server.settings import ConfigError, Setting, resolve
from devicehost_server.unix_socket import UNIX_PATH_MAX

LOCAL_SUFFIX = ".vfio-user"
"""What the local socket's path has behind that of the gRPC API, unless told otherwise."""

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "console", "json")


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Everything that a start of the daemon needs.

    Attributes:
        server: the server.
        devices: what to plug before it serves, in order.
        state_file: where the devices' state is kept over a restart, if anywhere.
        log_level: the least level that is logged.
        log_format: `console` for people, `json` for programs, `auto` to look at stderr.
    """

    server: ServerConfig
    devices: tuple[DeviceSpec, ...]
    state_file: Path | None
    log_level: str
    log_format: str


_LISTEN = "where to listen"
_DEBUG = "debugging"
_RESTART = "going on after a restart"
_LIMITS = "limits"
_POOLS = "what there is to allocate"
_LOGS = "logs"

SETTINGS = (
    Setting(
        "socket-path",
        Path,
        None,
        "PATH",
        "Unix socket for the gRPC API; PATH.lock guards it",
        _LISTEN,
    ),
    Setting(
        "local-socket",
        path_or_none,
        "",
        "PATH",
        "vfio-user socket for clients on this host: memory, eventfds, the ring; none for none"
        f" [the socket path and {LOCAL_SUFFIX}]",
        _LISTEN,
    ),
    Setting("fd", descriptor, None, "N", "an inherited Unix socket instead of a path", _LISTEN),
    Setting(
        "socket-mode",
        octal_mode,
        0o600,
        "MODE",
        "the sockets' permissions, in octal [0600]",
        _LISTEN,
    ),
    Setting("socket-group", str, "", "GROUP", "the group that owns them [the process's]", _LISTEN),
    Setting(
        "tcp", host_and_port, None, "HOST:PORT", "TCP address, with TLS; port 0 is any", _LISTEN
    ),
    Setting("tls-cert", Path, None, "FILE", "the server's certificate chain (PEM)", _LISTEN),
    Setting("tls-key", Path, None, "FILE", "its key (PEM)", _LISTEN),
    Setting("tls-client-ca", Path, None, "FILE", "who vouches for clients (PEM)", _LISTEN),
    Setting(
        "tls-allow",
        names,
        frozenset(),
        "NAME,...",
        "names in clients' certificates that may call [all that the authority vouches for]",
        _LISTEN,
    ),
    Setting(
        "insecure-tcp",
        flag,
        default=False,
        metavar="",
        help="TCP without TLS: anybody on this host may call",
        group=_LISTEN,
    ),
    Setting(
        "no-debug",
        flag,
        default=False,
        metavar="",
        help="leave out DebugService: nobody sees what passes, or steps in",
        group=_DEBUG,
    ),
    Setting(
        "debug-allow",
        names,
        frozenset(),
        "NAME,...",
        "names in clients' certificates that may use DebugService [all that may call]",
        _DEBUG,
    ),
    Setting(
        "flight-recorder",
        flight,
        0,
        "N",
        f"keep the last N accesses, up to {FLIGHT_MAX}, to be read when something went wrong [0]",
        _DEBUG,
    ),
    Setting(
        "dump-folder",
        Path,
        None,
        "DIR",
        "write the flight recorder there when a device faults [nowhere]",
        _DEBUG,
    ),
    Setting(
        "state-file",
        Path,
        None,
        "FILE",
        "write all devices there, and what they hold, at a clean end; a start that finds the"
        " file plugs them as they were, and removes it [nowhere]",
        _RESTART,
    ),
    Setting("access-timeout", seconds, 1.0, "S", "how long an access may take [1]", _LIMITS),
    Setting(
        "drain-timeout", seconds, 5.0, "S", "how long to wait for accesses in flight [5]", _LIMITS
    ),
    Setting(
        "streams-max", count, 60, "N", "streams (vCPUs and watches) open at once [60]", _LIMITS
    ),
    Setting(
        "spin",
        spin,
        SPIN_S,
        "S",
        "the longest that the local ways look for the next access before they sleep,"
        f" up to 0.01; 0 for never [{SPIN_S}]",
        _LIMITS,
    ),
    Setting(
        "memory-last",
        number,
        None,
        "ADDRESS",
        "last address of guest memory; MMIO above 4 GiB begins behind it [half of the space]",
        _POOLS,
    ),
    Setting("phys-bits", number, 39, "N", "bits of a guest-physical address [39]", _POOLS),
    Setting(
        "mmio-base",
        number,
        0xC000_0000,
        "ADDRESS",
        "where memory below 4 GiB ends and MMIO begins [0xc0000000]",
        _POOLS,
    ),
    Setting(
        "shared-irqs",
        numbers,
        (5,),
        "N,...",
        "legacy IRQs that any number of devices may share [5]",
        _POOLS,
    ),
    Setting("msi-last", number, 1023, "N", "the last MSI number; the first is 24 [1023]", _POOLS),
    Setting("kvm-slots", number, 509, "N", "KVM memory slots [509]", _POOLS),
    Setting(
        "log-level", one_of(*LOG_LEVELS), "info", "LEVEL", f"{', '.join(LOG_LEVELS)} [info]", _LOGS
    ),
    Setting(
        "log-format",
        one_of(*LOG_FORMATS),
        "auto",
        "FORMAT",
        f"{', '.join(LOG_FORMATS)} [auto: console on a terminal]",
        _LOGS,
    ),
)


def load(
    *,
    flags: Mapping[str, str | None],
    device_flags: Sequence[str],
    file: Path | None,
    environment: Mapping[str, str],
) -> DaemonConfig:
    """Put a configuration together; devices of the file come before those of flags.

    Args:
        flags: text by key of a setting; None if the flag wasn't given.
        device_flags: what `--device` was given, in order.
        file: a TOML file, or None.
        environment: the process's.

    Raises:
        ConfigError: something in it is wrong.
    """
    content = _read(file) if file else {}
    tables = content.pop("device", [])
    if not isinstance(tables, list):
        raise ConfigError(f"{file}: device is not a list of tables; write [[device]]")
    devices = [device_from_table(table, str(file), n) for n, table in enumerate(tables, 1)]
    devices += [parse_device(text) for text in device_flags]
    values = resolve(
        SETTINGS, flags=flags, environment=environment, file=content, file_name=str(file)
    )
    return DaemonConfig(
        server=_server_config(values),
        devices=tuple(devices),
        state_file=values["state_file"],
        log_level=values["log_level"],
        log_format=values["log_format"],
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error


def _server_config(values: dict[str, Any]) -> ServerConfig:
    owner = (values["socket_mode"], values["socket_group"])
    unix = None
    if values["socket_path"] is not None:
        unix = UnixListener(values["socket_path"], *owner)
    local_path = _local_path(values["local_socket"], values["socket_path"])
    tcp = None
    if values["tcp"] is not None:
        host, port = values["tcp"]
        tls = {"certificate": "tls_cert", "key": "tls_key", "client_ca": "tls_client_ca"}
        files = {field: values[key] for field, key in tls.items()}
        if values["insecure_tcp"] == any(files.values()):
            raise ConfigError(
                "--tcp needs either --tls-cert, --tls-key and --tls-client-ca,"
                " or --insecure-tcp, and not both"
            )
        if values["insecure_tcp"] and values["tls_allow"]:
            raise ConfigError("--tls-allow needs TLS: without it peers have no names")
        tcp = TcpListener(host, port, **files)
    if values["debug_allow"] and not (tcp is not None and tcp.certificate):
        raise ConfigError("--debug-allow needs TLS: without it peers have no names")
    if values["dump_folder"] is not None and not values["flight_recorder"]:
        raise ConfigError("--dump-folder needs --flight-recorder: else there is nothing to write")
    if unix is not None and values["fd"] is not None:
        raise ConfigError("--socket-path and --fd exclude each other")
    if unix is None and tcp is None and values["fd"] is None:
        raise ConfigError("nowhere to listen: give --socket-path, --fd or --tcp")
    return ServerConfig(
        unix=unix,
        local=None if local_path is None else UnixListener(local_path, *owner),
        fd=values["fd"],
        tcp=tcp,
        allowed_names=values["tls_allow"],
        streams_max=values["streams_max"],
        access_timeout_s=values["access_timeout"],
        drain_timeout_s=values["drain_timeout"],
        spin_s=values["spin"],
        debug=not values["no_debug"],
        debug_names=values["debug_allow"],
        flight_recorder=values["flight_recorder"],
        dump_folder=values["dump_folder"],
        pools=_pools(values),
    )


def _local_path(text: str, socket_path: Path | None) -> Path | None:
    """Where the local socket is: where it was asked for, or beside the one of the API."""
    if text == NO_SOCKET:
        return None
    if text:
        if Path(text) == socket_path:
            raise ConfigError("--socket-path and --local-socket are the same")
        return Path(text)
    if socket_path is None:
        return None
    path = Path(f"{socket_path}{LOCAL_SUFFIX}")
    # Where that of the API is too long itself, another one here is no help.
    if len(os.fsencode(path)) > UNIX_PATH_MAX >= len(os.fsencode(socket_path)):
        raise ConfigError(
            f"socket path {path} is longer than {UNIX_PATH_MAX} bytes: give --local-socket PATH,"
            f" or {NO_SOCKET}"
        )
    return path


_POOL_FIELDS = {
    "phys_bits": "physical_address_bits",
    "memory_last": "memory_last",
    "mmio_base": "mmio_base",
    "shared_irqs": "shared_irqs",
    "msi_last": "msi_last",
    "kvm_slots": "kvm_slot_count",
}


def _pools(values: dict[str, Any]) -> PoolConfig:
    try:
        return PoolConfig(**{field: values[key] for key, field in _POOL_FIELDS.items()})
    except BadConfig as error:
        of_field = {field: key for key, field in _POOL_FIELDS.items()}
        key = of_field.get(error.metadata.get("field", ""), "")
        where = f"--{key.replace('_', '-')}" if key else "pools"
        raise ConfigError(f"{where}: {error}") from error
