"""`Picture`: formats, files, time limit, and machines with and without Graphviz."""

from __future__ import annotations

import os
import shutil
import struct
import sys
import time
import xml.etree.ElementTree as ElementTree

import pytest
from drawn import network, plain

import viz
from minigrad import InputError, LayoutError
from viz.diagram import render
from viz.language.scale import FONT


@pytest.fixture(scope="module")
def picture():
    return viz.draw(network()[0], title="LSTM")


@pytest.fixture(scope="module")
def laid_out():
    """A picture that Graphviz must lay out itself."""
    return viz.draw(plain())


def check(picture):
    svg = picture.svg()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    png = picture.png()
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG") and 0 < width <= 1601 and 0 < height <= 4001
    assert picture.pdf().startswith(b"%PDF")


@pytest.mark.dot
@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's `dot` is not on PATH")
def test_with_dot(picture, laid_out):
    check(picture)
    check(laid_out)


def test_without_dot(without_dot, picture, laid_out):
    check(viz.Diagram(picture.dot))
    check(viz.Diagram(laid_out.dot, engine="dot"))


def test_all_kinds_without_dot(without_dot):
    loss, steps = network()
    for p in (
        viz.gradient(loss),
        viz.gates(steps),
        viz.draw(loss, level="step"),
        viz.draw(loss, level="operation"),
    ):
        assert p.svg().count("<text") > 20


def test_nothing_installed(nothing_installed, picture):
    bare = viz.Diagram(picture.dot, "LSTM")
    with pytest.raises(LayoutError, match=r"apt install graphviz.*\.dot"):
        bare.svg()
    assert bare.dot.startswith("// Positions are given")
    bundle = bare._repr_mimebundle_()
    assert "LSTM" in bundle["text/plain"] and "Graphviz is not installed" in bundle["text/html"]


def test_save_chooses_by_the_ending_and_makes_folders(tmp_path, picture):
    for kind, start in (("dot", b"//"), ("svg", b"<?xml"), ("PNG", b"\x89PNG"), ("pdf", b"%PDF")):
        path = picture.save(tmp_path / "new" / "folder" / f"picture.{kind}")
        assert path.read_bytes().startswith(start)
    assert len(list(path.parent.iterdir())) == 4, "temporary files were left"


def test_save_refuses_unknown_endings(tmp_path, picture):
    for name in ("picture.gif", "picture"):
        with pytest.raises(InputError, match=r"\.svg, \.png, \.pdf or \.dot"):
            picture.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_named_and_nothing_is_left(tmp_path, picture, monkeypatch):
    (tmp_path / "file").write_text("a file, no folder")
    with pytest.raises(InputError, match=r"cannot be written to .*file.*another folder"):
        picture.save(tmp_path / "file" / "picture.dot")
    old = tmp_path / "old.dot"
    old.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        picture.save(old)
    assert old.read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == ["file", "old.dot"]


def test_a_folder_in_place_of_the_file(tmp_path, picture):
    (tmp_path / "picture.dot").mkdir()
    with pytest.raises(InputError, match="is a folder, not a file"):
        picture.save(tmp_path / "picture.dot")
    assert [p.name for p in tmp_path.iterdir()] == ["picture.dot"]


@pytest.mark.parametrize("missing", [True, False])
def test_the_time_limit_kills_the_child(missing, monkeypatch, tmp_path, picture):
    if missing:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(render, "_CHILD", "import time; time.sleep(30)")
    else:
        program = tmp_path / "dot"
        program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(30)\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(LayoutError, match=r"longer than 0\.3 s.*time_limit="):
        viz.Diagram(picture.dot, time_limit=0.3).svg()
    assert time.monotonic() - start < 5


def test_a_crash_of_the_child_is_an_error_of_ours(without_dot, monkeypatch, picture):
    monkeypatch.setattr(render, "_CHILD", "import os; os.abort()")
    with pytest.raises(LayoutError, match="failed"):
        viz.Diagram(picture.dot).svg()
    with pytest.raises(LayoutError, match=r"failed.*\.dot"):
        viz.Diagram("digraph {").svg()


