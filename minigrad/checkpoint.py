"""Weights and whole trainings on disk: safetensors files, of which nothing is ever executed.

A file is written beside the old one and moved into its place, so that there is a whole old one or a whole new one
at any moment; it carries a checksum of all its bytes, so that a damaged one is refused.  `save` and `load` are for
arrays with notes; `save_training` and `load_training` for all that a training needs to go on to the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import files
from .errors import DTypeError, InputError
from .optim import Optimiser, assigned, commit, fitting
from .tensor import Tensor

if TYPE_CHECKING:
    from numpy.random import Generator

# Two marks, so that no change of a single byte makes one of our files pass for a file from elsewhere.
OURS = "minigrad."
VERSION, CHECKSUM, GENERATORS = OURS + "version", OURS + "sha256", OURS + "generators"
BEFORE_SUM, NO_SUM = f'"{CHECKSUM}":"'.encode(), b"0" * 64
LARGEST_HEADER = 100_000_000  # bytes: safetensors reads no larger one
DTYPES = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64",
}  # fmt: skip


class Arrays(dict[str, np.ndarray]):
    """Arrays by name, with the `notes` (texts by name) that lay beside them."""

    def __init__(self, arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]):
        super().__init__(arrays)
        self.notes = dict(notes)


def save(path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """Write tensors, or arrays, by name, with `notes` (texts) beside them.

    A new file gets the usual mode, one that is replaced keeps its own; a link stays, and what it names is replaced.
    Raises InputError where the file cannot be written, and for names and notes that are not Unicode text; DTypeError
    for a dtype that the format has not.  Then the old file is as it was, and nothing lies beside it; what a process
    that was killed while it wrote has left is removed by a later one.
    """
    _write(path, _named(tensors), _texts(notes or {}))


def load(path, prefix: str = "") -> Arrays:
    """Arrays by name, and their `notes`: ``weights = load(path); weights.notes["alphabet"]``.

    prefix : only those whose name begins with it, called by the rest: ``load(path, "parameters/")`` are the weights
        of a training that `save_training` wrote.

    Raises InputError for a file that is not a safetensors file, or was changed since `save`.  A safetensors file from
    elsewhere has no checksum and is read all the same; that its header fits its data is all that is known of it.
    """
    arrays, notes = _read(path)
    return Arrays(_part(arrays, prefix), {name: text for name, text in notes.items() if not _is_ours(name)})


def save_training(
    path,
    optimiser: Optimiser,
    *,
    rng: Generator | Mapping[str, Generator] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write all that a training needs to go on as if it had never stopped: one file.

    optimiser : with its options, slots and step count, and the parameters that it moves.
    rng : the random generator, or several by name, that later steps draw from.
    tensors, notes : whatever else is needed, such as carried states, or the alphabet.

    Raises what `save` raises.
    """
    positions = {name: rng.bit_generator.state for name, rng in generators(rng).items()}
    write_training(path, optimiser, positions, tensors or {}, notes or {})


def load_training(
    path, optimiser: Optimiser, *, rng: Generator | Mapping[str, Generator] | None = None
) -> Arrays:
    """Put back what `save_training` wrote, and return the further tensors, with the notes.

    The optimiser, its parameters and the generators are made as they were before; those of the file take the place
    of their numbers.  Raises InputError for a file that does not hold a training, for names that are missing or
    surplus and for another kind of generator, ShapeError and DTypeError for arrays of another kind; nothing is
    changed then.
    """
    changes, found = training_from(path, optimiser, rng)
    commit(changes)
    return found


def training_from(path, optimiser: Optimiser, rng) -> tuple[list[tuple], Arrays]:
    """The changes that `load_training` makes, and what it returns; raises what `load_training` raises."""
    arrays, notes = _read(path)
    if GENERATORS not in notes:
        raise InputError(f"{files.shown(path)} holds arrays but no training: read it with checkpoint.load")
    own = dict(zip(optimiser.labels, optimiser.parameters, strict=True))
    who = f"training from {files.shown(path)}"
    values = fitting(f"{who}, parameters", _part(arrays, "parameters/"), {n: p.value for n, p in own.items()})
    changes = [change for name, p in own.items() for change in assigned(p, values[name])]
    changes += optimiser.loaded(_part(arrays, "optimiser/"))
    changes += _generators_put_back(who, generators(rng), notes[GENERATORS])
    return changes, Arrays(
        _part(arrays, "tensors/"), {n: text for n, text in notes.items() if not _is_ours(n)}
    )


def write_training(
    path, optimiser: Optimiser, positions: dict[str, Any], tensors: Mapping, notes: Mapping
) -> None:
    """`save_training` with what NumPy calls the states of the generators in place of these; raises what `save` raises."""
    parts = {
        "parameters": dict(zip(optimiser.labels, optimiser.parameters, strict=True)),
        "optimiser": optimiser.state_dict(),
        "tensors": _named(tensors),
    }
    arrays = {f"{part}/{name}": a for part, named in parts.items() for name, a in named.items()}
    _write(path, arrays, {**_texts(notes), GENERATORS: text_of_generators(positions)})


def text_of_generators(positions: dict[str, Any]) -> str:
    """The positions of random generators as JSON."""
    return json.dumps(positions, default=lambda array: array.tolist())


def generators(rng) -> dict[str, Generator]:
    """Random generators by name; a single one is called "rng".  Raises InputError for anything else."""
    named = dict(rng) if isinstance(rng, Mapping) else {} if rng is None else {"rng": rng}
    for name, generator in named.items():
        if not isinstance(generator, np.random.Generator):
            raise InputError(
                f"checkpoint: {name} is {type(generator).__name__}; give a numpy.random.default_rng(seed)"
            )
    return named


