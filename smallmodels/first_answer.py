"""What a new process does whose time to the first answer of a model without torch is measured (`evaluation.start_up`).

A module of its own, because it imports what that model needs and no more, as a program that uses it would.
"""

from pathlib import Path
from types import SimpleNamespace

from smallmodels import files, values

ABOUT = "first.json"
"""Of the folder: `model`, as `values.encode` gave it, and the text that is asked: `text`, `second` and `whole`."""
ANSWERED = "smallmodels has answered"


def answer_first(folder: Path) -> None:
    """Load the model in a folder, use it once, and say so."""
    about = files.read_json(folder / ABOUT)
    model = values.decode(about["model"], folder)
    if hasattr(model, "predict"):  # of words and pairs; of a split it reads the texts alone
        second = about["second"]
        model.predict(SimpleNamespace(texts=[about["text"]], seconds=None if second is None else [second]))
    else:
        answer = model.predict_proba if hasattr(model, "predict_proba") else model.similarities
        answer([about["whole"]])
    print(ANSWERED, flush=True)
