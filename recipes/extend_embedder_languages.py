"""Teach an English embedder's student new languages: a translation goes where the original is.

Source:    Reimers and Gurevych 2020, arXiv:2004.09813, section 2; new tokens as in Gee et al. 2022 (`new_vocabulary`).
Run:       smallmodels run extend_embedder_languages --accept-license other:stsbenchmark
Expected:  the record under benchmarks/results/extend_embedder_languages, which the table in README.md is made from.
           A student of this size that has seen 5,749 translated pairs is a demonstration, not a multilingual model.
Measured:  PhilipMay/stsb_multi_mt, mteb/tatoeba-bitext-mining: spearman 0.633 (teacher 0.602), one seed, flags as in
           its record; 4 min 47 s and 487 CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16.
Licences:  the STS benchmark's texts have terms of their own, some for research only, which --accept-license names;
           Tatoeba's, which only test, are CC-BY-2.0; the teacher (all-MiniLM-L6-v2) is Apache-2.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from torch import Tensor

from smallmodels import baselines, cli, data, distilling, evaluation, losses, models, students, teachers
from smallmodels.data import Batch, Split, Splits
from smallmodels.distilling import Judge
from smallmodels.errors import InputError, require
from smallmodels.evaluation import Contenders, Evaluation
from smallmodels.models import Compute, Model, TextModel
from smallmodels.phases import Context
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
    CSV, JSON Lines or Parquet files with `{language}` in their path. Without scores, name the columns of the texts."""
    text_columns: tuple[str, ...] = ()
    """Columns with texts, each value a text of its own that is translated in the same row of the other languages;
    scores that there may be are not read then."""
    similarity_dataset: str | None = None
    """For such texts: pairs with scores, named like `dataset`, that choose and test. Without them, translations that
    are held back do, by how far up they find their original."""
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
    """Mean of Spearman's correlations, or of reciprocal ranks of originals, that the student may lose against the
    teacher and still do its job."""
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
        if self.similarity_dataset is not None and not self.text_columns:
            raise InputError(
                "--similarity-dataset chooses and tests where the texts to learn on have no scores: name the columns "
                "of these with --text-columns, or leave it out"
            )


SMOKE = replace(
    Config(), max_rows=40, vocabulary_size=2000, train=replace(Config().train, max_steps=2, num_evaluations=1)
)


def main(config: Config, run: Run) -> None:
    """Embed the originals with the teacher once, and draw the student's embeddings of all languages to these."""
    # 1. Data, checked to be translations row by row
    more = (config.similarity_dataset, config.bitext_dataset if config.bitexts else None)
    wanted: list[tuple[str, Literal["dataset"]]] = [(name, "dataset") for name in (config.dataset, *more) if name]
    teacher_name, *pinned = run.pin((config.teacher, "model"), *wanted)
    names = {name: as_pinned for (name, _), as_pinned in zip(wanted, pinned, strict=True)}
    by_language, scored = load_texts(config, run, names)
    bitexts: dict[str, Split] = {}
    if config.bitexts:
        bitext_name, configs, languages = names[config.bitext_dataset], config.bitexts, config.languages
        found = run.phase("bitexts", data.load_bitexts, bitext_name, configs, languages, max_rows=config.max_rows)
        bitexts = {language: split for language, (split, _) in found.items()}
        for _, source in found.values():
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

    done = distilling.distil_embedder(
        run,
        train.tokenize(untrained.tokenizer, max_length=untrained.max_length),
        loss_fn,
        by_scores(scored, bitexts) if scored else by_translations(by_language, config.original, bitexts),
        teacher=teacher,
        untrained=untrained,
        config=config.train,
        seed=config.seed,
        compute=compute,
    )

    # 4. What each language costs, and what is left behind
    tests = {language: splits.test for language, splits in (scored or by_language).items()}
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
    count = len(config.languages)
    run.finish(
        done.student,
        title=f"{config.num_layers}-layer sentence embeddings in {count + 1} languages, distilled from {name}",
        margin=config.margin,
        languages=[code for splits in by_language.values() for code in splits.languages],
        limits=limits_of(config, by_language[config.original], has_scores=bool(scored)),
        **{**done.about, "results": results},
    )


