"""Names are data: a hundred that would be code, paths, markup or commands somewhere, at every place that takes a name."""

from __future__ import annotations

import ast
import keyword
import os
import re
import subprocess
import sys
import types
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import cells
import minigrad as mg
import viz
from minigrad.compiler import cache, runtime
from minigrad.names import file_stem, identifier, name_of, printable, quotable, shown, unique

ROOT = Path(__file__).resolve().parent.parent
RUNS = "\nimport sys; sys.ran = True\n"  # what must never come to pass
BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
NAMES = [
    # Out of a docstring, a comment, a string, a line.
    f'"""{RUNS}"""', f'f"""{RUNS}"""', f"'''{RUNS}'''", f'\\"""{RUNS}', f"#{RUNS}", f'"{RUNS}"', f"){RUNS}(", f"x:{RUNS}pass",
    '"""', "'''", '"', "'", "\\", "\\\\", '\\"', "a\\", "x; import sys; sys.ran = True", "__import__('sys')", "x=1", "a.b",
    *(f"x{b}import sys; sys.ran = True{b}" for b in BREAKS),
    # Words that mean something already, to Python or to generated code.
    "step", "hidden", "load", "class", "lambda", "None", "True", "__debug__", "match", "print", "exp", "table", "run", "bad",
    "size_0", "at_0", "i0", "nan", "inf", "f4", "t", "N", "T_2", "repeated_1", "x", "copy",
    # Templates, formulas, graphs, markup, links.
    "{0}", "{}", "%s", "%n", "{name.__class__}", r"\input{/etc/passwd}", "$$", "x^2_3~", r"\end{aligned}", r"\N", r"\G", "<b>",
    "</script>", "<script>alert(1)</script>", "]]>", "&quot;", "<!--", "-->", '"><img src=x onerror=alert(1)>', "javascript:1",
    "]; n [URL=x]", "[red]", "[link=file:///etc]x[/link]", ":smile:", "a:b:n", "t=999999999", "t=-1", "a / b", "../../etc",
    "C:\\con", "nul",
    # What a terminal obeys, what cannot be seen, what turns around, what cannot be encoded.
    "\x1b[2J", "\x9b31m", "\x1b]0;t\x07", "a\bb", "\x00", "\x7f", "\ud800", "\udfff\ud800", "\ufffe", "\ue000", "\u202e\u2066rtl",
    "שלום", "\u200b", "\u00ad", " ", " \t\u3000", "e\u0301" * 20, "\U0001f642\U0001f469\u200d\U0001f467", "1", "0x",
    "\u2167", "\ufb01", "x" * 6_000, "\n" * 6_000,
    "_" * 300,
]  # fmt: skip
# One printed line: no control character, no direction, no surrogate.
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe]")
WITHOUT_NUL = [
    n for n in NAMES if "\x00" not in n and not re.search("[\ud800-\udfff]", n)
]  # Python takes no such class


def batches(size: int, names=NAMES) -> list:
    return [names[k : k + size] for k in range(0, len(names), size)]


def fits(text: str) -> None:
    """May a terminal be given these lines?"""
    for line in text.split("\n"):
        assert not FORBIDDEN.search(line.replace("\t", " ")), ascii(line[:200])


def test_a_hundred_names():
    assert len(set(NAMES)) == len(NAMES) >= 100


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_reduced_names(name):
    word = identifier(name)
    assert word.isidentifier() and word.isascii() and len(word) <= 62 and not keyword.iskeyword(word)
    compile(f"{word} = 1", "?", "exec")
    line = printable(name)
    assert len(line) <= 60 and not FORBIDDEN.search(line) and printable(line) == line
    module = compile(
        f'"""{quotable(name)}: the docstring."""\nx = "{quotable(name)}"  # {quotable(name)}\n',
        "?",
        "exec",
        0x400,
    )
    assert len(module.body) == 2 and len(f"# {quotable(name)}".splitlines()) == 1
    assert re.fullmatch(r"[A-Za-z0-9]\w{,39}", file_stem(name), re.ASCII)
    fits(shown(name))
    assert shown("two\tlines\nstay") == "two\tlines\nstay"


