"""`shrink(program, fails)`: the smallest program that a greedy, deterministic search finds and that still fails.

Each pass offers smaller programs in a fixed order and keeps the first that fails; passes repeat until none
offers anything.  What is offered need not be meaningful: `fails` says no to what is not.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator

import numpy as np

import minigrad as mg

from . import programs
from .programs import (
    BLOCKS,
    Given,
    Program,
    Statement,
    block_inputs,
    block_results,
    expression,
    reads,
    renamed,
    symbolic,
)


def shrink(
    program: Program, fails: Callable[[Program], bool], most: int = 2000, seconds: float = 1e9
) -> Program:
    """fails(program) must hold; `most` and `seconds` bound how often it is asked again."""
    asked, until = 0, time.monotonic() + seconds
    seen = {programs.to_json(program)}

    def still(candidate: Program) -> bool:
        nonlocal asked
        text = programs.to_json(candidate)
        if text in seen or asked >= most or time.monotonic() > until:
            return False
        seen.add(text)
        asked += 1
        try:
            return programs.is_sound(candidate) and fails(candidate)
        except Exception:
            return False

    progress = True
    while progress and asked < most:
        progress = False
        for offers in PASSES:
            found = True
            while found:
                found = False
                for candidate in offers(program):
                    tidy(candidate)
                    if still(candidate):
                        program, progress, found = candidate, True, True
                        break
    return program


def tidy(p: Program) -> None:
    """Leave out what nothing reads: statements, states that only feed themselves, arguments, leaves and cells."""
    needed = set(p.outputs)
    _tidy_body(p.body, needed)
    needed |= {n for s in p.body for n in reads(s)}
    p.leaves = [g for g in p.leaves if g.name in needed]
    p.constants = [g for g in p.constants if g.name in needed]
    p.cells = [c for c in p.cells if c[0] in needed]
    kept = [g for g in p.arguments if g.name in needed]
    p.arguments = kept or p.arguments[:1]
    used = {str(n) for g in (*p.arguments, *p.leaves, *p.constants) for n in g.shape}
    p.calls = [{k: n for k, n in c.items() if k in used or k in str(p.body)} for c in p.calls]


def _tidy_body(body: list[Statement], needed: set[str]) -> None:
    """Drop statements whose results are not `needed`, from the last to the first; `needed` grows by what they read."""
    for k in range(len(body) - 1, -1, -1):
        s = body[k]
        if not needed & set(s.to):
            del body[k]
            continue
        if s.op == "scan":  # stacks that nothing reads
            count = len(s.params["states"])
            kept = [j for j, n in enumerate(s.to) if j < count or n in needed]
            s.params["outs"] = [s.params["outs"][j - count] for j in kept if j >= count]
            s.to = [s.to[j] for j in kept]
        if s.body:
            inner = set(block_results(s))
            _tidy_body(s.body, inner)
        needed.update(reads(s))


# Passes: each yields copies of a program that are a little smaller.


def fewer_calls(p: Program) -> Iterator[Program]:
    for k in range(len(p.calls) - 1, 0, -1):
        yield _copy(p, calls=p.calls[:k] + p.calls[k + 1 :])
    for k, call in enumerate(p.calls):
        for name in call:
            yield _copy(
                p, calls=[*p.calls[:k], {n: v for n, v in call.items() if n != name}, *p.calls[k + 1 :]]
            )


def plainer(p: Program) -> Iterator[Program]:
    if p.dtype != "float64":
        q = _copy(p, dtype="float64")
        for s in q.statements():
            if s.params.get("dtype") == p.dtype:
                s.params["dtype"] = "float64"
        yield q
    for n in range(1, p.threads):
        yield _copy(p, threads=n)
    if p.packed:
        yield _copy(p, packed="")
    if p.form != "tuple":
        yield _copy(p, form="tuple")
    for k in range(len(p.outputs) - 1, 0, -1):
        yield _copy(p, outputs=p.outputs[:k] + p.outputs[k + 1 :])


def fewer_statements(p: Program) -> Iterator[Program]:
    """Without one statement: what read its result reads one of its operands, or something like it, instead."""
    shapes = kinds_of(p)
    for path in reversed(list(_paths(p.body))):
        s = _at(p.body, path)
        for k, name in enumerate(s.to):
            for other in _instead(p, path, name, shapes):
                q = _copy(p)
                _replace(q, name, other)
                if k == 0 and len(s.to) == 1:
                    _remove(q.body, path)
                yield q


def as_arguments(p: Program) -> Iterator[Program]:
    """An argument in place of what is computed."""
    shapes = kinds_of(p)
    for s in reversed(p.body):
        for name in s.to:
            shape, dtype = shapes.get(name, ((), ""))
            if dtype == p.dtype and name not in p.outputs[:1]:
                q = _copy(p)
                q.arguments.append(Given(f"x{name}", list(shape), seed=len(p.arguments)))
                _replace(q, name, f"x{name}")
                yield q


def smaller_losses(p: Program) -> Iterator[Program]:
    """Another, earlier single number as the loss."""
    shapes = kinds_of(p)
    if not p.outputs:
        return
    floats = [n for s in p.body for n in s.to if shapes.get(n) == ((), p.dtype)]
    for name in floats:
        if name != p.outputs[0]:
            yield _copy(p, outputs=[name, *p.outputs[1:]])
    at = {n: k for k, s in enumerate(p.body) for n in s.to}
    if p.outputs[0] in at:
        for name, k in at.items():  # or the sum of something earlier
            if k < at[p.outputs[0]] and shapes.get(name, ((), ""))[1] == p.dtype:
                for op in ("square_sum", "tanh_sum"):
                    q = _copy(p)
                    q.body = [*q.body[: k + 1], Statement(["total"], op, [name])]
                    q.outputs = ["total"]
                    yield q


def without_blocks(p: Program) -> Iterator[Program]:
    """Fewer states, steps' inputs, outputs and quantities; Python loops of fewer turns, or their statements in their place."""
    for path in reversed(list(_paths(p.body))):
        s = _at(p.body, path)
        if s.op == "scan":
            yield from _smaller_scans(p, path, s)
        elif s.op == "repeat":
            for times in range(1, s.params["times"]):
                yield _changed(p, path, params={**s.params, "times": times})
            if s.params["times"] == 1:
                yield _inlined(p, path, s)
            for k in range(len(s.of)):
                if len(s.of) > 1:
                    yield _without_state(p, path, s, k)
        elif s.op == "run":
            for key in ("reverse", "truncate", "lengths", "mask", "output"):
                if s.params.get(key):
                    yield _changed(p, path, params={k: v for k, v in s.params.items() if k != key})
            if len(s.of) > 1:
                yield _changed(p, path, of=s.of[:1])
            for k in range(len(s.to)):
                if len(s.to) > 1:
                    read = [r for j, r in enumerate(s.params["read"]) if j != k]
                    yield _changed(p, path, to=s.to[:k] + s.to[k + 1 :], params={**s.params, "read": read})
            for name in s.params.get("quantities", {}):  # a drawn step returns more than its states
                if name not in s.params["state_names"]:
                    kept = {n: v for n, v in s.params["quantities"].items() if n != name}
                    yield _changed(p, path, params={**s.params, "quantities": kept})


