"""What is loaded of a model: safetensors and plain settings; everything else is refused before it is read."""

import ast
import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import serving

from smallmodels import errors, models, sources
from smallmodels.errors import DamagedError, InputError, PolicyError
from smallmodels.models import TextModel


@pytest.fixture
def model(tiny_model_folder, tmp_path):
    """A copy of the tiny model that a test may spoil."""
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


def edit_json(path, **changes):
    old = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(old | changes))


def refused(model, *parts, error=PolicyError):
    """Fetching the model is refused in one sentence with these parts."""
    with pytest.raises(error) as caught:
        sources.fetch_model(str(model))
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []
    return message


# M1, S5: weights that are not safetensors


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def pickled(path, *, zipped=False, protocol=4):
    """A hostile pickle, plain or in a zip archive as torch.save makes it."""
    content = pickle.dumps(Canary(path), protocol=protocol)
    if not zipped:
        return content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt", "tf_model.h5"])
def test_m1_weights_that_are_pickles_are_refused_with_a_hint(model, name):
    (model / "model.safetensors").rename(model / name)
    refused(model, f"model.safetensors, found only {name}", "choose a revision with safetensors")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json", "tokenizer.json", "spiece.model"])
def test_s5_pickle_under_any_name_is_found_by_its_first_bytes_and_never_loaded(model, tmp_path, name, zipped):
    (model / name).write_bytes(pickled(tmp_path / "canary", zipped=zipped))
    refused(model, name, "a zip archive" if zipped else "a pickle")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_s5_pickle_of_any_protocol_is_no_safetensors(model, tmp_path, protocol):
    (model / "model.safetensors").write_bytes(pickled(tmp_path / "canary", protocol=protocol))
    refused(model, "should be a safetensors file, found", "whatever its name says")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 9, b"{}" * 2, b"GGUF" + b"\0" * 40])
def test_s5_safetensors_that_are_something_else_are_refused(model, content):
    (model / "model.safetensors").write_bytes(content)
    refused(model, "should be a safetensors file")


def test_s5_file_that_is_safetensors_and_an_archive_at_once_is_refused(model, tmp_path):
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights + pickled(tmp_path / "canary", zipped=True))
    assert zipfile.is_zipfile(model / "model.safetensors")
    refused(model, "bytes behind its last tensor", error=DamagedError)


def test_s5_pickles_beside_the_weights_are_never_loaded(model, tmp_path):
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin", "scheduler.pt"):
        (model / name).write_bytes(pickled(tmp_path / "canary", zipped=name.startswith("py")))
    loaded, fetched = models.load_embedder(str(model))
    assert set(fetched.source.sha256) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    loaded.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").rglob("*.bin"))
    assert not (tmp_path / "canary").exists()


# M2, M3: settings


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("value", [{"AutoModel": "modeling.Evil"}, ["org/name--tok.Tok", None], "modeling.Evil"])
def test_m2_auto_map_is_refused(model, name, value):
    edit_json(model / name, auto_map=value)
    refused(model, f"{name} of ", "has 'auto_map'")


