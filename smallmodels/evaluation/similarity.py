"""Quality of embedders: do similar texts lie close to each other, and a translation where the original is?

Legend: N pairs, D dimensions of an embedding; Q queries and D documents are the texts of bitexts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import metrics, models, records, sources
from smallmodels.data.splits import Split
from smallmodels.evaluation.contenders import Contenders, Evaluation, as_contender, plain_result
from smallmodels.evaluation.groups import metric_cells, with_group_rows
from smallmodels.evaluation.scores import evaluate_scorers, predict_scores, scores_of
from smallmodels.evaluation.vectors import cosines, embed_pairs
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context


def evaluate_similarity(
    contenders: Contenders,
    split: Split,
    *,
    prefixes: Sequence[int] = (),
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """As `evaluate_scorers`, and Spearman's correlation of embeddings that were cut off, a group for each length.

    Args:
        contenders: Embedders, and baselines with `predict(split)`, by role.
        split: Of pairs with scores.
        prefixes: Numbers of first dimensions that are left; those that an embedder has not more of are left out.
        compute: Device and number format of the models.
        context: Of the run.
    """
    compute = compute or models.choose_compute()
    found = evaluate_scorers(contenders, split, compute=compute, context=context)
    results = found.results
    for role, value in contenders.items():
        model = as_contender(value).model
        if prefixes and isinstance(model, TextModel):
            one_ND, two_ND = embed_pairs(model, split, compute, context)
            lengths = [m for m in prefixes if m < one_ND.shape[1]]
            rows = [_prefix_row(cosines(one_ND[:, :m], two_ND[:, :m]), m, split) for m in lengths]
            results = with_group_rows(results, role, rows)
    return replace(found, results=results)


def _prefix_row(similarities: npt.NDArray[Any], num_dimensions: int, split: Split) -> dict[str, Any]:
    found = metrics.spearman(similarities, scores_of(split))
    return {"group": f"first {num_dimensions} dimensions", "n": found.n, **metric_cells("spearman", found)}


# Languages


def evaluate_languages(
    contenders: Contenders,
    splits: Mapping[str, Split],
    bitexts: Mapping[str, Split],
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Spearman's correlation in each language and its mean, and how often a translation is found among all.

    Args:
        contenders: Embedders, and baselines with `predict(split)`, by role; baselines find no translations.
        splits: By language, pairs with scores: the same pairs in all languages.
        bitexts: By language, pairs of a sentence and its English translation; may lack some of the languages.
        compute: Device and number format of the models.
        context: Of the run.

    Returns: Results with a group for each language. Intervals of means are over items, which are the same ones in all
        languages.
    """
    compute = compute or models.choose_compute()
    results: list[records.Result] = []
    predictions: dict[str, list[Any]] = {
        "id": [f"{language}/{row}" for language, split in splits.items() for row in split.ids],
        "label": [float(score) for split in splits.values() for score in scores_of(split)],
    }
    for number, (role, value) in enumerate(contenders.items()):
        contender = as_contender(value)
        found = {name: predict_scores(contender.model, split, compute, context) for name, split in splits.items()}
        of_pairs = scores_of(next(iter(splits.values())))
        measured = {"spearman": metrics.mean_spearman(list(found.values()), of_pairs)}
        groups = [
            {
                "group": name,
                "n": len(split),
                **metric_cells("spearman", metrics.spearman(found[name], scores_of(split))),
            }
            for name, split in splits.items()
        ]
        results = [*results, plain_result(role, contender, "test", measured)]
        results = with_group_rows(results, role, [*groups, *_bitext_rows(contender.model, bitexts, compute)])
        predictions[f"{role}/score"] = [round(float(s), 6) for column in found.values() for s in column]
        context.progress(number + 1, len(contenders))
    return Evaluation(results, predictions)


