"""What a driver did that a data sheet forbids, or that costs it.

linter = Linter(make_rules(disabled=["redundant-write"]))
for number, seen in source:
    linter.see(number, seen)
for finding in linter.findings():
    print(finding.severity.value, finding.rule, finding.what, finding.count)

rule    what a rule is, and what it finds
bus     accesses that went nowhere, or wrong
sheet   what a register map says that a driver mustn't do
cost    what traps for nothing
linter  all rules, over a recording
"""

from __future__ import annotations

from devicehost_client.recordings.lint.linter import RULES, Linter, make_rules
from devicehost_client.recordings.lint.rule import (
    Finding,
    Place,
    Problem,
    Rule,
    Severity,
    SheetRule,
)

__all__ = [
    "RULES",
    "Finding",
    "Linter",
    "Place",
    "Problem",
    "Rule",
    "Severity",
    "SheetRule",
    "make_rules",
]
