"""How embedders are compared: by searches, by pairs with scores, and by translations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from smallmodels import baselines, data, evaluation
from smallmodels.data import RetrievalSplits, Split, Splits
from smallmodels.evaluation import Contender, Contenders, Evaluation
from smallmodels.models import Compute, TextModel
from smallmodels.phases import Context

VALIDATION_PAIRS = 300
"""Of each language, while training: all of them would take longer than the training between two looks."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How embedders are compared."""

    metric: str
    """Key of a result's metrics by which training chooses and reports rank."""
    validate: Callable[..., float]
    """Of a model and `compute`: the metric on validation."""
    evaluate: Callable[..., Evaluation]
    """Of contenders, with `compute` and `context`: results on test."""
    uses: Split
    """What one use is measured with: texts to embed, or pairs to compare."""
    baselines: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    """By role, what makes a baseline; each is a phase of its own."""


def judge_by_search(splits: RetrievalSplits) -> Judge:
    """How far up a query finds its document chooses and tests, beside a search engine that counts words.

    Args:
        splits: Tokenised; for embedders with another tokenizer, the texts are tokenised again.
    """
    return Judge(
        metric="mrr_at_10",
        validate=partial(evaluation.mean_reciprocal_rank, split=splits.validation),
        evaluate=partial(evaluation.evaluate_retrieval, split=splits.test),
        uses=splits.test.queries,
        baselines={"tfidf": partial(baselines.TfidfRetriever.fit, splits.test.documents.texts)},
    )


def judge_by_pairs(
    pairs: Splits, search: RetrievalSplits, *, teacher: TextModel, prefixes: Sequence[int] = ()
) -> Judge:
    """The correlation with the scores of pairs chooses and tests; a search tests what it finds, too.

    Args:
        pairs: With scores.
        search: Not tokenised.
        teacher: Whose tokens the search is cut into.
        prefixes: Numbers of first dimensions, each of which is tested alone, too.
    """

    def evaluate(contenders: Contenders, *, compute: Compute, context: Context) -> Evaluation:
        how: dict[str, Any] = {"compute": compute, "context": context}
        found = evaluation.evaluate_similarity(contenders, pairs.test, prefixes=prefixes, **how)
        task = search.test.tokenize(teacher.tokenizer, max_length=teacher.max_length)
        engine = Contender(baselines.TfidfRetriever.fit(task.documents.texts))  # for searches in place of the scorer
        searched = evaluation.evaluate_retrieval({**contenders, "tfidf": engine}, task, **how)
        return evaluation.with_metrics_of(found, searched)

    return Judge(
        metric="spearman",
        validate=partial(evaluation.rank_correlation, split=pairs.validation),
        evaluate=evaluate,
        uses=pairs.test,
        baselines={"tfidf": partial(baselines.TfidfScorer.fit, pairs.train, num_classes=0)},
    )


def judge_by_scores(scored: Mapping[str, Splits], bitexts: Mapping[str, Split]) -> Judge:
    """The mean of the languages' correlations with scores chooses and tests.

    Args:
        scored: By language, pairs with scores: the same ones in all languages.
        bitexts: By language, sentences with their English translations, which only test; may lack some of the
            languages.
    """
    few = {language: splits.validation.first(VALIDATION_PAIRS) for language, splits in scored.items()}
    tests = {language: splits.test for language, splits in scored.items()}

    def validate(model: TextModel, *, compute: Compute) -> float:
        return float(np.mean([evaluation.rank_correlation(model, split, compute=compute) for split in few.values()]))

    pairs = data.join_splits(splits.train for splits in scored.values())
    return Judge(
        metric="spearman",
        validate=validate,
        evaluate=partial(evaluation.evaluate_languages, splits=tests, bitexts=bitexts),
        uses=data.join_splits(tests.values()),
        baselines={"tfidf": partial(baselines.TfidfScorer.fit, pairs, num_classes=0)},
    )


def judge_by_translations(by_language: Mapping[str, Splits], original: str, bitexts: Mapping[str, Split]) -> Judge:
    """How far up translations find their originals chooses and tests; no baseline without a network does that.

    Args:
        by_language: Validation and test are texts with their originals, as `data.load_translations` gives them.
        original: The language of the originals.
        bitexts: As in `judge_by_scores`.
    """
    translated = {language: splits for language, splits in by_language.items() if language != original}
    few = {language: splits.validation.first(VALIDATION_PAIRS) for language, splits in translated.items()}
    tests = {language: splits.test for language, splits in translated.items()}
    return Judge(
        metric="mrr_at_10",
        validate=partial(evaluation.translation_rank, translations=few),
        evaluate=partial(evaluation.evaluate_translations, translations=tests, bitexts=bitexts),
        uses=replace(data.join_splits(splits.test for splits in by_language.values()), seconds=None),
    )
