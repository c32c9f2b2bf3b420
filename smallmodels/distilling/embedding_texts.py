"""What embedders learn on and are judged on: texts of any columns, pairs with scores, and something to search in."""

from dataclasses import dataclass, replace
from typing import Any

from smallmodels import data
from smallmodels.data import RetrievalSplits, Sentences, Splits
from smallmodels.distilling.embedders import EmbedderConfig
from smallmodels.errors import InputError
from smallmodels.runs import Run


@dataclass(frozen=True, kw_only=True)
class TextsConfig(EmbedderConfig):
    """What a recipe asks for whose texts are anybody's own."""

    dataset: str
    """Texts to learn on: hub id, a local CSV, JSON Lines or Parquet file, or a folder of text files."""
    dataset_config: str | None = None
    """Configuration of a hub data set that has several; the default goes with the default data set alone."""
    text_columns: tuple[str, ...] = ("text",)
    """Columns with texts, each value a text of its own."""
    query_column: str | None = None
    """Instead of text columns: column with queries, which are searched for in the documents beside them."""
    document_column: str | None = None
    """Column with the document that belongs to each query."""
    train_split: str = "train"
    """Split to learn on."""
    drop_overlap: bool = False
    """Drop texts that also stand in what validates or tests; always where that is drawn from the rows to learn on."""
    drop_bad_texts: bool = False
    """Leave out texts that are empty, null or a megabyte long, instead of refusing the data."""
    max_train: int | None = None
    """Learn on so many texts, or pairs of query and document, only."""
    similarity_dataset: str
    """Pairs of texts with scores, on whose validation split training chooses and on whose test split it is judged."""
    similarity_config: str | None = None
    """Its configuration, likewise."""
    max_pairs: int | None = None
    """Test on so many of these pairs, and of Python's functions and classes where these are searched in, only."""
    split_seed: int = 0
    """Of the rows that are held out or left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.query_column is None) != (self.document_column is None):
            raise InputError("a search needs queries and documents: give both --query-column and --document-column")

    @property
    def reads_scored_pairs(self) -> bool:
        """Whether what is learned on stands in the rows of the pairs with scores."""
        learned_on = (self.dataset, self.dataset_config, self.train_split)
        return learned_on == (self.similarity_dataset, self.similarity_config, "train")

    @property
    def learns_on_scored_pairs(self) -> bool:
        """Whether the texts to learn on are those of the pairs with scores, so that these teach without a teacher."""
        return self.reads_scored_pairs and self.query_column is None


@dataclass(frozen=True)
class EmbeddingTexts:
    """What there is to learn on, and to choose and test on."""

    learned: Sentences | RetrievalSplits
    """Texts, with something to search in where the data have queries."""
    pairs: Splits
    """With scores."""
    search: RetrievalSplits
    """What the models search in to be judged: `learned` where it has queries, else Python's docstrings."""

    @property
    def limits(self) -> list[str]:
        """What was not tried of a student."""
        return [
            f"Learned on texts of {self.learned.source.name} and judged on pairs of {self.pairs.source.name} and "
            f"searches in {self.search.source.name}: short texts of a few kinds; longer ones, other topics and other "
            "languages were not tried."
        ]


def load_embedding_texts(run: Run, config: TextsConfig) -> tuple[EmbeddingTexts, str]:
    """The phases `similarity_data`, `data` and, where the data have no queries, `search_data`.

    Args:
        run: Notes where all came from; what is read is pinned at once, the teacher too.
        config: Of the recipe.

    Returns: The texts, and the teacher's name with its commit.
    """
    dataset_name, similarity_name, teacher_name = run.pin(
        (config.dataset, "dataset"), (config.similarity_dataset, "dataset"), (config.teacher, "model")
    )
    pairs = run.phase(
        "similarity_data",
        data.load_similarity_pairs,
        similarity_name,
        config=config.similarity_config,
        split_seed=config.split_seed,
        drop_overlap=config.drop_overlap,
        max_train=max(2, config.max_train // 2) if config.max_train and config.learns_on_scored_pairs else None,
        max_test=config.max_pairs,
    )
    run.add_source(replace(pairs.source, role="evaluation"))
    learned = _load_learned(run, config, dataset_name, pairs)
    run.add_source(learned.source)
    return EmbeddingTexts(learned, pairs, _load_search(run, config, learned)), teacher_name


def _load_learned(run: Run, config: TextsConfig, name: str, pairs: Splits) -> Sentences | RetrievalSplits:
    are_drawn = any(f"{role}_split" in pairs.notes for role in ("validation", "test"))
    options: dict[str, Any] = {
        "config": config.dataset_config,
        "train_split": config.train_split,
        "split_seed": config.split_seed,
        "held_out": [text for split in (pairs.validation, pairs.test) for text in data.sentences_of(split).texts],
        "drop_overlap": config.drop_overlap or (config.reads_scored_pairs and are_drawn),
        "drop_bad_texts": config.drop_bad_texts,
        "max_train": config.max_train,
    }
    if config.query_column is not None and config.document_column is not None:
        columns = {"query_column": config.query_column, "document_column": config.document_column}
        return run.phase("data", data.load_search_pairs, name, **columns, **options)
    return run.phase("data", data.load_sentences, name, text_columns=config.text_columns, **options)


def _load_search(run: Run, config: TextsConfig, learned: Sentences | RetrievalSplits) -> RetrievalSplits:
    if isinstance(learned, RetrievalSplits):
        return learned
    options = {"split_seed": config.split_seed, "max_entries": config.max_pairs}
    docs = run.phase("search_data", data.load_python_docs, extra_sentences=False, **options)
    run.add_source(replace(docs.source, role="evaluation"))
    return docs