def test_names_that_are_no_text():
    class Odd:
        def __str__(self):
            raise RuntimeError("no")

        @property
        def __name__(self):
            raise RuntimeError("no")

    class Number:
        __name__ = 5

    class Text(str):
        def __str__(self):
            return "\n"

        def __format__(self, how):
            return "\n"

    assert (name_of(Odd()), name_of(Number()), name_of(lambda: 0), name_of(Odd)) == (
        "Odd",
        "Number",
        "<lambda>",
        "Odd",
    )
    assert (
        printable(Odd()) == identifier(Odd()) == "Odd"
        and identifier(5) == "v5"
        and printable(Text("a")) == "a"
    )


def test_names_that_come_out_alike_are_numbered():
    taken: set[str] = set()
    assert [unique(identifier(n), taken) for n in ("a-b", "a b", "a_b_2", "a\x1bb")] == [
        "a_b",
        "a_b_2",
        "a_b_2_2",
        "a_b_3",
    ]


# Emitted source.


def shape_of(source: str) -> str:
    """What a program does, whatever its variables are called: its syntax tree with a number for each of them."""
    tree = ast.parse(source)
    imports, *functions = tree.body[1:]
    assert ast.get_docstring(tree) and ast.unparse(imports) == "from minigrad.compiler.runtime import *"
    own = {f.name: f"function {k}" for k, f in enumerate(functions)}
    for function in functions:
        function.name, numbers = own[function.name], {}
        local = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        local |= {a.arg for a in function.args.args}
        for node in ast.walk(function):
            if isinstance(node, ast.arg):
                node.arg = numbers.setdefault(node.arg, f"{len(numbers)}")
            elif isinstance(node, ast.Name) and node.id not in runtime.__all__:
                called = None if node.id in local else own.get(node.id)
                node.id = called or numbers.setdefault(node.id, f"{len(numbers)}")
    return "\n".join(map(ast.dump, functions))


def renamed(function, name: str, first: str = "x"):
    """The function under another name, with another name of its first argument."""
    code = function.__code__
    names = tuple(first if n == "x" else n for n in code.co_varnames)
    made = types.FunctionType(
        code.replace(co_varnames=names), function.__globals__, name, None, function.__closure__
    )
    made.__name__ = name
    return made


def program(name: str):
    """A program in which everything bears the name: function, argument, parameters, gates, state, result."""
    rng = np.random.default_rng(0)
    W, b = (mg.Tensor(rng.standard_normal(s), requires_grad=True, name=name) for s in ((3, 3), (3,)))
    xs, h0 = rng.standard_normal((4, 2, 3)), mg.Tensor(np.ones((2, 3)), name=name)

    def step(h, x):
        f = mg.sigmoid((h @ W + x).named(name)).named(name)
        return (f * mg.tanh(x + b).named(name)).named(name), f

    def loss(x, again):
        last, fs = mg.scan(step, h0, x * 2.0)
        with mg.scope(name):
            return ((last**2).sum() + fs.mean() + (again * 0.5).named(name).sum()).named(name)

    compiled = mg.compile(renamed(loss, name, name))
    compiled.value_and_grad(xs, np.ones((5,)))
    return compiled


@pytest.fixture
def not_compiled(monkeypatch):
    """Programs are written, and not compiled: what they would do can be read."""

    class Module:
        @staticmethod
        def run(*_):
            return 0

    monkeypatch.setattr(cache, "load", lambda source, name: Module)


def test_the_source_is_the_same_whatever_things_are_called(not_compiled):
    right = shape_of(program("value").source)
    for k, name in enumerate(NAMES):
        compiled = program(name)
        source = compiled.source
        assert source == program(name).source, ascii(name)
        if k % 10 == 0:
            harmless(viz.loops(compiled).svg())
        assert shape_of(source) == right, ascii(name)
        assert max(map(len, source.splitlines())) < 1_000, ascii(name)


