"""Pretrain a small language model from scratch: its own tokenizer and random weights, on texts of your choice.

Source:    Llama: Touvron et al. 2023, arXiv:2302.13971; byte-level BPE: Radford et al. 2019, "Language Models are
           Unsupervised Multitask Learners", section 2.2.
Run:       smallmodels run pretrain_language_model
Expected:  fewer bits per byte than the frequencies of tokens alone need; how few depends on texts, size and steps.
Measured:  texts.jsonl: bits per byte 1.055, one seed, flags as in its record; 16 min 38 s and 1,900 CPU-s on AMD EPYC,
           2 cores, bf16.
Licences:  MedQuAD, questions and answers on health, is CC-BY-4.0; the model is yours.

The model learns how such texts go on, and nothing else: its answers on health are not advice.
"""

from dataclasses import dataclass, replace

from smallmodels import cli, data, generation, losses, models, perplexity, training
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to learn from, how large the model is, and how it is trained."""

    dataset: str = "lavita/MedQuAD"
    """Hub id (`org/name@revision` pins it), a local CSV, JSON Lines or Parquet file, or a folder of text files."""
    dataset_config: str | None = None
    """Configuration of a hub data set that has several, such as a language."""
    text_columns: tuple[str, ...] = ("question", "answer")
    """Columns whose texts make up one text, a line break between them."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str | None = None
    """Split to choose on; a tenth of train if there is none."""
    test_split: str = "test"
    """Split that is read once, at the end; a tenth of train if there is none."""
    drop_overlap: bool = True
    """Drop training texts that also stand in validation or test."""
    drop_bad_texts: bool = True
    """Leave out rows whose text is empty, null or a megabyte long, instead of refusing the data."""
    max_train: int | None = None
    """Train on so many texts only."""
    max_validation: int | None = 500
    """Validate on so many texts only; None is as many as are tested."""
    max_test: int | None = None
    """Test on so many texts only; None tests the whole split."""
    vocabulary_size: int = 8192
    """Tokens of the tokenizer that is made of the training texts, at most."""
    hidden_size: int = 256
    """Width of the model."""
    num_layers: int = 6
    """Its depth."""
    num_heads: int = 4
    """Heads of attention."""
    max_length: int = 256
    """Tokens of a row; longer texts make several."""
    stride: int | None = None
    """Tokens by which rows move on in a text of validation or test: each token has at least `max_length` - `stride`
    before it; None is half of `max_length`."""
    seed: int = 0
    """Of the weights and the training."""
    split_seed: int = 0
    """Of the texts that are held out."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=1, batch_size=16)

    def __post_init__(self) -> None:
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        fits = self.stride is None or 0 < self.stride < self.max_length
        require(fits, "stride", f"in 1 … {self.max_length - 1}, below max_length", self.stride)


METRICS = ("bits_per_byte", "perplexity", "next_token_accuracy")
SMOKE = replace(
    Config(),
    max_train=200,
    max_validation=20,
    max_test=20,
    vocabulary_size=500,
    hidden_size=32,
    num_layers=2,
    max_length=64,
    train=replace(Config().train, max_steps=2, num_evaluations=1),
)


def main(config: Config, run: Run) -> None:
    """Make a tokenizer and a model of texts, and say how well it predicts others."""
    # 1. Texts, a tokenizer made of them, and a model without knowledge
    (dataset_name,) = run.pin((config.dataset, "dataset"))
    splits = run.phase(
        "data",
        data.load_texts,
        dataset_name,
        config=config.dataset_config,
        text_columns=config.text_columns,
        train_split=config.train_split,
        validation_split=config.validation_split,
        test_split=config.test_split,
        split_seed=config.split_seed,
        drop_overlap=config.drop_overlap,
        drop_bad_texts=config.drop_bad_texts,
        max_train=config.max_train,
        max_validation=config.max_validation,
        max_test=config.max_test,
    )
    run.add_source(splits.source)
    untrained = run.phase(
        "tokenizer",
        models.new_language_model_of,
        splits.train.texts,
        vocabulary_size=config.vocabulary_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        max_length=config.max_length,
        seed=config.seed,
    )
    rows = data.cut_into_rows(splits.train, untrained.tokenizer, max_length=config.max_length)
    compute = run.phase(
        "setup",
        models.choose_compute,
        model=untrained,
        tokens=rows.tokens,
        batch_size=config.train.batch_size,
        **run.compute,
    )
    unigrams = perplexity.Unigrams.fit(rows, untrained.tokenizer)

    # 2. Train
    student = run.phase(
        "train",
        training.fit,
        untrained.copy(),
        rows,
        losses.next_token_loss,
        config.train,
        seed=config.seed,
        validate=perplexity.validation_of_texts(splits.validation, stride=config.stride, compute=compute),
        compute=compute,
    )

    # 3. The test split is read here, once
    contenders = {
        "student": Contender(student, built_by=("train",)),
        "untrained_student": Contender(untrained),
        "unigrams": Contender(unigrams),
    }
    result = run.phase(
        "evaluate",
        perplexity.evaluate_language_models,
        contenders,
        splits.test,
        stride=config.stride,
        compute=compute,
    )
    costs = run.phase(
        "inference", generation.measure_inference, contenders, splits.test, template=None, compute=compute
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer language model of {splits.source.name}, from scratch",
        task="text-generation",
        metric="bits_per_byte",
        results=result.results,
        inference=costs.inference,
        predictions=result.predictions,
        curve=training.curve(student),
        model={
            **models.describe(student, compute),
            "evaluation_stride": perplexity.stride_of(student, config.stride),
        },
        languages=splits.languages,
        limits=[
            f"Trained on {splits.source.name} alone: it knows nothing else, and says false things in good language.",
            *data.tested_in_part(splits),
            "Not a medical device, and no source of advice.",
            perplexity.stride_sentence(student, config.stride),
        ],
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
