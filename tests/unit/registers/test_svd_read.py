"""Register maps read from CMSIS-SVD, as vendors write it, and as enemies do."""

from __future__ import annotations

import pytest

from devicehost.registers import (
    Access,
    BadRegisterMap,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    from_svd,
    locate,
    places,
)

VENDOR = """<?xml version="1.0" encoding="utf-8" standalone="no"?>
<!-- A part that nobody makes, written as many are. -->
<device schemaVersion="1.3" xmlns:xs="http://www.w3.org/2001/XMLSchema-instance"
        xs:noNamespaceSchemaLocation="CMSIS-SVD.xsd">
  <vendor>Nobody</vendor>
  <name>NB32X4</name>
  <version>1.2</version>
  <description>Nobody's 32-bit part</description>
  <cpu>
    <name>CM4</name><revision>r0p1</revision><endian>little</endian>
    <nvicPrioBits>4</nvicPrioBits><vendorSystickConfig>false</vendorSystickConfig>
  </cpu>
  <addressUnitBits>8</addressUnitBits>
  <width>32</width>
  <size>0x20</size>
  <resetValue>0x0</resetValue>
  <resetMask>0xFFFFFFFF</resetMask>
  <peripherals>
    <peripheral>
      <name>TIM1</name>
      <description>Advanced
        timer\\nof 16 bits</description>
      <groupName>TIM</groupName>
      <baseAddress>0x40010000</baseAddress>
      <addressBlock><offset>0x0</offset><size>0x400</size><usage>registers</usage></addressBlock>
      <interrupt><name>TIM1_CC</name><value>27</value></interrupt>
      <registers>
        <register>
          <name>CR1</name>
          <displayName>CR1</displayName>
          <description>control register 1</description>
          <addressOffset>0x0</addressOffset>
          <access>read-write</access>
          <resetValue>0x0001</resetValue>
          <fields>
            <field>
              <name>CKD</name><description>Clock division</description>
              <bitOffset>8</bitOffset><bitWidth>2</bitWidth>
              <enumeratedValues>
                <name>CKD</name>
                <enumeratedValue><name>Div1</name><value>0</value></enumeratedValue>
                <enumeratedValue>
                  <name>Div2</name><description>by two</description><value>0b01</value>
                </enumeratedValue>
                <enumeratedValue><name>Any</name><value>#1x</value></enumeratedValue>
              </enumeratedValues>
            </field>
            <field>
              <name>ARPE</name><description>Preload</description><bitRange>[7:7]</bitRange>
              <enumeratedValues>
                <enumeratedValue><name>Off</name><value>0x0</value></enumeratedValue>
                <enumeratedValue>
                  <name>On</name><description>buffered</description><isDefault>true</isDefault>
                </enumeratedValue>
              </enumeratedValues>
            </field>
            <field><name>CEN</name><lsb>0</lsb><msb>0</msb></field>
            <field><name>Reserved31_16</name><bitOffset>16</bitOffset><bitWidth>16</bitWidth></field>
            <field><name>RESERVED</name><bitOffset>1</bitOffset><bitWidth>3</bitWidth></field>
            <field><name>AGAIN</name><bitOffset>0</bitOffset><bitWidth>2</bitWidth></field>
            <field><name>BEYOND</name><bitOffset>30</bitOffset><bitWidth>4</bitWidth></field>
          </fields>
        </register>
        <register derivedFrom="CR1">
          <name>CR2</name>
          <description>control register 2</description>
          <addressOffset>0x4</addressOffset>
          <fields>
            <field derivedFrom="CR1.CKD">
              <name>CKE</name><bitOffset>10</bitOffset>
            </field>
          </fields>
        </register>
        <register>
          <name>SR</name><description>status</description><addressOffset>0x10</addressOffset>
          <fields>
            <field>
              <name>CC%sIF</name>
              <dim>4</dim><dimIncrement>1</dimIncrement><dimIndex>1-4</dimIndex>
              <description>Capture</description><bitOffset>1</bitOffset><bitWidth>1</bitWidth>
              <modifiedWriteValues>zeroToClear</modifiedWriteValues>
            </field>
          </fields>
        </register>
        <register>
          <name>EGR</name><addressOffset>0x14</addressOffset><size>16</size>
          <fields>
            <field><name>UG</name><bitRange>[0:0]</bitRange><access>write-only</access></field>
            <field><name>TG</name><bitRange>[6:6]</bitRange><access>writeOnce</access></field>
          </fields>
        </register>
        <register>
          <name>CCMR1_Output</name><addressOffset>0x18</addressOffset>
          <fields>
            <field>
              <name>CC1S</name><bitRange>[1:0]</bitRange>
              <enumeratedValues derivedFrom="CKD"/>
            </field>
          </fields>
        </register>
        <register>
          <name>CCMR1_Input</name>
          <alternateRegister>CCMR1_Output</alternateRegister>
          <addressOffset>0x18</addressOffset>
        </register>
        <register>
          <name>RDR</name><addressOffset>0x24</addressOffset><access>read-only</access>
          <readAction>modify</readAction>
        </register>
        <register>
          <name>TDR</name><addressOffset>0x24</addressOffset><access>write-only</access>
          <readAction>clear</readAction><resetMask>0</resetMask>
        </register>
        <register>
          <dim>3</dim><dimIncrement>4</dimIncrement><dimIndex>A,B,C</dimIndex>
          <name>OPT%s</name><addressOffset>0x28</addressOffset>
        </register>
        <register>
          <dim>8</dim><dimIncrement>0x4</dimIncrement>
          <name>BUF[%s]</name><addressOffset>0x40</addressOffset><resetValue>7</resetValue>
        </register>
        <cluster>
          <dim>2</dim><dimIncrement>0x20</dimIncrement>
          <name>CH[%s]</name><description>channels</description>
          <addressOffset>0x80</addressOffset>
          <size>16</size>
          <register><name>CTRL</name><addressOffset>0x0</addressOffset></register>
          <register>
            <dim>2</dim><dimIncrement>2</dimIncrement>
            <name>DATA[%s]</name><addressOffset>0x4</addressOffset>
          </register>
          <cluster>
            <name>DMA</name><description>DMA</description><addressOffset>0x10</addressOffset>
            <register><name>SRC</name><addressOffset>0x0</addressOffset><size>64</size></register>
          </cluster>
        </cluster>
      </registers>
    </peripheral>
    <peripheral derivedFrom="TIM1">
      <name>TIM8</name>
      <baseAddress>0x40010400</baseAddress>
      <registers>
        <register>
          <name>SR</name><description>another status</description>
          <addressOffset>0x10</addressOffset>
        </register>
        <register><name>EXTRA</name><addressOffset>0xF0</addressOffset></register>
        <register derivedFrom="TIM1.CR1">
          <name>CR3</name><addressOffset>0xF4</addressOffset>
        </register>
      </registers>
    </peripheral>
    <peripheral>
      <dim>2</dim><dimIncrement>0x400</dimIncrement>
      <name>GPIO[%s]</name>
      <baseAddress>0x40020000</baseAddress>
      <registers>
        <register><name>IN</name><addressOffset>0</addressOffset></register>
      </registers>
    </peripheral>
  </peripherals>
</device>
"""


