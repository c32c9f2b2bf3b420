import dataclasses
from typing import Any

import pytest
import yaml
from hostile import MARKUP, Reader, with_attack
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from sample_records import (
    CLASSES,
    classifier_record,
    counted_record,
    dataset,
    metric,
    model_source,
    retriever_record,
)

from smallmodels import report
from smallmodels.cards import adapter_card, model_card
from smallmodels.records import RunRecord


def metadata(record: RunRecord) -> dict[str, Any]:
    found = ModelCard(model_card(record)).data.to_dict()
    assert isinstance(found, dict)
    return found


def with_source(record: RunRecord, role: str, **changes: Any) -> RunRecord:
    sources = [dataclasses.replace(s, **changes) if s.role == role else s for s in record.sources]
    return dataclasses.replace(record, sources=sources)


def test_card_parses_as_a_hub_card_and_says_what_the_record_knows() -> None:
    found = metadata(classifier_record())
    assert found["language"] == ["en"]
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert found["base_model_relation"] == "finetune"
    assert found["datasets"] == ["PolyAI/banking77"]
    assert found["pipeline_tag"] == "text-classification"
    assert found["library_name"] == "transformers"
    assert found["metrics"] == ["accuracy"]
    assert "distillation" in found["tags"]


def test_card_of_adapters_names_their_base_and_how_they_are_put_on_it() -> None:
    record = classifier_record(label_names=CLASSES)
    record = dataclasses.replace(record, model={**record.model, "loader": "AutoModelForSequenceClassification"})
    found, text = ModelCard(adapter_card(record)).data.to_dict(), adapter_card(record)
    assert (found["library_name"], found["base_model_relation"]) == ("peft", "adapter")
    assert found["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    name = 'AutoModelForSequenceClassification.from_pretrained("sentence-transformers/all-MiniLM-L6-v2"'
    assert f"{name}, num_labels={len(CLASSES)})" in text
    without_base = dataclasses.replace(record, sources=[s for s in record.sources if s.kind != "model"], model={})
    assert 'AutoModel.from_pretrained("path/to/the/base/model"' in adapter_card(without_base)
    assert "base_model_relation" not in ModelCard(adapter_card(without_base)).data.to_dict()


def test_card_of_a_language_model_loads_it_with_its_output_layer() -> None:
    text = model_card(classifier_record(task="text-generation"))
    assert 'AutoModelForCausalLM.from_pretrained("path/to/this/folder")' in text


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ({}, 'tokenizer("a text", return_tensors="pt")'),  # of an older version: the tokenizer's own begin
        ({"begins_with": ""}, 'tokenizer("a text", add_special_tokens=False'),
        ({"begins_with": "<|endoftext|>"}, 'tokenizer("<|endoftext|>a text", add_special_tokens=False'),
        ({"begins_with": "<s>", "template": "plain"}, 'tokenizer("<s>a question\\n", add_special_tokens=False'),
        ({"template": "chat"}, "tokenizer.apply_chat_template(asked, add_generation_prompt=True"),
        ({"begins_with": '<s>"); import os', "template": "plain"}, 'tokenizer("a question\\n", return_tensors'),
    ],
)
def test_card_of_a_language_model_asks_it_as_it_was_trained(about: dict[str, str], code: str) -> None:
    record = classifier_record(task="text-generation")
    assert code in model_card(dataclasses.replace(record, model={**record.model, **about}))


def test_card_of_a_model_with_random_weights_names_no_base() -> None:
    record = classifier_record(task="text-generation")
    distilled = dataclasses.replace(record, model={**record.model, "base_model": None, "made_from": "random weights"})
    found = metadata(distilled)
    assert ("base_model" in found, "base_model_relation" in found, "distillation" in found["tags"]) == (0, 0, 1)
    assert "It learned from sentence-transformers/all-MiniLM-L6-v2, which is under apache-2.0" in model_card(distilled)
    new = dataclasses.replace(
        distilled,
        sources=[source for source in record.sources if source.kind != "model"],
        results=[result for result in record.results if result.role != "teacher"],
    )
    assert "from-scratch" in metadata(new)["tags"]
    assert "Trained from scratch with smallmodels by the recipe" in model_card(new)


def test_card_gives_results_that_the_hub_library_reads() -> None:
    card = ModelCard(model_card(classifier_record()))
    results = {r.metric_name: r for r in card.data.eval_results}
    accuracy = results["accuracy (test)"]
    assert accuracy.metric_value == 0.921
    assert (accuracy.dataset_type, accuracy.dataset_split) == ("PolyAI/banking77", "test")
    assert accuracy.dataset_revision == classifier_record().sources[1].revision
    assert accuracy.task_type == "text-classification"
    assert results["macro F1 (test)"].metric_type == "f1"


