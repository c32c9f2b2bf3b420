"""What a student must beat: the most frequent answer, and TF-IDF with a linear model or as a search engine.

The fitted objects are small, predict without torch, and are saved as safetensors and JSON. Each has
`predict_proba(texts)` for labels, `similarities(queries)` for retrieval, or `predict(split)` for words and pairs.
"""

from smallmodels.baselines.classes import MajorityClassifier, TfidfClassifier
from smallmodels.baselines.labels import TfidfLabels
from smallmodels.baselines.retrieval import TfidfRetriever
from smallmodels.baselines.scores import TfidfScorer
from smallmodels.baselines.terms import Terms
from smallmodels.baselines.words import WordTagger

__all__ = [
    "MajorityClassifier",
    "Terms",
    "TfidfClassifier",
    "TfidfLabels",
    "TfidfRetriever",
    "TfidfScorer",
    "WordTagger",
]
