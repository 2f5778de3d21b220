"""Bodies for a GPU, written in Triton, which compiles them when first called. Float32 alone.

What they compute is checked by Triton's interpreter, on a CPU. They were never timed: their speed on a GPU is
unmeasured, as is whether they beat the references, which run there too. bf16 is untested: the interpreter gets it
wrong, so the faces send other types than float32 to the references.
"""
