"""Distil a search model into one vector per token, on your Python's docstrings or data of your own: no torch to use it.

Source:    model2vec (token vectors from a sentence encoder); Reimers and Gurevych 2020, arXiv:2004.09813 (embeddings);
           Park et al. 2019, arXiv:1904.05068 (pairs).
Run:       smallmodels run distill_static_search
Expected:  the record under benchmarks/results/distill_static_search.
Measured:  docstrings of the Python standard library: MRR@10 0.439 (teacher 0.518), one seed; 1 min 26 s and 87.2 CPU-s
           on Intel(R) Xeon(R) Processor, 2 cores, bf16, which other work shared.
Licences:  the texts are part of Python (PSF-2.0), the teacher (all-MiniLM-L6-v2) is Apache-2.0; so is the student.

Data of your own should be queries with their documents: plain texts alone, as distill_embedder takes, are not enough.
"""

from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from smallmodels import baselines, cli, data, distilling, evaluation, losses, models, students, teachers
from smallmodels.data import Batch, RetrievalSplits
from smallmodels.distilling import Judge
from smallmodels.errors import require
from smallmodels.evaluation import Contenders, Evaluation
from smallmodels.models import Compute, Model
from smallmodels.phases import Context
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
    """Queries with their documents: hub id, or a local CSV, JSON Lines or Parquet file; without it, Python's
    docstrings."""
    dataset_config: str | None = None
    """Configuration of a hub data set that has several."""
    query_column: str = "query"
    """Column with the queries, which are searched for in the documents beside them."""
    document_column: str = "document"
    """Column with the document that belongs to each query."""
    dimensions: int = 256
    """Of an embedding; at most the teacher's width."""
    max_length: int = 64
    """Tokens after which a text is cut."""
    max_entries: int | None = None
    """Use so many functions and classes, or queries with their documents, of each split only."""
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

    def evaluate(contenders: Contenders, *, compute: Compute, context: Context) -> Evaluation:
        return evaluation.evaluate_retrieval(contenders, splits.test, compute=compute, context=context)

    documents = splits.test.documents.texts
    done = distilling.distil_embedder(
        run,
        splits.train,
        loss_fn,
        Judge(
            metric="mrr_at_10",
            validate=partial(evaluation.mean_reciprocal_rank, split=splits.validation),
            evaluate=evaluate,
            uses=splits.test.queries,
            baselines={"tfidf": partial(baselines.TfidfRetriever.fit, documents)},
        ),
        teacher=teacher,
        untrained=untrained,
        config=config.train,
        seed=config.seed,
        compute=compute,
        untrained_built_by=("vectors", "cache"),
        compared_as=lambda model: StaticRetriever.fit(models.to_numpy(model), documents),
    )

    # 4. Use it
    saved = models.to_numpy(done.student)
    index = run.phase("index", evaluation.SearchIndex.build, done.student, splits.corpus, compute=compute)
    run.keep("index", index)
    run.finish(
        saved,
        title=f"Static search model for {splits.source.name}, distilled from {name}",
        margin=config.margin,
        examples=evaluation.example_answers(done.student, index, () if config.dataset else QUESTIONS, compute=compute),
        languages=splits.languages,
        limits=[
            f"Trained and tested on {splits.source.name}; other topics, longer texts and other languages were not "
            "tried.",
            "The order of words does not count: who does what to whom is not seen.",
        ],
        **{**done.about, "model": {**done.about["model"], **saved.facts}},
    )


def load_data(config: Config, run: Run) -> tuple[RetrievalSplits, str]:
    """Texts to learn on and to search in, and the teacher's name with its commit."""
    if config.dataset is None:
        (teacher_name,) = run.pin((config.teacher, "model"))
        options = {"split_seed": config.split_seed, "max_entries": config.max_entries}
        return run.phase("data", data.load_python_docs, **options), teacher_name
    dataset_name, teacher_name = run.pin((config.dataset, "dataset"), (config.teacher, "model"))
    splits = run.phase(
        "data",
        data.load_search_pairs,
        dataset_name,
        config=config.dataset_config,
        query_column=config.query_column,
        document_column=config.document_column,
        split_seed=config.split_seed,
        max_train=config.max_entries,
        max_test=config.max_entries or MAX_QUERIES,
    )
    return splits, teacher_name


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
