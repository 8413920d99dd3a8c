"""The daemon's configuration: every setting, and what doesn't go together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from devicehost_server.config import SETTINGS, DaemonConfig, load
from devicehost_server.daemon import parser
from devicehost_server.listeners import TcpListener, UnixListener
from devicehost_server.settings import ConfigError

PATH = "/run/vm1/host.sock"


def loaded(
    *devices: str, file: Path | None = None, flags: Mapping[str, str] | None = None
) -> DaemonConfig:
    return load(
        flags={setting.key: (flags or {}).get(setting.key) for setting in SETTINGS},
        device_flags=devices,
        file=file,
        environment={},
    )


def test_a_path_is_all_that_it_takes() -> None:
    config = loaded(flags={"socket_path": PATH})
    server = config.server
    assert server.unix == UnixListener(Path(PATH), 0o600, "")
    assert server.local == UnixListener(Path(f"{PATH}.vfio-user"), 0o600, "")
    assert server.spin_s == 200e-6
    assert (server.tcp, server.allowed_names, server.streams_max) == (None, frozenset(), 60)
    assert (server.access_timeout_s, server.drain_timeout_s) == (1, 5)
    assert (server.pools.physical_address_bits, server.pools.memory_last) == (39, None)
    assert (config.devices, config.log_level, config.log_format) == ((), "info", "auto")


@pytest.mark.parametrize(
    ("flag", "text", "read"),
    [
        ("socket_mode", "0660", lambda config: config.server.unix.mode == 0o660),
        ("socket_group", "kvm", lambda config: config.server.unix.group == "kvm"),
        ("access_timeout", "0.25", lambda config: config.server.access_timeout_s == 0.25),
        ("drain_timeout", "3600", lambda config: config.server.drain_timeout_s == 3600),
        ("spin", "0", lambda config: config.server.spin_s == 0),
        ("spin", "0.01", lambda config: config.server.spin_s == 0.01),
        ("local_socket", "/run/l", lambda config: config.server.local.path == Path("/run/l")),
        ("local_socket", "none", lambda config: config.server.local is None),
        ("local_socket", "./none", lambda config: config.server.local.path == Path("none")),
        ("socket_mode", "0660", lambda config: config.server.local.mode == 0o660),
        ("socket_group", "kvm", lambda config: config.server.local.group == "kvm"),
        ("streams_max", "1000", lambda config: config.server.streams_max == 1000),
        (
            "memory_last",
            "0x1ffffffff",
            lambda config: config.server.pools.memory_last == 0x1FFFFFFFF,
        ),
        ("memory_last", "8G", lambda config: config.server.pools.memory_last == 8 << 30),
        ("phys_bits", "52", lambda config: config.server.pools.physical_address_bits == 52),
        ("log_level", "debug", lambda config: config.log_level == "debug"),
        ("log_format", "json", lambda config: config.log_format == "json"),
    ],
)
def test_each_setting_arrives(flag: str, text: str, read: Any) -> None:
    assert read(loaded(flags={"socket_path": PATH, flag: text}))


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("socket_mode", "0999"),
        ("socket_mode", "600"),
        ("socket_mode", "01777"),
        ("access_timeout", "0"),
        ("access_timeout", "-1"),
        ("access_timeout", "nan"),
        ("access_timeout", "inf"),
        ("access_timeout", "3601"),
        ("access_timeout", ""),
        ("spin", "-1e-6"),
        ("spin", "0.011"),
        ("spin", "nan"),
        ("spin", "often"),
        ("local_socket", ""),
        ("streams_max", "0"),
        ("streams_max", "1001"),
        ("streams_max", "1.5"),
        ("phys_bits", "31"),
        ("phys_bits", "53"),
        ("phys_bits", "many"),
        ("memory_last", "-1"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("tcp", "7700"),
        ("tcp", "host:"),
        ("tcp", ":7700"),
        ("tcp", "host:65536"),
        ("tls_allow", " , "),
    ],
)
def test_a_bad_value_is_refused_and_its_flag_is_named(flag: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"--{flag.replace('_', '-')}"):
        loaded(flags={"socket_path": PATH, flag: text})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::1]:7700", "::1", 7700),
        ("localhost:65535", "localhost", 65_535),
    ],
)
def test_a_tcp_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert loaded(flags={"tcp": text, "insecure_tcp": "true"}).server.tcp == TcpListener(host, port)


@pytest.mark.parametrize("flags", [{"fd": "3"}, {"tcp": "[::1]:0", "insecure_tcp": "true"}])
def test_without_a_path_there_is_a_local_socket_only_where_asked_for(flags: dict[str, str]) -> None:
    assert loaded(flags=flags).server.local is None
    asked = loaded(flags={**flags, "local_socket": "/run/l", "socket_mode": "0666"})
    assert asked.server.local == UnixListener(Path("/run/l"), 0o666)


def test_tls_takes_three_files_and_names() -> None:
    files = {"tls_cert": "c.pem", "tls_key": "k.pem", "tls_client_ca": "a.pem"}
    flags = {"tcp": "0.0.0.0:7700", "tls_allow": "vmm1, vmm2,", **files}
    server = loaded(flags=flags).server
    expected = (Path("c.pem"), Path("k.pem"), Path("a.pem"))
    assert server.tcp == TcpListener("0.0.0.0", 7700, *expected)  # noqa: S104 # with TLS
    assert server.allowed_names == {"vmm1", "vmm2"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "nowhere to listen"),
        ({"tcp": "127.0.0.1:1"}, "--tcp needs either"),
        ({"tcp": "127.0.0.1:1", "tls_cert": "x", "insecure_tcp": "true"}, "--tcp needs either"),
        (
            {"tcp": "127.0.0.1:1", "insecure_tcp": "true", "tls_allow": "x"},
            "--tls-allow needs TLS",
        ),
        ({"socket_path": PATH, "local_socket": PATH}, "--local-socket are the same"),
        ({"socket_path": "/tmp/" + "x" * 93}, "give --local-socket PATH, or none"),  # noqa: S108 # not made
        ({"local_socket": PATH}, "nowhere to listen"),
        ({"socket_path": PATH, "memory_last": "0xd0000000"}, "--memory-last: pools: "),
    ],
)
def test_what_does_not_go_together_is_refused(flags: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(flags=flags)


def test_a_file_may_hold_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text(
        """
        socket-path = "/run/vm1/host.sock"
        socket-mode = "0660"
        access-timeout = 2
        insecure-tcp = false
        tls-allow = ["vmm1", "vmm2"]

        [[device]]
        type = "scratch"
        id = "one"
        base = 0xd0000000
        """
    )
    config = loaded("mc146818", file=file)
    assert config.server.unix == UnixListener(Path(PATH), 0o660)
    assert config.server.access_timeout_s == 2
    assert config.server.allowed_names == {"vmm1", "vmm2"}
    assert [(spec.type, spec.id) for spec in config.devices] == [
        ("scratch", "one"),
        ("mc146818", ""),
    ]
    assert config.devices[0].config == {"base": str(0xD000_0000)}


def test_a_mode_that_toml_read_as_a_number_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text(f'socket-path = "{PATH}"\nsocket-mode = 0o660\n')
    with pytest.raises(ConfigError, match="socket-mode: '432' is not allowed"):
        loaded(file=file)


def test_every_setting_is_a_flag_with_help() -> None:
    shown = parser().format_help()
    for setting in SETTINGS:
        assert f"--{setting.name}" in shown
        assert setting.help
        assert setting.environment == f"DEVICEHOST_{setting.key.upper()}"
    options = parser().parse_args(["--insecure-tcp", "--tcp", "localhost:1"])
    assert (options.insecure_tcp, options.tcp, options.socket_path) == ("true", "localhost:1", None)


def test_the_pools_are_what_the_settings_say() -> None:
    flags = {
        "socket_path": PATH,
        "phys_bits": "46",
        "memory_last": "0x1ffffffff",
        "mmio_base": "0xd0000000",
        "shared_irqs": "5,10",
        "msi_last": "255",
        "kvm_slots": "32",
    }
    pools = loaded(flags=flags).server.pools
    assert pools.physical_address_bits == 46
    assert (pools.memory_last, pools.mmio_base) == (0x1_FFFF_FFFF, 0xD000_0000)
    assert (pools.shared_irqs, pools.msi_last, pools.kvm_slot_count) == ((5, 10), 255, 32)


@pytest.mark.parametrize(
    ("flag", "text"),
    [("phys_bits", "10"), ("shared_irqs", "99"), ("msi_last", "3"), ("kvm_slots", "0")],
)
def test_a_pool_that_can_not_be_is_refused_by_the_flags_name(flag: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^--{flag.replace('_', '-')}: pools: "):
        loaded(flags={"socket_path": PATH, flag: text})
