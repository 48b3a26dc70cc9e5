"""Drawn programs as data: what one is, its text in Python, and the function that the text defines.

A program is a list of statements over names, with the leaves, constants, cells and arguments that it
reads.  There is one meaning: `text` prints it as Python, and `build` executes that text, so what a
finding shows is what was run.  `draw.py` draws programs, `shrink.py` makes them small, `check.py`
compares compiled with eager.

A statement is ``(to, op, of, with, body)``: the names it sets, a key of `TEMPLATES`, its operands (names,
numbers, or sizes such as ``x.shape[0]``), the parameters of its template, and the statements inside of it
if it is one of `BLOCKS`.
"""

from __future__ import annotations

import json
import linecache
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

import cells
import minigrad as mg

# What a statement of one line says.  {0} {1} … are the operands, {*} all of them, {name} a parameter.
TEMPLATES = {
    # element by element
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}", "neg": "-{0}",
    "safe_div": "{0} / (1.5 + {1} * {1})", "scaled": "{factor} * {0}", "power": "{0} ** {exponent}",
    "size_power": "{0} * ({1} ** {exponent})", "residual": "{0} + mg.tanh({1})", "leak": "{0} + 0.2 * ({1} - {0})",
    "exp": "mg.exp({0})", "log": "mg.log({0})", "log1p": "mg.log1p({0})",
    "sqrt": "mg.sqrt({0})", "sin": "mg.sin({0})", "cos": "mg.cos({0})",
    "safe_exp": "mg.exp(-abs({0}))", "safe_log": "mg.log(1.5 + {0} * {0})", "safe_sqrt": "mg.sqrt(0.5 + {0} * {0})",
    "tanh": "mg.tanh({0})", "sigmoid": "mg.sigmoid({0})", "abs": "abs({0})", "sign": "np.sign({0})",
    "relu": "mg.relu({0})", "softplus": "mg.softplus({0})", "maximum": "mg.maximum({0}, {1})",
    "minimum": "mg.minimum({0}, {1})", "where": "mg.where({0}, {1}, {2})",
    "greater": "{0} > {1}", "greater_equal": "{0} >= {1}", "less": "{0} < {1}", "less_equal": "{0} <= {1}",
    "equal": "{0} == {1}", "not_equal": "{0} != {1}", "cast": "{0}.astype({dtype!r})",
    # products and reductions
    "matmul": "{0} @ {1}", "matmul_T": "{0} @ {1}.swapaxes(-1, -2)",
    "sum": "{0}.sum(axis={axis}, keepdims={keepdims})", "mean": "{0}.mean(axis={axis}, keepdims={keepdims})",
    "max": "{0}.max(axis={axis}, keepdims={keepdims})", "min": "{0}.min(axis={axis}, keepdims={keepdims})",
    "logsumexp": "mg.logsumexp({0}, {axis}, {keepdims})",
    "softmax": "mg.softmax({0}, {axis})", "log_softmax": "mg.log_softmax({0}, {axis})",
    "masked_softmax": "mg.softmax({0}, {axis}, mask={1})",
    "layer_norm": "mg.layer_norm({*})", "mse": "mg.mse({0}, {1})",
    "cross_entropy": "mg.cross_entropy({*})", "one_hot": "mg.one_hot({0}, {classes}, {dtype!r})",
    "conv1d": "mg.conv1d({0}, {1}, {dilation}, {causal})",
    "square_mean": "({0} * {0}).mean()", "square_sum": "({0} * {0}).sum()", "tanh_sum": "mg.tanh({0}).sum()",
    "weighted_sum": "({0} * {1}).sum()",
    # structure
    "reshape": "{0}.reshape({shape})", "transpose": "{0}.transpose({axes})", "T": "{0}.T",
    "swapaxes": "{0}.swapaxes({a}, {b})", "broadcast_to": "mg.broadcast_to({0}, {shape})",
    "concat": "mg.concat({*}, axis={axis})", "stack": "mg.stack([{*}], axis={axis})", "index": "{0}[{index}]",
    "gather": "mg.gather({0}, {1})", "take": "{0}[{1}]", "scatter": "mg.scatter({0}, {1}, {rows})",
    "shift": "mg.shift({0}, {by})", "detach": "{0}.detach()", "named": "{0}.named({name!r})", "alias": "{0}",
    "zeros": "mg.zeros({shape}, {dtype!r})",
    # derivatives of derivatives
    "grad_square": "(mg.grad({0}, {1}, create_graph=True) ** 2).sum()",
    "grad": "mg.grad({0}, {1}, create_graph=True)",
}  # fmt: skip
BLOCKS = ("scan", "repeat", "run")


