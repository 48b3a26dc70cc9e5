# One command each; `make` lists them. Needs make, a POSIX shell with its core utilities, and Python 3.10 or
# newer, nothing else: each target first brings the environment in .venv to what it needs.

PYTHON   ?= python3
VENV     ?= .venv
WORKERS  ?= 2
PICTURES ?= pictures
TORCH    ?= torch==2.13.0
# How long `make fuzz` draws programs, and options of its own: make fuzz FUZZ="--seed 1 --machine-share 0.8"
MINUTES  ?= 30
FUZZ     ?=
# Given to pytest in place of the whole suite: make test ARGS="tests/minigrad/test_ops.py -k tanh"
ARGS     ?=

PY := $(VENV)/bin/python
unexport PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help hello test check coverage fuzz arm bench pictures docs words wheel torch oracles clean
.DELETE_ON_ERROR:

help:
	@echo 'make hello      install into $(VENV) and run examples/hello_lstm.py'
	@echo 'make test       the test suite, its fast part first (ARGS="-k tanh" for a part of it)'
	@echo 'make check      format, lint, types, import contracts, then the test suite'
	@echo 'make fuzz       draw programs for MINUTES=$(MINUTES), compare compiled with eager, keep what differs'
	@echo 'make arm        the kernels and all cells on 64-bit ARM, emulated (needs root, debootstrap, qemu-user-static)'
	@echo 'make bench      the benchmarks, against $(TORCH) and JAX'
	@echo 'make pictures   the pictures of README.md, and every example, its pictures in $(PICTURES)/'
	@echo 'make docs       the site, in build/site: every block of code is run, warnings are errors'
	@echo 'make words      the catalogue of viz/language from the source; says what is to be translated'
	@echo 'make coverage   lines and branches that the suite reaches, children too (ARGS=tests/compiler: a part of it)'
	@echo 'make wheel      the wheel, in dist/'
	@echo 'make torch      $(TORCH) into $(VENV), for the tests that compare with it'
	@echo 'make oracles    PyTorch, ONNX and Keras into $(VENV), for all tests that compare'
	@echo 'make clean      remove $(VENV) and all that was built'
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) WORKERS=$(WORKERS) TORCH=$(TORCH) PICTURES=$(PICTURES)'

hello: $(VENV)/.ready-run
	@$(PY) examples/hello_lstm.py

test: $(VENV)/.ready-test
ifeq ($(strip $(ARGS)),)
	$(PY) -m pytest -q -m smoke
	$(PY) -m pytest -q -n $(WORKERS) --dist worksteal -m 'not smoke'
else
	$(PY) -m pytest $(ARGS)
endif

check: $(VENV)/.ready-dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyright --pythonpath $(PY)
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'
	$(MAKE) test

coverage: $(VENV)/.ready-dev
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)
	$(PY) -m coverage combine -q
	$(PY) -m coverage report --skip-covered --skip-empty --sort=cover

fuzz: $(VENV)/.ready-test
	$(PY) -m tests.drawn.fuzz --minutes $(MINUTES) --workers $(WORKERS) $(FUZZ)

arm: $(VENV)/.ready-test
	@sh tests/arm.sh $(PY) $(ARGS)

bench: $(VENV)/.ready-bench
	$(PY) benchmarks/run.py
	$(PY) benchmarks/compiled.py
	$(PY) benchmarks/compiled.py --growth
	$(PY) benchmarks/waiting.py
	$(PY) benchmarks/training.py
	$(PY) benchmarks/lecture.py
	$(PY) benchmarks/tasks.py
	$(PY) benchmarks/characters.py
	$(PY) benchmarks/sweep.py
	$(PY) benchmarks/parallel.py
	$(PY) benchmarks/replication.py

