"""Text classification: one text, one label, from a hub data set or a local CSV, JSON Lines or Parquet file.

Strings, integers, booleans and the hub's ClassLabel all become indices into one list of label names, the same for
every split. What is missing is made from train and said so: validation, and test where there is none with labels.
"""

from typing import Any

from smallmodels import sources
from smallmodels.data.drawing import require_limits
from smallmodels.data.labels import LABEL_COLUMNS, names_of, require_two_classes
from smallmodels.data.reading import open_tables, pick_column, pick_splits, require_different
from smallmodels.data.rows import Draw, draw_rows, fill_in, make_splits, note_dropped, number_classes, read_classes
from smallmodels.data.splits import Splits
from smallmodels.phases import NO_CONTEXT, Context

TEXT_COLUMNS = ("text", "sentence", "content", "utterance", "question", "review", "document", "body", "message")
"""Names that are tried, in this order, where the user gives none."""


def load_text_classification(
    dataset: str,
    *,
    config: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    train_split: str = "train",
    validation_split: str | None = None,
    test_split: str = "test",
    split_seed: int = 0,
    drop_overlap: bool = False,
    drop_bad_texts: bool = False,
    max_train: int | None = None,
    max_test: int | None = None,
    draw: Draw = draw_rows,
    context: Context = NO_CONTEXT,
) -> Splits:
    """Bring a data set to disk and make train, validation and test of it.

    Args:
        dataset: `org/name`, `org/name@revision`, or a local CSV, JSON Lines or Parquet file.
        config: Configuration of a hub data set that has several.
        text_column: Column with the text; None takes the first of `TEXT_COLUMNS` that is there.
        label_column: Column with the label; None takes the first of `LABEL_COLUMNS` that is there.
        train_split: Name of the split to train on.
        validation_split: Name of the split to choose on; None takes `validation` or `dev`, else a tenth of train.
        test_split: Name of the split to test on. Where there is no `test`, or its labels are all −1, a fifth of train
            stands in.
        split_seed: Seed of every such draw.
        drop_overlap: Whether rows of train whose text also stands in validation or test are dropped.
        drop_bad_texts: Whether rows whose text is empty, null or a megabyte long are dropped and counted; they are
            refused otherwise.
        max_train: At most so many rows of train, drawn so that classes keep their shares; None is all.
        max_test: At most so many rows of test, in the same way.
        draw: Of what stands in; `SameRows` where the same rows are read in several languages.
        context: Of the phase, in whose folder data sets are unpacked and the identity of the data is noted.

    Returns: Splits whose `notes` say what was guessed, dropped, drawn, which classes a split lacks, and how many texts
        stand in two splits.

    Raises: InputError in one sentence for whatever cannot be trained on: no such column or split, no rows, one class
        only, several labels per row, a label in test that train lacks, other data than the run began with.
    """
    require_limits(2, max_train=max_train, max_test=max_test)
    fetched = sources.fetch_dataset(dataset, config=config)
    notes: dict[str, Any] = {}
    with open_tables(fetched, context.folder) as tables:
        text_column = pick_column(tables, dataset, "text", text_column, TEXT_COLUMNS, notes)
        label_column = pick_column(tables, dataset, "label", label_column, LABEL_COLUMNS, notes)
        require_different(text=text_column, label=label_column)
        chosen = pick_splits(tables, dataset, train_split, validation_split, test_split)
        rows = {
            role: read_classes(tables[name], name, [text_column], label_column, drop_bad_texts)
            for role, name in chosen.items()
        }
        note_dropped(rows, notes)
        parts = fill_in(rows, dataset, chosen, split_seed, notes, draw)
        names = names_of(parts["train"].present(), tables[chosen["train"]], label_column, dataset)
    return make_splits(
        {role: number_classes(part, role, names, dataset, label_column) for role, part in parts.items()},
        list(names.values()),
        fetched,
        notes,
        drop_overlap=drop_overlap,
        max_train=max_train,
        max_test=max_test,
        split_seed=split_seed,
        check=require_two_classes,
        context=context,
    )
