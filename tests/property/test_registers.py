"""Register maps of any kind: what is written can be read, and any access can be decoded."""

from __future__ import annotations

import json
import random
import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from devicehost.recording.events import Operation
from devicehost.registers import (
    Access,
    BadRegisterMap,
    Decoder,
    Field,
    OnRead,
    OnWrite,
    Register,
    RegisterMap,
    Via,
    When,
    check,
    document,
    from_json,
    from_svd,
    locate,
    places,
    to_json,
    to_svd,
)

NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,7}", fullmatch=True).filter(
    lambda name: not name.startswith(("RESERVED", "RSVD"))
)
LINES = st.text(st.sampled_from(string.ascii_letters + "<>&'é% \"|\\"), max_size=12).map(
    lambda text: " ".join(text.replace("\\n", "").split())
)
OFFSETS = st.integers(0, 48)
OPERATIONS = st.sampled_from(Operation)


@st.composite
def fields(draw: st.DrawFn, size: int, access: Access) -> tuple[Field, ...]:
    """Some fields of a register, without overlap."""
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    edges = sorted(draw(st.sets(st.integers(0, 8 * size), min_size=2 * len(names), max_size=8)))
    found = []
    for at, name in enumerate(names[: len(edges) // 2]):
        low, high = edges[2 * at], edges[2 * at + 1]
        own = draw(st.none() | st.sampled_from(Access))
        may = own or access
        found.append(
            Field(
                name,
                (1 << high) - (1 << low),
                draw(LINES),
                draw(
                    st.dictionaries(
                        st.integers(0, min(15, (1 << (high - low)) - 1)),
                        LINES.filter(bool),
                        max_size=3,
                    )
                ),
                own,
                None if may is Access.WRITE_ONLY else draw(st.none() | st.sampled_from(OnRead)),
                None if may is Access.READ_ONLY else draw(st.none() | st.sampled_from(OnWrite)),
            )
        )
    draw(st.randoms()).shuffle(found)
    return tuple(found)


@st.composite
def plain_registers(draw: st.DrawFn, name: str) -> Register:
    """A register with an address of its own."""
    size = draw(st.integers(1, 8))
    access = draw(st.sampled_from(Access))
    count = draw(st.sampled_from([1, 1, 1, 2, 5]))
    return Register(
        name,
        draw(OFFSETS),
        size,
        access,
        draw(st.none() | st.integers(0, (1 << 8 * size) - 1)),
        draw(fields(size, access)),
        draw(LINES),
        count=count,
        stride=draw(st.sampled_from([0, size + 1, 16])) if count > 1 else 0,
        on_read=None if access is Access.WRITE_ONLY else draw(st.none() | st.sampled_from(OnRead)),
        on_write=None if access is Access.READ_ONLY else draw(st.none() | st.sampled_from(OnWrite)),
    )


def kept(registers: list[Register]) -> RegisterMap:
    """The map of those registers that keep the rules beside the ones before."""
    found: list[Register] = []
    for each in registers:
        try:
            check(RegisterMap("chip", (*found, each)))
        except BadRegisterMap:
            continue
        found.append(each)
    assume(found)
    return RegisterMap("chip", tuple(found), "some chip")


@st.composite
def plain_maps(draw: st.DrawFn) -> RegisterMap:
    """A map that SVD has words for all of."""
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    return kept([draw(plain_registers(name)) for name in names])


@st.composite
def maps(draw: st.DrawFn) -> RegisterMap:
    """A map with everything that there is."""
    mode = Register(
        "MODE", 60, fields=(Field("BANK", 0x0C, access=draw(st.none() | st.just(None))),)
    )
    way = Via("INDEX", "DATA", 0x3F)
    found = [mode, Register("INDEX", 61), Register("DATA", 62, 2)]
    for each in draw(plain_maps()):
        more: dict[str, object] = {
            "range": draw(st.sampled_from([0, 0, 1])),
            "sizes": tuple(draw(st.sets(st.sampled_from([1, 2, 4, 8])))),
        }
        match draw(st.integers(0, 3)):
            case 0:
                more["when"] = When("MODE", "BANK", draw(st.integers(0, 3)))
            case 1:
                more["via"] = way
            case 2:
                more["alternate"] = draw(st.sampled_from(found)).name
        found.append(replaced(each, **more))
    return kept(found)


def replaced(register: Register, **more: object) -> Register:
    values = {name: getattr(register, name) for name in register.__slots__}
    return Register(**{**values, **more})


@st.composite
def accesses(draw: st.DrawFn) -> list[tuple[int, int, Operation, bytes]]:
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from([0, 0, 0, 1, 2]),
                st.integers(59, 63) | st.integers(-2, 130) | st.integers(),
                OPERATIONS,
                st.binary(max_size=12),
            ),
            max_size=12,
        )
    )


@given(maps())
def test_a_map_is_the_same_after_a_way_through_json(register_map: RegisterMap) -> None:
    assert from_json(json.loads(json.dumps(to_json(register_map)))) == register_map


@given(plain_maps())
def test_a_plain_map_is_the_same_after_a_way_through_svd(register_map: RegisterMap) -> None:
    assert from_svd(to_svd(register_map)) == register_map


