"""Texts for benchmarks/language_models.py: questions and answers on health, and passages of old books, in one file.

Run:       python benchmarks/language_texts.py runs/texts.jsonl
Licences:  MedQuAD is CC-BY-4.0; the books are in the public domain in the United States.
"""

import json
import sys
from pathlib import Path

from datasets import load_dataset

COLUMNS = {"lavita/MedQuAD": ("question", "answer"), "gitenberg/public-domain-books": ("text",)}
"""Columns that make up one text, a line break between them."""


def main(path: Path) -> None:
    """Write one JSON object a line; rows in which a column is empty are left out, as MedQuAD's removed answers are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for name, columns in COLUMNS.items():
            for row in load_dataset(name, split="train"):
                parts = [row[column] or "" for column in columns]
                if all(part.strip() for part in parts):
                    file.write(json.dumps({"text": "\n".join(parts), "from": name}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
