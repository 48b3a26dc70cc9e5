"""A Python function → a graph: `trace`; and a plain interpreter of such graphs, `evaluate`.

Tracing calls the function once with symbols whose sizes are variables.  What it
reads from outside (a cell's weights) stays what it is: leaves of the graph,
whose values are looked up at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .arguments import Form, plain
from .errors import GraphError, InputError, ShapeError, first_outside
from .modes import recording
from .names import identifier, name_of, printable, unique
from .ops import INSIDE, SCATTER
from .reverse import ancestors, grad
from .scanning import LAST, SCAN, STACKED, Body, ancestors_within, asked_among, flatten
from .sizes import Size, Variable, noting_comparisons, resolve
from .tensor import Tensor, as_tensor, describe, explain, fill_node, next_number, symbol


@dataclass(eq=False)
class Traced:
    """A traced function: its argument symbols, its results, and the leaves that it reads from outside."""

    name: str
    arguments: list[Tensor]
    results: list[Tensor]
    rebuild: Callable  # list of output leaves → what the function returns
    variables: list[tuple[int, int, Variable]]  # (argument, axis, its size)
    start: int  # nodes with larger numbers were made by the function
    compared: list[tuple[Size, bool]]  # differences of sizes, and whether they must be 0 or must not

    @property
    def captures(self) -> list[Tensor]:
        """Leaves that are neither arguments nor constants: parameters, by rising number."""
        own = {a.number for a in self.arguments}
        return [n for n in leaves_of(self.results) if n.requires_grad and n.number not in own]

    def sizes(self, shapes: Sequence[tuple]) -> Callable[[Variable], int] | None:
        """What the free size variables are for these argument shapes; None if the trace does not hold for them."""
        known = {}
        for k, axis, v in self.variables:
            if v.bound is None:
                known[v.name] = shapes[k][axis]

        def of(v: Variable) -> int:
            return known[v.name]

        for k, axis, v in self.variables:
            bound = v.bound
            if shapes[k][axis] < v.minimum or any(size.value(of) for size in v.zeros):
                return None
            if (
                bound is not None
                and (bound.value(of) if isinstance(bound, Size) else bound) != shapes[k][axis]
            ):
                return None
        if any((difference.value(of) == 0) is not zero for difference, zero in self.compared):
            return None  # a branch on a size would go another way, or elements would be too few
        return of


def leaves_of(results: Sequence[Tensor]) -> list[Tensor]:
    """Leaves with values, inside bodies of scans too, by rising number."""
    found = {n.number: n for n in everywhere(results) if n.op is None and n._value is not None}
    return [found[n] for n in sorted(found)]


def everywhere(results: Sequence[Tensor]) -> list[Tensor]:
    """All nodes behind `results`, those inside the bodies of scans too."""
    return _with_bodies(ancestors(*results))


def _with_bodies(nodes: list[Tensor]) -> list[Tensor]:
    asked = asked_among(nodes)
    found = list(nodes)
    for node in nodes:
        if node.op is SCAN:
            body: Body = node.params[0]
            found += _with_bodies(ancestors_within(body.start, *body.carry_out, *asked.get(node.number, [])))
    return found


def trace(
    function: Callable,
    arguments: Sequence,
    requires_grad: Sequence[bool] | None = None,
    form: Form | None = None,
) -> Traced:
    """Call `function` on symbols shaped like `arguments`; raises what its operations raise.

    form : how the function gets them, where it is not one after the other.
    """
    symbols, variables, start = [], [], next_number()
    form = form or plain(len(arguments))
    names = form.names(function)
    taken: set[str] = set()
    given: dict[int, Tensor] = {}
    for k, argument in enumerate(arguments):
        if id(argument) in given:  # the same tensor twice
            symbols.append(given[id(argument)])
            continue
        value = argument.value if isinstance(argument, Tensor) else np.asarray(argument)
        name = names[k]
        called = unique(identifier(name), taken)  # sizes are told apart by their names
        axes = [Variable(f"{called}_{axis}", n) for axis, n in enumerate(value.shape)]
        variables += [(k, axis, v) for axis, v in enumerate(axes)]
        needs = bool(requires_grad and requires_grad[k])
        symbols.append(symbol(tuple(Size({(v,): 1}) for v in axes), value.dtype, name, needs))
        if isinstance(argument, Tensor):
            given[id(argument)] = symbols[-1]
            symbols[-1].hooks = argument.hooks if needs else ()
    with recording(tracing=True), noting_comparisons() as compared:
        results, rebuild = flatten(form.call(function, symbols))
    if not results:
        raise InputError(f"{printable(name_of(function))} returns no tensor, so there is nothing to compile")
    results = [as_tensor(o) for o in results]
    name_sums(results)
    name_sizes(results, {v.name for _, _, v in variables})
    return Traced(printable(name_of(function)), symbols, results, rebuild, variables, start, compared)


def name_sums(results: Sequence[Tensor]) -> None:
    """What a named activation is taken of has a name too: f = σ(z_f); so its gradient will be called dz_f."""
    for node in everywhere(results):
        if node.name and len(node.inputs) == 1 and node.op is not None and node.op.kind == "elementwise":
            (x,) = node.inputs
            if x.name is None and x.op is not None and x.is_symbol:
                x.name = f"z_{node.name}"


def name_sizes(results: Sequence[Tensor], others: set[str]) -> None:
    """The steps of a scan are called T and its sequences N, as in the shapes that people write."""
    taken: set[str] = set()
    for node in ancestors(*results):
        if node.op is SCAN:
            body: Body = node.params[0]
            sizes = {"T": node.inputs[len(body.carry)].shape[0]}
            if body.carry and body.carry[0].shape:
                sizes["N"] = body.carry[0].shape[0]
            for letter, size in sizes.items():
                size = resolve(size)
                (product, *more) = size.terms if isinstance(size, Size) else ((), ())
                if len(product) == 1 and not more and product[0].name not in taken:
                    wanted = letter if letter not in taken else f"{letter}_{len(taken)}"
                    product[0].name = unique(wanted, others)
                    taken.add(product[0].name)


def trace_gradients(traced: Traced, wrt: Sequence[Tensor]) -> list[Tensor]:
    """∂loss/∂wrt as more of the same graph; the loss is the function's first result and a single number."""
    loss = traced.results[0]
    if loss.shape:
        raise ShapeError(
            f"gradients of {traced.name}: its first result is {describe(loss)}; return a single number first, e.g. a mean"
        )
    return grad(loss, wrt, create_graph=True)


