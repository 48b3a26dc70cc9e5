"""What a program does several times over, such as the same layer at every level, is written once.

Compiling takes as long as there are statements, so that eight equal layers would take eight
times as long.  Stages are the same when their statements are, but for the arrays and sizes that they name; the first
keeps its names, and the others call it with theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .program import Buffer, Name, Statement
from .text import lines_of, own_name

OFTEN = 4  # calls of each function, on average, from which on a run of them is written as a loop
Entries = dict[
    "Buffer | Name", tuple[str, int]
]  # of arrays and sizes: the kind, such as "f4" or "size", the place in the table


class Repeated(NamedTuple):
    """What stands in place of a stage that is there several times."""

    number: int  # of the function, from 1
    at: int  # where in the table the list of its arrays and sizes begins
    arrays: str

    def lines(self, name: str) -> list[str]:
        return [
            f"# {self.arrays}",
            f"bad = max(bad, {name}{self.number}(table, scratch, part, parts, {self.at}))",
        ]


class Merged(NamedTuple):
    """The functions of stages that are there several times, and the calls, by number of the stage."""

    name: str  # which the number of a function stands behind
    functions: list[str]
    calls: dict[int, Repeated]
    lists: list[int]  # which arrays and sizes the calls work on: this has to be put into the table


def merge_stages(blocks: Sequence[Sequence[Statement]], entries: Entries, start: int) -> Merged:
    """Functions for blocks of statements that occur more than once, and calls of them.

    Which arrays and sizes a call works on stands in the table too, from `start` on.
    So a call has few arguments, however many there are.
    """
    groups: dict[str, list[int]] = {}
    found: list[list[Buffer | Name]] = []  # the arrays and sizes of a block, as often as they stand in it
    for k, block in enumerate(blocks):
        key, used = pattern(block)
        found.append(used)
        groups.setdefault(key, []).append(k)
    taken = [own_name(x) for x in entries]
    title, at = _unlike("repeated_", taken), _unlike("list_", taken)
    functions: list[str] = []
    lists: list[int] = []
    calls: dict[int, Repeated] = {}
    for same in groups.values():
        if len(same) == 1:
            continue
        # A parameter for what is the same wherever it stands; sizes that are equal by chance are two.
        parameters: dict[tuple[Buffer | Name, ...], str] = {}
        for own in zip(*(found[k] for k in same), strict=True):
            if own not in parameters:
                name, k = own_name(own[0]), 2
                while name in parameters.values():
                    name, k = f"{own_name(own[0])}_{k}_", k + 1
                parameters[own] = name
        names = iter([parameters[own] for own in zip(*(found[k] for k in same), strict=True)])
        body = lines_of(blocks[same[0]], lambda _, names=names: next(names))
        name = f"{title}{len(functions) + 1}"
        kinds = {parameter: entries[own[0]][0] for own, parameter in parameters.items()}
        functions.append(_function(name, body, kinds, at, len(same)))
        for place, k in enumerate(same):
            own = [x[place] for x in parameters]
            arrays = ", ".join(own_name(x) for x in own if isinstance(x, Buffer))
            calls[k] = Repeated(len(functions), start + len(lists), arrays)
            lists += [entries[x][1] for x in own]
    return Merged(title, functions, calls, lists)


def pattern(block: Sequence[Statement]) -> tuple[str, list[Buffer | Name]]:
    """The text with a number and the dtype in place of each array's name, and what stands there; sizes have no numbers."""
    used: list[Buffer | Name] = []
    numbers: dict[Buffer, int] = {}

    def name(x: Buffer | Name) -> str:
        used.append(x)
        if isinstance(x, Name):
            return "<size>"
        return f"<{x.dtype} {numbers.setdefault(x, len(numbers) + 1)}>"

    return "\n".join(lines_of(block, name)), used


def runs_of(calls: dict[int, Repeated]) -> list[range]:
    """Calls that follow one another, of so few functions that a loop says it shorter."""
    runs: list[range] = []
    for k in sorted(calls):
        if runs and runs[-1].stop == k:
            runs[-1] = range(runs[-1].start, k + 1)
        else:
            runs.append(range(k, k + 1))
    return [run for run in runs if len(run) >= OFTEN * len({calls[k].number for k in run})]


def as_loop(run: range, merged: Merged, at: int, words: Iterable[str]) -> list[str]:
    """The lines of a run of calls: which functions they are of, and their lists, stand in the table from `at` on."""
    which, lists = _unlike("which", words), _unlike("list_", words)
    numbers = [merged.calls[k].number for k in run]
    return [
        f"for k in range(max(first, {run.start}), min(last, {run.stop})):  # in the order that stands in the table",
        f"    {which}, {lists} = table[{at} + 2 * (k - {run.start})], table[{at + 1} + 2 * (k - {run.start})]",
        *(
            line
            for number in sorted(set(numbers))
            for line in (
                f"    if {which} == {number}:  # {numbers.count(number)} times",
                f"        bad = max(bad, {merged.name}{number}(table, scratch, part, parts, {lists}))",
            )
        ),
    ]


def _function(name: str, block: Sequence[str], kinds: dict[str, str], at: str, times: int) -> str:
    """The block as a function of where the list of its arrays and sizes begins."""
    lines = [
        f"@stage\ndef {name}(table, scratch, part, parts, {at}):",
        f"    # the same {times} times over; each call has arrays and sizes of its own",
    ]
    for k, (word, kind) in enumerate(kinds.items()):
        entry = f"table[{at} + {k}]"
        lines.append(
            f"    {word} = " + (f"table[{entry}]" if kind == "size" else f"array_{kind}(table, {entry})")
        )
    return "\n".join([*lines, "    bad = 0", *("    " + line for line in block), "    return bad"]) + "\n"


def _unlike(prefix: str, words: Iterable[str]) -> str:
    """A prefix that none of the words begins with."""
    while any(word.startswith(prefix) for word in words):
        prefix += "_"
    return prefix
