"""A recording is made smaller, and still shows the same difference first."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from devicehost.recording import Recording
from devicehost.recording.events import Access, Plugged
from devicehost_server.replay import NothingToShrink, Replayer, Shrunk, Spoiled, What, shrink
from replaylab import TYPES, Bench

RAM, OTHER = 0xC000_0000, 0xC100_0000


@pytest.fixture(name="ram")
def ram_fixture(bench: Bench) -> str:
    bench.plug("scratch", "ram", base=hex(RAM), size="256")
    bench.plug("scratch", "other", base=hex(OTHER), size="256")
    bench.begin()
    return "ram"


def shrunk(
    bench: Bench, *faults: Spoiled, time_limit_s: float = 60
) -> tuple[Shrunk, Recording, list[tuple[int, int]]]:
    """What became of the bench's recording; and the recording, and the progress."""
    out = io.BytesIO()
    progress: list[tuple[int, int]] = []
    result = shrink(
        bench.recording,
        out,
        TYPES,
        faults,
        time_limit_s=time_limit_s,
        on_progress=lambda units, replays: progress.append((units, replays)),
    )
    out.seek(0)
    return result, Recording.read(out), progress


def accesses(recording: Recording) -> list[Access]:
    return [event for event in recording if isinstance(event, Access)]


def busy(bench: Bench, times: int) -> None:
    for number in range(times):
        bench.mmio_out(RAM + 4 * (number % 8), number)
        bench.mmio_in(RAM + 4 * (number % 8))
        bench.mmio_in(OTHER + 4 * (number % 8))


def forget(bench: Bench, *values: int) -> None:
    """Take writes of these values to the first register out of the recording."""
    bench.events = [
        event
        for event in bench.events
        if not (
            isinstance(event, Access)
            and event.address == RAM + 0x80
            and event.operation.value == "write"
            and int.from_bytes(event.data, "little") in values
        )
    ]


@pytest.mark.usefixtures("ram")
def test_what_is_not_needed_goes(bench: Bench) -> None:
    busy(bench, 200)
    bench.mmio_out(RAM + 0x80, 0x1111)
    busy(bench, 100)
    bench.mmio_out(RAM + 0x80, 0x2222)
    busy(bench, 300)
    bench.mmio_in(RAM + 0x80)
    busy(bench, 100)
    forget(bench, 0x2222)  # so that the read returns 0x1111: what it says is wrong, and why
    whole = next(Replayer(bench.recording, TYPES).run())
    result, recording, progress = shrunk(bench)
    assert (whole.expected, whole.got) == ("22220000", "11110000")
    assert result.difference.signature == whole.signature
    assert [(each.operation.value, each.data[:2].hex()) for each in accesses(recording)] == [
        ("write", "1111"),
        ("read", "2222"),
    ]
    assert [device.id for device in recording.header.devices] == ["ram"]
    assert result.is_minimal
    assert (result.accesses, result.events) == (2, len(list(recording)))
    assert result.accesses_before == len(accesses(bench.recording)) == 2102
    assert "shrunk" in recording.header.note
    assert [replays for _, replays in progress] == list(range(1, result.replays + 1))
    assert result.replays < 100


@pytest.mark.usefixtures("ram")
def test_a_difference_that_needs_nothing_before_it_is_left_alone(bench: Bench) -> None:
    busy(bench, 100)
    bench.mmio_out(RAM + 0x80, 0x1111)
    bench.mmio_in(RAM + 0x80)
    forget(bench, 0x1111)
    result, recording, _ = shrunk(bench)
    assert len(accesses(recording)) == result.accesses == 1


@pytest.mark.usefixtures("ram")
def test_what_was_shrunk_replays_with_the_same_difference_only(bench: Bench) -> None:
    busy(bench, 50)
    bench.mmio_out(RAM + 0x80, 0x1111)
    bench.mmio_in(RAM + 0x80)
    forget(bench, 0x1111)
    result, recording, _ = shrunk(bench)
    assert list(Replayer(recording, TYPES).run()) == [result.difference]


@pytest.mark.usefixtures("ram")
def test_when_the_time_is_up_what_was_found_by_then_is_written(bench: Bench) -> None:
    busy(bench, 50)
    bench.mmio_out(RAM + 0x80, 0x1111)
    bench.mmio_in(RAM + 0x80)
    busy(bench, 50)
    forget(bench, 0x1111)
    result, recording, _ = shrunk(bench, time_limit_s=0)
    assert not result.is_minimal
    assert result.difference.what is What.READ
    assert len(accesses(recording)) == 151, "only what comes after it is gone"
    assert next(Replayer(recording, TYPES).run()).signature == result.difference.signature


@pytest.mark.usefixtures("ram")
def test_a_device_that_came_later_comes_in_what_is_left_of_it(bench: Bench) -> None:
    busy(bench, 20)
    base = 0xC200_0000
    bench.plug_recorded("scratch", "late", base=hex(base))
    busy(bench, 20)
    bench.mmio_out(base, 7)
    bench.mmio_in(base)
    forgotten = next(
        event for event in bench.events if isinstance(event, Access) and event.address == base
    )
    bench.events.remove(forgotten)
    result, recording, _ = shrunk(bench)
    assert result.difference.device == "late"
    assert result.accesses == 1
    assert any(isinstance(event, Plugged) for event in recording)


@pytest.mark.usefixtures("ram")
def test_an_interrupt_that_needs_two_devices_keeps_both(bench: Bench) -> None:
    for device, base in (("one", 0xC200_0000), ("two", 0xC300_0000)):
        bench.plug_recorded("scratch", device, base=hex(base), irq="5")
    bench.mmio_out(0xC200_00FF, 1, 1)
    busy(bench, 20)
    bench.mmio_out(0xC300_00FF, 1, 1)  # no change: it is asserted already
    busy(bench, 20)
    bench.mmio_out(0xC200_00FF, 0, 1)
    bench.mmio_out(0xC300_00FF, 0, 1)
    needless = [
        event
        for event in bench.events
        if isinstance(event, Access) and event.address == 0xC200_00FF and event.data == b"\0"
    ]
    bench.events.remove(needless[0])
    result, recording, _ = shrunk(bench)
    assert (result.difference.what, result.difference.device) == (What.INTERRUPT, "two")
    assert result.accesses < 5
    assert next(Replayer(recording, TYPES).run()).signature == result.difference.signature


def test_a_recording_without_a_difference_can_not_be_shrunk(bench: Bench, ram: str) -> None:
    busy(bench, 5)
    assert ram in {device.id for device in bench.header.devices}
    with pytest.raises(NothingToShrink, match="no difference"):
        shrunk(bench)


def test_a_stuck_bit_of_a_serial_port_is_shown_by_very_few_accesses(
    bench: Bench, tmp_path: Path
) -> None:
    bench.plug("uart16550", "com1", chardev=f"file:{tmp_path}/out")
    bench.begin()
    for character in b"the quick brown fox" * 20:
        bench.pio_out(0x3F8, character)
        bench.pio_in(0x3FB)
        bench.pio_in(0x3FD)
    result, recording, _ = shrunk(bench, Spoiled("com1", "LSR", stuck_at_zero=0x20))
    assert result.accesses * 10 < result.accesses_before
    assert next(
        Replayer(recording, TYPES, [Spoiled("com1", "LSR", stuck_at_zero=0x20)]).run()
    ).registers_got
