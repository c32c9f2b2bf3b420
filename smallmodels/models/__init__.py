"""Load, run, count, adapt and save models.

`loading` reads and writes them, `compute` chooses where and how they run, `forward` runs them without gradients,
`first_token` leaves out what a classifier's head does not read, `static` does without a transformer, `facts` counts,
`adapters` makes them cheap to train, `encoders` looks inside their layers.
"""

from smallmodels.models.adapters import Adapter, adapter_of, add_lora, is_adapted, merge_adapter, require_four_bit
from smallmodels.models.compute import Compute, choose_compute, matmul_rate, pick_device, require_layout
from smallmodels.models.encoders import (
    Family,
    encoder_family,
    find_layers,
    layer_of,
    layers_of,
    tied_layers,
    watch_heads,
    watch_states,
)
from smallmodels.models.facts import (
    Operations,
    describe,
    num_operations,
    num_parameters,
    size_bytes,
    vocabulary_size,
)
from smallmodels.models.first_token import compute_every_token
from smallmodels.models.forward import forward_all, forward_targets, forward_texts, forward_words, passes_in_part
from smallmodels.models.fresh import byte_level_bpe, new_language_model, new_language_model_of, new_tokenizer
from smallmodels.models.language_model import LanguageModel, keeps_texts_apart
from smallmodels.models.loading import (
    Embedder,
    Model,
    Problem,
    TextModel,
    embedding_width,
    is_token_classifier,
    load_classifier,
    load_embedder,
    load_language_model,
    load_token_classifier,
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
    "Adapter",
    "Compute",
    "Embedder",
    "Family",
    "LanguageModel",
    "Model",
    "Operations",
    "Problem",
    "StaticClassifier",
    "StaticEmbedder",
    "TextModel",
    "adapter_of",
    "add_lora",
    "backend_of",
    "byte_level_bpe",
    "choose_compute",
    "compute_every_token",
    "describe",
    "embedding_width",
    "encoder_family",
    "find_layers",
    "forward_all",
    "forward_targets",
    "forward_texts",
    "forward_words",
    "from_numpy",
    "is_adapted",
    "is_static",
    "is_token_classifier",
    "keeps_texts_apart",
    "layer_of",
    "layers_of",
    "load_classifier",
    "load_embedder",
    "load_language_model",
    "load_token_classifier",
    "matmul_rate",
    "merge_adapter",
    "new_language_model",
    "new_language_model_of",
    "new_tokenizer",
    "num_operations",
    "num_parameters",
    "passes_in_part",
    "pick_device",
    "plain_tokenizer",
    "require_four_bit",
    "require_layout",
    "require_own_tokens",
    "seeded",
    "size_bytes",
    "tied_layers",
    "to_numpy",
    "vocabulary_size",
    "watch_heads",
    "watch_states",
]
