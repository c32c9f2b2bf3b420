"""A student with the tokens that its task needs, and no others: in its tokenizer, its token table and its config.

Three kinds of tokenizer cut a word into pieces, and each keeps its cuts when pieces go that the word does not use:
WordPiece takes the longest piece that fits; BPE joins characters by a list of merges in order, of which those that make
a kept piece stay; Unigram takes the pieces whose scores sum to most.
"""

import copy
import dataclasses
import itertools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from smallmodels import models
from smallmodels.data.splits import Tokens, tokenize
from smallmodels.errors import InputError
from smallmodels.students.student import Student

NewIds: TypeAlias = Mapping[int, int]
"""For each token that stays, its id after by its id before, in ascending order of both."""

_UNCUT = 2**31 - 1
"""More tokens than a text has. A text must not end early here: its last tokens depend on those that follow."""
_NUM_CHECKED = 1000
"""Texts that are cut into tokens again, to be sure."""
_KINDS = ("WordPiece", "BPE", "Unigram")


def trim_vocabulary(student: Student, texts: Sequence[str]) -> Student:
    """Keep the tokens that these texts need, and those that any other text falls back on.

    A text whose tokens all stay is cut into the same tokens, under other ids, and the model gives the same for it. Any
    other is cut into smaller pieces, down to characters or bytes; a character that had no token is unknown as before.

    Args:
        student: Its tokenizer is of the tokenizers library; it is not changed.
        texts: What it will be trained on; not those that it is tested on, which would then be no test.

    Returns: A student with another tokenizer than its teacher's: its tokens are made anew, with `split.tokenize`.
    Raises: InputError if the tokenizer does not cut words into pieces, or the model cannot do with other ids.
    """
    settings = _settings(student.tokenizer)
    tokens = _tokenize(texts, student.tokenizer)
    named = [ids for config in _configs(student) for ids in _named_ids(config).values()]
    used = set(np.unique(np.hstack([tokens.ids, *named])).tolist())
    vocabulary = student.tokenizer.get_vocab()
    kept = _with_fallback({token for token, i in vocabulary.items() if i in used}, settings)
    new_ids = {old: new for new, old in enumerate(sorted(i for token, i in vocabulary.items() if token in kept))}
    _renumber(settings, new_ids)
    tokenizer = _rebuild(student.tokenizer, settings)
    _require_same_tokens(tokenizer, texts[:_NUM_CHECKED], tokens, new_ids)
    small = student.copy()
    _keep_rows(small, new_ids)
    notes = {**student.notes, "vocabulary_size": len(new_ids), "teacher_vocabulary_size": len(vocabulary)}
    return dataclasses.replace(small, tokenizer=tokenizer, notes=notes)


def _tokenize(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Whole texts as tokens, by a copy of the tokenizer: it remembers where its last call cut them."""
    return tokenize(texts, copy.deepcopy(tokenizer), max_length=_UNCUT)


# Which tokens stay


def _settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """All that a tokenizer is, as in its file tokenizer.json."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"the tokenizer should be one of the tokenizers library to be trimmed, found {type(tokenizer).__name__}, "
            "which is not: choose a model with a tokenizer.json, or keep the whole vocabulary"
        )
    settings: dict[str, Any] = json.loads(backend.to_str())
    if settings["model"]["type"] not in _KINDS:
        raise InputError(
            f"the tokenizer should cut words into pieces ({', '.join(_KINDS)}) to be trimmed, found "
            f"{settings['model']['type']}, to which a word without a token is unknown: keep the whole vocabulary"
        )
    return settings


