"""Public data sets as tokenised splits: one file per kind of task, batches for all of them."""

from smallmodels.data.python_docs import load_python_docs
from smallmodels.data.splits import RetrievalSplit, RetrievalSplits, Split, Splits

__all__ = ["RetrievalSplit", "RetrievalSplits", "Split", "Splits", "load_python_docs"]
