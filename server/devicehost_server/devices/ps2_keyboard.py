"""A PS/2 keyboard, and the scan codes that it speaks.

`press` and `release` are its keys, for whoever plays the user. Keys have names:

    >>> keyboard = Keyboard()
    >>> keyboard.press("a")
    >>> keyboard.release("a")
    >>> [keyboard.take() for _ in range(3)] == [0x1C, 0xF0, 0x1C]
    True

Invariants:
    The bytes of a key are queued all or not at all: half of them would be another key.
    16 bytes are held. When they don't suffice, one overrun code follows, and what comes
    after it is lost until there is room again.

After IBM's Personal System/2 Hardware Interface Technical Reference, "Keyboards (101- and
102-Key)": sections "Scan Codes" and "Commands from the System". Scan code sets 1 and 2
are there; set 3 is refused, as keyboards that lack it do.
"""

from __future__ import annotations

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
)
from devicehost_server.devices.state import StateReader

_RELEASED = 0xF0  # in set 2, before the code of a key that is let go

# What each byte of set 2 is in set 1. Bytes that aren't here are the same in both.
_SET_1 = bytes.fromhex(
    """
    ff 43 41 3f 3d 3b 3c 58  64 44 42 40 3e 0f 29 59
    65 38 2a 70 1d 10 02 5a  66 71 2c 1f 1e 11 03 5b
    67 2e 2d 20 12 05 04 5c  68 39 2f 21 14 13 06 5d
    69 31 30 23 22 15 07 5e  6a 72 32 24 16 08 09 5f
    6b 33 25 17 18 0b 0a 60  6c 34 35 26 27 19 0c 61
    6d 73 28 74 1a 0d 62 6e  3a 36 1c 1b 75 2b 63 76
    55 56 77 78 79 7a 0e 7b  7c 4f 7d 4b 47 7e 7f 6f
    52 53 50 4c 4d 48 01 45  57 4e 51 4a 37 49 46 54
    80 81 82 41 54
    """
)

# What the keys send in set 2 when they go down: IBM's 102, and three of Microsoft's.
_LAYOUT = """
    esc:76 f1:05 f2:06 f3:04 f4:0c f5:03 f6:0b f7:83 f8:0a f9:01 f10:09 f11:78 f12:07

    grave:0e 1:16 2:1e 3:26 4:25 5:2e 6:36 7:3d 8:3e 9:46 0:45 minus:4e equal:55 backspace:66
    tab:0d q:15 w:1d e:24 r:2d t:2c y:35 u:3c i:43 o:44 p:4d bracket_left:54 bracket_right:5b
    caps_lock:58 a:1c s:1b d:23 f:2b g:34 h:33 j:3b k:42 l:4b semicolon:4c apostrophe:52
    backslash:5d enter:5a shift:12 less:61 z:1a x:22 c:21 v:2a b:32 n:31 m:3a comma:41 dot:49
    slash:4a shift_right:59 ctrl:14 meta:e01f alt:11 space:29 alt_right:e011
    meta_right:e027 menu:e02f ctrl_right:e014

    print:e012e07c scroll_lock:7e pause:e11477e1f014f077
    insert:e070 home:e06c page_up:e07d delete:e071 end:e069 page_down:e07a
    up:e075 left:e06b down:e072 right:e074

    num_lock:77 kp_divide:e04a kp_multiply:7c kp_subtract:7b kp_7:6c kp_8:75 kp_9:7d kp_add:79
    kp_4:6b kp_5:73 kp_6:74 kp_1:69 kp_2:72 kp_3:7a kp_enter:e05a kp_0:70 kp_decimal:71
"""

_DOWN: Mapping[str, bytes] = {
    name: bytes.fromhex(codes) for name, codes in (key.split(":") for key in _LAYOUT.split())
}

# The keys that say something else when they go up than their last code after an F0.
_UP: Mapping[str, bytes] = {"print": bytes.fromhex("e0f07ce0f012"), "pause": b""}

KEYS = frozenset(_DOWN)
"""The names of all keys."""


class Translator:
    """Turns set 2 into set 1, one byte after the other, as an 8042 does.

    Attributes:
        released: whether an F0 came, and the code that it belongs to didn't yet.
    """

    def __init__(self, *, released: bool = False) -> None:
        self.released = released

    def feed(self, octet: int) -> int | None:
        """Return what `octet` becomes; None for an F0, which changes the next one."""
        if octet == _RELEASED:
            self.released = True
            return None
        code = _SET_1[octet] if octet < len(_SET_1) else octet
        if self.released:
            self.released = False
            code |= 0x80
        return code


