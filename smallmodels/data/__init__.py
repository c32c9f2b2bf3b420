"""Public data sets as tokenised splits: one file per kind of task, batches for all of them."""

from smallmodels.data.alignment import pair_targets, same_tokens
from smallmodels.data.batches import Batch
from smallmodels.data.completions import Template, cut_completions, prompt_ids
from smallmodels.data.python_docs import load_python_docs
from smallmodels.data.splits import RetrievalSplit, RetrievalSplits, Split, Splits, cuts_alike
from smallmodels.data.text_classification import load_text_classification
from smallmodels.data.texts import cut_into_rows, load_texts

__all__ = [
    "Batch",
    "RetrievalSplit",
    "RetrievalSplits",
    "Split",
    "Splits",
    "Template",
    "cut_completions",
    "cut_into_rows",
    "cuts_alike",
    "load_python_docs",
    "load_text_classification",
    "load_texts",
    "pair_targets",
    "prompt_ids",
    "same_tokens",
]