def _of_the_table() -> dict[str, str]:
    """Every element-wise operation of the table without parameters, as a template: a new record is drawn by being there."""
    found = {}
    for name, op in mg.OPS.items():
        if op.kind == "elementwise" and not op.params and name not in TEMPLATES:
            operands = ", ".join(f"{{{k}}}" for k in range(1 + ("{1}" in op.source)))
            found[f"op_{name}"] = f"mg.tensor.apply(mg.OPS[{name!r}], ({operands},))"
    return found


TEMPLATES |= {
    "clip": "mg.clip({0}, {low}, {high})", "gelu": "mg.gelu({0}, {approximate!r})", "isnan": "mg.isnan({0})",
    "round": "mg.round({0}, {decimals})", "var": "mg.var({0}, {axis}, 0, {keepdims})", "not": "~{0}",
    "std": "mg.std({0}, {axis}, 0, {keepdims})", "prod": "mg.prod({0}, {axis}, {keepdims})",
    "cumsum": "mg.cumsum({0}, {axis})", "cumprod": "mg.cumprod({0}, {axis})",
    "argmax": "mg.argmax({0}, {axis}, {keepdims})", "argmin": "mg.argmin({0}, {axis}, {keepdims})",
    "flip": "mg.flip({0}, {axis})", "pad": "mg.pad({0}, {widths}, constant_values={value})",
    "halves": "mg.split({0}, 2, {axis})[{part}]", "squeezed": "mg.squeeze(mg.expand_dims({0}, {axis}), {axis})",
    "einsum": "mg.einsum({subscripts!r}, {*})", "outer": "mg.outer({0}, {1})", "zeros_like": "mg.zeros_like({0})",
    "ones_like": "mg.ones_like({0})",
}  # fmt: skip
TEMPLATES |= _of_the_table()


@dataclass
class Statement:
    """One line, or one block: a scan, a Python loop, or a run of a cell."""

    to: list[str]
    op: str
    of: list[str]
    params: dict[str, Any] = field(default_factory=dict)
    body: list[Statement] = field(default_factory=list)

    def walk(self) -> Iterator[Statement]:
        yield self
        for inner in self.body:
            yield from inner.walk()


@dataclass
class Given:
    """An array that the program is given: an argument, a leaf that learns, or a constant.

    shape : names of sizes, or numbers.  kind : see `values`.  form : "array", "tensor", and for arguments also
    "grad" (a tensor that learns), "gaps" (an array that is not contiguous) or "number" (Python's own).
    """

    name: str
    shape: list
    kind: str = "normal"
    seed: int = 0
    form: str = "array"
    label: str | None = None  # the tensor's own name
    hook: float | None = None  # a factor on its gradient


@dataclass
class Program:
    """A whole program; the first of `outputs` is the loss, a single number, unless `gradients` is False."""

    dtype: str = "float64"
    threads: int = 1
    gradients: bool = True
    sizes: dict[str, int] = field(default_factory=dict)
    calls: list[dict[str, int]] = field(default_factory=lambda: [{}])  # sizes that differ, call by call
    arguments: list[Given] = field(default_factory=list)
    leaves: list[Given] = field(default_factory=list)
    constants: list[Given] = field(default_factory=list)
    cells: list[tuple[str, str, int, int, int]] = field(
        default_factory=list
    )  # name, class, inputs, hidden, seed
    body: list[Statement] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    form: str = "tuple"  # how several outputs are returned: tuple | dict
    packed: str = ""  # a key of PACKED: the container that holds all arguments when it is compiled

    def statements(self) -> Iterator[Statement]:
        for s in self.body:
            yield from s.walk()


