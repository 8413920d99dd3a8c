"""A PS/2 mouse with three buttons, and a wheel for drivers that ask for it.

`move` and `hold` are what the user does with it:

    >>> mouse = Mouse()
    >>> mouse.write(Mouse.ENABLE)
    >>> mouse.take() == ACK
    True
    >>> mouse.move(3, -1)
    >>> [mouse.take() for _ in range(3)] == [0x28, 3, 0xFF]
    True

Invariants:
    16 bytes of reports are held, whole reports only. Movement that finds no room adds up,
    and is reported when there is. A click may go unseen while there is none.
    A command drops what wasn't reported yet.

After IBM's Personal System/2 Hardware Interface Technical Reference, "Keyboard and
Auxiliary Device Controller", section "Auxiliary Device Commands". The wheel is that of
Microsoft's IntelliMouse: three sample rates in a row ask for it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import ClassVar

from devicehost_server.devices.base import State
from devicehost_server.devices.ps2 import (
    ACK,
    NOTHING,
    REPORTS_SIZE,
    RESEND,
    SELF_TEST_PASSED,
    Ps2Device,
    one_of,
)
from devicehost_server.devices.state import StateReader

_COUNTER_MAX = 0x7FFF
"""How far movement adds up, in counts, in each direction."""


class MouseButton(enum.IntFlag):
    """The buttons, as in bits 2-0 of a report's first byte."""

    LEFT = 1
    RIGHT = 2
    MIDDLE = 4