def _smaller_scans(p: Program, path: tuple, s: Statement) -> Iterator[Program]:
    q = s.params
    count = len(q["states"])
    yield _one_step(p, path, s)
    if q["reverse"]:
        yield _changed(p, path, params={**q, "reverse": False})
    for k in range(len(q["outs"])):
        outs = q["outs"][:k] + q["outs"][k + 1 :]
        yield _changed(p, path, to=s.to[: count + k] + s.to[count + k + 1 :], params={**q, "outs": outs})
    for k in range(len(q["steps"])):
        if len(q["steps"]) > 1:
            steps = q["steps"][:k] + q["steps"][k + 1 :]
            of = s.of[: count + k] + s.of[count + k + 1 :]
            yield _changed(p, path, of=of, params={**q, "steps": steps})
            for j, other in enumerate(q["steps"]):
                if j != k:
                    body = [
                        renamed(b, lambda n, k=k, o=other: o if n == q["steps"][k] else n) for b in s.body
                    ]
                    yield _changed(p, path, of=of, params={**q, "steps": steps}, body=body)
    if count > 1:
        for k in range(count):
            yield _without_state(p, path, s, k)
    for k, state in enumerate(q["states"]):
        for other in (state, *(b.to[0] for b in s.body)):
            if other != q["next"][k]:
                after = [*q["next"][:k], other, *q["next"][k + 1 :]]
                yield _changed(p, path, params={**q, "next": after})


