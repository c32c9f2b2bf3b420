"""Quality of embedders: do similar texts lie close to each other, and a translation where the original is?

Legend: N pairs, D dimensions of an embedding; Q queries and D documents are the texts of bitexts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from smallmodels import metrics, models, records, sources
from smallmodels.data.splits import Split
from smallmodels.evaluation.contenders import Contender, Contenders, Evaluation, as_contender, plain_result
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context

Floats = npt.NDArray[np.floating[Any]]


def pair_similarities(
    model: TextModel,
    split: Split,
    *,
    num_dimensions: int | None = None,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Floats:
    """Cosine of the embeddings of the two texts of each pair, shape (num_pairs,).

    Args:
        model: An embedder, which cuts the texts into tokens itself.
        split: Of pairs.
        num_dimensions: Compare the first so many alone; None is all.
        compute: Device and number format.
        context: Of the run.
    """
    return _cosines(*_embed_pairs(model, split, compute, context), num_dimensions)


def _embed_pairs(
    model: TextModel, split: Split, compute: Compute | None, context: Context
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    assert split.seconds is not None, "pairs have a second text"
    texts = [*split.texts, *split.seconds]
    embeddings_ND = models.forward_texts(model, texts, compute=compute, context=context)
    return embeddings_ND[: len(split)], embeddings_ND[len(split) :]


def _cosines(one_ND: Floats, two_ND: Floats, num_dimensions: int | None = None) -> Floats:
    one_ND, two_ND = one_ND[:, :num_dimensions], two_ND[:, :num_dimensions]
    lengths = np.linalg.norm(one_ND, axis=1) * np.linalg.norm(two_ND, axis=1)
    return np.asarray((one_ND * two_ND).sum(1) / np.maximum(lengths, 1e-12))


def spearman(model: TextModel, split: Split, *, compute: Compute | None = None) -> float:
    """Spearman's correlation of an embedder's cosines with the scores of a split of pairs."""
    similarities = pair_similarities(model, split, compute=compute)
    return metrics.spearman(similarities, _scores(split), n_bootstrap=1).value


def _scores(split: Split) -> npt.NDArray[Any]:
    assert isinstance(split.labels, np.ndarray), "a score for each pair"
    return split.labels


def evaluate_similarity(
    contenders: Contenders,
    split: Split,
    *,
    prefixes: Sequence[int] = (),
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Spearman's and Pearson's correlation of cosines with scores, with 95 % intervals.

    Args:
        contenders: Embedders, and baselines with `predict(split)`, by role.
        split: Of pairs with scores.
        prefixes: Numbers of first dimensions after which embeddings are cut off as well; a group of each result.
        compute: Device and number format of the models.
        context: Of the run.
    """
    compute = compute or models.choose_compute()
    results: list[records.Result] = []
    predictions: dict[str, list[Any]] = {"id": list(split.ids), "label": _scores(split).tolist()}
    for number, (role, value) in enumerate(contenders.items()):
        contender, groups = as_contender(value), []
        if isinstance(contender.model, TextModel):
            pairs = _embed_pairs(contender.model, split, compute, context)
            similarities = _cosines(*pairs)
            groups = [_prefix_row(pairs, m, split) for m in prefixes if m < pairs[0].shape[1]]
        else:
            similarities = contender.model.predict(split)
        results.append(_result(role, contender, split.name, _correlations(similarities, split), groups))
        predictions[f"{role}/score"] = [round(float(s), 6) for s in similarities]
        context.progress(number + 1, len(contenders))
    return Evaluation(results, predictions)


def _correlations(similarities: Floats, split: Split) -> dict[str, records.Metric]:
    measures = {"spearman": metrics.spearman, "pearson": metrics.pearson}
    return {name: measure(similarities, _scores(split)) for name, measure in measures.items()}


def _prefix_row(pairs: tuple[Floats, Floats], num_dimensions: int, split: Split) -> dict[str, Any]:
    found = metrics.spearman(_cosines(*pairs, num_dimensions), _scores(split))
    return {"group": f"first {num_dimensions} dimensions", "n": found.n, **_cells("spearman", found)}


def _cells(key: str, found: records.Metric) -> dict[str, Any]:
    """A metric as it stands in the row of a group."""
    return {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}


def _result(
    role: str,
    contender: Contender,
    split_name: str,
    measured: Mapping[str, records.Metric],
    groups: list[dict[str, Any]],
) -> records.Result:
    plain = plain_result(role, contender, split_name, measured)
    return records.Result(**{**vars(plain), "groups": groups})


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
        "label": [float(score) for split in splits.values() for score in _scores(split)],
    }
    for number, (role, value) in enumerate(contenders.items()):
        contender = as_contender(value)
        embedder = contender.model if isinstance(contender.model, TextModel) else None
        found = {
            language: contender.model.predict(split)
            if embedder is None
            else pair_similarities(embedder, split, compute=compute, context=context)
            for language, split in splits.items()
        }
        groups = [
            {
                "group": language,
                "n": len(split),
                **_cells("spearman", metrics.spearman(found[language], _scores(split))),
            }
            for language, split in splits.items()
        ]
        of_pairs = _scores(next(iter(splits.values())))
        measured = {"spearman": metrics.mean_spearman(list(found.values()), of_pairs)}
        if embedder is not None and bitexts:
            accuracies = {
                language: bitext_accuracy(embedder, pairs, compute=compute, context=context)
                for language, pairs in bitexts.items()
            }
            for row in groups:
                row.update(_bitext_cells(accuracies.get(row["group"])))
        results.append(_result(role, contender, "test", measured, groups))
        predictions[f"{role}/score"] = [round(float(s), 6) for scores in found.values() for s in scores]
        context.progress(number + 1, len(contenders))
    return Evaluation(results, predictions)


def bitext_accuracy(
    model: TextModel, split: Split, *, compute: Compute | None = None, context: Context = NO_CONTEXT
) -> tuple[records.Metric, records.Metric]:
    """How often the nearest of all second texts is that of the pair, and the nearest of all first texts.

    Source: Artetxe and Schwenk 2019, arXiv:1812.10464, section 4.3.
    """
    one_ND, two_ND = _embed_pairs(model, split, compute, context)
    similarities_QD, own = one_ND @ two_ND.T, np.arange(len(split))
    directions = (similarities_QD, similarities_QD.T)
    there, back = (metrics.mean_with_interval(metrics.reciprocal_ranks(s, own, k=1)) for s in directions)
    return there, back


def _bitext_cells(found: tuple[records.Metric, records.Metric] | None) -> dict[str, Any]:
    if found is None:
        return {}
    there, back = found
    cells = _cells("accuracy_into_english", there) | _cells("accuracy_from_english", back)
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
            "label": float(_scores(split)[i]),
        }
        for i in chosen
    ]
