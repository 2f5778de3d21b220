"""Triton bodies without a GPU: its interpreter runs them on a CPU, and its compiler makes machine code of them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fullrank.kernels.bodies import bodies, runs_triton

linux_alone = pytest.mark.skipif(find_spec("triton") is None, reason="Triton has wheels for Linux alone")


@linux_alone
def test_bodies_do_what_their_references_do() -> None:
    """In a process of its own: whether Triton interprets is decided when it is imported, for the whole process.

    Float32, int32 and int64 alone; bf16 is untested (the interpreter gets it wrong).
    """
    cases = Path(__file__).with_name("triton_cases.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(cases)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@linux_alone
@pytest.mark.parametrize("name", ["gather", "merge", "rowwise_adagrad", "lazy_adam"])
def test_bodies_compile_for_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter lets types pass that the compiler does not, and the compiler needs no GPU."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # its default is about to change, and Triton warns of that
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    body = importlib.import_module(f"fullrank.kernels.gpu.{name}")
    kernel = {"gather": "_gather", "merge": "_sum_runs"}.get(name, "_update")
    integers = {"ids", "base", "num_rows", "rows", "starts", "ends", "sources"}
    constants = {"width": 20, "padded": 32, "block": 64}

    def kind(argument: str) -> str:
        if argument in constants:
            return "constexpr"
        if argument in ("total", "columns") or (argument == "num_rows" and name != "gather"):
            return "i32"
        if argument in integers:
            return "*i64"
        if argument == "outside":
            return "*i32"
        return "*fp32" if argument in ARRAYS else "fp32"

    function: Any = getattr(body, kernel)
    signature = {argument: kind(argument) for argument in function.arg_names}
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    assert "st.global" in triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]


ARRAYS = {"weight", "x", "grads", "values", "acc", "mean", "square", "shrunk"}


def test_triton_runs_for_contiguous_float32_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(is_cuda: bool = True, dtype: torch.dtype = torch.float32, contiguous: bool = True) -> Any:
        return SimpleNamespace(is_cuda=is_cuda, dtype=dtype, is_contiguous=lambda: contiguous)

    monkeypatch.setattr("fullrank.kernels.bodies._has_triton", lambda: True)
    assert runs_triton(rows(), rows())
    assert not runs_triton(torch.ones(2, 2))
    for other in (rows(is_cuda=False), rows(dtype=torch.bfloat16), rows(contiguous=False)):
        assert not runs_triton(rows(), other)
    with bodies("reference"):
        assert not runs_triton(rows())
    monkeypatch.setattr("fullrank.kernels.bodies._has_triton", lambda: False)
    assert not runs_triton(rows())
