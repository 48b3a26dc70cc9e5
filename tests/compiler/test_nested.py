"""A scan inside the step of a scan: an inner loop over steps in each outer step, compiled as loops in loops."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import minigrad as mg
from cells import CELLS, run
from minigrad.compiler.emit import Emitter
from minigrad.compiler.rewrite import REWRITES, split_products
from minigrad.reverse import ancestors
from minigrad.trace import evaluate, trace, trace_gradients
from tests.compiler.test_llvm import assert_same_bits
from tests.compiler.test_wasm import assert_as_native, needs_node
from tests.drawn import mutations
from tests.drawn.check import Finding
from tests.drawn.interpret import interpreted

T, S, N, D, H = 3, 4, 2, 3, 5


def leaf(*shape, seed, name=None, dtype="float64"):
    array = np.asarray(np.random.default_rng(seed).standard_normal(shape) / np.sqrt(max([1, *shape[:1]])))
    return mg.Tensor(array.astype(dtype), requires_grad=True, name=name)


W, U, V = leaf(D, H, seed=1, name="W"), leaf(H, H, seed=2, name="U"), leaf(H, H, seed=3, name="V")
R, b, h0 = leaf(H, D, seed=4, name="R"), leaf(H, seed=5, name="b"), leaf(N, H, seed=6, name="h0")

# The arguments of programs by name: their axes, each a size or a number.
AXES = {
    "x": "TND", "xs": "TSND", "memory": "SNH", "more": "RNH", "words": "2TSND", "vector": "TS", "one": "1ND", "chunks": "T1ND",
}  # fmt: skip


def zeros(like, *shape):
    return mg.zeros(shape or like.shape, like.dtype)


def recurrent(h, x):
    h = mg.tanh(x @ W + h @ U + b).named("h")
    return h, h


# Programs: each a loss, and what else it returns.


def hierarchical(xs):
    """A sentence of words: the inner state goes on from the outer one, whose step reads the inner's last."""

    def sentence(h, words):
        inner, _ = mg.scan(recurrent, h @ V, words)
        h = mg.tanh(h @ U + inner).named("s")
        return h, h

    last, all_steps = mg.scan(sentence, h0, xs)
    return (last * all_steps.mean(0)).sum()


def state_goes_through(xs):
    """The inner's last state is the outer's next one, and nothing else happens."""
    last, _ = mg.scan(lambda h, words: (mg.scan(recurrent, h, words)[0], None), h0, xs)
    return (last**2).sum()


def attention_over_a_memory(x, memory):
    """Softmax over a memory by a recurrence: numerator, denominator and maximum go from row to row."""

    def step(h, x):
        query = mg.tanh(x @ W + h @ U)

        def look(carry, row):
            total, norm = carry
            weight = mg.exp((query * row).sum(-1, keepdims=True) * 0.3)
            return (total + weight * (row @ V), norm + weight), weight

        (total, norm), weights = mg.scan(look, (zeros(query), zeros(query[:, :1])), memory)
        h = mg.tanh(total / norm + query).named("h")
        return h, weights

    last, weights = mg.scan(step, h0, x)
    return (last**2).sum() + (weights[1:] ** 2).sum()


def stacked_results_are_used(xs):
    """The outer step reads all inner steps, backwards and with a slice."""

    def step(h, words):
        _, states = mg.scan(recurrent, h, words)
        weights = mg.softmax((states * h).sum(-1, keepdims=True), 0)
        h = (weights * states[::-1]).sum(0) + states[1:].sum(0) @ V
        return mg.tanh(h), (states, weights)

    last, (states, weights) = mg.scan(step, h0, xs)
    return (last**2).sum() + (states * weights).sum()