@pytest.fixture(scope="module")
def timer() -> RegisterMap:
    return from_svd(VENDOR, "TIM1")


def device(registers: str, more: str = "") -> str:
    return (
        f"<device><name>D</name>{more}<peripherals><peripheral><name>P</name>"
        f"<registers>{registers}</registers></peripheral></peripherals></device>"
    )


def register(name: str, offset: int, more: str = "", attributes: str = "") -> str:
    return (
        f"<register {attributes}><name>{name}</name><addressOffset>{offset}</addressOffset>"
        f"{more}</register>"
    )


def refused(text: str, peripheral: str | None = None) -> str:
    with pytest.raises(BadRegisterMap) as caught:
        from_svd(text, peripheral)
    return str(caught.value)


def test_a_peripheral_is_a_map_with_its_texts_on_one_line(timer: RegisterMap) -> None:
    assert timer.name == "tim1"
    assert timer.help == "Advanced timer of 16 bits"


def test_registers_come_with_what_is_said_around_them(timer: RegisterMap) -> None:
    assert timer.register("CR1") == Register(
        "CR1",
        0,
        4,
        Access.READ_WRITE,
        reset=1,
        help="control register 1",
        fields=(
            Field("CKD", 0x300, "Clock division", {0: "Div1", 1: "by two"}),
            Field("ARPE", 0x80, "Preload", {0: "Off", 1: "buffered"}),
            Field("CEN", 0x01),
            Field("RESERVED31_16", 0xFFFF0000),
        ),
    )
    assert timer.register("OPTA").reset == 0
    assert timer.register("OPTA").size == 4