class Keyboard(Ps2Device):
    """A 105-key keyboard. It repeats no keys by itself: a repeated `press` does that.

    Attributes:
        leds: what is lit: bit 0 scroll lock, bit 1 num lock, bit 2 caps lock.
        typematic: bits 4-0 the rate of repeating, bits 6-5 the delay before it.
        scan_set: 1 or 2.
        scanning: whether it looks at its keys.
    """

    SET_LEDS = 0xED  # option: as in `leds`
    ECHO = 0xEE
    SET_SCAN_SET = 0xF0  # option: 1 or 2, or 0 to ask
    IDENTIFY = 0xF2
    SET_TYPEMATIC = 0xF3  # option: as in `typematic`
    ENABLE = 0xF4
    DISABLE = 0xF5  # and defaults
    DEFAULTS = 0xF6  # and enable
    RESET = 0xFF

    kind = "keyboard"
    commands_with_option = (SET_LEDS, SET_SCAN_SET, SET_TYPEMATIC)

    _IDENTITY = (0xAB, 0x83)
    _TYPEMATIC = 0x2B  # 10.9 characters a second, after 500 ms
    _OVERRUN: ClassVar[Mapping[int, int]] = {1: 0xFF, 2: 0x00}  # by scan code set

    def __init__(self) -> None:
        super().__init__()
        self.leds = 0
        self._set_defaults()

    def press(self, key: str) -> None:
        """Push `key` down.

        Raises:
            ValueError: no key has this name; `KEYS` are the names.
        """
        self._report(_codes_down(key))

    def release(self, key: str) -> None:
        """Let `key` go.

        Raises:
            ValueError: no key has this name; `KEYS` are the names.
        """
        down = _codes_down(key)
        self._report(_UP.get(key, bytes((*down[:-1], _RELEASED, down[-1]))))

    def write(self, octet: int) -> None:
        """Take a command, or an option. A command may also come in place of an option."""
        if octet == RESEND:
            self._reply(self._last)
            return
        command, self._expects = self._expects, NOTHING
        if command and octet < self.SET_LEDS:  # the lowest of the commands
            self._take_option(command, octet)
        elif octet in self.commands_with_option:
            self._expects = octet
            self._reply(ACK)
        elif octet == self.ECHO:
            self._reply(self.ECHO)
        elif octet == self.IDENTIFY:
            self._reply(ACK, *self._IDENTITY)
        elif octet == self.ENABLE:
            self._reports.clear()
            self.scanning = True
            self._reply(ACK)
        elif octet in (self.DISABLE, self.DEFAULTS):
            self._set_defaults()
            self.scanning = octet == self.DEFAULTS
            self._reply(ACK)
        elif octet == self.RESET:
            self._set_defaults()
            self.leds = 0
            self._reply(ACK, SELF_TEST_PASSED)
        else:
            self._reply(RESEND)

    def save(self) -> State:
        """Return the state: fields whose names begin with `keyboard`."""
        return super().save() | {
            "keyboard_leds": self.leds,
            "keyboard_typematic": self.typematic,
            "keyboard_scan_set": self.scan_set,
            "keyboard_scanning": self.scanning,
        }

    def restore(self, reader: StateReader) -> None:
        """Take over a state that `save` returned; for a keyboard that is not in use yet.

        Raises:
            BadState: it doesn't fit.
        """
        super().restore(reader)
        self.leds = reader.integer("keyboard_leds", maximum=0x07)
        self.typematic = reader.integer("keyboard_typematic", maximum=0x7F)
        self.scan_set = reader.integer("keyboard_scan_set", minimum=1, maximum=2)
        self.scanning = reader.boolean("keyboard_scanning")

    def _set_defaults(self) -> None:
        self._reports.clear()
        self.typematic = self._TYPEMATIC
        self.scan_set = 2
        self.scanning = True

    def _take_option(self, command: int, option: int) -> None:
        reply = [ACK]
        if command == self.SET_LEDS:
            self.leds = option & 0x07
        elif command == self.SET_TYPEMATIC:
            self.typematic = option & 0x7F
        elif option == 0:
            reply.append(self.scan_set)
        elif option in self._OVERRUN:
            self._reports.clear()
            self.scan_set = option
        else:
            reply = [RESEND]
        self._reply(*reply)

    def _report(self, codes: bytes) -> None:
        """Queue what a key says in set 2, in the set that is set."""
        if not self.scanning:
            return
        if self.scan_set == 1:
            codes = _translate(codes)
        overrun = self._OVERRUN[self.scan_set]
        if len(self._reports) + len(codes) <= REPORTS_SIZE:
            self._reports.extend(codes)
        elif self._reports[-1] != overrun:
            self._reports.append(overrun)


def _codes_down(key: str) -> bytes:
    try:
        return _DOWN[key]
    except KeyError:
        allowed = ", ".join(sorted(KEYS))
        raise ValueError(f"no key is called {key!r}, allowed: {allowed}") from None


def _translate(codes: bytes) -> bytes:
    fed = map(Translator().feed, codes)
    return bytes(code for code in fed if code is not None)