def _one_step(p: Program, path: tuple, s: Statement) -> Program:
    """The statements of a single step in the place of the scan: the same where there is one step only."""
    q = s.params
    count = len(q["states"])
    first = dict(zip(q["states"], s.of, strict=False))
    steps = [
        Statement([n], "index", [x], {"index": "0"}) for n, x in zip(q["steps"], s.of[count:], strict=True)
    ]
    body = [renamed(b, lambda n: first.get(n, n)) for b in s.body]
    new = _copy(p)
    for name, after in zip(s.to[:count], q["next"], strict=True):
        _replace(new, name, first.get(after, after))
    stacks = [
        Statement([n], "stack", [first.get(x, x)], {"axis": 0})
        for n, x in zip(s.to[count:], q["outs"], strict=True)
    ]
    _put(new.body, path, copy.deepcopy([*steps, *body, *stacks]))
    return new


def without_dead_states(p: Program) -> Program:
    """A tidy copy, without states that nothing reads but what computes them, and without sequences that no step reads."""
    p = _copy(p)
    tidy(p)
    for path in _paths(p.body):
        s = _at(p.body, path)
        if s.op != "scan":
            continue
        if _drops_a_step(s):
            return without_dead_states(p)
        if s.params["next"] == s.params["states"][:1]:
            continue
        after = {n for other in p.statements() for n in reads(other)} | set(p.outputs)
        live = _live_states(s, after)
        for k, state in enumerate(s.params["states"]):
            if state not in live and len(s.params["states"]) > 1:
                return without_dead_states(_without_state(p, path, s, k))
        if not live:  # a scan has a state: it stays what it was
            s.params["next"] = s.params["states"]
            return without_dead_states(p)
    return p


def _drops_a_step(s: Statement) -> bool:
    """Take from a scan a sequence that its step does not read; another one stays, to say how many steps there are."""
    states, steps = s.params["states"], s.params["steps"]
    read = {*s.params["next"], *s.params.get("outs", [])}
    for b in s.body:
        read.update(reads(b), [n for inner in b.body for n in reads(inner)])
    dead = next((k for k, step in enumerate(steps) if step not in read), None)
    if dead is None or len(steps) < 2:
        return False
    s.of = [name for k, name in enumerate(s.of) if k != len(states) + dead]
    s.params["steps"] = [step for k, step in enumerate(steps) if k != dead]
    return True


def _live_states(s: Statement, after: set[str]) -> set[str]:
    """The states of a scan on which something depends that is read after it."""
    states, following = s.params["states"], s.params["next"]
    needed = {
        *s.params.get("outs", []),
        *(n for n, end in zip(following, s.to, strict=False) if end in after),
    }
    while True:
        for b in reversed(s.body):
            if needed & set(b.to):
                needed.update(reads(b), [n for inner in b.body for n in reads(inner)])
        more = {n for n, state in zip(following, states, strict=True) if state in needed}
        if more <= needed:
            return needed & set(states)
        needed |= more


def _without_state(p: Program, path: tuple, s: Statement, k: int) -> Program:
    """The state is what it was at first, at every step; its end is its beginning."""
    q = s.params
    gone, first = q["states"][k], s.of[k]
    drop = lambda xs: xs[:k] + xs[k + 1 :]  # noqa: E731
    change = lambda n: first if n == gone else n  # noqa: E731
    params = {**q, "states": drop(q["states"]), "next": [change(n) for n in drop(q["next"])]}
    if "outs" in q:
        params["outs"] = [change(n) for n in q["outs"]]
    smaller = Statement(drop(s.to), s.op, drop(s.of), params, [renamed(b, change) for b in s.body])
    new = _copy(p)
    _put(new.body, path, [copy.deepcopy(smaller)])
    _replace(new, s.to[k], first)
    return new