def test_m2_model_that_needs_code_is_refused_without_a_prompt(model):
    """In a process with a terminal's patience: nothing is asked, nothing is waited for."""
    edit_json(model / "config.json", model_type="evil", auto_map={"AutoModel": "modeling.Evil"})
    (model / "modeling.py").write_text(f"open({str(model / 'canary')!r}, 'w')")
    script = "import sys; from smallmodels import sources; sources.fetch_model(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)], input="y\n", capture_output=True, text=True, timeout=60
    )
    assert "PolicyError" in done.stderr
    assert "[y/N]" not in done.stdout + done.stderr
    assert not (model / "canary").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation_internal": "org/kernel"},
        {"attn_implementation": "org/kernel"},
        {"attn_implementation": "kernels-community"},
        {"_attn_implementation": {"text": "eager"}},
        {"_attn_implementation": "flash_attention_2"},
        {"experts_implementation": "org/experts"},
        {"text_config": {"trust_remote_code": True}},
        {"text_config": {"layers": [{"attn_implementation": "org/kernel:run"}]}},
        {"layers": [{"auto_map": {"AutoConfig": "x.Y"}}]},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"compression_config": {"format": "pack"}},
        {"custom_pipelines": {"x": {"impl": "pipeline.Evil"}}},
        {"use_kernels": True},
        {"kernel_config": {"Linear": "org/linear"}},
        {"configuration_files": ["config.9.0.0.json"]},
        {"dtype": "hub"},
        {"torch_dtype": "os.system"},
        {"vision_config": {"torch_dtype": ["float32"]}},
        {"_auto_class": "AutoModel"},
        {"_from_auto": "org/name"},
        {"__class__": "object"},
        {"from pretrained": 1},
        {"tokenizer_class": "org/evil--tokenization.Evil"},
        {"tokenizer_class": "tokenization.Evil"},
        {"vocab_file": "/etc/passwd"},
        {"backbone": "https://evil.example/weights"},
        {"backbone": "org/name"},
        {"backbone": ["timm", "..\\..\\x"]},
        {"hidden_act": "gelu::org"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_m3_config_that_asks_for_code_or_names_something_elsewhere_is_refused(model, changes):
    edit_json(model / "config.json", **changes)
    message = refused(model, "config.json of", "only settings that are plain data are loaded")
    assert len(message) < 600


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenizer_config.json", {"tokenizer_class": "org/evil--tokenization.Evil"}),
        ("tokenizer_config.json", {"processor_class": "org/evil--processing.Evil"}),
        ("tokenizer_config.json", {"vocab_file": "/etc/passwd"}),
        ("tokenizer_config.json", {"tokenizer_file": "~/"}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}),
        ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"]}),
        ("tokenizer_config.json", {"backend": "org/backend"}),
        ("tokenizer_config.json", {"trust_remote_code": True}),
        ("generation_config.json", {"custom_generate": "org/name"}),
        ("generation_config.json", {"cache_implementation": "org/name"}),
        ("generation_config.json", {"assistant": {"quantization_config": {"x": 1}}}),
        ("sentence_bert_config.json", {"model_args": {"trust_remote_code": True}}),
        ("1_Pooling/config.json", {"auto_map": {"x": "y.Z"}}),
        ("special_tokens_map.json", {"extra": {"trust_remote_code": True}}),
    ],
)
def test_m3_other_files_of_settings_are_held_to_the_same_lists(model, name, changes):
    (model / name).parent.mkdir(exist_ok=True)
    edit_json(model / name, **changes)
    refused(model, f"{name} of ", "only settings that are plain data are loaded")


def test_m3_harmless_values_of_the_same_keys_pass(model):
    edit_json(model / "config.json", attn_implementation="sdpa", quantization_config=None, trust_remote_code=False)
    edit_json(model / "config.json", _name_or_path="org/base", conv_kernel=[10, 3], torch_dtype="bfloat16", auto_map={})
    edit_json(model / "config.json", id2label={"0": "credit/debit", "1": "../x"}, label2id={"credit/debit": 0})
    edit_json(model / "config.json", _sliding_window_pattern=6, pos_att_type="p2c|c2p")
    edit_json(
        model / "tokenizer_config.json",
        eos_token="</s>",
        chat_template="{{ a }}/{{ b }}",
        name_or_path="org/base",
        auto_map=None,
        added_tokens_decoder={"1": {"content": "</s>"}},
        additional_special_tokens=["</x>", "--"],
        tokenizer_file="/nowhere/.cache/0a1b2c",
        special_tokens_map_file="/etc/passwd",
    )
    edit_json(model / "special_tokens_map.json", eos_token={"content": "</s>", "lstrip": False})
    edit_json(model / "generation_config.json", _from_model_config=True, cache_implementation="static")
    sources.fetch_model(str(model))


def test_m3_configs_of_the_classifiers_of_transformers_pass(tmp_path):
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS

    failed = {}
    for name in CLASSIFIERS:
        path = tmp_path / "config.json"
        path.write_text(AutoConfig.for_model(name).to_json_string())
        try:
            sources.config_files.check_config(path, path.name, name)
        except PolicyError as error:
            failed[name] = str(error)
    assert len(CLASSIFIERS) > 100
    assert all("use_mamba_kernels" in message for message in failed.values()), failed
    assert len(failed) <= 4


