"""TCP: with certificates on both sides; without, for this host alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme

from daemonlab import Daemon, daemon, refused, run_daemon
from devicehost.v1.hotplug_service_pb2 import WatchDevicesRequest
from devicehost.v1.hotplug_service_pb2_grpc import HotplugServiceStub
from devicehost.v1.session_service_pb2 import GetServerRequest
from devicehost.v1.session_service_pb2_grpc import SessionServiceStub
from devicehost_client import ConnectionLost, DeviceHost, Tls, connect
from devicehost_client.endpoint import open_channel
from wire import CALL_S

NAME = "devices.test"


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files of an authority, a server, and clients by name."""

    directory: Path
    authority: trustme.CA

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    def issue(self, name: str) -> Tls:
        """Make a client's certificate, with its name as the subject's."""
        issued = self.authority.issue_cert(f"{name}.alt.test", common_name=name)
        return self._write(name, issued)

    def server(self) -> list[str]:
        """Make a server's certificate; return the daemon's flags."""
        tls = self._write("server", self.authority.issue_cert(NAME, "127.0.0.1"))
        files = {"cert": tls.certificate, "key": tls.key, "client-ca": tls.ca}
        return [text for name, path in files.items() for text in (f"--tls-{name}", str(path))]

    def _write(self, name: str, issued: trustme.LeafCert) -> Tls:
        self.authority.cert_pem.write_to_path(self.ca)
        key, certificate = (self.directory / f"{name}.{kind}" for kind in ("key", "pem"))
        issued.private_key_pem.write_to_path(key)
        for number, pem in enumerate(issued.cert_chain_pems):
            pem.write_to_path(certificate, append=number > 0)
        return Tls(self.ca, certificate, key)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"), trustme.CA())


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Daemon]:
    """A daemon that lets vmm1 and vmm2 in, the second by its alternative name."""
    allowed = "vmm1, vmm2.alt.test"
    arguments = ["--tcp", "127.0.0.1:0", *certificates.server(), "--tls-allow", allowed]
    with daemon(tmp_path_factory.mktemp("tcp"), *arguments) as started:
        yield started


def endpoint(running: Daemon) -> str:
    return f"tcp:127.0.0.1:{running.event('ready')['tcp_port']}"


def pid(host: DeviceHost) -> int:
    with host:
        return host.server().pid


# With certificates.


@pytest.mark.parametrize("name", ["vmm1", "vmm2"])
def test_a_client_with_an_allowed_name_gets_in(
    running: Daemon, certificates: Certificates, name: str
) -> None:
    with connect(endpoint(running), tls=certificates.issue(name)) as host:
        device = host.hotplug.plug("scratch", {"base": "0xd0000000"})
        host.vcpu(0).mmio_write(0xD000_0000, 4, 0x1234)
        assert host.vcpu(0).mmio_read(0xD000_0000, 4) == 0x1234
        host.hotplug.unplug(device.id)


def test_a_client_with_another_name_is_refused(running: Daemon, certificates: Certificates) -> None:
    stranger = certificates.issue("stranger")
    with refused(grpc.StatusCode.PERMISSION_DENIED, "PEER_DENIED") as metadata:
        connect(endpoint(running), tls=stranger)
    assert set(metadata["names"].split(", ")) == {"stranger", "stranger.alt.test"}


def test_a_stream_of_a_client_with_another_name_is_refused(
    running: Daemon, certificates: Certificates
) -> None:
    with open_channel(endpoint(running), certificates.issue("stranger")) as channel:
        watching = HotplugServiceStub(channel).WatchDevices(WatchDevicesRequest(), timeout=CALL_S)
        with refused(grpc.StatusCode.PERMISSION_DENIED, "PEER_DENIED"):
            next(watching)


def test_any_client_that_the_authority_vouches_for_gets_in_unless_names_are_given(
    tmp_path: Path, certificates: Certificates
) -> None:
    with daemon(tmp_path, "--tcp", "127.0.0.1:0", *certificates.server()) as running:
        host = connect(endpoint(running), tls=certificates.issue("anybody"))
        assert pid(host) == running.process.pid


def test_a_client_of_the_unix_socket_needs_no_name(running: Daemon) -> None:
    assert pid(running.host()) == running.process.pid


