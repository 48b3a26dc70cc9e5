"""What a program does several times over, such as the same layer at every level, is written once.

Compiling takes as long as there are statements, so that eight equal layers would take eight
times as long.  Loops and stages are the same when their text is the same but for the
names of arrays and sizes; the first keeps its names, and the others call it with theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")  # not the e of 1e-05
OFTEN = 4  # calls of each function, on average, from which on a run of them is written as a loop
COMMENT = re.compile(r"^ *#.*\n?", re.MULTILINE)


def merge_functions(
    functions: Sequence[str], shared: Callable[[str], bool]
) -> tuple[list[str], dict[str, str]]:
    """The functions that differ, and for every other one the name of its equal.

    shared : is a word one that all functions mean the same by, as they do by ``exp`` and ``for``?
    """
    kept: list[str] = []
    first: dict[str, str] = {}
    instead: dict[str, str] = {}
    for text in functions:
        name = re.search(r"def (\w+)\(", text).group(1)  # type: ignore[union-attr]
        key = _pattern(COMMENT.sub("", text), lambda word: "" if shared(word) else "a name")
        if key in first:
            instead[name] = first[key]
        else:
            first[key] = name
            kept.append(text)
    return kept, instead


class Call(NamedTuple):
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
    calls: dict[int, Call]
    lists: list[int]  # which arrays and sizes the calls work on: this has to be put into the table


def merge_stages(blocks: Sequence[Sequence[str]], entries: dict[str, tuple[str, int]], start: int) -> Merged:
    """Functions for blocks of lines that occur more than once, and calls of them.

    entries : name of an array or size → (its kind, such as "f4" or "size", where it stands in the table).
    Which arrays and sizes a call works on stands in the table too, from `start` on.
    So a call has few arguments, however many there are.
    """
    groups: dict[str, list[int]] = {}
    for k, block in enumerate(blocks):
        key = _pattern("\n".join(block), lambda word: entries[word][0] if word in entries else "", "size")
        groups.setdefault(key, []).append(k)
    title, at = _unlike("repeated_", entries), _unlike("list_", entries)
    functions: list[str] = []
    lists: list[int] = []
    calls: dict[int, Call] = {}
    for same in groups.values():
        if len(same) == 1:
            continue
        texts = ["\n".join(blocks[k]) for k in same]
        found = [[w for w in WORD.findall(text) if w in entries] for text in texts]
        # A parameter for what is the same word wherever it stands; sizes that are equal by chance are two.
        parameters: dict[tuple[str, ...], str] = {}
        taken: set[str] = set()
        for words in zip(*found, strict=True):
            if words not in parameters:
                name, k = words[0], 2
                while name in taken:
                    name, k = f"{words[0]}_{k}_", k + 1
                parameters[words] = name
                taken.add(name)
        names = iter([parameters[words] for words in zip(*found, strict=True)])
        body = WORD.sub(lambda w, names=names: next(names) if w.group() in entries else w.group(), texts[0])
        name = f"{title}{len(functions) + 1}"
        kinds = {parameter: entries[words[0]][0] for words, parameter in parameters.items()}
        functions.append(_function(name, body.split("\n"), kinds, at, len(same)))
        for place, k in enumerate(same):
            own = [words[place] for words in parameters]
            arrays = ", ".join(word for word in own if entries[word][0] != "size")
            calls[k] = Call(len(functions), start + len(lists), arrays)
            lists += [entries[word][1] for word in own]
    return Merged(title, functions, calls, lists)


def runs_of(calls: dict[int, Call]) -> list[range]:
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


def _pattern(text: str, kind: Callable[[str], str], alike: str = "") -> str:
    """The text with a number for each word that has a kind; words of the kind `alike` have none."""
    words: dict[str, str] = {}
    counted = 0

    def number(found: re.Match) -> str:
        nonlocal counted
        word = found.group()
        if word not in words:
            what = kind(word)
            counted += bool(what) and what != alike
            words[word] = word if not what else f"<{what}>" if what == alike else f"<{what} {counted}>"
        return words[word]

    return WORD.sub(number, text)
