"""Small splits, models and losses that several test files share."""

import numpy as np
import torch

from smallmodels import evaluation, models
from smallmodels.data.splits import RetrievalSplit, Split
from smallmodels.models import Compute

FP32 = Compute(device="cpu", number_format="fp32", num_threads=1, operations_per_s=1e9)
BF16 = Compute(device="cpu", number_format="bf16", num_threads=1, operations_per_s=1e9)
LABELS = ["bank", "film", "file"]
TOPICS = [
    "i want to know how my card works when the bank lost it",
    "what a good film and what awful music",
    "open the file and return its lines",
]
WORDS = ["please", "help", "me", "read", "write", "close", "names", "time", "day", "where", "why", "can", "you"]


def texts(count, *, seed=0):
    """Texts of 6 to 22 words, in turn about each of three topics; no two of 169 are equal, as texts or as tokens."""
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        topic = TOPICS[i % 3].split()[: generator.integers(3, 12)]
        number = [WORDS[place % len(WORDS)] for place in (seed, i // len(WORDS), i)]
        rows.append(" ".join([*topic, *generator.choice(WORDS, generator.integers(0, 9)), *number]))
    return rows


def split(tokenizer, count=24, *, name="train", seed=0, max_length=32):
    """A tokenised split with three classes."""
    rows = texts(count, seed=seed)
    labels = np.arange(count, dtype=np.int64) % 3
    plain = Split(name, [f"{name}/{i}" for i in range(count)], rows, labels)
    return plain.tokenize(tokenizer, max_length=max_length)


def retrieval_split(tokenizer, count=8, *, max_length=32):
    """Queries that are the first words of their documents."""
    documents = split(tokenizer, count, name="document", max_length=max_length)
    queries = Split(
        "query", [f"query/{i}" for i in range(count)], [" ".join(text.split()[:4]) for text in documents.texts]
    )
    return RetrievalSplit(
        "test", queries.tokenize(tokenizer, max_length=max_length), documents, np.arange(count, dtype=np.int64)
    )


def classifier(folder, *, seed=0):
    """The tiny model with a new head for `LABELS`."""
    model, _, _ = models.load_classifier(str(folder), LABELS, max_length=32, seed=seed)
    return model


def embedder(folder):
    """The tiny model as a sentence embedder."""
    model, _ = models.load_embedder(str(folder), max_length=32)
    return model


def cross_entropy(model, batch):
    """One value per example."""
    return torch.nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels, reduction="none")


def probabilities(model, rows, **options):
    """What a classifier says of texts, as a row for each and a column for each label."""
    answers = evaluation.answer_texts(model, rows, compute=FP32, **options)
    names = evaluation.label_names(model)
    return np.array([[{a.label: a.score for a in found}[name] for name in names] for found in answers])


def weights(model):
    """A copy of all weights by name."""
    return {name: tensor.detach().clone() for name, tensor in model.model.state_dict().items()}


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


class Events:
    """Collects what a phase reports through its context."""

    def __init__(self):
        self.rows = []

    def __call__(self, kind, message, **details):
        self.rows.append((kind, message, details))

    @property
    def kinds(self):
        return [kind for kind, _, _ in self.rows]
