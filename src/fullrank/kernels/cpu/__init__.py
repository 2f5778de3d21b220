"""Bodies for a CPU, compiled by Numba when first called and kept beside their source."""