def test_a_program_of_hostile_names_gives_the_right_numbers():
    words = [n for n in NAMES if n.isidentifier() and n.isascii()][:24] + NAMES[
        :2
    ]  # what the source could mix up
    leaves = [
        mg.Tensor(np.full(3, 1 + k / 50), requires_grad=True, name=name) for k, name in enumerate(words)
    ]

    def loss(x):
        total = x
        for w in leaves:
            total = (total * 0.5 + mg.tanh(w)).named(w.name)
        return (total**2).sum()

    value = loss(mg.Tensor(np.ones((2, 3))))
    right = mg.grad(value, leaves)
    got, found = mg.compile(renamed(loss, NAMES[1], NAMES[0])).value_and_grad(np.ones((2, 3)))
    np.testing.assert_allclose(got.value, value.value, rtol=1e-12)
    for w, g in zip(leaves, right, strict=True):
        np.testing.assert_allclose(found[w], g.value, rtol=1e-12, atol=1e-15)
    assert not hasattr(sys, "ran")


def test_arguments_of_one_name_have_sizes_of_their_own():
    def loss(argument1, *rest):  # the second is called argument1 where nobody named it
        return argument1.sum() / argument1.shape[0] + rest[0].sum() / rest[0].shape[0]

    assert np.isclose(mg.compile(loss)(np.ones((2, 3)), np.ones((5, 7))).value, 3 + 7)


def test_sizes_of_a_scan_and_of_an_argument_called_T(not_compiled):
    """A second scan's steps are called T_2, and so was the last size of an argument T."""
    W = mg.Tensor(np.ones((3, 3)), requires_grad=True, name="W")

    def loss(x, y, T):
        a, _ = mg.scan(lambda h, x: (mg.tanh(h @ W + x), None), mg.zeros((2, 3), "float64"), x)
        b, _ = mg.scan(lambda h, x: (mg.tanh(h @ W + x), None), mg.zeros((5, 3), "float64"), y)
        return a.sum() + b.sum() + T.sum()

    compiled = mg.compile(loss)
    compiled(np.ones((4, 2, 3)), np.ones((6, 5, 3)), np.ones((7, 8, 9)))
    names = [v.name for _, _, v in compiled.last.traced.variables if v.bound is None]
    assert len(set(names)) == len(names)


def test_a_tensor_called_nan_is_not_the_number(not_compiled):
    """Equal parts of a program are written once, with parameters for the names of their arrays."""
    leaves = [mg.Tensor(np.ones((3, 3)), requires_grad=True, name=name) for name in ("nan", "inf")]

    def loss(x):
        total = 0.0
        for W in leaves:
            h0 = mg.broadcast_to(mg.Tensor(np.nan), (2, 3))
            h, _ = mg.scan(lambda h, x, W=W: (mg.tanh(h @ W + x), None), h0, x)
            total = h.sum() + total
        return total

    compiled = mg.compile(loss)
    compiled(np.ones((4, 2, 3)))
    assert "repeated_1" in compiled.source
    assert set(re.findall(r"float\(.*?\)", compiled.source)) == {'float("nan")'}


# Errors, and what is printed.


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_errors_and_what_is_printed(name):
    with mg.scope(name):
        x = mg.Tensor(np.ones((2, 3)), requires_grad=True, name=name)
        y = mg.tanh(x).named(name)
    with pytest.raises(mg.MinigradError) as error:
        y @ y
    fits(str(error.value))
    fits(repr(x))
    fits(repr(y))
    assert len(str(error.value)) < 1_000 and len(repr(y)) < 1_000
    fits(mg.describe(y))
    with pytest.raises(mg.MinigradError) as error:
        mg.Tensor("no number", name=name)
    fits(str(error.value))
    fits(str(mg.InputError(f"a class that is called {name}")))