def test_m3_custom_generate_is_refused(model):
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text("")
    refused(model, "code of its own")


@pytest.mark.parametrize("modules", [[{"type": "os.system"}], [{"type": ["x"]}], {"0": "x"}, ["x"], [{}]])
def test_m3_modules_that_are_not_of_sentence_transformers_are_refused(model, modules):
    (model / "modules.json").write_text(json.dumps(modules))
    refused(model, "modules.json of")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 5000])
def test_config_that_is_no_json_is_damaged(model, content):
    (model / "config.json").write_bytes(content)
    refused(model, "config.json of", "should be JSON", error=DamagedError)


@pytest.mark.parametrize("content", ["[]", "1", "null", '"x"'])
def test_config_that_is_no_object_is_refused(model, content):
    (model / "config.json").write_text(content)
    refused(model, "config.json of", "should hold a JSON object")


def test_saved_model_is_held_to_the_same_rules_when_it_is_read_back(tiny_model_folder, tmp_path):
    loaded, _ = models.load_embedder(str(tiny_model_folder), max_length=32)
    loaded.save(tmp_path / "model")
    TextModel.load(tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", _attn_implementation="org/kernel")
    with pytest.raises(PolicyError, match="_attn_implementation"):
        TextModel.load(tmp_path / "model")
    edit_json(tmp_path / "model" / "config.json", _attn_implementation=None)
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(PolicyError, match="an adapter"):
        TextModel.load(tmp_path / "model")


# M2, M4, S2: what the package's own code never does

SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in Path(errors.__file__).parent.rglob("*.py")}


def calls(name):
    """Every call of a method or function of this name in the package."""
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == name:
                yield path.name, node


def test_m2_every_loading_call_says_no_to_code_itself():
    """Left unsaid, transformers may ask on the terminal."""
    found = list(calls("from_pretrained"))
    assert len(found) >= 3
    for path, call in found:
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given["trust_remote_code"] == "False", (path, call.lineno)
        assert given["local_files_only"] == "True", (path, call.lineno)


def test_m4_chat_templates_are_rendered_in_one_place_by_transformers_alone():
    """In its sandbox, which test_completions.py tries to leave; anywhere else a model's template stays text."""
    assert not list(calls("from_string"))
    assert [path for path, _ in calls("apply_chat_template")] == ["completions.py"]
    uses = {path.name for path, tree in SOURCES.items() if "chat_template" in ast.unparse(tree)}
    # The second lets them through as text; the third asks lm-eval for them, which has transformers render them too.
    assert uses == {"completions.py", "config_files.py", "external.py"}


def test_s2_no_module_unpacks_archives():
    archives = {"zipfile", "tarfile", "gzip", "bz2", "lzma", "zlib", "zipimport", "unpack_archive", "extractall"}
    for path, tree in SOURCES.items():
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in imports for alias in node.names}
        names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & archives, path.name


# M5: safetensors that are torn or lie


