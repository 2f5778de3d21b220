"""How table rows learn: merge → accumulate → apply, with named semantics."""

from fullrank.features.table_updates.row_grads import RowGrads
from fullrank.features.table_updates.updater import TableUpdater

__all__ = ["RowGrads", "TableUpdater"]
