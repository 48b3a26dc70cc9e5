"""A gallery of a model that was trained elsewhere: what goes in, what is differentiated, and what is then drawn."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

import cells
import minigrad as mg
import viz
from minigrad import files
from minigrad.errors import dims
from minigrad.names import printable, shown
from viz.language.catalogue import deferred, tr
from viz.measure.links import Transport

from .gallery import QUESTIONS, Section, document, faults, figure, link, paragraph, speed, words
from .given import UsageError, prepare

MOST_NUMBERS = 10_000_000  # of one random input
SEQUENCES = 2  # of random inputs, where their number is free
BATCH = ("batch", "n", "sequences")  # what an axis of sequences is called
STEPS = ("RNN", "LSTM", "GRU", "Loop", "Scan")
LENGTHS = {"RNN": 4, "LSTM": 4, "GRU": 4}  # which input of a node says how long its sequences are


@dataclass
class Differentiated:
    """What the gradients are of, and that in words."""

    loss: mg.Tensor
    said: str


def main(options: argparse.Namespace) -> None:
    console = Console()
    check(options)
    network = load(options.file)
    inputs, said = given(network, options)
    target = None if options.target is None else arrays(options.target, "--target")
    results = network.run(*inputs)
    what = differentiated(network, results, target, options)
    what.loss.backward(record=True)
    prepare(options.out)
    count = sum(p.size for p in network.parameters().values())
    name = options.file.name
    for line in (f"{name}: {count:,} parameters", *said, what.said):
        console.print(escape(shown(line)), soft_wrap=True, highlight=False)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("drawing", total=len(VIEWS) + 2)
        drawn, missing = views(what.loss, network, name)
        save(drawn, options, lambda: progress.advance(task))
        ways = transport(what.loss, missing)
        page = walk(what.loss, name, options.out, missing)
        progress.advance(task)
        told = [
            tr("{name}: {n:,} parameters.", name=f"<code>{words(printable(name))}</code>", n=count),
            *map(words, [*said, what.said]),
        ]
        page = document(
            tr("Your model, seen"),
            told,
            [*map(tr, HEADS)],
            rows(ways, page, drawn),
            sections(drawn, ways, missing, options.png),
        )
        files.write(options.out / "index.html", page)
    report(ways, drawn, missing, console)
    console.print(f"open {escape(shown(str(options.out / 'index.html')))}", soft_wrap=True)


def report(
    ways: viz.Transports, drawn: dict[str, viz.Picture], missing: dict[str, str], console: Console
) -> None:
    """Print how the gradient fares in each layer, what the health report found, and what there is no picture of."""
    if ways:
        table = Table(
            tr("layer"),
            tr("gradient, per step back"),
            tr("half-life"),
            title=tr("On the way back through the states"),
        )
        for way in ways:
            table.add_row(escape(layer(way)), *speed(way))
        console.print(table)
    said = [f"{tr(f.kind)}, {f.where}: {f.said}" for f in getattr(drawn.get("report"), "findings", [])]
    said += [tr("not drawn: {key} ({reason})", key=key, reason=reason) for key, reason in missing.items()]
    for line in said or [tr("no fault found")]:
        console.print(escape(shown(line)), soft_wrap=True, highlight=False)


def check(options: argparse.Namespace) -> None:
    """Raises UsageError for options that cannot be meant together."""
    if options.loss and options.target is None:
        raise UsageError(
            "--loss compares with a target; give --target, or leave --loss out for the output's sum"
        )
    if options.unit is not None and options.loss in ("cross_entropy", "nll"):
        raise UsageError(f"--unit: {options.loss} takes all units together; leave one of both out")
    if options.length < 1 or options.seed < 0:
        raise UsageError("--length must be at least 1, --seed not negative")


def load(path: Path) -> Any:
    """The network of an ONNX file; raises InputError for what is none."""
    read = getattr(cells, "from_onnx", None)
    if read is None:
        raise mg.InputError(f"{path}: this version of cells reads no ONNX files")
    if not path.is_file():
        raise mg.InputError(f"{path}: there is no such file")
    return read(path)


# What goes in.


def given(network, options: argparse.Namespace) -> tuple[list[mg.Tensor], list[str]]:
    """The inputs in the order of the model, and what is to be said of them."""
    expected = {v.name: v for v in network.inputs}
    takes = f"it takes {', '.join(map(str, network.inputs)) or 'no inputs'}"
    if options.input is None:
        rng, sizes = np.random.default_rng(options.seed), {}
        found = {n: random(network, v, sizes, options.length, rng) for n, v in expected.items()}
        said = [
            tr(
                "No --input: it read random numbers, so the pictures show the network, not what it does on your data."
            )
        ]
    else:
        found, said = named(arrays(options.input, "--input"), list(expected)), []
        missing, surplus = [n for n in expected if n not in found], [n for n in found if n not in expected]
        if missing or surplus:
            lists = [("missing", missing), ("surplus", surplus)]
            wrong = "; ".join(f"{how} {', '.join(map(printable, n))}" for how, n in lists if n)
            raise mg.InputError(f"--input {options.input}: {takes}; {wrong}")
    tensors = []
    for name, value in expected.items():
        a = fitting(found[name], value)
        tensors.append(mg.Tensor(a, requires_grad=has_steps(network) and a.dtype.kind == "f", name=name))
        said.append(f"{printable(name)} {dims(a.shape)} {a.dtype}")
    return tensors, said


def has_steps(network) -> bool:
    """Without steps a report takes an input that has a gradient for a weight."""
    return bool(network.loops) or any(node.op in STEPS for node in network.graph.nodes)


def named(found: dict[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """Arrays by the names of the model; a single one, and those that were saved without names, in its order."""
    nameless = len(found) == len(names) and all(n == "" or n.startswith("arr_") for n in found)
    if nameless or len(found) == len(names) == 1:
        return dict(zip(names, found.values(), strict=True))
    return found


def fitting(a: np.ndarray, value) -> np.ndarray:
    """In the type of the model where that says the same: float64 as float32, whole numbers as whole numbers."""
    if value.dtype is None or a.dtype == value.dtype:
        return a
    same = a.astype(value.dtype) if np.can_cast(a.dtype, value.dtype, "same_kind") else a
    return a if a.dtype.kind in "iu" and not np.array_equal(a, same) else same


def arrays(path: Path, option: str) -> dict[str, np.ndarray]:
    """What is in an .npz by name, or in an .npy without one; nothing in it is executed."""
    try:
        with open(path, "rb") as file:
            if file.read(6).startswith((b"PK", b"\x93NUMPY")):  # a pickle begins otherwise
                file.seek(0)
                found = np.load(file, allow_pickle=False)
                return {"": found} if isinstance(found, np.ndarray) else {n: found[n] for n in found.files}
        reason: object = "it begins otherwise"
    except Exception as error:  # whatever NumPy makes of a file that is damaged
        reason = getattr(error, "strerror", None) or error
    raise mg.InputError(f"{option} {path}: cannot be read as .npz or .npy ({reason})")


def random(network, value, sizes: dict[object, int], length: int, rng: np.random.Generator) -> np.ndarray:
    """Random numbers in the shape of an input; axes that are called the same get the same size."""
    who = f"the input {value}"
    if value.shape is None:
        raise mg.InputError(f"{who}: nothing is known of its shape; give it by --input")
    shape = tuple(n if isinstance(n, int) else sizes.setdefault(n, free(n, length)) for n in value.shape)
    if prod(shape) > MOST_NUMBERS:
        raise mg.InputError(f"{who}: {prod(shape):,} random numbers are too many; give it by --input")
    kind = value.dtype or np.dtype("float32")
    if kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    if kind.kind == "b":
        return rng.random(shape) < 0.5
    return rng.integers(0, below(network, value, who), shape).astype(kind)


def free(axis: object, length: int) -> int:
    called = str(axis).lower()
    return SEQUENCES if any(called == b or (len(b) > 1 and b in called) for b in BATCH) else length


def below(network, value, who: str) -> int:
    """Whole numbers below this one can be read: the rows of the table that they choose from, else 0 and 1."""
    same = {value.name}  # what has the same numbers
    for node in network.graph.nodes:
        if (
            node.op in ("Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
            and node.inputs[0] in same
        ):
            same.update(node.outputs)
        place = LENGTHS.get(node.op)
        if place is not None and same & set(node.inputs[place : place + 1]):
            raise mg.InputError(f"{who}: it says how long the sequences are; give it by --input")
        if node.op == "Gather" and node.inputs[1] in same:
            table = network.graph.initialisers.get(node.inputs[0])
            if table is not None and table.ndim:
                return int(table.shape[node.attributes.get("axis", 0)])
    return 2


# What is differentiated.


def differentiated(
    network, results, target: dict[str, np.ndarray] | None, options: argparse.Namespace
) -> Differentiated:
    """A loss between output and target, or the sum of the output; of one step and one unit where asked for.

    Raises InputError for an output, a step, a unit or a target that is not there or does not fit.
    """
    y = output(results, options.output)
    name = f"the output {mg.describe(y)}"
    t = None if target is None else np.asarray(of_output(target, y, options))
    said = []
    if options.step is not None:
        axis, count = axis_of_steps(network, results, y, name)
        if not 1 <= options.step <= count:
            raise mg.InputError(f"--step {options.step}: {name} has the steps 1 … {count}")
        if t is not None and (t.ndim <= axis or t.shape[axis] != count):
            raise mg.InputError(
                f"--step: the target {dims(t.shape)} does not have the {count} steps of {name}"
            )
        at = (*[slice(None)] * axis, options.step - 1)
        y, t = y[at], None if t is None else t[at]
        said.append(tr("of step {step}", step=options.step))
    if options.unit is not None:
        K = y.shape[-1] if y.ndim else 0
        if not 0 <= options.unit < K:
            raise mg.InputError(
                f"--unit {options.unit}: {name} has {f'the units 0 … {K - 1}' if K else 'no units'}"
            )
        if t is not None and (t.ndim != y.ndim or t.shape != y.shape):
            raise mg.InputError(
                f"--unit: the target {dims(t.shape)} has no units as {name}; leave --unit out"
            )
        y, t = y[..., options.unit], None if t is None else t[..., options.unit]
        said.append(tr("of unit {unit}", unit=options.unit))
    where = " ".join([name, *said])
    if t is None and options.unit is None and probabilities(y):  # their sum is the same whatever comes in
        best = mg.sum(mg.log(mg.max(y, axis=-1))).named("L")
        return Differentiated(
            best,
            tr(
                "L is log p of the most probable unit, summed over {where}: its units add up to 1.",
                where=where,
            ),
        )
    if t is None:
        return Differentiated(mg.sum(y).named("L"), tr("L is the sum of {where}.", where=where))
    chosen, why = loss_of(y, t, options.loss)
    value = compared(chosen, y, t).named("L")
    return Differentiated(
        value,
        tr(
            "L = {value:.4g} is {chosen} between {where} and the target{why}.",
            value=value.item(),
            chosen=chosen,
            where=where,
            why=why,
        ),
    )


def output(results, name: str | None) -> mg.Tensor:
    found = {n: y for n, y in results.outputs.items() if y.dtype.kind == "f"}
    if name is None and found:
        return next(iter(found.values()))
    if name not in found:
        there = ", ".join(map(printable, found)) or "none"
        raise mg.InputError(f"--output {name}: no such output of a float type; there are {there}")
    return found[name]


def of_output(target: dict[str, np.ndarray], y: mg.Tensor, options: argparse.Namespace) -> np.ndarray:
    if len(target) == 1:
        return next(iter(target.values()))
    if y.name in target:
        return target[y.name]
    raise mg.InputError(
        f"--target {options.target}: it has {', '.join(map(printable, target)) or 'nothing'}; "
        f"one array is needed, or one that is called {printable(y.name)}"
    )


def axis_of_steps(network, results, y: mg.Tensor, name: str) -> tuple[int, int]:
    """Which axis of the output has the steps, and how many: that which is as long as a run of the model's cells."""
    counts = {len(run.steps) for run in results.runs.values()} | {loop.length for loop in network.loops}
    axes = [k for k, n in enumerate(y.shape[: max(1, y.ndim - 1)]) if n in counts]
    if len(axes) != 1:
        steps = " or ".join(str(n) for n in sorted(counts)) or "no"
        why = "more than one axis" if axes else "no axis"
        remedy = "give another number of sequences" if axes else "leave --step out"
        raise mg.InputError(f"--step: {name} has {why} of the model's {steps} steps; {remedy}")
    return axes[0], y.shape[axes[0]]


