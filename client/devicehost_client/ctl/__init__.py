"""`devicehostctl`: a device server by hand.

    cli             one run of the program: arguments in, exit status out
    parser          the commands as an argparse parser, with the help of each level
    command         what a command is: nouns, verbs, arguments, exit statuses
    commands/       the commands, a module for each noun
    resource_text   resources and constraints as text: `mmio:0xc0000000+0x1000`
    credentials     the files for TLS
    numeral         numbers as text
    shapes          what `-o json` says, and its documentation
    output          tables, JSON, and errors
    watching        what ends a watch

A new verb is one function, and one `Verb` in its noun's module.
"""

from devicehost_client.ctl.cli import main

__all__ = ["main"]
