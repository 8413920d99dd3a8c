"""The VERSION message, its JSON, and what two of them come to."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from devicehost.vfio_user import (
    BadHandshake,
    BadValue,
    Capabilities,
    Limits,
    MalformedMessage,
    Migration,
    TwinSocket,
    Version,
)
from devicehost.vfio_user.negotiation import agreement, answer, check_answer, proposal

QEMU = (
    '{"capabilities": {"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, '
    '"max_msg_fds": 16, "write_multiple": true, "max_dma_maps": 65535, "pgsizes": 4096, '
    '"max_data_xfer_size": 1048576}}'
)
"""What QEMU's client sends: major 0, minor 0, and this."""


def message(data: bytes, major: int = 0, minor: int = 0) -> memoryview:
    return memoryview(struct.pack("<HH", major, minor) + data)


def decoded(capabilities: Any) -> Capabilities:
    text = json.dumps({"capabilities": capabilities})
    return Version.decode(message(text.encode() + b"\0")).capabilities


# Decoding.


def test_what_qemu_sends_is_understood() -> None:
    version = Version.decode(message(QEMU.encode() + b"\0"))
    assert version == Version(
        0,
        0,
        Capabilities(
            max_msg_fds=16,
            max_data_xfer_size=1 << 20,
            max_dma_maps=65535,
            pgsizes=4096,
            migration=Migration(pgsize=4096, max_bitmap_size=1 << 28),
            write_multiple=True,
        ),
    )


@pytest.mark.parametrize("data", [b"", b"{}\0", b'{"capabilities":{}}\0', b'{"other":1}\0'])
def test_all_of_the_data_may_be_left_out(data: bytes) -> None:
    assert Version.decode(message(data, 0, 3)) == Version(0, 3, Capabilities())


def test_capabilities_that_are_not_known_are_passed_over() -> None:
    assert decoded({"max_msg_fds": 3, "sparse_mmap_fds": True}) == Capabilities(max_msg_fds=3)


def test_a_null_is_the_same_as_nothing() -> None:
    nulls = dict.fromkeys(("max_msg_fds", "pgsizes", "migration", "write_multiple"))
    assert decoded(nulls) == Capabilities()


def test_a_twin_socket_is_understood() -> None:
    twin = decoded({"twin_socket": {"supported": True, "fd_index": 0}}).twin_socket
    assert twin == TwinSocket(supported=True, fd_index=0)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",  # no NUL behind it
        b"\0",
        b"{\0",
        b'"\0',
        b'{"capabilities":{}}\0\0',
        b"{}\0{}\0",
        b"\xff\xfe\0",
        b"NaN\0",
        b'{"capabilities":{"max_msg_fds":Infinity}}\0',
        b"[" * 100_000 + b"\0",  # deeper than Python goes
        b'{"capabilities":{"max_msg_fds":' + b"9" * 5000 + b"}}\0",  # longer than Python reads
        b"[]\0",
        b"1\0",
        b"null\0",
        b'{"capabilities":"23"}\0',
        b'{"capabilities":null}\0',
    ],
    ids=lambda data: repr(data[:40]),
)
def test_data_that_is_not_a_json_object_with_a_nul_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="VERSION"):
        Version.decode(message(data))


