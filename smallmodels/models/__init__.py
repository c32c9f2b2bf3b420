"""Load, run, count, adapt and save models.

`loading` reads and writes them, `compute` chooses where and how they run, `forward` runs them without gradients,
`first_token` leaves out what a classifier's head does not read, `static` does without a transformer, `facts` counts,
`adapters` makes them cheap to train.
"""

from smallmodels.models.adapters import add_lora, is_adapted, merge_adapter, require_four_bit
from smallmodels.models.compute import Compute, choose_compute, matmul_rate, pick_device, require_layout
from smallmodels.models.facts import (
    Operations,
    describe,
    num_operations,
    num_parameters,
    size_bytes,
    vocabulary_size,
)
from smallmodels.models.forward import forward_all, forward_targets, forward_texts
from smallmodels.models.fresh import new_language_model, new_language_model_of, new_tokenizer
from smallmodels.models.language_model import LanguageModel, keeps_texts_apart
from smallmodels.models.loading import (
    Embedder,
    Model,
    TextModel,
    embedding_width,
    load_classifier,
    load_embedder,
    load_language_model,
    require_own_tokens,
    seeded,
)
from smallmodels.models.static import (
    StaticClassifier,
    StaticEmbedder,
    backend_of,
    from_numpy,
    is_static,
    plain_tokenizer,
    to_numpy,
)

__all__ = [
    "Compute",
    "Embedder",
    "LanguageModel",
    "Model",
    "Operations",
    "StaticClassifier",
    "StaticEmbedder",
    "TextModel",
    "add_lora",
    "backend_of",
    "choose_compute",
    "describe",
    "embedding_width",
    "forward_all",
    "forward_targets",
    "forward_texts",
    "from_numpy",
    "is_adapted",
    "is_static",
    "keeps_texts_apart",
    "load_classifier",
    "load_embedder",
    "load_language_model",
    "matmul_rate",
    "merge_adapter",
    "new_language_model",
    "new_language_model_of",
    "new_tokenizer",
    "num_operations",
    "num_parameters",
    "pick_device",
    "plain_tokenizer",
    "require_four_bit",
    "require_layout",
    "require_own_tokens",
    "seeded",
    "size_bytes",
    "to_numpy",
    "vocabulary_size",
]
