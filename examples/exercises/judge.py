"""Judges the answers of exercises.ipynb: which term is wrong, what may be missing in it, and at which edge of the graph.

The engine differentiates the exercise's function, `mg.check_grads` having compared that with finite differences, and each
term of an answer is compared with what flowed.  A wrong answer raises `Wrong`, whose `picture` has the edge in question
marked; in a notebook it is shown.  What it says is in the language of `viz.language`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

import cells
import minigrad as mg
import viz
from viz.language.catalogue import deferred, tr

CLOSE = dict(rtol=1e-6, atol=1e-9)


class Wrong(AssertionError):  # noqa: N818  # what a student reads
    """An answer that is not right: what is wrong in words, and a picture with the edge in question marked."""

    def __init__(self, said: str, picture: viz.Picture | None = None):
        super().__init__(said)
        self.picture = picture


@dataclass(frozen=True)
class Exercise:
    """A function of named arrays, `shapes`, to named quantities, the last of which the loss reads.

    asked : the names whose gradient the answer has to give, as "d" and the name.
    """

    hint: str
    shapes: Mapping[str, tuple[int, ...]]
    forward: Callable[..., dict[str, mg.Tensor]]
    asked: tuple[str, ...]


def layer(W, b, h):
    return dict(y=h @ W + b)


def recurrent(W, b, x_1, x_2, h_0):
    h_1 = mg.tanh(mg.concat(h_0, x_1) @ W + b)
    return dict(h_1=h_1, h_2=mg.tanh(mg.concat(h_1, x_2) @ W + b))


def memory(f, i, c_tilde, c_prev):
    return dict(c=f * c_prev + i * c_tilde)


def shown(a_o, c):
    o = mg.sigmoid(a_o)
    return dict(o=o, h=o * mg.tanh(c))


def twice(f_1, f_2, c_0, u_1, u_2):
    c_1 = f_1 * c_0 + u_1
    return dict(c_1=c_1, c_2=f_2 * c_1 + u_2)


def function_of(name, function):
    """A function of `a` whose value has a name."""
    return lambda a: {name: function(a)}


def quotient(a, b):
    return dict(y=a / b)


ROW, PAIR = (1, 3), (1, 2)
EXERCISES = {
    1: Exercise(deferred("Each number of y is a sum over h; who multiplies whom?"),
                dict(W=(3, 2), b=(2,), h=ROW), layer, ("W", "b", "h")),
    2: Exercise(deferred("The slope of the tanh can be written with its value h alone."),
                dict(a=ROW), function_of("h", mg.tanh), ("a",)),
    3: Exercise(deferred("The slope of the sigmoid is largest where f = 1/2."),
                dict(a=ROW), function_of("f", mg.sigmoid), ("a",)),
    4: Exercise(deferred("Differentiate by one of the two while the other stands still."),
                dict(a=ROW, b=ROW), quotient, ("a", "b")),
    5: Exercise(deferred("W is read at both steps: add what each of them sends."),
                dict(W=(5, 2), b=(2,), x_1=ROW, x_2=ROW, h_0=PAIR), recurrent, ("h_1", "W")),
    6: Exercise(deferred("Each product sends to either factor what arrives times the OTHER factor."),
                dict(f=ROW, i=ROW, c_tilde=ROW, c_prev=ROW), memory, ("f", "i", "c_tilde", "c_prev")),
    7: Exercise(deferred("Two functions lie between h and c, a product and a tanh: multiply both slopes."),
                dict(a_o=ROW, c=ROW), shown, ("o", "a_o", "c")),
    8: Exercise(deferred("How often does the way from c_2 to c_0 pass a forget gate?"),
                dict(f_1=ROW, f_2=ROW, c_0=ROW, u_1=ROW, u_2=ROW), twice, ("f_1", "c_0")),
}  # fmt: skip
CELLS = {
    9: (
        cells.GRU,
        deferred("r decides how much of the past the candidate sees; z how much of h is renewed."),
    ),
    10: (
        cells.JANET,
        deferred("What the gate keeps is of h_prev; what comes in is scaled by 1 − σ(s − beta)."),
    ),
}


def judge(number: int, answer) -> None:
    """Raises `Wrong` where the answer to an exercise is: a function (1 to 8) or a class (9 and 10)."""
    try:
        if number in CELLS:
            _cell(answer, *CELLS[number])
        else:
            _gradients(answer, EXERCISES[number])
    except NotImplementedError:
        hint = EXERCISES[number].hint if number in EXERCISES else CELLS[number][1]
        said = tr("Exercise {number} is still to be filled in. Hint: {hint}", number=number, hint=tr(hint))
        raise Wrong(said) from None
    except Wrong as wrong:
        _show(wrong.picture)
        raise
    print(tr("Exercise {number}: right.", number=number))


# Gradients.


def _gradients(answer: Callable, exercise: Exercise) -> None:
    loss, values, nodes = _run(exercise)
    found = answer(**{name: values[name] for name in inspect.signature(answer).parameters})
    slides = viz.steps(loss, title=tr("The edge in question is orange"))
    for name in exercise.asked:
        term = f"d{name}"
        if not isinstance(found, Mapping) or term not in found:
            call = f"dict({', '.join(f'd{n}=…' for n in exercise.asked)})"
            raise Wrong(tr("{name} is missing: return {call}", name=term, call=call))
        given, right = np.asarray(found[term], np.float64), nodes[name].grad
        if given.shape != right.shape:
            said = deferred(
                "{term} has the shape {given}, and {name} {right}: a gradient has the shape of what it is of"
            )
            said = tr(said, term=term, given=given.shape, name=name, right=right.shape)
            raise Wrong(said, slides.at(_edge(slides, name)))
        if not np.allclose(given, right, **CLOSE):
            why, reader = _why(given, right, nodes[name], nodes, values)
            raise Wrong(
                tr("{name} is wrong: {why}. Hint: {hint}", name=term, why=why, hint=tr(exercise.hint)),
                slides.at(_edge(slides, name, reader)),
            )


def _run(exercise: Exercise) -> tuple[mg.Tensor, dict, dict[str, mg.Tensor]]:
    """The loss after its backward pass; every value, and the gradient that arrives, by name; and every node."""
    rng = np.random.default_rng(7)
    arrays = {name: rng.uniform(0.2, 0.9, shape) for name, shape in exercise.shapes.items()}

    def last(*tensors):
        return list(exercise.forward(*tensors).values())[-1]

    mg.check_grads(last, arrays.values())
    nodes = {name: mg.Tensor(a, name=name, requires_grad=True) for name, a in arrays.items()}
    made = {name: q.named(name) for name, q in exercise.forward(**nodes).items()}
    *_, (name, out) = made.items()
    arrives = rng.standard_normal(out.shape)
    loss = (out * mg.Tensor(arrives, name="w")).sum().named("L")
    loss.backward(record=True)
    nodes |= made
    return loss, {n: q.value for n, q in nodes.items()} | {f"d{name}": arrives}, nodes


def _why(given, right, node, nodes, values) -> tuple[str, mg.Tensor | None]:
    """What is wrong with a term, as far as it can be told, and the node whose edge to `node` is in question."""
    parts = [
        (reader, reader.contributions[k])
        for reader in mg.ancestors(_end(nodes))
        for k, x in enumerate(reader.inputs)
        if x is node and reader.contributions and reader.contributions[k] is not None
    ]
    for reader, part in parts if len(parts) > 1 else ():
        if np.allclose(given, right - part, **CLOSE):
            return tr("what comes along the marked edge is missing"), reader
    if np.allclose(given, -right, **CLOSE):
        return tr("its sign is turned"), None
    for name, value in values.items():
        for said, factor in ((name, value), (f"(1 − {name})", 1 - value), (f"(1 − {name}²)", 1 - value**2)):
            if factor.shape == right.shape and np.allclose(given * factor, right, **CLOSE):
                return tr("the factor {factor} is missing", factor=said), None
            if factor.shape == right.shape and np.allclose(given, right * factor, **CLOSE):
                return tr("there is a factor {factor} too many", factor=said), None
    off = np.abs(given - right).max() / np.abs(right).max()
    return tr("it is off by up to {off:.1g} of its largest number", off=off), None


def _end(nodes: Mapping[str, mg.Tensor]) -> mg.Tensor:
    """The last quantity: what `nodes` were computed into."""
    return max(nodes.values(), key=lambda n: n.number)


def _edge(slides: viz.Slides, name: str, reader: mg.Tensor | None = None) -> int:
    """The slide of the edge into `name`, of those that `reader` sends along where it is told."""
    own = [k for k, s in enumerate(slides.slides) if s.source == name]
    sent = [
        k
        for k in own
        if reader is not None and np.array_equal(slides.slides[k].sent, np.asarray(reader.grad))
    ]
    return (sent or own)[0]


# Cells.


def _cell(answer: type[cells.Cell], right: type[cells.Cell], hint: str) -> None:
    own, ours = (kind(3, 4, np.random.default_rng(5), "float64") for kind in (answer, right))
    ours.load_state_dict(own.state_dict())
    rng = np.random.default_rng(6)
    x, h = rng.standard_normal((2, 3)), rng.standard_normal((2, 4))
    found, expected = (
        {n: np.asarray(q.value) for n, q in c.step(mg.Tensor(x), mg.Tensor(h)).items()} for c in (own, ours)
    )
    for name, value in expected.items():
        if name not in found:
            call = f"dict({', '.join(f'{n}={n}' for n in expected)})"
            raise Wrong(tr("step has to return {name} as well: return {call}", name=name, call=call))
        if found[name].shape != value.shape or not np.allclose(found[name], value, **CLOSE):
            loss = own(x[None, :1], state=h[:1]).last.sum().named("L")
            loss.backward(record=True)
            slides = viz.steps(loss, title=tr("The orange edge leads into {name}", name=name))
            into = [k for k, s in enumerate(slides.slides) if s.reader.split()[-1] == name]
            raise Wrong(
                tr("{name} is the first quantity that is wrong. Hint: {hint}", name=name, hint=tr(hint)),
                slides.at(into[0]) if into else slides.picture,
            )
    checked = cells.check(answer)
    if not checked:
        raise Wrong(tr("cells.check says:") + f"\n{checked}")


def _show(picture: viz.Picture | None) -> None:
    """In a notebook; elsewhere it is in `Wrong.picture`."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return
    if picture is not None and get_ipython() is not None:
        display(picture)
