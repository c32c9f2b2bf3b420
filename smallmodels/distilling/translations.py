"""What an embedder of several languages learns on and is judged by: the same texts in each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from smallmodels import data, evaluation, records, sources
from smallmodels.data import Split, Splits
from smallmodels.distilling.embedders import EmbedderConfig
from smallmodels.distilling.judges import Judge, judge_by_scores, judge_by_translations
from smallmodels.errors import InputError, require
from smallmodels.models import Compute, TextModel
from smallmodels.runs import Run


@dataclass(frozen=True, kw_only=True)
class TranslationsConfig(EmbedderConfig):
    """What a recipe asks for whose texts are translated into several languages."""

    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Sentence-embedding model of the original language: hub id or local folder."""
    dataset: str
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
    languages: tuple[str, ...]
    """Configurations with the translations."""
    bitext_dataset: str
    """Sentences with English translations, which only test: columns sentence1 and sentence2."""
    bitexts: tuple[str, ...] = ()
    """Its configurations; those of other languages than the ones above are left out, and `--bitexts` alone leaves out
    the whole test, which else needs the hub."""
    max_rows: int | None = None
    """Use so many rows of each split and language only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_rows is None or self.max_rows > 1, "max_rows", "> 1", self.max_rows)
        if not self.languages or self.original in self.languages:
            raise InputError(f"--languages should name one or more besides {self.original}, the teacher's own")
        if self.similarity_dataset is not None and not self.text_columns:
            raise InputError(
                "--similarity-dataset chooses and tests where the texts to learn on have no scores: name the columns "
                "of these with --text-columns, or leave it out"
            )
        data.bitexts_by_language(self.bitexts, self.languages)  # refuses those of no known language


@dataclass(frozen=True, kw_only=True)
class Translations:
    """Texts with their translations, and what tests embedders of them."""

    original: str
    """The language that is translated."""
    learned: Mapping[str, Splits]
    """By language, the same rows in each: pairs with scores, or texts of which those to choose and test on have their
    original as their second text."""
    scored: Mapping[str, Splits]
    """By language, pairs with scores that choose and test; empty where there are none."""
    bitexts: Mapping[str, Split]
    """By language, sentences with their English translations, which only test."""
    have_own_scores: bool
    """Whether `scored` are the pairs that are learned on."""

    @property
    def judge(self) -> Judge:
        """Scores choose and test; without any, translations that were held back."""
        if self.scored:
            return judge_by_scores(self.scored, self.bitexts)
        return judge_by_translations(self.learned, self.original, self.bitexts)

    @property
    def tests(self) -> dict[str, Split]:
        """By language, texts or pairs of the same content."""
        return {language: splits.test for language, splits in (self.scored or self.learned).items()}

    @property
    def languages(self) -> list[str]:
        """Codes of all of them, as declared by the data."""
        return [code for splits in self.learned.values() for code in splits.languages]

    @property
    def limits(self) -> list[str]:
        """What a student was not taught, and what was not measured of it."""
        return [*self._limits_of_texts, *self._limits_of_bitexts]

    @property
    def _limits_of_texts(self) -> list[str]:
        originals = self.learned[self.original]
        if self.have_own_scores:
            return [
                f"A demonstration: {len(originals.train):,} pairs of short sentences, translated by a machine, teach "
                "no language. What these pairs do not speak of is embedded badly, and so are languages other than "
                "these.",
                "The test pairs are translations by the same machine; Tatoeba's sentences are of another kind.",
            ]
        found = [
            f"Learned on {len(originals.train):,} texts of {originals.source.name} and their translations: what these "
            "do not speak of is embedded badly, and so are languages other than these."
        ]
        if not self.scored:
            found.append(
                f"Judged by whether a translation finds its original among {len(originals.test):,}; how well it tells "
                "alike texts from others was not measured."
            )
        return found

    @property
    def _limits_of_bitexts(self) -> list[str]:
        missing = [language for language in self.learned if language not in (self.original, *self.bitexts)]
        if not missing:
            return []
        return [
            f"No bitext tests {', '.join(missing)}: whether sentences of other data find their translations "
            "was not measured there."
        ]


def load_translations(run: Run, config: TranslationsConfig) -> tuple[Translations, str]:
    """The phases `data`, `similarity_data` and `bitexts`, the latter two where there are such data.

    Args:
        run: Notes where all came from; what is read is pinned at once, the teacher too.
        config: Of the recipe.

    Returns: The texts, and the teacher's name with its commit.
    """
    teacher_name, names = _pin(run, config)
    learned, scored = _load_rows(run, config, names)
    for splits in learned.values():
        run.add_source(splits.source)
    if config.text_columns:
        for splits in scored.values():
            run.add_source(replace(splits.source, role="evaluation"))
    bitexts: dict[str, Split] = {}
    if config.bitexts:
        bitext_name, rows = names[config.bitext_dataset], config.max_rows
        found = run.phase("bitexts", data.load_bitexts, bitext_name, config.bitexts, config.languages, max_rows=rows)
        bitexts = {language: split for language, (split, _) in found.items()}
        for _, source in found.values():
            run.add_source(source)
    texts = Translations(
        original=config.original,
        learned=learned,
        scored=scored,
        bitexts=bitexts,
        have_own_scores=not config.text_columns,
    )
    return texts, teacher_name


def _pin(run: Run, config: TranslationsConfig) -> tuple[str, dict[str, str]]:
    """The teacher's name with its commit, and by name those of the data that are read."""
    more = (config.similarity_dataset, config.bitext_dataset if config.bitexts else None)
    wanted: list[tuple[str, sources.Kind]] = [(name, "dataset") for name in (config.dataset, *more) if name]
    teacher_name, *pinned = run.pin((config.teacher, "model"), *wanted)
    return teacher_name, {name: as_pinned for (name, _), as_pinned in zip(wanted, pinned, strict=True)}


def _load_rows(
    run: Run, config: TranslationsConfig, names: Mapping[str, str]
) -> tuple[dict[str, Splits], dict[str, Splits]]:
    """By language, texts to learn on, and pairs with scores that choose and test; the latter may be none."""
    dataset, languages = names[config.dataset], (config.original, *config.languages)
    if not config.text_columns:
        texts = run.phase("data", data.load_translated_pairs, dataset, languages, max_rows=config.max_rows)
        return texts, texts
    scored: dict[str, Splits] = {}
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
    return run.phase("data", data.load_translations, dataset, languages, **columns), scored


def with_language_costs(
    run: Run,
    results: Sequence[records.Result],
    models_by_role: Mapping[str, TextModel],
    tests: Mapping[str, Split],
    *,
    compute: Compute,
) -> list[records.Result]:
    """Results with what each language costs each of some models, of which each is a phase `languages_ROLE`.

    Args:
        run: Gets the phases.
        results: With the roles of the models.
        models_by_role: What is measured.
        tests: By language; of pairs, the first texts.
        compute: Device and number format of the models.
    """
    texts = {language: replace(split, seconds=None) for language, split in tests.items()}
    found = list(results)
    for role, model in models_by_role.items():
        costs = run.phase(f"languages_{role}", evaluation.language_costs, model, texts, compute=compute)
        found = evaluation.with_group_rows(found, role, costs)
    return found
