"""InterruptService: interrupts for clients without eventfds."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from devicehost.v1 import interrupt_service_pb2 as pb
from devicehost.v1.interrupt_service_pb2_grpc import InterruptServiceServicer
from devicehost_server.model.interrupts import (
    InterruptController,
    InterruptEvent,
    InterruptKind,
)
from devicehost_server.services.feed import Feed
from devicehost_server.services.feeds import Feeds

_KINDS = {
    InterruptKind.ASSERTED: pb.INTERRUPT_KIND_ASSERTED,
    InterruptKind.DEASSERTED: pb.INTERRUPT_KIND_DEASSERTED,
    InterruptKind.PULSED: pb.INTERRUPT_KIND_PULSED,
}


class InterruptService(InterruptServiceServicer):
    """Brings interrupts to the VMM.

    Args:
        interrupts: the interrupts of the VM.
        feeds: the open watches.
    """

    def __init__(self, interrupts: InterruptController, feeds: Feeds) -> None:
        self._interrupts = interrupts
        self._feeds = feeds

    def WatchInterrupts(
        self, request: pb.WatchInterruptsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchInterruptsResponse]:
        """Send which are asserted, then each change."""
        del request
        feed: Feed[InterruptEvent] = Feed()
        with self._feeds.open(feed, context):
            generation, asserted = self._interrupts.subscribe(feed.push)
            try:
                snapshot = pb.WatchInterruptsResponse.Snapshot(asserted=asserted)
                yield pb.WatchInterruptsResponse(generation=generation, snapshot=snapshot)
                for batch in feed.batches():
                    events = (
                        pb.InterruptEvent(gsi=event.gsi, kind=_KINDS[event.kind]) for event in batch
                    )
                    yield pb.WatchInterruptsResponse(generation=batch[-1].generation, events=events)
            finally:
                self._interrupts.unsubscribe(feed.push)
