"""What opens above the view: the details of a device, and help."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from devicehost_client.ctl.output import printable
from devicehost_client.ctl.top import details
from devicehost_client.ctl.top.details import Peeked
from devicehost_client.ctl.top.frames import Frame
from devicehost_client.ctl.top.lines import Line
from devicehost_client.ctl.top.palette import palette_of
from devicehost_client.ctl.top.strip import legend
from devicehost_client.ctl.top.widgets import Pane

_FACTS = 3
"""How many lines say what a device is."""

_WHEEL = 3
"""How many lines the wheel of a mouse scrolls by."""

_HELP = """\
↑ ↓   select a device; a click on it does so too
d     what the device is, and what its registers hold; it is peeked
      at: the guest can't notice
s     sort devices and registers by the next column
p     pause: what is shown stays as it is, until p again
+ -   look less often, or more often
t     light or dark
q     quit

Rates are per second, over the last interval.
Times are those in the server, from when it has an access until the
device has answered. The histogram counts accesses by how long they
took at most, in powers of two.
A fault is an access that failed: no device was there, or it raised.
The map leaves out gaps (·); what is accessed more is denser:
"""


class DetailsScreen(ModalScreen[None]):
    """One device.

    Args:
        device: its id.
        frame: what is shown now.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d,escape,q,enter", "dismiss", "Back", key_display="d"),
        Binding("up,k", "scroll(-1)", "Scroll", key_display="↑ ↓"),
        Binding("down,j", "scroll(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("home", "scroll(-1000000)", show=False),
        Binding("end", "scroll(1000000)", show=False),
        Binding("p", "app.pause", "Pause"),
        Binding("ctrl+c", "app.leave", show=False, priority=True),
    ]

    def __init__(self, device: str, frame: Frame) -> None:
        super().__init__()
        self.device = device
        self._frame = frame
        self._peeked: Peeked | None = None
        self._before: dict[str, int] = {}
        self._first = self._furthest = 0

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with Vertical(id="details"):
            facts = Pane(self._draw_facts, "facts")
            facts.wanted = _FACTS
            yield facts
            yield Pane(self._draw_registers, "held")
        yield Footer(compact=True)

    def show(self, frame: Frame, peeked: Peeked | None = None) -> None:
        """Show how the device is accessed, and what its registers hold if that is given."""
        self._frame = frame
        if peeked is not None:
            if self._peeked is not None:
                self._before = {each.name: each.value for each in self._peeked.registers}
            self._peeked = peeked
        for pane in self.query(Pane):  # none, before and after it is laid out
            pane.refresh()

    def action_scroll(self, lines: int) -> None:
        """Scroll registers by some lines; what is too far is the end."""
        self._first = min(max(0, self._first + lines), self._furthest)
        self.query_one("#held").refresh()

    def action_page(self, pages: int) -> None:
        """Scroll registers by what is shown at once."""
        self.action_scroll(pages * max(1, self.query_one("#held").content_size.height - 2))

    def on_mouse_scroll_down(self) -> None:
        """Scroll registers."""
        self.action_scroll(_WHEEL)

    def on_mouse_scroll_up(self) -> None:
        """Scroll registers."""
        self.action_scroll(-_WHEEL)

    def _draw_facts(self, _width: int, _height: int) -> list[Line]:
        found = self._frame.device(self.device)
        name = printable(self.device) + (f"  {printable(found.device.type)}" if found else "")
        self.query_one("#details").border_title = Content(name)
        return details.facts(found, self.device)

    def _draw_registers(self, width: int, height: int) -> list[Line]:
        """Draw those that have room: there may be thousands."""
        head, *rows = details.registers(self._peeked, self._before, self._frame, width)
        room = max(1, height - 1)
        self._furthest = max(0, len(rows) - room)
        self._first = min(self._first, self._furthest)
        last = min(len(rows), self._first + room)
        self.query_one("#details").border_subtitle = (
            f"{self._first + 1} to {last} of {len(rows)}" if len(rows) > room else ""
        )
        return [head, *rows[self._first : last]]


class HelpScreen(ModalScreen[None]):
    """What keys do, and what is shown."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark,escape,q,enter", "dismiss", "Back", key_display="?"),
        Binding("ctrl+c", "app.leave", show=False, priority=True),
    ]

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with Vertical(id="help") as panel:
            panel.border_title = "help"
            with VerticalScroll():
                yield Static(_HELP, markup=False)
                yield Static(palette_of(self.app).painted([legend()], 0))
        yield Footer(compact=True)