def products_of_inner_and_outer(xs):
    """A right operand that differs from outer step to outer step: the inner loop multiplies by it, also transposed."""

    def step(M, words):
        def inner(h, x):
            h = mg.tanh(x @ W + h @ M + h @ M.T)
            return h, h @ M

        h, outs = mg.scan(inner, zeros(words[0] @ W), words)
        return mg.tanh(M + h.T @ outs.sum(0) * 0.1), outs

    M, outs = mg.scan(step, U, xs)
    return (M**2).sum() + (outs**2).mean()


def rows_of_a_state(x):
    """The inner loop goes over the rows of the outer state itself."""

    def step(M, x):
        def inner(s, row):
            s = mg.tanh(s * row + x.mean(0) @ W)
            return s, s

        _, rows = mg.scan(inner, zeros(b), M)
        return M * 0.5 + rows, None

    M, _ = mg.scan(step, U, x)
    return (M**2).sum()


def two_in_one_step(x, memory, more):
    def step(h, x):
        a, seen = mg.scan(lambda c, m: (mg.tanh(c @ U + m), c), h, memory)
        c, _ = mg.scan(lambda c, m: (mg.sigmoid(c * m + a), None), x @ W, more, reverse=True)
        return mg.tanh(a + c @ V), seen.sum(0)

    last, seen = mg.scan(step, h0, x)
    return (last**2).sum() + (seen**2).mean()


def one_after_the_other(xs):
    """The second inner loop goes over what the first one gives."""

    def step(h, words):
        _, states = mg.scan(recurrent, h, words)
        h, back = mg.scan(lambda c, s: (mg.tanh(c @ V + s), c * s), h, states, reverse=True)
        return h, back

    last, back = mg.scan(step, h0, xs)
    return (last * back.mean((0, 1))).sum()


def both_reversed(xs):
    def step(h, words):
        h, states = mg.scan(recurrent, h, words, reverse=True)
        return h, states

    last, states = mg.scan(step, h0, xs, reverse=True)
    return (last**2).sum() + (states[0] * states[-1]).sum()


def outer_reversed(x, memory):
    def step(h, x):
        c, seen = mg.scan(lambda c, m: (mg.tanh(c @ U + m), c), h, memory)
        return c + x @ W, seen

    last, seen = mg.scan(step, h0, x, reverse=True)
    return (last**2).mean() + (seen[-1] * seen[0]).sum()


def truncated(xs):
    """Cuts at both levels: nothing flows from one sentence to the next, nor through one of the inner states."""

    def step(h, words):
        h, _ = mg.scan(lambda c, x: recurrent(c.detach() * 0.5 + c * 0.5, x), h.detach() + b, words)
        return h, h

    last, states = mg.scan(step, h0, xs)
    return (last**2).sum() + (states**2).mean()


def pondering(x):
    """A number of inner steps that is written in the program: the inner loop only counts."""

    def step(h, x):
        h, halting = mg.scan(
            lambda c, k: (mg.tanh(c @ U + x @ W + k * 0.1), mg.sigmoid(c.mean())), h, np.arange(3.0)
        )
        return h, halting

    last, halting = mg.scan(step, h0, x)
    return (last**2).sum() + halting.mean()


def only_forward(x, memory):
    """What the inner loop finds has no gradient: it is compared, or cut."""

    def step(h, x):
        best, _ = mg.scan(
            lambda c, m: (mg.maximum(c, (m * h).sum(-1, keepdims=True)), None), zeros(h[:, :1]), memory
        )
        nearest, _ = mg.scan(lambda c, m: (c + m * 0.1, None), h.detach(), memory.detach())
        return mg.tanh(h @ U + x @ W) * (best > 0.2).astype("float64") + nearest, None

    last, _ = mg.scan(step, h0, x)
    return (last**2).sum()


def convolution_in_a_step(x):
    """A window that slides over a part of the state, as a causal convolution would within a step."""
    taps = V[:3]

    def step(h, x):
        def slide(window, column):
            window = mg.concat(window[1:], column.reshape(1, -1), axis=0)
            return window, (window * taps[:, : x.shape[0]]).sum(0)

        _, columns = mg.scan(slide, zeros(taps[:, : x.shape[0]]), h.T)
        return mg.tanh(columns.T + x @ W), None

    last, _ = mg.scan(step, h0, x)
    return (last**2).sum()


