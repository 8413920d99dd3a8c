"""What each rule finds, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from devicehost.access_status import AccessStatus
from devicehost.recording import Event, Operation, Plugged, Space, Unplugged
from devicehost_client.recordings.lint import RULES, Finding, Linter, Severity, make_rules
from devicehost_client.recordings.lint.rule import GROUPS_MAX
from devicehost_client.recordings.source import Source
from devicehost_client.transports import TOOL_VCPU
from unit.client.recordings.synthetic import CMOS, COM1, DEVICES, TIMER_BASE, Guest, boot, write


@pytest.fixture
def guest() -> Guest:
    return Guest()


class Lint:
    """Looks through events, as a recording."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, events: Iterable[Event], *only: str) -> list[Finding]:
        linter = Linter(make_rules(only=only))
        with Source.open(write(self._path, events)) as source:
            for number, seen in source:
                linter.see(number, seen)
        return linter.findings()


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    return Lint(tmp_path / "some.rec")


def only(findings: list[Finding]) -> Finding:
    """The only finding."""
    assert len(findings) == 1, findings
    return findings[0]


def test_a_driver_that_does_all_right_is_not_blamed(lint: Lint, guest: Guest) -> None:
    events = [*guest.setup(), *guest.prints("hello"), *guest.reads_clock()]
    assert lint(events) == []


def test_each_rule_finds_something_in_a_boot_that_does_everything_wrong(lint: Lint) -> None:
    assert {finding.rule for finding in lint(boot())} == {rule.name for rule in RULES}


def test_the_worst_and_most_frequent_come_first(lint: Lint) -> None:
    findings = lint(boot())
    order = list(Severity)
    ranks = [(order.index(each.severity), -each.count) for each in findings]
    assert ranks == sorted(ranks)


def test_a_finding_says_how_often_and_where_first(lint: Lint, guest: Guest) -> None:
    finding = only(lint([*guest.prints("x"), *(guest.outb(COM1 + 6, value) for value in range(3))]))
    assert (finding.rule, finding.severity) == ("write-to-read-only", Severity.ERROR)
    assert (finding.device, finding.register, finding.count) == ("com1", "MSR", 3)
    assert finding.first.number == 2
    assert finding.first.access == "write pio 0x3fe 1 = 0x00"
    assert finding.first.decoded == "MSR = 0x00"


def test_reserved_bits_are_found_in_writes(lint: Lint, guest: Guest) -> None:
    finding = only(lint([guest.outb(COM1 + 4, 0x23)]))
    assert (finding.rule, finding.what) == ("reserved-bits", "reserved bits 0x20 are set")


def test_reserved_bits_that_are_written_as_they_were_read_are_preserved(
    lint: Lint, guest: Guest
) -> None:
    assert lint([guest.inb(COM1 + 4, 0x20), guest.outb(COM1 + 4, 0x23)]) == []


def test_a_device_that_was_plugged_anew_was_not_read_yet(lint: Lint, guest: Guest) -> None:
    events: list[Event] = [
        guest.inb(COM1 + 4, 0x20),
        Unplugged(guest.now_ns, "com1"),
        Plugged(guest.now_ns, DEVICES[0].to_json()),
        guest.outb(COM1 + 4, 0x23),
    ]
    assert only(lint(events)).rule == "reserved-bits"


def test_the_bits_that_decide_between_registers_are_followed(lint: Lint, guest: Guest) -> None:
    # 0xFF is all right for DLM, and has reserved bits for IER.
    events = [guest.outb(COM1 + 3, 0x83), guest.outb(COM1 + 1, 0xFF), guest.outb(COM1 + 3, 0x03)]
    assert lint(events) == []
    assert only(lint([*events, guest.outb(COM1 + 1, 0xFF)])).register == "IER"


def test_a_read_of_a_write_only_register_is_found(lint: Lint, guest: Guest) -> None:
    finding = only(lint([guest.readl(TIMER_BASE + 12, 0)]))
    assert (finding.rule, finding.register) == ("read-of-write-only", "CLEAR")