def _inlined(p: Program, path: tuple, s: Statement) -> Program:
    """A loop of one turn as its statements."""
    first = dict(zip(s.params["states"], s.of, strict=True))
    body = [renamed(b, lambda n: first.get(n, n)) for b in s.body]
    new = _copy(p)
    for name, after in zip(s.to, s.params["next"], strict=True):
        _replace(new, name, first.get(after, after))
    _put(new.body, path, copy.deepcopy(body))
    return new


def simpler_operands(p: Program) -> Iterator[Program]:
    """Another, earlier operand of the same shape and dtype; a number in place of what is added or multiplied."""
    shapes = kinds_of(p)
    for path in _paths(p.body):
        s = _at(p.body, path)
        for k, x in enumerate(s.of):
            if x not in shapes:
                continue
            for other in _before(p, path):
                if other == x:
                    break
                if shapes.get(other) == shapes[x]:
                    yield _changed(p, path, of=[*s.of[:k], other, *s.of[k + 1 :]])
            if s.op in ("add", "sub", "mul", "div", "maximum", "minimum", "where") and len(s.of) > 1:
                others = [y for j, y in enumerate(s.of) if j != k]
                if any(y in shapes for y in others):
                    yield _changed(p, path, of=[*s.of[:k], "1.0", *s.of[k + 1 :]])
        if s.op not in BLOCKS and s.op in SIMPLER:
            for op in SIMPLER[s.op]:
                if op != s.op:
                    yield _changed(p, path, op=op)


SIMPLER = {
    "sub": ["add"], "minimum": ["maximum"], "safe_div": ["mul"], "residual": ["add"], "leak": ["add"],
    "sigmoid": ["tanh"], "sin": ["tanh"], "cos": ["tanh"], "relu": ["tanh"], "softplus": ["tanh"],
    "safe_exp": ["tanh"], "safe_log": ["tanh"], "safe_sqrt": ["tanh"], "exp": ["tanh"], "log_softmax": ["softmax"],
    "square_mean": ["square_sum"], "tanh_sum": ["square_sum"],
}  # fmt: skip


def plainer_givens(p: Program) -> Iterator[Program]:
    for where in ("arguments", "leaves", "constants"):
        for k, g in enumerate(getattr(p, where)):
            for key, value in (("label", None), ("hook", None), ("form", "array"), ("kind", "normal")):
                if getattr(g, key) != value and (key != "kind" or g.kind in ("grid", "positive", "holes")):
                    q = _copy(p)
                    setattr(getattr(q, where)[k], key, value)
                    yield q
            for axis, n in enumerate(g.shape):
                for smaller in (1, 2, 3):
                    if isinstance(n, int) and smaller < n:
                        q = _copy(p)
                        getattr(q, where)[k].shape[axis] = smaller
                        yield q


def smaller_sizes(p: Program) -> Iterator[Program]:
    for name, n in p.sizes.items():
        for smaller in (1, 2, 3):
            if smaller < n:
                q = _copy(p, sizes={**p.sizes, name: smaller})
                # Sizes that stand as numbers in shapes and cells are meant by their number.
                yield q
                r = copy.deepcopy(q)
                for g in (*r.arguments, *r.leaves, *r.constants):
                    g.shape = [smaller if m == n else m for m in g.shape]
                r.cells = [
                    (a, b, smaller if c == n else c, smaller if d == n else d, e) for a, b, c, d, e in r.cells
                ]
                for s in r.statements():
                    for key in ("inputs", "hidden"):
                        if s.params.get(key) == n:
                            s.params[key] = smaller
                yield r


PASSES = (
    fewer_calls, plainer, smaller_losses, fewer_statements, as_arguments, without_blocks, simpler_operands,
    plainer_givens, smaller_sizes,
)  # fmt: skip