# Data.


def to_json(program: Program) -> str:
    return json.dumps(asdict(program), indent=1)


def from_json(text: str) -> Program:
    data = json.loads(text)
    for key in ("arguments", "leaves", "constants"):
        data[key] = [Given(**g) for g in data[key]]
    data["cells"] = [tuple(c) for c in data["cells"]]
    data["body"] = [_statement(s) for s in data["body"]]
    return Program(**data)


def _statement(data: dict) -> Statement:
    return Statement(**{**data, "body": [_statement(s) for s in data["body"]]})


# Values: each array has a seed of its own, so that leaving one out changes no other.


def values(kind: str, shape: Sequence[int], seed: int, dtype: str = "float64") -> np.ndarray:
    """An array to begin with.

    kind : normal | positive | grid (multiples of 0.5, with ties) | holes (some are NaN) | bool, or
    ``"<dtype> below <n>"`` for integers in 0 … n − 1, ``"<dtype> up to <n>"`` for 0 … n, ``"<dtype> within <n>"`` for −n … n.
    """
    rng = np.random.default_rng([seed, 7])
    if kind == "normal":
        return rng.standard_normal(shape).astype(dtype)
    if kind == "positive":
        return rng.uniform(0.5, 2.0, shape).astype(dtype)
    if kind == "grid":
        return (rng.integers(-3, 4, shape) * 0.5).astype(dtype)
    if kind == "holes":
        return np.where(rng.random(shape) < 0.1, np.nan, rng.standard_normal(shape)).astype(dtype)
    if kind == "bool":
        return rng.random(shape) < 0.6
    integer, low, high = re.fullmatch(r"(\w+) (below|up to|within) (\d+)", kind).groups()  # type: ignore[union-attr]
    n = int(high)
    bounds = {"below": (0, max(n, 1)), "up to": (0, n + 1), "within": (-n, n + 1)}[low]
    return rng.integers(*bounds, size=shape).astype(integer)


def kind_of(kind: str, sizes: dict[str, int]) -> str:
    """A kind with the name of a size, "… up to T", for given sizes."""
    head, _, last = kind.rpartition(" ")
    return f"{head} {sizes[last]}" if last in sizes else kind


def leaf(shape, seed, name=None, dtype="float64", kind="normal", hook=None) -> mg.Tensor:
    """A tensor that learns; large ones have small numbers, so that products stay moderate."""
    shape = tuple(shape)
    scale = 1 / np.sqrt(max(1, shape[-2])) if len(shape) > 1 else 0.7
    tensor = mg.Tensor((values(kind, shape, seed) * scale).astype(dtype), requires_grad=True, name=name)
    if hook is not None:
        tensor.hook(lambda g: g * hook)
    return tensor


def drawn_cell(state: str, inputs: int, hidden: int, dtype: str, step: Callable) -> cells.Cell:
    """A cell whose step is a function of (x, *state) and whose weights are captured."""

    class Drawn(cells.Cell):
        def build(self, rng):
            pass

        def step(self, x, *before):
            return step(x, *before)

    Drawn.state = state
    return Drawn(inputs, hidden, np.random.default_rng(0), dtype)


# Containers: the compiled function gets all arguments in one, and the eager one as they are.

