"""Bodies for a GPU, written in Triton, which compiles them when first called. Float32 alone.

What they compute is checked by Triton's interpreter, on a CPU. They were never timed: their speed on a GPU is
unmeasured, as is whether they beat the references, which run there too. bf16 is untested: the interpreter gets it
wrong, so the faces send other types than float32 to the references.
"""

from __future__ import annotations

ELEMENTS = 2048  # of a block of rows, padded to a power of two: 16 a thread of four warps. Our choice, unmeasured
