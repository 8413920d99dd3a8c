"""Interrupts of the devices, brought to the VMM's callbacks: `DeviceHost.interrupts`.

    host.interrupts.start(on_level=vm.set_irq_line)

Callbacks run on one thread, in the order of the changes. When the server was lost and is
back, levels that changed meanwhile are brought up to date; when it is lost, every level
falls, as the lines of a card that is pulled.

A completion says after which generation of the interrupts its access was made, and
`wait_for` lets the vCPU go on once that generation has been delivered. So an interrupt is
in the guest before the access that caused it returns, as it is on a bus.

On the same host interrupts can do without callbacks: `attach` gives the server eventfds,
see `devicehost_client.irqfds`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import grpc

from devicehost.v1 import interrupt_service_pb2 as pb
from devicehost.v1.interrupt_service_pb2_grpc import InterruptServiceStub
from devicehost_client.irqfds import IrqFds

_log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
DELIVERY_TIMEOUT_S = 0.5
"""How long an access waits for the interrupts before it; a watch that is lost is no excuse."""

_END_TIMEOUT_S = 2.0


class LevelCallback(Protocol):
    """Is told the level of a GSI."""

    def __call__(self, gsi: int, /, *, asserted: bool) -> None:
        """`gsi` is asserted or not, from now on."""


class Interrupts:
    """Watches the interrupts of a server.

    Attributes:
        callback_failures: how often a callback raised; each time is logged.
        on_started: called when `start` is, before anything is delivered.
    """

    def __init__(self, channel: grpc.Channel, irqfds: IrqFds) -> None:
        self.callback_failures = 0
        self.on_started: Callable[[], None] = lambda: None
        self._irqfds = irqfds
        self._stub = InterruptServiceStub(channel)
        self._thread: threading.Thread | None = None
        self._delivered = threading.Condition()
        self._generation = -1  # nothing is known
        self._asserted: set[int] = set()
        self._closed = threading.Event()
        self._watching: Any = None
        self._on_level: LevelCallback | None = None
        self._on_pulse: Callable[[int], None] | None = None

    @property
    def takes_eventfds(self) -> bool:
        """Whether `attach` can be used: accesses go by the local socket."""
        return self._irqfds.is_available

    def attach(self, eventfds: Mapping[int, int]) -> None:
        """Have eventfds signalled, each by its GSI; the next server does so as well.

        Args:
            eventfds: by GSI. They are duplicated; yours stay yours.

        Raises:
            NotLocal: accesses don't go by the local socket.
            ValueError: there is no such GSI, or a descriptor is no eventfd.
            ConnectionLost, AccessTimeout: the server went away meanwhile; the next one
                signals them.
        """
        self._irqfds.attach(eventfds)

    def detach(self, gsis: Iterable[int]) -> None:
        """Have the eventfds of these GSIs not signalled any more. Raises as `attach` does."""
        self._irqfds.detach(gsis)

    def start(
        self,
        *,
        on_level: LevelCallback,
        on_pulse: Callable[[int], None] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Deliver interrupts from now on.

        Args:
            on_level: called with a GSI and whether it is asserted.
            on_pulse: called with the GSI of a message-signalled interrupt; None to do
                without those.
            timeout_s: how long to wait until the first state is known.

        Raises:
            RuntimeError: it was started before.
            TimeoutError: the server didn't tell the state in time; it goes on trying.
        """
        if self._thread is not None:
            raise RuntimeError("interrupts are delivered already")
        self._on_level, self._on_pulse = on_level, on_pulse
        self.on_started()
        self._thread = threading.Thread(target=self._run, name="interrupts", daemon=True)
        self._thread.start()
        with self._delivered:
            if not self._delivered.wait_for(lambda: self._generation >= 0, timeout_s):
                raise TimeoutError("the server did not tell the state of its interrupts")

    def wait_for(self, generation: int) -> None:
        """Return when the interrupts up to `generation` are delivered, if they are watched."""
        if generation <= self._generation or self._generation < 0:
            return
        if threading.current_thread() is self._thread:
            return  # an access made by a callback
        with self._delivered:
            self._delivered.wait_for(
                lambda: generation <= self._generation or self._generation < 0, DELIVERY_TIMEOUT_S
            )

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed.set()
        if self._watching is not None:
            self._watching.cancel()
        if self._thread is not None and self._thread is not threading.current_thread():
            # A Ctrl-C inside of a gRPC call can leave a lock of gRPC's held for good, and
            # this thread waiting for it. It is a daemon; the program must be able to end.
            self._thread.join(_END_TIMEOUT_S)

    def _run(self) -> None:
        backoff_s = BACKOFF_FIRST_S
        while not self._closed.is_set():
            try:
                self._watching = self._stub.WatchInterrupts(pb.WatchInterruptsRequest())
                if self._closed.is_set():
                    break  # `close` cancelled the one before
                for response in self._watching:
                    backoff_s = BACKOFF_FIRST_S
                    self._deliver(response)
                    if self._closed.is_set():
                        break
            except grpc.RpcError:
                pass  # lost: the levels fall, and it is tried again
            finally:
                self._watching.cancel()
                with self._delivered:
                    self._generation = -1
                    self._delivered.notify_all()
            if self._closed.is_set():
                break
            self._set_levels(())
            self._closed.wait(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    def _deliver(self, response: pb.WatchInterruptsResponse) -> None:
        if response.HasField("snapshot"):
            self._set_levels(response.snapshot.asserted)
        for event in response.events:
            if event.kind == pb.INTERRUPT_KIND_PULSED:
                if self._on_pulse is not None:
                    self._tell(self._on_pulse, event.gsi)
            else:
                asserted = event.kind == pb.INTERRUPT_KIND_ASSERTED
                self._set_level(event.gsi, asserted=asserted)
        with self._delivered:
            self._generation = response.generation
            self._delivered.notify_all()

    def _set_levels(self, asserted: Iterable[int]) -> None:
        """Bring all levels to a state."""
        now = set(asserted)
        for gsi in self._asserted - now:
            self._set_level(gsi, asserted=False)
        for gsi in now - self._asserted:
            self._set_level(gsi, asserted=True)

    def _set_level(self, gsi: int, *, asserted: bool) -> None:
        if asserted:
            self._asserted.add(gsi)
        else:
            self._asserted.discard(gsi)
        if self._on_level is not None:
            self._tell(self._on_level, gsi, asserted=asserted)

    def _tell(self, callback: Callable[..., None], gsi: int, **level: bool) -> None:
        """Call back; a callback that raises misses this change, and no other."""
        try:
            callback(gsi, **level)
        except Exception:  # noqa: BLE001 # the VMM's mistake must not end its interrupts
            self.callback_failures += 1
            _log.exception("the VMM's callback for interrupt %d raised", gsi)
