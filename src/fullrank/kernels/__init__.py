"""The few hot loops. Each has one Python face, a plain-torch reference, and a compiled body for a CPU."""
