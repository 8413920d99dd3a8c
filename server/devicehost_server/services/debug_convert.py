"""Between the messages of DebugService and values, both ways: events, filters, registers.

What comes from a client is checked as far as a message may hold what a value can't; a
`BadRequest` names the field. The rest is checked by those who take the value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TypeVar

from devicehost.access_status import AccessStatus
from devicehost.recording.annotator import Annotated
from devicehost.recording.events import (
    Access,
    Dma,
    Event,
    Interrupt,
    InterruptKind,
    Operation,
    Plugged,
    Space,
    Unplugged,
)
from devicehost.registers import (
    BadRegisterMap,
    Decoded,
    RegisterMap,
    from_json,
    to_json,
)
from devicehost.v1 import debug_service_pb2 as pb
from devicehost.v1 import interrupt_service_pb2 as interrupt_pb
from devicehost.v1 import io_service_pb2 as io_pb
from devicehost_server.debug.filters import AccessFilter
from devicehost_server.debug.inspection import Node
from devicehost_server.model.errors import BadRequest
from devicehost_server.model.interrupts import InterruptKind as LineChange

FILTER_MAX = 1000
"""How many devices, registers or vCPUs a filter may name."""

DMA_SHOWN = 64
"""How many bytes of a DMA are sent, as the API says."""

REMEMBERED = 4096
"""How many messages of registers are remembered."""

SPACES = {Space.PIO: io_pb.SPACE_PIO, Space.MMIO: io_pb.SPACE_MMIO}
_SPACES_BACK: dict[int, Space | None] = {
    io_pb.SPACE_UNSPECIFIED: None,
    **{number: space for space, number in SPACES.items()},
}
_OPERATIONS = {Operation.READ: io_pb.OPERATION_READ, Operation.WRITE: io_pb.OPERATION_WRITE}
_OPERATIONS_BACK: dict[int, Operation | None] = {
    io_pb.OPERATION_UNSPECIFIED: None,
    **{number: operation for operation, number in _OPERATIONS.items()},
}
_INTERRUPTS = {
    InterruptKind.ASSERTED: interrupt_pb.INTERRUPT_KIND_ASSERTED,
    InterruptKind.DEASSERTED: interrupt_pb.INTERRUPT_KIND_DEASSERTED,
    InterruptKind.PULSED: interrupt_pb.INTERRUPT_KIND_PULSED,
}
_CHANGES: dict[int, LineChange] = {
    number: LineChange(kind.value) for kind, number in _INTERRUPTS.items()
}

_ValueT = TypeVar("_ValueT")


def chosen(field: str, number: int, values: Mapping[int, _ValueT]) -> _ValueT:
    """Return what a number of an enum stands for.

    Raises:
        BadRequest: nothing; it names `field`.
    """
    if number not in values:
        allowed = ", ".join(map(str, sorted(values)))
        raise BadRequest(f"{field} can't be {number}; allowed: {allowed}", field=field)
    return values[number]


def text(value: str) -> str:
    """Return text that a message can have: what isn't Unicode in it becomes question marks."""
    return value.encode(errors="replace").decode()


# From messages.


def filter_from_message(message: pb.AccessFilter) -> AccessFilter:
    """Turn a message into its filter.

    Raises:
        BadRequest: an enum's number is unknown, or a list is too long.
    """
    for field in ("device_ids", "registers", "vcpus"):
        if (count := len(getattr(message, field))) > FILTER_MAX:
            raise BadRequest(
                f"filter.{field} has {count} items; allowed: {FILTER_MAX}", field=f"filter.{field}"
            )
    return AccessFilter(
        devices=frozenset(message.device_ids),
        registers=tuple(message.registers),
        space=chosen("filter.space", message.space, _SPACES_BACK),
        base=message.base,
        size=message.size,
        operation=chosen("filter.operation", message.operation, _OPERATIONS_BACK),
        value=message.value,
        mask=message.mask,
        vcpus=frozenset(message.vcpus),
        failed=message.failed,
    )


def interrupt_kind_from_message(number: int) -> LineChange:
    """Return what is to happen to an interrupt.

    Raises:
        BadRequest: the number is unknown.
    """
    return chosen("kind", number, _CHANGES)


def register_map_from_text(json_text: str) -> RegisterMap:
    """Return the register map of a request.

    Raises:
        BadRequest: it isn't one.
    """
    try:
        return from_json(json.loads(json_text))
    except RecursionError:
        raise BadRequest("register_map is nested too deeply", field="register_map") from None
    except (BadRegisterMap, ValueError) as error:
        raise BadRequest(f"register_map: {error}", field="register_map") from None


