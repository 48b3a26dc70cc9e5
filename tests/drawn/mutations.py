"""``python -m tests.drawn.mutations``: the compiler is broken on purpose, in one place after the other.

For each place it says after how many drawn programs and seconds the net finds that something is wrong.  A
mutation changes the text of one function: where that text is not found any more, the mutation says so and has
to be written anew.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .check import Finding, check
from .draw import draw


@dataclass(frozen=True)
class Mutation:
    """In `function` of `module` the text `old` becomes `new`."""

    what: str
    module: str
    function: str
    old: str
    new: str


MUTATIONS = (
    Mutation(
        "a value is overwritten though others still read it", "compiler.lowering", "Lowering._is_dead",
        "return all(r.number in readers or r.number in self.done for r in home.readers.get(y.number, []))", "return True",
    ),
    Mutation(
        "what a step hands on from outside is overwritten", "compiler.lowering", "Lowering._read_at_every_step",
        " or y.number in level.wanted", "",
    ),
    Mutation(
        "what has no slot of its own for each step makes room for what is kept for all steps", "compiler.loops",
        "Loop._targets", "x.number in level.stepwise and ", "",
    ),
    Mutation(
        "two strides of a transpose are swapped", "compiler.operations", "Operations._transpose",
        "strides = [self.count(old[a + 1 :]) for a in axes]",
        "strides = [self.count(old[a + 1 :]) for a in axes]; strides[-2:] = strides[:-3:-1]",
    ),
    Mutation(
        "a leading axis that was repeated is not summed over", "reverse", "unbroadcast",
        "if axes:",
        "if extra and getattr(part, 'is_symbol', False):\n        part = part[0].reshape((1, *part.shape[1:]))\n"
        "    elif axes:",
    ),
    Mutation(
        "sums over the steps need not keep their shape", "compiler.rewrite", "same_shape",
        "return list(", "return True or list(",
    ),
    Mutation(
        "a sum over the steps leaves the loop though it is read on its way", "compiler.rewrite", "_sum_terms",
        "or counts[node.number] != 1", "or False",
    ),
    Mutation(
        "an axis that is 1 only in this call is taken for one that always is", "sizes", "is_one",
        "return resolve(size) == 1 if isinstance(resolve(size), int) else False",
        "return (resolve(size) if isinstance(resolve(size), int) else resolve(size).hint) == 1",
    ),
    Mutation(
        "states before a step are read where those after it stand", "compiler.scans", "ScanLoop._stack_place",
        "(node is after) != self.body.reverse", "(node is before) != self.body.reverse",
    ),
    Mutation(
        "a state that is handed on is not copied", "compiler.scans", "ScanLoop._close_carries",
        "for k, (before, after) in", "for k, (before, after) in [][:0] and",
    ),
    Mutation(
        "axes that one operand lacks are merged with those that it has", "compiler.loops", "Loop._dims",
        "dims[-1][1] == who", "len(dims[-1][1]) == len(who)",
    ),
    Mutation(
        "a part of a concatenation starts where its first part ends", "compiler.operations", "Operations._concat",
        "start = resolve(start + x.shape[axis])", "start = resolve(node.inputs[0].shape[axis])",
    ),
    Mutation(
        "a scan is split over threads though what it captures has a row for each sequence", "compiler.scans",
        "ScanLoop._alone", "x.number in batched if k in own else", "x.number in batched or not self._inside(x) if k in own else",
    ),
    Mutation(
        "a state of two slots in turn starts in the other slot", "compiler.scans", "ScanLoop._start",
        'slot = (T if all_steps else T % 2) if self.body.reverse else ZERO',
        'slot = (T if all_steps else ZERO) if self.body.reverse else ZERO',
    ),
    Mutation(
        "what an inner loop multiplies by is packed before all loops", "compiler.products", "Products.pack",
        "owner = level.owner(base)", "owner = level if level.owner(base) is level else None",
    ),
    Mutation(
        "the steps of an inner loop are kept where those of the first outer step are", "compiler.scans",
        "ScanLoop._stacks", "whole.at + self._at(a, level)", "self._at(a, level)",
    ),
)  # fmt: skip


@contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """The compiler with one place broken; LookupError where the place is not there any more."""
    module = importlib.import_module(f"minigrad.{mutation.module}")
    *path, name = mutation.function.split(".")
    holder = module
    try:
        for part in path:
            holder = getattr(holder, part)
        original = getattr(holder, name)
    except AttributeError:
        raise LookupError(
            f"{mutation.what}: minigrad.{mutation.module} has no {mutation.function} any more"
        ) from None
    text = textwrap.dedent(inspect.getsource(original))
    if text.count(mutation.old) != 1:
        raise LookupError(
            f"{mutation.what}: {mutation.function} has {text.count(mutation.old)} times, not once: {mutation.old}"
        )
    made: dict = {}
    exec(compile(text.replace(mutation.old, mutation.new), f"<broken {name}>", "exec"), module.__dict__, made)
    # Other modules took the function under its name when they were imported.
    holders = [holder] if path else [
        m for n, m in list(sys.modules.items())
        if n.startswith("minigrad") and getattr(m, name, None) is original
    ]  # fmt: skip
    static = path and isinstance(inspect.getattr_static(holder, name), staticmethod)
    for h in holders:
        setattr(
            h,
            name,
            staticmethod(made[name]) if static and not isinstance(made[name], staticmethod) else made[name],
        )
    try:
        yield
    finally:
        for h in holders:
            setattr(h, name, staticmethod(original) if static else original)


def until_found(
    mutation: Mutation, seconds: float = 300, first: int = 0
) -> tuple[Finding | None, int, float]:
    """Draw programs until one shows the mutation: (what it shows, how many were drawn, processor seconds)."""
    start, drawn = time.process_time(), 0
    while time.process_time() - start < seconds:
        program = draw(first + drawn)
        drawn += 1
        with applied(mutation):
            finding = check(program, "interpret")
        if finding is not None and check(program, "interpret") is None:  # it is the mutation's
            return finding, drawn, time.process_time() - start
    return None, drawn, time.process_time() - start


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.drawn.mutations", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=300, help="how long to draw for each")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("words", nargs="*", help="only mutations in whose description one of these stands")
    options = parser.parse_args(arguments)
    missed = 0
    wanted = [m for m in MUTATIONS if not options.words or any(w in m.what for w in options.words)]
    for mutation in wanted:
        finding, drawn, seconds = until_found(mutation, options.seconds, options.seed)
        missed += finding is None
        said = (
            f"found by program {drawn} after {seconds:.1f} s: {str(finding)[:90]}"
            if finding
            else f"NOT FOUND in {drawn} programs"
        )
        print(f"{mutation.what}: {said}", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} found")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
