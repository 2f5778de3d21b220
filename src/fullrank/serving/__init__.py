"""From a run to answers: a frozen ranker, and what stands around it."""