@pytest.mark.parametrize("size", range(4))
def test_a_version_without_its_numbers_is_refused(size: int) -> None:
    with pytest.raises(MalformedMessage, match="payload size"):
        Version.decode(memoryview(bytes(size)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_msg_fds", -1),
        ("max_msg_fds", "8"),
        ("max_msg_fds", 8.0),
        ("max_msg_fds", True),
        ("max_msg_fds", 1 << 64),
        ("max_msg_fds", [8]),
        ("max_data_xfer_size", 0),
        ("max_data_xfer_size", False),
        ("max_dma_maps", 0),
        ("pgsizes", 0),
        ("pgsizes", 2048),
        ("pgsizes", 4097),
        ("migration", "23"),
        ("migration", 0),
        ("migration", {"pgsize": "foo"}),
        ("migration", {"pgsize": 4095}),
        ("migration", {"max_bitmap_size": -1}),
        ("twin_socket", True),
        ("twin_socket", {"supported": 1}),
        ("twin_socket", {"fd_index": -1}),
        ("write_multiple", 1),
        ("write_multiple", "true"),
    ],
)
def test_a_capability_with_a_wrong_value_is_refused(name: str, value: object) -> None:
    with pytest.raises(MalformedMessage) as refused:
        decoded({name: value})
    assert refused.value.metadata["field"] in {name, *(value if isinstance(value, dict) else ())}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_msg_fds", 0),
        ("max_data_xfer_size", 1),
        ("max_dma_maps", 1),
        ("pgsizes", 4096),
        ("max_msg_fds", (1 << 64) - 1),
    ],
)
def test_a_capability_may_be_as_small_or_large_as_this(name: str, value: int) -> None:
    assert getattr(decoded({name: value}), name) == value


def test_a_long_value_is_cut_short_in_the_error() -> None:
    with pytest.raises(MalformedMessage) as refused:
        decoded({"max_msg_fds": "x" * 3000})
    assert len(str(refused.value)) < 200


# Agreeing.


def test_the_answer_to_qemu_is_not_longer_than_what_qemu_sent() -> None:
    # QEMU reads it into the buffer of its proposal, and gives up if it doesn't fit.
    proposed = Version.decode(message(QEMU.encode() + b"\0"))
    answered = answer(proposed, Limits())
    assert len(answered.encode()) <= len(QEMU) + 5


def test_the_answer_to_qemu_has_what_qemu_accepts() -> None:
    proposed = Version.decode(message(QEMU.encode() + b"\0"))
    answered = answer(proposed, Limits())
    assert (answered.major, answered.minor) == (0, 0)
    capabilities = answered.capabilities
    assert capabilities == Capabilities(
        max_msg_fds=8,  # at most 16
        max_data_xfer_size=1 << 20,  # at most 64 MiB
        max_dma_maps=65535,  # no more than that
        pgsizes=4096,  # not 0, and nothing below 4096
        write_multiple=True,
    )


@pytest.mark.parametrize(("proposed", "answered"), [(0, 0), (2, 2), (9, 9), (10, 9), (65535, 9)])
def test_the_lesser_minor_holds(proposed: int, answered: int) -> None:
    assert answer(Version(0, proposed), Limits()).minor == answered


@pytest.mark.parametrize("major", [1, 65535])
def test_another_major_can_not_be_agreed_on(major: int) -> None:
    with pytest.raises(BadHandshake, match=f"version {major}.2"):
        answer(Version(major, 2), Limits())


def test_page_sizes_are_those_that_both_have() -> None:
    limits = Limits(page_sizes=0x1000 | 0x20_0000)
    both = Version(0, 9, Capabilities(pgsizes=0x4000_0000 | 0x20_0000))
    assert answer(both, limits).capabilities.pgsizes == 0x20_0000
    silent = Version(0, 9)
    assert answer(silent, limits).capabilities.pgsizes == 0x1000
    with pytest.raises(BadHandshake, match="pages"):
        answer(Version(0, 9, Capabilities(pgsizes=0x4000_0000)), limits)


@pytest.mark.parametrize(("said", "answered"), [(True, True), (False, None), (None, None)])
def test_several_writes_in_one_message_are_for_who_proposes_them(
    *, said: bool | None, answered: bool | None
) -> None:
    proposed = Version(0, 9, Capabilities(write_multiple=said))
    assert answer(proposed, Limits()).capabilities.write_multiple is answered


def test_what_cannot_be_done_is_not_answered() -> None:
    proposed = Capabilities(
        migration=Migration(pgsize=4096), twin_socket=TwinSocket(supported=True)
    )
    answered = answer(Version(0, 9, proposed), Limits()).capabilities
    assert answered.migration is None
    assert answered.twin_socket is None


