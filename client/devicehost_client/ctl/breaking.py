"""One run of `break`: what it holds, and what is typed meanwhile.

A session has breakpoints of its own, and looks only after what these hold, and what its
steps do. Whatever is held by others' breakpoints is none of its business. When it ends, the
server is as it was: its breakpoints are gone, and all that they held goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic

from devicehost_client.ctl.debug_shapes import (
    breakpoint_shape,
    hit_shape,
    node_shape,
    register_shape,
)
from devicehost_client.ctl.hit_text import breakpoint_text, ended_text, hit_lines
from devicehost_client.ctl.hold_commands import Order, hold_help, parse_order
from devicehost_client.ctl.numeral import number
from devicehost_client.ctl.output import Json, OutputStream, Style
from devicehost_client.ctl.tree_text import Strokes, draw
from devicehost_client.ctl.where import parse_register
from devicehost_client.debug import (
    Breakpoint,
    Debug,
    Hit,
    HoldEnd,
    HoldEnded,
    Interrupt,
    Operation,
    RegisterValue,
    TracedAccess,
)
from devicehost_client.errors import ConnectionLost, RemoteError

_SOME_VCPU = -1
"""Stands for a vCPU that isn't told: that of an access that an interrupt holds."""


@dataclass(slots=True)
class _Held:
    """An access that waits for us."""

    hit: Hit
    until: float
    data: bytes | None = None

    @property
    def access(self) -> TracedAccess:
        """The access.

        Raises:
            ValueError: it is held because of an interrupt, and nothing more is told of it.
        """
        event = self.hit.event
        access = event if isinstance(event, TracedAccess) else None
        if access is None:
            raise ValueError("it is held because of an interrupt; which access it is isn't told")
        return access

    @property
    def remaining_s(self) -> float:
        """How long it will be held yet."""
        return max(0.0, self.until - monotonic())


