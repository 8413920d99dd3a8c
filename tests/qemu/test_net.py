"""A network: two guests on one server."""

from __future__ import annotations

from pathlib import Path

from qemulab.environment import Environment
from qemulab.hosting import Server
from qemulab.machine import running

SIZE_MB = 100
LONG_S = 100.0


def test_a_hundred_megabytes_go_from_guest_to_guest(
    environment: Environment, server: Server, tmp_path: Path
) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    left.mkdir()
    right.mkdir()
    first = server.plug("virtio-net", "net0", netdev="hub:lan", mac="52:54:00:00:00:01")
    second = server.plug("virtio-net", "net1", netdev="hub:lan", mac="52:54:00:00:00:02")
    with (
        running(environment, left, devices=[first]) as sender,
        running(environment, right, devices=[second]) as receiver,
    ):
        for address, machine in enumerate((sender, receiver), 1):
            assert f"52:54:00:00:00:0{address}" in machine.guest.run("ip link show eth0")
            machine.guest.run(f"ip addr add 10.0.0.{address}/24 dev eth0; ip link set eth0 up")
        receiver.guest.run("sleep 1000 | nc -l -p 5000 > /tmp/received &")
        receiver.guest.wait_until("netstat -tln | grep -q :5000")
        sender.guest.run("ping -c 3 -i 0.2 10.0.0.2")
        sender.guest.run(f"dd if=/dev/urandom of=/tmp/sent bs=1M count={SIZE_MB}", LONG_S)
        sender.guest.run("nc 10.0.0.2 5000 < /tmp/sent", LONG_S)
        receiver.guest.wait_until("! pidof nc > /dev/null")
        assert receiver.guest.run("stat -c %s /tmp/received").strip() == str(SIZE_MB << 20)
        sums = [
            machine.guest.run(f"sha256sum < /tmp/{name}", LONG_S)
            for machine, name in ((sender, "sent"), (receiver, "received"))
        ]
        assert sums[0] == sums[1]
