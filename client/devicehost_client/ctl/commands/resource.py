"""`resource`: the pools, and who has what of them."""

from __future__ import annotations

from collections.abc import Iterable

from devicehost.v1 import resource_pb2
from devicehost_client.ctl.command import Context, ExitStatus, Noun, Verb, argument, checked
from devicehost_client.ctl.output import Json, Table
from devicehost_client.ctl.resource_text import (
    format_resource,
    parse_constraint,
    parse_resource,
)
from devicehost_client.ctl.shapes import RESOURCE_HELP, pool_shape, resource_shape

_UNITS = ((40, "T"), (30, "G"), (20, "M"), (10, "K"))


def list_allocations(context: Context) -> ExitStatus:
    """Show what belongs to whom."""
    _show(context, ((each.resource, each.owner) for each in context.host.resources.allocations()))
    return ExitStatus.OK


def capacity(context: Context) -> ExitStatus:
    """Show what the pools have left."""
    pools = context.host.resources.capacity()
    rows = [(p.name, in_units(p.total), in_units(p.free), in_units(p.largest_free)) for p in pools]
    context.output.show(
        {"pools": [pool_shape(pool) for pool in pools]},
        Table(("POOL", "TOTAL", "FREE", "LARGEST"), rows),
    )
    return ExitStatus.OK


def allocate(context: Context) -> ExitStatus:
    """Allocate, and show what was given."""
    owner = context.options.owner
    given = context.host.resources.allocate(owner, context.options.constraints)
    _show(context, ((resource, owner) for resource in given))
    return ExitStatus.OK


def release(context: Context) -> ExitStatus:
    """Release resources; say nothing."""
    owner, resources = context.options.owner, context.options.resources
    context.host.resources.release(owner, resources)
    shapes = [resource_shape(resource) for resource in resources]
    context.output.show_text({"owner": owner, "released": shapes}, "")
    return ExitStatus.OK


def in_units(count: int) -> str:
    """Return a count as text, exactly: `64K`, `65400`."""
    for bits, unit in _UNITS:
        if count and count % (1 << bits) == 0:
            return f"{count >> bits}{unit}"
    return str(count)


def _show(context: Context, owned: Iterable[tuple[resource_pb2.Resource, str]]) -> None:
    """Show resources with their owners."""
    rows: list[tuple[str, str]] = []
    shapes: list[Json] = []
    for resource, owner in owned:
        rows.append((format_resource(resource), owner))
        shapes.append({"resource": resource_shape(resource), "owner": owner})
    context.output.show({"allocations": shapes}, Table(("RESOURCE", "OWNER"), rows))


_OWNER = argument(
    "--owner", metavar="NAME", required=True, help="who has them: letters, digits, '.', '-', '_'"
)
_ALLOCATIONS_JSON = f'{{"allocations": [{{"resource": RESOURCE, "owner"}}]}}\n\n{RESOURCE_HELP}'

RESOURCE = Noun(
    "resource",
    "resources: the pools, and who has what of them",
    verbs=(
        Verb(
            "list",
            list_allocations,
            summary="list what is allocated, and to whom",
            description=(
                "A device's resources belong to device/ID. 'resource release' takes resources\n"
                "as they are listed here."
            ),
            json=_ALLOCATIONS_JSON,
            examples=("devicehostctl resource list",),
        ),
        Verb(
            "capacity",
            capacity,
            summary="show what each pool has left",
            description=(
                "Numbers count addresses, interrupts or slots. They are exact: K, M, G and T are\n"
                "powers of 1024. LARGEST is the largest free piece."
            ),
            json='{"pools": [{"name", "total", "free", "largest_free"}]}, the numbers in 0x form',
            examples=("devicehostctl resource capacity",),
        ),
        Verb(
            "allocate",
            allocate,
            summary="allocate a resource for each constraint, all or nothing",
            description="""\
constraints:
  pio:0x3f8+8      these ports, BASE+SIZE, and no others; likewise mmio, mem
  mmio:size=0x1000[,min=N][,max=N][,align=N]
                   any that fit: max is the last address allowed, align is 1 for pio and
                   0x1000 for mmio and mem if it isn't given; likewise pio, mem
  irq:4            this legacy interrupt
  irq              any exclusive one
  msi:type=TYPE[,size=N][,align=N]
                   consecutive message-signalled interrupts; TYPE is pci-msi, pci-msix or
                   generic-msi
  slot:3           this slot of KVM's memory map
  slot:3+2         these, FIRST+COUNT
  slot             any; slot:size=N for several, consecutive

  Numbers are decimal or 0x.""",
            arguments=(
                _OWNER,
                argument(
                    "constraints",
                    metavar="CONSTRAINT",
                    nargs="+",
                    type=checked(parse_constraint),
                    help="what is needed, see above",
                ),
            ),
            json=_ALLOCATIONS_JSON,
            examples=(
                "devicehostctl resource allocate --owner vmm pio:0xcf8+8 irq",
                "devicehostctl resource allocate --owner vmm mmio:size=0x100000,max=0xffffffff",
                "devicehostctl resource allocate --owner vmm msi:size=4,type=pci-msix",
            ),
        ),
        Verb(
            "release",
            release,
            summary="release resources, each as it was allocated",
            description="""\
All that can be released are, even if one fails. Nothing is printed.

resources:
  pio:0x3f8+0x8, mmio:0xc0000000+0x1000, mem:0x0+0x100000
  irq:4, msi:24+4,type=pci-msix, slot:3""",
            arguments=(
                _OWNER,
                argument(
                    "resources",
                    metavar="RESOURCE",
                    nargs="+",
                    type=checked(parse_resource),
                    help="what to release, as 'resource list' shows it",
                ),
            ),
            json=f'{{"owner", "released": [RESOURCE]}}\n\n{RESOURCE_HELP}',
            examples=("devicehostctl resource release --owner vmm pio:0xcf8+0x8 irq:6",),
        ),
    ),
)
