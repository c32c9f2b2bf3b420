"""Load models from the hub, a package or a folder; safetensors only, and no code that comes with them.

Legend: N examples, L tokens, D dimensions of a vector.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from smallmodels import files, sources, static
from smallmodels.data.splits import Tokens, tokenizer_sha256
from smallmodels.errors import DamagedError, InputError
from smallmodels.models.language_model import LanguageModel, require_known_output
from smallmodels.models.static import backend_of, from_numpy, is_static, to_numpy, with_backend

_NOTES_NAME = "smallmodels.json"

Problem: TypeAlias = Literal["single_label_classification", "multi_label_classification", "regression"]

Pooling: TypeAlias = Literal["mean", "cls", "max"]

Activation: TypeAlias = Literal["identity", "tanh"]

Model: TypeAlias = nn.Module
"""What `loss_fn` is given: call it with `model(**batch.inputs)`."""


class Dense(nn.Linear):
    """A linear layer behind the pooling of an embedder, with or without Tanh on what it gives."""

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, activation: Activation = "identity"
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.activation = activation

    def forward(self, vectors_ND: Tensor) -> Tensor:
        """Vectors of the other width."""
        values = super().forward(vectors_ND)
        return values.tanh() if self.activation == "tanh" else values


def projection_of(layers: Sequence[Dense]) -> Dense | nn.Sequential | None:
    """Dense layers, the first one first, as an `Embedder` takes them."""
    return nn.Sequential(*layers) if len(layers) > 1 else next(iter(layers), None)


class Embedder(nn.Module):
    """A transformer whose token vectors become one, which is projected if there is a projection, and of length 1.

    Args:
        transformer: Gives a vector for each token.
        projection: From its width to that of the embeddings; see `projection_of`.
        pooling: `mean` of the vectors of all tokens, that of the first one, `cls`, or the greatest value that any of
            them has in each dimension, `max`.

    Source: Reimers and Gurevych 2019, arXiv:1908.10084, section 3.
    """

    def __init__(
        self,
        transformer: PreTrainedModel,
        projection: Dense | nn.Sequential | None = None,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.projection = projection
        self.pooling = pooling

    @property
    def config(self) -> Any:
        """The transformer's config."""
        return self.transformer.config

    @property
    def dense_layers(self) -> list[Dense]:
        """Of the projection, the first one first."""
        return [] if self.projection is None else [m for m in self.projection.modules() if isinstance(m, Dense)]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embeddings of shape (N, D), float32, from ids and mask of shape (N, L)."""
        states_NLD = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        pooled_ND = self._pool(states_NLD, attention_mask.unsqueeze(-1))
        vectors_ND = pooled_ND if self.projection is None else self.projection(pooled_ND).float()
        return nn.functional.normalize(vectors_ND, dim=-1)

    def _pool(self, states_NLD: Tensor, mask_NL1: Tensor) -> Tensor:
        if self.pooling == "cls":
            return states_NLD[:, 0]
        if self.pooling == "max":
            return states_NLD.masked_fill(mask_NL1 == 0, torch.finfo(states_NLD.dtype).min).amax(1)
        weights_NL1 = mask_NL1.to(states_NLD.dtype)
        return (states_NLD * weights_NL1).sum(1) / weights_NL1.sum(1).clamp(min=1e-9)


@dataclass
class TextModel:
    """A model with its tokenizer, and notes on how it came to be; a teacher or a student."""

    model: nn.Module
    """A sequence or token classifier of transformers, an `Embedder`, a `LanguageModel`, or one of `models.static`."""
    tokenizer: PreTrainedTokenizerBase
    notes: dict[str, Any] = field(default_factory=dict)
    """JSON-able: `base_model`, `layers`, …"""
    max_length: int = 128
    """Tokens after which a text is cut."""

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), config and tokenizer, readable by transformers.

        An embedder is readable by sentence-transformers as well, and a static model only by those that read its kind.
        """
        if is_static(self.model):
            to_numpy(self).save(folder)
            return
        folder.mkdir(parents=True, exist_ok=True)
        with quiet_transformers():
            self.transformer.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if isinstance(self.model, Embedder):
            _write_sentence_transformers_files(folder, self.model, self.max_length)
        about = {"kind": _kind(self.model), "max_length": self.max_length, "notes": self.notes}
        files.write_json(folder / _NOTES_NAME, about)

    @classmethod
    def load(cls, folder: Path) -> "TextModel":
        """Read what `save` wrote; float32, in evaluation mode, no code from the folder."""
        about = files.read_json(folder / _NOTES_NAME)
        if about["kind"] == static.KIND:
            return cls(*from_numpy(static.StaticModel.load(folder)), about["notes"], about["max_length"])
        auto, wrapper = _KINDS[about["kind"]]
        model, tokenizer = _from_folder(auto, folder, may_lack=_MAY_LACK.get(about["kind"], ()))
        wrapped: nn.Module = wrapper(model) if wrapper else model
        if isinstance(wrapped, Embedder):
            wrapped.projection = projection_of(_read_dense_layers(folder, folder.name))
            wrapped.pooling = _read_pooling(folder, folder.name)
        return cls(wrapped.eval(), tokenizer, about["notes"], about["max_length"])

    @property
    def transformer(self) -> Any:
        """The model of transformers, without our wrapper."""
        return self.model.transformer if isinstance(self.model, (Embedder, LanguageModel)) else self.model

    def copy(self) -> "TextModel":
        """A deep copy of the weights; the tokenizer is shared."""
        import copy

        return TextModel(copy.deepcopy(self.model), self.tokenizer, dict(self.notes), self.max_length)

    def weights_sha256(self) -> str:
        """SHA-256 over the names, formats, shapes and bytes of all weights."""
        parts = [
            f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:{files.sha256_bytes(_tensor_bytes(tensor))}"
            for name, tensor in sorted(self.model.state_dict().items())
        ]
        return files.sha256_json(parts)


