"""Teach an English embedder's student new languages: a translation goes where the original is.

Source:    Reimers and Gurevych 2020, arXiv:2004.09813, section 2; new tokens as in Gee et al. 2022 (`new_vocabulary`).
Run:       smallmodels run extend_embedder_languages --accept-license other:stsbenchmark
Expected:  the record under benchmarks/results/extend_embedder_languages, which the table in README.md is made from.
           A student of this size that has seen 5,749 translated pairs is a demonstration, not a multilingual model.
Licences:  the STS benchmark's texts have terms of their own, some for research only, which --accept-license names;
           Tatoeba's, which only test, are CC-BY-2.0; the teacher (all-MiniLM-L6-v2) is Apache-2.0.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from torch import Tensor

from smallmodels import baselines, cli, data, distilling, evaluation, losses, models, students, teachers
from smallmodels.data import Batch, Split
from smallmodels.distilling import Judge
from smallmodels.errors import InputError, require
from smallmodels.evaluation import Contenders, Evaluation
from smallmodels.models import Compute, Model, TextModel
from smallmodels.phases import Context
from smallmodels.records import Source
from smallmodels.runs import Run
from smallmodels.training import TrainConfig

VALIDATION_PAIRS = 300
"""Of each language, while training: all of them would take longer than the training between two looks."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to teach, from which translations, to what."""

    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence-embedding model of the original language: hub id or local folder."""
    dataset: str = "PhilipMay/stsb_multi_mt"
    """Pairs of texts with scores, the same rows in each language: on the hub with a configuration for each, or local
    CSV, JSON Lines or Parquet files with `{language}` in their path."""
    original: str = "en"
    """Configuration in the teacher's language."""
    languages: tuple[str, ...] = ("de", "es", "fr", "ru", "zh")
    """Configurations with the translations."""
    bitext_dataset: str = "mteb/tatoeba-bitext-mining"
    """Sentences with English translations, which only test: columns sentence1 and sentence2."""
    bitexts: tuple[str, ...] = ("deu-eng", "spa-eng", "fra-eng", "rus-eng", "cmn-eng")
    """Its configurations; those of other languages than the ones above are left out, and `--bitexts` alone leaves out
    the whole test, which else needs the hub."""
    max_rows: int | None = None
    """Use so many rows of each split and language only."""
    num_layers: int = 3
    """Layers of the teacher that the student keeps."""
    vocabulary_size: int = 16000
    """Tokens of the student, made from the training texts of all languages."""
    max_length: int = 64
    """Tokens after which a text is cut."""
    pair_weight: float = 10.0
    """Weight of the similarities between the texts of a batch, beside the distance to the teacher's embeddings; ≥ 0."""
    margin: float = 0.02
    """Mean of Spearman's correlations that the student may lose against the teacher and still do its job."""
    seed: int = 0
    """Of the student's new tokens and its training."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=4, batch_size=128)

    def __post_init__(self) -> None:
        require(self.num_layers > 0, "num_layers", "> 0", self.num_layers)
        require(self.vocabulary_size > 0, "vocabulary_size", "> 0", self.vocabulary_size)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.max_rows is None or self.max_rows > 1, "max_rows", "> 1", self.max_rows)
        require(self.pair_weight >= 0, "pair_weight", ">= 0", self.pair_weight)
        require(self.margin >= 0, "margin", ">= 0", self.margin)
        if not self.languages or self.original in self.languages:
            raise InputError(f"--languages should name one or more besides {self.original}, the teacher's own")


SMOKE = replace(
    Config(), max_rows=40, vocabulary_size=2000, train=replace(Config().train, max_steps=2, num_evaluations=1)
)


def main(config: Config, run: Run) -> None:
    """Embed the originals with the teacher once, and draw the student's embeddings of all languages to these."""
    # 1. Data, checked to be translations row by row
    bitext_dataset: list[tuple[str, Literal["dataset"]]]
    bitext_dataset = [(config.bitext_dataset, "dataset")] if config.bitexts else []
    dataset_name, teacher_name, *bitext_names = run.pin(
        (config.dataset, "dataset"), (config.teacher, "model"), *bitext_dataset
    )
    by_language = run.phase(
        "data",
        data.load_translated_pairs,
        dataset_name,
        (config.original, *config.languages),
        max_rows=config.max_rows,
    )
    bitexts: dict[str, tuple[Split, Source]] = {}
    if bitext_names:
        bitexts = run.phase(
            "bitexts", data.load_bitexts, *bitext_names, config.bitexts, config.languages, max_rows=config.max_rows
        )
    for source in [*(s.source for s in by_language.values()), *(source for _, source in bitexts.values())]:
        run.add_source(source)
    originals = data.sentences_of(by_language[config.original].train)
    teacher, name = distilling.load_embedding_teacher(
        run, teacher_name, num_texts=len(originals), max_length=config.max_length
    )

    # 2. The student, whose tokens are made from all languages, and the teacher's embeddings of the originals, paid once
    small = students.keep_layers(teacher, config.num_layers)
    texts = [text for splits in by_language.values() for text in data.sentences_of(splits.train).texts]
    untrained = students.new_vocabulary(small, texts, vocabulary_size=config.vocabulary_size, seed=config.seed)
    originals = originals.tokenize(teacher.tokenizer, max_length=teacher.max_length)
    compute = run.phase("setup", models.choose_compute, model=small, tokens=originals.tokens, **run.compute)
    signals = run.phase("cache", teachers.store_signals, teacher, originals, compute=compute)
    translated = {language: splits.train for language, splits in by_language.items()}
    train = data.with_originals_rows(translated, originals.with_signals(signals))

    # 3. The method: an original and its translations all go to where the teacher has the original
    def loss_fn(model: Model, batch: Batch) -> Tensor:
        embeddings: Tensor = model(**batch.inputs)
        distance = embeddings.shape[1] * losses.embedding_mse(embeddings, batch.teacher)
        return distance + config.pair_weight * losses.pairwise_similarity(embeddings, batch.teacher)

    few = {language: splits.validation.first(VALIDATION_PAIRS) for language, splits in by_language.items()}
    tests = {language: splits.test for language, splits in by_language.items()}

    def validate(model: TextModel, *, compute: Compute) -> float:
        return float(np.mean([evaluation.rank_correlation(model, split, compute=compute) for split in few.values()]))

    def evaluate(contenders: Contenders, *, compute: Compute, context: Context) -> Evaluation:
        pairs = {language: split for language, (split, _) in bitexts.items()}
        return evaluation.evaluate_languages(contenders, tests, pairs, compute=compute, context=context)

    done = distilling.distil_embedder(
        run,
        train.tokenize(untrained.tokenizer, max_length=untrained.max_length),
        loss_fn,
        Judge(
            metric="spearman",
            validate=validate,
            evaluate=evaluate,
            uses=data.join_splits(tests.values()),
            baselines={
                "tfidf": partial(baselines.TfidfScorer.fit, data.join_splits(translated.values()), num_classes=0)
            },
        ),
        teacher=teacher,
        untrained=untrained,
        config=config.train,
        seed=config.seed,
        compute=compute,
    )

    # 4. What each language costs, and what is left behind
    results = done.about["results"]
    for role, model in {"teacher": teacher, "student": done.student}.items():
        costs = run.phase(
            f"languages_{role}",
            evaluation.language_costs,
            model,
            {language: replace(split, seconds=None) for language, split in tests.items()},
            compute=compute,
        )
        results = evaluation.with_group_rows(results, role, costs)
    num_pairs, count = len(by_language[config.original].train), len(config.languages)
    run.finish(
        done.student,
        title=f"{config.num_layers}-layer sentence embeddings in {count + 1} languages, distilled from {name}",
        margin=config.margin,
        languages=[code for splits in by_language.values() for code in splits.languages],
        limits=[
            f"A demonstration: {num_pairs:,} pairs of short sentences, translated by a machine, teach no language. "
            "What these pairs do not speak of is embedded badly, and so are languages other than these.",
            "The test pairs are translations by the same machine; Tatoeba's sentences are of another kind.",
        ],
        **{**done.about, "results": results},
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
