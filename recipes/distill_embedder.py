"""Distil a model of sentence embeddings into a student with fewer layers, and fewer dimensions where asked.

Source:    Reimers and Gurevych 2020, arXiv:2004.09813 (embeddings); Tung and Mori 2019, arXiv:1907.09682 (pairs);
           Kusupati et al. 2022, arXiv:2205.13147 (embeddings that may be cut off).
Run:       smallmodels run distill_embedder --accept-license other:stsbenchmark
Expected:  the record under benchmarks/results/distill_embedder, which the table in README.md is made from.
Measured:  PhilipMay/stsb_multi_mt, docstrings of the Python standard library: spearman 0.819 (teacher 0.820, labels
           alone 0.775), one seed, flags as in its record; 5 min 10 s and 544 CPU-s on Intel(R) Xeon(R) Processor, 2
           cores, fp32.
Licences:  the STS benchmark's texts have terms of their own, some for research only, which --accept-license names;
           Python's docstrings are PSF-2.0; the teacher (all-MiniLM-L6-v2) is Apache-2.0, and a student inherits its
           teacher's.

Judged on which pairs are alike, and on a search: that of data with queries, else one in the docstrings of your Python.
A teacher is a transformer whose token vectors are averaged, or the first one or the largest values taken, with dense
layers that are linear or end with Tanh; one that pools otherwise or puts a prompt before every text is refused.
Prompts that it has for queries or documents alone are not used.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from smallmodels import cli, distilling, evaluation, losses, models, students, teachers
from smallmodels.data import Batch, RetrievalSplits
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.models import Model
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(distilling.TextsConfig):
    """What to distil, on which texts, into what."""

    dataset: str = "PhilipMay/stsb_multi_mt"
    dataset_config: str | None = "en"
    text_columns: tuple[str, ...] = ("sentence1", "sentence2")
    similarity_dataset: str = "PhilipMay/stsb_multi_mt"
    similarity_config: str | None = "en"
    dimensions: int | None = None
    """Of the student's embeddings, through a dense layer that starts as the teacher's principal axes; none keeps the
    teacher's embeddings as they are."""
    prefixes: tuple[int, ...] = ()
    """Numbers of first dimensions after which embeddings shall be good as well, such as 32 64 128."""
    max_length: int = 128
    mse_weight: float = 1.0
    """Weight of the squared distance to the teacher's embedding, summed over its dimensions; ≥ 0."""
    cosine_weight: float = 0.0
    """Weight of one minus the cosine with it, for vectors of length 1 half that distance; ≥ 0."""
    margin: float = 0.02
    """Spearman's correlation that the student may lose against the teacher and still do its job."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=2, batch_size=64, train_embeddings=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.dimensions is None or self.dimensions > 0, "dimensions", "> 0", self.dimensions)
        require(all(m > 0 for m in self.prefixes), "prefixes", "> 0", self.prefixes)
        require(self.mse_weight >= 0, "mse_weight", ">= 0", self.mse_weight)
        require(self.cosine_weight >= 0, "cosine_weight", ">= 0", self.cosine_weight)
        require(max(self.mse_weight, self.cosine_weight, self.pair_weight) > 0, "one of the weights", "> 0", 0)


METRICS = ("spearman", "pearson", "mrr_at_10", "recall_at_1", "recall_at_10")
SMOKE = replace(Config(), max_train=200, max_pairs=100, train=replace(Config().train, max_steps=2, num_evaluations=1))


def main(config: Config, run: Run) -> None:
    """Embed texts with the teacher once, teach the student to do the same, and compare which texts both find alike."""
    # 1. Data and models
    texts, teacher_name = distilling.load_embedding_texts(run, config)
    learned, pairs = texts.learned, texts.pairs
    teacher, name = distilling.load_embedding_teacher(
        run, teacher_name, num_texts=len(learned.train), max_length=config.max_length
    )
    train = learned.train.tokenize(teacher.tokenizer, max_length=teacher.max_length)
    untrained = students.keep_layers(teacher, config.num_layers)
    compute = run.phase("setup", models.choose_compute, model=untrained, tokens=train.tokens, **run.compute)

    # 2. The teacher's embeddings, paid once; along their principal axes where the student has a dense layer
    signals = run.phase("cache", teachers.store_signals, teacher, train, compute=compute)
    train = train.with_signals(signals)
    others: dict[str, Contender] = {}
    of_axes: tuple[str, ...] = ()
    if config.dimensions is not None or config.prefixes:
        axes = students.principal_axes(signals.values, config.dimensions or signals.values.shape[1])
        train, untrained = students.along_axes(train, axes), students.project(untrained, axes)
        of_axes = ("cache",)  # whose embeddings they are the axes of
        others["projected_teacher"] = Contender(students.project(teacher, axes), built_by=of_axes)

    # 3. The method: near to the teacher's embedding, and as far from other texts; also when embeddings are cut off
    def loss_fn(model: Model, batch: Batch) -> Tensor:
        return losses.nested_distances_and_pairs(
            model(**batch.inputs),
            batch.teacher,
            prefixes=config.prefixes,
            mse_weight=config.mse_weight,
            cosine_weight=config.cosine_weight,
            pair_weight=config.pair_weight,
        )

    done = distilling.distil_embedder(
        run,
        train,
        loss_fn,
        distilling.judge_by_pairs(pairs, texts.search, teacher=teacher, prefixes=config.prefixes),
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
    if isinstance(learned, RetrievalSplits):
        index = run.phase("index", evaluation.SearchIndex.build, done.student, learned.corpus, compute=compute)
        run.keep("index", index)
    run.finish(
        done.student,
        title=f"{config.num_layers}-layer sentence embeddings, distilled from {name}",
        margin=config.margin,
        examples=evaluation.example_pairs(done.evaluation, pairs.test, pairs.source),
        languages=learned.languages,
        limits=texts.limits,
        **done.about,
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
