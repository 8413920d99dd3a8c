"""A guest in a process of its own: it drives a virtio device over a socket.

Its memory is shared with the device's process, and both work on it at the same time, on
processors of their own. Run as a program, it makes many requests, and counts.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
import threading
from contextlib import suppress

from virtiolab import Driver, GuestRam, Request, VirtioLab, Way

MESSAGE = struct.Struct("<cHIQ")
READ, WRITE, END = b"r", b"w", b"e"


class RemoteGuest:
    """The side of the guest."""

    way = Way.PCI

    def __init__(self, sock: socket.socket, ram_fd: int, interrupt_fd: int) -> None:
        self.ram = GuestRam(fd=ram_fd)
        self.interrupted = threading.Event()
        self._sock = sock
        self._interrupt_fd = interrupt_fd
        threading.Thread(target=self._listen, daemon=True).start()

    def read(self, offset: int, size: int = 4) -> int:
        self._sock.sendall(MESSAGE.pack(READ, offset, size, 0))
        return int.from_bytes(self._sock.recv(8, socket.MSG_WAITALL), "little")

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self._sock.sendall(MESSAGE.pack(WRITE, offset, size, value))

    def _listen(self) -> None:
        while True:
            os.eventfd_read(self._interrupt_fd)
            self.interrupted.set()


def serve(lab: VirtioLab, sock: socket.socket, interrupt_fd: int) -> None:
    """The side of the device: make accesses until the guest ends."""
    lab.interrupts.subscribe(lambda _: os.eventfd_write(interrupt_fd, 1))
    with suppress(ConnectionError):
        while message := sock.recv(MESSAGE.size, socket.MSG_WAITALL):
            operation, offset, size, value = MESSAGE.unpack(message)
            if operation == READ:
                sock.sendall(lab.read(offset, size).to_bytes(8, "little"))
            elif operation == WRITE:
                lab.write(offset, value, size)


def run(driver: Driver, count: int, seed: int) -> tuple[int, int]:
    """Make `count` requests; return how many didn't come back as they should, and the kicks."""
    chance = random.Random(seed)
    queue = driver.queues[0]
    good = made = 0
    expected: dict[Request, bytes] = {}

    def look() -> None:
        nonlocal good
        for request in queue.collect():
            good += request.data == expected.pop(request)

    while made < count:
        for _ in range(min(chance.randint(1, 4), count - made)):
            data = b"%d" % made
            expected[queue.add([data], [16])] = data
            made += 1
        queue.kick()
        if chance.random() < 0.7:
            look()
        if len(queue.free) < 16 or chance.random() < 0.3:
            queue.wait(lambda: not queue.requests)
            good += sum(request.data == data for request, data in expected.items())
            expected.clear()
    queue.wait_all()
    good += sum(request.data == data for request, data in expected.items())
    return count - good, queue.kicks


def main() -> None:
    """Arguments: descriptors of socket, memory and interrupts; how many requests; a seed."""
    sock_fd, ram_fd, interrupt_fd, count, seed, features = map(int, sys.argv[1:])
    sock = socket.socket(fileno=sock_fd)
    driver = Driver(RemoteGuest(sock, ram_fd, interrupt_fd))
    driver.start(features)
    bad, kicks = run(driver, count, seed)
    sys.stdout.write(f"{bad} {kicks}\n")


if __name__ == "__main__":
    main()
