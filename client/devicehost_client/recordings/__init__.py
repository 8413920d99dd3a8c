"""Recordings, after the fact: what was wrong, where the time went, and how to show it.

    source      a recording being gone through: events, their numbers, what is damaged
    words       events in words, for people
    shapes      events as JSON
    lint/       what a driver did that it mustn't, or that costs it: a class for each rule
    export/     recordings in the forms of others: JSON lines, a trace for Perfetto
    report/     a recording as one page of HTML

All of it goes through a recording once and keeps no events but a bounded number, so that
memory doesn't grow with the recording. A recording that was cut or damaged is good as far
as it goes, and what is made of it says so.

    with Source.open(path) as source:
        linter = Linter(make_rules())
        for number, seen in source:
            linter.see(number, seen)
    for finding in linter.findings():
        print(finding)
"""
