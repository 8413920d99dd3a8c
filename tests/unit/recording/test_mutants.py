"""The corpus of the fuzz target would notice if the reader were worse: mutants of it fail.

Each is a module of the reader with one line changed.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from devicehost.recording import decoding, reader
from fuzz import recording
from fuzz.targets import corpus

DECODING = {
    "bytes that run past the end": (
        "if length > len(self.block) - self.at:",
        "if False:",
    ),
    "numbers of more than 64 bits": ("if value > layout.U64_LAST:", "if False:"),
    "numbers without end": ("range(0, 7 * layout.VARINT_MAX, 7)", "range(0, 7000, 7)"),
    "names in their order": ("return self.names[number]", "return self.names[number // 2]"),
    "a far access that leaves the window where it was": (
        "self.window = address & -layout.WINDOW",
        "self.window = 0",
    ),
    "a negative vCPU": ("vcpu if vcpu >= 0 else None,", "vcpu,"),
    "a base without room": ("if base > layout.BASE_LAST:", "if False:"),
    "more events than are counted": ("if found == count:", "if False:"),
    "fewer events than are counted": ("if found < count:", "if False:"),
    "a status that there is not": ("if status is None:", "if False:"),
    "a name that is no text": ("except UnicodeDecodeError as error:", "except KeyError as error:"),
    "a record that isn't whole": ("except (struct.error, IndexError):", "except IndexError:"),
}
READER = {
    "a wrong checksum": ("elif zlib.crc32(payload) != checksum:", "elif False:"),
    "a chunk's header with a wrong checksum": (
        "zlib.crc32(head[:CHUNK_CHECKED]) != check or length > BLOCK_MAX:",
        "length > BLOCK_MAX:",
    ),
    "events that are lost": ("yield Lost(chunk.events - found)", "return"),
    "a cut": ("if found < chunk.events and not chunk.is_cut:", "if found < chunk.events:"),
    "what follows the end": ("if _read(file, 1):", "if False:"),
    "an end that has another number": ("if counted not in (None, events):", "if False:"),
    "a short read": ("while size and (piece :=", "if size and (piece :="),
}


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """A module like another, but for one place."""
    assert module.__file__
    source = Path(module.__file__).read_text()
    assert source.count(old) == 1, f"there is no such line, or more than one: {old}"
    made = ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__file__, "exec"), vars(made))  # noqa: S102 # ours
    return made


def is_noticed() -> bool:
    """Whether an input of the corpus fails."""
    for file in corpus("recording"):
        try:
            recording.test_one_input(file.read_bytes())
        except Exception:  # noqa: BLE001 # whatever the mutant does
            return True
    return False


def test_the_reader_itself_passes() -> None:
    assert not is_noticed()


@pytest.mark.parametrize(("old", "new"), DECODING.values(), ids=DECODING)
def test_a_decoder_that_misses_this_is_noticed(
    old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mutant(decoding, old, new)
    monkeypatch.setattr(reader, "decode_block", made.decode_block)
    assert is_noticed()


@pytest.mark.parametrize(("old", "new"), READER.values(), ids=READER)
def test_a_reader_that_misses_this_is_noticed(
    old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = mutant(reader, old, new)
    monkeypatch.setattr(recording, "Recording", made.Recording)
    assert is_noticed()
