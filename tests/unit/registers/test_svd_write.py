"""Register maps written as CMSIS-SVD."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from devicehost.registers import (
    Access,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
    check,
    to_svd,
)
from devicehost.registers.svd_xml import parse

# What may be in what, in this order: CMSIS-SVD.xsd, version 1.3.
ORDER = {
    "device": "vendor vendorID name series version description licenseText cpu "
    "headerSystemFilename headerDefinitionsPrefix addressUnitBits width size access protection "
    "resetValue resetMask peripherals vendorExtensions",
    "peripherals": "peripheral",
    "peripheral": "dim dimIncrement dimIndex dimName dimArrayIndex name version description "
    "alternatePeripheral groupName prependToName appendToName headerStructName "
    "disableCondition baseAddress size access protection resetValue resetMask addressBlock "
    "interrupt registers",
    "addressBlock": "offset size usage protection",
    "registers": "register",
    "register": "dim dimIncrement dimIndex dimName dimArrayIndex name displayName description "
    "alternateGroup alternateRegister addressOffset size access protection resetValue "
    "resetMask dataType modifiedWriteValues writeConstraint readAction fields",
    "fields": "field",
    "field": "dim dimIncrement dimIndex dimName dimArrayIndex name description bitRange access "
    "modifiedWriteValues writeConstraint readAction enumeratedValues",
    "enumeratedValues": "name headerEnumName usage enumeratedValue",
    "enumeratedValue": "name description value isDefault",
}
REQUIRED = {
    "device": {"name", "version", "description", "addressUnitBits", "width", "peripherals"},
    "peripheral": {"name", "baseAddress", "addressBlock", "registers"},
    "addressBlock": {"offset", "size", "usage"},
    "register": {"name", "addressOffset"},
    "field": {"name", "bitRange"},
    "enumeratedValue": {"name", "value"},
}
REPEATED = {"peripheral", "addressBlock", "register", "field", "enumeratedValue"}
FORM = {
    "name": r"[_A-Za-z0-9]+(\[%s\])?",
    "bitRange": r"\[[0-6]?[0-9]:[0-6]?[0-9]\]",
    "alternateGroup": r"[_A-Za-z0-9]+",
    "access": "read-write|read-only|write-only",
}
NUMBERS = {"dim", "dimIncrement", "baseAddress", "addressOffset", "size", "resetValue", "value"}

LATCHED = When("LCR", "DLAB", 1)
CHIP = RegisterMap(
    "my-chip.2",
    (
        Register("RBR", 0, access=Access.READ_ONLY, reset=None, on_read=OnRead.CHANGES_OTHERS),
        Register("THR", 0, access=Access.WRITE_ONLY, help="what to send"),
        Register("DLL", 0, when=LATCHED, help="divisor"),
        Register(
            "LCR",
            3,
            fields=(
                Field(
                    "DLAB",
                    0x80,
                    "divisor latch",
                    {
                        0: "off",
                        1: "on",
                    },
                    Access.READ_WRITE,
                ),
                Field("WLS", 0x03, values={0: "5 bits!", 1: "5 bits?", 2: "%"}),
                Field("FLAG", 0x04, on_read=OnRead.CLEARS, on_write=OnWrite.ONE_CLEARS),
            ),
        ),
        Register("ROW", 0x10, 8, count=4, stride=16, reset=0xFFFF_FFFF_FFFF_FFFF),
        Register("OTHER", 0x10, 4, count=2, alternate="ROW"),
        Register("LONE", 0x20, when=LATCHED),
        Register("INDEX", 8),
        Register("DATA", 9),
        Register("HIDDEN", 5, via=Via("INDEX", "DATA"), help="not seen"),
        Register("FAR", 4, 2, range=1),
    ),
    "a chip <of> mine",
)


def registers(text: str) -> dict[str, ET.Element]:
    found = parse(text).iter("register")
    return {each.findtext("name", ""): each for each in found}


def assert_valid(element: ET.Element) -> None:
    """Elements are where the schema allows them, and what it wants is there."""
    allowed = ORDER[element.tag].split()
    tags = [child.tag for child in element]
    positions = [allowed.index(tag) for tag in tags]
    assert positions == sorted(positions), (element.tag, tags)
    assert set(tags) >= REQUIRED.get(element.tag, set()), (element.tag, tags)
    for tag in set(tags) - REPEATED:
        assert tags.count(tag) == 1, (element.tag, tags)
    for child in element:
        if len(child):
            assert_valid(child)
        else:
            text = child.text or ""
            form = r"0x[0-9a-f]+|[0-9]+" if child.tag in NUMBERS else FORM.get(child.tag, r".+")
            assert re.fullmatch(form, text), (element.tag, child.tag, text)


def test_the_file_has_the_elements_of_the_schema_in_its_order() -> None:
    check(CHIP)
    for each in (CHIP, RegisterMap("16550", (Register("R", 0),))):
        assert_valid(parse(to_svd(each)))
    text = to_svd(CHIP)
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>\n<device ')
    assert 'schemaVersion="1.3"' in text
    assert 'noNamespaceSchemaLocation="CMSIS-SVD.xsd"' in text


def test_names_are_made_into_identifiers() -> None:
    text = to_svd(CHIP)
    assert parse(text).findtext("name") == "MY_CHIP_2"
    numbered = RegisterMap("16550", (Register("R", 0),))
    assert parse(to_svd(numbered)).findtext("name") == "_16550"
    names = [each.text for each in registers(text)["LCR"].iterfind(".//enumeratedValue/name")]
    assert names == ["OFF", "ON", "_5_BITS", "_5_BITS_1", "_"]


def test_the_peripheral_has_the_name_base_and_description_that_are_given() -> None:
    text = to_svd(CHIP, name="UART0", base=0x4000_0000, description="the console")
    peripheral = parse(text).find("peripherals/peripheral")
    assert peripheral is not None
    assert peripheral.findtext("name") == "UART0"
    assert peripheral.findtext("baseAddress") == "0x40000000"
    assert peripheral.findtext("description") == "the console"
    assert "<description>a chip &lt;of&gt; mine</description>" in to_svd(CHIP)


def test_a_condition_becomes_an_alternate_of_what_is_there_without_it() -> None:
    found = registers(to_svd(CHIP))
    assert found["DLL"].findtext("alternateRegister") == "RBR"
    assert found["DLL"].findtext("description") == "divisor There while LCR.DLAB is 1."
    assert found["OTHER[%s]"].findtext("alternateRegister") == "ROW[%s]"


def test_a_condition_alone_becomes_a_group() -> None:
    alone = RegisterMap("chip", (CHIP.register("LCR"), CHIP.register("LONE")))
    assert registers(to_svd(alone))["LONE"].findtext("alternateGroup") == "LCR_DLAB_1"


def test_what_is_behind_a_register_is_told_with_that() -> None:
    found = registers(to_svd(CHIP))
    assert "HIDDEN" not in found
    assert found["DATA"].findtext("description") == "By the number in INDEX: 0x5 HIDDEN."


def test_a_row_is_an_array() -> None:
    row = registers(to_svd(CHIP))["ROW[%s]"]
    assert [row.findtext(tag) for tag in ("dim", "dimIncrement", "size")] == ["4", "0x10", "64"]


def test_ranges_are_blocks_at_their_bases() -> None:
    text = to_svd(CHIP, base=[0x3F8, 0x2F8])
    blocks = [
        (each.findtext("offset"), each.findtext("size"))
        for each in parse(text).iter("addressBlock")
    ]
    assert blocks == [("0x100", "0x48"), ("0x0", "0x6")]
    assert parse(text).findtext(".//baseAddress") == "0x2f8"
    assert registers(text)["FAR"].findtext("addressOffset") == "0x4"
    assert registers(text)["LCR"].findtext("addressOffset") == "0x103"


def test_a_range_without_a_base_follows_the_one_before() -> None:
    assert registers(to_svd(CHIP, base=0x3F8))["FAR"].findtext("addressOffset") == "0xc0c"
