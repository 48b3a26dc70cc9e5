"""The house rules: what `import minigrad` costs and loads, how large the engine is, which way imports run,
what the wheel holds, and that every public name is documented.
"""

from __future__ import annotations

import ast
import io
import os
import statistics
import subprocess
import sys
import tokenize
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ["minigrad", "cells", "viz"]
HEAVY = [
    "numba",
    "llvmlite",
    "matplotlib",
    "rich",
    "graphviz",
    "pygraphviz",
    "safetensors",
    "torch",
    "platformdirs",
    "mpi4py",
]


def python(program: str, **variables: str) -> str:
    """Run a program in a fresh interpreter that sees this source tree."""
    found, env = f"import sys; sys.path.insert(0, {str(ROOT)!r}); ", os.environ | variables
    return subprocess.run(
        [sys.executable, "-c", found + program], capture_output=True, text=True, check=True, env=env
    ).stdout


# Imports.


@pytest.mark.smoke
def test_importing_the_engine_loads_nothing_heavy():
    loaded = python(f"import minigrad, sys; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_importing_the_engine_takes_less_than_a_sixth_of_a_second_beyond_numpy(tmp_path):
    compiled = {
        "PYTHONPYCACHEPREFIX": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "",
    }  # as it is once installed
    program = (
        "import time, numpy; start = time.process_time(); import minigrad; print(time.process_time() - start)"
    )
    python(program, **compiled)  # the first one compiles the files
    assert statistics.median(float(python(program, **compiled)) for _ in range(7)) <= 0.15


def imports(file: Path) -> set[str]:
    """Top-level names of the absolute imports of a file, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


ASKS_FOR_TORCH = ROOT / "cells" / "onnx" / "exporters.py"  # in functions, when a module of PyTorch is given


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("minigrad", {"cells", "viz"}), ("cells", {"viz"}), ("viz", {"cells"})],
)
def test_imports_run_one_way(package, forbidden):
    # What the console script runs stands above all three packages, and has to live in one of them.
    files = [f for f in (ROOT / package).rglob("*.py") if f.parent != ROOT / "minigrad" / "command"]
    assert files, f"{package} has no files"
    for file in files:
        # One file may ask for PyTorch, and `cells.check` draws a picture.
        allowed = {ASKS_FOR_TORCH: {"torch"}, ROOT / "cells" / "checking.py": {"viz"}}.get(file, set())
        wrong = imports(file) & (forbidden | {"tests", "examples", "benchmarks", "torch", "pytest"}) - allowed
        assert not wrong, f"{file.relative_to(ROOT)} imports {sorted(wrong)}"


# Size.


def lines_of_code(source: str) -> int:
    """Lines that hold code: no blank line, no line of comment alone, no line of a docstring."""
    silent = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node, clean=False) is not None
        ):
            text = node.body[0]
            lines -= set(range(text.lineno, text.end_lineno + 1))
    return len(lines)


@pytest.mark.smoke
def test_lines_are_counted_as_said():
    source = (
        '"""A\ndocstring."""\n\n# a comment\n'
        "x = (\n    1,  # why\n\n    2,\n)\n\n\n"
        'def f():\n    """Doc."""\n    return """a\nb"""\n'
    )
    assert lines_of_code(source) == 4 + 1 + 2


@pytest.mark.smoke
def test_the_engine_can_be_read_in_an_afternoon():
    """What records and differentiates: under 1,000 lines that are not blank, comment or docstring."""
    files = [ROOT / "minigrad" / name for name in ("tensor.py", "op.py", "ops.py", "reverse.py")]
    counts = {str(f.relative_to(ROOT)): lines_of_code(f.read_text(encoding="utf-8")) for f in files}
    assert sum(counts.values()) < 1000, f"{sum(counts.values())} lines of code: {counts}"


# What a user gets.


@pytest.mark.smoke
@pytest.mark.parametrize("package", ["minigrad", "cells"])
def test_every_public_name_is_there_and_documented(package):
    module = __import__(package)
    assert module.__doc__
    for name in module.__all__:
        thing = getattr(module, name)
        if callable(thing):
            assert thing.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.smoke
def test_the_library_raises_its_own_errors_which_are_also_the_built_in_ones():
    import minigrad

    kinds = {
        minigrad.ShapeError: ValueError,
        minigrad.DTypeError: TypeError,
        minigrad.GraphError: RuntimeError,
        minigrad.NonFiniteError: ArithmeticError,
        minigrad.InputError: ValueError,
        minigrad.LayoutError: RuntimeError,
    }
    for ours, built_in in kinds.items():
        assert issubclass(ours, minigrad.MinigradError) and issubclass(ours, built_in) and ours.__doc__


@pytest.mark.slow
def test_the_wheel_holds_all_packages_and_they_import_from_another_folder(tmp_path):
    pytest.importorskip("hatchling", reason="building the wheel offline needs hatchling")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
        names = archive.namelist()
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "examples/"))]
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
        files = [f for f in (ROOT / package).rglob("*") if f.is_file() and "__pycache__" not in f.parts]
        sources = {str(f.relative_to(ROOT)) for f in files}  # fonts and the parts of the page as well
        assert sources <= set(names), f"the wheel lacks {sorted(sources - set(names))}"
    program = f"import sys; sys.path.insert(0, {str(unpacked)!r}); import minigrad, cells; "
    program += "print(minigrad.__file__, cells.__file__)"
    where = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert where.count(str(unpacked)) == 2
