"""The fixed part of the drawn programs, all findings that were kept, and the net itself: what it draws, and what it finds.

`python -m tests.drawn.fuzz` draws further programs, as long as wanted.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

import minigrad as mg
from minigrad.trace import trace
from tests.drawn import mutations
from tests.drawn.check import Finding, check, check_numerically, is_smooth
from tests.drawn.draw import draw
from tests.drawn.features import TAGS, features
from tests.drawn.fuzz import FOUND
from tests.drawn.programs import Given, Program, Statement, build, from_json, symbolic, text, to_json
from tests.drawn.shrink import shrink

CHUNKS, IN_A_CHUNK = 12, 15
KEPT = sorted(FOUND.glob("*.json"))


def fail(finding: Finding, program: Program, seed: int | None = None) -> None:
    where = "" if seed is None else f"seed {seed}: "
    pytest.fail(f"{where}{finding}\n\n{text(program)}", pytrace=False)


# Compiled is eager.


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_drawn_programs_give_compiled_what_they_give_eagerly(chunk):
    for seed in range(chunk * IN_A_CHUNK, (chunk + 1) * IN_A_CHUNK):
        program = draw(seed)
        finding = check(program, "interpret")
        if finding:
            fail(finding, program, seed)


@pytest.mark.parametrize("file", KEPT, ids=[f.stem for f in KEPT])
def test_what_was_found_once_stays_mended(file):
    program = from_json(file.read_text(encoding="utf-8"))
    finding = check(program, "interpret") or check_numerically(program)
    if finding:
        fail(finding, program)


@pytest.mark.as_shipped
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("chunk", range(4))
def test_drawn_programs_as_machine_code(chunk, threads):
    for seed in range(60 + 10 * chunk, 70 + 10 * chunk):
        program = draw(seed)
        program.threads, program.calls = threads, program.calls[:2]
        finding = check(program, "machine")
        if finding:
            fail(finding, program, seed)


def test_eager_gradients_are_what_differences_say():
    judged = 0
    for seed in range(200, 260):
        program = draw(seed, dtype="float64")
        finding = check_numerically(program)
        if finding:
            fail(finding, program, seed)
        judged += is_smooth(program)
    assert judged >= 10


# What is drawn.


def test_the_same_seed_draws_the_same_program():
    for seed in range(20):
        assert to_json(draw(seed)) == to_json(draw(seed))
    assert len({to_json(draw(seed)) for seed in range(20)}) == 20


def test_a_program_is_its_data():
    for seed in range(30):
        program = draw(seed)
        again = from_json(to_json(program))
        assert again == from_json(json.dumps(json.loads(to_json(program))))
        assert text(again) == text(program)
        compile(text(program), "<drawn>", "exec")


def test_all_that_is_meant_to_be_drawn_is_drawn():
    """Over 300 programs every feature occurs, and every operation of the table in a value or in a gradient."""
    missing, operations = set(TAGS), set(mg.OPS)
    for seed in range(300):
        program = draw(seed)
        missing -= features(program)
        if operations:
            operations -= operations_of(program)
    assert not missing, f"never drawn: {sorted(missing)}"
    assert not operations, f"no program has {sorted(operations)}"


def operations_of(program: Program) -> set[str]:
    """The operations in the program's values and gradients, run eagerly and traced."""
    built, found = build(program), []
    try:
        with np.errstate(all="ignore"):
            loss = first(built.function(*[symbolic(a) for a in built.calls[0]]))
            found += mg.ancestors(loss)
            if program.gradients and built.leaves:
                found += mg.ancestors(*mg.grad(loss, list(built.leaves.values()), create_graph=True))
            for y in trace(built.function, built.calls[0]).results:
                found += mg.ancestors(y)
    except (mg.MinigradError, TypeError):  # it is refused, or cannot be traced
        pass
    return {n.op.name for n in found if n.op is not None}


def first(result) -> mg.Tensor:
    if isinstance(result, dict):
        return next(iter(result.values()))
    return result[0] if isinstance(result, tuple) else result


# What is found.


def planted(program: Program) -> Finding | None:
    """A defect of a compiler that gives wrong what it computes of a sine, if the loss depends on one."""
    built = build(program)
    loss = first(built.function(*[symbolic(a) for a in built.calls[0]]))
    wrong = any(n.op is not None and n.op.name == "sin" for n in mg.ancestors(loss))
    return Finding("value", "planted") if wrong else None


def test_a_planted_defect_shrinks_to_three_statements():
    shrunk = 0
    for seed in range(100):
        program = draw(seed)
        if shrunk < 3 and safely(planted)(program):
            small = shrink(program, safely(planted))
            assert sum(1 for _ in small.statements()) <= 3, text(small)
            assert planted(small) and small == shrink(program, safely(planted))
            shrunk += 1
    assert shrunk == 3


def safely(judge):
    """False where a program, or what was made of it, is refused."""

    def judged(program: Program) -> bool:
        try:
            with np.errstate(all="ignore"):
                return judge(program) is not None
        except mg.MinigradError:
            return False

    return judged


def test_what_differs_is_told_with_both_numbers():
    program = Program(
        sizes={"N": 2}, arguments=[Given("x1", ["N", 3], seed=1)], leaves=[Given("w2", [3], seed=2)],
        body=[Statement(["v3"], "mul", ["x1", "w2"]), Statement(["v4"], "square_sum", ["v3"])], outputs=["v4"],
    )  # fmt: skip

    def wrong(function, arguments, threads, gradients):
        value = function.function(*map(mg.Tensor, arguments))
        return value, {
            x: np.full(x.shape, 7.0) for x in mg.ancestors(value) if x.requires_grad and x.op is None
        }

    finding = check(program, wrong)
    assert finding and finding.kind == "value" and "dw2" in str(finding) and "7.0 compiled" in str(finding)


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda m: m.what.replace(" ", "-"))
def test_every_mutation_has_its_place_in_the_compiler(mutation):
    with mutations.applied(mutation):
        pass


def test_a_compiler_that_is_broken_is_found_out():
    """One of them, to the end; ``python -m tests.drawn.mutations`` breaks the others too."""
    (swapped,) = (m for m in mutations.MUTATIONS if "strides" in m.what)
    finding, drawn, _ = mutations.until_found(swapped, seconds=20)
    assert finding is not None, f"not found in {drawn} programs"
