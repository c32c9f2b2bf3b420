"""Distil a search model into one vector per token, on the docstrings of your Python: no torch to use it.

Source:    model2vec (token vectors from a sentence encoder); Reimers and Gurevych 2020, arXiv:2004.09813 (embeddings);
           Park et al. 2019, arXiv:1904.05068 (pairs).
Run:       smallmodels run distill_static_search
Expected:  the record under benchmarks/results/distill_static_search.
Licences:  the texts are part of Python (PSF-2.0), the teacher (all-MiniLM-L6-v2) is Apache-2.0; so is the student.
"""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from smallmodels import baselines, cli, data, evaluation, losses, models, sources, students, teachers, training
from smallmodels.data import Batch
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.models import Model, TextModel
from smallmodels.runs import Run
from smallmodels.static import StaticRetriever
from smallmodels.training import TrainConfig

QUESTIONS = (
    "run a command and capture its output",
    "how many seconds have passed since the program started",
    "remove a folder and everything in it",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to distil and how."""

    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence-embedding model with mean pooling: hub id or local folder."""
    dimensions: int = 256
    """Of an embedding; at most the teacher's width."""
    max_length: int = 64
    """Tokens after which a text is cut."""
    max_entries: int | None = None
    """Use so many functions and classes of each split only."""
    pair_weight: float = 10.0
    """Weight of the similarities between the texts of a batch, beside the distance to the teacher's embeddings; ≥ 0."""
    margin: float = 0.03
    """MRR@10 that the student may lose against the teacher and still do its job."""
    seed: int = 0
    """Of the student's training."""
    split_seed: int = 0
    """Of which modules are held out."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=5, batch_size=64, weight_decay=0.0)

    def __post_init__(self) -> None:
        require(self.dimensions > 0, "dimensions", "> 0", self.dimensions)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.pair_weight >= 0, "pair_weight", ">= 0", self.pair_weight)
        require(self.max_entries is None or self.max_entries > 0, "max_entries", "> 0", self.max_entries)
        require(self.margin >= 0, "margin", ">= 0", self.margin)


SMOKE = replace(Config(), max_entries=100, train=replace(Config().train, max_steps=2, num_evaluations=1))


def main(config: Config, run: Run) -> None:
    """Embed the texts with the teacher once, teach a table of token vectors to do the same, and compare."""
    # 1. Data and teacher
    (teacher_name,) = run.pin((config.teacher, "model"))
    splits = run.phase("data", data.load_python_docs, split_seed=config.split_seed, max_entries=config.max_entries)
    run.add_source(splits.source)
    fetched = sources.fetch_model(teacher_name)
    run.add_source(fetched.source)
    run.say(teachers.require_space(len(splits.train), models.embedding_width(fetched), run.folder))
    teacher, _ = models.load_embedder(fetched, max_length=config.max_length)
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

    def validate(model: TextModel) -> dict[str, float]:
        return {"mrr_at_10": evaluation.mean_reciprocal_rank(model, splits.validation, compute=compute)}

    student = run.phase(
        "train",
        training.fit,
        untrained.copy(),
        splits.train,
        loss_fn,
        config.train,
        seed=config.seed,
        validate=validate,
        compute=compute,
    )
    tfidf = run.phase("tfidf", baselines.TfidfRetriever.fit, splits.test.documents.texts)

    # 4. The test split is read here, once, by models as they are saved: numpy
    saved, before = models.to_numpy(student), models.to_numpy(untrained)
    documents = splits.test.documents.texts
    contenders = {
        "teacher": Contender(teacher),
        "student": Contender(StaticRetriever.fit(saved, documents), built_by=("vectors", "cache", "train")),
        "untrained_student": Contender(StaticRetriever.fit(before, documents), built_by=("vectors", "cache")),
        "tfidf": Contender(tfidf, built_by=("tfidf",)),
    }
    result = run.phase("evaluate", evaluation.evaluate_retrieval, contenders, splits.test, compute=compute)
    costs = run.phase(
        "inference",
        evaluation.measure_inference,
        contenders,
        splits.test.queries,
        protocol="smoke" if run.smoke else "indicative",
        compute=compute,
    )

    # 5. Use it
    index = run.phase("index", evaluation.SearchIndex.build, student, splits.corpus, compute=compute)
    run.keep("index", index)
    run.finish(
        saved,
        title=f"Static search model for Python's documentation, distilled from {fetched.source.name}",
        task="sentence-similarity",
        metric="mrr_at_10",
        margin=config.margin,
        results=result.results,
        inference=costs.inference,
        predictions=result.predictions,
        curve=training.curve(student),
        examples=evaluation.example_answers(student, index, QUESTIONS, compute=compute),
        model={**models.describe(student, compute), **saved.facts},
        languages=splits.languages,
        limits=[
            "Trained and tested on short English sentences about Python's standard library; "
            "other topics, longer texts and other languages were not tried.",
            "The order of words does not count: who does what to whom is not seen.",
        ],
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
