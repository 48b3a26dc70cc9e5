"""The site in a real browser: every page at two widths, without scrolling sideways, a message or a request; its search."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.viz import browser as driver

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (1280, 390)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(driver.PROGRAM is None, reason="no chromium on PATH"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does."""
    for needed in ("mkdocs", "material", "torch", "onnx"):
        pytest.importorskip(needed, reason=f"building the site needs {needed}: make docs")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    found = driver.Browser(tmp_path_factory.mktemp("chromium"))
    yield found
    found.close()


def pages(site: Path) -> list[Path]:
    return [p for p in sorted(site.rglob("*.html")) if "md-content" in p.read_text(encoding="utf-8")]


def test_every_page_at_two_widths(site, screen):
    found = [p for p in pages(site) if p.name != "404.html"]
    assert len(found) > 20
    for path in found:
        for width in WIDTHS:
            where = f"{path.relative_to(site)} at {width}"
            screen.open(path, width=width, stands=".md-content")
            inner = screen.run("document.documentElement.scrollWidth")
            assert inner <= width, f"{where} is {inner} pixels wide"
            assert screen.console == [], f"{where} says {screen.console}"
            assert screen.requests and all(r.startswith(("file:", "data:")) for r in screen.requests), where
            missing = screen.run(
                "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
            )
            assert missing == [], f"{where} lacks {missing}"


def test_nothing_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"?(https?:[^\" >]+)", text)
        assert loaded == [], f"{path.relative_to(site)} loads {loaded}"


def test_what_is_shown_was_made(site):
    lstm = (site / "lecture" / "lstm.html").read_text(encoding="utf-8")
    assert "dc_{t−1}" in lstm and "lstm-2.svg" in lstm
    ours = (site / "pt" / "lecture" / "lstm.html").read_text(encoding="utf-8")
    assert '<html lang="pt-BR"' in ours and "LSTM, passo t" in ours and "LSTM, passo t" not in lstm
    assert "sigmoid" in (site / "inside" / "compiler.html").read_text(encoding="utf-8")
    assert len(list(site.rglob("*.svg"))) > 20


def test_search_works_without_a_server(site, screen):
    screen.open(site / "index.html", stands=".md-content")
    screen.until("document.querySelector('[data-md-component=search-query]')")
    screen.run("document.querySelector('[data-md-toggle=search]').click()")
    screen.run("document.querySelector('[data-md-component=search-query]').focus()")
    for letter in "vanish":
        screen.press(letter)
    screen.until("document.querySelector('.md-search-result__link')", 20)
    found = screen.run(
        "[...document.querySelectorAll('.md-search-result__link')].map(a => a.getAttribute('href'))"
    )
    assert any("vanishing" in link for link in found), found
    assert screen.console == []


def test_a_broken_link_or_anchor_fails_the_build(site, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    text = re.sub(r"^(hooks|  custom_dir|extra_css): .*$", "", text, flags=re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text(text, encoding="utf-8")
    for link, code in {"other.md#there": 0, "other.md#nowhere": 1, "nothing.md": 1}.items():
        (docs / "index.md").write_text(f"# One\n\n[a link]({link})\n", encoding="utf-8")
        (docs / "other.md").write_text("# Two\n\n## There\n", encoding="utf-8")
        built = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--config-file", str(tmp_path / "mkdocs.yml")],
            capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        )  # fmt: skip
        assert built.returncode == code, f"{link}: {built.stdout}{built.stderr}"
