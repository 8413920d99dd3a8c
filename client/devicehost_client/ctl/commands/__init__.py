"""The commands, in the order in which help lists them."""

from devicehost_client.ctl.command import Noun, Verb
from devicehost_client.ctl.commands.address_map import MAP
from devicehost_client.ctl.commands.device import DEVICE
from devicehost_client.ctl.commands.health import HEALTH
from devicehost_client.ctl.commands.interrupt import INTERRUPT
from devicehost_client.ctl.commands.io import IO
from devicehost_client.ctl.commands.resource import RESOURCE

COMMANDS: tuple[Noun | Verb, ...] = (DEVICE, RESOURCE, IO, INTERRUPT, MAP, HEALTH)

__all__ = ["COMMANDS"]