pictures: $(VENV)/.ready-run
	$(PY) docs/make_pictures.py
	@mkdir -p $(PICTURES)
	@for example in examples/*.py; do echo "$$example"; $(PY) $$example --out $(PICTURES) || exit 1; done

docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build
	@echo 'open build/site/index.html'

words: $(VENV)/.ready-test
	$(PY) docs/catalogue.py

wheel: $(VENV)/.ready-run
	@rm -rf dist
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .

torch: $(VENV)/.ready-torch

oracles: $(VENV)/.ready-oracles

clean:
	@test ! -f $(VENV)/pyvenv.cfg || rm -rf $(VENV)
	rm -rf dist build $(PICTURES) .coverage* .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf __pycache__ */__pycache__ */*/__pycache__ */*/*/__pycache__

# ---- the environment ------------------------------------------------------------------------------------------
# A stamp per need, older than pyproject.toml when something must be installed again. It is written last, so an
# interrupted install leaves none. What is installed for `check` serves `test` and `hello` too: one stamp each.
# A stamp holds the folder that it was made for: a copied or moved clone, or one whose Python went, starts anew.

STALE := $(shell { read -r made_for <$(VENV)/.ready-run && test "$$made_for" = '$(CURDIR)' && test -x $(PY); } \
	2>/dev/null || echo install-again)
.PHONY: install-again

$(VENV)/.ready-run: pyproject.toml $(STALE)
	@$(call setup,-e .,$@)

$(VENV)/.ready-test: pyproject.toml $(STALE)
	@$(call setup,-e .[test],$@ $(VENV)/.ready-run)

$(VENV)/.ready-dev: pyproject.toml $(STALE)
	@$(call setup,-e .[dev],$@ $(VENV)/.ready-test $(VENV)/.ready-run)

$(VENV)/.ready-torch: pyproject.toml $(STALE)
	@$(call setup,-e . $(TORCH),$@ $(VENV)/.ready-run)

$(VENV)/.ready-oracles: pyproject.toml $(STALE)
	@$(call setup,-e . $(TORCH) onnx onnxruntime onnxscript keras,$@ $(VENV)/.ready-torch $(VENV)/.ready-run)

# With PyTorch and ONNX: a page shows how a model is brought from there, and every page runs.
$(VENV)/.ready-docs: pyproject.toml $(STALE)
	@$(call setup,-e .[docs] $(TORCH) onnx,$@ $(VENV)/.ready-torch $(VENV)/.ready-run)

$(VENV)/.ready-bench: pyproject.toml $(STALE)
	@$(call setup,-e . $(TORCH) jax scikit-learn,$@ $(VENV)/.ready-torch $(VENV)/.ready-run)

define setup
command -v '$(PYTHON)' >/dev/null || { \
	echo "minigrad needs Python 3.10 or newer, and there is no '$(PYTHON)' on PATH: name one, as in" \
	"PYTHON=python3.12 make $(or $(MAKECMDGOALS),hello)" >&2; exit 1; }; \
'$(PYTHON)' -c "$$SETUP" '$(VENV)' '$(1)' $(2)
endef

# Runs under any Python, also one that is too old, to say so. The lock makes `make -j` and two terminals safe.
define SETUP
import fcntl, os, subprocess, sys, time

venv, requirements, stamps = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
python = os.path.join(venv, "bin", "python")


def works():
    with open(os.devnull, "w") as null:
        return os.path.exists(python) and subprocess.call([python, "-c", "import pip"], stderr=null) == 0


def ready(stamp):
    if not os.path.exists(stamp) or os.path.getmtime(stamp) <= os.path.getmtime("pyproject.toml"):
        return False
    with open(stamp) as file:
        return file.read().strip() == os.getcwd() and works()


def main():
    lock = open("pyproject.toml")
    fcntl.flock(lock, fcntl.LOCK_EX)
    start = time.time()
    if ready(stamps[0]):
        return 0                                     # another make has just done it
    if not works():
        if sys.version_info < (3, 10):
            sys.exit(
                "minigrad needs Python 3.10 or newer; %s is Python %d.%d.%d. Name a newer one, as in"
                " PYTHON=python3.12 make $(or $(MAKECMDGOALS),hello)" % ((sys.executable,) + sys.version_info[:3])
            )
        print("making the environment in %s" % venv)
        if subprocess.call([sys.executable, "-m", "venv", "--clear", venv]) != 0:
            return 1
    print("installing %s (a minute at the first time, seconds later)" % " ".join(requirements))
    sys.stdout.flush()
    if subprocess.call([python, "-m", "pip", "install", "--quiet"] + requirements) != 0:
        return 1
    for stamp in stamps:
        with open(stamp, "w") as file:
            file.write(os.getcwd() + "\n")
        os.utime(stamp, (start, start))              # pyproject.toml edited meanwhile is newer
    return 0


try:
    sys.exit(main())
except KeyboardInterrupt:
    sys.exit(130)
endef
export SETUP