def test_card_tells_what_an_answer_cost_and_the_hub_is_not_told_of_it_as_quality() -> None:
    record = classifier_record(task="text-generation")
    of_costs = {"energy_j_per_answer": 0.0734, "cpu_s_per_answer": 0.00254, "new_tokens_per_answer": 15.04}
    results = [
        dataclasses.replace(
            result,
            metrics=result.metrics
            | {
                name: dataclasses.replace(result.metrics["accuracy"], value=v, low=None) for name, v in of_costs.items()
            },
        )
        for result in record.results
    ]
    record = dataclasses.replace(record, results=results)
    text = model_card(record)
    assert all(words in text for words in ("J per answer, many at once", "0.0734", "0.00254", "15.0"))
    assert ("estimated J per answer" in text) == (not record.energy_is_counted)
    names = {result.metric_name for result in ModelCard(text).data.eval_results}
    assert names
    assert not any("per answer" in str(name) for name in names)


def test_card_without_country_has_no_grams_and_says_why() -> None:
    text = model_card(classifier_record())
    assert "co2_eq_emissions" not in metadata(classifier_record())
    assert "no country and no carbon intensity were named" in text
    assert "estimated, not measured; label: modelled" in text


def test_card_with_carbon_gives_grams_with_source_and_label() -> None:
    found = metadata(counted_record())["co2_eq_emissions"]
    assert found["emissions"] == 0.137  # grams, as the hub defines the field; CodeCarbon gives kilograms
    assert "energy label counter" in found["source"]
    assert "56 g CO2e per kWh" in found["source"]
    assert found["training_type"] == "fine-tuning"
    assert found["hardware_used"] == "AMD EPYC 9V74 80-Core Processor"
    assert "0.137\u00a0g CO2e" in model_card(counted_record())


def test_card_marks_estimated_grams_as_estimated() -> None:
    record = classifier_record(carbon=counted_record().carbon)
    assert metadata(record)["co2_eq_emissions"]["source"].startswith("estimated, not measured")


def test_card_of_a_smoke_run_says_that_its_numbers_mean_nothing() -> None:
    assert "> A smoke run of a few steps" in model_card(classifier_record(smoke=True))
    assert "smoke" not in model_card(counted_record())


def test_card_of_unknown_grams_has_no_field() -> None:
    carbon = dataclasses.replace(counted_record().carbon, emissions_g=None)
    record = classifier_record(carbon=carbon, energy_j=None, energy_label="missing")
    assert "co2_eq_emissions" not in metadata(record)
    assert "The energy of the run was not measured" in model_card(record)


def test_card_of_an_embedder() -> None:
    text = model_card(retriever_record())
    found = metadata(retriever_record())
    assert (found["library_name"], found["pipeline_tag"]) == ("sentence-transformers", "sentence-similarity")
    assert found["metrics"] == ["mrr"]
    assert "datasets" not in found  # the docstrings of Python are no hub id
    assert 'SentenceTransformer("path/to/this/folder")' in text
    assert "never pays for itself: the student's quality is not close enough" in text


@pytest.mark.parametrize("record", [classifier_record(), counted_record(), retriever_record()], ids=lambda r: r.recipe)
def test_card_invents_nothing(record: RunRecord) -> None:
    text = model_card(record)
    for phrase in ("More Information Needed", "More information needed", "None", "TODO", "[optional]", "Undefined"):
        assert phrase not in text


def test_card_shows_every_role_with_intervals() -> None:
    text = model_card(classifier_record())
    assert "| Student | 92.1\u00a0% (91.1–93.1\u00a0%) |" in text
    for name in ("Teacher", "Labels only", "TF-IDF", "Majority class", "Untrained student"):
        assert f"| {name} |" in text


def test_card_lists_classes_and_counts_those_it_leaves_out() -> None:
    text = model_card(classifier_record(label_names=CLASSES))
    assert "Classes: activate\\_my\\_card, age\\_limit" in text
    many = model_card(classifier_record(label_names=[f"label {i}" for i in range(100_000)]))
    assert "and 99,800 more." in many
    assert len(many) < 30_000


def test_card_gives_every_label_with_its_threshold() -> None:
    names, thresholds = [f"label {i}" for i in range(28)], [2.5e-07, *(i / 28 for i in range(1, 28))]
    record = classifier_record(label_names=names, model={"problem": "multi_label_classification"})
    text = model_card(dataclasses.replace(record, model={**record.model, "thresholds": thresholds}))
    assert "| label 0 | 2.5e-07 |" in text
    assert "| label 27 | 0.964286 |" in text
    assert text.count("2.5e-07") == 1
    assert "Classes:" in model_card(record)


