"""`TopApp`: the live view in a terminal, with textual.

A `Source` watches the server on threads of its own; what it finds comes here as a message.
So nothing on this thread ever waits for the server, and there is one update for each
interval.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.widgets import Footer

from devicehost.recording.events import Space
from devicehost_client import ClientError, DeviceHost
from devicehost_client.ctl.output import printable
from devicehost_client.ctl.top import header, strip, tables
from devicehost_client.ctl.top.details import Peeked
from devicehost_client.ctl.top.frames import Frame, ServerInfo
from devicehost_client.ctl.top.header import Link
from devicehost_client.ctl.top.lines import Line, Tone, line
from devicehost_client.ctl.top.model import Model
from devicehost_client.ctl.top.order import Order
from devicehost_client.ctl.top.palette import DARK, LIGHT, first_theme
from devicehost_client.ctl.top.screens import DetailsScreen, HelpScreen
from devicehost_client.ctl.top.source import Lost, News, Placed, Refused, Source
from devicehost_client.ctl.top.widgets import Pane
from devicehost_client.debug import Activity

INTERVALS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LEAVE_S = 2
"""How long a signal leaves for a tidy end. A terminal that hung up may take nothing more, and
whoever writes to it would wait for ever."""

_PATIENCE_S = 2.0
"""How much later than expected an interval may come before that is said."""

_WIDE, _SHORT, _TALL = 100, 21, 30
_WIDTHS = [(0, "-narrow"), (_WIDE, "-wide")]
_HEIGHTS = [(0, "-tiny"), (_SHORT, "-short"), (_TALL, "-tall")]
"""What the style sheet calls a screen of at least so many characters."""

_STRIPS = {True: (0, 2), False: (0, 1)}
"""The lines of the map that are strips, of PIO and of MMIO: with addresses, and without."""


class TopApp(App[bool | ClientError]):
    """The view. It returns True when somebody quits, or why the server told us to go.

    Args:
        host: the connection.
        endpoint: where that goes to.
        interval_s: how often to look.
    """

    CSS_PATH = "top.tcss"
    TITLE = "devicehostctl top"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = _WIDTHS
    VERTICAL_BREAKPOINTS = _HEIGHTS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+q", "leave", "Quit", key_display="q"),
        Binding("p,space", "pause", "Pause", key_display="p"),
        Binding("s", "sort", "Sort"),
        Binding("d,enter", "details", "Details", key_display="d"),
        Binding("up,k", "select(-1)", "Select", key_display="↑ ↓"),
        Binding("down,j", "select(1)", show=False),
        Binding("plus,equals_sign", "interval(1)", "Slower", key_display="+"),
        Binding("minus", "interval(-1)", "Faster", key_display="-"),
        Binding("t", "theme", "Light/dark"),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", show=False),
    ]

    @dataclass
    class Told(Message):
        """The source has found something."""

        news: News

    def __init__(self, host: DeviceHost, endpoint: str, interval_s: float) -> None:
        # Without colours, the terminal's own background is left alone as well.
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") is not None else None)
        self._endpoint = endpoint
        self._interval_s = interval_s
        self._model = Model()
        self._frame = Frame()
        self._order = Order.RATE
        self._selected = ""
        self._is_paused = False
        self._lost_because = ""
        self._heard_at_s: float | None = None
        self._shown_link = Link.CONNECTING
        self._source = Source(host, interval_s=interval_s, tell=self._pass_on)
        for theme in (DARK, LIGHT):
            self.register_theme(theme)
        self.theme = first_theme().name

    def compose(self) -> ComposeResult:
        """Lay it out; the style sheet says where things are."""
        yield Pane(self._draw_header, "header")
        yield Pane(self._draw_banner, "banner")
        with Container(id="body"):
            with Container(id="main"):
                yield Pane(self._draw_devices, "devices", "devices")
                yield Pane(self._draw_registers, "registers", "hottest registers")
            with Container(id="side"):
                yield Pane(self._draw_chart, "chart")
                yield Pane(self._draw_latency, "latency", "latency")
                yield Pane(self._draw_interrupts, "interrupts", "interrupts")
        yield Pane(self._draw_map, "map", "address map")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin to watch."""
        if not self.is_headless:  # there is a terminal to restore
            loop = asyncio.get_running_loop()
            for number in _SIGNALS:
                loop.add_signal_handler(number, self._end)
        self._name_order()
        self._source.start()
        self.set_interval(1.0, self._look_at_link)

    def on_unmount(self) -> None:
        """Watch no longer."""
        self._source.close()

    def on_top_app_told(self, message: Told) -> None:
        """Take what the source has found."""
        if not self._is_laid_out:
            return  # it came while everything ends
        match message.news:
            case ServerInfo() as server:
                self._model.meet(server)
            case Placed(devices, ranges):
                self._model.place(devices, ranges)
                self._show()
            case Activity() as activity:
                self._model.add(activity)
                self._heard_at_s = time.monotonic()
                self._lost_because = ""
                self._show()
                if isinstance(self.screen, DetailsScreen) and not self._is_paused:
                    self._source.peek(self.screen.device)
            case Peeked() as peeked:
                if isinstance(self.screen, DetailsScreen) and peeked.device == self.screen.device:
                    self.screen.show(self._frame, peeked)
            case Lost(why):
                self._lost_because = why or "it ended"
                self._look_at_link()
            case Refused(error):
                self.exit(error)

    def on_pane_clicked(self, event: Pane.Clicked) -> None:
        """Select the device that is there."""
        pane = self.query_one(f"#{event.pane}", Pane)
        width, height = pane.content_size
        found: str | None = None
        if event.pane == "devices" and event.y > 0:
            rows = tables.visible_devices(self._frame, self._order, self._chosen, height)
            if event.y <= len(rows):
                found = rows[event.y - 1].device.id
        elif event.pane == "map":
            for space, row in zip(Space, _STRIPS[self._is_tall], strict=True):
                if event.y == row:
                    found = strip.device_at(self._frame, space, width, event.x)
        if found:
            self._selected = found
            self._redraw()

    # Keys

    def action_leave(self) -> None:
        """Quit."""
        self._source.close()
        self.exit(result=True)

    def _end(self) -> None:
        """Quit, because of a signal; SIGALRM ends what doesn't."""
        signal.alarm(_LEAVE_S)
        self.action_leave()

    def action_pause(self) -> None:
        """Stop, or go on."""
        self._is_paused = not self._is_paused
        self._show()

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._order = self._order.next
        self._name_order()
        self._redraw()

    def action_select(self, step: int) -> None:
        """Select the next device, or the one before."""
        ids = self._selectable
        if ids:
            at = ids.index(self._chosen) + step
            self._selected = ids[min(max(at, 0), len(ids) - 1)]
            self._redraw()

    def action_interval(self, step: int) -> None:
        """Look more often, or less."""
        if step > 0:
            longer = [each for each in INTERVALS_S if each > self._interval_s]
            wanted = longer[0] if longer else self._interval_s
        else:
            shorter = [each for each in INTERVALS_S if each < self._interval_s]
            wanted = shorter[-1] if shorter else self._interval_s
        if wanted != self._interval_s:
            self._interval_s = wanted
            self._heard_at_s = time.monotonic()
            self._source.set_interval(wanted)
            self._redraw()

    def action_theme(self) -> None:
        """Change between light and dark."""
        self.theme = (LIGHT if self.current_theme.dark else DARK).name
        self._redraw()

    def action_details(self) -> None:
        """Open the details of the selected device."""
        if self._chosen:
            self.push_screen(DetailsScreen(self._chosen, self._frame))
            self._source.peek(self._chosen)

    def action_help(self) -> None:
        """Open help."""
        self.push_screen(HelpScreen())

    # What is shown

    def _pass_on(self, news: News) -> None:
        """Take what the source has found, on a thread of the source."""
        self.post_message(self.Told(news))

    @property
    def _chosen(self) -> str:
        """The device that is selected: the first, if none is; empty if there is none at all."""
        ids = self._selectable
        if self._selected in ids:
            return self._selected
        first = ids[0] if ids else ""
        if self._frame.interval_s:  # before that, it is the first by its name only
            self._selected = first
        return first

    @property
    def _selectable(self) -> list[str]:
        """The ids of devices in the order of the table."""
        ids = [each.device.id for each in self._order.devices(self._frame.devices)]
        return [each for each in ids if each]

    @property
    def _is_laid_out(self) -> bool:
        """Whether there is anything to draw on."""
        return bool(self.screen_stack) and bool(self.screen_stack[0].query("#map"))

    @property
    def _is_tall(self) -> bool:
        return self.size.height >= _TALL

    @property
    def _link(self) -> Link:
        if self._lost_because:
            return Link.LOST
        if self._heard_at_s is None:
            return Link.CONNECTING
        if time.monotonic() - self._heard_at_s > self._interval_s + _PATIENCE_S:
            return Link.SILENT
        return Link.PAUSED if self._is_paused else Link.LIVE

    def _look_at_link(self) -> None:
        """Show how we stand with the server, if that has changed."""
        if self._is_laid_out and self._link is not self._shown_link:
            self._redraw()

    def _show(self) -> None:
        """Show what is known now; while it is paused, what was known then."""
        if not self._is_paused:
            self._frame = self._model.frame()
            if isinstance(self.screen, DetailsScreen):
                self.screen.show(self._frame)
        self._redraw()

    def _redraw(self) -> None:
        self._shown_link = self._link
        is_lost = self._shown_link is Link.LOST
        base = self.screen_stack[0]
        base.query_one("#banner").display = is_lost
        base.query_one("#body").set_class(is_lost, "-lost")
        base.query_one("#latency").border_title = tables.latency_title(self._frame)
        base.query_one("#chart").border_title = tables.chart_title(self._frame)
        base.query_one("#devices", Pane).wanted = len(self._frame.devices) + 1
        base.query_one("#interrupts", Pane).wanted = len(self._frame.interrupts) + 1
        for pane in base.query(Pane):
            pane.refresh()

    def _name_order(self) -> None:
        base = self.screen_stack[0]
        base.query_one("#devices").border_title = f"devices by {self._order.value}"
        base.query_one("#registers").border_title = f"hottest registers by {self._order.value}"

    def _draw_header(self, width: int, _height: int) -> list[Line]:
        return header.lines(self._frame, self._endpoint, self._shown_link, self._interval_s, width)

    def _draw_banner(self, _width: int, _height: int) -> list[Line]:
        why = printable(self._lost_because)
        said = (" The server is gone; waiting for it to come back. ", Tone.BAD)
        return [line(said, (f" {why}", Tone.DIM))]

    def _draw_devices(self, width: int, height: int) -> list[Line]:
        return tables.devices(self._frame, self._order, self._chosen, width, height)

    def _draw_registers(self, width: int, height: int) -> list[Line]:
        return tables.registers(self._frame, self._order, self._chosen, width, height)

    def _draw_chart(self, width: int, height: int) -> list[Line]:
        return tables.chart(self._frame, width, height)

    def _draw_latency(self, width: int, height: int) -> list[Line]:
        return tables.latency(self._frame, width, height)

    def _draw_interrupts(self, width: int, height: int) -> list[Line]:
        return tables.interrupts(self._frame, width, height)

    def _draw_map(self, width: int, _height: int) -> list[Line]:
        return strip.lines(self._frame, self._chosen, width, addresses=self._is_tall)