class Mouse(Ps2Device):
    """A mouse.

    Attributes:
        identity: 0, or 3 once a driver asked for the wheel.
        resolution: 0 to 3, for 1, 2, 4 or 8 counts per mm. Only remembered.
        sample_rate: reports per second. Only remembered.
        buttons: those that are held down.
    """

    SET_SCALING_1 = 0xE6
    SET_SCALING_2 = 0xE7
    SET_RESOLUTION = 0xE8  # option: as in `resolution`
    GET_STATUS = 0xE9
    STREAM = 0xEA  # report what happens
    READ = 0xEB  # report now
    UNWRAP = 0xEC
    WRAP = 0xEE  # send everything back, but UNWRAP and RESET
    REMOTE = 0xF0  # report only when told to READ
    IDENTIFY = 0xF2
    SET_SAMPLE_RATE = 0xF3  # option: one of `_SAMPLE_RATES`
    ENABLE = 0xF4
    DISABLE = 0xF5
    DEFAULTS = 0xF6
    RESET = 0xFF

    kind = "mouse"
    commands_with_option = (SET_RESOLUTION, SET_SAMPLE_RATE)

    _SAMPLE_RATES = (10, 20, 40, 60, 80, 100, 200)
    _WHEEL_KNOCK = bytes((200, 100, 80))
    _WHEEL_IDENTITY = 3
    _RESOLUTION_MAX = 3

    # Its modes: the upper bits of the first byte of the status.
    _WRAPPING = 0x80  # never shown: while it is set, no command gets through
    _REMOTE = 0x40
    _ENABLED = 0x20
    _DOUBLING = 0x10  # scaling 2:1
    _MODE_COMMANDS: ClassVar[Mapping[int, tuple[int, int]]] = {  # clear these, set those
        SET_SCALING_1: (_DOUBLING, 0),
        SET_SCALING_2: (0, _DOUBLING),
        STREAM: (_REMOTE, 0),
        UNWRAP: (_WRAPPING, 0),
        WRAP: (0, _WRAPPING),
        REMOTE: (0, _REMOTE),
        ENABLE: (0, _ENABLED),
        DISABLE: (_ENABLED, 0),
    }

    # Movement that wasn't reported yet.
    _dx: int
    _dy: int
    _dz: int

    def __init__(self) -> None:
        super().__init__()
        self.identity = 0
        self.buttons = MouseButton(0)
        self._set_defaults()
        self._forget_news()

    def move(self, dx: int, dy: int, wheel: int = 0) -> None:
        """Move it, and turn its wheel. A mouse that isn't enabled doesn't notice.

        Args:
            dx: counts to the right.
            dy: counts away from the user: up, on the screen.
            wheel: notches towards the user: down, on the screen.
        """
        if self._modes & self._REMOTE or self._streaming:
            self._dx = _clamp(self._dx + dx, _COUNTER_MAX)
            self._dy = _clamp(self._dy + dy, _COUNTER_MAX)
            self._dz = _clamp(self._dz + wheel, _COUNTER_MAX)
            self._report_news()

    def hold(self, buttons: MouseButton) -> None:
        """Hold `buttons` down from now on, and no others."""
        self.buttons = buttons
        self._report_news()

    def take(self) -> int | None:
        """Give up the next byte, if there is one."""
        octet = super().take()
        self._report_news()
        return octet

    def write(self, octet: int) -> None:
        """Take a command, or an option. A command may also come in place of an option."""
        if self._modes & self._WRAPPING and octet not in (self.UNWRAP, self.RESET):
            self._reply(octet)
            return
        if octet == RESEND:
            self._reply(self._last)
            return
        command, self._expects = self._expects, NOTHING
        if command and octet < self.SET_SCALING_1:  # the lowest of the commands
            self._take_option(command, octet)
        elif octet == self.READ:
            self._reports.clear()
            self._reply(ACK, *self._make_report(doubling=False))
        else:
            self._forget_news()
            self._take_command(octet)

    def save(self) -> State:
        """Return the state: fields whose names begin with `mouse`."""
        return super().save() | {
            "mouse_identity": self.identity,
            "mouse_resolution": self.resolution,
            "mouse_sample_rate": self.sample_rate,
            "mouse_buttons": int(self.buttons),
            "mouse_modes": self._modes,
            "mouse_rates": self._rates.hex(),
            "mouse_dx": self._dx,
            "mouse_dy": self._dy,
            "mouse_dz": self._dz,
            "mouse_reported_buttons": self._reported_buttons,
        }

    def restore(self, reader: StateReader) -> None:
        """Take over a state that `save` returned; for a mouse that is not in use yet.

        Raises:
            BadState: it doesn't fit.
        """

        def counter(field: str) -> int:
            return reader.integer(field, minimum=-_COUNTER_MAX, maximum=_COUNTER_MAX)

        super().restore(reader)
        self.identity = one_of(reader, "mouse_identity", (0, self._WHEEL_IDENTITY))
        self.resolution = reader.integer("mouse_resolution", maximum=self._RESOLUTION_MAX)
        self.sample_rate = one_of(reader, "mouse_sample_rate", self._SAMPLE_RATES)
        self.buttons = MouseButton(reader.integer("mouse_buttons", maximum=0x07))
        self._modes = reader.integer("mouse_modes", maximum=0xFF) & 0xF0
        self._rates = reader.octets("mouse_rates", size_max=3)
        self._dx, self._dy, self._dz = counter("mouse_dx"), counter("mouse_dy"), counter("mouse_dz")
        self._reported_buttons = reader.integer("mouse_reported_buttons", maximum=0x07)

    def _take_command(self, command: int) -> None:
        reply = [ACK]
        if command in self._MODE_COMMANDS:
            cleared, added = self._MODE_COMMANDS[command]
            self._modes = self._modes & ~cleared | added
        elif command in self.commands_with_option:
            self._expects = command
        elif command == self.GET_STATUS:
            # Bit 2 is the left button here, bit 1 the middle and bit 0 the right one.
            held = (self.buttons & MouseButton.LEFT) << 2 | self.buttons >> 1
            reply += (self._modes | held, self.resolution, self.sample_rate)
        elif command == self.IDENTIFY:
            if self._rates == self._WHEEL_KNOCK:
                self.identity = self._WHEEL_IDENTITY
            reply.append(self.identity)
        elif command == self.DEFAULTS:
            self._set_defaults()
        elif command == self.RESET:
            self._set_defaults()
            self.identity = 0
            reply += (SELF_TEST_PASSED, self.identity)
        else:
            reply = [RESEND]
        self._reply(*reply)

    def _take_option(self, command: int, option: int) -> None:
        reply = ACK
        if command == self.SET_RESOLUTION and option <= self._RESOLUTION_MAX:
            self.resolution = option
        elif command == self.SET_SAMPLE_RATE and option in self._SAMPLE_RATES:
            self.sample_rate = option
            self._rates = (self._rates + bytes((option,)))[-len(self._WHEEL_KNOCK) :]
        else:
            reply = RESEND
        self._reply(reply)

    def _set_defaults(self) -> None:
        self._modes = 0
        self.resolution = 2
        self.sample_rate = 100
        self._rates = b""  # those set last, to tell when they are the knock

    def _forget_news(self) -> None:
        self._reports.clear()
        self._dx = self._dy = self._dz = 0
        self._reported_buttons = int(self.buttons)

    @property
    def _streaming(self) -> bool:
        """Whether it reports by itself."""
        deciding = self._WRAPPING | self._REMOTE | self._ENABLED
        return self._modes & deciding == self._ENABLED

    @property
    def _has_news(self) -> bool:
        moved = self._dx or self._dy or (self._dz and self.identity)
        return bool(moved) or self.buttons != self._reported_buttons

    def _report_news(self) -> None:
        """Queue reports until there is nothing more to say, or no more room."""
        report_size = 4 if self.identity else 3
        full = REPORTS_SIZE - report_size
        doubling = bool(self._modes & self._DOUBLING)
        while self._streaming and self._has_news and len(self._reports) <= full:
            self._reports.extend(self._make_report(doubling=doubling))

    def _make_report(self, *, doubling: bool) -> bytes:
        """Put as much movement as fits into a report: 9-bit counts, and 4-bit notches."""
        far = 127 if doubling else 255
        dx, dy, dz = _clamp(self._dx, far), _clamp(self._dy, far), _clamp(self._dz, 7)
        self._dx -= dx
        self._dy -= dy
        self._dz -= dz
        self._reported_buttons = int(self.buttons)
        if doubling:
            dx, dy = _double(dx), _double(dy)
        # Bit 5 is the sign of y, bit 4 that of x, bit 3 is always set.
        first = (dy < 0) << 5 | (dx < 0) << 4 | 0x08 | self.buttons
        report = bytes((first, dx & 0xFF, dy & 0xFF))
        return report + bytes((dz & 0xFF,)) if self.identity else report


_DOUBLED = (0, 1, 1, 3, 6, 9)
"""What scaling 2:1 makes of 0 to 5 counts; more are doubled ("Set Scaling 2:1")."""


def _double(count: int) -> int:
    far = abs(count)
    far = _DOUBLED[far] if far < len(_DOUBLED) else 2 * far
    return far if count > 0 else -far


def _clamp(value: int, far: int) -> int:
    return max(-far, min(value, far))
