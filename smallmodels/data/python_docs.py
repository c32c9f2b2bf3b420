"""Docstrings of the installed Python standard library: real English text that every machine has.

Made for search. A query is the first sentence of a docstring, "Return the sum of a start value and an iterable of
numbers."; its document is the dotted name split into words with the signature, "builtins sum (iterable, start=0)".
The files are parsed with `ast` and never imported. Whole top-level modules go to one split, so that sister modules
with the same phrases do not stand on both sides. Rows depend on the Python that is installed: the identity of the
data set is the fingerprint of its rows, with Python's version beside it.
"""

import ast
import hashlib
import itertools
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smallmodels import files, records
from smallmodels.data.splits import RetrievalSplit, RetrievalSplits, Split
from smallmodels.errors import InputError

NAME = "docstrings of the Python standard library"
LICENSE = "psf-2.0"
"""SPDX id; docstrings are part of Python's source, https://docs.python.org/3/license.html."""

TRAIN_FRACTION, VALIDATION_FRACTION = 0.65, 0.1
"""Shares of modules, the rest is test; of rows only roughly, because modules differ in size."""

MIN_WORDS = 3
"""Shorter sentences ("See above.") describe nothing that could be found."""

_LEFT_OUT = frozenset(
    {"antigravity", "distutils", "ensurepip", "idlelib", "lib2to3", "test", "this", "tkinter", "turtle", "turtledemo"}
)
"""Applications, tests, jokes, modules that newer Pythons dropped, and the windows of Tk, which many builds lack."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z(\"'`])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|cf|vs|Fig|Sect)\.)$")
_SIGNATURE = re.compile(r"^[\w.]*\s*\(.*\)|->")
"""In a first sentence: the way of old docstrings, `D.keys() -> a view`, which is the answer and not a question."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")


@dataclass(frozen=True)
class Entry:
    """One public function or class of the standard library."""

    module: str
    """Dotted name of the module, such as `xml.dom.minidom`."""
    name: str
    """Dotted name inside the module, such as `Node.cloneNode`."""
    query: str
    """First sentence of the docstring."""
    document: str
    """The dotted name in words, and the signature."""
    further: tuple[str, ...]
    """The other sentences of the docstring."""

    @property
    def dotted(self) -> str:
        """Module and name: `xml.dom.minidom.Node.cloneNode`."""
        return f"{self.module}.{self.name}"


def load_python_docs(
    *, split_seed: int = 0, extra_sentences: bool = True, max_entries: int | None = None
) -> RetrievalSplits:
    """Queries and documents from the docstrings of the Python that runs.

    Args:
        split_seed: Another seed sends the modules to other splits.
        extra_sentences: Whether `train` holds, beside queries and documents, the further sentences of its docstrings.
        max_entries: At most so many functions and classes in each split, evenly spaced over it; None is all.

    Returns: Train texts (queries, documents and further sentences of the train modules; `Split.ids` begin with
        `train/query/`, `train/document/`, `train/sentence/`), and validation and test as search tasks, in which each
        query has one right document among those of its split.

    Raises: InputError if this Python has no readable source files of its standard library, or none with docstrings.
    """
    root = Path(sysconfig.get_path("stdlib"))
    entries, num_duplicates = _without_duplicates(list(read_entries(root)))
    parts: dict[str, list[Entry]] = {"train": [], "validation": [], "test": []}
    for entry in entries:
        parts[split_of(entry.module, split_seed)].append(entry)
    if not all(parts.values()):
        raise InputError(
            "Python's standard library should be installed as source files with docstrings, "
            f"found {len(entries)} of them: use a Python that was installed with its .py files"
        )
    parts = {name: _evenly_spaced(part, max_entries or len(part)) for name, part in parts.items()}
    held_out = {_wording(entry.query) for name in ("validation", "test") for entry in parts[name]}
    train = _train_texts(parts["train"], extra_sentences, held_out)
    validation, test = (_search_task(name, parts[name]) for name in ("validation", "test"))
    notes = {
        "python_version": platform.python_version(),
        "python_implementation": platform.python_implementation(),
        "num_entries": sum(map(len, parts.values())),
        "num_duplicate_queries_dropped": num_duplicates,
        "num_entries_per_split": {name: len(part) for name, part in parts.items()},
        "split_by": "hash of the top-level module's name",
        "split_seed": split_seed,
    }
    fingerprints = [train.fingerprint(), validation.fingerprint(), test.fingerprint()]
    source = records.Source(
        role="dataset",
        kind="dataset",
        name=NAME,
        revision=None,
        sha256={},
        license=LICENSE,
        license_file_seen=(root / "LICENSE.txt").is_file(),
        duties=["keep Python's copyright notice and licence with copies of the texts"],
        splits={"train": len(train), "validation": len(validation), "test": len(test)},
        fingerprint=files.sha256_json(fingerprints),
        notes=notes,
    )
    kept = sorted(itertools.chain(*parts.values()), key=lambda entry: entry.module)
    corpus = Split("corpus", [entry.dotted for entry in kept], [f"{e.document}: {e.query}" for e in kept])
    return RetrievalSplits(train, validation, test, corpus, source, languages=["en"], notes=dict(notes))


