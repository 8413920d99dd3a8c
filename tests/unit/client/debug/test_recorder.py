"""Where the chunks of a recording end, however it comes in parts."""

from __future__ import annotations

import io
import itertools

from hypothesis import given
from hypothesis import strategies as st

from devicehost.recording import Header, Recording, RecordingWriter, file_end
from devicehost.recording.events import Interrupt, InterruptKind
from devicehost_client.debug.recorder import Chunks


def recorded(count: int, *, per_block: int) -> bytes:
    """A complete recording of so many interrupts."""
    file = io.BytesIO()
    writer = RecordingWriter(file, Header(note="a test"))
    for number in range(count):
        writer.write(Interrupt(number, number, InterruptKind.ASSERTED, "d"))
        if number % per_block == per_block - 1:
            writer.flush()
    writer.close()
    return file.getvalue()


WHOLE = recorded(7, per_block=2)


def parts(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(st.integers(0, len(WHOLE))))
def test_a_recording_is_followed_to_its_end_however_it_is_cut(cuts: list[int]) -> None:
    chunks = Chunks()
    for part in parts(WHOLE, cuts):
        chunks.add(part)
    assert (chunks.whole, chunks.events, chunks.is_ended) == (len(WHOLE), 7, True)


@given(st.integers(0, len(WHOLE) - 1))
def test_what_came_of_a_recording_is_complete_once_its_last_chunk_is_cut_off_and_it_is_ended(
    size: int,
) -> None:
    chunks = Chunks()
    chunks.add(WHOLE[:size])
    assert not chunks.is_ended
    assert chunks.whole <= size
    kept = WHOLE[: chunks.whole] + file_end(chunks.events)
    if b"HEAD" not in WHOLE[: chunks.whole]:
        return  # nothing can be made of it
    recording = Recording.read(io.BytesIO(kept))
    events = list(recording)
    assert recording.is_complete, recording.damage
    assert len(events) == chunks.events <= 7