# To messages.


def filter_to_message(filter_: AccessFilter) -> pb.AccessFilter:
    """Turn a filter into its message."""
    return pb.AccessFilter(
        device_ids=sorted(filter_.devices),
        registers=filter_.registers,
        space=SPACES[filter_.space] if filter_.space else io_pb.SPACE_UNSPECIFIED,
        base=filter_.base,
        size=filter_.size,
        operation=(
            _OPERATIONS[filter_.operation] if filter_.operation else io_pb.OPERATION_UNSPECIFIED
        ),
        value=filter_.value,
        mask=filter_.mask,
        vcpus=sorted(filter_.vcpus),
        failed=filter_.failed,
    )


def register_map_to_text(register_map: RegisterMap) -> str:
    """Return a register map as JSON."""
    return json.dumps(to_json(register_map), separators=(",", ":"))


def registers_to_messages(registers: Iterable[Decoded]) -> list[pb.DecodedRegister]:
    """Turn what was found in registers into messages, in order."""
    return [_register_to_message(each) for each in registers]


class RegisterMessages:
    """Does the same, and remembers the messages: a decoder gives equal accesses the same objects.

    That halves what an event of a trace costs. One thread at a time may use it.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Decoded, pb.DecodedRegister]] = {}

    def __call__(self, registers: Iterable[Decoded]) -> list[pb.DecodedRegister]:
        """Return the messages; don't change them."""
        return [self._message(each) for each in registers]

    def _message(self, decoded: Decoded) -> pb.DecodedRegister:
        known = self._known.get(id(decoded))
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            # The object is kept as well, so that no other one gets its id.
            known = self._known[id(decoded)] = (decoded, _register_to_message(decoded))
        return known[1]


def event_to_message(
    annotated: Annotated, registers: RegisterMessages | None = None
) -> pb.TraceEvent | None:
    """Turn an event into its message; None for what only a recording is concerned with.

    Args:
        annotated: the event.
        registers: remembers messages of registers from event to event, if there are many.
    """
    event = annotated.event
    match event:
        case Access():
            messages = (registers or registers_to_messages)(annotated.registers)
            message = access_to_message(event, annotated.device, annotated.offset, messages)
            return pb.TraceEvent(time_ns=event.time_ns, access=message)
        case Interrupt():
            return interrupt_to_message(event)
        case Dma():
            dma = pb.TracedDma(
                device_id=event.device,
                operation=_OPERATIONS[event.operation],
                address=event.address,
                size=len(event.data),
                data=event.data[:DMA_SHOWN],
            )
            return pb.TraceEvent(time_ns=event.time_ns, dma=dma)
        case Plugged() | Unplugged():
            return pb.TraceEvent(
                time_ns=event.time_ns,
                hotplug=pb.TracedHotplug(device_id=annotated.device, type=_type_of(event)),
            )
    return None


def access_to_message(
    access: Access, device: str, offset: int, registers: Iterable[pb.DecodedRegister]
) -> pb.TracedAccess:
    """Turn an access into its message."""
    return pb.TracedAccess(
        vcpu=access.vcpu,
        space=SPACES[access.space],
        operation=_OPERATIONS[access.operation],
        address=access.address,
        size=access.size,
        data=access.data,
        device_id=device,
        offset=offset,
        registers=registers,
        failure="" if access.status is AccessStatus.OK else access.status.name,
        took_ns=access.took_ns,
    )


def interrupt_to_message(event: Interrupt) -> pb.TraceEvent:
    """Turn an interrupt into its message."""
    interrupt = pb.TracedInterrupt(
        gsi=event.gsi, kind=_INTERRUPTS[event.kind], device_id=event.device
    )
    return pb.TraceEvent(time_ns=event.time_ns, interrupt=interrupt)


def node_to_message(node: Node) -> pb.Node:
    """Turn a part of the tree into its message."""
    return pb.Node(
        name=text(node.name),
        value=None if node.value is None else text(node.value),
        nodes=map(node_to_message, node.nodes),
        cut=node.cut,
    )


def _register_to_message(decoded: Decoded) -> pb.DecodedRegister:
    return pb.DecodedRegister(
        name=decoded.register,
        value=decoded.value,
        fields=[
            pb.FieldValue(name=field.name, value=field.value, meaning=field.meaning)
            for field in decoded.fields
        ],
        reserved=decoded.reserved,
    )


def _type_of(event: Event) -> str:
    return str(event.device["type"]) if isinstance(event, Plugged) else ""
