"""What the figures have to be, on an otherwise idle machine with two processors.

A limit that is missed is shown, in the table and in the JSON. It fails nothing: the machine
may be busy, or slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from measure import Result

Figure = Literal["p50_ns", "per_second", "ratio", "percent"]


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of one figure of a result.

    Attributes:
        figure: which one. A rate is to be at least the limit, anything else at most.
        limit: what is promised.
        aim: what is aimed at, if that is more.
    """

    figure: Figure
    limit: float
    aim: float | None = None

    def met(self, result: Result) -> bool:
        """Whether `result` keeps within the limit."""
        return self._within(result, self.limit)

    def reached(self, result: Result) -> bool | None:
        """Whether `result` is as good as was aimed at; None without such an aim."""
        return None if self.aim is None else self._within(result, self.aim)

    def _within(self, result: Result, limit: float) -> bool:
        value = getattr(result, self.figure)
        assert isinstance(value, float), f"{result.name} has no {self.figure}"
        return value >= limit if self.figure == "per_second" else value <= limit


_GRPC = (Limit("ratio", 1.3),)
_SOCKET = (Limit("ratio", 1.5),)
_SOCKET_POSTED = (Limit("per_second", 1e6 / 3),)  # 3 microseconds each

LIMITS: dict[str, tuple[Limit, ...]] = {
    "dispatch.16": (Limit("p50_ns", 800),),
    "dispatch.64": (Limit("p50_ns", 800),),
    "dispatch.4096": (Limit("p50_ns", 800), Limit("ratio", 1.5)),
    "ring.read4": (Limit("p50_ns", 1500, aim=800), Limit("ratio", 6, aim=3)),
    "ring.posted4": (Limit("per_second", 600_000, aim=1_000_000),),
    "inprocess.read4.unarmed": (Limit("ratio", 1.03),),
    "ring.read4.unarmed": (Limit("ratio", 1.03),),
    "ring.read4.traced.added": (Limit("p50_ns", 1500),),
    "ring.read4.unread.added": (Limit("p50_ns", 1500),),
    "ring.read4.recorded.added": (Limit("p50_ns", 1500),),
    "kvm.share": (Limit("ratio", 0.25),),
    "socket.read4": _SOCKET,
    "socket.read4.together": _SOCKET,
    "socket.read4.apart": _SOCKET,
    "socket.read4.spin": _SOCKET,
    "socket.posted4": _SOCKET_POSTED,
    "socket.posted4.spin": _SOCKET_POSTED,
    "grpc.stream.read4": _GRPC,
    "grpc.unary.read4": _GRPC,
    "grpc.unary.read4.polling": (Limit("ratio", 3),),
    "idle.server": (Limit("percent", 1),),
    "idle.client": (Limit("percent", 1),),
}


def limits_of(result: Result) -> tuple[Limit, ...]:
    """The limits of a result; most have none."""
    return LIMITS.get(result.name, ())
