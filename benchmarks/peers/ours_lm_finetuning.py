"""Language-model fine-tuning with us. A contender of versus_peers.

Source:    loss on completions alone: Ouyang et al. 2022, arXiv:2203.02155, section 3.5.
Run:       smallmodels run benchmarks/peers/ours_lm_finetuning.py
Expected:  benchmarks/results/versus_peers.md; the other side is trl_finetuning.py.
Licences:  GSM8K is MIT; the models have random weights, so the result inherits nothing.

A step of 4 examples holds some 620 tokens, a packed row of the other side at most 1,024. In steps of 6, which are about
as many as the other side takes, ours learned 0.7 points less. Counted is the phase `train`. Nobody validates while
training, and the last weights are taken.
"""

from dataclasses import dataclass, replace

from smallmodels import cli, data, losses, models, perplexity, training
from smallmodels.evaluation import Contender
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """The job, the same for all contenders, and how we train."""

    dataset: str = "openai/gsm8k"
    """Hub id, or a local file, with columns `question` and `answer`."""
    dataset_config: str | None = "main"
    """Configuration of a hub data set that has several."""
    max_train: int | None = None
    """Train on so many examples only; the tokenizer is made of all."""
    max_test: int | None = 100
    """Validate and test on so many examples only."""
    vocabulary_size: int = 30_522
    """Tokens of the tokenizer that is made of the texts; where they have too few, the rest are spare ones."""
    num_layers: int = 6
    """Depth of the model."""
    width: int = 384
    """Its width."""
    num_heads: int = 6
    """Its heads of attention."""
    max_length: int = 512
    """Tokens after which an example is cut."""
    seed: int = 0
    """Of the weights and the training."""
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=3, batch_size=4)


SMOKE = replace(
    Config(),
    max_train=8,
    max_test=4,
    vocabulary_size=2000,
    num_layers=1,
    width=16,
    num_heads=2,
    train=replace(Config().train, batch_size=8, max_steps=2),  # as many examples as the other side
)


def main(config: Config, run: Run) -> None:
    """Fine-tune on completions, and test."""
    # 1. What all contenders share: data, tokenizer, new model
    run.phase("imports", after_imports)
    (dataset_name,) = run.pin((config.dataset, "dataset"))
    splits = run.phase(
        "data",
        data.load_texts,
        dataset_name,
        config=config.dataset_config,
        text_columns=("question",),
        completion_column="answer",
        drop_overlap=True,
        max_test=config.max_test,
    )
    run.add_source(splits.source)
    texts = [*splits.train.texts, *(splits.train.completions or ())]
    tokenizer = models.new_tokenizer(texts, vocabulary_size=config.vocabulary_size)
    tokenizer.add_tokens([f"<|spare {i}|>" for i in range(config.vocabulary_size - len(tokenizer))])

    def rows_of(split: data.Split) -> data.Split:
        return data.cut_completions(split, tokenizer, template="plain", max_length=config.max_length)

    train_rows, validation, test = (
        rows_of(split)
        for split in (splits.train.take(range(len(splits.train))[: config.max_train]), splits.validation, splits.test)
    )
    student = models.new_language_model(
        tokenizer,
        hidden_size=config.width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        max_length=config.max_length,
        seed=config.seed,
    )
    compute = run.phase(
        "setup",
        models.choose_compute,
        model=student,
        tokens=train_rows.tokens,
        batch_size=config.train.batch_size,
        **run.compute,
    )

    # 2. The contender
    learned_by = losses.next_token_loss
    student = run.phase(
        "train", training.fit, student, train_rows, learned_by, config.train, seed=config.seed, compute=compute
    )

    # 3. What it learned; the learning rate was chosen on validation
    contenders = {"student": Contender(student, built_by=("train",))}
    chosen_on, tested = (
        run.phase(name, perplexity.evaluate_rows, contenders, split, compute=compute)
        for name, split in (("validate", validation), ("evaluate", test))
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer language model of {splits.source.name}, fine-tuned with smallmodels",
        task="text-generation",
        metric="perplexity",
        results=[*tested.results, *chosen_on.results],
        predictions={},
        model=models.describe(student, compute),
        languages=splits.languages,
        limits=["Made to compare the cost of training, not for use."],
    )


def after_imports() -> None:
    """Nothing: the memory of this phase is what the imports take."""


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
