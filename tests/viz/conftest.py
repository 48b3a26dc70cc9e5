"""Machines on which Graphviz is missing, wholly or in part."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import viz

sys.path.insert(0, str(Path(__file__).parent))  # for drawn, the networks that all tests here draw
sys.path.append(str(Path(__file__).parents[1] / "cells"))  # for literature, the cells of papers


@pytest.fixture(params=viz.language.LANGUAGES)
def spoken(request):
    """Every language that pictures speak, one after the other."""
    with viz.language(request.param):
        yield request.param


@pytest.fixture
def without_dot(monkeypatch, tmp_path_factory):
    """A PATH on which there is no Graphviz."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))


@pytest.fixture
def nothing_installed(monkeypatch, without_dot):
    """Neither `dot` nor pygraphviz."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "pygraphviz" else find(name, *a)
    )
