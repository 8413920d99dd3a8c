"""DebugService.InjectInterrupt: as a device would that has a line to it."""

from __future__ import annotations

import grpc
import pytest

from daemonlab import Lab, refused
from debugwire import DebugWire
from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1 import interrupt_service_pb2 as interrupt_pb
from wire import CALL_S

ASSERTED, DEASSERTED, PULSED = (
    interrupt_pb.INTERRUPT_KIND_ASSERTED,
    interrupt_pb.INTERRUPT_KIND_DEASSERTED,
    interrupt_pb.INTERRUPT_KIND_PULSED,
)


@pytest.fixture
def wire(lab: Lab) -> DebugWire:
    """The service."""
    return DebugWire(lab.channel())


def inject(wire: DebugWire, gsi: int, kind: int) -> None:
    request = pb.InjectInterruptRequest(gsi=gsi)
    request.kind = kind  # type: ignore[assignment] # a plain number
    wire.call.InjectInterrupt(request, timeout=CALL_S)


def test_a_level_stays_until_it_is_taken_away_here(lab: Lab, wire: DebugWire) -> None:
    inject(wire, 5, ASSERTED)
    inject(wire, 5, ASSERTED)
    assert lab.server.interrupts.asserted() == [5]
    line = lab.server.interrupts.line(5, "device")
    line.set_level(asserted=True)
    line.set_level(asserted=False)
    assert lab.server.interrupts.asserted() == [5]
    inject(wire, 5, DEASSERTED)
    assert lab.server.interrupts.asserted() == []
    inject(wire, 5, DEASSERTED)


def test_a_level_of_a_device_is_not_taken_away(lab: Lab, wire: DebugWire) -> None:
    lab.server.interrupts.line(5, "device").set_level(asserted=True)
    inject(wire, 5, ASSERTED)
    inject(wire, 5, DEASSERTED)
    assert lab.server.interrupts.asserted() == [5]


def test_what_is_injected_is_told_to_all_who_listen(lab: Lab, wire: DebugWire) -> None:
    with wire.trace() as trace:
        for kind in (ASSERTED, PULSED, DEASSERTED):
            inject(wire, 7, kind)
        found = [event.interrupt for event in trace.events(3)]
    assert [(each.gsi, each.kind) for each in found] == [
        (7, ASSERTED),
        (7, PULSED),
        (7, DEASSERTED),
    ]
    assert lab.server.interrupts.generation == 3


@pytest.mark.parametrize("kind", [0, 9])
def test_a_kind_that_is_none_is_refused(wire: DebugWire, kind: int) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_REQUEST") as metadata:
        inject(wire, 5, kind)
    assert metadata["field"] == "kind"
