"""Small data sets for tests of loaders: local files, and tables that stand for those of the hub."""

import json

from smallmodels import sources
from smallmodels.data import reading
from smallmodels.data.tables import Table


def write_jsonl(path, rows):
    """One object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def serve(monkeypatch, tables, class_names=None):
    """Let loaders find these columns per split, as if read from a hub data set.

    Args:
        monkeypatch: Of the test.
        tables: By split, the values of each column.
        class_names: Of columns that are ClassLabels.
    """
    found = {split: Table(columns, class_names or {}) for split, columns in tables.items()}
    source = sources.cards.source_of("dataset", "dataset", "org/any", {}, None, False, revision="0" * 40)
    fetched = sources.DatasetFiles(None, None, None, None, {}, ["en"], source)
    monkeypatch.setattr(sources, "fetch_dataset", lambda *_, **__: fetched)
    monkeypatch.setattr(reading, "_read_hub", lambda *_: found)
