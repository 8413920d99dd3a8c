"""`devicehostctl`: a device server by hand.

    cli             one run of the program: arguments in, exit status out
    parser          the commands as an argparse parser, with the help of each level
    command         what a command is: nouns, verbs, arguments, exit statuses
    commands/       the commands, a module for each noun
    resource_text   resources and constraints as text: `mmio:0xc0000000+0x1000`
    where           places and conditions as text: `com1.LCR`, `pio:0x3f8-0x3ff`
    credentials     the files for TLS
    numeral         numbers as text, and `seconds`
    files           files that are read and written
    shapes          what `-o json` says, and its documentation; `debug_shapes` likewise
    output          tables, JSON, and errors
    progress        how far long work has come
    watching        what ends a watch
    mailbox         several things at once: streams, lines that are typed, signals

    breaking        one run of `break`, with `hold_commands`: what can be typed in it
    event_text, hit_text, difference_text, tree_text
                    what is seen, as lines for people
    replaying       the replayer, as a child process

A new verb is one function, and one `Verb` in its noun's module.
"""

from devicehost_client.ctl.cli import main

__all__ = ["main"]