def evaluate(
    results: Sequence[Tensor], values: dict[int, np.ndarray], of: Callable[[Variable], int]
) -> list[np.ndarray]:
    """Run a traced graph node by node in NumPy: slow, and right by construction.

    values : arrays of the argument symbols, by number; of : the sizes.
    """
    known = dict(values)
    asked = asked_of(results)
    for node in ancestors(*results):
        if node.number not in known:
            known[node.number] = _value_of(node, known, of, asked)
    return [known[y.number] for y in results]


def asked_of(results: Sequence[Tensor]) -> dict[int, list[Tensor]]:
    """For every scan node, in bodies of others too, by number, the body nodes whose stacks are read."""
    return asked_among(everywhere(results))


def _value_of(node: Tensor, known: dict, of, asked: dict):
    if node.op is None:
        if node._value is None:
            raise GraphError(f"{describe(node)} was given no value")
        return node._value
    inputs = [known[x.number] for x in node.inputs]
    if node.op is SCAN:
        return _run_scan(node, inputs, of, asked)
    if node.op is STACKED:
        return inputs[0].stack(node.params[0])
    if node.op is LAST:
        return inputs[0].now[node.params[0]]
    params = tuple(concrete(p, of) for p in node.params)
    if node.op.name == "size":
        return np.asarray(params[0], params[1])
    try:
        return np.asarray(node.op.forward(*inputs, *params))
    except IndexError as error:
        raise _outside(node, inputs, params, known, error) from None


def _outside(node: Tensor, inputs: list, params: tuple, known: dict, error: IndexError) -> Exception:
    """What eager mode says to an index outside: sizes are numbers, and what counts from the end is as it was given."""
    index, rows = (node.inputs[0], params[0]) if node.op is INSIDE else (node.inputs[1], len(inputs[0]))
    seen = [_as_computed(x, value) for x, value in zip(node.inputs, inputs, strict=True)]
    given = _from_the_end(index)
    if given is not None and node.op is not SCATTER:  # brackets
        of = params[1] if node.op is INSIDE else f"axis 0 of {describe(seen[0])}"
        return InputError(first_outside(known[given.number], -rows, rows, of))
    return InputError(str(error)) if node.op is INSIDE else explain(node.op, seen, params, error)


def _as_computed(x: Tensor, value: np.ndarray) -> Tensor:
    """A node of the graph with the value that it had, as messages describe it."""
    node = object.__new__(Tensor)
    fill_node(node, np.array(value), x.op, (), (), False, x.scope)
    node.name = x.name
    return node


def _from_the_end(index: Tensor) -> Tensor | None:
    """The index in brackets of which places were made, where(i < 0, i + size, i); None where it is something else."""
    if index.op is None or index.op.name != "where" or index.inputs[1].op is None:
        return None
    moved, given = index.inputs[1:]
    return given if moved.op.name == "add" and moved.inputs[0] is given else None


def concrete(param, of):
    """A parameter of an operation with its sizes filled in."""
    if isinstance(param, tuple):
        return tuple(concrete(p, of) for p in param)
    return _number(param, of) if isinstance(param, Size) else param


def _number(size, of) -> int:
    size = resolve(size)
    return size.value(of) if isinstance(size, Size) else size


class _Run:
    """A scan that was run: the carries at its end, and every body node's value at every step."""

    def __init__(self, now: list, steps: list[dict], empty: Callable):
        self.now, self.steps, self.empty = now, steps, empty

    def stack(self, node: Tensor) -> np.ndarray:
        return np.stack([s[node.number] for s in self.steps]) if self.steps else self.empty(node)


def _run_scan(node: Tensor, inputs: list, of, asked: dict) -> _Run:
    body: Body = node.params[0]
    count = len(body.carry)
    now, xs = list(inputs[:count]), inputs[count : count + len(body.xs)]
    outside = dict(zip((c.number for c in body.captures), inputs[count + len(body.xs) :], strict=True))
    T = xs[0].shape[0]
    order = body.nodes(*asked.get(node.number, []))
    steps: list[dict] = [{} for _ in range(T)]
    for t in reversed(range(T)) if body.reverse else range(T):
        env = dict(outside)
        env.update((c.number, v) for c, v in zip(body.carry, now, strict=True))
        env.update((x.number, s[t]) for x, s in zip(body.xs, xs, strict=True))
        for n in order:
            for x in n.inputs:
                if x.number not in env:
                    env[x.number] = _value_of(x, env, of, asked)
            env[n.number] = _value_of(n, env, of, asked)
        now = [env[c.number] if c.number in env else _value_of(c, env, of, asked) for c in body.carry_out]
        steps[t] = env
    return _Run(now, steps, lambda n: np.zeros([0, *(_number(size, of) for size in n.shape)], n.dtype))
