"""The steps that recipes share: a recipe says which data, which task, which student and which loss.

The order of steps, what is compared, and what is counted are the same for all of them, so that their reports can be
read side by side. `classifiers` is for labels of texts and words, `few_shots` for the few labels that somebody has,
`embedders` for sentence embeddings, whose texts are in `embedding_texts` and `translations` and which `judges` compare,
`answers` for language models that answer prompts; `controls` are the same students without a teacher.
"""

from smallmodels.distilling.answers import AnswerRows, compare_answers, cut_answers, num_cut
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
from smallmodels.distilling.controls import Training, train_control, train_controls, train_with_controls
from smallmodels.distilling.embedders import (
    EmbedderConfig,
    distil_embedder,
    learning_of_scores,
    load_embedding_teacher,
)
from smallmodels.distilling.embedding_texts import EmbeddingTexts, TextsConfig, load_embedding_texts
from smallmodels.distilling.few_shots import distil_shots, load_shots
from smallmodels.distilling.judges import (
    Judge,
    judge_by_pairs,
    judge_by_scores,
    judge_by_search,
    judge_by_translations,
)
from smallmodels.distilling.outcome import Distilled, compare_classifiers, say_change, teacher_on_validation
from smallmodels.distilling.translations import (
    Translations,
    TranslationsConfig,
    load_translations,
    with_language_costs,
)

__all__ = [
    "STATIC_DIMENSIONS",
    "STATIC_SOFT_WEIGHT",
    "STATIC_TEMPERATURE",
    "STATIC_TRAIN",
    "AnswerRows",
    "Config",
    "Distilled",
    "EmbedderConfig",
    "EmbeddingTexts",
    "Judge",
    "LayersConfig",
    "Lesson",
    "Maker",
    "TextsConfig",
    "Training",
    "Translations",
    "TranslationsConfig",
    "compare_answers",
    "compare_classifiers",
    "cut_answers",
    "distil_classifier",
    "distil_embedder",
    "distil_layers",
    "distil_shots",
    "in_tokens_of",
    "judge_by_pairs",
    "judge_by_scores",
    "judge_by_search",
    "judge_by_translations",
    "layers_maker",
    "learning_of_scores",
    "load_embedding_teacher",
    "load_embedding_texts",
    "load_shots",
    "load_translations",
    "losses_of",
    "num_cut",
    "prepare",
    "say_change",
    "smoke",
    "split_options",
    "static_maker",
    "teach",
    "teacher_on_validation",
    "train_control",
    "train_controls",
    "train_with_controls",
    "validation_of",
    "with_language_costs",
]
