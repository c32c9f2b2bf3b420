"""Quality of embedders and search engines: the right document for a query.

Legend: Q queries, D documents, E dimensions of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from smallmodels import files, metrics, models, records
from smallmodels.data.splits import RetrievalSplit, Split
from smallmodels.evaluation.contenders import Contender, Contenders, Evaluation, as_contender, forward
from smallmodels.models import Compute, TextModel
from smallmodels.phases import NO_CONTEXT, Context


def evaluate_retrieval(
    contenders: Contenders,
    split: RetrievalSplit,
    *,
    k: int = 10,
    compute: Compute | None = None,
    context: Context = NO_CONTEXT,
) -> Evaluation:
    """Mean reciprocal rank at `k` and recall at 1 and `k` with 95 % intervals; agreement with the teacher's first hit.

    Args:
        contenders: Embedders and retrievers by role.
        split: Tokenised; for embedders with another tokenizer, the texts are tokenised again.
        k: Depth of the list that counts.
        compute: Device and number format of the models.
        context: Of the run.
    """
    compute = compute or models.choose_compute()
    ranks: dict[str, npt.NDArray[np.float64]] = {}
    first: dict[str, npt.NDArray[np.int64]] = {}
    for number, (role, value) in enumerate(contenders.items()):
        similarities_QD = _similarities(as_contender(value).model, split, compute, context)
        ranks[role] = metrics.reciprocal_ranks(similarities_QD, split.relevant, k=k)
        first[role] = similarities_QD.argmax(1)
        context.progress(number + 1, len(contenders))
    results: list[records.Result] = []
    relevant = [split.documents.ids[i] for i in split.relevant]
    predictions: dict[str, list[Any]] = {"id": list(split.queries.ids), "label": relevant}
    for role, value in contenders.items():
        agree = metrics.agreement(first[role], first["teacher"]) if "teacher" in first and role != "teacher" else None
        results.append(_retrieval_result(role, as_contender(value), split, ranks[role], k, agree))
        predictions[f"{role}/prediction"] = [split.documents.ids[i] for i in first[role]]
        predictions[f"{role}/score"] = [round(float(r), 6) for r in ranks[role]]
    return Evaluation(results, predictions)


def _similarities(model: Any, split: RetrievalSplit, compute: Compute, context: Context) -> npt.NDArray[Any]:
    if isinstance(model, TextModel):
        queries_QE = forward(model, split.queries, compute, context)
        documents_DE = forward(model, split.documents, compute, context)
        return np.asarray(queries_QE @ documents_DE.T)
    return np.asarray(model.similarities(split.queries.texts))


def _retrieval_result(
    role: str,
    contender: Contender,
    split: RetrievalSplit,
    ranks: npt.NDArray[np.float64],
    k: int,
    agreement: records.Metric | None,
) -> records.Result:
    return records.Result(
        role=role,
        split=split.name,
        metrics={
            f"mrr_at_{k}": metrics.mean_with_interval(ranks),
            "recall_at_1": metrics.mean_with_interval((ranks == 1).astype(np.float64)),
            f"recall_at_{k}": metrics.mean_with_interval((ranks > 0).astype(np.float64)),
        },
        per_class=[],
        agreement=agreement,
        calibration_error=None,
        built_by=list(contender.built_by),
        teacher_phases=list(contender.teacher_phases),
    )


def mean_reciprocal_rank(
    model: TextModel, split: RetrievalSplit, *, k: int = 10, compute: Compute | None = None
) -> float:
    """MRR at `k` of an embedder on a tokenised split."""
    similarities_QD = _similarities(model, split, compute or models.choose_compute(), NO_CONTEXT)
    return float(metrics.reciprocal_ranks(similarities_QD, split.relevant, k=k).mean())


@dataclass(frozen=True)
class Hit:
    """A document that fits a question, with its cosine similarity."""

    id: str
    text: str
    score: float


@dataclass(frozen=True)
class SearchIndex:
    """Documents with their embeddings, to answer questions by nearest neighbour."""

    ids: list[str]
    texts: list[str]
    embeddings_DE: npt.NDArray[np.float32]

    @classmethod
    def build(
        cls, model: TextModel, documents: Split, *, compute: Compute | None = None, context: Context = NO_CONTEXT
    ) -> "SearchIndex":
        """Embed documents with a trained embedder."""
        embeddings_DE = models.forward_texts(model, documents.texts, compute=compute, context=context)
        return cls(list(documents.ids), list(documents.texts), embeddings_DE)

    def search(self, model: TextModel, question: str, *, top: int = 5, compute: Compute | None = None) -> list[Hit]:
        """The documents nearest to a question, best first."""
        scores = self.embeddings_DE @ models.forward_texts(model, [question], compute=compute)[0]
        best = np.argsort(-scores, kind="stable")[:top]
        return [Hit(self.ids[i], self.texts[i], float(scores[i])) for i in best]

    def save(self, folder: Path) -> None:
        """Write embeddings and documents."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"embeddings": self.embeddings_DE}, folder / "embeddings.safetensors")
        files.write_json(folder / "documents.json", {"ids": self.ids, "texts": self.texts})

    @classmethod
    def load(cls, folder: Path) -> "SearchIndex":
        """Read what `save` wrote."""
        documents = files.read_json(folder / "documents.json")
        return cls(documents["ids"], documents["texts"], load_file(folder / "embeddings.safetensors")["embeddings"])


def example_answers(
    model: TextModel, index: "SearchIndex", questions: Sequence[str], *, top: int = 3, compute: Compute | None = None
) -> list[dict[str, Any]]:
    """Questions with the documents that the student finds."""
    hits = {question: index.search(model, question, top=top, compute=compute) for question in questions}
    return [
        {"input": question, "answers": [{"id": h.id, "text": h.text, "score": round(h.score, 4)} for h in found]}
        for question, found in hits.items()
    ]
