"""The picture for the README: what a 4-byte read takes on each way, as SVG.

It is drawn from the JSON document alone, so the same results give the same picture. Text is
text, and the colours follow the reader's choice of light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 800, 436

_LEFT, _RIGHT = 186, 630  # of the axis
_TOP, _ROW = 116, 44
_MEDIAN_X, _RATIO_X = 706, 776  # where the columns of numbers end


@dataclass(frozen=True, slots=True)
class _Way:
    """A row: what it is called, what it is, and which result it shows."""

    title: str
    subtitle: str
    result: str


_WAYS = (
    _Way("In process", "dispatch and device only", "inprocess.read4"),
    _Way("Ring", "shared memory", "ring.read4"),
    _Way("Socket, spinning", "vfio-user", "socket.read4.spin"),
    _Way("Socket, blocking", "vfio-user, on one core", "socket.read4.together"),
    _Way("gRPC stream", "any host", "grpc.stream.read4"),
    _Way("gRPC unary", "any host, a call each", "grpc.unary.read4"),
)
_HIGHLIGHTED = "ring.read4"
_KVM_EXIT = "kvm.exit"


@dataclass(frozen=True, slots=True)
class _Axis:
    """A logarithmic axis of whole decades, given by their exponents, in nanoseconds."""

    first: int
    last: int

    @classmethod
    def over(cls, times_ns: list[float]) -> _Axis:
        return cls(math.floor(math.log10(min(times_ns))), math.ceil(math.log10(max(times_ns))))

    def x(self, ns: float) -> float:
        part = (math.log10(ns) - self.first) / (self.last - self.first)
        return _LEFT + (_RIGHT - _LEFT) * part

    def drawn(self, bottom: int) -> Iterator[str]:
        for decade in range(self.first, self.last + 1):
            x = self.x(10.0**decade)
            yield _line("grid", x, _TOP, x, bottom)
            us = 10.0 ** (decade - 3)
            label = f"{us:g} µs" if us < 1000 else f"{us / 1000:g} ms"
            yield _text(x, bottom + 18, "small middle", label)


_STYLE = """
    .card { fill: #ffffff; stroke: #d0d7de; }
    .grid { stroke: #d8dee4; }
    .row { fill: #f6f8fa; }
    text { font-family: -apple-system, "Segoe UI", "Helvetica Neue", Helvetica, Arial,
           "Liberation Sans", sans-serif; font-size: 13px; fill: #1f2328; }
    .heading { font-size: 17px; font-weight: 600; }
    .name, .number { font-weight: 600; }
    .small { font-size: 11.5px; fill: #59636e; }
    .end { text-anchor: end; }
    .middle { text-anchor: middle; }
    .way { stroke: #4f7cac; fill: #4f7cac; }
    .best { stroke: #1a7f4b; fill: #1a7f4b; }
    text.best { stroke: none; }
    .span { stroke-width: 6; opacity: 0.32; }
    .tail { stroke-width: 1.5; }
    .floor { stroke-width: 2; }
    circle.floor { fill: #ffffff; }
    .kvm { stroke: #bc4c00; stroke-width: 1.5; stroke-dasharray: 5 4; }
    text.kvm { stroke: none; fill: #bc4c00; font-weight: 600; font-size: 12px; }
    @media (prefers-color-scheme: dark) {
      .card { fill: #0d1117; stroke: #3d444d; }
      .grid { stroke: #2a313c; }
      .row { fill: #151b23; }
      text { fill: #f0f6fc; }
      .small { fill: #9198a1; }
      .way { stroke: #79a8d8; fill: #79a8d8; }
      .best { stroke: #3fb971; fill: #3fb971; }
      circle.floor { fill: #0d1117; }
      .kvm { stroke: #f0883e; }
      text.kvm { fill: #f0883e; }
    }"""


def drawn(document: dict[str, Any]) -> str:
    """Draw what is in bench.json; a result that isn't there is left out."""
    results = {result["name"]: result for result in document["results"]}
    ways = [way for way in _WAYS if way.result in results]
    shown = [results[way.result] for way in ways]
    marks = [
        results[name]
        for name in (*(each["beside"] for each in shown), _KVM_EXIT)
        if name in results
    ]
    axis = _Axis.over(
        [each["p99_ns"] for each in shown] + [each["p50_ns"] for each in [*shown, *marks]]
    )
    rows = [row for n, way in enumerate(ways) for row in _row(n, way, results, axis)]
    bottom = _TOP + _ROW * len(ways)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"',
        f'     viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title what">',
        '  <title id="title">How long a 4-byte read of a Python device takes</title>',
        f'  <desc id="what">{escape(_in_words(ways, results))}</desc>',
        f"  <style>{_STYLE}\n  </style>",
        f'  <rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>',
        _text(24, 34, "heading", "One 4-byte read of a Python device, there and back"),
        *_legend(),
        _text(_MEDIAN_X, _TOP - 16, "small end", "median"),
        _text(_RATIO_X, _TOP - 16, "small end", "times floor"),
        *_stripes(len(ways)),
        *axis.drawn(bottom),
        *_kvm_exit(results, axis, bottom),
        *rows,
        _text(24, HEIGHT - 16, "small", _machine(document["machine"])),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _row(place: int, way: _Way, results: dict[str, Any], axis: _Axis) -> Iterator[str]:
    result = results[way.result]
    floor = results.get(result["beside"])
    y = _TOP + _ROW * place + _ROW // 2
    kind = "best" if way.result == _HIGHLIGHTED else "way"
    number = "number end best" if kind == "best" else "number end"
    p50_x, p99_x = axis.x(result["p50_ns"]), axis.x(result["p99_ns"])
    yield _text(24, y - 2, "name", way.title)
    yield _text(24, y + 14, "small", way.subtitle)
    if floor is not None:
        floor_x = axis.x(floor["p50_ns"])
        yield _line(f"{kind} span", floor_x, y, p50_x, y)
    yield _line(f"{kind} tail", p50_x, y, p99_x, y)
    yield _line(f"{kind} tail", p99_x, y - 5, p99_x, y + 5)
    if floor is not None:
        yield f'  <circle class="{kind} floor" cx="{floor_x:.1f}" cy="{y}" r="4.5"/>'
    yield f'  <circle class="{kind}" cx="{p50_x:.1f}" cy="{y}" r="6"/>'
    yield _text(_MEDIAN_X, y + 5, number, _time(result["p50_ns"]))
    if floor is not None:
        yield _text(_RATIO_X, y + 5, "end", f"{result['ratio']:.1f}")


def _legend() -> Iterator[str]:
    y = 60
    yield f'  <circle class="way" cx="30" cy="{y - 4}" r="6"/>'
    yield _text(43, y, "small", "median")
    yield _line("way tail", 96, y - 4, 118, y - 4)
    yield _line("way tail", 118, y - 9, 118, y + 1)
    yield _text(127, y, "small", "99th percentile")
    yield f'  <circle class="way floor" cx="226" cy="{y - 4}" r="4.5"/>'
    yield _text(238, y, "small", "floor: bare Python (or bare grpcio) doing the same exchange")


def _stripes(rows: int) -> Iterator[str]:
    for number in range(0, rows, 2):
        y = _TOP + _ROW * number
        yield f'  <rect class="row" x="12" y="{y}" width="{WIDTH - 24}" height="{_ROW}" rx="4"/>'


def _kvm_exit(results: dict[str, Any], axis: _Axis, bottom: int) -> Iterator[str]:
    if _KVM_EXIT in results:
        p50_ns = results[_KVM_EXIT]["p50_ns"]
        x = axis.x(p50_ns)
        yield _line("kvm", x, _TOP - 10, x, bottom)
        label = f"the KVM exit alone: {_time(p50_ns)}"
        yield _text(x, _TOP - 16, "kvm middle", label)


def _in_words(ways: list[_Way], results: dict[str, Any]) -> str:
    parts = []
    for way in ways:
        result = results[way.result]
        part = f"{way.title}: {_time(result['p50_ns'])}, 99 % within {_time(result['p99_ns'])}"
        if result["beside"]:
            part += f", floor {_time(results[result['beside']]['p50_ns'])}"
        parts.append(part)
    if _KVM_EXIT in results:
        parts.append(f"a KVM exit: {_time(results[_KVM_EXIT]['p50_ns'])}")
    return f"Medians on a logarithmic scale. {'; '.join(parts)}."


def _machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}."
        " Logarithmic scale. One run of make bench."
    )


def _time(ns: float) -> str:
    us = ns / 1000
    return f"{us:.2f} µs" if us < 10 else f"{us:.1f} µs" if us < 100 else f"{us:.0f} µs"


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'  <text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'  <line class="{kind}" x1="{x1:.1f}" y1="{y1:g}" x2="{x2:.1f}" y2="{y2:g}"/>'