def _evenly_spaced(entries: list[Entry], count: int) -> list[Entry]:
    """So many of the entries, or all where there are no more."""
    return [entries[i * len(entries) // count] for i in range(count)] if count < len(entries) else entries


def split_of(module: str, split_seed: int) -> str:
    """The split that a module belongs to, by a hash of its top-level name alone."""
    digest = hashlib.sha256(f"{split_seed}:{module.partition('.')[0]}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < TRAIN_FRACTION:
        return "train"
    return "validation" if position < TRAIN_FRACTION + VALIDATION_FRACTION else "test"


def read_entries(root: Path) -> Iterator[Entry]:
    """Public functions, classes and methods with a docstring below a folder of modules, ordered by module.

    A file that does not parse (some are there to be wrong) is left out.
    """
    modules = {_module_name(path.relative_to(root)): path for path in root.rglob("*.py")}
    for module in sorted(name for name in modules if _is_public_module(name)):
        with warnings.catch_warnings():  # about escapes in other people's string literals
            warnings.simplefilter("ignore")
            try:
                tree = ast.parse(modules[module].read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue
        yield from _entries_of(tree, module, prefix="")


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_public_module(name: str) -> bool:
    parts = name.split(".")
    hidden = any(part.startswith("_") or part in ("test", "tests") for part in parts)
    return parts[0] in sys.stdlib_module_names and parts[0] not in _LEFT_OUT and not hidden


def _entries_of(node: ast.Module | ast.ClassDef, module: str, prefix: str) -> Iterator[Entry]:
    for child in node.body:
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        name = prefix + child.name
        sentences = _sentences(ast.get_docstring(child) or "")
        if sentences and _SIGNATURE.search(sentences[0]):
            del sentences[0]
        if sentences and len(sentences[0].split()) >= MIN_WORDS:
            document = f"{' '.join(_words(module))} {' '.join(_words(name))} ({_signature(child)})"
            yield Entry(module, name, sentences[0], document, tuple(sentences[1:]))
        if isinstance(child, ast.ClassDef):
            yield from _entries_of(child, module, prefix=f"{name}.")


def _words(name: str) -> list[str]:
    """`io.TextIOWrapper.read_line` as ["io", "Text", "IO", "Wrapper", "read", "line"]."""
    return _WORD.findall(name)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """Parameters as written, without `self`, `cls` and annotations; those of a class are its `__init__`'s."""
    if isinstance(node, ast.ClassDef):
        found = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        return _signature(found[0]) if found else ", ".join(ast.unparse(base) for base in node.bases)
    arguments = node.args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if argument is not None:
            argument.annotation = None
    written = ast.unparse(arguments)
    return re.sub(r"^(?:self|cls)(?:, /)?(?:, |$)", "", written)


def _sentences(docstring: str) -> list[str]:
    """Sentences of a docstring without its examples; paragraphs end sentences too."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", docstring):
        lines = [line.strip() for line in paragraph.splitlines()]
        if any(line.startswith((">>>", "...")) for line in lines):
            continue
        pending = ""
        for piece in _SENTENCE_END.split(" ".join(" ".join(lines).split())):
            pending = f"{pending} {piece}".strip()
            if not _ABBREVIATION.search(pending):
                found.append(pending)
                pending = ""
        found += [pending] if pending else []
    return [sentence for sentence in found if sentence]


def _wording(sentence: str) -> str:
    """A sentence without what does not make it another one."""
    return sentence.casefold().rstrip(".!?")


def _without_duplicates(entries: list[Entry]) -> tuple[list[Entry], int]:
    """Entries whose query is the first of its wording, and how many were dropped.

    "Return a copy." has a dozen right answers, of which a search task can count one.
    """
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(_wording(entry.query), entry)
    return list(first.values()), len(entries) - len(first)


def _train_texts(entries: list[Entry], extra_sentences: bool, held_out: set[str]) -> Split:
    texts: dict[str, str] = {}  # text to id: the teacher need not embed a sentence twice
    for entry in entries:
        texts.setdefault(entry.query, f"train/query/{entry.dotted}")
    for entry in entries:
        texts.setdefault(entry.document, f"train/document/{entry.dotted}")
    for entry in entries if extra_sentences else []:
        for position, sentence in enumerate(entry.further):
            if len(sentence.split()) >= MIN_WORDS and _wording(sentence) not in held_out:
                texts.setdefault(sentence, f"train/sentence/{entry.dotted}/{position}")
    return Split("train", list(texts.values()), list(texts))


def _search_task(name: str, entries: list[Entry]) -> RetrievalSplit:
    queries = Split(name, [f"{name}/query/{entry.dotted}" for entry in entries], [entry.query for entry in entries])
    documents = Split(
        name, [f"{name}/document/{entry.dotted}" for entry in entries], [entry.document for entry in entries]
    )
    return RetrievalSplit(name, queries, documents, np.arange(len(entries), dtype=np.int64))