def test_card_of_a_fine_tuned_model_speaks_of_no_teacher() -> None:
    base = classifier_record()
    record = dataclasses.replace(
        base,
        results=[r for r in base.results if r.role != "teacher"],
        sources=[model_source(role="base"), base.sources[1]],
        payback=None,
    )
    assert "fine-tuning" in metadata(record)["tags"]
    assert "teacher" not in model_card(record).lower()
    assert metadata(record)["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_card_of_local_files_names_no_hub_ids_and_no_licence() -> None:
    local = {"revision": None, "license": "user-provided, not checked"}
    record = with_source(classifier_record(model={}), "teacher", name="my-teacher", **local)
    record = with_source(record, "dataset", name="tickets.csv", **local)
    found = metadata(record)
    assert not {"base_model", "base_model_relation", "datasets", "license"} & set(found)
    assert found["model-index"][0]["results"][0]["dataset"]["name"] == "tickets.csv"
    assert "its licence: user-provided, not checked" in model_card(record)


def test_card_of_an_undeclared_licence_says_so() -> None:
    record = with_source(classifier_record(), "teacher", license=None)
    assert "license" not in metadata(record)
    assert "declares no licence: ask its authors" in model_card(record)


def test_card_without_sources_states_no_licence() -> None:
    record = classifier_record(sources=[], model={})
    assert "no licence of the weights is stated" in model_card(record)
    assert "model-index" not in metadata(record)


@pytest.mark.parametrize("code", ["no", "on", "yes"])
def test_card_language_codes_are_strings_not_booleans(code: str) -> None:
    assert metadata(classifier_record(languages=[code]))["language"] == [code]


def test_card_leaves_out_a_language_that_is_no_code() -> None:
    assert metadata(classifier_record(languages=["en", "English\nlicense: mit"]))["language"] == ["en"]


@pytest.mark.parametrize(
    "attack",
    ["\n---\nlicense: mit\n", '"\nlicense: mit', "'", ": {", "\t- x", "# y", "\x85\u2028---\n", "{{ 7 }}", MARKUP],
)
def test_p1_card_front_matter_cannot_be_broken_out_of(attack: str) -> None:
    record = counted_record()
    sources = [*record.sources, dataset("org/name" + attack, "mit" + attack, {"test": 3})]
    attacked = with_attack(dataclasses.replace(record, sources=sources), attack)
    record = dataclasses.replace(attacked, task=record.task)
    text = model_card(record)
    front = yaml.safe_load(text.split("---\n")[1])
    allowed = {
        "base_model", "base_model_relation", "co2_eq_emissions", "datasets", "language", "library_name", "license",
        "metrics", "model-index", "pipeline_tag", "tags",
    }  # fmt: skip
    assert set(front) <= allowed
    assert front.get("license") in (None, "apache-2.0")
    assert front["model-index"][0]["name"].startswith(counted_record().title)
    ModelCard(text)
    ModelCard(model_card(attacked))


def test_p2_hostile_strings_add_no_markup_to_the_card() -> None:
    parser = MarkdownIt("commonmark").enable("table")
    tags = []
    for record in (counted_record(), with_attack(counted_record(model={}), MARKUP + "\n# x\n```\n| y |")):
        record = dataclasses.replace(record, model={}, label_names=[MARKUP], published_as=MARKUP)
        page = Reader(parser.render(model_card(record).split("---\n", 2)[2]))
        tags.append(
            {tag: page.tags[tag] for tag in ("table", "tr", "td", "th", "h1", "h2", "a", "img", "script", "pre")}
        )
        assert not page.unsafe()
    assert tags[0] == tags[1]


def test_card_ends_with_the_command_and_the_commit() -> None:
    text = model_card(classifier_record(git_dirty=True))
    assert "```text\nsmallmodels run distill_text_classifier --seed 0\n```" in text
    assert f"commit {classifier_record().git_commit} with changes on top" in text


def test_card_and_page_show_every_metric_and_the_calibration() -> None:
    base = classifier_record()
    more = {"risk": metric(0.1), "accuracy_at_80_percent": metric(0.95), "accuracy_at_50_percent": metric(0.99)}
    results = [dataclasses.replace(r, metrics={**r.metrics, **more}) for r in base.results]
    record = dataclasses.replace(base, results=results)
    first, further = model_card(record).split("Further metrics:")
    assert "| calibration error |" in first
    assert "| Student | 92.1\u00a0% (91.1–93.1\u00a0%) |" in first
    for table in (further, str(Reader(report.run_page(record)).text)):
        assert "accuracy at 80 percent" in table.replace("@", " at ")
        assert "99.0 % (98.6–99.4 %)" in table.replace("\u00a0", " ")
    assert "Further metrics" not in model_card(base)
