"""The local sockets: where vfio-user clients connect, and which of them may.

One client of each at a time. Who isn't served is told why (`turned_away`): EBUSY while another
one is, EACCES to a peer that may not (`peers`), ESHUTDOWN while the server stops.

The thread that accepts also watches the client that is served. Its own thread can't see
that it has gone while it is in a device that hangs. If it doesn't end by itself soon after
the client hung up, it is let go: what the client had is freed, and the next one is served.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from errno import EACCES, EBUSY, ESHUTDOWN

import structlog

from devicehost_server.endpoints.connection import Connection
from devicehost_server.endpoints.endpoint import Endpoint
from devicehost_server.endpoints.peers import Peer
from devicehost_server.endpoints.turned_away import TurnedAway
from devicehost_server.unix_socket import SocketPath, UnixListener

_log = structlog.get_logger(__name__)

LINGER_S = 0.25
"""How long a client that hung up may take for what it sent before, in seconds."""

_ACCEPT_AGAIN_S = 0.1


class VfioUserSocket:
    """Listens for clients of an endpoint, until `close`. They wait until `start`.

    Args:
        listener: where, and for whom.
        endpoint: what clients reach.

    Raises:
        ListenError: it can't listen there.
    """

    def __init__(self, listener: UnixListener, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._path = SocketPath(listener, lambda: self._socket.bind(str(listener.path)))
        except BaseException:
            self._socket.close()
            raise
        self._socket.listen()
        self._turned_away = TurnedAway()
        self._client: Connection | None = None
        self._peer: Peer | None = None
        self._hang_up: socket.socket | None = None  # the client's, to be watched
        self._draining = False
        self._retired = False
        self._lock = threading.Lock()  # of the five
        self._gone = threading.Condition(self._lock)
        self._closed = threading.Event()
        self._accepting = threading.Thread(target=self._run, name="local socket", daemon=True)

    def start(self) -> None:
        """Serve clients."""
        self._accepting.start()

    def view(self) -> dict[str, int] | None:
        """What somebody who debugs sees of the client; None if there is none."""
        with self._lock:
            client, peer = self._client, self._peer
        return {"pid": peer.pid, **client.view()} if client and peer else None

    def drain(self) -> None:
        """Make no more accesses: refuse them, and new clients."""
        with self._lock:
            self._draining = True
            self._gone.notify_all()
            if self._client is not None:
                self._client.drain()

    def retire(self, timeout_s: float) -> None:
        """Take no more clients, and ask the one that is served to leave.

        Returns when it has left, if it can be asked; after `timeout_s` seconds at the latest,
        and when the server stops.
        """
        with self._lock:
            self._retired = True
            client = self._client
        if client is not None and client.ask_to_leave():
            with self._gone:
                self._gone.wait_for(lambda: self._draining or self._client is None, timeout_s)

    def close(self) -> None:
        """Take no more clients, answer what the client asked, end it, and remove the socket."""
        self.unlisten()
        if self._accepting.ident is not None:
            self._accepting.join()
        self._socket.close()
        with self._lock:
            client = self._client
        if client is not None:
            client.finish()
            self._let_go()

    def unlisten(self) -> None:
        """Take no more clients, and remove the socket, whatever else goes on."""
        self._closed.set()
        with suppress(OSError):  # it was done before
            self._socket.shutdown(socket.SHUT_RDWR)
        self._path.close()

    def _run(self) -> None:
        """Take clients, and watch the one that is served."""
        while not self._closed.is_set():
            waiting = select.poll()
            waiting.register(self._socket, select.POLLIN)
            if self._hang_up is not None:
                waiting.register(self._hang_up, 0)  # POLLHUP comes unasked
            ready = {fd for fd, _ in waiting.poll()}
            if self._closed.is_set():
                return
            try:
                # The place of one that has gone is free before the next one asks for it.
                if self._hang_up is not None and self._hang_up.fileno() in ready:
                    self._let_go()
                if self._socket.fileno() in ready:
                    self._welcome(self._socket.accept()[0])
            except Exception as error:  # noqa: BLE001 # no descriptor or thread left, for now
                _log.error("accept_failed", exc_info=error)
                self._closed.wait(_ACCEPT_AGAIN_S)

    def _welcome(self, connection: socket.socket) -> None:
        """Serve a client, or turn it away."""
        try:
            peer = Peer.of(connection)
            log = _log.bind(pid=peer.pid, uid=peer.uid, gid=peer.gid)
            if not peer.may_connect(self._path.gid):
                log.warning("client_refused", reason="PEER_DENIED")
                self._turned_away.tell(connection, EACCES)
                return
            with self._lock:
                if self._draining or self._retired:
                    log.info("client_refused", reason="DRAINING")
                    self._turned_away.tell(connection, ESHUTDOWN)
                elif self._client is not None:
                    log.warning("client_refused", reason="BUSY")
                    self._turned_away.tell(connection, EBUSY)
                else:
                    self._serve(connection)
                    self._peer = peer
                    log.info("client_connected")
        except BaseException:
            connection.close()
            raise

    def _serve(self, connection: socket.socket) -> None:
        """Give a client the place, and a thread."""
        hang_up = connection.dup()  # the thread closes the other when it likes
        try:
            client = Connection(connection, self._endpoint)
            try:
                threading.Thread(target=client.run, name="local client", daemon=True).start()
            except BaseException:
                client.end()
                raise
        except BaseException:
            hang_up.close()
            raise
        self._client, self._hang_up = client, hang_up

    def _let_go(self) -> None:
        """Wait for the client's end, but not for long, and free its place."""
        with self._lock:
            client, self._client = self._client, None
            self._gone.notify_all()
            hang_up, self._hang_up = self._hang_up, None
        if client is None or hang_up is None:
            return
        if not client.ended.wait(LINGER_S):
            _log.warning("client_let_go", waited_s=LINGER_S)
            threading.Thread(target=_free, args=(client,), name="let go", daemon=True).start()
            client.ended.wait(LINGER_S)
        hang_up.close()
        _log.info("client_gone")


def _free(client: Connection) -> None:
    """Free what a client had, in place of its thread, which is in a device."""
    client.end()
    client.release()