@pytest.mark.parametrize(
    ("offset", "size", "what"),
    [
        (4, 2, "an access of 2 bytes; allowed: 4; it covers a part only"),
        (6, 2, "an access of 2 bytes; allowed: 4; it covers a part only"),
        (0, 8, "an access of 8 bytes; allowed: 4; it covers other registers as well"),
    ],
)
def test_an_access_of_a_size_that_a_register_does_not_allow_is_found(
    lint: Lint, guest: Guest, offset: int, size: int, what: str
) -> None:
    findings = lint([guest.readl(TIMER_BASE + offset, 0, size=size)])
    assert {(each.rule, each.what) for each in findings} == {("access-size", what)}


def test_an_access_to_no_register_of_a_device_is_found(lint: Lint, guest: Guest) -> None:
    finding = only(lint([guest.readl(TIMER_BASE + 0x100, 0)]))
    assert (finding.rule, finding.device) == ("undeclared-offset", "timer0")
    assert finding.what == "there is no register at offset 0x100 of range 0"


def test_a_device_without_a_map_may_be_accessed_anywhere(lint: Lint, guest: Guest) -> None:
    assert lint([guest.outb(0x402, 0x41), guest.inb(0x402, 0xE9)]) == []


def test_a_value_that_an_enumerated_field_does_not_have_is_found(lint: Lint, guest: Guest) -> None:
    finding = only(lint([guest.writel(TIMER_BASE + 8, 0x4)]))
    assert (finding.rule, finding.what) == ("unused-value", "field MODE has no value 0x2")
    assert lint([guest.writel(TIMER_BASE + 8, 0x2)]) == []


def test_a_number_of_which_some_values_have_names_may_have_any(lint: Lint, guest: Guest) -> None:
    assert lint([guest.writel(TIMER_BASE + 16, 7)]) == []


def test_accesses_without_a_device_are_told_by_ranges(lint: Lint, guest: Guest) -> None:
    def probe(address: int) -> Event:
        return guest.access(
            Operation.READ, Space.PIO, address, 0, status=AccessStatus.NO_DEVICE, took_ns=500
        )

    findings = lint([probe(0x2F8), probe(0x2FA), probe(0x2F9), probe(0x5658)])
    assert [(each.rule, each.what, each.count, each.cost_ns) for each in findings] == [
        ("no-device", "there is no device at pio 0x2f8+0x3", 3, 1500),
        ("no-device", "there is no device at pio 0x5658+0x1", 1, 500),
    ]
    assert all(each.severity is Severity.COST for each in findings)


def test_a_failed_access_is_found_with_its_reason(lint: Lint, guest: Guest) -> None:
    finding = only(
        lint([guest.access(Operation.WRITE, Space.PIO, CMOS, 1, status=AccessStatus.DEVICE_FAULT)])
    )
    assert (finding.rule, finding.device) == ("failed-access", "rtc")
    assert finding.what == "a write of 1 bytes failed: DEVICE_FAULT"


def polls(guest: Guest, count: int, value: int = 0x00) -> list[Event]:
    return [guest.inb(COM1 + 5, value, took_ns=1000) for _ in range(count)]


def test_equal_reads_in_a_row_are_a_polling_loop(lint: Lint, guest: Guest) -> None:
    events = [*polls(guest, 10), *guest.prints("a"), *polls(guest, 8), *guest.prints("b")]
    finding = only(lint(events))
    assert (finding.rule, finding.severity) == ("polling-loop", Severity.COST)
    assert (finding.device, finding.register, finding.count) == ("com1", "LSR", 2)
    assert finding.what == (
        "LSR = 0x0 is read again and again: 18 reads, up to 10 in a row; then comes"
        " LSR = 0x60 (TEMT=1, THRE=1)"
    )
    # From the beginning of the first read to the end of the last, 900 ns between them.
    assert finding.cost_ns == (10 + 8) * 1000 + (9 + 7) * 900