def loss_of(y: mg.Tensor, t: np.ndarray, asked: str | None) -> tuple[str, str]:
    """The loss that is meant, and why, in words."""
    if asked:
        return asked, ""
    if t.dtype.kind not in "iub" or t.shape == y.shape:
        return "mse", tr(", as the target is of the output's kind; --loss takes another")
    if probabilities(y):
        return "nll", tr(", as the output has probabilities, which add up to 1; --loss takes another")
    return "cross_entropy", tr(", as the target has whole numbers; --loss takes another")


def probabilities(y: mg.Tensor) -> bool:
    p = y.value
    return bool(p.ndim and p.shape[-1] > 1 and (p >= 0).all() and np.allclose(p.sum(axis=-1), 1, atol=1e-3))


def compared(name: str, y: mg.Tensor, t: np.ndarray) -> mg.Tensor:
    """One number; raises what the loss raises for a target that does not fit."""
    if name == "nll":  # log p are logits too: their exponentials add up to 1
        return mg.cross_entropy(mg.log(y), t)
    loss: Callable[..., mg.Tensor] = getattr(mg, name)
    return loss(y, t.astype(y.dtype) if t.dtype.kind == "f" else t)


# Pictures.

VIEWS: dict[str, Callable[..., viz.Picture]] = {
    "network": lambda loss, network, **told: viz.draw(loss, level="gate", **told),
    "gradient": lambda loss, network, **told: viz.gradient(loss, **told),
    "paths": lambda loss, network, **told: viz.paths(loss, **told),
    "bptt": lambda loss, network, **told: viz.bptt(loss, **told),
    "gates": lambda loss, network, **told: viz.gates(loss, **told),
    "weights": lambda loss, network, **told: viz.weights_by_step(loss, **told),
    "report": lambda loss, network, scale, **told: viz.report(loss, parameters=network.parameters(), **told),
}
HEADS = (
    deferred("layer"),
    deferred("page"),
    deferred("gradient, per step back"),
    deferred("half-life"),
    deferred("health"),
)