def test_no_bit_in_the_reset_mask_means_that_the_reset_value_is_open(timer: RegisterMap) -> None:
    assert timer.register("TDR").reset is None


def test_a_derived_register_has_the_fields_of_both(timer: RegisterMap) -> None:
    derived = timer.register("CR2")
    assert (derived.offset, derived.reset, derived.help) == (4, 1, "control register 2")
    assert [each.name for each in derived.fields] == ["CKD", "ARPE", "CEN", "RESERVED31_16", "CKE"]


def test_a_derived_field_keeps_its_width_at_another_place(timer: RegisterMap) -> None:
    field = timer.register("CR2").field("CKE")
    assert (field.mask, field.help) == (0xC00, "Clock division")
    assert field.values == {0: "Div1", 1: "by two"}


def test_a_derived_field_is_where_it_says_itself_in_whatever_way() -> None:
    fields = (
        "<fields><field><name>A</name><bitRange>[7:4]</bitRange></field>"
        '<field derivedFrom="A"><name>B</name><lsb>8</lsb><msb>9</msb></field></fields>'
    )
    [found] = from_svd(device(register("R", 0, fields)))
    assert [each.mask for each in found.fields] == [0xF0, 0x300]


def test_derived_values_are_found_by_their_name_alone(timer: RegisterMap) -> None:
    assert timer.register("CCMR1_OUTPUT").field("CC1S").values == {0: "Div1", 1: "by two"}


def test_a_list_of_fields_is_fields_by_themselves(timer: RegisterMap) -> None:
    fields = timer.register("SR").fields
    assert [(each.name, each.mask) for each in fields] == [
        ("CC1IF", 2),
        ("CC2IF", 4),
        ("CC3IF", 8),
        ("CC4IF", 16),
    ]
    assert {each.on_write for each in fields} == {OnWrite.ZERO_CLEARS}


def test_the_access_that_all_fields_have_is_the_registers(timer: RegisterMap) -> None:
    egr = timer.register("EGR")
    assert (egr.access, egr.size) == (Access.WRITE_ONLY, 2)
    assert [each.access for each in egr.fields] == [None, None]


def test_effects_of_accesses_that_are_not_allowed_are_left_out(timer: RegisterMap) -> None:
    assert timer.register("RDR").on_read is OnRead.CHANGES
    assert timer.register("TDR").on_read is None


def test_of_two_registers_in_one_place_the_later_is_the_alternate(timer: RegisterMap) -> None:
    assert timer.register("CCMR1_INPUT").alternate == "CCMR1_OUTPUT"
    assert timer.register("CCMR1_OUTPUT").alternate == ""
    assert timer.register("TDR").alternate == ""
    silent = from_svd(device(register("A", 0) + register("B", 2, "<size>16</size>")))
    assert [each.alternate for each in silent] == ["", "A"]


def test_a_register_that_names_a_later_one_is_its_alternate() -> None:
    named = register("A", 0).replace("<addr", "<alternateRegister>B</alternateRegister><addr")
    found = from_svd(device(named + register("B", 0)))
    assert [(each.name, each.alternate) for each in found] == [("A", "B"), ("B", "")]