@given(maps())
def test_any_map_can_be_written_for_others_and_for_people(register_map: RegisterMap) -> None:
    text = to_svd(register_map)
    back = from_svd(text, "CHIP")
    assert {each.name for each in back} == {each.name for each in register_map if not each.via}
    written = document(register_map)
    assert all(each.name in written for each in register_map)


@given(maps(), accesses())
@settings(max_examples=300)
def test_any_access_decodes_to_all_of_its_bytes(
    register_map: RegisterMap, made: list[tuple[int, int, Operation, bytes]]
) -> None:
    decoder = Decoder(register_map)
    by_name = {place.name: place for place in places(register_map)}
    for range_, offset, operation, data in made:
        names = decoder.names(range_, offset, operation, len(data))
        found = decoder.decode(range_, offset, operation, data)
        assert all(str(each) for each in found)
        assert len(names) == 0 if not data else len(names) > 0
        bits = sum(each.value.bit_count() for each in found)
        assert bits == int.from_bytes(data, "little").bit_count()
        for each in found:
            if each.declared is None:
                assert (each.register, each.fields, each.reserved) == ("", (), 0)
                continue
            assert by_name[each.register].register is each.declared
            assert each.value < 1 << 8 * each.declared.size


@given(maps(), accesses())
def test_fields_and_reserved_bits_are_all_that_a_whole_register_has(
    register_map: RegisterMap, made: list[tuple[int, int, Operation, bytes]]
) -> None:
    decoder = Decoder(register_map)
    for range_, offset, operation, data in made:
        for each in decoder.decode(range_, offset, operation, data):
            if each.complete and each.declared is not None and each.declared.fields:
                value = each.reserved
                for field in each.fields:
                    value |= field.value << each.declared.field(field.name).lsb
                assert value == each.value
                order = [each.declared.field(field.name).lsb for field in each.fields]
                assert order == sorted(order, reverse=True)


@given(maps(), accesses())
def test_what_a_decoder_remembers_is_what_it_would_find_out(
    register_map: RegisterMap, made: list[tuple[int, int, Operation, bytes]]
) -> None:
    warm = Decoder(register_map)
    initial = {name: register_map.register(name).reset or 0 for name in warm.follows}
    first = [warm.decode(*each) for each in made]
    for name, value in initial.items():
        warm.learn(name, value)
    assert [warm.decode(*each) for each in made] == first


@given(plain_maps())
def test_a_whole_register_is_found_where_it_was_located(register_map: RegisterMap) -> None:
    for place in places(register_map):
        assert locate(register_map, place.name) == place
        register = place.register
        operation = Operation.READ if register.readable else Operation.WRITE
        [found] = Decoder(register_map).decode(0, place.offset, operation, bytes(place.size))
        assert (found.register, found.complete) == (place.name, True)


SEEDS = [
    json.dumps(to_json(RegisterMap("chip", (Register("R", 0, fields=(Field("F", 1),)),)))).encode(),
    to_svd(
        RegisterMap(
            "chip",
            (
                Register("MODE", 0, fields=(Field("F", 6, values={1: "on"}),), count=3),
                Register("OTHER", 8, 4, help="another"),
            ),
        )
    ).encode(),
]
TOKENS = [
    *(f"<{tag}>" for tag in ("register", "cluster", "dim", "name", "fields", "field", "size")),
    *(f"</{tag}>" for tag in ("register", "cluster", "dim", "name", "fields", "field", "size")),
    *("%s", "[%s]", ' derivedFrom="MODE"', "0x", "-1", "99999999999999999999", "null", "[]", "{}"),
    *("<dim>9</dim><dimIncrement>0</dimIncrement>", "#1x", "&lt;", '"', ",", "1e9", "true"),
]


def spoiled(chance: random.Random, text: bytes) -> bytes:
    """`text` with a few bytes changed, cut out, doubled, or words put in."""
    data = bytearray(text)
    for _ in range(chance.randint(1, 6)):
        at, size = chance.randrange(len(data) + 1), chance.randint(0, 40)
        match chance.randrange(4):
            case 0:
                data[at : at + size] = chance.randbytes(chance.randint(0, 4))
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size]
            case _:
                data[at:at] = chance.choice(TOKENS).encode()
    return bytes(data)


def outcome(text: str) -> RegisterMap | str | None:
    """What comes of a text: a map, the words of an error, or None if it isn't even JSON."""
    try:
        return from_svd(text) if text.lstrip().startswith("<") else from_json(json.loads(text))
    except json.JSONDecodeError:
        return None
    except BadRegisterMap as error:
        return str(error)


@pytest.mark.parametrize("seed", range(4))
def test_a_spoiled_file_is_a_map_or_an_error_with_words(seed: int) -> None:
    chance = random.Random(seed)
    found = [outcome(spoiled(chance, chance.choice(SEEDS)).decode("latin-1")) for _ in range(1500)]
    read = [each for each in found if isinstance(each, RegisterMap)]
    for each in read:
        check(each)
    assert len(read) > 10
    assert len({each for each in found if isinstance(each, str)}) > 100
    assert "" not in found


@given(st.binary() | st.text())
def test_what_is_nothing_at_all_is_refused(text: bytes | str) -> None:
    with pytest.raises(BadRegisterMap):
        from_svd(text.decode("latin-1") if isinstance(text, bytes) else text)
    with pytest.raises(BadRegisterMap):
        from_json(text)