class BreakSession:
    """Breakpoints, what they hold, and the commands that say how it goes on.

    Args:
        debug: the server.
        output: where it is shown.
        strokes: what trees are drawn with.
        prompt: what stands before a line that is typed; empty if none is.

    Attributes:
        is_over: whether somebody has asked to quit.
    """

    def __init__(
        self, debug: Debug, output: OutputStream, strokes: Strokes, *, prompt: str = ""
    ) -> None:
        self.is_over = False
        self._debug = debug
        self._output = output
        self._strokes = strokes
        self._prompt = prompt
        self._is_prompting = False
        self._breakpoints: dict[int, Breakpoint] = {}
        self._hits_left: dict[int, int] = {}
        self._held: dict[int, _Held] = {}
        self._stepping: set[int | None] = set()  # vCPUs
        self._last_line = ""

    @property
    def is_holding(self) -> bool:
        """Whether an access waits for a command."""
        return bool(self._held)

    @property
    def is_expecting(self) -> bool:
        """Whether a step is under way."""
        return bool(self._stepping)

    @property
    def is_used_up(self) -> bool:
        """Whether nothing more can come: no breakpoint is left, nothing is held, no step."""
        return not (self._breakpoints or self._held or self._stepping)

    def create(self, wanted: Iterable[Breakpoint]) -> None:
        """Make breakpoints, and show them.

        Raises:
            ClientError: the server refuses, or is gone.
        """
        for each in wanted:
            made = self._debug.create_breakpoint(each)
            self._breakpoints[made.id] = made
            if made.hits_max:
                self._hits_left[made.id] = made.hits_max
            self._output.json({"event": "breakpoint", "breakpoint": breakpoint_shape(made)})
            self._say(breakpoint_text(made))

    def take(self, news: Hit | HoldEnded) -> None:
        """Look after a hit, or the end of a hold."""
        match news:
            case Hit():
                if self._is_ours(news):
                    self._hit(news)
                elif news.held:
                    self._end_step(news)  # it was at a breakpoint of others
            case HoldEnded(hit_id, why):
                if self._held.pop(hit_id, None) is not None:
                    self._show_end(hit_id, why)
                    self._ask()

    def obey(self, line: str) -> None:
        """Do what a line says; an empty one says what the last one did.

        What a command can't do is shown, and is no error.

        Raises:
            ConnectionLost: the server is gone.
        """
        self._is_prompting = False  # the line was ended with it
        line = line or self._last_line
        try:
            if line:
                order = parse_order(line)
                self._last_line = line
                self._do(order)
        except (ValueError, RemoteError) as error:
            self._output.json({"event": "error", "message": str(error)})
            self._say(str(error), Style.BAD)
        if not self.is_over:
            self._ask()

    def finish(self) -> None:
        """Remove the breakpoints, and let go what they and our steps hold."""
        try:
            for breakpoint_id in list(self._breakpoints):
                self._delete(breakpoint_id)
            for hit_id in list(self._held):
                self._resume(hit_id)
        except ConnectionLost:
            pass  # so there is nothing to be let go
        if self._is_prompting:
            self._output.prompt("\n")

    def _is_ours(self, hit: Hit) -> bool:
        if hit.breakpoint_id in self._breakpoints:
            return True
        return not hit.breakpoint_id and self._has_stepped(hit)

    def _has_stepped(self, hit: Hit) -> bool:
        return not self._stepping.isdisjoint({_vcpu(hit), _SOME_VCPU})

    def _end_step(self, hit: Hit) -> None:
        vcpu = _vcpu(hit)
        self._stepping.discard(vcpu if vcpu in self._stepping else _SOME_VCPU)

    def _hit(self, hit: Hit) -> None:
        if hit.breakpoint_id in self._hits_left:
            self._hits_left[hit.breakpoint_id] -= 1
            if not self._hits_left[hit.breakpoint_id]:
                del self._breakpoints[hit.breakpoint_id]  # the server did the same
        if hit.held:
            self._end_step(hit)  # which may have been at a breakpoint
            self._held[hit.id] = _Held(hit, monotonic() + hit.remaining_ms / 1000)
        if not hit.held or len(self._held) == 1:
            self._show(hit)
            self._ask()

    def _show(self, hit: Hit) -> None:
        """Show a hit, with what its registers hold now."""
        now = self._registers_now(hit)
        shape = hit_shape(hit)
        shape["now"] = [register_shape(each) for each in now]
        held = self._held.get(hit.id)
        if held is not None:
            shape["remaining_ms"] = round(held.remaining_s * 1000)
        self._output.json(shape)
        first, *rest = hit_lines(hit, now, held.remaining_s if held else 0.0)
        self._say(first, Style.STRONG)
        for line in rest:
            self._say(line)

    def _show_end(self, hit_id: int, why: HoldEnd) -> None:
        """Show that a hold has ended by other than our doing."""
        self._output.json({"event": "ended", "hit": hit_id, "why": why.value})
        self._say(ended_text(hit_id, why), Style.ODD)

    def _registers_now(self, hit: Hit) -> list[RegisterValue]:
        """What the registers of an access hold, as far as their device tells."""
        found = []
        if isinstance(hit.event, TracedAccess) and hit.held:
            for each in hit.event.registers:
                try:
                    found.append(self._debug.peek(hit.event.device, each.name))
                except RemoteError:
                    continue  # it has no name, or can't be told
        return found

    def _ask(self) -> None:
        """Ask for a command, if an access waits for one."""
        if self._held and self._prompt and not self._is_prompting:
            self._output.prompt(self._prompt)
            self._is_prompting = True

    def _say(self, line: str, style: Style = Style.PLAIN) -> None:
        """Write a line; not behind a prompt."""
        if self._is_prompting:
            self._output.prompt("\n")
            self._is_prompting = False
        self._output.text(line, style)

    def _do(self, order: Order) -> None:  # noqa: C901, PLR0912 # a case for each command
        if order.command.needs_hold and not self._held:
            raise ValueError("no access is held")
        match order.command.name, order.arguments:
            case "continue", _:
                self._go_on()
            case "step", _:
                self._go_on(step=True)
            case "set", (value,):
                self._set(value)
            case "where", _:
                self._show(self._current.hit)
            case "peek", arguments:
                self._peek(*arguments)
            case "poke", (name, value):
                place = parse_register(name)
                self._debug.poke(place.device, place.register, number(value))
                self._show_registers([self._debug.peek(place.device, place.register)])
            case "inspect", arguments:
                path = arguments[0].strip("/") if arguments else ""
                node = self._debug.inspect(path)
                self._output.json({"event": "node", "node": node_shape(node)})
                for line in draw(node, self._strokes, name=path):
                    self._say(line)
            case "state", arguments:
                self._state(arguments[0] if arguments else self._device())
            case "list", _:
                found = self._debug.breakpoints()
                shapes = [breakpoint_shape(each) for each in found]
                self._output.json({"event": "breakpoints", "breakpoints": shapes})
                for each in found:
                    self._say(breakpoint_text(each))
            case "delete", (breakpoint_id,):
                self._remove(number(breakpoint_id))
            case "quit", _:
                self.is_over = True
            case _:
                self._output.json({"event": "help", "text": hold_help()})
                for line in hold_help().splitlines():
                    self._say(line)

    @property
    def _current(self) -> _Held:
        return next(iter(self._held.values()))

    def _go_on(self, *, step: bool = False) -> None:
        """Let the current access go on, and show the next that is held, if there is one."""
        hit = self._current.hit
        if step:
            self._stepping.add(_vcpu(hit))
        self._resume(hit.id, step=step)
        if self._held:
            self._show(self._current.hit)

    def _resume(self, hit_id: int, *, step: bool = False) -> None:
        held = self._held.pop(hit_id)
        try:
            self._debug.resume(hit_id, step=step, data=held.data)
        except RemoteError as error:
            if step:
                self._end_step(held.hit)
            if error.reason == "NO_SUCH_HIT":
                self._show_end(hit_id, HoldEnd.LIMIT)
            else:
                self._held = {hit_id: held, **self._held}
                raise
        else:
            self._output.json({"event": "resumed", "hit": hit_id, "step": step})

    def _set(self, text: str) -> None:
        held = self._current
        access, is_write = held.access, held.access.operation is Operation.WRITE
        if is_write and held.hit.after:
            raise ValueError(
                "the device has this write already; make the breakpoint without --after"
            )
        if not is_write and not held.hit.after:
            raise ValueError("the device wasn't asked yet; make the breakpoint with --after")
        if access.failure:
            raise ValueError(f"the access failed: {access.failure}")
        size = len(access.data)
        held.data = number(text, most=(1 << 8 * size) - 1).to_bytes(size, "little")
        self._output.json({"event": "set", "hit": held.hit.id, "data": held.data.hex()})
        verb = "written" if is_write else "returned"
        self._say(f"{number(text):#0{2 + 2 * size}x} will be {verb} when it goes on")

    def _peek(self, name: str = "") -> None:
        device = name or self._device()
        try:
            place = parse_register(device)
        except ValueError:
            self._show_registers(self._debug.peek_all(device))
        else:
            self._show_registers([self._debug.peek(place.device, place.register)])

    def _device(self) -> str:
        """The device of the access that is held."""
        event = self._current.hit.event if self._held else None
        if isinstance(event, TracedAccess | Interrupt) and event.device:
            return event.device
        raise ValueError("no access to a device is held; say which device")

    def _show_registers(self, registers: list[RegisterValue]) -> None:
        shapes: list[Json] = [register_shape(each) for each in registers]
        self._output.json({"event": "registers", "registers": shapes})
        for each in registers:
            self._say(f"  {each}")

    def _state(self, device: str) -> None:
        found = self._debug.save_state([device])[device]
        self._output.json({"event": "state", "device": device, "state": found.state})
        for line in json.dumps(found.state, indent=2).splitlines():
            self._say(line)

    def _remove(self, breakpoint_id: int) -> None:
        """Remove a breakpoint, anybody's, and forget what it held."""
        self._debug.delete_breakpoint(breakpoint_id)
        self._forget(breakpoint_id)
        self._output.json({"event": "deleted", "breakpoint": breakpoint_id})
        self._say(f"breakpoint {breakpoint_id} is gone")

    def _delete(self, breakpoint_id: int) -> None:
        """Remove a breakpoint of ours, which may have been removed by others."""
        try:
            self._debug.delete_breakpoint(breakpoint_id)
        except RemoteError as error:
            if error.reason != "NO_SUCH_BREAKPOINT":
                raise
        self._forget(breakpoint_id)

    def _forget(self, breakpoint_id: int) -> None:
        self._breakpoints.pop(breakpoint_id, None)
        for hit_id, held in list(self._held.items()):
            if held.hit.breakpoint_id == breakpoint_id:
                del self._held[hit_id]


def _vcpu(hit: Hit) -> int | None:
    return hit.event.vcpu if isinstance(hit.event, TracedAccess) else _SOME_VCPU
