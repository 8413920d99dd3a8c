"""Where the bytes of a serial device go to, and where they come from.

A text says it, short enough for a command line (`--device uart16550,chardev=pty`):

    null            nowhere; there is never any input
    file:PATH       appended to a file, which is made (mode 0600) if it isn't there; no input
    pty             a pseudo-terminal of its own; the event `chardev_opened` says which
    pty:LINK        the same, with a symbolic link at LINK to it: `screen LINK`
    unix:PATH       a Unix socket that listens at PATH (mode 0600)
    tcp:HOST:PORT   a TCP socket that listens; loopback only, since nothing protects it
    stdio           the daemon's standard output and input

`open_stream` makes a `Stream` of it, which is all that a device sees:

    >>> stream = open_stream("null")
    >>> stream.start(lambda: None)
    >>> stream.write(b"hello")
    5
    >>> stream.close()

What holds for every stream:
    A device's call never waits: it moves bytes to or from a buffer, and one thread for
    all streams of the process moves them on.
    While a peer is attached, bytes that were taken are not lost, however slow the peer:
    when the buffer is full, `write` takes no more, and the device makes its guest wait.
    While nobody is attached, the newest 64 KiB are kept for whoever comes next; older
    ones are dropped and counted. A file and `null` are always attached, a terminal and a
    socket while somebody has them open.
    A socket has one client at a time; a second one is told so and turned away. A client
    that ends its output has left.
    The source is read only as far as the device takes the input.
    Of a terminal the size is known to a device that follows it (`Stream.follow_window`).
"""

from __future__ import annotations

from devicehost_server.devices.chardev.files import FileStream, NullStream
from devicehost_server.devices.chardev.ptys import PtyStream
from devicehost_server.devices.chardev.sockets import SocketStream, listen_tcp, listen_unix
from devicehost_server.devices.chardev.spec import (
    FileSpec,
    NullSpec,
    PtySpec,
    Spec,
    StdioSpec,
    TcpSpec,
    UnixSpec,
    bad_spec,
    parse_spec,
)
from devicehost_server.devices.chardev.stdio import StdioStream
from devicehost_server.devices.chardev.stream import (
    BACKLOG_SIZE,
    DEFAULT_CAPACITY,
    Stream,
    StreamCounters,
)

__all__ = [
    "BACKLOG_SIZE",
    "DEFAULT_CAPACITY",
    "Stream",
    "StreamCounters",
    "open_stream",
    "parse_spec",
]


def open_stream(text: str, *, owner: str = "", capacity: int = DEFAULT_CAPACITY) -> Stream:
    """Open what `text` says. No byte moves before `Stream.start`.

    Args:
        text: one of the forms above.
        owner: the device's id, for events.
        capacity: how many bytes of output wait for a slow peer before `write` takes no more.

    Raises:
        BadConfig: the text isn't of these forms, or what it names can't be opened.
    """
    spec = parse_spec(text)
    try:
        stream = _open(spec, capacity)
    except OSError as error:
        raise bad_spec(text, f"can't be opened: {error.strerror or error}") from error
    stream.name_events(chardev=text, device=owner)
    return stream


def _open(spec: Spec, capacity: int) -> Stream:
    match spec:
        case NullSpec():
            return NullStream(capacity)
        case FileSpec(path):
            return FileStream(path, capacity)
        case PtySpec(link):
            return PtyStream(link, capacity)
        case UnixSpec(path):
            return SocketStream(listen_unix(path), capacity)
        case TcpSpec(host, port):
            return SocketStream(listen_tcp(host, port), capacity)
        case StdioSpec():
            return StdioStream(capacity)