@pytest.mark.parametrize("name", WITHOUT_NUL, ids=range(len(WITHOUT_NUL)))
def test_a_cell(name):
    """A class, its parameter and its quantity of that name: printed, unrolled, its equations as text and formula."""

    class Named(cells.Cell):
        def build(self, rng):
            self.weights("W", rng)
            self.W.name = name

        def step(self, x, h):
            gate = mg.sigmoid(mg.concat(h, x) @ self.W)
            return {name: gate, "h": gate * h} if name != "h" else {"h": gate}

    Named.__name__ = name
    cell = Named(2, 3, np.random.default_rng(0))
    fits(repr(cell))
    equations = viz.equations(cell)
    fits(equations.text)
    fits(equations.latex)
    commands = set(re.findall(r"\\[A-Za-z]+", equations.latex))
    assert commands <= {
        r"\backslash", r"\begin", r"\cdot", r"\end", r"\left", r"\mathit", r"\mathrm", r"\odot", r"\right", r"\sigma", r"\sim",
        r"\sum", r"\tilde", r"\top", r"\wedge", r"\leftarrow",
    }, commands  # fmt: skip
    assert equations.latex.count(r"\begin") == equations.latex.count(r"\end") == 2
    assert "$" not in equations.latex.replace(r"\$", "") and not re.search(r"<[A-Za-z/!]", equations.latex)
    depth = 0
    for brace in re.findall(r"(?<!\\)(?:\\\\)*([{}])", equations.latex):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0


def test_a_text_that_commands_the_terminal_is_printed_harmlessly(tmp_path):
    """char_rnn writes what it was taught, and its text was anybody's."""
    commands = "".join(
        n for n in NAMES if FORBIDDEN.search(n) and not re.search("[\ud800-\udfff]", n) and len(n) < 50
    )
    (tmp_path / "text").write_text(commands * 40, encoding="utf-8", newline="")
    command = [
        sys.executable,
        str(ROOT / "examples" / "char_rnn.py"),
        "--text",
        str(tmp_path / "text"),
        "--steps",
        "0",
    ]
    command += ["--hidden", "4", "--window", "5", "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    out = subprocess.run(command, capture_output=True, check=True, env=environment).stdout.decode("utf-8")
    assert out.count("\ufffd") > 50
    fits(out)


# Pictures.


def harmless(svg: str) -> None:
    """Well-formed, of shapes and words alone."""
    for element in ElementTree.fromstring(svg).iter():
        assert element.tag.rpartition("}")[2] not in (
            "script",
            "image",
            "foreignObject",
            "style",
            "iframe",
            "use",
        )
        for attribute in element.attrib:
            local = attribute.rpartition("}")[2].lower()
            assert local not in ("href", "src", "style", "url") and not local.startswith("on"), local


class Tags(HTMLParser):
    """What a browser would make of a page: its elements, and how many scripts."""

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert not [
            n for n, v in attrs if n.startswith("on") or (n in ("href", "src") and v and "javascript" in v)
        ]


def network(names: list[str]):
    """Steps in which each name is a gate, a parameter, a scope and a state."""
    h = mg.Tensor(np.ones((1, 2)), requires_grad=True, name=names[0])
    for t in (1, 2):
        with mg.scope(f"t={t}"):
            for name in names:
                w = mg.Tensor(np.ones(2), requires_grad=True, name=name)
                with mg.scope(name):
                    h = mg.tanh(h * w).named(name)
    loss = h.sum().named(names[-1])
    loss.backward(record=True)
    return loss


@pytest.mark.parametrize("names", batches(12), ids=range(len(batches(12))))
def test_pictures(names):
    loss = network(names)
    for level in ("gate", "operation"):
        picture = viz.draw(loss, level=level, title=names[0])
        assert picture.dot == viz.draw(network(names), level=level, title=names[0]).dot
        assert not FORBIDDEN.search(picture.dot.replace("\n", " ").replace("\t", " "))
        harmless(picture.svg())
    report = viz.report(loss, title=names[1])
    fits(str(report))
    fits(repr(report))
    made = Tags()
    made.feed(viz.page(loss, title=names[0]).html)
    plain = Tags()
    plain.feed(viz.page(network([f"w{k}" for k in range(len(names))]), title="w").html)
    assert set(made.seen) == set(plain.seen) and made.seen.count("script") == plain.seen.count("script")


def test_two_quantities_of_one_name_in_a_step():
    picture = viz.draw(network(["b", "b", "c"]), level="gate")
    assert '"t=1 b"' in picture.dot and '"t=1 b 2"' in picture.dot


def test_two_hostile_names_stay_two_nodes():
    a, b = (mg.Tensor(1.0, requires_grad=True, name=n) for n in ("\x1bw", "\x00w"))
    svg = viz.draw(a * b, level="operation").svg()
    assert svg.count("\ufffdw") >= 2