def test_arrays_are_rows_and_lists_are_registers(timer: RegisterMap) -> None:
    row = timer.register("BUF")
    assert (row.count, row.stride, row.reset) == (8, 0, 7)
    assert [timer.register(f"OPT{letter}").offset for letter in "ABC"] == [0x28, 0x2C, 0x30]


def test_clusters_give_their_names_offsets_and_sizes(timer: RegisterMap) -> None:
    control = timer.register("CH_CTRL")
    assert (control.count, control.stride, control.size) == (2, 0x20, 2)
    assert locate(timer, "CH_CTRL[1]").offset == 0xA0
    assert locate(timer, "CH_DMA_SRC[1]").offset == 0xB0
    assert timer.register("CH_DMA_SRC").size == 8


def test_an_array_in_an_array_is_rows_side_by_side(timer: RegisterMap) -> None:
    found = {place.name: place.offset for place in places(timer) if "DATA" in place.name}
    assert found == {
        "CH_DATA0[0]": 0x84,
        "CH_DATA0[1]": 0xA4,
        "CH_DATA1[0]": 0x86,
        "CH_DATA1[1]": 0xA6,
    }


def test_a_derived_peripheral_has_the_registers_of_both(timer: RegisterMap) -> None:
    derived = from_svd(VENDOR, "TIM8")
    assert derived.name == "tim8"
    assert {each.name for each in derived} == {each.name for each in timer} | {"EXTRA", "CR3"}
    assert derived.register("SR").help == "another status"
    assert derived.register("CR3").fields == timer.register("CR1").fields


def test_one_of_several_peripherals_has_to_be_named() -> None:
    listed = "it has: TIM1, TIM8, GPIO0, GPIO1"
    assert refused(VENDOR) == f"SVD: several peripherals; {listed}"
    assert refused(VENDOR, "UART") == f"SVD: no peripheral 'UART'; {listed}"
    assert from_svd(VENDOR, "GPIO1").name == "gpio1"
    assert from_svd(device(register("R", 0))).name == "p"


def test_names_that_are_one_in_upper_case_get_a_number() -> None:
    found = from_svd(device(register("Ctrl", 0) + register("CTRL", 4) + register("ctrl", 8)))
    assert [each.name for each in found] == ["CTRL", "CTRL_2", "CTRL_3"]


def test_a_register_of_the_same_name_in_a_group_is_called_by_both() -> None:
    again = register("CTRL", 0).replace("<addr", "<alternateGroup>Fast</alternateGroup><addr")
    found = from_svd(device(register("CTRL", 0) + again))
    assert [(each.name, each.alternate) for each in found] == [("CTRL", ""), ("CTRL_FAST", "CTRL")]