# Helpers.


def _copy(p: Program, **changes) -> Program:
    q = copy.deepcopy(p)
    for key, value in changes.items():
        setattr(q, key, copy.deepcopy(value))
    return q


def _paths(body: list[Statement], at: tuple = ()) -> Iterator[tuple]:
    for k, s in enumerate(body):
        yield (*at, k)
        yield from _paths(s.body, (*at, k))


def _at(body: list[Statement], path: tuple) -> Statement:
    for k in path[:-1]:
        body = body[k].body
    return body[path[-1]]


def _put(body: list[Statement], path: tuple, statements: list[Statement]) -> None:
    for k in path[:-1]:
        body = body[k].body
    body[path[-1] : path[-1] + 1] = statements


def _remove(body: list[Statement], path: tuple) -> None:
    _put(body, path, [])


def _changed(p: Program, path: tuple, **changes) -> Program:
    q = _copy(p)
    s = _at(q.body, path)
    for key, value in changes.items():
        setattr(s, key, copy.deepcopy(value))
    return q


def _replace(p: Program, name: str, other: str) -> None:
    """Let everything read `other` for `name`."""
    change = lambda n: other if n == name else n  # noqa: E731
    p.body = [renamed(s, change) for s in p.body]  # what sets a name does not read it
    p.outputs = [change(n) for n in p.outputs]


def _before(p: Program, path: tuple) -> list[str]:
    """Names that are known where a statement stands, the oldest first."""
    names = [g.name for g in (*p.arguments, *p.leaves, *p.constants)]
    body = p.body
    for depth, k in enumerate(path):
        for s in body[:k]:
            names += s.to
        if depth < len(path) - 1:
            names += block_inputs(body[k])
            body = body[k].body
    return names


def _instead(p: Program, path: tuple, name: str, shapes: dict) -> Iterator[str]:
    s = _at(p.body, path)
    kind = shapes.get(name)
    before = _before(p, path)
    direct = [x for x in s.of if x in shapes and shapes[x] == kind]
    yield from direct
    yield from (n for n in reversed(before) if n not in direct and shapes.get(n) == kind)
    if len(path) == 1 and kind is not None and kind[0] == () and kind[1] == p.dtype:
        yield "0.5"


def kinds_of(p: Program) -> dict[str, tuple]:
    """Shape and dtype of every name, those inside of blocks too, from an eager run."""
    found: dict[str, tuple] = {}
    built = programs.build(p)
    known = dict(built.namespace)

    def note(name, v):
        if isinstance(v, (mg.Tensor, np.ndarray)):
            found[name] = (tuple(v.shape), str(v.dtype))
            known[name] = v

    for g, a in zip(p.arguments, built.calls[0], strict=True):
        known[g.name] = a
        note(g.name, symbolic(a))
    for g in (*p.leaves, *p.constants):
        note(g.name, known[g.name])

    def walk(body: list[Statement]) -> None:
        for s in body:
            try:
                with np.errstate(all="ignore"):
                    if s.op not in BLOCKS:
                        note(s.to[0], eval(expression(s), known))
                        continue
                    enter(s)
                    walk(s.body)
                    scratch = dict(known)
                    exec("\n".join(programs._BLOCK_TEXTS[s.op](s, p)), scratch)
                    for n in s.to:
                        note(n, scratch[n])
            except Exception:
                continue

    def enter(s: Statement) -> None:
        q = s.params
        if s.op == "run":
            if s.body:
                note(q["x"], known[s.of[0]][0])
                shape = (known[s.of[0]].shape[1], q["hidden"])
                for n in q["states"]:
                    note(n, mg.Tensor(np.full(shape, 0.3), dtype=p.dtype))
            return
        for n, x in zip(q["states"], s.of, strict=False):
            note(n, mg.as_tensor(known[x]))
        for n, x in zip(q.get("steps", []), s.of[len(q["states"]) :], strict=False):
            note(n, mg.as_tensor(known[x])[0])

    walk(p.body)
    return found


__all__ = ["Given", "kinds_of", "shrink", "tidy", "without_dead_states"]
