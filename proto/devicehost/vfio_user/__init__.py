"""vfio-user without I/O: messages, framing and sessions, for both ends of a socket.

vfio-user moves a device out of the virtual machine monitor. The monitor is the client: it
asks what the device is, hands its memory and its interrupts over, and forwards the guest's
accesses. The device is the server. Both send commands, and reply to them, on one `AF_UNIX`
stream, with file descriptors beside the bytes.

Theory of operation
-------------------
Bytes and file descriptors go into a session, events come out:

    recvmsg ──► session.receive_data(data, fds) ──► [event, event, …]
                                                        │
    sendmsg ◄── Outgoing(data, fds) ◄── event.answer, session.reply(request, …),
                                        session.fail(request, errno), session.request(…)

Below the session, `framing` cuts the stream into messages, and `messages` is the table of
what each command carries and who sends it. Above it there is only the owner, who does the
I/O, and knows what regions and interrupts mean.

    | file                  | what is in it                                              |
    |-----------------------|------------------------------------------------------------|
    | header, payload       | what all messages have in common                           |
    | version, negotiation  | VERSION, its capabilities, and what comes of them          |
    | access, dma, device,  | a frozen dataclass for each payload, which decodes,        |
    | irqs, regions,        | encodes and prints itself                                  |
    | region_io_fds         |                                                            |
    | messages              | the table of commands                                      |
    | limits                | what is taken from a peer: security limits                 |
    | framing               | bytes to messages                                          |
    | events, session,      | the state machines                                         |
    | server_, client_-     |                                                            |
    | session, in_flight    |                                                            |
    | fast_access           | reads and writes of regions, without any of the above      |
    | errors                | the peer's faults and ours                                 |

Three things are kept apart that are easily mixed up:

- A *bad message* is well framed but wrong. It is answered with an errno, and the stream
  goes on. The session has done it; the owner sends `Rejected.answer`, or counts, if the
  sender wanted no answer.
- A *violation* leaves nothing to go on from: a size that can't be, a command before
  VERSION, a reply to nothing. The owner sends `Violation.answer`, if any, and closes.
- A fault of *ours* is raised where it is made, as an `OurFault`, and changes nothing.

File descriptors are never lost: each one that is fed comes out in exactly one event, as a
request's, as a reply's, or as one to close.

Example, a client and its server without a socket between them:
    >>> client, server = ClientSession(), ServerSession()
    >>> [opened] = server.receive_data(client.propose().data)
    >>> client.receive_data(opened.answer.data)[0].agreement.minor
    9
    >>> sent = client.request(RegionRead(region=1, offset=0xFE00, count=4))
    >>> [request] = server.receive_data(sent.data)
    >>> request.payload
    RegionRead(region=1, offset=0xfe00, count=4)
    >>> sent = server.reply(request, RegionData(bytes.fromhex("78563412")))
    >>> client.receive_data(sent.data)
    [Reply(message_id=1, payload=RegionData(data=<4 bytes: 78 56 34 12>), fds=())]

Source: vfio-user protocol specification 0.9 (QEMU, docs/interop/vfio-user.rst). Where it
leaves something open, the module concerned says what QEMU's client and libvfio-user do.
"""

from __future__ import annotations

from devicehost.vfio_user.access import (
    RegionData,
    RegionRead,
    RegionWrite,
    RegionWriteMulti,
    RegionWritesDone,
    RegionWritten,
)
from devicehost.vfio_user.client_session import ClientSession
from devicehost.vfio_user.device import DeviceFlags, DeviceInfo, DeviceReset, GetDeviceInfo
from devicehost.vfio_user.dma import (
    DmaData,
    DmaFlags,
    DmaMap,
    DmaRead,
    DmaUnmap,
    DmaUnmapped,
    DmaWrite,
    DmaWritten,
)
from devicehost.vfio_user.errors import (
    AlreadyAnswered,
    BadHandshake,
    BadMessage,
    BadValue,
    MalformedMessage,
    MessageTooLong,
    MisplacedCommand,
    NotOpen,
    OurFault,
    OutOfStep,
    OverPeerLimit,
    PeerFault,
    ProtocolViolation,
    TooManyInFlight,
    UnexpectedReply,
    UnknownCommand,
    UnsupportedCommand,
    VfioUserError,
)
from devicehost.vfio_user.events import (
    Ended,
    Event,
    Failed,
    Negotiated,
    Outgoing,
    Rejected,
    Reply,
    Request,
    Violation,
)
from devicehost.vfio_user.framing import ReceiveBuffer, StrayFds
from devicehost.vfio_user.header import Command, Header
from devicehost.vfio_user.irqs import GetIrqInfo, IrqAction, IrqData, IrqFlags, IrqInfo, SetIrqs
from devicehost.vfio_user.limits import Limits
from devicehost.vfio_user.messages import Role
from devicehost.vfio_user.negotiation import Agreement
from devicehost.vfio_user.payload import Done, ReplyPayload, RequestPayload
from devicehost.vfio_user.region_io_fds import (
    GetRegionIoFds,
    IoEventFd,
    IoEventFdFlags,
    IoRegionFd,
    IoRegionFdFlags,
    RegionIoFds,
    ShadowIoEventFd,
)
from devicehost.vfio_user.regions import (
    GetRegionInfo,
    MmapArea,
    RegionFlags,
    RegionInfo,
    RegionType,
    SparseMmap,
)
from devicehost.vfio_user.server_session import ServerSession
from devicehost.vfio_user.session import Session, State
from devicehost.vfio_user.version import Capabilities, Migration, TwinSocket, Version

__all__ = [
    "Agreement",
    "AlreadyAnswered",
    "BadHandshake",
    "BadMessage",
    "BadValue",
    "Capabilities",
    "ClientSession",
    "Command",
    "DeviceFlags",
    "DeviceInfo",
    "DeviceReset",
    "DmaData",
    "DmaFlags",
    "DmaMap",
    "DmaRead",
    "DmaUnmap",
    "DmaUnmapped",
    "DmaWrite",
    "DmaWritten",
    "Done",
    "Ended",
    "Event",
    "Failed",
    "GetDeviceInfo",
    "GetIrqInfo",
    "GetRegionInfo",
    "GetRegionIoFds",
    "Header",
    "IoEventFd",
    "IoEventFdFlags",
    "IoRegionFd",
    "IoRegionFdFlags",
    "IrqAction",
    "IrqData",
    "IrqFlags",
    "IrqInfo",
    "Limits",
    "MalformedMessage",
    "MessageTooLong",
    "Migration",
    "MisplacedCommand",
    "MmapArea",
    "Negotiated",
    "NotOpen",
    "OurFault",
    "OutOfStep",
    "Outgoing",
    "OverPeerLimit",
    "PeerFault",
    "ProtocolViolation",
    "ReceiveBuffer",
    "RegionData",
    "RegionFlags",
    "RegionInfo",
    "RegionIoFds",
    "RegionRead",
    "RegionType",
    "RegionWrite",
    "RegionWriteMulti",
    "RegionWritesDone",
    "RegionWritten",
    "Rejected",
    "Reply",
    "ReplyPayload",
    "Request",
    "RequestPayload",
    "Role",
    "ServerSession",
    "Session",
    "SetIrqs",
    "ShadowIoEventFd",
    "SparseMmap",
    "State",
    "StrayFds",
    "TooManyInFlight",
    "TwinSocket",
    "UnexpectedReply",
    "UnknownCommand",
    "UnsupportedCommand",
    "Version",
    "VfioUserError",
    "Violation",
]
