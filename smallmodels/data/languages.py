"""Languages of a data set, as two-letter codes."""

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


def languages_of(declared: list[str], config: str | None) -> list[str]:
    """Languages of one configuration: its own if it is named after one, else what the card declares for all."""
    prefix = (config or "").replace("-", "_").split("_")[0]
    code = prefix if prefix in declared else _LANGUAGES.get(prefix)
    if code is not None:
        return [code]
    return declared if config is None or len(declared) <= 1 else []
