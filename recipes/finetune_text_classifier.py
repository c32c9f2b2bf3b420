"""Fine-tune a text classifier on labels, without a teacher: all weights, or low-rank adapters (LoRA).

Source:    Devlin et al. 2019, arXiv:1810.04805, section 4; LoRA: Hu et al. 2021, arXiv:2106.09685.
Run:       smallmodels run finetune_text_classifier
Expected:  Banking77 test accuracy near that of distill_text_classifier's teacher, which is trained in the same way.
Measured:  PolyAI/banking77: accuracy 90.7 %, one seed, flags as in its record; 3 min 15 s and 303 CPU-s on Intel(R)
           Xeon(R) Processor, 2 cores, bf16.
Licences:  Banking77 is CC-BY-4.0, the base model (all-MiniLM-L6-v2) Apache-2.0; the result inherits the latter.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from smallmodels import baselines, cli, data, distilling, evaluation, losses, models, students, training
from smallmodels.data import Batch
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.models import Model, TextModel
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to fine-tune, and how."""

    dataset: str = "PolyAI/banking77"
    """Hub id (`org/name@revision` pins it), or a local CSV, JSON Lines or Parquet file."""
    dataset_config: str | None = None
    """Configuration of a hub data set that has several, such as a language."""
    text_column: str | None = None
    """Column with the texts; without it, the first of the usual names."""
    label_column: str | None = None
    """Column with the labels: strings, integers or named classes; without it, the first of the usual names."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str | None = None
    """Split to choose on; a tenth of train if there is none."""
    test_split: str = "test"
    """Split that is read once, at the end; a fifth of train if there is none."""
    drop_overlap: bool = False
    """Drop training texts that also stand in validation or test."""
    drop_bad_texts: bool = False
    """Leave out rows whose text is empty, null or a megabyte long, instead of refusing the data."""
    max_train: int | None = None
    """Train on so many texts only, drawn so that classes keep their shares."""
    base_model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub id or local folder of an encoder."""
    num_layers: int | None = None
    """Layers of the base model to keep, evenly spaced; all of them if not given."""
    lora_rank: int | None = None
    """Train adapters of this rank and the head instead of all weights; they are merged into the saved model, and left
    in the run's `adapter/` for peft too, where no layers were dropped."""
    max_length: int = 128
    """Tokens after which a text is cut."""
    seed: int = 0
    """Of the new head, the adapters and the training."""
    split_seed: int = 0
    """Of the rows that are held out."""
    train: TrainConfig = TrainConfig(learning_rate=3e-4, num_epochs=6, dropout=True, train_embeddings=False)

    def __post_init__(self) -> None:
        require(self.num_layers is None or self.num_layers > 0, "num_layers", "> 0", self.num_layers)
        require(self.lora_rank is None or self.lora_rank > 0, "lora_rank", "> 0", self.lora_rank)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.max_train is None or self.max_train > 0, "max_train", "> 0", self.max_train)


METRICS = ("accuracy", "macro_f1")
SMOKE = replace(Config(), max_train=1000, train=replace(Config().train, max_steps=2, num_evaluations=1))


def main(config: Config, run: Run) -> None:
    """Fine-tune on labels and compare with what is cheaper."""
    # 1. Data and model: names to commits, licences checked, then everything is read
    dataset_name, base_name = run.pin((config.dataset, "dataset"), (config.base_model, "model"))
    splits = run.phase(
        "data",
        data.load_text_classification,
        dataset_name,
        config=config.dataset_config,
        text_column=config.text_column,
        label_column=config.label_column,
        train_split=config.train_split,
        validation_split=config.validation_split,
        test_split=config.test_split,
        split_seed=config.split_seed,
        drop_overlap=config.drop_overlap,
        drop_bad_texts=config.drop_bad_texts,
        max_train=config.max_train,
    )
    run.add_source(splits.source)
    base, fetched, _ = models.load_classifier(
        base_name, splits.label_names, max_length=config.max_length, seed=config.seed, role="base_model"
    )
    run.add_source(fetched.source)
    splits = splits.tokenize(base.tokenizer, max_length=base.max_length)
    compute = run.phase("setup", models.choose_compute, model=base, tokens=splits.train.tokens, **run.compute)
    num_classes = len(splits.label_names)
    tfidf = run.phase("tfidf", baselines.TfidfClassifier.fit, splits.train, num_classes=num_classes)
    majority = baselines.MajorityClassifier.fit(splits.train, num_classes=num_classes)
    untrained = students.keep_layers(base, config.num_layers) if config.num_layers else base
    start = untrained.copy()
    if config.lora_rank:
        start = students.add_lora(untrained, rank=config.lora_rank, seed=config.seed)
    if config.num_layers or config.lora_rank:
        distilling.say_change(run, base, start)

    # 2. Train
    def loss_fn(model: Model, batch: Batch) -> Tensor:
        return losses.cross_entropy(model(**batch.inputs).logits, batch.labels)

    def validate(model: TextModel) -> dict[str, float]:
        return {"accuracy": evaluation.accuracy(model, splits.validation, compute=compute)}

    student, adapter = run.phase(
        "train",
        training.fit_with_adapter,
        start,
        splits.train,
        loss_fn,
        config.train,
        seed=config.seed,
        validate=validate,
        compute=compute,
    )

    # 3. The test split is read here, once
    contenders = {
        "student": Contender(student, built_by=("train",)),
        "untrained_student": Contender(untrained),
        "tfidf": Contender(tfidf, built_by=("tfidf",)),
        "majority": Contender(majority),
    }
    result = run.phase(
        "evaluate", evaluation.evaluate_classifiers, contenders, splits.test, splits.label_names, compute=compute
    )
    costs = run.phase(
        "inference",
        evaluation.measure_inference,
        contenders,
        splits.test,
        compute=compute,
    )
    if adapter is not None and untrained is base:  # a base without some of its layers is nowhere to be had
        run.keep("adapter", adapter)
    run.finish(
        student,
        title=f"text classifier for {splits.source.name}, fine-tuned from {fetched.source.name}",
        task="text-classification",
        metric="accuracy",
        results=result.results,
        inference=costs.inference,
        predictions=result.predictions,
        curve=training.curve(student),
        examples=evaluation.example_predictions(result, splits),
        model=models.describe(student, compute),
        languages=splits.languages,
        limits=[f"Tested on {splits.source.name} only; texts of another kind or language were not tried."],
        label_names=splits.label_names,
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