def test_a_client_without_a_certificate_is_refused(
    running: Daemon, certificates: Certificates
) -> None:
    credentials = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
    target = endpoint(running).removeprefix("tcp:")
    with grpc.secure_channel(target, credentials) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            SessionServiceStub(channel).GetServer(GetServerRequest(), timeout=CALL_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_client_whose_certificate_another_authority_issued_is_refused(
    running: Daemon, certificates: Certificates, tmp_path: Path
) -> None:
    other = Certificates(tmp_path, trustme.CA()).issue("vmm1")
    forged = Tls(certificates.ca, other.certificate, other.key)
    with pytest.raises(ConnectionLost):
        connect(endpoint(running), tls=forged)


def test_a_client_without_tls_is_refused(running: Daemon) -> None:
    with pytest.raises(ConnectionLost):
        connect(endpoint(running))


def test_a_server_whose_authority_the_client_does_not_know_is_refused(
    running: Daemon, certificates: Certificates, tmp_path: Path
) -> None:
    known = certificates.issue("vmm1")
    Certificates(tmp_path, trustme.CA()).issue("x")  # writes its authority's file
    with pytest.raises(ConnectionLost):
        connect(endpoint(running), tls=Tls(tmp_path / "ca.pem", known.certificate, known.key))


def test_the_name_of_the_server_is_checked(running: Daemon, certificates: Certificates) -> None:
    known = certificates.issue("vmm1")
    by_name = Tls(known.ca, known.certificate, known.key, server_name=NAME)
    assert pid(connect(endpoint(running), tls=by_name)) == running.process.pid
    wrong = Tls(known.ca, known.certificate, known.key, server_name="other.test")
    with pytest.raises(ConnectionLost):
        connect(endpoint(running), tls=wrong)


def test_the_log_stays_json_whoever_knocks(running: Daemon) -> None:
    port = running.event("ready")["tcp_port"]
    with socket.create_connection(("127.0.0.1", port), CALL_S) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
        while peer.recv(4096):  # until it is thrown out
            pass
    assert running.event("ready")["tcp_port"] == port


# Without.


def test_plain_tcp_works_on_loopback_if_asked_for(tmp_path: Path) -> None:
    with daemon(tmp_path, "--tcp", "127.0.0.1:0", "--insecure-tcp") as running:
        assert pid(connect(endpoint(running))) == running.process.pid


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "example.test:0"])
def test_plain_tcp_is_refused_elsewhere(address: str) -> None:
    ended = run_daemon("--tcp", address, "--insecure-tcp")
    assert ended.returncode == 1
    assert "TCP without TLS is for loopback addresses only" in ended.stderr


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--tls-cert", "cert.pem", "--insecure-tcp"],
        ["--insecure-tcp", "--tls-allow", "vmm1"],
        ["--tls-cert", "cert.pem", "--tls-key", "key.pem"],
        ["--tls-cert", "cert.pem", "--tls-allow", " , "],
    ],
    ids=["nothing", "both", "names-without-tls", "no-authority", "no-names"],
)
def test_half_of_a_configuration_is_refused(flags: list[str]) -> None:
    ended = run_daemon("--tcp", "127.0.0.1:0", *flags)
    assert ended.returncode == 1
    assert "--t" in ended.stderr.splitlines()[-1]


def test_a_certificate_that_is_not_there_is_refused(tmp_path: Path) -> None:
    flags: list[str | Path] = [
        "--tls-cert",
        tmp_path / "x",
        "--tls-key",
        tmp_path / "y",
        "--tls-client-ca",
        "z",
    ]
    ended = run_daemon("--tcp", "127.0.0.1:0", *flags)
    assert ended.returncode == 1
    assert f"devicehostd: --tls-cert: can't read {tmp_path / 'x'}: No such file" in ended.stderr


def test_a_certificate_that_is_none_is_refused(certificates: Certificates) -> None:
    flags = certificates.server()
    flags[1] = __file__
    ended = run_daemon("--tcp", "127.0.0.1:0", *flags)
    assert ended.returncode == 1
    assert "devicehostd: can't listen on 127.0.0.1:0" in ended.stderr


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run_daemon("--tcp", address, "--insecure-tcp")
    assert ended.returncode == 1
    assert f"devicehostd: can't listen on {address}" in ended.stderr


def test_two_servers_never_share_a_port(tmp_path: Path) -> None:
    with daemon(tmp_path, "--tcp", "127.0.0.1:0", "--insecure-tcp") as running:
        address = endpoint(running).removeprefix("tcp:")
        ended = run_daemon("--tcp", address, "--insecure-tcp")
        assert ended.returncode == 1
        assert f"devicehostd: can't listen on {address}" in ended.stderr
