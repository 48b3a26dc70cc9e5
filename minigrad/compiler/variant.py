"""One program of a function: traced, rewritten, emitted, made machine code, and compared with the eager run where asked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np

from ..errors import GraphError, InputError, MinigradError, ShapeError
from ..modes import recording
from ..names import name_of, printable
from ..reverse import ancestors, changed_after, grad
from ..scanning import flatten
from ..tensor import Tensor, as_tensor, describe
from ..trace import Traced, evaluate, everywhere, leaves_of, trace, trace_gradients
from . import cache
from .call import Call, Gradients, constant
from .check import earliest, first_difference, largest, quantities, same_trace
from .emit import emit
from .memory import kept_bytes, too_large
from .places import CHECKS, CHOOSING, DEFECT, DTYPES, NARROW, CannotCompile
from .plan import Known, Plan, numbers_of, view_of
from .program import Program
from .rewrite import REWRITES, rewritten, split_products
from .verify import verify

FEW = 9  # steps, sequences and other sizes of arguments, with which a program is verified
PLANS = 8  # sizes that a program is kept laid out for


def eager_run(function: Callable, call: Call):
    """What `Compiled.__call__` or `value_and_grad` return, from the function as it stands."""
    leaves = call.leaves()
    for leaf, name, a in zip(leaves, call.whole.names(function), call.arguments, strict=True):
        if leaf is not a and leaf.name is None:
            leaf.name = name
    with recording():  # the function may take gradients itself
        results, rebuild = flatten(call.whole.call(function, leaves))
    results = [as_tensor(r) for r in results]
    if not call.gradients:
        return rebuild([constant(np.array(r.value)) for r in results])
    loss = only_number(results, function)
    given = {leaf.number: a for leaf, a in zip(leaves, call.arguments, strict=True)}
    learned = [n for n in ancestors(*results) if n.op is None and n.requires_grad and n.number not in given]
    targets = [leaf for leaf, needed in zip(leaves, call.needs, strict=True) if needed] + learned
    targets = list({t.number: t for t in targets}.values())
    found = [g.value for g in grad(loss, targets)]
    values = rebuild([constant(np.array(r.value)) for r in results])
    return values, Gradients([given.get(t.number, t) for t in targets], found)


def only_number(results: Sequence[Tensor], function: Callable) -> Tensor:
    """The loss among the results: the first; raises ShapeError where it is not a single number."""
    if not results or results[0].shape:
        what = describe(results[0]) if results else "nothing"
        raise ShapeError(
            f"gradients of {printable(name_of(function))}: its first result is {what}; return a single number first, e.g. a mean"
        )
    return results[0]


@contextmanager
def reasons(remedy: str):
    """What goes wrong while a program is made is a reason to run eagerly, which then says it better, if it fails too."""
    try:
        yield
    except (CannotCompile, MemoryError):  # eagerly it takes more
        raise
    except MinigradError as error:
        raise CannotCompile(str(error)) from error
    except Exception as error:
        raise CannotCompile(f"{type(error).__name__}: {error} ({remedy})") from error


class Variant:
    """One program of a function."""

    def __init__(self, function: Callable, call: Call, check: bool = False):
        for a in call.arrays:
            if str(a.dtype) not in DTYPES:
                raise CannotCompile(
                    f"an argument is {a.dtype}; the compiler takes float32, float64, int32, int64 and bool: "
                    "convert it, e.g. with .astype('int64')"
                )
        gradients = call.gradients
        with reasons(
            "while it was traced, when sizes and values are not known; use minigrad's operations, or pass what "
            "Python computes as an argument"
        ):
            self.traced: Traced = trace(function, call.leaves(constant), call.needs, call.form)
            if gradients:
                only_number(self.traced.results, function)
        if check:  # before sizes are bound by what is done with the graph
            again = trace(function, call.leaves(constant), call.needs, call.form)
            same_trace(self.traced.name, self.traced.results, again.results, self.traced.start)
        self._refuse_both_ways(call)
        self.stages_of: dict[str, list[Tensor]] = {"traced": self.traced.results}
        self.logs: dict[str, dict[int, int]] = {}  # of the rewrite that made the graph of a stage
        results = self.traced.results
        if not any(
            n.hooks for n in everywhere(results) if n.op is not None or n.is_symbol
        ):  # a copy would have none
            with reasons(
                DEFECT
            ):  # before the gradients are made, so that they are products with the parts too
                results, self.logs["gradients"] = rewritten(split_products, results)
                self.traced.results = results
        self.of_arguments = [
            k for k, needed in enumerate(call.needs) if needed and (not call.twice or call.twice[k] == k)
        ]
        self.leaves: list[Tensor] = self.traced.captures if gradients else []
        if gradients:
            with reasons(
                "while its gradient was traced, when values are not known; return a new gradient from hooks"
            ):
                symbols = [self.traced.arguments[k] for k in self.of_arguments]
                results = results + trace_gradients(self.traced, symbols + self.leaves)
        self.learning = [
            (leaf, leaf.requires_grad, leaf.hooks, leaf.role)
            for leaf in leaves_of(results)
            if leaf.role is not None
            or (leaf.dtype.kind == "f" and (leaf.number < self.traced.start or leaf.requires_grad))
        ]
        # Numbers that the function made itself stand in the source.
        self.frozen = [n for n in leaves_of(results) if n.number > self.traced.start and not n.shape]
        self.computed = computed_before(self.stages_of["traced"], self.traced.start)
        self.stages_of["gradients"] = results
        self._refuse_wrapping(results)
        self._write(results)

    def _refuse_both_ways(self, call: Call) -> None:
        """A tensor that is an argument and is read from outside too would be two, each with a part of the gradient."""
        own = {a.number for a in call.arguments if type(a) is Tensor}
        for leaf in leaves_of(self.traced.results):
            if leaf.number in own and leaf.dtype.kind == "f":
                raise CannotCompile(
                    f"{describe(leaf)} is an argument, and the function reads it from outside too: read it in one way"
                )

    def _refuse_wrapping(self, results: Sequence[Tensor]) -> None:
        """Small integers are held as int64, in which they would not wrap, and are not returned."""
        made = [n for n in everywhere(results) if n.op is not None and n.op.name not in CHOOSING]
        for node in (*made, *self.traced.results):
            if str(node.dtype) in NARROW:
                raise CannotCompile(
                    f"{describe(node)}: the compiler looks up, compares, moves and converts {node.dtype}, and does not "
                    "compute or return it: convert it, e.g. with .astype('int64')"
                )

    def _write(self, results: list[Tensor]) -> None:
        """Rewrite and emit what computes `results`."""
        with reasons(DEFECT):
            for name, rewrite in REWRITES.items():
                results, self.logs[name] = rewritten(rewrite, results)
                self.stages_of[name] = results
            self.program: Program = emit(results, self.traced.arguments, self.traced.name, self.traced.start)
        self.plans: dict[tuple, list[Plan]] = {}

    def compare(self, function: Callable, call: Call, threads: int) -> None:
        """Raise GraphError where this program touches what it must not, or is not what the function computes eagerly."""
        name = self.traced.name
        verify(self.program, numbers_of(self.traced, self._few(call.shapes)), threads)
        expected = eager_run(function, call)
        values, right = expected if call.gradients else (expected, None)
        flat, plan = self.run(call.arrays, call.shapes, threads)
        results = zip(plan.values, flatten(values)[0], strict=True)
        pairs = [(f"result {k}", view_of(flat, part), v.value) for k, (part, v) in enumerate(results)]
        if right is not None:
            ours = Gradients(self.targets(call), plan.gradients, flat)
            pairs += [(f"the gradient of {describe(t)}", g, right[t]) for t, g in ours.items() if t in right]
        beside = largest(*(b for _, _, b in pairs))
        for what, a, b in pairs:
            at = first_difference(a, b, beside=beside) if a.shape == b.shape and a.dtype == b.dtype else ()
            if at is not None:
                numbers = (
                    f"{a[at]} compiled and {b[at]} eagerly"
                    if a.shape == b.shape
                    else f"{a.shape}, not {b.shape}"
                )
                where = f" at {list(at)}" if at else ""
                raise GraphError(
                    f"check of {name}: {self._earliest(call, threads) or f'{what}{where} is {numbers}'}; the compiler "
                    "is wrong here: please report it, and run the function as it is"
                )

    def _few(self, shapes: tuple) -> tuple:
        """These shapes with few steps and sequences, if the trace holds for that many: the statements are the same."""
        variables = self.traced.variables
        free = {v.name: min(shapes[k][axis], FEW) for k, axis, v in variables if v.bound is None}
        few = [list(shape) for shape in shapes]
        for k, axis, v in variables:
            few[k][axis] = v.value(lambda v: free[v.name])
        small = tuple(map(tuple, few))
        return small if self.traced.sizes(small) is not None else shapes

    def _earliest(self, call: Call, threads: int) -> str:
        """The first quantity with a name that the program gets wrong, when it keeps all of them."""
        graph = self.stages_of["gradients"]
        groups = quantities(graph)
        asked = [q.asked for group in groups for q in group]
        arguments = {a.number: array for a, array in zip(self.traced.arguments, call.arrays, strict=True)}
        theirs = evaluate(asked, arguments, self.traced.sizes(call.shapes))  # type: ignore[arg-type]
        wider = copy.copy(self)
        wider.__dict__.pop("module", None)
        wider.stages_of, wider.logs = {}, {}
        wider._write([*graph, *asked])
        flat, plan = wider.run(call.arrays, call.shapes, threads)
        ours = [view_of(flat, part) for part in [*plan.values, *plan.gradients][len(graph) :]]
        return earliest(groups, ours, theirs)

    @cached_property
    def module(self) -> cache.Program:
        """The program as machine code."""
        return cache.load(self.program.source, self.traced.name)

    def targets(self, call: Call) -> list[Tensor]:
        """The tensors that the program's gradients belong to, in its order."""
        return [call.arguments[k] for k in self.of_arguments] + self.leaves

    def holds(self, shapes: tuple) -> bool:
        """Is this the program for these shapes, and do layers hold the leaves, and learn them, as when it was made?"""
        for leaf, learned, hooks, role in self.learning:  # a hook makes it another tuple
            if leaf.requires_grad is not learned or leaf.hooks is not hooks or leaf.role is not role:
                return False
        for leaf in self.frozen:
            if leaf.changed:
                return False
        for leaf, node in self.computed:
            if leaf.changed > node.number:
                raise changed_after(leaf, node)
        return shapes in self.plans or self.traced.sizes(shapes) is not None

    def refuse(self, bad: int) -> None:
        """Raise what a check in the program has found."""
        if bad:
            raise InputError(f"{self.traced.name}: {self.program.checks[CHECKS - bad - 1]}")

    def run(
        self, arrays: list, shapes: tuple, threads: int, known: Known | None = None
    ) -> tuple[np.ndarray, Plan]:
        """The results, in one array, and the plan that says where; known : leaves whose addresses are known."""
        free = self.plans.get(shapes)
        if free is None:
            self._let_go()
            free = self.plans.setdefault(shapes, [])
        try:
            plan = free.pop()  # a plan serves one call at a time; another thread makes its own
        except IndexError:
            plan = None
        if plan is None:
            plan = self._plan(shapes)
        if known is not None:
            plan.know(known)
        try:
            flat = plan.run(arrays, threads)
        except MemoryError:  # of the results, or of a copy of an argument
            raise too_large(self.traced.name, shapes, plan.output_bytes, plan.arena.nbytes) from None
        except InputError as error:
            raise InputError(self._found(arrays, shapes) or str(error)) from None
        free.append(plan)  # not after an interrupt: another thread may still be writing into it
        return flat, plan

    def _found(self, arrays: list, shapes: tuple) -> str:
        """What a check of the program has found, in the words of eager mode: the graph is run once more, step by step."""
        arguments = {a.number: array for a, array in zip(self.traced.arguments, arrays, strict=True)}
        try:
            with np.errstate(all="ignore"):
                evaluate(self.traced.results, arguments, self.traced.sizes(shapes))  # type: ignore[arg-type]
        except InputError as found:
            return f"{self.traced.name}: {found}"
        except Exception:  # the error that is told already is the one that matters
            pass
        return ""

    def _let_go(self) -> None:
        """Before a plan for other sizes is made, the oldest go: each holds memory for all that it computes."""
        most = kept_bytes()
        for oldest in list(self.plans):  # a copy, as another thread may add to them
            held = sum(plan.bytes for plans in list(self.plans.values()) for plan in list(plans))
            if len(self.plans) < PLANS and held <= most:
                return
            self.plans.pop(oldest, None)

    def _plan(self, shapes: tuple) -> Plan:
        """A new plan; where there is no room for it, what is kept for other sizes goes."""
        try:
            return Plan(self, shapes)
        except MemoryError:
            for other in list(self.plans):
                if other != shapes:
                    self.plans.pop(other, None)
        return Plan(self, shapes)


def computed_before(results: Sequence[Tensor], start: int) -> list[tuple[Tensor, Tensor]]:
    """(leaf, node) for what was computed from leaves before the function was traced: its value is that of then."""
    nodes = [n for n in everywhere(results) if n.op is not None and n._value is not None and n.number < start]
    return [(x, n) for n in nodes for x in n.inputs if x.op is None]
