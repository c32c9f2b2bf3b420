"""What a source declares about its licence, read before anything else of it."""

import dataclasses
import os

from smallmodels.licenses import USER_PROVIDED, Declared
from smallmodels.sources.cards import CARD_FILES, Card, read_card
from smallmodels.sources.hub import Pin, cached, download, is_offline, resolve
from smallmodels.sources.names import Kind, is_path, parse_name
from smallmodels.sources.packages import installed


def declared_license(name: str, kind: Kind) -> Declared | None:
    """The licence of a model or data set; of the hub's files only the card is downloaded for it.

    Returns: None where the card is not in the cache and the network is off; `fetch_model` and `fetch_dataset` then
        name all that is missing.

    Raises: InputError if the name is no such thing, or the hub cannot give it.
    """
    if is_path(name):
        return Declared(os.path.basename(os.path.abspath(os.path.expanduser(name))), USER_PROVIDED)
    repo_id, revision = parse_name(name, kind)
    if kind == "model" and revision is None and (found := installed(repo_id)):
        return Declared(repo_id, read_card(found[1], kind).license)
    pin = resolve(repo_id, revision, kind)
    if is_offline() and not cached(pin, _card_files(pin)):
        return None
    return Declared(repo_id, read_card_of(pin).license)


def read_card_of(pin: Pin) -> Card:
    """The card of a repository; of the hub's copy as Parquet files, which has none, that of the main revision."""
    if pin.is_parquet_copy and not (main := resolve(pin.repo_id, None, pin.kind)).is_parquet_copy:
        card = read_card_of(main)
        return dataclasses.replace(card, notes=card.notes | {"card": "read from the main revision"})
    names = _card_files(pin)
    return read_card(download(pin, names), pin.kind) if names else Card(None, [], False, {})


def _card_files(pin: Pin) -> list[str]:
    return [name for name in pin.files if CARD_FILES.fullmatch(name)]
