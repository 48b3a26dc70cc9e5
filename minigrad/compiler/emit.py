"""A graph → readable Numba source for all of it: `emit`.

The graph is lowered to a loop program (program.py) and printed (text.py).  The source is a list of stages, each a part of
one function of a table of sizes and addresses.  Element-wise operations that follow one another become one loop (a
function of its own over flat arrays, which LLVM turns into vector code); products and reductions are calls; a scan is a
loop over steps, one in the step of another a loop in that loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..names import quotable
from ..reverse import ancestors
from ..tensor import Tensor
from .blocking import blocked
from .places import Level, once, readers_of
from .program import ZERO, Buffer, Name, Program, Stage
from .repeats import Merged, as_loop, merge_stages, runs_of
from .scans import ScanLoop
from .text import Naming, lines_of, own_name
from .walk import Walk

SCRATCH_TYPES = {"f4": "float32[::1]", "f8": "float64[::1]"}


HEADER = '''"""Generated from {name}: the whole of it, forward and backward, as loops over flat arrays."""

from minigrad.compiler.runtime import *'''


def emit(results: Sequence[Tensor], arguments: Sequence[Tensor], name: str, start: int) -> Program:
    """Source for a graph traced from node number `start` on; raises CannotCompile, naming the operation and why."""
    return Emitter(list(results), list(arguments), name, start).program()


class Emitter(Walk):
    """A whole graph as a program, and its text."""

    def scan(self, node: Tensor, level: Level) -> None:
        ScanLoop(self, node, level).emit()

    def program(self) -> Program:
        nodes = ancestors(*self.results)
        level = Level(nodes, {r.number for r in self.results}, readers_of(nodes))
        own = {a.number: a for a in self.arguments}
        for node in nodes:
            if node.op is None and (node.number in own or not self.is_number(node)):
                self.input(node)
        for k, r in enumerate(self.results):
            if r.op is not None and r.number not in level.targets:
                level.targets[r.number] = once(lambda r=r, k=k: self.output(r, k))
        self.push_down(level)
        self._place_concats(level)
        level.nodes = self.scheduled(level)
        self.run_level(level)
        results = []
        for k, r in enumerate(self.results):
            place = self.place(r, level)
            if (
                place.store.kind != "output"
                or place.at != ZERO
                or any(place.store is p.store for p in results)
            ):
                self.serial()
                target = self.output(r, k)
                self.copy(level, place, target)
                place = target
            results.append(place.reshaped(tuple(r.shape)))
        stages = self._written_stages()
        return Program(
            self.text(stages),
            stages,
            self.sizes,
            [name.text for name in self.size_names.values()],
            self.stores,
            results,
            self.loops,
            self.lists,
            self.scratch_type(),
            self.touched,
            self.checks,
        )

    # The text.

    def _written_stages(self) -> list[Stage]:
        """Stages with calls in place of products; what a parallel one needs packed is packed by one thread before it."""
        found = []
        for stage in self.stages:
            body = blocked(stage.body)
            if stage.setup and (stage.parallel or not body):
                found.append(Stage(False, stage.setup))
            if body:
                found.append(Stage(stage.parallel, body if stage.parallel else [*stage.setup, *body]))
        return found

    def text(self, stages: list[Stage]) -> str:
        """One function with all stages: compiling takes as long as there are functions and statements."""
        entries: dict[Buffer | Name, tuple[str, int]] = {s: (s.dtype, k) for k, s in enumerate(self.stores)}
        for at, name in enumerate(self.size_names.values()):
            entries[name] = ("size", 2 * len(self.stores) + at)
        merged = merge_stages([s.body for s in stages], entries, 2 * len(self.stores) + len(self.sizes))
        used: set[Buffer | Name] = set()

        def name_of(x: Buffer | Name) -> str:
            used.add(x)
            return own_name(x)

        body = ["    bad = 0", *self._stages(stages, merged, name_of)]
        head = [
            f"    {own_name(x)} = " + (f"table[{k}]" if kind == "size" else f"array_{kind}(table, {k})")
            for x, (kind, k) in entries.items()
            if x in used
        ]
        signature = f"int64(int64[::1], {SCRATCH_TYPES[self.scratch_type()]}, int64, int64, int64, int64)"
        run = [f'@entry("{signature}")', "def run(table, scratch, part, parts, first, last):", *head, *body]
        header = HEADER.format(name=quotable(self.name))
        return "\n\n".join(
            [
                header,
                *(text for _, text in self.functions.values()),
                *merged.functions,
                "\n".join([*run, "    return bad"]) + "\n",
            ]
        )

    def _stages(self, stages: list[Stage], merged: Merged, name: Naming) -> list[str]:
        """The lines of all stages in their order; fills `lists`, which the calls of repeated ones read."""
        start = 2 * len(self.stores) + len(self.sizes)
        self.lists = merged.lists
        loops = {run.start: run for run in runs_of(merged.calls)}
        text: list[str] = []
        k = 0
        while k < len(stages):
            if k in loops:
                lines = as_loop(loops[k], merged, start + len(self.lists), self.store_names)
                self.lists += [x for j in loops[k] for x in (merged.calls[j].number, merged.calls[j].at)]
                text += ["    " + line for line in lines]
                k = loops[k].stop
                continue
            what = "rows or sequences are split over threads" if stages[k].parallel else "one thread"
            call = merged.calls.get(k)
            lines = call.lines(merged.name) if call else lines_of(stages[k].body, name)
            text += [f"    if first <= {k} < last:  # {what}", *("        " + line for line in lines)]
            k += 1
        return text

    def scratch_type(self) -> str:
        """The scratch array of sums of products, which have one dtype."""
        kinds = self.sums or {s.dtype for s in self.stores}
        return "f4" if "f4" in kinds else "f8"
