"""Malformed messages of every command on the local socket: the server answers, and goes on.

Each command has a good form, from which the faults of framing are made, and a list of
payloads and descriptors that are absurd in its own way. After each, the same connection
answers a good request, or it has ended and a new client is served; gRPC goes on in any
case, and no descriptor and no thread is left.
"""

from __future__ import annotations

import mmap
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from errno import E2BIG, EINVAL
from pathlib import Path
from typing import Final

import pytest

from buslab import Client, memfd
from daemonlab import Lab, serving, wait_until
from devicehost.bus_regions import (
    LIMITS,
    OPEN_QUEUE,
    POSTED_FAILURES,
    REGION_RING,
    REGION_STATUS,
    RING_QUEUES,
)
from devicehost.ring.layout import ENTRIES, ENTRY_SIZE, RingLayout
from devicehost.vfio_user import (
    Command,
    GetDeviceInfo,
    GetRegionInfo,
    GetRegionIoFds,
    Header,
    RegionRead,
)
from devicehost.vfio_user.header import HEADER_SIZE, REPLY_TYPE
from devicehost.vfio_user.messages import EXCHANGES, Role
from devicehost.vfio_user.negotiation import proposal
from devicehost_client import DeviceHost
from devicehost_server.unix_socket import UnixListener
from hostilelab import (
    ABSURD,
    ANY,
    BASE,
    ERROR_FLAG,
    FDS_MAX,
    FORMS,
    KERNEL_FDS_MAX,
    MARKER_ID,
    MESSAGE_ID,
    POSTED,
    UNKNOWN_FLAG,
    Form,
    Outcome,
    Peer,
    message,
    name,
)

SCRIBBLED = 0xE000_0000
MAGIC = 0x1DEA_5EED

THREADS = {"local client", "ring", "turned away", "let go"}
"""The threads that a client has."""

# The parties.


@dataclass(frozen=True)
class Leftovers:
    """Descriptors, threads and memory."""

    fds: int
    threads: set[str]
    blocks: int

    def __le__(self, other: Leftovers) -> bool:
        """Whether nothing is left. Others in this process may have closed theirs meanwhile."""
        return (
            self.fds <= other.fds and self.threads <= other.threads and self.blocks <= other.blocks
        )


@dataclass
class Server:
    """A server with a local socket, and another client of it."""

    lab: Lab
    path: Path
    other: DeviceHost

    def leftovers(self) -> Leftovers:
        """What a client could leave behind."""
        threads = {thread.name for thread in threading.enumerate()} & THREADS
        blocks = self.lab.server.memory.blocks()
        return Leftovers(len(list(Path("/proc/self/fd").iterdir())), threads, len(blocks))

    def is_free(self) -> bool:
        """Whether the place of the one client of the local socket is."""
        with Peer(self.path, opened=False) as peer:
            outcome = peer.send_and_see(message(Command.VERSION, proposal(LIMITS).encode()))
        return outcome == ([(MESSAGE_ID, Command.VERSION, 0)], True)


@pytest.fixture(scope="module")
def fds() -> Iterator[dict[str, int]]:
    """Descriptors of several kinds, by name."""
    with ExitStack() as closing:
        made = {
            "memory": memfd(0x4000),
            "unsealed memory": memfd(0x4000, sealed=False),
            "eventfd": os.eventfd(0, os.EFD_CLOEXEC),
            "path": os.open("/", os.O_PATH | os.O_CLOEXEC),
            "folder": os.open("/", os.O_RDONLY | os.O_CLOEXEC),
            "device": os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC),
            "socket": socket.socket(socket.AF_UNIX).detach(),
        }
        made["pipe"], made["pipe to write"] = os.pipe()
        made["read-only memory"] = os.open(f"/proc/self/fd/{made['memory']}", os.O_RDONLY)
        for fd in made.values():
            closing.callback(os.close, fd)
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, fds: dict[str, int]) -> Iterator[Server]:
    del fds  # they are there before anything is counted
    directory = tmp_path_factory.mktemp("malformed")
    path = directory / "bus.sock"
    with serving(directory, local=UnixListener(path)) as lab:
        other = lab.host(transport="grpc-stream")
        other.hotplug.plug("register", {"base": hex(BASE)}, device_id="target")
        other.hotplug.plug("register", {"base": hex(SCRIBBLED)}, device_id="scribbled")
        other.mmio_write(BASE + 0x20, 4, MAGIC)
        yield Server(lab, path, other)


