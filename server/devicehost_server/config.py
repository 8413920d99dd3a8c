"""What `devicehostd` can be told, and by which flag, variable or key of a file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devicehost_server.allocation import PoolConfig
from devicehost_server.debug.flight import FLIGHT_MAX
from devicehost_server.device_spec import DeviceSpec, device_from_table, parse_device
from devicehost_server.devices.config import parse_int
from devicehost_server.listeners import TcpListener, UnixListener
from devicehost_server.model.errors import BadConfig
from devicehost_server.server import SPIN_S, ServerConfig
from devicehost_server.settings import ConfigError, Setting, resolve
from devicehost_server.unix_socket import UNIX_PATH_MAX

LOCAL_SUFFIX = ".vfio-user"
"""What the local socket's path has behind that of the gRPC API, unless told otherwise."""

NO_SOCKET = "none"
"""Stands for no local socket."""

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "console", "json")


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Everything that a start of the daemon needs.

    Attributes:
        server: the server.
        devices: what to plug before it serves, in order.
        log_level: the least level that is logged.
        log_format: `console` for people, `json` for programs, `auto` to look at stderr.
    """

    server: ServerConfig
    devices: tuple[DeviceSpec, ...]
    log_level: str
    log_format: str


def _octal_mode(text: str) -> int:
    # With a leading zero only: a number from TOML has lost the base it was written in.
    if not re.fullmatch("0[0-7]{3}", text):
        raise ValueError('allowed: permissions in octal, "0000" to "0777"')
    return int(text, 8)


def _descriptor(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 3):  # noqa: PLR2004 # 0 to 2 are standard streams
        raise ValueError("allowed: the number of a file descriptor, at least 3")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("allowed: true, false")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600:  # noqa: PLR2004 # stands in the message
        raise ValueError("allowed: seconds, 0.001 to 3600")
    return seconds


def _spin(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 0.01:  # noqa: PLR2004 # stands in the message
        raise ValueError("allowed: seconds, 0 to 0.01; 0 for never")
    return seconds


def _path_or_none(text: str) -> str:
    if not text:
        raise ValueError(f"allowed: a path, or {NO_SOCKET!r}")
    return text


def _count(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 1000):  # noqa: PLR2004 # likewise
        raise ValueError("allowed: 1 to 1000")
    return int(text)


def _flight(text: str) -> int:
    if not (text.isdecimal() and int(text) <= FLIGHT_MAX):
        raise ValueError(f"allowed: 0 to {FLIGHT_MAX}")
    return int(text)


def _number(text: str) -> int:
    try:
        return parse_int(text)
    except ValueError:
        raise ValueError("allowed: a number: decimal or 0x, with K, M, G or T") from None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_number(part.strip()) for part in text.split(",") if part.strip())


def _names(text: str) -> frozenset[str]:
    names = frozenset(name for part in text.split(",") if (name := part.strip()))
    if not names:  # it would let everybody in
        raise ValueError("allowed: at least one name")
    return names


def _host_and_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) <= 0xFFFF):  # noqa: PLR2004 # 16 bits
        raise ValueError("allowed: HOST:PORT, for IPv6 [ADDRESS]:PORT")
    return host.strip("[]"), int(port)


def _one_of(*words: str) -> Any:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"allowed: {', '.join(words)}")
        return text

    return parse


_LISTEN = "where to listen"
_DEBUG = "debugging"
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
        _path_or_none,
        "",
        "PATH",
        "vfio-user socket for clients on this host: memory, eventfds, the ring; none for none"
        f" [the socket path and {LOCAL_SUFFIX}]",
        _LISTEN,
    ),
    Setting("fd", _descriptor, None, "N", "an inherited Unix socket instead of a path", _LISTEN),
    Setting(
        "socket-mode",
        _octal_mode,
        0o600,
        "MODE",
        "the sockets' permissions, in octal [0600]",
        _LISTEN,
    ),
    Setting("socket-group", str, "", "GROUP", "the group that owns them [the process's]", _LISTEN),
    Setting(
        "tcp", _host_and_port, None, "HOST:PORT", "TCP address, with TLS; port 0 is any", _LISTEN
    ),
    Setting("tls-cert", Path, None, "FILE", "the server's certificate chain (PEM)", _LISTEN),
    Setting("tls-key", Path, None, "FILE", "its key (PEM)", _LISTEN),
    Setting("tls-client-ca", Path, None, "FILE", "who vouches for clients (PEM)", _LISTEN),
    Setting(
        "tls-allow",
        _names,
        frozenset(),
        "NAME,...",
        "names in clients' certificates that may call [all that the authority vouches for]",
        _LISTEN,
    ),
    Setting(
        "insecure-tcp",
        _flag,
        default=False,
        metavar="",
        help="TCP without TLS: anybody on this host may call",
        group=_LISTEN,
    ),
    Setting(
        "no-debug",
        _flag,
        default=False,
        metavar="",
        help="leave out DebugService: nobody sees what passes, or steps in",
        group=_DEBUG,
    ),
    Setting(
        "debug-allow",
        _names,
        frozenset(),
        "NAME,...",
        "names in clients' certificates that may use DebugService [all that may call]",
        _DEBUG,
    ),
    Setting(
        "flight-recorder",
        _flight,
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
    Setting("access-timeout", _seconds, 1.0, "S", "how long an access may take [1]", _LIMITS),
    Setting(
        "drain-timeout", _seconds, 5.0, "S", "how long to wait for accesses in flight [5]", _LIMITS
    ),
    Setting(
        "streams-max", _count, 60, "N", "streams (vCPUs and watches) open at once [60]", _LIMITS
    ),
    Setting(
        "spin",
        _spin,
        SPIN_S,
        "S",
        "the longest that the local ways look for the next access before they sleep,"
        f" up to 0.01; 0 for never [{SPIN_S}]",
        _LIMITS,
    ),
    Setting(
        "memory-last",
        _number,
        None,
        "ADDRESS",
        "last address of guest memory; MMIO above 4 GiB begins behind it [half of the space]",
        _POOLS,
    ),
    Setting("phys-bits", _number, 39, "N", "bits of a guest-physical address [39]", _POOLS),
    Setting(
        "mmio-base",
        _number,
        0xC000_0000,
        "ADDRESS",
        "where memory below 4 GiB ends and MMIO begins [0xc0000000]",
        _POOLS,
    ),
    Setting(
        "shared-irqs",
        _numbers,
        (5,),
        "N,...",
        "legacy IRQs that any number of devices may share [5]",
        _POOLS,
    ),
    Setting("msi-last", _number, 1023, "N", "the last MSI number; the first is 24 [1023]", _POOLS),
    Setting("kvm-slots", _number, 509, "N", "KVM memory slots [509]", _POOLS),
    Setting(
        "log-level", _one_of(*LOG_LEVELS), "info", "LEVEL", f"{', '.join(LOG_LEVELS)} [info]", _LOGS
    ),
    Setting(
        "log-format",
        _one_of(*LOG_FORMATS),
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