def test_notebooks_get_html_svg_and_text(picture):
    bundle = picture._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    assert "<svg" in bundle["text/html"] and "<?xml" not in bundle["text/html"]
    assert picture._repr_svg_() == bundle["image/svg+xml"]


def test_png_limits(picture):
    width, _ = struct.unpack(">II", picture.png(width=600)[16:24])
    assert 590 <= width <= 601
    with pytest.raises(InputError, match="50 to 8000"):
        picture.png(width=10**6)


SIGNS = "σ ∂ × ⊙ ∇ → … − c̃ ‖ ≤ ₜ ⁻³ ✂ ▴ ▾ ᵀ Σ √ ∞ · é ł я"


def covered(font) -> set[int]:
    """The characters of a TrueType font: its table "cmap", format 4."""
    data = font.read_bytes()
    (count,) = struct.unpack(">H", data[4:6])
    tables = {
        data[12 + 16 * k : 16 + 16 * k]: struct.unpack(">II", data[20 + 16 * k : 28 + 16 * k])
        for k in range(count)
    }
    start, _ = tables[b"cmap"]
    (subtables,) = struct.unpack(">H", data[start + 2 : start + 4])
    offsets = [
        struct.unpack(">HHI", data[start + 4 + 8 * k : start + 12 + 8 * k])[2] for k in range(subtables)
    ]
    at = next(start + o for o in offsets if struct.unpack(">H", data[start + o : start + o + 2]) == (4,))
    (double,) = struct.unpack(">H", data[at + 6 : at + 8])
    ends = struct.unpack(f">{double // 2}H", data[at + 14 : at + 14 + double])
    starts = struct.unpack(f">{double // 2}H", data[at + 16 + double : at + 16 + 2 * double])
    return {c for a, b in zip(starts, ends, strict=True) for c in range(a, b + 1)}


def test_the_fonts_hold_every_sign_that_pictures_write():
    folder = viz.font_directory()
    fonts = sorted(folder.glob("*.ttf"))
    assert (
        len(fonts) == 2 and all(f.stat().st_size < 170_000 for f in fonts) and (folder / "LICENSE").exists()
    )
    root = folder.parents[2]
    sources = [*(root / "viz").rglob("*.py"), root / "minigrad" / "ops.py"]
    used = {ord(c) for file in sources for c in file.read_text(encoding="utf-8") if c.isprintable()}
    for font in fonts:
        assert not {chr(c) for c in used - covered(font)}


@pytest.mark.parametrize("installed", [True, False])
def test_a_png_has_its_text_on_a_machine_without_fonts(installed, monkeypatch, tmp_path, request):
    """Each sign leaves ink, and other ink than a character that no font has."""
    if installed and shutil.which("dot") is None:
        pytest.skip("Graphviz's `dot` is not on PATH")
    if not installed:
        request.getfixturevalue("without_dot")
    bare = tmp_path / "fonts.conf"
    cache = f"<cachedir>{tmp_path}</cachedir>"
    head = '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">'
    bare.write_text(f"{head}<fontconfig><dir>{viz.font_directory()}</dir>{cache}</fontconfig>")
    monkeypatch.setenv("FONTCONFIG_FILE", str(bare))

    def drawn(sign: str) -> bytes:
        node = f'n [label=<<FONT POINT-SIZE="30">{sign}</FONT>> shape=plain width=1 height=1 fixedsize=true]'
        return viz.Diagram(f'digraph {{ node [fontname="{FONT}"] {node} }}', engine="dot").png(200)

    nothing, missing = drawn(" "), drawn("\U00016a00")
    for sign in SIGNS.split()[:: 1 if installed else 4]:
        assert drawn(sign) not in (nothing, missing), sign
