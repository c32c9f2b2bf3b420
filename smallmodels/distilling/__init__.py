"""The steps that recipes share: a recipe says which data, which task, which student and which loss.

The order of steps, what is compared, and what is counted are the same for all of them, so that their reports can be
read side by side. `classifiers` is for labels of texts and words, `embedders` for sentence embeddings.
"""

from smallmodels.distilling.classifiers import (
    Config,
    LayersConfig,
    Maker,
    distil_classifier,
    distil_layers,
    smoke,
    split_options,
)
from smallmodels.distilling.embedders import Judge, distil_embedder, load_embedding_teacher
from smallmodels.distilling.outcome import Distilled

__all__ = [
    "Config",
    "Distilled",
    "Judge",
    "LayersConfig",
    "Maker",
    "distil_classifier",
    "distil_embedder",
    "distil_layers",
    "load_embedding_teacher",
    "smoke",
    "split_options",
]
