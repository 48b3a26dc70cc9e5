"""The machine that code is made for, and how object code becomes functions: LLVM through llvmlite.

NUMBA_CPU_NAME, NUMBA_CPU_FEATURES, NUMBA_ENABLE_AVX, NUMBA_OPT and NUMBA_LOOP_VECTORIZE mean here what they mean to
Numba, which compiles the same source as the reference: code for another processor can be made and tried on this one.
Importing this file loads no more of LLVM than it takes to run what stands in the cache.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from llvmlite import binding

SETTINGS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX", "NUMBA_OPT", "NUMBA_LOOP_VECTORIZE")
WITHOUT_AVX = {"corei7-avx", "core-avx-i", "sandybridge", "ivybridge", "nocona"}  # as in Numba


def _features() -> str:
    """What the processor can, of that which is to be used."""
    given = os.environ.get("NUMBA_CPU_FEATURES")
    if given is not None:
        return given
    if NAME == "generic":
        return ""
    try:
        found = binding.get_host_cpu_features()
    except RuntimeError:
        return ""
    wide = os.environ.get("NUMBA_ENABLE_AVX")
    if not (int(wide) if wide else NAME not in WITHOUT_AVX):
        for feature in found:
            found[feature] = found[feature] and not feature.startswith("avx")
    return found.flatten()


NAME = os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
FEATURES = _features()
LEVEL = int(os.environ.get("NUMBA_OPT", "3")) if os.environ.get("NUMBA_OPT", "3").isdigit() else 3
VECTORISE = os.environ.get("NUMBA_LOOP_VECTORIZE", "1") != "0"
MADE_FOR = (binding.get_process_triple(), binding.llvm_version_info, NAME, FEATURES, LEVEL, VECTORISE)

_lock = threading.Lock()  # of the engine, whose libraries are numbered
_linked = 0


@functools.cache
def _target() -> binding.TargetMachine:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple())
    reloc = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=NAME, features=FEATURES, opt=LEVEL, reloc=reloc, codemodel="jitdefault", jit=True
    )


@functools.cache
def _engine() -> binding.LLJIT:
    return binding.create_lljit_compiler(_target())


def object_code(text: str) -> bytes:
    """A module of LLVM's language, optimised, as an object file."""
    worker = ThreadPoolExecutor(
        1
    )  # LLVM may take seconds over a large program, and Ctrl-C is to be heard meanwhile
    made = worker.submit(_emitted, text)
    worker.shutdown(wait=False)
    while not made.done():
        wait([made], 0.5)
    return made.result()


def _emitted(text: str, assembly: bool = False) -> Any:
    machine = _target()
    module = binding.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=LEVEL)
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