def three_levels(words):
    def page(h, sentences):
        def sentence(h, words):
            h, inner = mg.scan(recurrent, mg.tanh(h @ V), words)
            return h, inner.mean(0)

        last, means = mg.scan(sentence, h, sentences)
        return mg.tanh(last + means.mean(0) @ U), means

    last, means = mg.scan(page, h0, words)
    return (last**2).sum() + (means[0] * means[1]).mean()


def numbers_without_axes(vector):
    """States that are single numbers at both levels."""

    def step(s, row):
        def inner(c, v):
            return mg.tanh(c * v + b[0]), c

        c, outs = mg.scan(inner, s, row)
        return c + outs.mean(), None

    return mg.scan(step, b[1] * 1.0, vector)[0] ** 2


def captures_of_captures(x, memory):
    """The inner loop reads what the outer step computes, what it was given, its state, and what lies outside of both."""
    keys = memory @ V

    def step(carry, x):
        h, c = carry
        gate = mg.sigmoid(x @ W)

        def look(s, m):
            row, key = m
            return mg.tanh(s * gate + row * c + (key + h) @ U + b) * h0, s.sum(-1)

        s, sums = mg.scan(look, h * gate, (memory, keys))
        return (s + keys[0], c * gate), sums

    (h, c), sums = mg.scan(step, (h0, h0 * 0.5), x)
    return (h * c).sum() + (sums**2).mean()


def projected_before(x, memory):
    """What the outer step computes is added to the inner loop's products, at every inner step."""

    def step(h, x):
        given, turned = 0.5 * (x @ W + h), mg.tanh(h @ V)
        c, outs = mg.scan(lambda c, m: (mg.tanh(c @ U + given) * m, turned + c @ V), h, memory)
        return c, outs

    last, outs = mg.scan(step, h0, x)
    return (last**2).sum() + (outs**2).mean()


def handed_on(x, memory):
    """The inner loop's state becomes what the outer step computed, and so do its results."""

    def step(h, x):
        given = mg.tanh(x @ W + h)
        (c, d), outs = mg.scan(lambda s, m: ((given, s[0] * m), (given, s[1])), (h, h), memory)
        return c @ U + d, outs

    last, (a, c) = mg.scan(step, h0, x)
    return (last**2).sum() + (a * c).mean()


def carries_that_stay(xs):
    """A state that no inner step changes, one that is handed on, and one that is swapped."""

    def step(carry, words):
        def inner(c, x):
            p, q, r = c
            return (q, p * 0.9 + x @ W, r), r

        (p, q, r), kept = mg.scan(inner, (*carry, carry[0] * b), words)
        return (q + r, p), kept.sum(0)

    (p, q), kept = mg.scan(step, (h0, h0), xs)
    return (p * q).sum() + kept.mean()


def steps_are_one(one, memory):
    last, _ = mg.scan(lambda h, x: (mg.scan(lambda c, m: (mg.tanh(c @ U + m * x.mean()), None), h, memory)[0], None),
                      h0, one)  # fmt: skip
    return (last**2).sum()


def inner_steps_are_one(chunks):
    return hierarchical(chunks)


def second_order(xs):
    """A gradient that is part of the loss."""

    def loss(h):
        last, _ = mg.scan(lambda h, words: (mg.scan(recurrent, h, words)[0], None), h, xs)
        return (last**2).sum()

    (g,) = mg.grad(loss(h0), [h0], create_graph=True)
    return loss(h0) + (g**2).sum()