@pytest.fixture(scope="module")
def untouched(server: Server) -> Leftovers:
    """What there is when nobody has connected yet."""
    return server.leftovers()


@pytest.fixture(autouse=True)
def goes_on(server: Server, untouched: Leftovers) -> Iterator[None]:
    """Whatever a test sends, everybody else is served, and nothing is left behind."""
    yield
    assert server.other.mmio_read(BASE + 0x20, 4) == MAGIC
    wait_until(server.is_free, "a new client is served")
    wait_until(lambda: server.leftovers() <= untouched, f"not {untouched} again")


each_command = pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: name(form.command))


def picked(fds: dict[str, int], kinds: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(fds[kind] for kind in kinds)


def refusal(form: Form, errno: int = EINVAL) -> Outcome:
    """The form is refused, and the connection goes on. What isn't looked at has its own reason."""
    return [(MESSAGE_ID, form.command, form.errno or errno)], True


def test_there_is_a_form_of_each_command_and_absurdities_of_each_that_is_served() -> None:
    assert set(Command) <= set(FORMS)
    served = {number for number, exchange in EXCHANGES.items() if exchange.sender is Role.CLIENT}
    assert {absurd.command for absurd in ABSURD} == served


# Faults that every command can have.


@each_command
def test_the_form_is_good(server: Server, fds: dict[str, int], form: Form) -> None:
    with Peer(server.path) as peer:
        outcome = peer.send_and_see(message(form.command, form.payload), picked(fds, form.fds))
    assert outcome == ([(MESSAGE_ID, form.command, form.errno)], True)


@each_command
def test_a_message_that_is_cut_anywhere_is_waited_for(
    server: Server, fds: dict[str, int], form: Form
) -> None:
    whole = message(form.command, form.payload)
    unmap = message(Command.DMA_UNMAP, FORMS[Command.DMA_UNMAP].payload)
    with Peer(server.path) as peer:
        for cut in range(1, len(whole)):
            peer.send(whole[:cut], picked(fds, form.fds))
            wait_until(peer.is_taken)
            assert peer.send_and_see(whole[cut:]) == (
                [(MESSAGE_ID, form.command, form.errno)],
                True,
            )
            assert peer.send_and_see(unmap)[1]


@each_command
def test_descriptors_may_come_with_the_last_byte(
    server: Server, fds: dict[str, int], form: Form
) -> None:
    whole = message(form.command, form.payload)
    with Peer(server.path) as peer:
        peer.send(whole[:-1])
        wait_until(peer.is_taken)
        outcome = peer.send_and_see(whole[-1:], picked(fds, form.fds))
    assert outcome == ([(MESSAGE_ID, form.command, form.errno)], True)


@each_command
def test_a_client_that_goes_within_a_message_leaves_nothing(
    server: Server, fds: dict[str, int], form: Form
) -> None:
    with Peer(server.path) as peer:
        peer.send(message(form.command, form.payload)[:-1], picked(fds, ("memory", "eventfd")))
        wait_until(peer.is_taken)


@dataclass(frozen=True)
class Fault:
    """What is wrong with a message, whatever its command is.

    Attributes:
        what: the fault, for the id.
        spoil: makes the bytes of it.
        expect: what becomes of it.
        opened: whether VERSION came before.
    """

    what: str
    spoil: Callable[[Form], bytes]
    expect: Callable[[Form], Outcome]
    opened: bool = True

    def __str__(self) -> str:
        return self.what


def of_size(size: int) -> Callable[[Form], bytes]:
    return lambda form: message(form.command, form.payload, size=size)


def with_flags(flags: int) -> Callable[[Form], bytes]:
    return lambda form: message(form.command, form.payload, flags=flags)


def drained(size: int) -> Callable[[Form], bytes]:
    return lambda form: message(form.command, bytes(size - HEADER_SIZE))


def ended(_: Form) -> Outcome:
    return [], False


def ended_with_a_reason(form: Form) -> Outcome:
    return [(MESSAGE_ID, form.command, EINVAL)], False


def malformed(form: Form) -> Outcome:
    return [(MESSAGE_ID, form.command, EINVAL)], True


def too_long(form: Form) -> Outcome:
    return [(MESSAGE_ID, form.command, E2BIG)], True


def unanswered(_: Form) -> Outcome:
    return [], True


FAULTS: Final = (
    Fault("a-byte-too-long", lambda form: message(form.command, form.payload + b"x"), refusal),
    Fault("a-byte-short", lambda form: message(form.command, form.payload[:-1]), refusal),
    Fault("without-payload", lambda form: message(form.command), refusal),
    Fault("longer-than-is-taken", drained(LIMITS.max_message_size + 1), too_long),
    Fault("size-0", of_size(0), ended),
    Fault("size-15", of_size(HEADER_SIZE - 1), ended),
    Fault("size-too-large-to-be-one", of_size(LIMITS.max_drained_size + 1), ended),
    Fault("size-4-GiB", of_size((1 << 32) - 1), ended),
    Fault("unknown-flag", with_flags(UNKNOWN_FLAG), malformed),
    Fault("error-in-a-command", with_flags(ERROR_FLAG), malformed),
    Fault("neither-command-nor-reply", with_flags(2), ended),
    Fault("reply-to-nothing", with_flags(REPLY_TYPE), ended),
    Fault("error-reply-to-nothing", with_flags(REPLY_TYPE | ERROR_FLAG), ended),
    Fault("posted", with_flags(POSTED), unanswered),
    Fault(
        "posted-and-too-long",
        lambda form: message(form.command, form.payload + b"x", flags=POSTED),
        unanswered,
    ),
    Fault("posted-with-unknown-flag", with_flags(POSTED | UNKNOWN_FLAG), unanswered),
)

EARLY: Final = (
    Fault("before-version", with_flags(0), ended_with_a_reason, opened=False),
    Fault("posted-before-version", with_flags(POSTED), ended, opened=False),
    Fault("reply-before-version", with_flags(REPLY_TYPE), ended, opened=False),
    Fault(
        "too-long-before-version",
        drained(LIMITS.max_message_size + 1),
        ended_with_a_reason,
        opened=False,
    ),
    Fault("size-0-before-version", of_size(0), ended, opened=False),
)


@each_command
@pytest.mark.parametrize("fault", [*FAULTS, *EARLY], ids=str)
def test_a_fault_of_framing_is_answered_or_ends_that_connection_only(
    server: Server, fds: dict[str, int], form: Form, fault: Fault
) -> None:
    spoiled = fault.spoil(form)
    if spoiled == message(form.command, form.payload) and fault.opened:
        spoiled = message(form.command, b"x")  # without a payload there is nothing to cut off
    if fault in EARLY and form.command == Command.VERSION and fault.what == "before-version":
        spoiled = message(Command.VERSION, form.payload[:-1])
    with Peer(server.path, opened=fault.opened) as peer:
        outcome = peer.send_and_see(spoiled, picked(fds, form.fds))
    assert outcome == fault.expect(form)


@each_command
@pytest.mark.parametrize("more", [1, 2])
def test_descriptors_of_the_wrong_number_are_refused_and_closed(
    server: Server, fds: dict[str, int], form: Form, more: int
) -> None:
    kinds = (*form.fds, *("eventfd",) * more)
    with Peer(server.path) as peer:
        outcome = peer.send_and_see(message(form.command, form.payload), picked(fds, kinds))
        assert outcome == refusal(form)
        if form.fds:
            fewer = picked(fds, form.fds[1:])
            assert peer.send_and_see(message(form.command, form.payload), fewer) == refusal(form)


@each_command
def test_one_descriptor_more_than_is_taken_is_refused(
    server: Server, fds: dict[str, int], form: Form
) -> None:
    with Peer(server.path) as peer:
        too_many = picked(fds, ("eventfd",) * (FDS_MAX + 1))
        assert peer.send_and_see(message(form.command, form.payload), too_many) == malformed(form)


@each_command
def test_more_descriptors_than_there_is_room_for_end_the_connection(
    server: Server, fds: dict[str, int], form: Form
) -> None:
    with Peer(server.path) as peer:
        flood = picked(fds, ("eventfd",) * KERNEL_FDS_MAX)
        _, goes_on = peer.send_and_see(message(form.command, form.payload), flood)
        assert not goes_on


def test_posted_faults_are_counted(server: Server, fds: dict[str, int]) -> None:
    del fds
    count = message(
        Command.REGION_READ, RegionRead(REGION_STATUS, POSTED_FAILURES, 8).encode(), id_=MARKER_ID
    )
    faults = [fault for fault in FAULTS if fault.what.startswith("posted-")]
    with Peer(server.path) as peer:
        for form in FORMS.values():
            for fault in faults:
                peer.send(fault.spoil(form))
        peer.send(count)
        header = peer.socket.recv(HEADER_SIZE, socket.MSG_WAITALL)
        assert Header.decode(header).message_id == MARKER_ID
        found = peer.socket.recv(24, socket.MSG_WAITALL)[16:]
    assert int.from_bytes(found, "little") == len(FORMS) * len(faults)


def test_good_and_bad_messages_in_one_go_are_answered_in_order(server: Server) -> None:
    bad = [fault for fault in FAULTS if fault.expect in (refusal, malformed, unanswered)]
    plain = [form for form in FORMS.values() if not form.fds and form.command != Command.VERSION]
    stream, expected = b"", []
    for form in plain:
        for fault in bad:
            spoiled = fault.spoil(form)
            if spoiled != message(form.command, form.payload):
                stream += spoiled
                expected += fault.expect(form)[0]
            stream += message(form.command, form.payload)
            expected.append((MESSAGE_ID, form.command, form.errno))
    with Peer(server.path) as peer:
        sender = threading.Thread(
            target=peer.send,
            args=(
                stream + message(Command.DEVICE_GET_INFO, GetDeviceInfo().encode(), id_=MARKER_ID),
            ),
        )
        sender.start()
        outcome = peer.see()
        sender.join()
    assert outcome == (expected, True)


# VERSION, which comes first and once.


def version(text: bytes, *, major: int = 0, minor: int = 9) -> bytes:
    return struct.pack("<HH", major, minor) + text


@pytest.mark.parametrize(
    ("payload", "kinds"),
    [
        pytest.param(b"", (), id="empty"),
        pytest.param(b"\0\0\0", (), id="half-a-number"),
        pytest.param(version(b"{}"), (), id="no-nul"),
        pytest.param(version(b"\xff\xfe\0"), (), id="not-utf-8"),
        pytest.param(version(b"hello\0"), (), id="not-json"),
        pytest.param(version(b"[]\0"), (), id="not-an-object"),
        pytest.param(version(b'{"capabilities":3}\0'), (), id="capabilities-are-a-number"),
        pytest.param(version(b'{"capabilities":{"max_msg_fds":-1}}\0'), (), id="negative"),
        pytest.param(version(b'{"capabilities":{"max_msg_fds":NaN}}\0'), (), id="not-a-number"),
        pytest.param(version(b'{"capabilities":{"max_data_xfer_size":0}}\0'), (), id="no-data"),
        pytest.param(
            version(b'{"capabilities":{"max_dma_maps":1' + b"0" * 30 + b"}}\0"), (), id="huge"
        ),
        pytest.param(version(b'{"capabilities":{"pgsizes":4097}}\0'), (), id="odd-pages"),
        pytest.param(version(b"[" * 2000 + b"\0"), (), id="nested-without-end"),
        pytest.param(version(b'{"a":' * 800 + b"1" + b"}" * 800 + b"\0"), (), id="too-long"),
        pytest.param(version(b"{}\0", major=1), (), id="another-major"),
        pytest.param(version(b"{}\0"), ("eventfd",), id="with-a-descriptor"),
        pytest.param(version(b"{}\0"), ("eventfd",) * FDS_MAX, id="with-many-descriptors"),
    ],
)
def test_a_version_that_is_none_ends_the_connection_with_a_reason(
    server: Server, fds: dict[str, int], payload: bytes, kinds: tuple[str, ...]
) -> None:
    with Peer(server.path, opened=False) as peer:
        outcome = peer.send_and_see(message(Command.VERSION, payload), picked(fds, kinds))
    assert outcome == ([(MESSAGE_ID, Command.VERSION, EINVAL)], False)


def test_a_version_that_is_cut_anywhere_is_waited_for(server: Server) -> None:
    whole = message(Command.VERSION, proposal(LIMITS).encode())
    for cut in range(1, len(whole)):
        wait_until(server.is_free)
        with Peer(server.path, opened=False) as peer:
            peer.send(whole[:cut])
            wait_until(peer.is_taken)
            assert peer.send_and_see(whole[cut:]) == ([(MESSAGE_ID, Command.VERSION, 0)], True)


def test_a_client_that_says_nothing_or_half_a_header_leaves_nothing(server: Server) -> None:
    for size in range(HEADER_SIZE):
        wait_until(server.is_free)
        with Peer(server.path, opened=False) as peer:
            peer.send(message(Command.VERSION)[:size])
            wait_until(peer.is_taken)


# What is absurd in a way of its own.


@pytest.mark.parametrize("form", ABSURD, ids=str)
@pytest.mark.parametrize("posted", [False, True], ids=["", "posted"])
def test_what_is_absurd_is_refused(
    server: Server, fds: dict[str, int], form: Form, *, posted: bool
) -> None:
    sent = message(form.command, form.payload, flags=POSTED if posted else 0)
    with Peer(server.path) as peer:
        answers, goes_on = peer.send_and_see(sent, picked(fds, form.fds))
    assert goes_on
    if posted:
        assert answers == []
    else:
        [(message_id, command, errno)] = answers
        assert (message_id, command) == (MESSAGE_ID, form.command)
        assert errno == form.errno if form.errno != ANY else errno > 0


def test_a_refused_mapping_and_a_refused_interrupt_leave_the_good_ones(
    server: Server, fds: dict[str, int]
) -> None:
    good = FORMS[Command.DMA_MAP]
    with Peer(server.path) as peer:
        mapped = message(good.command, good.payload)
        assert peer.send_and_see(mapped, picked(fds, good.fds))[0][0][2] == 0
        [block] = server.lab.server.memory.blocks()
        for form in ABSURD:
            if form.command in (Command.DMA_MAP, Command.DMA_UNMAP):
                peer.send_and_see(message(form.command, form.payload), picked(fds, form.fds))
        assert peer.send_and_see(mapped, picked(fds, good.fds))[0][0][2] != 0, "it overlaps"
        assert server.lab.server.memory.blocks() == (block,)


# The ring, which is the client's to write to.

QUEUES_SCRIBBLED = 3
SCRIBBLES = 20_000


def test_a_client_that_scribbles_over_its_ring_harms_neither_its_socket_nor_anybody_else(
    server: Server,
) -> None:
    chance = random.Random(SCRIBBLES)  # the same each time
    layout = RingLayout(RING_QUEUES)
    with Client(server.path) as client:
        region = client.ask(GetRegionInfo(REGION_RING))
        bells = client.ask(GetRegionIoFds(REGION_RING, 4096))
        with mmap.mmap(region.fds[0], layout.size) as memory:
            for queue in range(QUEUES_SCRIBBLED):
                client.write(OPEN_QUEUE, queue.to_bytes(8, "little"), REGION_STATUS)
            for number in range(SCRIBBLES):
                # An entry that is nearly right, announced in turn; then rubbish anywhere.
                sequence = 1 + number % layout.entries
                entry = ENTRIES + (chance.randrange(4) * layout.entries + sequence) * ENTRY_SIZE
                what = chance.randrange(8) | chance.randrange(40) << 8
                address = SCRIBBLED + chance.randrange(-8, 0x100)
                struct.pack_into("<QQ", memory, entry + 16, address, what)
                struct.pack_into("<Q", memory, entry, sequence)
                place = chance.randrange(layout.size - 8)
                memory[place : place + 8] = chance.randbytes(8)
                if number % 100 == 0:
                    os.eventfd_write(chance.choice(bells.fds), 1)
                    assert server.other.mmio_read(BASE + 0x20, 4) == MAGIC
                    assert client.read(BASE + 0x20) == MAGIC.to_bytes(4, "little")
        for fd in (*region.fds, *bells.fds):
            os.close(fd)
