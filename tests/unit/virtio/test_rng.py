"""The entropy device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devicehost_server.devices.virtio.rng import PIECE_BYTES, RngConfig, VirtioRng
from devicehost_server.model.errors import BadConfig
from virtiolab import VirtioLab, Way


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("mapped", [False, True])
def test_it_fills_buffers_with_random_bytes(way: Way, *, mapped: bool) -> None:
    with VirtioLab(VirtioRng(RngConfig()), way, mapped=mapped) as lab:
        lab.driver.start()
        queue = lab.driver.queues[0]
        requests = [queue.add(writable=[32, 16]) for _ in range(8)]
        queue.kick()
        queue.wait_all()
        assert {len(each.data) for each in requests} == {48}
        assert len({each.data for each in requests}) == 8


def test_a_large_buffer_gets_a_piece() -> None:
    with VirtioLab(VirtioRng(RngConfig(file=Path("/dev/urandom")))) as lab:
        lab.driver.start()
        queue = lab.driver.queues[0]
        request = queue.add(writable=[PIECE_BYTES + 1, 10])
        queue.kick()
        assert len(request.wait()) == PIECE_BYTES


def test_bytes_come_from_a_file_until_its_end(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    with VirtioLab(VirtioRng(RngConfig(file=source))) as lab:
        lab.driver.start()
        queue = lab.driver.queues[0]
        for size, expected in ((4, b"0123"), (10, b"456789")):
            request = queue.add(writable=[size])
            queue.kick()
            assert request.wait() == expected
        queue.add(writable=[1])
        queue.kick()
        lab.wait_until(lab.driver.needs_reset)
        assert "at its end" in str(lab.device.view()["failed"])


def test_a_source_may_have_nothing_for_a_while(tmp_path: Path) -> None:
    source = tmp_path / "fifo"
    os.mkfifo(source)
    device = VirtioRng(RngConfig(file=source))
    with VirtioLab(device) as lab:
        writer = os.open(source, os.O_WRONLY)
        lab.driver.start()
        queue = lab.driver.queues[0]
        first, second = queue.add(writable=[4, 4]), queue.add(writable=[4])
        queue.kick()
        lab.wait_until(lambda: device.queues[0].view()["next_avail"] == 1)
        assert queue.used[1] == 0
        os.write(writer, b"four")
        assert first.wait() == b"four"
        lab.driver.reset()  # nobody waits for what doesn't come
        assert second.written is None
        os.close(writer)


def test_a_request_with_nothing_to_fill_comes_back() -> None:
    with VirtioLab(VirtioRng(RngConfig())) as lab:
        lab.driver.start()
        queue = lab.driver.queues[0]
        request = queue.add([b"what is this?"])
        queue.kick()
        request.wait()
        assert request.written == 0
        assert not lab.driver.needs_reset()


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="No such file") as caught:
        VirtioLab(VirtioRng(RngConfig(file=tmp_path / "none")))
    assert caught.value.metadata["field"] == "file"
