"""What a source declares about its licence, read before anything else of it."""

import os

from smallmodels.licenses import USER_PROVIDED, Declared
from smallmodels.sources.cards import CARD_FILES, read_card
from smallmodels.sources.hub import cached, download, is_offline, resolve
from smallmodels.sources.names import Kind, parse_name
from smallmodels.sources.packages import installed


def declared_license(name: str, kind: Kind) -> Declared | None:
    """The licence of a model or data set; of the hub's files only the card is downloaded for it.

    Returns: None where the card is not in the cache and the network is off; `fetch_model` and `fetch_dataset` then
        name all that is missing.

    Raises: InputError if the name is no such thing, or the hub cannot give it.
    """
    if os.path.exists(os.path.expanduser(name)):
        return Declared(os.path.basename(os.path.abspath(os.path.expanduser(name))), USER_PROVIDED)
    repo_id, revision = parse_name(name, kind)
    if kind == "model" and revision is None and (found := installed(repo_id)):
        return Declared(repo_id, read_card(found[1], kind).license)
    pin = resolve(repo_id, revision, kind)
    names = [name for name in pin.files if CARD_FILES.fullmatch(name)]
    if is_offline() and not cached(pin, names):
        return None
    return Declared(repo_id, read_card(download(pin, names), kind).license if names else None)