def safetensors(header, num_bytes=0, *, length=None):
    """A file with this header, and so many bytes behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + b"\0" * num_bytes


def tensor(begin, end, shape=None, dtype="F32"):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


TORN = {
    "header_above_the_limit": (safetensors({}, length=200_000_000), "its header claims 200,000,000 bytes"),
    "header_of_everything": (safetensors({}, length=2**64 - 1), "its header claims"),
    "header_behind_the_end": (safetensors({"a": tensor(0, 4)}, length=5000), "ends inside its header"),
    "no_json": (safetensors(b"{a}"), "its header is not JSON"),
    "not_utf8": (safetensors(b'{"\xff": 1}'), "its header is not JSON"),
    "deep": (safetensors(b'{"a":' * 100_000), "its header is not JSON"),
    "twice": (safetensors(b'{"a": 1, "a": 2}'), "its header is not JSON"),
    "overlap": (safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, 12), "'b' overlaps the tensor before it"),
    "same_bytes": (safetensors({"a": tensor(0, 8), "b": tensor(0, 8)}, 8), "'b' overlaps the tensor before it"),
    "hole": (safetensors({"a": tensor(0, 4), "b": tensor(8, 12)}, 12), "'b' leaves 4 bytes unused"),
    "late_begin": (safetensors({"a": tensor(4, 8)}, 8), "'a' leaves 4 bytes unused"),
    "trailing": (safetensors({"a": tensor(0, 4)}, 12), "it has 8 bytes behind its last tensor"),
    "truncated": (safetensors({"a": tensor(0, 400)}, 399), "it ends 1 bytes too early"),
    "huge_shape": (safetensors({"a": tensor(0, 8, [2**40, 2**40])}, 8), "and has 8"),
    "overflowing_shape": (safetensors({"a": tensor(0, 8, [2**63, 2**63, 4])}, 8), "and has 8"),
    "negative_shape": (safetensors({"a": tensor(0, 8, [-1, -2])}, 8), "does not describe 'a' as a tensor"),
    "backwards": (safetensors({"a": tensor(8, 0, [0])}, 8), "and has -8"),
    "three_offsets": (safetensors({"a": tensor(0, 4) | {"data_offsets": [0, 4, 8]}}, 4), "'a' should take"),
    "no_offsets": (safetensors({"a": {"dtype": "F32", "shape": [1]}}, 4), "does not describe 'a' as a tensor"),
    "no_tensor": (safetensors({"a": 3}), "does not describe 'a' as a tensor"),
    "metadata": (safetensors({"__metadata__": {"a": 1}}), "its metadata are not texts"),
    "true_for_one": (safetensors({"a": tensor(0, 4, [True])}, 4), "does not describe 'a' as a tensor"),
}


@pytest.mark.parametrize(("content", "reason"), TORN.values(), ids=TORN)
def test_m5_safetensors_whose_header_cannot_be_are_damaged(model, content, reason):
    (model / "model.safetensors").write_bytes(content)
    refused(model, "should hold whole weights, but of model.safetensors", reason, error=DamagedError)


def test_m5_safetensors_cut_anywhere_are_damaged(model):
    whole = (model / "model.safetensors").read_bytes()
    for length in (9, 100, len(whole) // 2, len(whole) - 1):
        (model / "model.safetensors").write_bytes(whole[:length])
        refused(model, "should hold whole weights", error=DamagedError)


def test_m5_quantised_numbers_are_refused(model):
    (model / "model.safetensors").write_bytes(safetensors({"a": tensor(0, 4, [8], "F4")}, 4))
    refused(model, "found 'F4' for 'a'", "not quantised")


def test_m5_whole_safetensors_pass_whatever_the_order_of_their_names(model):
    header = {"b": tensor(4, 12), "a": tensor(0, 4), "empty": tensor(4, 4, [0, 7]), "__metadata__": {"format": "pt"}}
    (model / "model.safetensors").write_bytes(safetensors(header, 12))
    sources.fetch_model(str(model))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux to be told the peak of its memory")
def test_m5_memory_stays_bounded_whatever_a_header_claims(model):
    """In a process that may have half a gigabyte: a header of 200 MB, which the file has room for, is not read."""
    path = model / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 200_000_000) + b'{"a": ')
        file.truncate(6_000_000_000)  # takes no room on the disk
    script = (
        "import resource, sys\n"
        "from smallmodels import sources\n"
        "resource.setrlimit(resource.RLIMIT_AS, (500_000_000, 500_000_000))\n"
        "try:\n    sources.fetch_model(sys.argv[1])\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(model)], capture_output=True, text=True, timeout=60)
    error, peak_kb = done.stdout.split()
    assert error == "DamagedError", done.stderr
    assert int(peak_kb) < 150_000


# M6: an index and its shards


@pytest.mark.parametrize(
    "shard",
    ["../../etc/passwd", "/etc/passwd", "model.bin", "sub/model-00001-of-00001.safetensors", "C:\\x", "", None, 3],
)
def test_m6_index_that_names_other_files_is_refused(model, shard):
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"embeddings": shard}}))
    refused(model, "names", "which is no shard")


def test_m6_index_with_a_missing_shard_is_damaged(model):
    (model / "model.safetensors").unlink()
    index = {"weight_map": {"embeddings": "model-00001-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(model, "model-00001-of-00002", error=DamagedError)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": "x"}])
def test_m6_index_without_a_map_is_damaged(model, index):
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(model, "should have a weight_map", error=DamagedError)


def test_m6_model_in_shards_loads(tiny_model_folder, tmp_path):
    whole, _ = models.load_embedder(str(tiny_model_folder))
    whole.model.transformer.save_pretrained(tmp_path / "sharded", max_shard_size="30KB")
    whole.tokenizer.save_pretrained(tmp_path / "sharded")
    assert not (tmp_path / "sharded" / "model.safetensors").exists()
    again, fetched = models.load_embedder(str(tmp_path / "sharded"))
    assert again.weights_sha256() == whole.weights_sha256()
    assert sum(name.endswith(".safetensors") for name in fetched.source.sha256) > 1


# M10: adapters


@pytest.mark.parametrize("base", ["org/pinned", "org/another", "../../x"])
def test_m10_adapter_of_any_base_is_refused(model, base):
    """None is loaded, so none can be put on a base that it was not made for."""
    (model / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    (model / "adapter_model.safetensors").write_bytes(safetensors({}))
    refused(model, "found an adapter: merge it into its base model first")


def test_folder_without_a_model_is_named(tmp_path):
    refused(tmp_path, "no config.json", error=InputError)


# S2, and the same on a hub


def tar_of(name, content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


ROWS = b"".join(json.dumps({"text": f"text {i}", "label": i % 2}).encode() + b"\n" for i in range(40))


@pytest.fixture(scope="module")
def hostile_hub(tiny_model_folder, tmp_path_factory):
    """A hub with data in archives, and with a model that brings an adapter."""
    root = tmp_path_factory.mktemp("hostile")
    import gzip

    data = {
        "zip": ("train.jsonl", zip_of("../../../slipped.jsonl", ROWS)),
        "tar": ("train.jsonl", tar_of("../../../slipped.jsonl", ROWS)),
        "bomb": ("train.csv", gzip.compress(b"text,label\n" + b"a" * 50_000_000)),
        "named": ("train.zip", zip_of("train.jsonl", ROWS)),
        "fine": ("train.jsonl", ROWS),
    }
    for name, (file, content) in data.items():
        (root / "datasets" / "org" / name).mkdir(parents=True)
        (root / "datasets" / "org" / name / file).write_bytes(content)
    shutil.copytree(tiny_model_folder, root / "models" / "org" / "adapted")
    (root / "models" / "org" / "adapted" / "adapter_config.json").write_text('{"base_model_name_or_path": "org/x"}')
    with serving(root, tmp_path_factory.mktemp("hostile-hub")) as running:
        yield running


@pytest.mark.hub
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("zip", "a zip archive"),
        *(pytest.param(*pair, marks=pytest.mark.faults) for pair in (("tar", "a tar archive"), ("named", ".zip"))),
        pytest.param("bomb", "a gzip archive", marks=pytest.mark.faults),
    ],
)
def test_s2_data_in_archives_are_refused_and_nothing_is_unpacked(hostile_hub, tmp_path, name, found):
    outcome = hostile_hub.evaluate(f"data.load_text_classification('org/{name}')", tmp_path)
    assert (outcome.error, outcome.exit_code) == ("PolicyError", 3), outcome
    assert found in outcome.message
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith("slipped")]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 1_000_000


@pytest.mark.hub
def test_m10_adapter_on_the_hub_is_refused(hostile_hub, tmp_path):
    outcome = hostile_hub.evaluate("sources.fetch_model('org/adapted')", tmp_path)
    assert (outcome.error, outcome.exit_code) == ("PolicyError", 3), outcome
    assert "found an adapter" in outcome.message
    assert not list(tmp_path.rglob("*.safetensors"))
