"""The steps that recipes share: a recipe says which data, which task, which student and which loss.

The order of steps, what is compared, and what is counted are the same for all of them, so that their reports can be
read side by side. `classifiers` is for labels of texts and words, `embedders` for sentence embeddings; `controls`
are the same students without a teacher.
"""

from smallmodels.distilling.classifiers import (
    STATIC_DIMENSIONS,
    STATIC_SOFT_WEIGHT,
    STATIC_TEMPERATURE,
    STATIC_TRAIN,
    Config,
    LayersConfig,
    Lesson,
    Maker,
    distil_classifier,
    distil_layers,
    in_tokens_of,
    layers_maker,
    losses_of,
    prepare,
    smoke,
    split_options,
    static_maker,
    teach,
    validation_of,
)
from smallmodels.distilling.controls import Training, train_controls
from smallmodels.distilling.embedders import Judge, distil_embedder, learning_of_scores, load_embedding_teacher
from smallmodels.distilling.outcome import Distilled, say_change

__all__ = [
    "STATIC_DIMENSIONS",
    "STATIC_SOFT_WEIGHT",
    "STATIC_TEMPERATURE",
    "STATIC_TRAIN",
    "Config",
    "Distilled",
    "Judge",
    "LayersConfig",
    "Lesson",
    "Maker",
    "Training",
    "distil_classifier",
    "distil_embedder",
    "distil_layers",
    "in_tokens_of",
    "layers_maker",
    "learning_of_scores",
    "load_embedding_teacher",
    "losses_of",
    "prepare",
    "say_change",
    "smoke",
    "split_options",
    "static_maker",
    "teach",
    "train_controls",
    "validation_of",
]