def gathered(x, memory):
    """An inner loop that looks rows up by whole numbers, and counts."""

    def step(h, x):
        def pick(carry, k):
            c, count = carry
            return (mg.tanh(c + memory[k]), count + 1), count

        (c, _), counts = mg.scan(pick, (h, mg.Tensor(np.array(0))), np.array([2, 0, 2]))
        return c @ U + x @ W, counts

    last, counts = mg.scan(step, h0, x)
    return (last**2).mean() * counts.sum()


PROGRAMS = [
    hierarchical, state_goes_through, attention_over_a_memory, stacked_results_are_used, products_of_inner_and_outer,
    rows_of_a_state, two_in_one_step, one_after_the_other, both_reversed, outer_reversed, truncated, pondering,
    only_forward, convolution_in_a_step, three_levels, numbers_without_axes, captures_of_captures, carries_that_stay,
    projected_before, handed_on, steps_are_one, inner_steps_are_one, second_order, gathered,
]  # fmt: skip
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)


def arguments_of(program, seed=0, **sizes):
    """Tensors that learn, in the shapes of the program's arguments; sizes: other numbers of steps, such as T=7."""
    now = {"T": T, "S": S, **sizes}
    now.update(R=now["S"] + 1, N=N, D=D, H=H)
    names = inspect.signature(program).parameters
    shapes = [[now.get(a) or int(a) for a in AXES[name]] for name in names]
    return [leaf(*s, seed=seed + 10 * k, name=n) for k, (s, n) in enumerate(zip(shapes, names, strict=True))]


def eagerly(program, arguments):
    """The loss, and the gradients of all leaves behind it."""
    loss = program(*arguments)
    leaves = [n for n in ancestors(loss) if n.op is None and n.requires_grad]
    return loss.value, list(zip(leaves, [g.value for g in mg.grad(loss, leaves)], strict=True))


def assert_same(program, arguments, value, gradients, bound=1e-11):
    wanted, right = eagerly(program, arguments)
    np.testing.assert_allclose(value.value, wanted, rtol=bound)
    for x, g in right:
        np.testing.assert_allclose(gradients[x], g, rtol=bound, atol=bound, err_msg=str(x.name))


# Compiled is eager.


@every_program
def test_a_scan_in_a_step_gives_what_it_gives_eagerly_at_any_lengths(program):
    """Every element that is read was written: also with one outer step, one inner step, and more of both."""
    compiled = mg.compile(program)
    for sizes in ({}, {"T": 1}, {"S": 2, "T": 2}, {"T": 4, "S": 6}):
        if program is gathered and sizes.get("S") == 2:
            continue  # it looks up row 2
        arguments = arguments_of(program, seed=sum(sizes.values()), **sizes)
        assert_same(program, arguments, *interpreted(compiled, *arguments, parts=1, gradients=True))
    assert sum(map(len, compiled.variants.values())) == 1, "other lengths need no other program"


@every_program
def test_as_machine_code(program):
    arguments = arguments_of(program, S=3)
    assert_same(program, arguments, *mg.compile(program).value_and_grad(*arguments))


@every_program
def test_values_alone(program):
    arguments = [a.value for a in arguments_of(program)]
    value, _ = interpreted(mg.compile(program), *arguments, parts=1, gradients=False)
    np.testing.assert_allclose(value.value, program(*map(mg.Tensor, arguments)).value, rtol=1e-12)


@every_program
def test_every_rewrite_leaves_values_as_they_were(program):
    """The graph is run node by node after each rewrite: what is wrong is the rewrite's, not the emitted lines'."""
    arguments = arguments_of(program)
    _, right = eagerly(program, arguments)
    own = {a.number: k for k, a in enumerate(arguments)}
    traced = trace(program, arguments, [True] * len(arguments))
    traced.results = split_products(traced.results)
    wrt = [traced.arguments[own[x.number]] if x.number in own else x for x, _ in right]
    outputs = trace_gradients(traced, wrt)
    values = {s.number: a.value for s, a in zip(traced.arguments, arguments, strict=True)}
    sizes = traced.sizes([a.shape for a in arguments])
    for name, rewrite in {"none": list, **REWRITES}.items():
        outputs = rewrite(outputs)
        for ours, (x, g) in zip(evaluate(outputs, values, sizes), right, strict=True):
            np.testing.assert_allclose(ours, g, rtol=1e-11, atol=1e-12, err_msg=f"{name}: {x.name}")


