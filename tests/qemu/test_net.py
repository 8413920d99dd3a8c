"""A network: two guests on one server, and a guest beside one of QEMU's own network devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qemulab.environment import Environment
from qemulab.hosting import Server
from qemulab.machine import Machine, running

LONG_S = 100.0


def connect(machines: Sequence[Machine]) -> None:
    """Give 10.0.0.1 to the first, 10.0.0.2 to the second; see that they reach each other."""
    for number, machine in enumerate(machines, 1):
        assert f"52:54:00:00:00:0{number}" in machine.guest.run("ip link show eth0")
        machine.guest.run(f"ip addr add 10.0.0.{number}/24 dev eth0; ip link set eth0 up")
    machines[0].guest.run("ping -c 3 -i 0.2 -w 10 10.0.0.2")


def send(size_mb: int, sender: Machine, receiver: Machine, address: str) -> None:
    """Send random bytes to `address`, which is the receiver's; see that they arrive."""
    # Its input stays open: nc ends when the other end has nothing more to say.
    receiver.guest.run("sleep 1000 | nc -l -p 5000 > /tmp/received &")
    receiver.guest.wait_until("netstat -tln | grep -q :5000")
    sender.guest.run(f"dd if=/dev/urandom of=/tmp/sent bs=1M count={size_mb}", LONG_S)
    sender.guest.run(f"nc {address} 5000 < /tmp/sent", LONG_S)
    receiver.guest.wait_until("! pidof nc > /dev/null")
    sent = sender.guest.run("sha256sum < /tmp/sent", LONG_S)
    assert receiver.guest.run("sha256sum < /tmp/received", LONG_S) == sent
    assert receiver.guest.run("stat -c %s /tmp/received").strip() == str(size_mb << 20)


def folders(folder: Path) -> tuple[Path, Path]:
    made = folder / "left", folder / "right"
    for each in made:
        each.mkdir()
    return made


def test_a_hundred_megabytes_go_from_guest_to_guest(
    environment: Environment, server: Server, tmp_path: Path
) -> None:
    left, right = folders(tmp_path)
    first = server.plug("virtio-net", "net0", netdev="hub:lan", mac="52:54:00:00:00:01")
    second = server.plug("virtio-net", "net1", netdev="hub:lan", mac="52:54:00:00:00:02")
    with (
        running(environment, left, devices=[first]) as sender,
        running(environment, right, devices=[second]) as receiver,
    ):
        connect([sender, receiver])
        send(100, sender, receiver, "10.0.0.2")


def test_it_talks_to_a_stream_netdev_of_qemu(
    environment: Environment, server: Server, tmp_path: Path
) -> None:
    left, right = folders(tmp_path)
    path = tmp_path / "stream"
    ours = server.plug("virtio-net", "net0", netdev=f"unix-listen:{path}", mac="52:54:00:00:00:01")
    theirs = {"driver": "virtio-net-pci", "netdev": "lan", "mac": "52:54:00:00:00:02"}
    netdev = f"stream,id=lan,server=off,addr.type=unix,addr.path={path}"
    with (
        running(environment, left, devices=[ours]) as one,
        running(environment, right, "-netdev", netdev, devices=[theirs]) as other,
    ):
        connect([one, other])
        send(20, one, other, "10.0.0.2")
        send(20, other, one, "10.0.0.1")
