"""The vector kernels compiled: LLVM text -> functions, in this process, by the llvmlite that numba brings along.

No compiler has to be installed. Object code is kept in the user's cache folder, so that only the first process
compiles.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from laconic.entropy.simd_lines import Style
from laconic.entropy.simd_text import module

NATIVE = "native"
LOADING = threading.Lock()  # threads that come together wait, and all but the first find the work done
if hasattr(os, "register_at_fork"):  # a fork waits too, or the child would get the compiler's locks as they are now
    os.register_at_fork(before=LOADING.acquire, after_in_parent=LOADING.release, after_in_child=LOADING.release)


@dataclass(frozen=True)
class Kernels:
    """Holds compiled functions, by the bytes of a table index: 1 or 2. They release the GIL. `engine` owns their code."""

    encode: dict[int, Callable[..., int]]
    decode: dict[int, Callable[..., int]]
    sample: dict[int, Callable[..., int]]
    engine: Any


@lru_cache(maxsize=8)
def kernels(cpu: str) -> Kernels | None:
    """Return the kernels for this machine's CPU, NATIVE, or for one that LLVM knows by name, which tests ask for.

    Where they cannot be had, warn once and return None.
    """
    try:
        with LOADING:
            return load(cpu)
    except Exception as error:  # noqa: BLE001 - whatever LLVM, the cache's folder or the machine lack, numba is there
        warnings.warn(
            f"entropy: found no vector kernels ({error!r}), numba's are used: slower, same bytes", stacklevel=3
        )
        return None


def load(cpu: str) -> Kernels:
    """Compile the kernels, or take the object code of an earlier process from the cache."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features: Any = llvm.get_host_cpu_features() if cpu == NATIVE else {}
    name = llvm.get_host_cpu_name() if cpu == NATIVE else cpu
    text = module(style_of(name, features))
    flat = features.flatten() if features else ""
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(name, flat, 3, jit=True)
    key = hashlib.sha256(repr(("sealed", name, flat, llvm.llvm_version_info, text)).encode()).hexdigest()
    cached = cache_path(key)
    code = kept(cached)
    if code is None:
        code = compiled(text, machine)
        keep(code, cached)
    return linked(code, machine)


def style_of(name: str, features: dict[str, bool]) -> Style:
    """Choose how the kernels do what is not alike in all lanes.

    features: of this machine's CPU, or none for a named one.
    """
    compress = bool(features.get("avx512vbmi2") and features.get("avx512vl"))
    shuffle = bool(features.get("ssse3")) or name in ("x86-64-v2", "x86-64-v3")
    return Style(compress, shuffle, gather=compress and not name.startswith("znver"))


def compiled(text: str, machine: Any) -> bytes:
    """Compile LLVM text to object code."""
    import llvmlite.binding as llvm

    parsed = llvm.parse_assembly(text)
    parsed.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    code: bytes = machine.emit_object(parsed)
    return code


def linked(code: bytes, machine: Any) -> Kernels:
    """Load object code into the process and find its functions."""
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()

    def function(symbol: str, n_pointers: int, n_integers: int) -> Callable[..., int]:
        arguments = [ctypes.c_void_p] * n_pointers + [ctypes.c_int64] * n_integers
        return ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)(engine.get_function_address(symbol))  # releases the GIL

    widths = (1, 2)
    return Kernels(
        {n: function(f"encode_blocks{8 * n}", 7, 7) for n in widths},
        {n: function(f"decode_blocks{8 * n}", 10, 3) for n in widths},
        {n: function(f"sample{8 * n}", 4, 7) for n in widths},
        engine,
    )


def cache_path(key: str) -> Path:
    """Return where object code is kept. key: a digest of all that it depends on."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("laconic")) / f"rans-{key[:32]}.o"


def kept(path: Path) -> bytes | None:
    """Return the object code of an earlier process if it is whole: to run damaged code would end this one."""
    try:
        sealed = path.read_bytes()
    except OSError:
        return None
    digest, code = sealed[:32], sealed[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def keep(code: bytes, path: Path) -> None:
    """Store object code after its digest, for the next process.

    Where nothing can be written, that one compiles again.
    """
    part = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(hashlib.sha256(code).digest() + code)
        os.replace(part, path)
    except OSError:
        pass