def load_texts(config: Config, run: Run, names: Mapping[str, str]) -> tuple[dict[str, Splits], dict[str, Splits]]:
    """By language, texts to learn on, and pairs with scores that choose and test; the latter may be none."""
    dataset, languages = names[config.dataset], (config.original, *config.languages)
    scored: dict[str, Splits] = {}
    if not config.text_columns:
        texts = scored = run.phase("data", data.load_translated_pairs, dataset, languages, max_rows=config.max_rows)
    else:
        held_out: list[str] = []
        if config.similarity_dataset is not None:
            scored = run.phase(
                "similarity_data",
                data.load_translated_pairs,
                names[config.similarity_dataset],
                languages,
                max_rows=config.max_rows,
                otherwise="choose another --similarity-dataset or other --languages",
            )
            tests = (scored[config.original].validation, scored[config.original].test)
            held_out = [text for split in tests for text in data.sentences_of(split).texts]
        columns = {"text_columns": config.text_columns, "held_out": held_out, "max_rows": config.max_rows}
        texts = run.phase("data", data.load_translations, dataset, languages, **columns)
    for splits in texts.values():
        run.add_source(splits.source)
    if texts is not scored:
        for splits in scored.values():
            run.add_source(replace(splits.source, role="evaluation"))
    return texts, scored


def by_scores(scored: Mapping[str, Splits], bitexts: Mapping[str, Split]) -> Judge:
    """The mean of the languages' correlations with scores chooses and tests."""
    few = {language: splits.validation.first(VALIDATION_PAIRS) for language, splits in scored.items()}
    tests = {language: splits.test for language, splits in scored.items()}

    def validate(model: TextModel, *, compute: Compute) -> float:
        return float(np.mean([evaluation.rank_correlation(model, split, compute=compute) for split in few.values()]))

    def evaluate(contenders: Contenders, *, compute: Compute, context: Context) -> Evaluation:
        return evaluation.evaluate_languages(contenders, tests, bitexts, compute=compute, context=context)

    pairs = data.join_splits(splits.train for splits in scored.values())
    return Judge(
        metric="spearman",
        validate=validate,
        evaluate=evaluate,
        uses=data.join_splits(tests.values()),
        baselines={"tfidf": partial(baselines.TfidfScorer.fit, pairs, num_classes=0)},
    )


def by_translations(by_language: Mapping[str, Splits], original: str, bitexts: Mapping[str, Split]) -> Judge:
    """How far up translations find their originals chooses and tests; no baseline without a network does that."""
    translated = {language: splits for language, splits in by_language.items() if language != original}
    few = {language: splits.validation.first(VALIDATION_PAIRS) for language, splits in translated.items()}
    tests = {language: splits.test for language, splits in translated.items()}

    def evaluate(contenders: Contenders, *, compute: Compute, context: Context) -> Evaluation:
        return evaluation.evaluate_translations(contenders, tests, bitexts, compute=compute, context=context)

    return Judge(
        metric="mrr_at_10",
        validate=partial(evaluation.translation_rank, translations=few),
        evaluate=evaluate,
        uses=replace(data.join_splits(splits.test for splits in by_language.values()), seconds=None),
    )


def limits_of(config: Config, originals: Splits, *, has_scores: bool) -> list[str]:
    """What the student was not taught, and what was not measured of it."""
    if not config.text_columns:
        return [
            f"A demonstration: {len(originals.train):,} pairs of short sentences, translated by a machine, teach no "
            "language. What these pairs do not speak of is embedded badly, and so are languages other than these.",
            "The test pairs are translations by the same machine; Tatoeba's sentences are of another kind.",
        ]
    found = [
        f"Learned on {len(originals.train):,} texts of {originals.source.name} and their translations: what these do "
        "not speak of is embedded badly, and so are languages other than these."
    ]
    if not has_scores:
        found.append(
            f"Judged by whether a translation finds its original among {len(originals.test):,}; how well it tells "
            "alike texts from others was not measured."
        )
    return found


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
