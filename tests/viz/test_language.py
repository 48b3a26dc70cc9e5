"""Portuguese: the catalogue is complete, the environment is heeded, and no view has a word that is not translated."""

from __future__ import annotations

import contextvars
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from forward import EVERY, network
from languages import left_in_english, seen, texts
from test_history import network as trained

import minigrad as mg
import viz
from minigrad.ops import OPS
from viz.language import catalogue

ROOT = Path(__file__).resolve().parents[2]


# The catalogue.


@pytest.fixture(scope="module")
def tool():
    pytest.importorskip("babel", reason="Babel is for development alone")
    spec = importlib.util.spec_from_file_location("catalogue_tool", ROOT / "docs" / "catalogue.py")
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_every_message_of_the_source_is_translated_with_its_names(tool):
    assert tool.missing(tool.merged()) == []


def test_the_committed_files_are_what_the_source_makes_of_them(tool):
    merged = tool.merged()
    assert (tool.FOLDER / "minigrad.po").read_bytes() == tool.po(merged), "run `make words`"
    assert (tool.FOLDER / "minigrad.mo").read_bytes() == tool.mo(merged), "run `make words`"


def test_a_message_without_translation_or_with_another_name_is_found(tool):
    from babel.messages import Catalog

    found = Catalog(locale="pt_BR")
    found.add("all {n} steps", "todos os {n} passos")
    found.add("{n:,} letters", "{n:,} letras")
    assert tool.missing(found) == []
    found.add("one more", "")
    found.add("{size} is large", "{tamanho} é grande")
    found.add(("{n} step", "{n} steps"), ("{n} passo", ""))
    assert tool.missing(found) == ["one more", "{size} is large", "{n} steps"]


# Which language is spoken.


