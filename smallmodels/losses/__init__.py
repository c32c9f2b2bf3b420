"""Pure tensor functions that return one value per target; `fit` sums them and divides once per optimizer step.

One convention for all of them:

- masked targets are already removed, so a mean over the result is a mean over targets;
- the softened loss is multiplied by the squared temperature, once, here and nowhere else;
- half-precision inputs are widened to float32 before anything is summed, under autocast too;
- the teacher's side receives no gradient.

Shapes: N targets (examples or tokens), C classes, V tokens of a vocabulary, K tokens of a stored signal, D dimensions
of an embedding or hidden state, L positions of a text.

`classes` compares logits, `labels` those of labels that do not exclude each other, and scores; `vocabulary` compares
logits of language models without ever holding all of them, `embeddings` embeddings, `contrast` those of classes,
`layers` what an encoder makes of each token on the way.
"""

from smallmodels.losses.classes import (
    DIVERGENCES,
    Divergence,
    cross_entropy,
    jensen_shannon_divergence,
    kl_divergence,
    reverse_kl_divergence,
    skew_kl_divergence,
    skew_reverse_kl_divergence,
    universal_logit_distance,
)
from smallmodels.losses.contrast import supervised_contrastive
from smallmodels.losses.embeddings import (
    cosine_score_error,
    distance_and_pairs,
    embedding_cosine,
    embedding_mse,
    nested_distances_and_pairs,
    pairwise_similarity,
    unit_length,
)
from smallmodels.losses.labels import binary_cross_entropy, binary_kl_divergence, squared_error
from smallmodels.losses.layers import attention_relations, hidden_states_mse, mean_by_text
from smallmodels.losses.vocabulary import (
    OutputLayer,
    TopK,
    by_chunks,
    next_token_cross_entropy,
    next_token_loss,
    next_tokens,
    shifted,
    top_k,
    top_k_by_chunks,
    top_k_distillation_loss,
    top_k_divergence,
    top_k_log_probs,
    top_k_universal_logit_distance,
)

__all__ = [
    "DIVERGENCES",
    "Divergence",
    "OutputLayer",
    "TopK",
    "attention_relations",
    "binary_cross_entropy",
    "binary_kl_divergence",
    "by_chunks",
    "cosine_score_error",
    "cross_entropy",
    "distance_and_pairs",
    "embedding_cosine",
    "embedding_mse",
    "hidden_states_mse",
    "jensen_shannon_divergence",
    "kl_divergence",
    "mean_by_text",
    "nested_distances_and_pairs",
    "next_token_cross_entropy",
    "next_token_loss",
    "next_tokens",
    "pairwise_similarity",
    "reverse_kl_divergence",
    "shifted",
    "skew_kl_divergence",
    "skew_reverse_kl_divergence",
    "squared_error",
    "supervised_contrastive",
    "top_k",
    "top_k_by_chunks",
    "top_k_distillation_loss",
    "top_k_divergence",
    "top_k_log_probs",
    "top_k_universal_logit_distance",
    "unit_length",
    "universal_logit_distance",
]
