"""Public data sets as tokenised splits: one file per kind of task, batches for all of them."""

from smallmodels.data.alignment import pair_targets, same_tokens
from smallmodels.data.batches import Batch
from smallmodels.data.completions import Template, cut_completions, prompt_ids
from smallmodels.data.few_shots import NO_LABEL, ClassPlan, draw_shots, plan_by_class
from smallmodels.data.in_languages import by_language, languages_of_rows, load_in_languages
from smallmodels.data.languages import bitexts_by_language, languages_of
from smallmodels.data.multilabel import load_multilabel_classification
from smallmodels.data.pairs_apart import both_texts, tokenize_apart
from smallmodels.data.python_docs import load_python_docs
from smallmodels.data.reading_levels import load_reading_levels
from smallmodels.data.sentences import (
    Sentences,
    join_splits,
    load_bitexts,
    load_search_pairs,
    load_sentences,
    load_similarity_pairs,
    load_translated_pairs,
    load_translations,
    sentences_of,
    with_originals_rows,
)
from smallmodels.data.splits import RetrievalSplit, RetrievalSplits, Split, Splits, cuts_alike
from smallmodels.data.text_classification import load_text_classification
from smallmodels.data.text_pairs import load_text_pairs
from smallmodels.data.texts import cut_into_rows, load_texts, tested_in_part
from smallmodels.data.token_classification import load_token_classification

__all__ = [
    "NO_LABEL",
    "Batch",
    "ClassPlan",
    "RetrievalSplit",
    "RetrievalSplits",
    "Sentences",
    "Split",
    "Splits",
    "Template",
    "bitexts_by_language",
    "both_texts",
    "by_language",
    "cut_completions",
    "cut_into_rows",
    "cuts_alike",
    "draw_shots",
    "join_splits",
    "languages_of",
    "languages_of_rows",
    "load_bitexts",
    "load_in_languages",
    "load_multilabel_classification",
    "load_python_docs",
    "load_reading_levels",
    "load_search_pairs",
    "load_sentences",
    "load_similarity_pairs",
    "load_text_classification",
    "load_text_pairs",
    "load_texts",
    "load_token_classification",
    "load_translated_pairs",
    "load_translations",
    "pair_targets",
    "plan_by_class",
    "prompt_ids",
    "same_tokens",
    "sentences_of",
    "tested_in_part",
    "tokenize_apart",
    "with_originals_rows",
]