def views(loss: mg.Tensor, network, name: str) -> tuple[dict[str, viz.Picture], dict[str, str]]:
    """The pictures by name, and of those that there are not, the reason."""
    scale = one_scale(loss)
    drawn: dict[str, viz.Picture] = {}
    missing: dict[str, str] = {}
    for key, view in VIEWS.items():
        try:
            title = f"{printable(name)}: {small(QUESTIONS[key][0])}"
            drawn[key] = view(loss, network, title=title, scale=scale)
        except mg.MinigradError as error:
            missing[key] = str(error)

    return drawn, missing


def save(drawn: dict[str, viz.Picture], options: argparse.Namespace, advance: Callable[[], None]) -> None:
    for key, picture in drawn.items():
        for suffix in suffixes(options):
            picture.save(options.out / (key + suffix))
        advance()


def suffixes(options: argparse.Namespace) -> list[str]:
    """PNG takes as long again as all the rest."""
    return [".svg", ".png"] if options.png else [".svg"]


def small(title: str) -> str:
    """A title within a line: the BPTT matrix."""
    return title[:1].lower() + title[1:]


def one_scale(loss: mg.Tensor) -> viz.Scale:
    """The scale of gradients for all pictures: that of whatever has a name and a gradient."""
    named = (n.grad for n in mg.ancestors(loss) if n.name)
    return viz.Scale.of(float(np.linalg.norm(g)) for g in named if g is not None)


