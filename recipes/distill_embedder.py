"""Distil a model of sentence embeddings into a student with fewer layers, and fewer dimensions where asked.

Source:    Reimers and Gurevych 2020, arXiv:2004.09813 (embeddings); Tung and Mori 2019, arXiv:1907.09682 (pairs);
           Kusupati et al. 2022, arXiv:2205.13147 (embeddings that may be cut off).
Run:       smallmodels run distill_embedder --accept-license other:stsbenchmark
Expected:  the record under benchmarks/results/distill_embedder, which the table in README.md is made from.
Measured:  PhilipMay/stsb_multi_mt: spearman 0.819 (teacher 0.820), one seed, flags as in its record; 2 min 34 s and 164
           CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16, which other work shared.
Licences:  the STS benchmark's texts have terms of their own, some for research only, which --accept-license names;
           Python's docstrings are PSF-2.0; the teacher (all-MiniLM-L6-v2) is Apache-2.0, and a student inherits its
           teacher's.

Judged on which pairs are alike, and on a search: that of data with queries, else one in the docstrings of your Python.
A teacher is a transformer whose token vectors are averaged, or the first one taken, with one linear dense layer at
most; one that pools otherwise, has an activation after that layer, or puts a prompt before every text is refused.
Prompts that it has for queries or documents alone are not used.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from smallmodels import (
    baselines,
    cli,
    data,
    distilling,
    evaluation,
    losses,
    models,
    students,
    teachers,
)
from smallmodels.data import Batch, RetrievalSplits, Sentences
from smallmodels.distilling import Judge
from smallmodels.errors import InputError, require
from smallmodels.evaluation import Contender, Contenders, Evaluation
from smallmodels.models import Compute, Model
from smallmodels.phases import Context
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to distil, on which texts, into what."""

    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence-embedding model: hub id or local folder."""
    dataset: str = "PhilipMay/stsb_multi_mt"
    """Texts to learn on: hub id, a local CSV, JSON Lines or Parquet file, or a folder of text files."""
    dataset_config: str | None = "en"
    """Configuration of a hub data set that has several; the default goes with the default data set alone."""
    text_columns: tuple[str, ...] = ("sentence1", "sentence2")
    """Columns with texts, each value a text of its own."""
    query_column: str | None = None
    """Instead of text columns: column with queries, which are searched for in the documents beside them."""
    document_column: str | None = None
    """Column with the document that belongs to each query."""
    train_split: str = "train"
    """Split to learn on."""
    drop_overlap: bool = False
    """Drop texts that also stand in what validates or tests."""
    drop_bad_texts: bool = False
    """Leave out texts that are empty, null or a megabyte long, instead of refusing the data."""
    max_train: int | None = None
    """Learn on so many texts, or pairs of query and document, only."""
    similarity_dataset: str = "PhilipMay/stsb_multi_mt"
    """Pairs of texts with scores, on whose validation split training chooses and on whose test split it is judged."""
    similarity_config: str | None = "en"
    """Its configuration, likewise."""
    max_pairs: int | None = None
    """Test on so many of these pairs, and of Python's functions and classes where these are searched in, only."""
    num_layers: int = 3
    """Layers of the teacher that the student keeps."""
    dimensions: int | None = None
    """Of the student's embeddings, through a dense layer that starts as the teacher's principal axes; none keeps the
    teacher's embeddings as they are."""
    prefixes: tuple[int, ...] = ()
    """Numbers of first dimensions after which embeddings shall be good as well, such as 32 64 128."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    mse_weight: float = 1.0
    """Weight of the squared distance to the teacher's embedding, summed over its dimensions; ≥ 0."""
    cosine_weight: float = 0.0
    """Weight of one minus the cosine with it, for vectors of length 1 half that distance; ≥ 0."""
    pair_weight: float = 10.0
    """Weight of the similarities between the texts of a batch; ≥ 0."""
    margin: float = 0.02
    """Spearman's correlation that the student may lose against the teacher and still do its job."""
    seed: int = 0
    """Of the student's training."""
    split_seed: int = 0
    """Of the rows that are held out or left out."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=2, batch_size=64, train_embeddings=False)

    def __post_init__(self) -> None:
        require(self.num_layers > 0, "num_layers", "> 0", self.num_layers)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.dimensions is None or self.dimensions > 0, "dimensions", "> 0", self.dimensions)
        require(all(m > 0 for m in self.prefixes), "prefixes", "> 0", self.prefixes)
        weights = {name: getattr(self, name) for name in ("mse_weight", "cosine_weight", "pair_weight")}
        for name, weight in weights.items():
            require(weight >= 0, name, ">= 0", weight)
        require(max(weights.values()) > 0, "one of the weights", "> 0", 0)
        require(self.margin >= 0, "margin", ">= 0", self.margin)
        if (self.query_column is None) != (self.document_column is None):
            raise InputError("a search needs queries and documents: give both --query-column and --document-column")

    @property
    def learns_on_scored_pairs(self) -> bool:
        """Whether the texts to learn on are those of the pairs with scores, so that these teach without a teacher."""
        learned_on = (self.dataset, self.dataset_config, self.train_split, self.query_column)
        return learned_on == (self.similarity_dataset, self.similarity_config, "train", None)


SMOKE = replace(Config(), max_train=200, max_pairs=100, train=replace(Config().train, max_steps=2, num_evaluations=1))


def main(config: Config, run: Run) -> None:
    """Embed texts with the teacher once, teach the student to do the same, and compare which texts both find alike."""
    # 1. Data and models
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
    held_out = [text for split in (pairs.validation, pairs.test) for text in data.sentences_of(split).texts]
    texts = load_texts(config, run, dataset_name, held_out=held_out)
    run.add_source(texts.source)
    search = load_search(config, run, texts)
    teacher, name = distilling.load_embedding_teacher(
        run, teacher_name, num_texts=len(texts.train), max_length=config.max_length
    )
    train = texts.train.tokenize(teacher.tokenizer, max_length=teacher.max_length)
    untrained = students.keep_layers(teacher, config.num_layers)
    compute = run.phase("setup", models.choose_compute, model=untrained, tokens=train.tokens, **run.compute)

    # 2. The teacher's embeddings, paid once; along their principal axes where the student has a dense layer
    signals = run.phase("cache", teachers.store_signals, teacher, train, compute=compute)
    train = train.with_signals(signals)
    others: dict[str, Contender] = {}
    of_axes: tuple[str, ...] = ()
    if config.dimensions is not None or config.prefixes:
        width = signals.values.shape[1]
        axes = students.principal_axes(signals.values, config.dimensions or width)
        train = students.along_axes(train, axes)
        untrained = students.project(untrained, axes)
        of_axes = ("cache",)  # whose embeddings they are the axes of
        others["projected_teacher"] = Contender(students.project(teacher, axes), built_by=of_axes)

    # 3. The method: near to the teacher's embedding, and as far from other texts; also when embeddings are cut off
    def distance(student: Tensor, teacher: Tensor) -> Tensor:
        student, target = losses.unit_length(student), losses.unit_length(teacher)
        squared = student.shape[1] * losses.embedding_mse(student, target)
        return config.mse_weight * squared + config.cosine_weight * losses.embedding_cosine(student, target)

    def loss_fn(model: Model, batch: Batch) -> Tensor:
        embeddings: Tensor = model(**batch.inputs)
        widths = [embeddings.shape[1], *(m for m in config.prefixes if m < embeddings.shape[1])]
        found = [
            distance(embeddings[:, :m], batch.teacher[:, :m])
            + config.pair_weight * losses.pairwise_similarity(embeddings[:, :m], batch.teacher)
            for m in widths
        ]
        return sum(found[1:], found[0]) / len(found)

    def evaluate(contenders: Contenders, *, compute: Compute, context: Context) -> Evaluation:
        how: dict[str, Any] = {"compute": compute, "context": context}
        found = evaluation.evaluate_similarity(contenders, pairs.test, prefixes=config.prefixes, **how)
        task = search.test.tokenize(teacher.tokenizer, max_length=teacher.max_length)
        engine = Contender(baselines.TfidfRetriever.fit(task.documents.texts))
        searched = evaluation.evaluate_retrieval({**contenders, "tfidf": engine}, task, **how)
        return evaluation.with_metrics_of(found, searched)

    done = distilling.distil_embedder(
        run,
        train,
        loss_fn,
        Judge(
            metric="spearman",
            validate=partial(evaluation.rank_correlation, split=pairs.validation),
            evaluate=evaluate,
            uses=pairs.test,
            baselines={"tfidf": partial(baselines.TfidfScorer.fit, pairs.train, num_classes=0)},
        ),
        teacher=teacher,
        untrained=untrained,
        scored=pairs.train if config.learns_on_scored_pairs else None,
        untrained_built_by=of_axes,
        others=others,
        config=config.train,
        seed=config.seed,
        compute=compute,
    )

    # 4. What is left behind; `smallmodels search` uses the index
    if isinstance(texts, RetrievalSplits):
        index = run.phase("index", evaluation.SearchIndex.build, done.student, texts.corpus, compute=compute)
        run.keep("index", index)
    run.finish(
        done.student,
        title=f"{config.num_layers}-layer sentence embeddings, distilled from {name}",
        margin=config.margin,
        examples=evaluation.example_pairs(done.evaluation, pairs.test, pairs.source),
        languages=texts.languages,
        limits=[
            f"Learned on texts of {texts.source.name} and judged on pairs of {pairs.source.name} and searches in "
            f"{search.source.name}: short texts of a few kinds; longer ones, other topics and other languages were not "
            "tried."
        ],
        **done.about,
    )


def load_texts(config: Config, run: Run, name: str, held_out: list[str]) -> Sentences | RetrievalSplits:
    """The texts to learn on, with something to search in where the data have queries."""
    options = {
        "config": config.dataset_config,
        "train_split": config.train_split,
        "split_seed": config.split_seed,
        "held_out": held_out,
        "drop_overlap": config.drop_overlap,
        "drop_bad_texts": config.drop_bad_texts,
        "max_train": config.max_train,
    }
    if config.query_column is not None and config.document_column is not None:
        columns = {"query_column": config.query_column, "document_column": config.document_column}
        return run.phase("data", data.load_search_pairs, name, **columns, **options)
    return run.phase(
        "data",
        data.load_sentences,
        name,
        text_columns=config.text_columns,
        **options,
    )


def load_search(config: Config, run: Run, texts: Sentences | RetrievalSplits) -> RetrievalSplits:
    """What the models search in to be judged: the data themselves where they have queries, else Python's docstrings."""
    if isinstance(texts, RetrievalSplits):
        return texts
    options = {"split_seed": config.split_seed, "max_entries": config.max_pairs}
    docs = run.phase("search_data", data.load_python_docs, extra_sentences=False, **options)
    run.add_source(replace(docs.source, role="evaluation"))
    return docs


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
