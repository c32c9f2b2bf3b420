"""Distil sentence embeddings into one vector per token, on your Python's docstrings or your own texts: without torch.

Source:    model2vec (token vectors from a sentence encoder); Reimers and Gurevych 2020, arXiv:2004.09813 (embeddings);
           Park et al. 2019, arXiv:1904.05068 (pairs).
Run:       smallmodels run distill_static_search
Expected:  the record under benchmarks/results/distill_static_search.
Measured:  docstrings of the Python standard library: MRR@10 0.439 (teacher 0.518), one seed; 1 min 26 s and 87.2 CPU-s
           on Intel(R) Xeon(R) Processor, 2 cores, bf16, which other work shared.
Licences:  the texts are part of Python (PSF-2.0), the teacher (all-MiniLM-L6-v2) is Apache-2.0; so is the student.

Data of your own are queries with their documents, which judge as well, or texts of any kind (--text-columns), of which
the students are judged by a search in Python's docstrings.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from smallmodels import cli, data, distilling, evaluation, losses, models, students, teachers
from smallmodels.data import Batch, RetrievalSplits
from smallmodels.errors import InputError, require
from smallmodels.models import Model
from smallmodels.runs import Run
from smallmodels.static import StaticRetriever
from smallmodels.training import TrainConfig

QUESTIONS = (
    "run a command and capture its output",
    "how many seconds have passed since the program started",
    "remove a folder and everything in it",
)

MAX_QUERIES = 2000
"""Of validation and of test, where data of one's own have more."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to distil and how."""

    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence-embedding model: hub id or local folder."""
    dataset: str | None = None
    """Queries with their documents, or texts: hub id, or a local CSV, JSON Lines or Parquet file; without it, Python's
    docstrings."""
    dataset_config: str | None = None
    """Configuration of a hub data set that has several."""
    train_split: str = "train"
    """Split to learn on."""
    drop_bad_texts: bool = False
    """Leave out rows whose text is empty, null or a megabyte long, instead of refusing the data."""
    text_columns: tuple[str, ...] = ()
    """Columns with texts to learn on, each value a text of its own, instead of queries and documents."""
    query_column: str = "query"
    """Column with the queries, which are searched for in the documents beside them."""
    document_column: str = "document"
    """Column with the document that belongs to each query."""
    dimensions: int = 256
    """Of an embedding; at most the teacher's width."""
    max_length: int = 64
    """Tokens after which a text is cut."""
    max_entries: int | None = None
    """Use so many functions and classes, queries with their documents, or texts, of each split only."""
    pair_weight: float = 10.0
    """Weight of the similarities between the texts of a batch, beside the distance to the teacher's embeddings; ≥ 0."""
    margin: float = 0.03
    """MRR@10 that the student may lose against the teacher and still do its job."""
    seed: int = 0
    """Of the student's training."""
    split_seed: int = 0
    """Of which modules or documents are held out."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=5, batch_size=64, weight_decay=0.0)

    def __post_init__(self) -> None:
        require(self.dimensions > 0, "dimensions", "> 0", self.dimensions)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.pair_weight >= 0, "pair_weight", ">= 0", self.pair_weight)
        require(self.max_entries is None or self.max_entries > 0, "max_entries", "> 0", self.max_entries)
        require(self.margin >= 0, "margin", ">= 0", self.margin)
        require(self.query_column != self.document_column, "document_column", "another column", self.document_column)
        if self.text_columns and self.dataset is None:
            raise InputError("--text-columns names columns of data of your own: give these with --dataset")
        if self.text_columns and (self.query_column, self.document_column) != ("query", "document"):
            raise InputError("data have either texts or queries with documents: leave --text-columns or the others out")


METRICS = ("mrr_at_10", "recall_at_1", "recall_at_10")
SMOKE = replace(Config(), max_entries=100, train=replace(Config().train, max_steps=2, num_evaluations=1))


def main(config: Config, run: Run) -> None:
    """Embed the texts with the teacher once, teach a table of token vectors to do the same, and compare."""
    # 1. Data and teacher
    splits, teacher_name = load_data(config, run)
    run.add_source(splits.source)
    teacher, name = distilling.load_embedding_teacher(
        run, teacher_name, num_texts=len(splits.train), max_length=config.max_length
    )
    splits = splits.tokenize(teacher.tokenizer, max_length=teacher.max_length)
    compute = run.phase("setup", models.choose_compute, model=teacher, tokens=splits.train.tokens, **run.compute)

    # 2. The teacher's embeddings, paid once, and its vectors of single tokens, on the main axes of the embeddings
    signals = run.phase("cache", teachers.store_signals, teacher, splits.train, compute=compute)
    axes = students.principal_axes(signals.values, config.dimensions)
    vectors = run.phase("vectors", students.token_vectors, teacher, compute=compute)
    centred = vectors - vectors.mean(0)  # what all tokens have in common tells no text from another
    untrained = students.static_embedder(teacher, centred @ axes, texts=splits.train.texts)

    # 3. The student, whose tokens are cut without the teacher's special ones
    splits = replace(splits, train=students.along_axes(splits.train.with_signals(signals), axes))
    splits = splits.tokenize(untrained.tokenizer, max_length=untrained.max_length)

    def loss_fn(model: Model, batch: Batch) -> Tensor:
        embeddings: Tensor = model(**batch.inputs)
        distance = embeddings.shape[1] * losses.embedding_mse(embeddings, nn.functional.normalize(batch.teacher))
        return distance + config.pair_weight * losses.pairwise_similarity(embeddings, batch.teacher)

    documents = splits.test.documents.texts
    done = distilling.distil_embedder(
        run,
        splits.train,
        loss_fn,
        distilling.judge_by_search(splits),
        teacher=teacher,
        untrained=untrained,
        config=config.train,
        seed=config.seed,
        compute=compute,
        untrained_built_by=("vectors", "cache"),
        compared_as=lambda model: StaticRetriever.fit(models.to_numpy(model), documents),
    )

    # 4. Use it
    saved, own = models.to_numpy(done.student), splits.source.name
    kind, tested = "search model", f"Trained and tested on {own}"
    if config.text_columns:
        kind, tested = "embedder", f"Trained on {own}, tested on a search in Python's docstrings"
    index = run.phase("index", evaluation.SearchIndex.build, done.student, splits.corpus, compute=compute)
    run.keep("index", index)
    run.finish(
        saved,
        title=f"Static {kind} for {own}, distilled from {name}",
        margin=config.margin,
        examples=evaluation.example_answers(done.student, index, () if config.dataset else QUESTIONS, compute=compute),
        languages=splits.languages,
        limits=[
            f"{tested}; other topics, longer texts and other languages were not tried.",
            "The order of words does not count: who does what to whom is not seen.",
        ],
        **{**done.about, "model": {**done.about["model"], **saved.facts}},
    )


def load_data(config: Config, run: Run) -> tuple[RetrievalSplits, str]:
    """Texts to learn on and to search in, and the teacher's name with its commit."""
    of_docs = {"split_seed": config.split_seed, "max_entries": config.max_entries}
    if config.dataset is None:
        (teacher_name,) = run.pin((config.teacher, "model"))
        return run.phase("data", data.load_python_docs, **of_docs), teacher_name
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    options = {
        "config": config.dataset_config,
        "train_split": config.train_split,
        "split_seed": config.split_seed,
        "drop_bad_texts": config.drop_bad_texts,
        "max_train": config.max_entries,
    }
    if not config.text_columns:
        columns = {"query_column": config.query_column, "document_column": config.document_column}
        limit = config.max_entries or MAX_QUERIES
        splits = run.phase("data", data.load_search_pairs, dataset_name, **columns, **options, max_test=limit)
        return splits, teacher_name
    docs = run.phase("search_data", data.load_python_docs, extra_sentences=False, **of_docs)
    run.add_source(replace(docs.source, role="evaluation"))
    tasks = (docs.validation, docs.test)
    held_out = [text for task in tasks for text in (*task.queries.texts, *task.documents.texts)]
    own = run.phase(
        "data", data.load_sentences, dataset_name, text_columns=config.text_columns, held_out=held_out, **options
    )
    return replace(docs, train=own.train, corpus=own.train, source=own.source, languages=own.languages), teacher_name


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
