"""`inspect`: the server's live state, as a tree."""

from __future__ import annotations

import sys
from functools import partial

from devicehost_client.ctl.command import Context, ExitStatus, Verb, argument, checked
from devicehost_client.ctl.debug_shapes import node_shape
from devicehost_client.ctl.numeral import U32_MAX, number
from devicehost_client.ctl.output import printable
from devicehost_client.ctl.tree_text import draw, strokes_for


def inspect(context: Context) -> ExitStatus:
    """Draw a part of the tree."""
    options = context.options
    path = options.path.strip("/")
    node = context.host.debug.inspect(path, options.depth)
    lines = draw(node, strokes_for(sys.stdout.encoding), name=path)
    context.output.show_text(node_shape(node), "".join(f"{printable(line)}\n" for line in lines))
    return ExitStatus.OK


INSPECT = Verb(
    "inspect",
    inspect,
    summary="show the server's live state as a tree: devices, registers, ranges, counters, ...",
    description=(
        "A name is followed by its value, if it has one. '...' stands for what is below --depth."
    ),
    arguments=(
        argument(
            "path",
            metavar="PATH",
            nargs="?",
            default="",
            help="where in the tree, with '/' between names [all of it]",
        ),
        argument(
            "--depth",
            metavar="N",
            type=checked(partial(number, most=U32_MAX)),
            default=0,
            help="how many levels below that [0: all]",
        ),
    ),
    json=(
        'NODE: {"name", "value" (text, or null), "nodes": [NODE], "cut"}; cut is true if nodes\n'
        "were left out"
    ),
    examples=(
        "devicehostctl inspect --depth 1",
        "devicehostctl inspect devices/com1",
    ),
)
