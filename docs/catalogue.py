"""Keeps the catalogue of viz/language: collects the messages of the source, and compiles what is translated.

`python docs/catalogue.py` brings minigrad.po up to date (a new message comes in empty, one that is gone leaves) and writes
minigrad.mo from it, the same bytes from the same text; `--check` changes nothing and says what is missing.  Needs
Babel, which only development has.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

from babel.messages import Catalog, extract, pofile
from babel.messages.mofile import write_mo

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from minigrad.compiler.rewrite import REWRITES  # noqa: E402
from viz.page.page import messages_of  # noqa: E402

FOLDER = ROOT / "viz" / "language" / "locale" / "pt" / "LC_MESSAGES"
JUDGE = ROOT / "examples" / "exercises" / "judge.py"
PLURALS = "nplurals=2; plural=(n > 1);"
HEADER = """\
# Portuguese of Brazil for the pictures, reports and pages of minigrad.
# The terms are those of viz/language/glossary.md; `make words` brings this file up to date."""
DATED = "POT-Creation-Date|PO-Revision-Date|Last-Translator|Language-Team|Generated-By|Report-Msgid-Bugs-To"
KEYWORDS = {"tr": None, "deferred": None, "trn": (1, 2)}


def messages() -> Catalog:
    """What Python, the scripts and the pages ask for, in the order of the files."""
    found = Catalog(fuzzy=False)
    for path in sorted([*ROOT.glob("viz/**/*.py"), *ROOT.glob("minigrad/command/*.py"), JUDGE]):
        for _, said, _, _ in extract.extract("python", io.BytesIO(path.read_bytes()), KEYWORDS):
            if said:
                found.add(said)
    for path in sorted(ROOT.glob("viz/**/*.js")):
        for said in messages_of(path.read_text(encoding="utf-8")):
            found.add(said)
    for path in sorted(ROOT.glob("viz/**/*.html")):
        for said in re.findall(r"\{\{tr:(.*?)\}\}", path.read_text(encoding="utf-8")):
            found.add(said)
    for said in of_rewrites():
        found.add(said)
    return found


def of_rewrites() -> list[str]:
    """Names of the compiler's rewrites, and the first lines of what they say of themselves, as pictures show them."""
    lines = [(f.__doc__ or "").strip().split("\n")[0] for f in REWRITES.values()]
    return [*REWRITES, *lines, "traced", "gradients", "forward", "backward"]


def merged() -> Catalog:
    """The messages with the translations that there are."""
    with (FOLDER / "minigrad.po").open(encoding="utf-8") as file:
        old = pofile.read_po(file, locale="pt_BR")
    new = Catalog(
        "pt_BR", header_comment=HEADER, fuzzy=False, project="minigrad", charset="utf-8",
        creation_date=old.creation_date, revision_date=old.creation_date,
    )  # fmt: skip
    new.mime_headers = [("Plural-Forms", PLURALS)]
    for m in messages():
        if m.id:
            known = old.get(m.id if isinstance(m.id, str) else m.id[0])
            new.add(m.id, known.string if known is not None else ("", "") if m.pluralizable else "")
    return new


def missing(catalogue: Catalog) -> list[str]:
    """Messages without a translation, or with other {names} than the English ones."""
    bad = []
    for m in catalogue:
        if not m.id:
            continue
        ids, strings = ([x] if isinstance(x, str) else list(x) for x in (m.id, m.string or ""))
        names = {n for i in ids for n in named(i)}
        if not all(strings) or any(not named(s) <= names for s in strings):
            bad.append(ids[-1])
    return bad


def named(said: str) -> set[str]:
    return set(re.findall(r"\{(\w+)(?::[^{}]*)?\}", said))


def po(catalogue: Catalog) -> bytes:
    buffer = io.BytesIO()
    pofile.write_po(buffer, catalogue, width=0, omit_header=False, include_lineno=False)
    text = buffer.getvalue().decode("utf-8")
    return re.sub(
        r'"(POT-Creation-Date|PO-Revision-Date|Last-Translator|Language-Team|Generated-By|Report-Msgid-Bugs-To)[^\n]*\n',
        "",
        text,
    ).encode()


def mo(catalogue: Catalog) -> bytes:
    """What gettext reads, of no date, so that the same text gives the same bytes."""
    with io.BytesIO(po(catalogue)) as text:
        bare = pofile.read_po(text, locale="pt_BR")
    bare.creation_date = bare.revision_date = datetime(2000, 1, 1, tzinfo=timezone.utc)
    buffer = io.BytesIO()
    write_mo(buffer, bare)
    return buffer.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 where something is missing")
    check = parser.parse_args().check
    catalogue = merged()
    if not check:
        (FOLDER / "minigrad.po").write_bytes(po(catalogue))
        (FOLDER / "minigrad.mo").write_bytes(mo(catalogue))
    bad = missing(catalogue)
    print(f"{len(catalogue)} messages, {len(bad)} to be translated", *bad, sep="\n")
    return 1 if bad and check else 0


if __name__ == "__main__":
    sys.exit(main())
