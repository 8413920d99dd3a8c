"""A source of randomness: Linux takes it for /dev/hwrng."""

from __future__ import annotations

from qemu.conftest import House

RNG = "/sys/class/misc/hw_random"
READ = "dd if=/dev/hwrng bs=4k count=16 iflag=fullblock 2> /dev/null | xxd -p"


def test_it_feeds_the_hardware_random_number_generator(house: House) -> None:
    guest = house.machine.guest
    assert guest.run(f"cat {RNG}/rng_current").startswith("virtio_rng")
    first, second = (bytes.fromhex(guest.run(READ)) for _ in range(2))
    assert len(first) == len(second) == 1 << 16
    assert first != second
    assert set(first) == set(range(256))