def _generators_put_back(who: str, own: dict[str, Generator], text: str) -> list[tuple]:
    """The changes that give generators the positions in a note."""
    try:
        positions = dict(json.loads(text))
        if set(positions) != set(own):
            raise InputError(
                f"{who}: its random generators are {sorted(positions) or 'none'}, those given as rng "
                f"{sorted(own) or 'none'}"
            )
        for name, generator in own.items():
            kind, given = positions[name]["bit_generator"], type(generator.bit_generator)
            if kind != given.__name__:
                raise InputError(
                    f"{who}: the generator {name} is {given.__name__}, that of the file {kind!r:.40}"
                )
            given(0).state = positions[name]  # a state that is none shows here, and changes nothing
    except InputError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise InputError(f"{who}: the states of its random generators make no sense ({error})") from None
    return [(generator.bit_generator, "state", positions[name]) for name, generator in own.items()]


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def _is_ours(name: str) -> bool:
    return name.startswith(OURS)


def _named(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not isinstance(tensors, Mapping):
        raise InputError(f"checkpoint: give a dict of tensors by name, not {type(tensors).__name__}")
    return tensors


def _texts(notes: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(notes, Mapping):
        raise InputError(f"notes: give a dict of texts by name, not {type(notes).__name__}")
    for name, text in notes.items():
        _text(name, "the name of a note")
        _text(text, f"note {name!r:.80}")
        if _is_ours(name):
            raise InputError(f"note {name!r:.80}: names that begin with {OURS!r} are kept for the file's own")
    return dict(notes)


def _text(text, what: str) -> None:
    """Raise InputError unless it is a str that UTF-8 can write."""
    if not isinstance(text, str):
        raise InputError(f"{what} is {type(text).__name__}; give a text, for numbers json.dumps(…)")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what}: {text!r:.80} is not Unicode text ({error.reason})") from None


# Bytes.


def _write(path, tensors: Mapping[str, Tensor], notes: dict[str, str]) -> None:
    pieces = _encoded({name: _array(name, t) for name, t in tensors.items()}, notes)
    files.write(path, *pieces, what="weights", lasting=True)


def _array(name: str, tensor) -> np.ndarray:
    """A value as safetensors writes it rightly: row by row."""
    _text(name, "the name of a tensor")
    if name == "__metadata__":
        raise InputError("a tensor cannot be called '__metadata__': the format keeps that name for notes")
    try:
        array = np.asarray(tensor.value if isinstance(tensor, Tensor) else tensor)
    except (ValueError, TypeError) as error:
        raise InputError(f"checkpoint: {name!r:.80} is not a numeric array ({error})") from None
    if array.dtype.name not in DTYPES:
        raise DTypeError(
            f"checkpoint: {name!r:.80} is {array.dtype}; make it one of {', '.join(sorted(DTYPES))}"
        )
    return np.asarray(array, order="C")


def _encoded(arrays: dict[str, np.ndarray], notes: dict[str, str]) -> list:
    """A file in pieces, the checksum being one: that of the whole with zeros in its place."""
    import hashlib  # when needed, as safetensors is: for `import minigrad` to stay quick

    from safetensors import SafetensorError
    from safetensors.numpy import save as encode

    try:
        data = encode(arrays, {**notes, VERSION: "1", CHECKSUM: NO_SUM.decode()})
    except (SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"checkpoint: the arrays cannot be written as safetensors ({error})") from None
    header = 8 + int.from_bytes(data[:8], "little")
    if header > LARGEST_HEADER:
        raise InputError(f"checkpoint: names and notes take {header:,} bytes; {LARGEST_HEADER:,} can be read")
    at = data.index(BEFORE_SUM, 8, header) + len(BEFORE_SUM)
    whole = memoryview(data)
    return [whole[:at], hashlib.sha256(data).hexdigest().encode(), whole[at + len(NO_SUM) :]]


def _read(path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and all notes of a file whose checksum, if it has one, is right."""
    import hashlib

    from safetensors.numpy import load as decode

    try:
        files.regular(path)
        data = Path(path).read_bytes()
    except InputError:
        raise
    except (OSError, ValueError, TypeError) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(f"weights cannot be read from {files.shown(path)}: {said}") from None
    try:
        arrays = decode(data)
        header = 8 + int.from_bytes(data[:8], "little")
        described = json.loads(data[8:header])
        notes = described.pop("__metadata__", None) or {}
        arrays = {name: arrays[name] for name in described}  # in the order of the file
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # safetensors' own kind, and whatever NumPy says of sizes and types from a file
        said = f"{type(error).__name__}: {error}"
        raise InputError(f"{files.shown(path)} is not a safetensors file, or damaged ({said:.200})") from None
    if any(map(_is_ours, notes)):
        at = data.find(BEFORE_SUM, 8, header) + len(BEFORE_SUM)
        whole, digest = memoryview(data), hashlib.sha256()
        for piece in (whole[:at], NO_SUM, whole[at + len(NO_SUM) :]):
            digest.update(piece)
        if (
            notes.get(CHECKSUM) != digest.hexdigest()
            or bytes(whole[at : at + 64]) != digest.hexdigest().encode()
        ):
            raise InputError(
                f"{files.shown(path)} was changed since it was written: its checksum is wrong; use a copy"
            )
    return arrays, notes