def test_each_side_keeps_to_what_the_other_takes() -> None:
    theirs, ours = Limits(max_msg_fds=3, max_data_xfer_size=100), Limits(max_data_xfer_size=200)
    proposed = proposal(theirs)
    answered = answer(proposed, ours)
    of_server = agreement(answered, proposed.capabilities, ours)
    of_client = agreement(answered, answered.capabilities, theirs)
    assert (of_server.max_msg_fds, of_server.max_data_xfer_size) == (3, 100)
    assert (of_client.max_msg_fds, of_client.max_data_xfer_size) == (8, 100)


def test_a_client_that_says_nothing_has_the_defaults_of_the_specification() -> None:
    silent = Version(0, 0)
    answered = answer(silent, Limits())
    agreed = agreement(answered, silent.capabilities, Limits())
    assert agreed.max_msg_fds == 1
    assert agreed.max_data_xfer_size == 1 << 20
    assert agreed.max_dma_maps == 65535
    assert agreed.page_sizes == 4096
    assert not agreed.write_multiple


def test_a_server_that_says_nothing_has_the_defaults_of_the_specification() -> None:
    silent = Version(0, 0)
    agreed = agreement(silent, silent.capabilities, Limits())
    assert agreed.max_msg_fds == 1
    assert agreed.max_data_xfer_size == 1 << 20
    assert not agreed.write_multiple


def test_a_peer_that_says_nothing_takes_no_more_data_than_the_default() -> None:
    silent, generous = Version(0, 0), Limits(max_data_xfer_size=4 << 20)
    agreed = agreement(answer(silent, generous), silent.capabilities, generous)
    assert agreed.max_data_xfer_size == 1 << 20


def test_a_peer_that_takes_no_fds_gets_none() -> None:
    mute = Version(0, 9, Capabilities(max_msg_fds=0))
    assert agreement(answer(mute, Limits()), mute.capabilities, Limits()).max_msg_fds == 0


def test_the_lesser_number_of_dma_maps_holds() -> None:
    proposed = Version(0, 9, Capabilities(max_dma_maps=100))
    assert answer(proposed, Limits()).capabilities.max_dma_maps == 100
    assert answer(proposed, Limits(max_dma_maps=10)).capabilities.max_dma_maps == 10


@pytest.mark.parametrize(
    "wrong",
    [
        Version(1, 9),
        Version(0, 10),
        Version(0, 9, Capabilities(twin_socket=TwinSocket(supported=True, fd_index=0))),
    ],
    ids=repr,
)
def test_an_answer_that_is_none_is_refused(wrong: Version) -> None:
    with pytest.raises(BadHandshake):
        check_answer(wrong, proposal(Limits()))


def test_a_twin_socket_that_is_not_there_is_fine() -> None:
    off = Version(0, 2, Capabilities(twin_socket=TwinSocket(supported=False)))
    check_answer(off, proposal(Limits()))


# Limits.


def test_the_limits_are_those_of_the_documentation() -> None:
    limits = Limits()
    assert limits.max_data_xfer_size == 1048576
    assert limits.max_msg_fds == 8
    assert limits.max_dma_maps == 65535
    assert limits.page_sizes == 4096
    assert limits.max_version_data == 4096
    assert limits.max_drained_size == 16777216
    Limits(max_data_xfer_size=1, max_msg_fds=0, max_dma_maps=1, max_version_data=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_data_xfer_size": 0},
        {"max_msg_fds": -1},
        {"max_dma_maps": 0},
        {"max_version_data": 0},
        {"page_sizes": 0},
        {"page_sizes": 2048},
        {"page_sizes": 0x1800},
    ],
    ids=str,
)
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadValue, match=next(iter(wrong))):
        Limits(**wrong)


def test_the_longest_message_is_a_write_of_the_longest_data() -> None:
    assert Limits().max_message_size == 16 + 16 + (1 << 20)
    assert Limits(max_data_xfer_size=8).max_message_size == 16 + 16 + 4096, "VERSION has to fit"
