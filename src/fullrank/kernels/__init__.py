"""The few hot loops. Each has one Python face, a plain-torch reference, a compiled body for a CPU and some a Triton
body for a GPU."""
