"""What a teacher gives a student: stored signals, written answers, and fine-tuned teachers that several runs share.

Both live in the cache folder, addressed by what changes them, with the joules that made them. Using an entry again
costs nothing now and still owes its share.

`signals` is what was stored and how it reaches a batch, `storing` makes it in one pass that survives a kill, `tuning`
fine-tunes teachers, `writing` lets them answer, `whole` keeps what comes of both in one piece, `heads` makes
classifiers of embedders, `addresses` says what makes a model give what it gives, `inside` has losses for which a
teacher runs along.
"""

from smallmodels.teachers.heads import EmbeddingClassifier, LinearHead, fit_head, with_head
from smallmodels.teachers.inside import AttentionRelationsLoss, HiddenStatesLoss, LiveEncoder
from smallmodels.teachers.signals import (
    LiveTeacher,
    LiveTopK,
    Packing,
    PairedSignals,
    Signals,
    TokenSignals,
    input_hashes,
)
from smallmodels.teachers.storing import (
    require_space,
    require_space_for_tokens,
    store_signals,
    store_token_signals,
)
from smallmodels.teachers.tuning import fine_tune
from smallmodels.teachers.writing import write_answers

__all__ = [
    "AttentionRelationsLoss",
    "EmbeddingClassifier",
    "HiddenStatesLoss",
    "LinearHead",
    "LiveEncoder",
    "LiveTeacher",
    "LiveTopK",
    "Packing",
    "PairedSignals",
    "Signals",
    "TokenSignals",
    "fine_tune",
    "fit_head",
    "input_hashes",
    "require_space",
    "require_space_for_tokens",
    "store_signals",
    "store_token_signals",
    "with_head",
    "write_answers",
]
