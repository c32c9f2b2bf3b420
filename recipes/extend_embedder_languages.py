"""Teach an English embedder's student new languages: a translation goes where the original is.

Source:    Reimers and Gurevych 2020, arXiv:2004.09813, section 2; new tokens as in Gee et al. 2022 (`new_vocabulary`).
Run:       smallmodels run extend_embedder_languages --accept-license other:stsbenchmark
Expected:  the record under benchmarks/results/extend_embedder_languages, which the table in README.md is made from.
           Its student has seen 1,500 of the 5,749 pairs in each language: a demonstration, not a multilingual model.
Measured:  PhilipMay/stsb_multi_mt, mteb/tatoeba-bitext-mining: spearman 0.633 (teacher 0.602), one seed, flags as in
           its record; 4 min 47 s and 487 CPU-s on Intel(R) Xeon(R) Processor, 2 cores, bf16.
Licences:  the STS benchmark's texts have terms of their own, some for research only, which --accept-license names;
           Tatoeba's, which only test, are CC-BY-2.0; the teacher (all-MiniLM-L6-v2) is Apache-2.0.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from smallmodels import cli, data, distilling, losses, models, students, teachers
from smallmodels.data import Batch
from smallmodels.errors import require
from smallmodels.models import Model
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config(distilling.TranslationsConfig):
    """What to teach, from which translations, to what."""

    dataset: str = "PhilipMay/stsb_multi_mt"
    languages: tuple[str, ...] = ("de", "es", "fr", "ru", "zh")
    bitext_dataset: str = "mteb/tatoeba-bitext-mining"
    bitexts: tuple[str, ...] = ("deu-eng", "spa-eng", "fra-eng", "rus-eng", "cmn-eng")
    vocabulary_size: int = 16000
    """Tokens of the student, made from the training texts of all languages."""
    margin: float = 0.02
    """Mean of Spearman's correlations, or of reciprocal ranks of originals, that the student may lose against the
    teacher and still do its job."""
    seed: int = 0
    """Of the student's new tokens and its training."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=4, batch_size=128)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.vocabulary_size > 0, "vocabulary_size", "> 0", self.vocabulary_size)


METRICS = ("spearman", "pearson", "mrr_at_10", "recall_at_1", "recall_at_10")
SMOKE = replace(
    Config(), max_rows=40, vocabulary_size=2000, train=replace(Config().train, max_steps=2, num_evaluations=1)
)


def main(config: Config, run: Run) -> None:
    """Embed the originals with the teacher once, and draw the student's embeddings of all languages to these."""
    # 1. Data, checked to be translations row by row
    texts, teacher_name = distilling.load_translations(run, config)
    by_language = {language: splits.train for language, splits in texts.learned.items()}
    originals = data.sentences_of(by_language[config.original])
    teacher, name = distilling.load_embedding_teacher(
        run, teacher_name, num_texts=len(originals), max_length=config.max_length
    )

    # 2. The student, whose tokens are made from all languages, and the teacher's embeddings of the originals, paid once
    small = students.keep_layers(teacher, config.num_layers)
    every_text = [text for split in by_language.values() for text in data.sentences_of(split).texts]
    untrained = students.new_vocabulary(small, every_text, vocabulary_size=config.vocabulary_size, seed=config.seed)
    originals = originals.tokenize(teacher.tokenizer, max_length=teacher.max_length)
    compute = run.phase("setup", models.choose_compute, model=small, tokens=originals.tokens, **run.compute)
    signals = run.phase("cache", teachers.store_signals, teacher, originals, compute=compute)
    train = data.with_originals_rows(by_language, originals.with_signals(signals))

    # 3. The method: an original and its translations all go to where the teacher has the original
    def loss_fn(model: Model, batch: Batch) -> Tensor:
        return losses.distance_and_pairs(model(**batch.inputs), batch.teacher, pair_weight=config.pair_weight)

    done = distilling.distil_embedder(
        run,
        train.tokenize(untrained.tokenizer, max_length=untrained.max_length),
        loss_fn,
        texts.judge,
        teacher=teacher,
        untrained=untrained,
        config=config.train,
        seed=config.seed,
        compute=compute,
    )

    # 4. What each language costs, and what is left behind
    compared = {"teacher": teacher, "student": done.student}
    results = distilling.with_language_costs(run, done.about["results"], compared, texts.tests, compute=compute)
    count = len(config.languages)
    run.finish(
        done.student,
        title=f"{config.num_layers}-layer sentence embeddings in {count + 1} languages, distilled from {name}",
        margin=config.margin,
        languages=texts.languages,
        limits=texts.limits,
        **{**done.about, "results": results},
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