def _with_fallback(used: set[str], settings: Mapping[str, Any]) -> set[str]:
    """These tokens, those that they are made of, and those without which other texts would be unknown."""
    model = settings["model"]
    prefix, suffix = (model.get(name) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    pieces = {piece for piece, _ in model["vocab"]} if model["type"] == "Unigram" else set(model["vocab"])
    letters = {piece: _letters(piece, prefix, suffix) for piece in pieces}
    added = {token["content"] for token in settings["added_tokens"]}
    kept = used | added
    kept |= {piece for piece in pieces if letters[piece] == [piece] or not pieces.issuperset(letters[piece])}
    if model.get("byte_fallback"):
        kept |= {f"<0x{byte:02X}>" for byte in range(256)}
    if model.get("unk_token"):
        kept.add(model["unk_token"])
    if model.get("unk_id") is not None:
        kept.add(model["vocab"][model["unk_id"]][0])
    if model["type"] == "Unigram":
        kept.add(min(model["vocab"], key=lambda entry: entry[1])[0])  # an unknown character's score depends on it
    if model["type"] == "BPE":
        ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
        kept |= {part for piece in (used & pieces) - added for part in _joined(letters[piece], ranks, prefix)}
    return kept


def _letters(piece: str, prefix: str, suffix: str) -> list[str]:
    """A piece cut into single characters, each written as a piece of its own at that place of a word.

    Args:
        piece: As in the vocabulary: `##ing`.
        prefix: Of pieces that go on with a word; may be empty.
        suffix: Of pieces that end a word; may be empty.
    """
    bare = piece.removeprefix(prefix).removesuffix(suffix)
    if not bare:
        return [piece]
    first = prefix if piece.startswith(prefix) else ""
    letters = [first + bare[0], *(prefix + letter for letter in bare[1:])]
    return [*letters[:-1], letters[-1] + suffix] if piece.endswith(suffix) else letters


def _joined(letters: Sequence[str], ranks: Mapping[tuple[str, str], int], prefix: str) -> set[str]:
    """Every piece that arises while BPE joins letters, by the first of all merges that fits, until none does.

    Source: Sennrich et al. 2016, arXiv:1508.07909, section 3.2.
    """
    parts, made = list(letters), set()
    while len(parts) > 1:
        rank, at = min((ranks.get(pair, len(ranks)), i) for i, pair in enumerate(itertools.pairwise(parts)))
        if rank == len(ranks):
            break  # a token that no merge makes
        parts[at : at + 2] = [parts[at] + parts[at + 1].removeprefix(prefix)]
        made.add(parts[at])
    return made


# The tokenizer


def _renumber(settings: dict[str, Any], new_ids: NewIds) -> None:
    """Leave the tokens that stay in the settings of a tokenizer, under their new ids; in place."""
    model = settings["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new_ids]
        model["unk_id"] = new_ids.get(model["unk_id"])
    else:
        model["vocab"] = {token: new_ids[i] for token, i in model["vocab"].items() if i in new_ids}
    if model["type"] == "BPE":
        prefix = model["continuing_subword_prefix"] or ""
        model["merges"] = [
            [left, right]
            for left, right in model["merges"]
            if {left, right, left + right.removeprefix(prefix)} <= model["vocab"].keys()
        ]
    for token in settings["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    if settings["padding"]:
        settings["padding"]["pad_id"] = new_ids.get(settings["padding"]["pad_id"], 0)
    if settings["post_processor"]:
        _renumber_processor(settings["post_processor"], new_ids)


def _renumber_processor(processor: dict[str, Any], new_ids: NewIds) -> None:
    """Give the tokens that are put around every text their new ids, in place."""
    for part in processor.get("processors", []):
        _renumber_processor(part, new_ids)
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [new_ids[i] for i in token["ids"]]
    for name in {"sep", "cls"} & processor.keys():
        token, old = processor[name]
        processor[name] = [token, new_ids[old]]


def _rebuild(tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """A tokenizer of the same class with other settings, read from files as everybody will read it."""
    with tempfile.TemporaryDirectory(prefix="smallmodels-") as name:
        tokenizer.save_pretrained(name)
        (Path(name) / "tokenizer.json").write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
        path = Path(name) / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        if "unk_id" in config:  # DeBERTa's, which has it in both
            config["unk_id"] = settings["model"]["unk_id"]
            path.write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
        small = type(tokenizer).from_pretrained(name, trust_remote_code=False, local_files_only=True)
    small.name_or_path = tokenizer.name_or_path
    return small


def _require_same_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], before: Tokens, new_ids: NewIds
) -> None:
    """Refuse a tokenizer that does not cut these texts as before, because of something in it that is not known here.

    Args:
        tokenizer: With new ids.
        texts: Some that the vocabulary was trimmed for.
        before: Tokens with old ids of these texts, and maybe of more that follow.
        new_ids: New ids by old ones.
    """
    old = before.ids[: before.offsets[len(texts)]]
    expected = np.searchsorted(list(new_ids), old)  # new ids count the old ones that stay
    if len(tokenizer) != len(new_ids) or not np.array_equal(_tokenize(texts, tokenizer).ids, expected):
        raise InputError(
            "the tokenizer should cut texts as before when tokens go that they do not use, but "
            f"{type(tokenizer).__name__} does not: keep the whole vocabulary"
        )


# The model


def _keep_rows(small: Student, new_ids: NewIds) -> None:
    """Leave the rows of the tokens that stay in the token table and, where there is one, the output layer; in place."""
    model = _transformer(small)
    _renumber_padding(model, new_ids)
    for config in _configs(small):
        for name, old in _named_ids(config).items():
            new = [new_ids[i] for i in old if i in new_ids] if isinstance(old, list) else new_ids.get(old)
            setattr(config, name, new)
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    for parameter in nn.ModuleList(layer for layer in layers if layer is not None).parameters():  # a tied one once
        rows = torch.tensor(list(new_ids), device=parameter.device)
        parameter.data[: len(rows)] = parameter.data[rows]
    with models.seeded(0):  # transformers draws numbers, but keeps the first rows
        model.resize_token_embeddings(len(new_ids))


def _renumber_padding(model: Any, new_ids: NewIds) -> None:
    """Give the padding token its new id wherever a module notes it, in place.

    Raises: InputError if places in a text are counted from that id, as in RoBERTa, and it is another now.
    """
    for module in model.modules():
        old = getattr(module, "padding_idx", None)
        if old is None or new_ids.get(old) == old:
            continue
        if isinstance(module, nn.Embedding) and module is not model.get_input_embeddings():
            raise InputError(
                f"{type(model).__name__} counts places from the id of its padding token, which should stay {old}, but "
                f"would be {new_ids.get(old)}: keep the whole vocabulary"
            )
        module.padding_idx = new_ids.get(old)


def _transformer(student: Student) -> Any:
    return student.transformer


def _configs(student: Student) -> list[Any]:
    """What names tokens beside the tokenizer."""
    model = _transformer(student)
    return [config for config in (model.config, getattr(model, "generation_config", None)) if config is not None]


def _named_ids(config: Any) -> dict[str, int | list[int]]:
    """One token id or several by the name of their setting, such as `pad_token_id`."""
    return {k: value for k, value in config.to_dict().items() if k.endswith("_token_id") and value is not None}