PACKED: dict[
    str, tuple[Callable, Callable]
] = {  # how to pack names and arguments, and how to call the function with it
    "": (lambda names, given: given, lambda function: function),
    "tuple": (lambda names, given: [tuple(given)], lambda function: lambda batch: function(*batch)),
    "dict": (
        lambda names, given: [dict(zip(names, given, strict=True))],
        lambda function: lambda batch: function(**batch),
    ),
    "nested": (
        lambda names, given: [{"first": [*given[:1], None], "rest": ("text", tuple(given[1:]))}],
        lambda function: lambda batch: function(*batch["first"][:-1], *batch["rest"][1]),
    ),
}


def packed(program: Program, arguments: Sequence) -> list:
    """The arguments of a call as the compiled function gets them."""
    pack, _ = PACKED[program.packed]
    return pack([g.name for g in program.arguments], list(arguments))


def of_packed(program: Program, function: Callable) -> Callable:
    """The function as it is compiled: it gets the arguments packed."""
    _, unpack = PACKED[program.packed]
    return unpack(function)


# Text.


def symbolic(argument):
    """What the function is given of an argument when it is run eagerly: a tensor, or the Python number itself."""
    return mg.Tensor(argument) if isinstance(argument, np.ndarray) else argument


HEADER = "from tests.drawn.programs import argument, cells, drawn_cell, leaf, mg, np, values\n"


def argument(kind, shape, seed, dtype="float64", form="array"):
    """An argument of a call: an array that may lie with gaps, a Python number, or a tensor that may learn."""
    array = values(kind, shape, seed, dtype)
    if form == "gaps":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if form == "number":
        return array.item()
    return array if form == "array" else mg.Tensor(array, requires_grad=form == "grad")


def text(program: Program, header: bool = True) -> str:
    """The program as Python."""
    p = program
    lines = [HEADER] if header else []
    used = " ".join(str(n) for g in (*p.arguments, *p.leaves, *p.constants) for n in g.shape)
    used += " ".join(str(s.params) for s in p.statements())
    sizes = {k: n for k, n in p.sizes.items() if re.search(rf"\b{k}\b", used)}
    if sizes:
        lines.append(f"{', '.join(sizes)} = {', '.join(map(str, sizes.values()))}")
    dtype = "" if p.dtype == "float64" else f", dtype={p.dtype!r}"
    for g in p.leaves:
        more = "".join(
            f", {key}={value!r}"
            for key, value in (("name", g.label), ("kind", g.kind), ("hook", g.hook))
            if value not in (None, "normal")
        )
        lines.append(f"{g.name} = leaf({_shape(g.shape)}, seed={g.seed}{more}{dtype})")
    for g in p.constants:
        made = f"values({g.kind!r}, {_shape(g.shape)}, seed={g.seed}{dtype})"
        lines.append(f"{g.name} = {made}" if g.form == "array" else f"{g.name} = mg.Tensor({made})")
    for name, kind, inputs, hidden, seed in p.cells:
        lines.append(f"{name} = cells.{kind}({inputs}, {hidden}, np.random.default_rng({seed}), {p.dtype!r})")
    lines += ["", f"def function({', '.join(g.name for g in p.arguments)}):"]
    lines += _lines(p.body, p, "    ")
    lines.append(f"    return {_returned(p)}")
    lines.append("")
    for k, call in enumerate(p.calls):
        if call:
            lines.append(f"{', '.join(call)} = {', '.join(map(str, call.values()))}")
        given = [
            f"argument({kind_of(g.kind, {**p.sizes, **call})!r}, {_shape(g.shape)}, {g.seed + 1000 * k}{dtype}"
            + (f", form={g.form!r})" if g.form != "array" else ")")
            for g in p.arguments
        ]
        lines.append(f"call_{k} = [{', '.join(given)}]")
    what = "value_and_grad" if p.gradients else "the values alone"
    lines.append(f"# {what}, threads={p.threads}{f', arguments packed: {p.packed}' if p.packed else ''}")
    return "\n".join(lines) + "\n"


def _returned(p: Program) -> str:
    if len(p.outputs) == 1:
        return p.outputs[0]
    if p.form == "dict":
        return "{" + ", ".join(f"'{chr(97 + k)}': {o}" for k, o in enumerate(p.outputs)) + "}"
    return ", ".join(p.outputs)


