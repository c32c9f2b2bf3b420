"""Parts of the test items that are measured on their own, such as languages: what the same model costs on each."""

import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from smallmodels import metrics, models, records
from smallmodels.data.splits import Split, tokenize
from smallmodels.evaluation.contenders import Evaluation
from smallmodels.evaluation.inference import measure_inference
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context

_UNCUT = 1 << 20
"""More tokens than a text has: how a tokenizer cuts words must not depend on where texts are cut off."""
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u309f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai and Lao, Burmese, Khmer, Hiragana, Han: written without spaces between words."""


def language_costs(
    model: TextModel,
    splits_by_language: Mapping[str, Split],
    *,
    protocol: Literal["indicative", "smoke"] | None = None,
    window_s: float = 1.0,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> list[dict[str, Any]]:
    """How many tokens a model makes of each language's words, and what it takes to read a thousand texts.

    Args:
        model: Of any kind; costs are those of a use, tokenising included.
        splits_by_language: Typical texts. Only translations of the same texts tell languages apart and not topics.
        protocol: As in `measure_inference`; where the run has `full`, which is for models and not for languages, it is
            `indicative`.
        window_s: Likewise.
        compute: Device and number format.
        context: Of the run.

    Returns: For each language `group`, `tokens_per_text` and `tokens_per_word` without the tokens around a text,
        `unknown_fraction`, the share of these that stand for what the tokenizer does not know (a script that it cannot
        read takes few tokens, all of them alike), `energy_wh_per_1000` (None where unknown) with its `energy_label`,
        and `cpu_s_per_1000`.
    """
    compute = compute or models.choose_compute()
    protocol = protocol or ("smoke" if context.inference_protocol == "smoke" else "indicative")
    rows = []
    for language, split in splits_by_language.items():
        (use,) = measure_inference(
            {language: model}, split, protocol=protocol, window_s=window_s, compute=compute, context=context
        ).inference
        joules = use.energy_j_per_1000
        rows.append(
            {
                "group": language,
                **_token_counts(model, split),
                "energy_wh_per_1000": None if joules is None else joules / 3600,
                "energy_label": use.label,
                "cpu_s_per_1000": use.cpu_s_per_1000,
            }
        )
    return rows


def by_group(found: Evaluation, groups: Sequence[str], metric: str) -> Evaluation:
    """The same with the share of right answers in each group, and of the worst group and the spread.

    Args:
        found: Of `evaluate_classifiers`.
        groups: One name for each test item, such as its language.
        metric: Name of that share in `found`: `accuracy`.

    Returns: Results with `groups`, and with `worst_group_accuracy` and `spread_of_groups` (the best group's share minus
        the worst one's) among their metrics, here without an interval.
    """
    labels, results = np.asarray(found.predictions["label"]), []
    for result in found.results:
        is_right = np.asarray(found.predictions[f"{result.role}/prediction"]) == labels
        of_groups = metrics.per_group(is_right.astype(np.float64), groups)
        compared = metrics.compare_groups(of_groups)
        rows = [{"group": name, "n": m.n, **metric_cells(metric, m)} for name, m in of_groups.items()]
        worst, count = of_groups[compared.worst], len(of_groups)
        more = {
            f"worst_group_{metric}": worst,
            "spread_of_groups": records.Metric(value=compared.spread, low=None, high=None, n=count),
        }
        results.append(dataclasses.replace(result, metrics={**result.metrics, **more}, groups=rows))
    return dataclasses.replace(found, results=results)


def metric_cells(key: str, found: records.Metric) -> dict[str, Any]:
    """A metric as it stands in the row of a group: its value, and its interval as `…_low` and `…_high`."""
    return {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}


def with_group_rows(
    results: Sequence[records.Result], role: str, rows: Sequence[Mapping[str, Any]]
) -> list[records.Result]:
    """The results with more known of the groups of one role, such as costs, and with groups that are new to it."""
    return [dataclasses.replace(r, groups=_merged([*r.groups, *rows])) if r.role == role else r for r in results]


def _merged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each group, with all that is known of it."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(str(row["group"]), {}).update(row)
    return list(found.values())


def _token_counts(model: TextModel, split: Split) -> dict[str, float | None]:
    texts = split.whole_texts
    around = model.tokenizer.num_special_tokens_to_add()
    tokens = tokenize(texts, model.tokenizer, max_length=_UNCUT)
    num_tokens = int(tokens.lengths.sum()) - around * len(texts)
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    num_unknown = 0 if unknown is None else int((np.asarray(tokens.ids) == unknown).sum())
    words = sum(map(num_words, texts))
    return {
        "tokens_per_text": num_tokens / len(texts),
        "tokens_per_word": num_tokens / words if words else None,
        "unknown_fraction": num_unknown / num_tokens if num_tokens else None,
    }


def num_words(text: str) -> int:
    """Words of a text in any script; where words are not separated, every character counts as one.

    Source: Unicode Standard Annex #29, section 4, in its default form, which has no dictionaries.
    """
    count, inside = 0, False
    for character in text:
        kind = unicodedata.category(character)[0]
        if kind == "M" or (inside and character in "'’"):  # part of the word that it stands in
            continue
        is_letter = kind in "LN"
        is_alone = is_letter and _UNSPACED.match(character) is not None
        count += is_letter and (is_alone or not inside)
        inside = is_letter and not is_alone
    return count
