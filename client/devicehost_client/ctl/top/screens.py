"""What opens above the view: the details of a device, and help."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from devicehost_client.ctl.top import details
from devicehost_client.ctl.top.details import Peeked
from devicehost_client.ctl.top.frames import Frame
from devicehost_client.ctl.top.palette import palette_of
from devicehost_client.ctl.top.strip import legend

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
        Binding("p", "app.pause", "Pause"),
        Binding("ctrl+c", "app.leave", show=False, priority=True),
    ]

    def __init__(self, device: str, frame: Frame) -> None:
        super().__init__()
        self.device = device
        self._frame = frame
        self._peeked: Peeked | None = None
        self._before: dict[str, int] = {}

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with Vertical(id="details"):
            yield Static(id="facts")
            with VerticalScroll(id="scroll"):
                yield Static(id="held")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Show what is known already."""
        self.show(self._frame)

    def on_resize(self) -> None:
        """Fold lines anew."""
        self.call_after_refresh(self._paint)

    def show(self, frame: Frame, peeked: Peeked | None = None) -> None:
        """Show how the device is accessed, and what its registers hold if that is given."""
        self._frame = frame
        if peeked is not None:
            if self._peeked is not None:
                self._before = {each.name: each.value for each in self._peeked.registers}
            self._peeked = peeked
        self._paint()

    def action_scroll(self, lines: int) -> None:
        """Scroll registers by some lines."""
        self.query_one("#scroll").scroll_relative(y=lines, animate=False)

    def _paint(self) -> None:
        found = self._frame.device(self.device)
        panel = self.query_one("#details")
        panel.border_title = self.device + (f"  {found.device.type}" if found else "")
        width = max(1, self.query_one("#scroll").scrollable_content_region.width)
        palette = palette_of(self.app)
        about = details.facts(found, self.device)
        held = details.registers(self._peeked, self._before, self._frame, width)
        self.query_one("#facts", Static).update(palette.painted(about, width))
        self.query_one("#held", Static).update(palette.painted(held, width))


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