def _shape(shape: Sequence) -> str:
    return "(" + "".join(f"{n}, " for n in shape).strip().removesuffix("," if len(shape) > 1 else "") + ")"


def _lines(body: Sequence[Statement], p: Program, indent: str) -> list[str]:
    lines = []
    for s in body:
        if s.op in BLOCKS:
            lines += [indent + line for line in _BLOCK_TEXTS[s.op](s, p)]
        else:
            lines.append(f"{indent}{', '.join(s.to)} = {expression(s)}")
    return lines


def expression(s: Statement) -> str:
    """The right side of a statement of one line."""
    template = TEMPLATES[s.op]
    if "{*}" in template:
        template = template.replace("{*}", ", ".join(s.of))
    return template.format(*s.of, **s.params)


def _tuple(names: Sequence[str]) -> str:
    return f"({names[0]},)" if len(names) == 1 else f"({', '.join(names)})"


def _scan(s: Statement, p: Program) -> list[str]:
    q = s.params
    count = len(q["states"])
    lines = [f"def step_{s.to[0]}(carry, xs):"]
    lines += [f"    {_tuple(q['states'])} = carry", f"    {_tuple(q['steps'])} = xs"]
    lines += _lines(s.body, p, "    ")
    lines.append(f"    return {_tuple(q['next'])}, {_tuple(q['outs']) if q['outs'] else None}")
    target = f"{_tuple(s.to[:count])}, {_tuple(s.to[count:]) if q['outs'] else '_'}"
    reverse = ", reverse=True" if q["reverse"] else ""
    lines.append(
        f"{target} = mg.scan(step_{s.to[0]}, {_tuple(s.of[:count])}, {_tuple(s.of[count:])}{reverse})"
    )
    return lines


def _repeat(s: Statement, p: Program) -> list[str]:
    q = s.params
    lines = [f"{', '.join(q['states'])} = {', '.join(s.of)}", f"for _ in range({q['times']}):"]
    lines += _lines(s.body, p, "    ")
    lines.append(f"    {', '.join(q['states'])} = {', '.join(q['next'])}")
    lines.append(f"{', '.join(s.to)} = {', '.join(q['states'])}")
    return lines


def _run(s: Statement, p: Program) -> list[str]:
    """``cells.run``: `of` holds x and, if `given` says so, the first states; `read` what is read of the run."""
    q = s.params
    lines, cell = [], q["cell"]
    if not cell:  # one that was drawn; nothing may be left in its step
        cell = f"cell_{s.to[0]}"
        lines.append(f"def step_{s.to[0]}({', '.join([q['x'], *q['states']])}):")
        lines += _lines(s.body, p, "    ")
        named = ", ".join(f"{name!r}: {value}" for name, value in q["quantities"].items())
        lines.append(f"    return {{{named}}}")
        lines.append(
            f"{cell} = drawn_cell({' '.join(q['state_names'])!r}, {q['inputs']}, {q['hidden']}, "
            f"{p.dtype!r}, step_{s.to[0]})"
        )
    options = "".join(
        f", {key}={q[key]}" for key in ("reverse", "truncate", "lengths", "mask", "output") if q.get(key)
    )
    states = f", {_tuple(s.of[1:])}" if len(s.of) > 1 else ""
    lines.append(f"run_{s.to[0]} = cells.run({cell}, {s.of[0]}{states}{options})")
    lines.append(f"{', '.join(s.to)} = {', '.join(f'run_{s.to[0]}{r}' for r in q['read'])}")
    return lines


_BLOCK_TEXTS = {"scan": _scan, "repeat": _repeat, "run": _run}

# Which names a statement reads, and how to read another instead.

NAME = re.compile(r"(?<![\w.'\"])[a-z]\w*(?!\w*['\"(=])")
PARAMS_WITH_NAMES = ("lengths", "mask", "output", "cell", "index", "shape", "classes")


