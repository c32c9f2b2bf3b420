"""The standard library's docstrings as a search task: what is read, how it is split, and that nothing leaks."""

import json
import sys
import sysconfig
from pathlib import Path

import pytest

from smallmodels import data
from smallmodels.data import python_docs
from smallmodels.errors import InputError


@pytest.fixture(scope="module")
def read_once():
    """Parsing the library takes seconds, so all loads of this file share one reading."""
    entries = list(python_docs.read_entries(Path(sysconfig.get_path("stdlib"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(python_docs, "read_entries", lambda _: iter(entries))
        yield


@pytest.fixture(scope="module")
def splits(read_once):
    return data.load_python_docs()


def write_modules(root, **sources):
    for name, source in sources.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


# What is read


def test_read_entries_takes_public_names_with_docstrings(tmp_path):
    source = '''
"""Module docstring, which is not a query."""
def read_line(path: str, /, limit=-1, *, flags: int = 0) -> str:
    """Read one line of a file, e.g. the first. It ends there.

    >>> read_line("x")  # An example. Not a sentence.

    Raise an error otherwise
    """
def _hidden():
    """Not for the public eye."""
def silent(): pass
class TextReader(Base):
    """Reads texts as they come."""
    def __init__(self, name, *rest): pass
    def readAll(self, limit=None, **options):
        """Read everything that is left."""
        def inner():
            """Not reachable from outside."""
    @classmethod
    def open(cls):
        """Open a new reader here."""
'''
    root = write_modules(tmp_path, email__feedparser=source, _json=source, test__support=source, not_stdlib=source)
    entries = {entry.dotted: entry for entry in python_docs.read_entries(root)}
    assert list(entries) == [
        "email.feedparser.read_line",
        "email.feedparser.TextReader",
        "email.feedparser.TextReader.readAll",
        "email.feedparser.TextReader.open",
    ]
    line = entries["email.feedparser.read_line"]
    assert line.query == "Read one line of a file, e.g. the first."
    assert line.further == ("It ends there.", "Raise an error otherwise")
    assert line.document == "email feedparser read line (path, /, limit=-1, *, flags=0)"
    documents = [entry.document for entry in entries.values()][1:]
    assert documents == [
        "email feedparser Text Reader (name, *rest)",
        "email feedparser Text Reader read All (limit=None, **options)",
        "email feedparser Text Reader open ()",
    ]


def test_read_entries_imports_nothing_and_skips_what_does_not_parse(tmp_path):
    good = 'raise SystemExit("imported")\ndef f():\n    """Return the number of things."""\n'
    root = write_modules(tmp_path, json__a="def (", json__b=good, json__c="x = '\0'")
    assert [entry.dotted for entry in python_docs.read_entries(root)] == ["json.b.f"]


def test_a_signature_is_no_query(tmp_path):
    source = (
        'def keys():\n    """D.keys() -> a view.\n\n    Give all the keys.\n    """\ndef f():\n    """f(x) -> int"""\n'
    )
    (entry,) = python_docs.read_entries(write_modules(tmp_path, json=source))
    assert (entry.name, entry.query) == ("keys", "Give all the keys.")


@pytest.mark.parametrize(
    ("name", "words"),
    [("io.TextIOWrapper.read_line", "io Text IO Wrapper read line"), ("HTTPServer2", "HTTP Server 2"), ("__x__", "x")],
)
def test_names_become_words(name, words):
    assert " ".join(python_docs._words(name)) == words


def test_a_query_of_the_same_wording_counts_once():
    entries = [
        python_docs.Entry("a", str(i), query, "", ()) for i, query in enumerate(["Do it now.", "do it now", "Do"])
    ]
    kept, num_dropped = python_docs._without_duplicates(entries)
    assert ([entry.query for entry in kept], num_dropped) == (["Do it now.", "Do"], 1)


def test_a_python_without_sources_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(InputError, match="installed as source files with docstrings, found 0"):
        data.load_python_docs()


# How it is split


def test_there_is_enough_to_train_and_to_measure(splits):
    assert len(splits.train) > 3000
    assert len(splits.validation) > 100
    assert len(splits.test) > 600
    assert splits.languages == ["en"]


def test_nothing_leaks_from_test_to_train(splits):
    def modules(ids):
        return {row.split("/")[2].split(".")[0] for row in ids}

    train, test = modules(splits.train.ids), modules(splits.test.queries.ids)
    validation = modules(splits.validation.queries.ids)
    assert not train & test
    assert not train & validation
    assert not validation & test
    seen = {python_docs._wording(text) for text in splits.train.texts}
    for split in (splits.validation, splits.test):
        assert not seen & {python_docs._wording(text) for text in split.queries.texts + split.documents.texts}


def test_every_query_has_its_document_at_its_own_place(splits):
    for split in (splits.validation, splits.test):
        queries, documents = split.queries.ids, split.documents.ids
        assert split.relevant.tolist() == list(range(len(split)))
        assert [row.replace("/query/", "/document/") for row in queries] == documents
        assert len({text.casefold() for text in split.queries.texts}) == len(split)


def test_extra_sentences_can_be_left_out(splits, read_once):
    plain = data.load_python_docs(extra_sentences=False)
    kinds = [row.split("/")[1] for row in splits.train.ids]
    assert set(kinds) == {"query", "document", "sentence"}
    assert plain.train.ids == [row for row, kind in zip(splits.train.ids, kinds, strict=True) if kind != "sentence"]
    assert plain.test.fingerprint() == splits.test.fingerprint()
    assert plain.source.fingerprint != splits.source.fingerprint
    assert len(set(splits.train.texts)) == len(splits.train.texts)


def test_split_seed_moves_modules_and_the_same_seed_does_not(splits):
    assert data.load_python_docs().source.fingerprint == splits.source.fingerprint
    assert {python_docs.split_of(module, 0) for module in sys.stdlib_module_names} == {"train", "validation", "test"}
    assert python_docs.split_of("xml.dom", 0) == python_docs.split_of("xml.sax.handler", 0)
    assert any(python_docs.split_of(m, 0) != python_docs.split_of(m, 1) for m in ("json", "email", "asyncio", "os"))


def test_so_many_entries_of_each_split_are_kept(splits, read_once):
    few = data.load_python_docs(max_entries=20)
    assert (len(few.validation), len(few.test), len(few.corpus)) == (20, 20, 60)
    queries = [row for row in few.train.ids if "/query/" in row]
    assert len(queries) == 20
    assert len({row.split("/")[2].split(".")[0] for row in queries}) > 5  # from all over the library
    for part, whole in ((few.validation, splits.validation), (few.test, splits.test)):
        assert [row for row in whole.queries.ids if row in part.queries.ids] == part.queries.ids
    assert set(few.corpus.ids) < set(splits.corpus.ids)
    assert few.source.notes["num_entries"] == 60
    assert few.source.fingerprint != splits.source.fingerprint
    assert data.load_python_docs(max_entries=10**6).source.fingerprint == splits.source.fingerprint


def test_the_record_says_which_python_and_no_folder(splits):
    source = splits.source
    assert source.notes["python_version"] == sys.version.split()[0]
    assert (source.license, source.revision) == ("psf-2.0", None)
    assert source.splits == {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)}
    assert sys.prefix not in json.dumps(source.notes)
