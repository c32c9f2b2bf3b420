"""Publish the model of a run on the hub: verified first, in one commit, private unless asked otherwise.

Published are the files of `model/` with their card, `record.json` and `report.html`. The record says under which name
it was published and lists the files that lie beside it there, so a downloaded copy can be verified like a run. The
examples in record and page are texts of the data, so they are left out unless asked for.

Never published: `config.json` of the run, which holds folders; `predictions.parquet`, journal and metrics, which the
record sums up; kept values of phases; a search index, which holds the texts of its documents; adapters, which are
merged into the model.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from smallmodels import cards, files, licenses, privacy, records, report, sources, verification
from smallmodels.errors import DamagedError, InputError, PolicyError, SmallmodelsError
from smallmodels.records import RunRecord
from smallmodels.sources import asking
from smallmodels.text import printable

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, ModelInfo

_MODEL, _CARD = "model/", Path(records.CARD_NAME).name
_OF_THE_HUB = frozenset({".gitattributes"})
_LOGIN = "set HF_TOKEN to one that may write, or run `hf auth login`"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Published:
    """What a push came to."""

    url: str
    commit: str
    is_new: bool
    """False where the hub had all of it already, so that no commit was made."""
    num_files: int


def push(
    folder: Path,
    name: str,
    *,
    public: bool = False,
    with_examples: bool = False,
    accepted_licenses: Collection[str] = (),
) -> Published:
    """Verify a run and publish its model in a single commit, so the hub has all of it or nothing.

    A repository that does not exist is made. One that holds what was pushed before is brought to this run: files of the
    earlier push are replaced or removed, all others stay. One that holds anything else is refused. The token is the
    hub's own, from HF_TOKEN or `hf auth login`.

    Args:
        folder: Of a complete run that is no smoke run.
        name: `org/name` on the hub.
        public: Whether everybody may see it.
        with_examples: Publish the examples of the record and the page too; they are texts of the data.
        accepted_licenses: Ids of licences that do not let a model be shared, and that the user may share it under.

    Raises:
        InputError: The run is not complete, the name cannot be used, or the hub refuses.
        PolicyError: A smoke run; a licence that forbids sharing; a repository with files of others.
        DamagedError: The run is not what its record says.
    """
    repo_id = _repo_id(name)
    record = verification.verify(folder)
    if record.published_as:
        raise InputError(f"{folder} is a copy of {record.published_as}, not a run: push the run that it was made by")
    if record.smoke:
        raise PolicyError(f"{folder} is a smoke run, whose model and numbers mean nothing: push a run without --smoke")
    if public:
        _require_shareable(record, accepted_licenses)
    if sources.is_offline():
        raise InputError("HF_HUB_OFFLINE is set, so nothing can be pushed: unset it")
    return _Push(repo_id, public).send(_operations(folder, record, repo_id, with_examples=with_examples), record)


def _repo_id(name: str) -> str:
    try:
        repo_id, revision = sources.parse_name(name, "model")
    except InputError:
        repo_id, revision = "", None
    if not repo_id or revision is not None:
        raise InputError(f"a model is pushed to a name like my-name/my-model, got {name!r}")
    return repo_id


def _require_shareable(record: RunRecord, accepted: Collection[str]) -> None:
    """Refuse to make public what a licence forbids to share, or of which nobody knows whether it may be shared."""
    if missing := [i for i in licenses.forbidding_sharing(record.sources) if i not in accepted]:
        raise PolicyError(
            f"a model that everybody may have should come of sources that allow it, but {missing[0]} does not say so: "
            f"leave out --public, or, if you know that you may share it, add {' '.join(map(licenses.flag, missing))}"
        )


# What is published


def published_files(folder: Path, record: RunRecord, repo_id: str, *, with_examples: bool) -> dict[str, Path | bytes]:
    """Every file of the published model by its name there: a path where it is published as it lies in the run."""
    model = {name.removeprefix(_MODEL): name for name in record.files if name.startswith(_MODEL)}
    del model[_CARD]
    examples = record.examples if with_examples else []
    about = dataclasses.replace(records.statement(record), published_as=repo_id, examples=examples)
    made = {_CARD: cards.model_card(about).encode(), records.PAGE_NAME: report.run_page(about).encode()}
    listed = {name: record.files[there] for name, there in model.items()}
    listed |= {name: files.sha256_bytes(content) for name, content in made.items()}
    published = records.sealed(dataclasses.replace(about, files=dict(sorted(listed.items()))))
    made[records.RECORD_NAME] = files.json_bytes(records.to_json(published))
    return {name: folder / there for name, there in model.items()} | made


def _operations(folder: Path, record: RunRecord, repo_id: str, *, with_examples: bool) -> list["CommitOperationAdd"]:
    """The files to send, each with the hash that was verified a moment ago."""
    from huggingface_hub import CommitOperationAdd

    found = []
    for name, content in published_files(folder, record, repo_id, with_examples=with_examples).items():
        source = str(content) if isinstance(content, Path) else content
        operation = CommitOperationAdd(path_in_repo=name, path_or_fileobj=source)
        if isinstance(content, Path) and operation.upload_info.sha256.hex() != record.files[_MODEL + name]:
            raise DamagedError(f"{content} was altered while it was pushed, and nothing was sent: push again")
        found.append(operation)
    return found


# The hub


class _Push:
    """One push to one repository."""

    def __init__(self, repo_id: str, public: bool) -> None:
        from huggingface_hub import HfApi, get_token

        if not get_token():
            raise InputError(f"a push needs a token of the hub: {_LOGIN}")
        self.repo_id, self.public = repo_id, public
        self.api: HfApi = HfApi()

    def send(self, additions: Sequence["CommitOperationAdd"], record: RunRecord) -> Published:
        """Make the repository if it does not exist, and commit everything at once."""
        before = self._info()
        if before is None:
            self._ask(lambda: self.api.create_repo(self.repo_id, private=not self.public, exist_ok=True))
            before = self._info()
            if before is None:
                raise InputError(f"{self.repo_id} is taken on the hub and is no model: choose another name")
        else:
            require_visibility(self.repo_id, is_private=bool(before.private), public=self.public)
        removals = self._removals(before, {addition.path_in_repo for addition in additions})
        commit = self._ask(
            lambda: self.api.create_commit(
                self.repo_id,
                [*additions, *removals],
                commit_message=f"Publish run {printable(record.run_id)} of smallmodels {record.library_version}",
                parent_commit=before.sha,
            )
        )
        url = privacy.without_secrets(commit.commit_url.partition("/commit/")[0])
        return Published(url, commit.oid, commit.oid != before.sha, len(additions))

    def _info(self) -> "ModelInfo | None":
        """The repository as it is, or None if there is none of that name."""
        from huggingface_hub.errors import RepositoryNotFoundError

        def look() -> "ModelInfo | None":
            try:
                return self.api.model_info(self.repo_id)
            except RepositoryNotFoundError as error:
                if error.response.status_code == 404:
                    return None
                raise

        return self._ask(look)

    def _removals(self, info: "ModelInfo", new: set[str]) -> list["CommitOperationDelete"]:
        """What an earlier push left and this one does not replace.

        Raises: PolicyError if the repository holds files of others in the way.
        """
        from huggingface_hub import CommitOperationDelete

        there = {sibling.rfilename for sibling in info.siblings or []} - _OF_THE_HUB
        ours = self._files_of_earlier_push(info) if records.RECORD_NAME in there else set()
        foreign = sorted((there - ours) & new if ours else there)
        if foreign:
            raise PolicyError(
                f"{self.repo_id} should be new or hold an earlier push of smallmodels, found {printable(foreign[0])}: "
                "choose another name"
            )
        return [CommitOperationDelete(path_in_repo=name) for name in sorted((ours & there) - new)]

    def _files_of_earlier_push(self, info: "ModelInfo") -> set[str]:
        """The names that the record in the repository lists, its own among them; none if it is not of a push."""
        path = self._ask(lambda: self.api.hf_hub_download(self.repo_id, records.RECORD_NAME, revision=info.sha))
        try:
            earlier = records.read_record(Path(path))
        except DamagedError:
            return set()
        return {*earlier.files, records.RECORD_NAME} if earlier.published_as else set()

    def _ask(self, function: Callable[[], Value]) -> Value:
        try:
            return asking.ask(function, self.repo_id, "model", task="take", explain=_explain)
        except asking.UnreachableError as error:
            raise InputError(str(error)) from error


def require_visibility(repo_id: str, *, is_private: bool, public: bool) -> None:
    """Refuse a repository that exists and is seen by others than was asked for.

    Raises: InputError that says what to do.
    """
    if public and is_private:
        raise InputError(f"{repo_id} exists and is private: leave out --public, or make it public in its settings")
    if not public and not is_private:
        raise InputError(f"{repo_id} exists and is public: add --public if everybody may see this run")


def _explain(error: Exception, repo_id: str, kind: sources.Kind, revision: str | None) -> SmallmodelsError | None:
    """What an answer of the hub means for a push; None where asking again may help."""
    for found in asking.chain(error):
        status = asking.status_of(found)
        if status == 401:
            return InputError(f"the hub does not know the token that it was given: {_LOGIN}")
        if status == 403:
            return InputError(f"the token may not write to {repo_id}: {_LOGIN}, or choose a name of your own")
        if status in (409, 412):
            return InputError(f"{repo_id} was changed by somebody else at the same time: push again")
        if status is not None and asking.is_final(status):
            return InputError(f"the hub answered {status} when {repo_id} was pushed: {_said(found)}")
    may_pass = any(asking.may_pass(found) for found in asking.chain(error))
    return None if may_pass else InputError(f"{repo_id} could not be pushed, {type(error).__name__}: {_said(error)}")


def _said(error: Any) -> str:
    """What the hub said of an error, in one line without secrets."""
    text = getattr(error, "server_message", None) or next(iter(str(error).splitlines()), "")
    return privacy.without_secrets(printable(text))[:200] or "it did not say why"
