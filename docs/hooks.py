"""What MkDocs calls while it builds the site: pages run, the reference is made from docstrings.

Nothing that a page shows as output is kept in the repository; all of it is made here, by the library as it is.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("MPLBACKEND", "Agg")

from mkdocs.structure.files import File  # noqa: E402

import viz  # noqa: E402
from docs import pages, reference  # noqa: E402
from viz.language.catalogue import tag  # noqa: E402


def language_of(file) -> str:
    """The language of a page: its folder's name where that is one, else English."""
    folder = file.src_uri.partition("/")[0]
    return folder if folder in viz.language.LANGUAGES else "en"


def on_files(files, config):
    for name, text in reference.pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    if "```python" not in markdown or page.file.src_uri.startswith("reference/"):
        return markdown
    logging.getLogger("mkdocs.hooks").info("runs %s", page.file.src_uri)
    with tempfile.TemporaryDirectory() as folder:
        text, made = pages.shown(markdown, Path(folder), Path(page.file.src_uri).stem, language_of(page.file))
    beside = Path(config.site_dir) / Path(page.file.dest_uri).parent
    beside.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (beside / name).write_bytes(content)
    return text


def on_post_page(output, page, config):
    """Says of a page in another language which one it is, to hyphenate and to read aloud by."""
    with viz.language(language_of(page.file)):
        return output.replace('<html lang="en"', f'<html lang="{tag()}"', 1)


def on_post_build(config):
    """The index of the search as a script too, which a page that was opened from a file may read."""
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text(encoding="utf-8")
    (folder / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
