"""`state`: what devices are like, saved and given back."""

from __future__ import annotations

import json
from pathlib import Path

from devicehost_client.ctl.command import CommandFailed, Context, ExitStatus, Noun, Verb, argument
from devicehost_client.ctl.files import read_text, write_text
from devicehost_client.ctl.output import Json
from devicehost_client.debug.wire import from_states

_STATES_HELP = '{DEVICE: {"type", "state"}}; what a state holds is its type\'s business'


def save(context: Context) -> ExitStatus:
    """Write states to a file, or show them."""
    options = context.options
    states = context.host.debug.save_state(options.devices)
    shape: dict[str, Json] = {
        device: {"type": each.type, "state": each.state} for device, each in states.items()
    }
    text = json.dumps(shape, indent=2) + "\n"
    if options.file is None:
        context.output.show_text(shape, text)
        return ExitStatus.OK
    write_text(options.file, text)
    context.output.show_text({"file": str(options.file), "devices": list(shape)}, "")
    return ExitStatus.OK


def restore(context: Context) -> ExitStatus:
    """Give devices the states of a file; say nothing."""
    path: Path = context.options.file
    try:
        states = from_states(read_text(path))
    except ValueError as error:
        raise CommandFailed(f"can't use {path}: {error}") from error
    wanted = context.options.devices
    missing = [device for device in wanted if device not in states]
    if missing:
        raise CommandFailed(f"{path} has no state of {missing[0]!r}; it has: {', '.join(states)}")
    chosen = {device: states[device] for device in wanted or states}
    context.host.debug.restore_state(chosen)
    context.output.show_text({"restored": list(chosen)}, "")
    return ExitStatus.OK


_DEVICES = argument(
    "--device",
    metavar="ID",
    dest="devices",
    action="append",
    default=[],
    help="only this device; can be given several times",
)

STATE = Noun(
    "state",
    "states of devices: saved, and given back",
    verbs=(
        Verb(
            "save",
            save,
            summary="save the state of all devices, or of some",
            description=(
                "Each device is as it is between two accesses; different devices at slightly\n"
                "different moments, if the guest runs meanwhile."
            ),
            arguments=(
                argument(
                    "-o",
                    dest="file",
                    metavar="FILE",
                    type=Path,
                    help="where to, as JSON; nothing is printed then [stdout]",
                ),
                _DEVICES,
            ),
            json=f'{_STATES_HELP}.\nWith a FILE: {{"file", "devices": [ID]}}',
            examples=(
                "devicehostctl state save -o before.json",
                "devicehostctl state save --device com1",
            ),
        ),
        Verb(
            "restore",
            restore,
            summary="give devices the states that were saved",
            description=(
                "The devices must be there, and be of the same types. If a state doesn't fit,\n"
                "that device is as it was; all others are restored. Nothing is printed."
            ),
            arguments=(
                argument(
                    "file", metavar="FILE", type=Path, help="what 'state save' wrote; - for stdin"
                ),
                _DEVICES,
            ),
            json='{"restored": [ID]}',
            examples=(
                "devicehostctl state restore before.json",
                "devicehostctl state restore before.json --device com1",
            ),
        ),
    ),
)