def test_values_for_reading_and_for_writing_become_one_list() -> None:
    one = "<enumeratedValue><name>{}</name><value>{}</value></enumeratedValue>"
    field = (
        "<fields><field><name>F</name><bitRange>[1:0]</bitRange>"
        f"<enumeratedValues><usage>write</usage>{one.format('Go', 1)}{one.format('Stop', 2)}"
        f"</enumeratedValues><enumeratedValues><usage>read</usage>{one.format('Busy', 1)}"
        "</enumeratedValues></field></fields>"
    )
    [found] = from_svd(device(register("R", 0, field)))
    assert found.field("F").values == {1: "Busy", 2: "Stop"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x1F", 31), ("0X1f", 31), ("31", 31), ("010", 10), ("#11", 3), ("4k", 4096)],
)
def test_numbers_are_written_in_many_ways(text: str, value: int) -> None:
    [found] = from_svd(
        device(f"<register><name>R</name><addressOffset>{text}</addressOffset></register>")
    )
    assert found.offset == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not well-formed XML: no element found"),
        ("<device>", "not well-formed XML"),
        ("\ud800", "not well-formed XML"),
        ("<html/>", "the root element is 'html'; allowed: device"),
        ("<device/>", "several peripherals; it has: none"),
        (device(""), "registers: 0x0; allowed: 0x1 to 0x10000"),
        (device(register("R", 0, "<size>65</size>")), "register R: size 65 bits; allowed: 1 to 64"),
        (device(register("R", 0, "<size>0</size>")), "size 0 bits"),
        (device(register("R", 0, "<size>big</size>")), "register R: size 'big'; allowed: a number"),
        (device(register("R", 0, "<access>rw</access>")), "access 'rw'; allowed: read-write"),
        (
            device(register("R", 0, "<readAction>explode</readAction>")),
            "register R: readAction 'explode'; allowed: clear, set, modify, modifyExternal",
        ),
        (
            device(register("R", 0, "<fields><field><name>F</name></field></fields>")),
            "field F: no bits; allowed: bitRange, lsb and msb, or bitOffset",
        ),
        (
            device(register("R%s", 0, "<dim>3</dim><dimIndex>A,B</dimIndex>")),
            "register R%s: dimIndex has 2 items; allowed: dim, 3",
        ),
        (device(register("R%s", 0, "<dim>65537</dim>")), "dim 65537; allowed: 1 to 65536"),
        (device(register("R%s", 0, "<dim>0</dim>")), "register R%s: dim 0"),
        (device(register("N" * 200, 0)), "a name of 200 characters; allowed: 128"),
        (device(register("R", 0, "", 'derivedFrom="X"')), "it is derived from 'X': there is none"),
        (
            device(
                register("A", 0, "", 'derivedFrom="B"') + register("B", 0, "", 'derivedFrom="A"')
            ),
            "it is derived from itself",
        ),
    ],
)
def test_what_is_no_register_map_is_refused_with_the_reason(text: str, message: str) -> None:
    assert message in refused(text)


def test_a_document_type_is_refused_and_its_entities_with_it() -> None:
    lol = "".join(f'<!ENTITY l{at} "{f"&l{at - 1};" * 10}">' for at in range(1, 10))
    bomb = f'<!DOCTYPE device [<!ENTITY l0 "lol">{lol}]><device><name>&l9;</name></device>'
    assert "it has a document type" in refused(bomb)
    outside = '<!DOCTYPE device SYSTEM "file:///etc/passwd"><device/>'
    assert "it has a document type" in refused(outside)


def test_how_deep_elements_are_is_limited() -> None:
    assert "64 in each other" in refused("<device>" + "<a>" * 64)


def test_a_cluster_derived_from_the_one_around_it_does_not_go_on_for_ever() -> None:
    inner = '<cluster derivedFrom="A"><name>B</name></cluster>'
    assert "more than 64 clusters in each other" in refused(
        device(f"<cluster><name>A</name>{inner}</cluster>")
    )


def test_clusters_that_double_each_other_are_too_much_work() -> None:
    clusters = "<cluster><name>C0</name></cluster>"
    for at in range(1, 40):
        halves = "".join(
            f'<cluster derivedFrom="P.C{at - 1}"><name>H{half}</name></cluster>' for half in "AB"
        )
        clusters += f"<cluster><name>C{at}</name>{halves}</cluster>"
    assert "more than 1000000 registers, fields, values" in refused(device(clusters))


def test_a_long_chain_of_derived_registers_is_refused() -> None:
    chain = register("R0", 0) + "".join(
        register(f"R{at}", 4 * at, "", f'derivedFrom="R{at - 1}"') for at in range(1, 100)
    )
    assert from_svd(device(chain)).register("R99").offset == 396
    reverse = "".join(
        register(f"R{at}", 4 * at, "", f'derivedFrom="R{at + 1}"') for at in range(100)
    )
    assert "over 64 others" in refused(device(reverse))


def test_more_registers_than_a_map_may_have_are_refused() -> None:
    text = "".join(register(f"R{letter}%s", 0, "<dim>65536</dim>") for letter in "AB")
    assert "more than 65536 registers" in refused(device(text))