_KINDS: dict[str, tuple[Any, type[nn.Module] | None]] = {
    "classifier": (AutoModelForSequenceClassification, None),
    "token_classifier": (AutoModelForTokenClassification, None),
    "embedder": (AutoModel, Embedder),
    "language_model": (AutoModelForCausalLM, LanguageModel),
}
"""What loads a model of each kind, and what we wrap it in."""


def _kind(model: nn.Module) -> str:
    wrapped = next((name for name, (_, wrapper) in _KINDS.items() if wrapper and isinstance(model, wrapper)), None)
    return wrapped or ("token_classifier" if is_token_classifier(model) else "classifier")


def is_token_classifier(model: nn.Module) -> bool:
    """Whether a model gives logits for each token of a text."""
    bare: Any = getattr(model, "get_base_model", lambda: model)()  # within adapters
    return type(bare).__name__.endswith(_TOKEN_HEAD)


def _tensor_bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


_ACTIVATIONS: dict[Activation, str] = {
    "identity": "torch.nn.modules.linear.Identity",
    "tanh": "torch.nn.modules.activation.Tanh",
}
_POOLING_KEYS: dict[Pooling, str] = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
}
_READABLE = ("Transformer", "Pooling", "Dense", "Normalize")
"""Modules of sentence-transformers that an `Embedder` has, in this order."""


