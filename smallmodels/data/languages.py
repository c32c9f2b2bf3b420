"""Languages of a data set, as two-letter codes, and where its rows in one of them are."""

import os
from collections.abc import Sequence

from smallmodels import sources
from smallmodels.errors import InputError

_LANGUAGES = {
    "amh": "am",
    "arb": "ar",
    "ara": "ar",
    "ben": "bn",
    "bul": "bg",
    "ces": "cs",
    "cmn": "zh",
    "dan": "da",
    "deu": "de",
    "ell": "el",
    "eng": "en",
    "fin": "fi",
    "fra": "fr",
    "hau": "ha",
    "heb": "he",
    "hin": "hi",
    "hun": "hu",
    "ibo": "ig",
    "ind": "id",
    "ita": "it",
    "jpn": "ja",
    "kin": "rw",
    "kor": "ko",
    "nld": "nl",
    "pes": "fa",
    "pol": "pl",
    "por": "pt",
    "ron": "ro",
    "rus": "ru",
    "som": "so",
    "spa": "es",
    "swa": "sw",
    "swe": "sv",
    "swh": "sw",
    "tam": "ta",
    "tel": "te",
    "tha": "th",
    "tur": "tr",
    "ukr": "uk",
    "urd": "ur",
    "vie": "vi",
    "xho": "xh",
    "yor": "yo",
    "zho": "zh",
    "zul": "zu",
    "quy": "qu",
}
"""ISO 639-3 to 639-1, for configurations that are named after a language, such as `swh_Latn`."""


def in_language(dataset: str, language: str) -> tuple[str, str | None]:
    """Name and configuration of a data set in one language.

    Args:
        dataset: On the hub, where the language is the configuration; or local files, one for each language, with
            `{language}` in their path.
        language: As the configuration or the file is called.

    Raises: InputError for a local file for all languages, whose rows would be those of each.
    """
    if sources.LANGUAGE_PLACE in dataset:
        return dataset.replace(sources.LANGUAGE_PLACE, language), None
    if os.path.exists(os.path.expanduser(dataset)):
        raise InputError(
            f"there should be a file for each language, found {os.path.basename(dataset)} for all: write "
            f"{sources.LANGUAGE_PLACE} where their paths differ, such as topics/{sources.LANGUAGE_PLACE}.csv"
        )
    return dataset, language


def languages_of(declared: list[str], config: str | None) -> list[str]:
    """Languages of one configuration: its own if it is named after one, else what the card declares for all."""
    prefix = (config or "").replace("-", "_").split("_")[0]
    code = prefix if prefix in (declared or _LANGUAGES.values()) else _LANGUAGES.get(prefix)
    if code is not None:
        return [code]
    return declared if config is None or len(declared) <= 1 else []


def bitexts_by_language(configs: Sequence[str], languages: Sequence[str]) -> dict[str, str]:
    """For each language the configuration with its sentences and their translations, where there is one.

    Args:
        configs: Named after the language that is not English: `deu-eng`.
        languages: Those that are wanted, such as `de` or `deu_Latn`; configurations of others are left out.

    Raises: InputError for a configuration that is named after no known language, or after that of another one.
    """
    by_code: dict[str, str] = {}
    for config in configs:
        code = "".join(languages_of([], config))
        if not code:
            raise InputError(
                f"each of --bitexts should begin with the code of a known language, got {config}: leave it out, or "
                f"choose one that begins with {', '.join(_LANGUAGES)}"
            )
        if code in by_code:
            raise InputError(
                f"--bitexts should name one for each language, got {by_code[code]} and {config}: leave out one of them"
            )
        by_code[code] = config
    codes = {language: "".join(languages_of([], language)) for language in languages}
    return {language: by_code[code] for language, code in codes.items() if code in by_code}