def evaluate_translations(
    contenders: Contenders,
    translations: Mapping[str, Split],
    bitexts: Mapping[str, Split],
    *,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """How far up a translation finds its original among all originals, where there are no scores to compare with.

    Args:
        contenders: Embedders by role.
        translations: By language, pairs of a text and its original: the same originals in all languages.
        bitexts: As in `evaluate_languages`.
        compute: Device and number format of the models.
        context: Of the run.

    Returns: Mean reciprocal rank at 10 and recall at 1 over all languages, and a group for each. Intervals of means are
        over originals, which are the same ones in all languages.
    """
    compute = compute or models.choose_compute()
    results: list[records.Result] = []
    predictions: dict[str, list[Any]] = {
        "id": [f"{language}/{row}" for language, split in translations.items() for row in split.ids],
        "label": [text for split in translations.values() for text in split.seconds or ()],
    }
    for number, (role, value) in enumerate(contenders.items()):
        contender = as_contender(value)
        ranks = {name: _ranks(contender.model, split, compute, context) for name, split in translations.items()}
        everywhere = _rank_metrics(*ranks.values())
        groups: list[dict[str, Any]] = [
            {"group": name, "n": len(each), **_cells_of(_rank_metrics(each))} for name, each in ranks.items()
        ]
        results = [*results, plain_result(role, contender, "test", everywhere)]
        results = with_group_rows(results, role, [*groups, *_bitext_rows(contender.model, bitexts, compute)])
        predictions[f"{role}/score"] = [round(float(rank), 6) for each in ranks.values() for rank in each]
        context.progress(number + 1, len(contenders))
    return Evaluation(results, predictions)


def translation_rank(model: TextModel, translations: Mapping[str, Split], *, compute: Compute | None = None) -> float:
    """Mean reciprocal rank at 10 of `evaluate_translations`."""
    compute = compute or models.choose_compute()
    return float(np.mean([_ranks(model, split, compute, NO_CONTEXT) for split in translations.values()]))


def _ranks(model: TextModel, split: Split, compute: Compute, context: Context) -> npt.NDArray[np.float64]:
    """Reciprocal rank of the original of each translation, 0 beyond the tenth."""
    queries_QE, documents_DE = embed_pairs(model, split, compute, context)
    return metrics.reciprocal_ranks(queries_QE @ documents_DE.T, np.arange(len(split)), k=10)


def _rank_metrics(*ranks: npt.NDArray[np.float64]) -> dict[str, records.Metric]:
    """Means over languages, of each item at first."""
    return {
        "mrr_at_10": metrics.mean_with_interval(np.mean(ranks, axis=0)),
        "recall_at_1": metrics.mean_with_interval(np.mean([each == 1 for each in ranks], axis=0)),
    }


def _cells_of(found: Mapping[str, records.Metric]) -> dict[str, Any]:
    return {name: cell for key, metric in found.items() for name, cell in metric_cells(key, metric).items()}


def _bitext_rows(model: Any, bitexts: Mapping[str, Split], compute: Compute) -> list[dict[str, Any]]:
    """A row for each language; none for what embeds nothing."""
    if not isinstance(model, TextModel):
        return []
    return [
        {"group": name, **_bitext_cells(*bitext_accuracy(model, pairs, compute=compute))}
        for name, pairs in bitexts.items()
    ]


def bitext_accuracy(
    model: TextModel, split: Split, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> tuple[records.Metric, records.Metric]:
    """How often the nearest of all second texts is that of the pair, and the nearest of all first texts.

    Source: Artetxe and Schwenk 2019, arXiv:1812.10464, section 4.3.
    """
    one_ND, two_ND = embed_pairs(model, split, compute, context)
    similarities_QD, own = one_ND @ two_ND.T, np.arange(len(split))
    directions = (similarities_QD, similarities_QD.T)
    there, back = (metrics.mean_with_interval(metrics.reciprocal_ranks(s, own, k=1)) for s in directions)
    return there, back


def _bitext_cells(there: records.Metric, back: records.Metric) -> dict[str, Any]:
    cells = metric_cells("accuracy_into_english", there) | metric_cells("accuracy_from_english", back)
    return {"num_bitexts": there.n, **cells}


def example_pairs(
    evaluation: Evaluation, split: Split, source: records.Source, *, count: int = 3
) -> list[dict[str, Any]]:
    """Pairs with the student's cosine, spread over the split, for readers to judge; none of a user's own file."""
    if source.license == sources.USER_PROVIDED or split.seconds is None:
        return []
    scores = evaluation.predictions["student/score"]
    chosen = [i * len(split) // count for i in range(min(count, len(split)))]
    return [
        {
            "input": split.texts[i][:300],
            "answers": [{"text": split.seconds[i][:300], "score": scores[i]}],
            "label": float(scores_of(split)[i]),
        }
        for i in chosen
    ]
