"""Why targets of docs/performance.md are missed, where the time goes instead, and what would be tried next; by the name
of the benchmark. Shown while one of its targets is missed."""

from __future__ import annotations

MISSED = {
    "table_step": """Merging duplicates is 5 of 7 ms: a radix sort of 106,496 rows and positions, then each gradient is
read where it lies and sums are written. With Zipf ids few rows are left to apply, so merging is what is compared. The
counted bytes (each read and written once, in order) leave out the sort and that gradients are read at random. Next:
apply a row as soon as its gradients are summed, without writing the sums.""",
    "dcnv2_training": """In float32 three quarters of our step are the library's matrix products, which the loop by hand
calls too: 1.5 times its speed would leave no time for anything else. Against dense Adam the ratio is that of our
products to its table: on the machine for which these targets were set products ran at 285 GFLOP/s, here at 130 to 225.
In bf16 products are half of the step, gradients of weights the slowest of them (300 to 400 GFLOP/s; 700 to 1,000
forward). Next: gradients of weights by the tile bodies that RankMixer has, a gather that writes bf16 and a merge that
reads it.""",
    "time_to_auc": """In float32 steps are the library's products for both (see above). In bf16 the loop by hand that
does not merge duplicates applies each gradient of a row by itself: it takes larger steps in effect, and is there after
164 k rows where ours needs 191 k, so that its slower steps end at the same time. Level and learning rates are the same
for all. Next: the faster gradients of weights named above; a larger learning rate of tables would be tuning.""",
    "beyond_memory": """A step reads some 22,700 pages from the disk, 16 at a time: about 0.4 s that the smaller step in
bf16 hides less well. Next: read the pages of the next batch while this one is computed.""",
    "dense_step": """In bf16 the tile unit waits while GELU, its slope and the norms are computed, which take about as
long as the products of a block. Running them between the tiles' instructions gained nothing here (two processors of a
shared core, as it seems). Next: polynomials of lower degree, blocks of 64 rows (the products alone gain a tenth).""",
    "scoring": """The products alone take 30 ms in float32 and 6 ms in bf16 here (17 and 2.4 where the limits were set),
so 20 and 5 ms are out of reach on this machine. Of what lies between: in bf16 norms, GELU and mixing are as much again
as the products, and some 5 ms are look-ups, the tokenizer's bias, the mean over tokens (which torch converts to float32
first) and calls. Next: the whole stack in one body, 32 rows at a time, so that tokens never leave a core's cache.""",
    "streams": """Of histories of 200, cut at five times that, 30 % of the padded tokens are real: what goes by tokens
can gain 3.3 times at most. In bf16 no step is faster than in float32: what is done number by number (norms, gates,
turns) takes most of it and converts from and to float32. Next: a body for RMSNorm and gate, one for attention.""",
    "loader": """torch-rechub's loader in order hands PyArrow's decoded columns on as they are, and shuffles nothing:
both then wait for Parquet. Shuffled, ours copies the rows of a window in the order in which they are asked for,
fuxictr's shuffles arrays it has read whole.""",
    "prepare": """Ours reads every value twice, checks it, hashes its input and keys, and holds half the memory; the
script for Polars knows the log and keeps nothing. Processor time is in counting texts and writing blocks. Next: read
columns of few texts as Parquet's own dictionaries, and count known codes without joining their chunks.""",
}