@pytest.mark.parametrize(
    "environment, wanted",
    [
        ({}, "en"),
        ({"LANG": "pt_BR.UTF-8"}, "pt"),
        ({"LANG": "pt"}, "pt"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "pt_BR.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "pt_PT@euro"}, "pt"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "de:pt:en"}, "pt"),
        ({"LANG": "pt_BR.UTF-8", "LANGUAGE": "en:pt"}, "en"),
    ],
)
def test_the_environment_chooses_by_gettexts_rules(monkeypatch, environment, wanted):
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert catalogue.current() == wanted
    assert catalogue.tr("Health report") == {"en": "Health report", "pt": "Relatório de saúde"}[wanted]


def test_a_language_holds_in_its_block_and_in_its_context():
    assert viz.language().name == "en"
    with viz.language("pt_BR") as spoken:
        assert spoken.name == catalogue.current() == "pt"
        with viz.language("en"):
            assert catalogue.current() == "en"
        assert catalogue.current() == "pt"
    assert catalogue.current() == "en"
    contextvars.copy_context().run(viz.language, "pt")
    assert catalogue.current() == "en"


@pytest.mark.parametrize("wrong", ["xx", "", "english", 3])
def test_what_there_is_no_catalogue_of_is_refused(wrong):
    with pytest.raises(mg.InputError, match="choose one of en, pt"):
        viz.language(wrong)
    assert catalogue.current() == "en"


def test_a_picture_stays_in_the_language_in_which_it_was_made():
    loss, _ = network(T=3)
    with viz.language("pt"):
        made = viz.report(loss)
    assert "Relatório de saúde" in made.svg() and "gradiente: ‖" in made.svg()
    english = viz.report(loss)
    with viz.language("pt"):
        assert "Health report" in english.svg() and "gradient: ‖" in english.svg()


def test_numbers_choose_the_plural():
    with viz.language("pt"):
        said = [catalogue.trn("{n} fault", "{n} faults", n) for n in (0, 1, 2)]
    assert said == ["0 defeito", "1 defeito", "2 defeitos"]


# Views.

VIEWS = {
    "step": lambda loss: viz.draw(loss, level="step"),
    "gate": lambda loss: viz.draw(loss, level="gate"),
    "operation": lambda loss: viz.draw(loss, level="operation"),
    "gradient": viz.gradient,
    "gates": viz.gates,
    "paths": viz.paths,
    "bptt": viz.bptt,
    "direct": viz.direct,
    "weights": viz.weights_by_step,
    "report": viz.report,
}


def names_of(run) -> set[str]:
    """What a program calls things: its operations, the functions of its formulas, quantities and layers."""
    found = {w for name in OPS for w in re.split(r"\W|_", name)}
    for step in run.steps if not isinstance(run.steps, dict) else ():
        found |= {w for name in getattr(step, "quantities", {}) for w in name.split("_")}
    return found | {"layer", "norm", "forward", "backward", "keep", "logaddexp", "softplus", "tilde"}


@pytest.mark.parametrize("name", EVERY)
def test_no_view_of_any_cell_has_an_untranslated_word(name):
    loss, run = network(**EVERY[name])
    known = names_of(run)
    for view, made in VIEWS.items():
        english = seen(made(loss))
        with viz.language("pt"):
            assert left_in_english(seen(made(loss)), english, "pt", known) == set(), view


@pytest.mark.parametrize("bend", [0.01, 1.0, 9.0])
def test_no_sentence_has_an_untranslated_word(bend):
    """Reports, headlines and tables, of gradients that vanish, live and explode."""
    for options in (*EVERY.values(), {"T": 24, "truncate": 7}, {"backward": False}):
        loss, run = network(**{**options, "bend": bend})

        def said(loss=loss, options=options):
            told = (
                [viz.report(loss), viz.paths(loss).text]
                if options.get("backward", True)
                else [viz.report(loss)]
            )
            return "\n".join(map(str, [*told, viz.transport(loss) if len(told) > 1 else ""]))

        english = said()
        with viz.language("pt"):
            assert left_in_english(said(), english, "pt", names_of(run)) == set()


def test_no_view_of_a_training_has_an_untranslated_word():
    loss, _, batch = trained(layers=2)
    history, probe = viz.History(), batch()
    for step in range(3):
        history.record(1000 * step, loss, *probe)

    def pictures():
        made = history.flow(), history.gates(), history.half_life(), history.loss(history.data["loss"])
        return " ".join(map(seen, made))

    english = pictures()
    with viz.language("pt"):
        assert left_in_english(pictures(), english, "pt", {"layer"}) == set()


def test_a_comparison_has_no_untranslated_word():
    one, other = network(T=4)[0], network(EVERY["gru"]["cell"], T=4)[0]
    english = seen(viz.compare({"A": one, "B": other}))
    with viz.language("pt"):
        found = seen(viz.compare({"A": one, "B": other}))
    assert left_in_english(found, english, "pt", names_of(network(T=1)[1])) == set()


def test_a_page_has_no_untranslated_word():
    loss, run = network(T=3)
    english = texts(viz.page(loss).html)
    with viz.language("pt"):
        page = viz.page(loss)
    assert '<html lang="pt-BR">' in page.html
    assert left_in_english(texts(page.html), english, "pt", names_of(run)) == set()


IN_FORMULAS = {"axis", "axes", "not", "units"}  # Σ_{axis 0}, Σ_units, 1[not …]


@pytest.mark.parametrize("name", EVERY)
def test_slides_have_no_untranslated_word_and_stay_in_their_language(name):
    loss, run = network(**EVERY[name])
    english = viz.steps(loss, window=(1, 2))
    with viz.language("pt"):
        made = viz.steps(loss, window=(1, 2))
        assert '<html lang="en">' in english.html and english.at(0).title.endswith(": edge 1")
    assert '<html lang="pt-BR">' in made.html and made.at(0).title.endswith(": aresta 1")
    assert '<p class="backward"><span>para trás</span>' in made.html
    told = [" ".join([texts(s.html), s.at(0).title]) for s in (made, english)]
    assert left_in_english(*told, "pt", names_of(run) | IN_FORMULAS) == set()


def test_what_is_left_in_english_is_found():
    with viz.language("pt"):
        assert left_in_english("O gradiente desaparece, tanh", "", "pt") == set()
        assert left_in_english("Nothing is carried back", "", "pt") == {"nothing", "carried"}
        assert left_in_english("uma palavra strange", "a strange word", "pt") == {"strange"}


@pytest.mark.parametrize("view", [viz.paths, viz.gradient, viz.direct, viz.gates, viz.report])
def test_names_of_arrays_are_the_same_in_every_language(view):
    loss, _ = network(T=3)
    with viz.language("pt"):
        found = view(loss).data
    right = view(loss).data
    assert list(found) == list(right)
    for name, value in right.items():
        np.testing.assert_array_equal(found[name], value)


def test_the_portuguese_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.pt.md").read_text(encoding="utf-8"), re.S)
    contextvars.copy_context().run(exec, code[0], {})
    exec(code[1], {"__name__": "readme"})
    assert "Relatório de saúde" in capsys.readouterr().out
    assert "minha célula" in (tmp_path / "minha_celula.svg").read_text(encoding="utf-8")