def _write_sentence_transformers_files(folder: Path, embedder: Embedder, max_length: int) -> None:
    """What `SentenceTransformer(folder)` reads beside the transformer: a list of modules and their settings."""
    dense = embedder.dense_layers
    kinds = ["Transformer", "Pooling", *("Dense" for _ in dense), "Normalize"]
    paths = ["", *(f"{place}_{kind}" for place, kind in enumerate(kinds) if place)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    files.write_json(folder / "modules.json", modules)
    files.write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    for path in paths:
        (folder / path).mkdir(exist_ok=True)
    pooling: dict[str, Any] = {"word_embedding_dimension": int(embedder.config.hidden_size)}
    pooling |= {key: embedder.pooling == name for name, key in _POOLING_KEYS.items()}
    files.write_json(folder / "1_Pooling" / "config.json", pooling)
    files.write_json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    for path, layer in zip(paths[2:], dense, strict=False):  # Normalize is the last, and has no files
        settings: dict[str, Any] = {"in_features": layer.in_features, "out_features": layer.out_features}
        settings |= {"bias": layer.bias is not None, "activation_function": _ACTIVATIONS[layer.activation]}
        files.write_json(folder / path / "config.json", settings)
        weights = {f"linear.{name}": tensor.contiguous() for name, tensor in layer.state_dict().items()}
        save_file(weights, folder / path / "model.safetensors", metadata={"format": "pt"})


def _require_no_prompt(folder: Path, name: str) -> None:
    """Refuse a model of sentence-transformers that puts words before every text, which is not done here.

    Raises: InputError.
    """
    path = folder / "config_sentence_transformers.json"
    settings = files.read_json(path) if path.is_file() else {}
    if prompt := (settings.get("prompts") or {}).get(settings.get("default_prompt_name")):
        raise InputError(
            f"{name} should embed texts as they are, but puts {prompt!r} before each of them, which is not done here: "
            "choose another model"
        )


def _read_dense_layers(folder: Path, name: str) -> list[Dense]:
    """The dense layers of a model of sentence-transformers, the first one first.

    Raises:
        InputError: It has a module that an `Embedder` cannot have, or one at another place.
        DamagedError: Weights are missing or do not fit their settings.
    """
    path = folder / "modules.json"
    modules = json.loads(path.read_text()) if path.is_file() else []
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if odd := [kind for kind in kinds if kind not in _READABLE]:
        raise InputError(f"{name} should embed by {', '.join(_READABLE)}, found {odd[0]}: choose another model")
    if kinds != sorted(kinds, key=_READABLE.index):
        raise InputError(
            f"{name} should embed by {', '.join(_READABLE)} in this order, found {', '.join(kinds)}: choose another "
            "model"
        )
    paths = [module["path"] for module, kind in zip(modules, kinds, strict=True) if kind == "Dense"]
    return [_read_dense_layer(folder / path, name) for path in paths]


def _read_dense_layer(folder: Path, name: str) -> Dense:
    settings = files.read_json(folder / "config.json")
    activation = settings.get("activation_function", _ACTIVATIONS["tanh"])  # their default
    known = next((kind for kind, path in _ACTIVATIONS.items() if path == activation), None)
    is_of_texts = settings.get("module_input_name", "sentence_embedding") == "sentence_embedding"
    if known is None or not is_of_texts or settings.get("use_residual"):
        found = activation if known is None else "a residual" if is_of_texts else "vectors of tokens"
        raise InputError(
            f"{name} should have dense layers behind the pooling that are linear or end with Tanh, found one with "
            f"{found}: choose another model"
        )
    try:
        weights = load_file(folder / "model.safetensors")
        sizes = settings["in_features"], settings["out_features"]
        layer = Dense(*sizes, bias=bool(settings.get("bias", True)), activation=known)
        layer.load_state_dict({key.removeprefix("linear."): tensor.float() for key, tensor in weights.items()})
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DamagedError(
            f"{name} should hold the weights of its dense layer, but {reason}: fetch the model again"
        ) from error
    return layer


_HEADS = {"ForSequenceClassification": "classifier", "ForTokenClassification": "token_classifier"}
"""Ends of the names of classes that give logits of classes, and our kinds."""
_TOKEN_HEAD = "ForTokenClassification"

_UNUSED = ("pooler.",)
"""Weights that an embedder may lack, because it does not use them."""
_MAY_LACK = {"embedder": _UNUSED, "language_model": ("lm_head.",)}
"""By kind; an output layer that shares the token table is not in the file."""
_HEAD = ("classifier.", "score.", "pre_classifier.", "pooler.")
"""Weights that a base model may lack, because they are new in a classifier."""
_NOT_USED = ("pooler.", "position_ids")
"""Weights that any model may have too many."""
_OTHER_HEADS = (
    *(
        "cls.",
        "lm_head.",
        "classifier.",
        "pre_classifier.",
        "score.",
        "qa_outputs.",
        "predictions.",
        "head.",
        "decoder.",
    ),
    *("vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "lm_predictions.", "mask_predictions."),
    *("discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
)
"""Beginnings of weights that a base model may have too many: of the heads that it was trained with."""
_SPARE_ROWS = 512
"""Rows of the token table that may belong to no token: tables are padded to even sizes."""


def _from_folder(
    auto: Any, folder: Path, *, may_lack: Sequence[str], may_have: Sequence[str] = (), seed: int = 0, **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load weights and tokenizer from a local folder: safetensors only, no code, weights that it may lack seeded."""
    sources.check_folder(folder)
    try:
        with seeded(seed), quiet_transformers():
            model, info = auto.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, in a sentence that names them
                **options,
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except SafetensorError as error:
        raise DamagedError(f"{folder.name} should hold whole weights, but {error}: fetch the model again") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{folder.name} should be a model that transformers can load, but: {reason}: choose another model"
        ) from error
    wrong = sorted(m for m in info["mismatched_keys"] if not any(part in m[0] for part in may_lack))
    if wrong:
        key, found, expected = wrong[0]
        raise DamagedError(
            f"{folder.name} should hold {key} of shape {tuple(expected)}, as its config says, found {tuple(found)}: "
            "fetch it again"
        )
    missing = sorted(k for k in info["missing_keys"] if not any(part in k for part in (*may_lack, "position_ids")))
    if missing:
        raise DamagedError(f"{folder.name} should hold the weights {missing[0]}, which are missing: fetch it again")
    extra = sorted(k for k in info["unexpected_keys"] if not any(part in k for part in _NOT_USED))
    if extra := [k for k in extra if not k.startswith(tuple(may_have))]:
        raise DamagedError(
            f"{folder.name} should hold the weights of its config alone, found {extra[0]} as well: fetch it again"
        )
    _require_fitting_vocabulary(model, tokenizer, folder.name)
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()  # else it is the file itself, mapped, and changes when somebody writes to it
    return model, tokenizer


def _require_fitting_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer of another model: ids without a row of the token table, or many rows without a token."""
    num_rows = int(model.get_input_embeddings().weight.shape[0])
    num_ids = max(tokenizer.get_vocab().values(), default=-1) + 1
    if not num_ids <= num_rows <= num_ids + _SPARE_ROWS:
        raise InputError(
            f"{name} should have a tokenizer of its own {num_rows:,} tokens, found one of {num_ids:,}: "
            "take the tokenizer that was published with these weights"
        )


def require_own_tokens(model: TextModel, tokens: Tokens) -> None:
    """Refuse tokens that another tokenizer than the model's has made.

    Raises: InputError.
    """
    if tokens.tokenizer and tokens.tokenizer != tokenizer_sha256(model.tokenizer):
        raise InputError(
            "the texts should be cut into tokens by the model's own tokenizer, found another's: tokenise them with "
            "model.tokenizer, and where a teacher's rows belong to them, after split.with_signals(signals)"
        )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without its progress bars and load reports: a new head is no news, and ours are on the terminal."""
    from transformers.utils import logging

    level, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()


def load_embedder(
    model: str | sources.ModelFiles, *, max_length: int = 128, role: str = "teacher"
) -> tuple[TextModel, sources.ModelFiles]:
    """A sentence-embedding model (see `Embedder`) from the hub, an installed package or a folder.

    Args:
        model: Hub id, `org/name@revision`, or a local folder; or what `sources.fetch_model` brought to disk.
        max_length: Tokens after which a text is cut, if the model takes that many.
        role: For the record: `teacher`, …; files that were fetched already have theirs.

    Returns: The model in evaluation mode, and the files that it came from.
    Raises: InputError if it pools, projects or prompts otherwise than an `Embedder`.
    """
    fetched = sources.fetch_model(model, role=role) if isinstance(model, str) else model
    name = fetched.source.name
    _require_no_prompt(fetched.folder, name)
    parts = projection_of(_read_dense_layers(fetched.folder, name)), _read_pooling(fetched.folder, name)
    transformer, tokenizer = _from_folder(AutoModel, fetched.folder, may_lack=_UNUSED, may_have=_OTHER_HEADS)
    tokenizer = _in_lower_case_where_asked(tokenizer, fetched.folder)
    notes = {"base_model": name}
    embedder = Embedder(transformer, *parts).eval()
    return TextModel(embedder, tokenizer, notes, _usable_length(transformer, max_length)), fetched


def _in_lower_case_where_asked(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer; where sentence-transformers is told so and it keeps capitals, one that makes them small first.

    Raises: InputError if it is none of the tokenizers library.
    """
    settings = [files.read_json(path) for path in folder.glob("sentence_*_config.json")]
    if not any(found.get("do_lower_case") for found in settings):
        return tokenizer
    backend = Tokenizer.from_str(backend_of(tokenizer).to_str())
    before = backend.normalizer
    if before is not None and before.normalize_str("A") == before.normalize_str("a"):
        return tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([] if before is None else [before])])
    return with_backend(tokenizer, backend)


def load_language_model(
    model: str | sources.ModelFiles, *, max_length: int = 512, role: str = "teacher", four_bit: bool = False
) -> tuple[TextModel, sources.ModelFiles]:
    """A causal language model from the hub, an installed package or a folder.

    Args:
        model: Hub id, `org/name@revision`, or a local folder; or what `sources.fetch_model` brought to disk.
        max_length: Tokens of a row, if the model takes that many.
        role: For the record; files that were fetched already have theirs.
        four_bit: Hold the weights of linear layers, but for the output layer, in NF4 with its scales quantised too, and
            multiply in bf16. Needs bitsandbytes, and is to be trained through adapters alone.

    Returns: The model in evaluation mode, and the files that it came from.
    Raises: InputError if it is no causal language model, or makes its logits in a way that is not known here.
    """
    fetched = sources.fetch_model(model, role=role) if isinstance(model, str) else model
    name = fetched.source.name
    transformer, tokenizer = _from_folder(
        AutoModelForCausalLM,
        fetched.folder,
        may_lack=_MAY_LACK["language_model"],
        **({"quantization_config": _nf4()} if four_bit else {}),
    )
    _keep_packing(transformer)
    language_model = LanguageModel(transformer).eval()
    require_known_output(language_model, name)
    return TextModel(language_model, tokenizer, {"base_model": name}, _usable_length(transformer, max_length)), fetched


def _keep_packing(transformer: Any) -> None:
    """Have bitsandbytes leave weights in four bits as they are packed.

    On a processor with AVX512-BF16 it packs them anew in the first pass in evaluation mode, for inference alone; and it
    fails where a row is shorter than a block.
    """
    for layer in transformer.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def _nf4() -> BitsAndBytesConfig:
    """Source: Dettmers et al. 2023, arXiv:2305.14314, section 3."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def embedding_width(fetched: sources.ModelFiles) -> int:
    """Dimensions of the embeddings of a model that is on disk and not loaded.

    Raises: InputError if its config does not say.
    """
    if dense := _read_dense_layers(fetched.folder, fetched.source.name):
        return dense[-1].out_features
    config = AutoConfig.from_pretrained(fetched.folder, trust_remote_code=False, local_files_only=True)
    width = getattr(config, "hidden_size", None)
    if not isinstance(width, int):
        raise InputError(f"{fetched.source.name} should say its hidden_size, found {width!r}: choose an encoder")
    return width


def _read_pooling(folder: Path, name: str) -> Pooling:
    """How a model of sentence-transformers pools; a plain transformer's token vectors are averaged."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    settings = json.loads(path.read_text())
    on = {key for key, value in settings.items() if key.startswith("pooling_mode_") and value}
    found: list[Pooling] = [
        how for how, key in _POOLING_KEYS.items() if on == {key} or settings.get("pooling_mode") == how
    ]
    if not found:
        raise InputError(
            f"{name} should average its token vectors, or take the first or the greatest values, but pools otherwise: "
            "choose another model"
        )
    return found[0]


def load_classifier(
    name: str,
    label_names: Sequence[str],
    *,
    problem: Problem = "single_label_classification",
    max_length: int = 128,
    seed: int = 0,
    role: str = "teacher",
) -> tuple[TextModel, sources.ModelFiles, bool]:
    """A sequence classifier for these labels from the hub, an installed package or a folder.

    Args:
        name: Hub id, `org/name@revision`, or a local folder; fine-tuned for these labels, or a base model.
        label_names: Names of the classes in the order of the data set's labels; for a score, one name.
        problem: Whether one class holds, several may, or the one output is a score; in the words of transformers.
        max_length: Tokens after which a text is cut, if the model takes that many.
        seed: For the weights of a new head.
        role: For the record.

    Returns: The model, the files that it came from, and whether it was fine-tuned already.
    Raises: InputError if it was fine-tuned for other labels.
    """
    return _load_head("ForSequenceClassification", name, label_names, max_length, seed, role, problem_type=problem)


def begin_at_shares(model: TextModel, labels: npt.NDArray[Any]) -> None:
    """Let a new head for labels that may hold together begin at the share of texts that each holds for.

    Without it, all outputs have to fall first where labels are rare, and a small model may end with the same answer for
    every text. As for rare classes in Lin et al. 2017, arXiv:1708.02002, section 4.1.

    Args:
        model: With a bias for each label in its last linear layer; it is changed in place.
        labels: Shape (num_texts, num_labels), 0 or 1.
    """
    num_texts, num_labels = labels.shape
    shares = (labels.sum(0) + 0.5) / (num_texts + 1)  # never 0 or 1
    last = [m for m in model.model.modules() if isinstance(m, nn.Linear) and m.out_features == num_labels][-1]
    with torch.no_grad():
        last.bias.copy_(torch.as_tensor(np.log(shares / (1 - shares))))


def load_token_classifier(
    name: str, label_names: Sequence[str], *, max_length: int = 128, seed: int = 0, role: str = "teacher"
) -> tuple[TextModel, sources.ModelFiles, bool]:
    """`load_classifier` for a label of each word, such as the tags of entities."""
    return _load_head(_TOKEN_HEAD, name, label_names, max_length, seed, role)


def _load_head(
    head: str, name: str, label_names: Sequence[str], max_length: int, seed: int, role: str, **options: Any
) -> tuple[TextModel, sources.ModelFiles, bool]:
    fetched = sources.fetch_model(name, role=role)
    config = AutoConfig.from_pretrained(fetched.folder, trust_remote_code=False, local_files_only=True)
    is_tuned = any(head in architecture for architecture in (config.architectures or []))
    order = _label_order(name, config, label_names) if is_tuned else list(range(len(label_names)))
    model, tokenizer = _from_folder(
        _KINDS[_HEADS[head]][0],
        fetched.folder,
        may_lack=() if is_tuned else _HEAD,
        may_have=() if is_tuned else _OTHER_HEADS,
        seed=seed,
        num_labels=len(label_names),
        id2label=dict(enumerate(label_names)),
        label2id={label: i for i, label in enumerate(label_names)},
        **options,
    )
    if order != list(range(len(order))):
        _reorder_head(model, order)
    notes = {"base_model": fetched.source.name}
    return TextModel(model.eval(), tokenizer, notes, _usable_length(model, max_length)), fetched, is_tuned


def _usable_length(model: PreTrainedModel, max_length: int) -> int:
    limit = getattr(model.config, "max_position_embeddings", None)
    return min(max_length, int(limit) - _first_position(model)) if limit else max_length


def _first_position(model: PreTrainedModel) -> int:
    """Place of a text's first token in the table of positions; that of RoBERTa and its kin begins after the padding."""
    for name, table in model.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            return int(table.padding_idx) + 1
    return 0


def _label_order(name: str, config: Any, label_names: Sequence[str]) -> list[int]:
    """For each label of the data set, the teacher's class index."""
    if config.num_labels != len(label_names):
        raise InputError(
            f"{name} has {config.num_labels} classes, the data set {len(label_names)}: "
            "choose a teacher fine-tuned on this data set, or a base model"
        )
    theirs = [str(config.id2label[i]).casefold() for i in range(config.num_labels)]
    ours = [str(label).casefold() for label in label_names]
    if sorted(theirs) == sorted(ours):
        return [theirs.index(label) for label in ours]
    unnamed = all(label.startswith("label_") for label in theirs) or all(label.isdigit() for label in ours)
    if not unnamed:
        odd = next(label for label in label_names if str(label).casefold() not in theirs)
        raise InputError(
            f"{name} should know the data set's label {odd!r}, but has {', '.join(sorted(theirs)[:5])}: "
            "choose a teacher fine-tuned on this data set, or a base model"
        )
    return list(range(len(ours)))


def _reorder_head(model: nn.Module, order: list[int]) -> None:
    """Put the rows of the last linear layer into the data set's order of labels."""
    head = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == len(order)][-1]
    with torch.no_grad():
        head.weight.copy_(head.weight[order])
        if head.bias is not None:
            head.bias.copy_(head.bias[order])


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from a seed inside the block, and leave its state as it was outside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
