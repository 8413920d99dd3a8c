"""One interval of activity as tables or as JSON: `top` for scripts."""

from __future__ import annotations

from collections.abc import Iterator

from devicehost_client import DeviceHost
from devicehost_client.ctl.commands.health import duration_text
from devicehost_client.ctl.output import Json, Table, format_table
from devicehost_client.ctl.top.figures import rate_text
from devicehost_client.ctl.top.frames import Frame, InterruptLine, Traffic, percentile
from devicehost_client.ctl.top.model import Model
from devicehost_client.ctl.top.order import Order
from devicehost_client.ctl.top.source import placed, server_info
from devicehost_client.recordings.words import time_text

_DIGITS = 3

HELP = """\
{"endpoint", "version", "uptime_s", "interval_s", TRAFFIC,
 "devices": [{"device", "type", TRAFFIC}],
 "registers": [{"device", "register", "space", "address", TRAFFIC}],
 "interrupts": [{"gsi", "rate", "asserted", "devices": [ID]}],
 "latency": {"p50_ns", "p99_ns", "at_most": [{"ns", "count"}]}}

TRAFFIC is "reads", "writes" and "failures", all per second, "mean_ns" and "longest_ns" (null
if there was no access). A device of "" stands for accesses that found none. Registers come
the most accessed first. "at_most" counts those that took at most so long, and more than half
of that; p50_ns and p99_ns are bounds of these classes.
"""


def take(host: DeviceHost, interval_s: float) -> Frame:
    """Watch for one interval.

    Raises:
        ClientError: the server is gone, or doesn't want to tell.
    """
    model = Model()
    model.meet(server_info(host))
    with host.debug.activity(interval_s) as feed:
        activity = next(feed)
    found = placed(host.hotplug.devices(), host.ranges())
    model.place(found.devices, found.ranges)
    model.add(activity)
    return model.frame()


def shape(frame: Frame, endpoint: str) -> dict[str, Json]:
    """Return a frame as JSON."""
    return {
        "endpoint": endpoint,
        "version": frame.server.version if frame.server else "",
        "uptime_s": round(frame.uptime_s, _DIGITS),
        "interval_s": round(frame.interval_s, _DIGITS),
        **_traffic_shape(frame.total),
        "devices": [
            {
                "device": each.device.id,
                "type": each.device.type,
                **_traffic_shape(each.traffic),
            }
            for each in frame.devices
        ],
        "registers": [
            {
                "device": each.device,
                "register": each.register,
                "space": each.space.value,
                "address": hex(each.address),
                **_traffic_shape(each.traffic),
            }
            for each in frame.registers
        ],
        "interrupts": [_interrupt_shape(each) for each in frame.interrupts],
        "latency": {
            "p50_ns": percentile(frame.latency, 50),
            "p99_ns": percentile(frame.latency, 99),
            "at_most": [
                {"ns": 1 << exponent, "count": count}
                for exponent, count in enumerate(frame.latency)
                if count
            ],
        },
    }


def text(frame: Frame, endpoint: str, order: Order = Order.RATE) -> str:
    """Return a frame as tables."""
    return "\n".join(_parts(frame, endpoint, order))


def _parts(frame: Frame, endpoint: str, order: Order) -> Iterator[str]:
    version = frame.server.version if frame.server else "unknown"
    yield (
        f"{endpoint}  devicehost {version}  up {duration_text(int(frame.uptime_s))}\n"
        f"{rate_text(frame.total.rate)} accesses/s, {rate_text(frame.total.failures)} failed/s,"
        f" in {frame.interval_s:.1f} s\n"
    )
    columns = ("READS/S", "WRITES/S", "FAULTS/S", "MEAN", "LONGEST")
    yield format_table(
        Table(
            ("DEVICE", "TYPE", *columns),
            [
                (each.device.id or "(no device)", each.device.type, *_traffic_cells(each.traffic))
                for each in order.devices(frame.devices)
            ],
        )
    )
    if frame.registers:
        yield format_table(
            Table(
                ("REGISTER", "ADDRESS", *columns),
                [
                    (
                        each.name or "(no device)",
                        f"{each.space.value} {each.address:#x}",
                        *_traffic_cells(each.traffic),
                    )
                    for each in order.registers(frame.registers)
                ],
            )
        )
    if frame.interrupts:
        yield format_table(
            Table(
                ("GSI", "DEVICE", "RATE/S", "LINE"),
                [
                    (
                        str(each.gsi),
                        " ".join(each.devices),
                        rate_text(each.rate),
                        "asserted" if each.asserted else "",
                    )
                    for each in frame.interrupts
                ],
            )
        )
    if any(frame.latency):
        yield format_table(
            Table(
                ("LATENCY", "ACCESSES"),
                [
                    (f"≤ {time_text(1 << exponent)}", str(count))
                    for exponent, count in enumerate(frame.latency)
                    if count
                ],
            )
        )


def _traffic_shape(traffic: Traffic) -> dict[str, Json]:
    has_any = bool(traffic.rate)
    return {
        "reads": round(traffic.reads, _DIGITS),
        "writes": round(traffic.writes, _DIGITS),
        "failures": round(traffic.failures, _DIGITS),
        "mean_ns": round(traffic.mean_ns) if has_any else None,
        "longest_ns": traffic.longest_ns if has_any else None,
    }


def _traffic_cells(traffic: Traffic) -> tuple[str, ...]:
    rates = (traffic.reads, traffic.writes, traffic.failures)
    times = (traffic.mean_ns, traffic.longest_ns) if traffic.rate else ()
    cells = [*map(rate_text, rates), *(time_text(round(each)) for each in times)]
    return (*cells, *[""] * (5 - len(cells)))


def _interrupt_shape(each: InterruptLine) -> dict[str, Json]:
    return {
        "gsi": each.gsi,
        "rate": round(each.rate, _DIGITS),
        "asserted": each.asserted,
        "devices": list(each.devices),
    }