def names_in(expression: str) -> list[str]:
    return NAME.findall(expression)


def reads(s: Statement) -> list[str]:
    """The names that a statement reads from outside of itself."""
    found = [n for x in s.of for n in names_in(x)]
    found += [
        n for key in PARAMS_WITH_NAMES if isinstance(s.params.get(key), str) for n in names_in(s.params[key])
    ]
    if s.op in BLOCKS:
        own = set(block_inputs(s))
        for inner in s.body:
            found += [n for n in reads(inner) if n not in own]
            own.update(inner.to)
        found += [n for n in block_results(s) if n not in own]
    return found


def block_inputs(s: Statement) -> list[str]:
    q = s.params
    return [*q.get("states", []), *q.get("steps", []), *([q["x"]] if q.get("x") else [])]


def block_results(s: Statement) -> list[str]:
    q = s.params
    if s.op == "run":
        return list(q.get("quantities", {}).values())
    return [*q["next"], *q.get("outs", [])]


def renamed(s: Statement, change: Callable[[str], str]) -> Statement:
    """The statement with every name that it reads changed (what it sets is left)."""

    def inside(expression: str) -> str:
        return NAME.sub(lambda m: change(m.group()), expression)

    q = dict(s.params)
    for key in PARAMS_WITH_NAMES:
        if isinstance(q.get(key), str):
            q[key] = inside(q[key])
    for key in ("next", "outs"):
        if key in q:
            q[key] = [change(n) for n in q[key]]
    if "quantities" in q:
        q["quantities"] = {k: change(v) for k, v in q["quantities"].items()}
    return replace(s, of=[inside(x) for x in s.of], params=q, body=[renamed(b, change) for b in s.body])


# What a gradient inside of the program may be taken with respect to.

FRESH = (
    "add", "sub", "mul", "div", "neg", "scaled", "exp", "sin", "cos", "tanh", "sigmoid", "matmul", "matmul_T", "leak",
    "residual", "safe_exp", "safe_log", "safe_sqrt", "safe_div", "relu", "softplus",
)  # fmt: skip


def can_be_wrt(name: str, body: Sequence[Statement], inside_a_step: bool) -> bool:
    """Is this the same tensor however the program is run?

    Eagerly a state that a step hands on is one tensor with what it was, and was made of what earlier steps read;
    traced it is a symbol of its own.  So only what a single line computes, and outside of steps what is given, will do.
    """
    return (not inside_a_step and name[0] in "wx") or any(name in s.to and s.op in FRESH for s in body)


def is_sound(program: Program) -> bool:
    """Does every gradient inside of the program have a clear meaning?"""

    def walk(body: Sequence[Statement], inside: bool) -> bool:
        for s in body:
            if s.op in ("grad", "grad_square") and not can_be_wrt(s.of[1], body, inside):
                return False
            if not walk(s.body, True):
                return False
        return True

    return walk(program.body, False)


# Functions.


@dataclass
class Built:
    """A program that can be called: its function, its calls' arguments, and all tensors that learn, by name."""

    function: Callable
    calls: list[list]
    leaves: dict[str, mg.Tensor]
    namespace: dict


def build(program: Program, dtype: str | None = None) -> Built:
    """Execute the program's text; in another dtype if one is given."""
    p = program if dtype is None else replace(program, dtype=dtype)
    source = text(p)
    if dtype is not None and dtype != program.dtype:
        source = source.replace(f"'{program.dtype}'", f"'{dtype}'")
    file = "<drawn program>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    namespace: dict[str, Any] = {}
    exec(compile(source, file, "exec"), namespace)
    leaves = {g.name: namespace[g.name] for g in p.leaves}
    for name, *_ in p.cells:
        leaves.update({f"{name}.{k}": v for k, v in namespace[name].parameters().items()})
    calls = [namespace[f"call_{k}"] for k in range(len(p.calls))]
    return Built(namespace["function"], calls, leaves, namespace)