@pytest.mark.parametrize(
    "program",
    [hierarchical, attention_over_a_memory, two_in_one_step, products_of_inner_and_outer, three_levels],
    ids=lambda p: p.__name__,
)
def test_gradients_are_what_differences_say(program):
    """Random directions through all that learns: (f(x + εv) − f(x − εv)) / 2ε against Σ g·v."""
    arguments, rng = arguments_of(program), np.random.default_rng(0)
    compiled = mg.compile(program)
    _, gradients = compiled.value_and_grad(*arguments)
    leaves = list(gradients)
    before = [x.value.copy() for x in leaves]
    for _ in range(3):
        way = [rng.standard_normal(x.shape) for x in leaves]
        ends = []
        for step in (1e-5, -1e-5):
            for x, old, v in zip(leaves, before, way, strict=True):
                x.value = old + step * v
            ends.append(float(compiled(*arguments).value))
        for x, old in zip(leaves, before, strict=True):
            x.value = old
        slope = sum((gradients[x] * v).sum() for x, v in zip(leaves, way, strict=True))
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.oracle
def test_a_recurrence_of_recurrences_has_the_gradients_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here: `make torch` installs it")
    (xs,) = arguments_of(hierarchical)
    value, gradients = mg.compile(hierarchical).value_and_grad(xs)
    ours = {"xs": xs, "W": W, "U": U, "V": V, "b": b, "h0": h0}
    p = {name: torch.tensor(x.value, requires_grad=True) for name, x in ours.items()}
    h, states = p["h0"], []
    for t in range(T):
        inner = h @ p["V"]
        for s in range(S):
            inner = torch.tanh(p["xs"][t, s] @ p["W"] + inner @ p["U"] + p["b"])
        h = torch.tanh(h @ p["U"] + inner)
        states.append(h)
    loss = (h * torch.stack(states).mean(0)).sum()
    loss.backward()
    assert value.item() == pytest.approx(loss.item(), rel=1e-12)
    for name, x in ours.items():
        np.testing.assert_allclose(gradients[x], p[name].grad.numpy(), rtol=1e-10, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("program", [captures_of_captures, one_after_the_other], ids=lambda p: p.__name__)
def test_on_threads_what_is_around_the_loops_is_shared(program, threads):
    arguments = arguments_of(program)
    assert_same(
        program, arguments, *interpreted(mg.compile(program, threads=threads), *arguments, parts=threads)
    )


def test_in_float32_beside_steps_that_are_counted_in_float64():
    """What a step is given may be of several types: it computes with what it converts."""
    x = mg.Tensor(np.random.default_rng(0).standard_normal((T, N)).astype("f4"), requires_grad=True, name="x")

    def program(x):
        def step(h, now):
            def inner(c, k):
                return mg.tanh(c + now * (k > 0.5).astype("float32")), k

            return mg.scan(inner, h, np.arange(3.0))

        h, counts = mg.scan(step, mg.zeros((N,), "float32"), x)
        return (h**2).sum() + counts.astype("float32").sum()

    assert_same(program, [x], *mg.compile(program).value_and_grad(x), bound=1e-6)


@pytest.mark.as_shipped
def test_the_machine_code_has_the_bits_of_numba():
    for program in (attention_over_a_memory, products_of_inner_and_outer):
        assert_same_bits(mg.compile(program), *arguments_of(program))


@needs_node
def test_a_webassembly_module_gives_what_the_native_program_gives(tmp_path):
    for program in (attention_over_a_memory, two_in_one_step, three_levels):
        assert_as_native(mg.compile(program), tmp_path, *arguments_of(program))


def test_a_checked_function_gives_what_it_gives_otherwise():
    arguments = arguments_of(stacked_results_are_used)
    value, gradients = mg.compile(stacked_results_are_used, check=True).value_and_grad(*arguments)
    assert_same(stacked_results_are_used, arguments, value, gradients)


@pytest.mark.parametrize("kind", sorted(CELLS))
def test_every_shipped_cell_may_be_run_in_a_step(kind):
    """A sentence's words are read by a cell, to and fro, with lengths and cuts; its last state goes into the outer one."""
    cell = CELLS[kind](D, H, np.random.default_rng(0), "float64")

    def program(xs, lengths):
        def step(h, words):
            there = run(cell, words, lengths=lengths)
            back = run(cell, words, reverse=True, truncate=2)
            read = (there.last + back.last).sum(axis=1, keepdims=True)  # outputs may be of another width
            return mg.tanh(h @ U + read), there.outputs

        last, outputs = mg.scan(step, h0, xs)
        return (last**2).sum() + (outputs**2).mean()

    arguments = [*arguments_of(hierarchical), mg.Tensor(np.array([S, 2]))]
    assert_same(program, arguments, *interpreted(mg.compile(program), *arguments, parts=1, gradients=True))


# The emitted lines.


def source_of(program) -> str:
    compiled = mg.compile(program)
    interpreted(compiled, *arguments_of(program), parts=1, gradients=True)
    return compiled.source


def test_the_same_program_emits_the_same_text():
    assert source_of(captures_of_captures) == source_of(captures_of_captures)


def depth(line: str) -> int:
    return (len(line) - len(line.lstrip())) // 4


def test_what_differs_by_outer_steps_alone_is_packed_between_the_loops():
    """Right operands: of weights before all loops, of the outer state once for each outer step."""
    lines = source_of(products_of_inner_and_outer).split("\n")
    packs = [k for k, line in enumerate(lines) if line.lstrip().startswith("pack(")]
    outer = min(depth(line) for line in lines if line.lstrip().startswith("for t in")) + 1
    between = [k for k in packs if depth(lines[k]) == outer]
    assert between and all(depth(lines[k]) <= outer for k in packs), "no inner step packs anything"
    first = lines[between[0] :]
    assert next(line for line in first if "pack(" not in line).lstrip().startswith("for t_1 in")


def test_products_with_weights_leave_both_loops():
    """x · W of all inner and outer steps is one product, and so is each weight's gradient."""
    text = source_of(hierarchical)
    products = [line for line in text.split("\n") if "matmul" in line.split("(")[0]]
    inside = [line.strip() for line in products if depth(line) > 2]
    assert not any("xs," in line or line.startswith("matmul_sum") for line in inside)
    assert sum("matmul_sum(" in line for line in products) == 4  # dW, twice dU, dV


def test_what_an_inner_loop_finds_is_written_where_it_is_kept():
    """No second array for the steps of one outer step, which would be copied."""
    lines = [line.strip() for line in source_of(attention_over_a_memory).split("\n")]
    start = next(k for k, line in enumerate(lines) if line.startswith("for t_1"))
    assert "look_step" not in lines[start] and any("_step(" in line for line in lines[start:])
    weights = [line for line in lines if line.startswith("copy(") and "weight" in line]
    assert not weights


# What is broken on purpose is found.


def broken(what: str) -> Finding | None:
    """Which of the programs shows a mutation."""
    (mutation,) = (m for m in mutations.MUTATIONS if m.what == what)
    for program in PROGRAMS:
        arguments = arguments_of(program)
        with mutations.applied(mutation):
            try:
                assert_same(
                    program, arguments, *interpreted(mg.compile(program), *arguments, parts=1, gradients=True)
                )
            except Exception as error:  # wrong numbers, what was never written, or lines that make no sense
                return Finding("value", f"{program.__name__}: {error}")
    return None


@pytest.mark.parametrize(
    "what",
    [
        "what an inner loop multiplies by is packed before all loops",
        "the steps of an inner loop are kept where those of the first outer step are",
        "a state that is handed on is not copied",
        "a state of two slots in turn starts in the other slot",
    ],
)
def test_a_compiler_that_is_broken_is_found_out(what):
    assert broken(what) is not None


def test_what_an_inner_loop_reads_at_every_outer_step_is_not_overwritten(monkeypatch):
    """The one rule of memory, without its look at the levels around: what lies there would be lost after a step."""
    monkeypatch.setattr(Emitter, "_read_at_every_step", staticmethod(lambda y, level: False))
    found = 0
    for program in PROGRAMS:
        arguments = arguments_of(program)
        try:
            assert_same(
                program, arguments, *interpreted(mg.compile(program), *arguments, parts=1, gradients=True)
            )
        except AssertionError:
            found += 1
    assert found


# What once ran eagerly, or might have, in the step of one scan.

A, one_row, one_column, number, single = (
    leaf(N, H, seed=11),
    leaf(1, H, seed=12),
    leaf(N, 1, seed=13),
    leaf(seed=14),
    leaf(1, seed=15),
)
K, M, Q = leaf(S, N, H, seed=16), leaf(S, H, H, seed=17), leaf(N, S, H, seed=18)
STEPS = {
    "a matrix before products": lambda h, x: A + x @ W + h @ U,
    "a matrix between products": lambda h, x: x @ W + A + h @ U,
    "a number": lambda h, x: 1 + h @ U + 0.5,
    "a number that learns": lambda h, x: x @ W + h @ U + number,
    "one element": lambda h, x: single + h @ U + x @ W,
    "a column": lambda h, x: h @ U + one_column,
    "a row": lambda h, x: h @ U + one_row,
    "a batch of products": lambda h, x: (K @ M).sum(0) + x @ W,
    "a batch with one state": lambda h, x: (h[None] @ M).max(0),
    "a state as a batch of one": lambda h, x: (h.reshape(1, N, H) @ M).sum(0) + x @ W,
    "products with products of the state": lambda h, x: (K @ h.T @ h).sum(0) * 0.1,
    "attention": lambda h, x: (mg.softmax(h[:, None, :] @ Q.swapaxes(-1, -2), -1) @ Q).reshape(N, H) + x @ W,
    "flips": lambda h, x: h[:, ::-1] @ U + x[::-1] @ W,
    "slices with steps": lambda h, x: mg.concat(h[:, ::2], h[:, 1::2], axis=1) + x @ W,
    "slices backwards with steps": lambda h, x: h[:, ::-2] @ W + x @ W,
}


@pytest.mark.parametrize("what", STEPS)
def test_a_step_with(what):
    def program(x):
        return (mg.scan(lambda h, x: (mg.tanh(STEPS[what](h, x)), None), h0, x)[0] ** 2).sum()

    arguments = arguments_of(attention_over_a_memory)[:1]
    assert_same(program, arguments, *interpreted(mg.compile(program), *arguments, parts=1, gradients=True))


@pytest.mark.parametrize(
    "of", [tuple, list, lambda s: {"h": s[0], "rest": (s[1],)}], ids=["tuple", "list", "dict"]
)
def test_states_in_containers(of):
    def program(x):
        def step(state, x):
            h, c = (state["h"], *state["rest"]) if isinstance(state, dict) else state
            return of((mg.tanh(h @ U + c), h * 0.5 + x @ W)), None

        last, _ = mg.scan(step, of((h0, h0 * 1)), x)
        h, c = (last["h"], *last["rest"]) if isinstance(last, dict) else last
        return (h * c).sum()

    arguments = arguments_of(attention_over_a_memory)[:1]
    assert_same(program, arguments, *interpreted(mg.compile(program), *arguments, parts=1, gradients=True))
