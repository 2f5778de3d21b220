"""fbgemm's tables with its fused row-wise Adagrad, on a CPU."""

from __future__ import annotations

from importlib.metadata import version

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)

VERSION = version("fbgemm-gpu-cpu")


def tables(sizes: dict) -> SplitTableBatchedEmbeddingBagsCodegen:
    """One table a feature; `forward(ids, offsets) -> [B, F·D]`."""
    one = (sizes["rows_of_a_feature"], sizes["width"], EmbeddingLocation.HOST, ComputeDevice.CPU)
    found = SplitTableBatchedEmbeddingBagsCodegen(
        [one] * sizes["features"],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.02,
        eps=1e-8,
        pooling_mode=PoolingMode.SUM,
    )
    for weight in found.split_embedding_weights():
        torch.nn.init.normal_(weight, std=sizes["init_std"])
    return found


def by_feature(ids_BF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids feature by feature, and offsets of bags of one."""
    return ids_BF.T.contiguous().view(-1), torch.arange(ids_BF.numel() + 1)
