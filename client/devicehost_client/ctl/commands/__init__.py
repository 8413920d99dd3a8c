"""The commands, in the order in which help lists them."""

from devicehost_client.ctl.command import Noun, Verb
from devicehost_client.ctl.commands.address_map import MAP
from devicehost_client.ctl.commands.break_ import BREAK
from devicehost_client.ctl.commands.device import DEVICE
from devicehost_client.ctl.commands.export import EXPORT
from devicehost_client.ctl.commands.fault import FAULT
from devicehost_client.ctl.commands.flight import FLIGHT
from devicehost_client.ctl.commands.health import HEALTH
from devicehost_client.ctl.commands.inspect import INSPECT
from devicehost_client.ctl.commands.interrupt import INTERRUPT
from devicehost_client.ctl.commands.io import IO
from devicehost_client.ctl.commands.lint import LINT
from devicehost_client.ctl.commands.peek import PEEK, POKE
from devicehost_client.ctl.commands.record import RECORD
from devicehost_client.ctl.commands.replay import REPLAY, SHRINK
from devicehost_client.ctl.commands.report import REPORT
from devicehost_client.ctl.commands.resource import RESOURCE
from devicehost_client.ctl.commands.state import STATE
from devicehost_client.ctl.commands.top import TOP
from devicehost_client.ctl.commands.trace import TRACE

COMMANDS: tuple[Noun | Verb, ...] = (
    *(DEVICE, RESOURCE, IO, INTERRUPT, MAP, HEALTH),
    *(TOP, TRACE, BREAK, PEEK, POKE, INSPECT, STATE, FAULT),
    *(RECORD, FLIGHT, REPLAY, SHRINK, REPORT, LINT, EXPORT),
)

__all__ = ["COMMANDS"]