def transport(loss: mg.Tensor, missing: dict[str, str]) -> viz.Transports:
    try:
        return viz.transport(loss)
    except mg.MinigradError as error:
        missing["transport"] = str(error)
        return viz.Transports()


def walk(loss: mg.Tensor, name: str, out: Path, missing: dict[str, str]) -> str:
    """The page to walk about in, as a link, or nothing where there is none."""
    try:
        viz.page(loss, title=printable(name)).save(out / "page.html")
    except mg.MinigradError as error:
        missing["page"] = str(error)
        return "–"
    return link("page.html", tr("open the page"))


def layer(way: Transport) -> str:
    return printable(way.band) or tr("the only one")


def rows(ways: viz.Transports, page: str, drawn: dict[str, viz.Picture]) -> list[list[str]]:
    health = words(faults(drawn["report"])) if "report" in drawn else "–"
    if not ways:
        return [["–", page, "–", "–", health]]
    return [[words(layer(way)), page, *speed(way), health if k == 0 else ""] for k, way in enumerate(ways)]


def sections(
    drawn: dict[str, viz.Picture], ways: viz.Transports, missing: dict[str, str], png: bool
) -> list[Section]:
    """A section for each question; where there is no picture, the reason stands in its place."""
    content = {
        key: figure(key, small(tr(title)), png=png) for key, (title, _) in QUESTIONS.items() if key in drawn
    }
    found = [
        Section(
            key,
            tr(title),
            tr(question),
            content.get(key) or paragraph(tr("Not drawn: {why}", why=words(missing.get(key)))),
        )
        for key, (title, question) in QUESTIONS.items()
    ]
    numbers = (
        f"<pre>{words(ways)}</pre>"
        if ways
        else paragraph(tr("Not there: {why}", why=words(missing.get("transport"))))
    )
    asked = tr("Of the gradient at step t + 1, which part arrives at step t?")
    return [found[-1], Section("transport", tr("Transport"), asked, numbers), *found[:-1]]
