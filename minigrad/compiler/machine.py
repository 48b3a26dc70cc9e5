"""The machine that code is made for, and how object code becomes functions: LLVM through llvmlite.

NUMBA_CPU_NAME, NUMBA_CPU_FEATURES, NUMBA_ENABLE_AVX, NUMBA_OPT and NUMBA_LOOP_VECTORIZE mean here what they mean to
Numba, which compiles the same source as the reference: code for another processor can be made and tried on this one.
Code never has what this processor lacks, whatever is asked for: a setting that cannot be is told in one warning.
MINIGRAD_OPT, from 0 to 3, is the level of optimisation of programs alone, while the kernels that they call have NUMBA_OPT's:
at 0 a first call comes sooner and all later ones are slower.  The suite has it where only numbers are looked at.
Importing this file loads no more of LLVM than it takes to run what stands in the cache.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from llvmlite import binding

SETTINGS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX", "NUMBA_OPT", "NUMBA_LOOP_VECTORIZE")
WITHOUT_AVX = {"corei7-avx", "core-avx-i", "sandybridge", "ivybridge", "nocona"}  # as in Numba
TRIPLE = binding.get_process_triple()
ARM = TRIPLE.startswith(("aarch64", "arm64"))
# LLVM prints that it does not know a name, and ends the process over some: so a process of its own is asked.
TRIAL = """
import sys
from llvmlite import binding
binding.initialize_native_target()
binding.initialize_native_asmprinter()
target = binding.Target.from_triple(binding.get_process_triple())
machine = target.create_target_machine(cpu=sys.argv[1], features=sys.argv[2])
machine.emit_object(binding.parse_assembly("define double @f(double %x) { %y = fadd double %x, %x ret double %y }"))
"""


def _setting(name: str, among: Mapping[str, int], default: int) -> int:
    """A number from the environment; a warning, and the default, where it is none that is known."""
    given = os.environ.get(name) or str(default)
    if given not in among:
        _warn(f"{name}={given} is not one of {', '.join(among)}: {default} is used")
    return among.get(given, default)


def _warn(message: str) -> None:
    warnings.warn(f"minigrad: {message}", stacklevel=3)


def _host_features() -> dict[str, bool]:
    try:
        return dict(binding.get_host_cpu_features())
    except RuntimeError:
        return {}


def _processor() -> tuple[str, str]:
    """The processor's name, and what it can, of that which is to be used."""
    host, has = binding.get_host_cpu_name(), _host_features()
    name, given = os.environ.get("NUMBA_CPU_NAME") or host, os.environ.get("NUMBA_CPU_FEATURES")
    if given is not None and "+simd128" in given:  # WebAssembly's, whose target is another
        return name, given
    avx = _setting("NUMBA_ENABLE_AVX", {"0": 0, "1": 1}, int(name not in WITHOUT_AVX))
    usual = {f: on and (bool(avx) or not f.startswith("avx")) for f, on in has.items()}
    if given is None:
        features = "" if name == "generic" else _flat(usual)
    else:
        lacks = [f for f, on in has.items() if not on]
        wanted = [f for f in given.split(",") if f]
        if beyond := [f for f in wanted if f[0] == "+" and f[1:] in lacks]:
            _warn(f"NUMBA_CPU_FEATURES: this processor ({host}) lacks {', '.join(beyond)}: made without")
        features = ",".join([*(f for f in wanted if f not in beyond), *(f"-{f}" for f in lacks)])
    if name in (host, "generic") and given is None:
        return name, features
    if reason := _refused(name, features):
        asked = " ".join(f"{s}={os.environ[s]}" for s in SETTINGS[:2] if s in os.environ)
        _warn(f"{asked} is not used, as LLVM says: {reason}; code is made for this processor ({host})")
        return host, "" if host == "generic" else _flat(usual)
    return name, features


def _flat(features: Mapping[str, bool]) -> str:
    return ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(features.items()))


def _refused(name: str, features: str) -> str:
    """Why LLVM cannot make code for such a processor; nothing where it can, or where nobody can be asked."""
    wrong = [f for f in features.split(",") if f and f[0] not in "+-"]
    if wrong:
        return f"{wrong[0]!r} begins with neither + nor -"
    try:
        trial = [sys.executable, "-c", TRIAL, name, features]
        done = subprocess.run(trial, capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, TypeError, ValueError, subprocess.TimeoutExpired):
        return ""
    said = done.stderr.strip().splitlines()
    return said[0] if said else f"status {done.returncode}" if done.returncode else ""


def _wide(name: str, features: str) -> tuple[str, str]:
    """Vectors as wide as the processor has them: LLVM halves them by itself on some, which were slow to change to wide ones
    and back; products have them in any case."""
    known = "+avx512f" in features.split(",") and "prefer-256-bit" not in features
    return name, f"{features},-prefer-256-bit" if known else features


NAME, FEATURES = _wide(*_processor())
LEVELS = {"0": 0, "1": 1, "2": 2, "3": 3, "max": 3}
LEVEL = _setting("NUMBA_OPT", LEVELS, 3)
VECTORISE = os.environ.get("NUMBA_LOOP_VECTORIZE", "1") != "0"
MADE_FOR = (TRIPLE, binding.llvm_version_info, NAME, FEATURES, LEVEL, VECTORISE)


def program_level() -> int:
    """Of optimisation, of what is not a kernel; read when a program is made, so that one process may have both."""
    return _setting("MINIGRAD_OPT", LEVELS, LEVEL)


_lock = threading.Lock()  # of the engine, whose libraries are numbered
_linked = 0


@functools.cache
def _target(level: int) -> binding.TargetMachine:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(TRIPLE)
    reloc = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=NAME, features=FEATURES, opt=level, reloc=reloc, codemodel="jitdefault", jit=True
    )


@functools.cache
def _engine() -> binding.LLJIT:
    # On ARM the older linker puts code and constants further apart than an address in an instruction can tell.
    return binding.create_lljit_compiler(_target(LEVEL), use_jit_link=ARM and sys.platform != "win32")


def object_code(text: str, level: int = LEVEL) -> bytes:
    """A module of LLVM's language, optimised as far as `level` says, as an object file."""
    worker = ThreadPoolExecutor(
        1
    )  # LLVM may take seconds over a large program, and Ctrl-C is to be heard meanwhile
    made = worker.submit(_emitted, text, level)
    worker.shutdown(wait=False)
    while not made.done():
        wait([made], 0.5)
    return made.result()


def _emitted(text: str, level: int = LEVEL, assembly: bool = False) -> Any:
    machine = _target(level)
    module = binding.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=level)
    options.loop_vectorization = VECTORISE
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return machine.emit_assembly(module) if assembly else machine.emit_object(module)


class Loaded:
    """Object files as functions: `addresses` by name.  They go when this goes."""

    def __init__(self, objects: Sequence[bytes], exports: Sequence[str], imports: Mapping[str, int]):
        global _linked
        library = binding.JITLibraryBuilder().add_current_process()
        for data in objects:
            library.add_object_img(data)
        for name, address in imports.items():
            library.import_symbol(name, address)
        for name in exports:
            library.export_symbol(name)
        with _lock:
            _linked += 1
            self._library = library.link(_engine(), f"minigrad_{_linked}")
        self.addresses = {name: self._library[name] for name in exports}