def test_a_few_equal_reads_are_no_loop(lint: Lint, guest: Guest) -> None:
    assert lint([*polls(guest, 7), *guest.prints("a")]) == []


def test_how_many_reads_are_a_loop_can_be_chosen(guest: Guest, tmp_path: Path) -> None:
    linter = Linter(make_rules(only=["polling-loop"], polls_min=3))
    with Source.open(write(tmp_path / "some.rec", polls(guest, 3))) as source:
        for number, seen in source:
            linter.see(number, seen)
    assert only(linter.findings()).what.endswith("then comes the end of the recording")


def test_two_vcpus_do_not_disturb_each_others_loops(lint: Lint, guest: Guest) -> None:
    other = Guest(vcpu=1)
    events = [
        each for pair in zip(polls(guest, 8), polls(other, 8, 0x20), strict=True) for each in pair
    ]
    assert [each.count for each in lint(events)] == [1, 1]


def test_taking_equal_bytes_out_of_a_register_is_no_loop(lint: Lint, guest: Guest) -> None:
    assert lint([guest.inb(COM1, 0x00) for _ in range(20)]) == []


def test_writing_the_value_that_a_register_has_is_redundant(lint: Lint, guest: Guest) -> None:
    finding = only(lint([guest.outb(COM1 + 7, 5), guest.outb(COM1 + 7, 5)]))
    assert (finding.rule, finding.register, finding.count) == ("redundant-write", "SCR", 1)
    assert finding.first.number == 1


def test_writing_a_value_that_was_read_is_redundant_and_one_that_changed_is_not(
    lint: Lint, guest: Guest
) -> None:
    assert only(lint([guest.inb(COM1 + 7, 5), guest.outb(COM1 + 7, 5)])).first.number == 1
    events = [guest.outb(COM1 + 7, 5), guest.inb(COM1 + 7, 6), guest.outb(COM1 + 7, 5)]
    assert lint(events) == []


def test_writing_equal_bytes_where_a_write_does_something_is_not_redundant(
    lint: Lint, guest: Guest
) -> None:
    assert lint([guest.outb(COM1, 0x2E) for _ in range(4)]) == []


def test_accesses_by_hand_are_nobodys_fault(lint: Lint, guest: Guest) -> None:
    person = Guest(vcpu=TOOL_VCPU)
    assert lint([person.outb(COM1 + 6, 1), person.outb(COM1 + 4, 0xFF)]) == []
    changed = [guest.outb(COM1 + 7, 5), person.outb(COM1 + 7, 6), guest.outb(COM1 + 7, 5)]
    assert lint(changed) == []


def test_what_is_found_in_too_many_places_is_counted_as_one(lint: Lint, guest: Guest) -> None:
    findings = lint(guest.readl(TIMER_BASE + 0x100 + 4 * i, 0) for i in range(GROUPS_MAX + 7))
    assert len(findings) == GROUPS_MAX + 1
    assert findings[0].count == 7
    assert findings[0].what == f"more of the kind, beyond the first {GROUPS_MAX} places"


def test_pages_without_a_device_beyond_the_first_are_counted_as_one(
    lint: Lint, guest: Guest
) -> None:
    findings = lint(
        guest.access(Operation.READ, Space.MMIO, i << 12, 0, status=AccessStatus.NO_DEVICE)
        for i in range(GROUPS_MAX + 3)
    )
    assert findings[0].count == 3
    assert findings[0].what == f"more of the kind, beyond the first {GROUPS_MAX} places"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_has_help_and_can_be_asked_for_or_left_out(rule: type, lint: Lint) -> None:
    assert rule.__doc__
    name: str = rule.name  # type: ignore[attr-defined] # parametrize knows classes only
    assert {each.rule for each in lint(boot(), name)} == {name}
    assert name not in {each.name for each in make_rules(disabled=[name])}


def test_a_rule_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="rule 'reserved' is not one; allowed: access-size, "):
        make_rules(disabled=["reserved"])
