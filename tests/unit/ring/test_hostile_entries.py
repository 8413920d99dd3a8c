"""Whatever an entry holds, the server completes it and goes on with the next."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from devicehost.access_status import AccessStatus
from devicehost.ring.layout import CONTROL_SIZE, CONTROLS, DATA_MAX, ENTRIES, ENTRY_SIZE, Operation
from ringpair import BASE, PORT, SIZE, Board, Pair, bus_with

COUNT = 4

words = st.integers(0, (1 << 64) - 1)
addresses = words | st.integers(BASE - 8, BASE + SIZE + 8) | st.integers(PORT - 8, PORT + SIZE + 8)
whats = words | st.builds(
    lambda operation, size, rest: operation | size << 8 | rest << 16,
    st.integers(0, 8),
    st.integers(0, 40) | st.just(255),
    st.just(0) | st.integers(0, (1 << 48) - 1),
)
entries = st.tuples(words, addresses, whats, st.binary(min_size=32, max_size=32))


@given(hostile=st.lists(entries, min_size=1, max_size=10), control=st.binary(max_size=CONTROL_SIZE))
def test_rubbish_is_completed_and_the_queue_goes_on(
    hostile: list[tuple[int, int, int, bytes]], control: bytes
) -> None:
    board = Board()
    pair = Pair(bus_with(board), COUNT)
    pair.memory[CONTROLS : CONTROLS + len(control)] = control
    for sequence, (completion, address, what, data) in enumerate(hostile, start=1):
        at = ENTRIES + sequence % COUNT * ENTRY_SIZE
        called = len(board.seen)
        struct.pack_into("<QQQQ32s", pair.memory, at, sequence, completion, address, what, data)
        assert pair.server.serve(1) == 1
        made, _, _, found = struct.unpack_from("<8xQQII", pair.memory, at)
        operation, size = what & 0xFF, what >> 8
        sound = operation in Operation.__members__.values() and 1 <= size <= DATA_MAX
        assert made in ((2 * sequence, 2 * sequence + 1) if sound else (2 * sequence + 1,))
        if made & 1:
            assert AccessStatus(found) is not AccessStatus.OK
            assert len(board.seen) == called
        else:
            (_, offset, seen) = board.seen[called]
            length = seen if isinstance(seen, int) else len(seen)
            assert 0 < length == size
            assert 0 <= offset <= SIZE - length
    assert pair.server.serve(10) == 0
