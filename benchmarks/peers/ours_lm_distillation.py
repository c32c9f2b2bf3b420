"""Language-model distillation with us: the teacher's pass stored once, then three epochs. A contender of versus_peers.

Source:    Hinton et al. 2015, arXiv:1503.02531, section 2: KL to the teacher's next-token distribution.
Run:       smallmodels run benchmarks/peers/ours_lm_distillation.py
Expected:  benchmarks/results/versus_peers.md; the other side is trl_distillation.py.
Licences:  GSM8K is MIT; the models have random weights, so the result inherits nothing.

Counted are the phases `cache` and `train`. The teacher is fine-tuned on the same examples for a moment, so that there
is something to learn from it; that is the same for both sides and not counted, its pass is made afresh in each run.
The loss is on completions alone. Nobody validates while training, and the last weights are taken.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from smallmodels import cli, data, losses, models, perplexity, teachers, training
from smallmodels.data import Batch
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.models import LanguageModel
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
    teacher_layers: int = 12
    """Depth of the teacher."""
    teacher_width: int = 576
    """Its width."""
    teacher_heads: int = 9
    """Its heads of attention."""
    num_layers: int = 6
    """Depth of the student."""
    width: int = 384
    """Its width."""
    num_heads: int = 6
    """Its heads of attention."""
    max_length: int = 512
    """Tokens after which an example is cut."""
    k: int = 32
    """Most likely tokens of the teacher that are kept for each place."""
    soft_weight: float = 0.5
    """Share of the divergence in the loss; the rest is cross-entropy with the next token, which tells tokens apart that
    are one tail in the signal. Chosen on validation: 584 is the perplexity there, and 738 at 0.9, the recipe's own."""
    seed: int = 0
    """Of the student's weights and its training."""
    teacher_seed: int = 0
    """Of the teacher's weights and its training."""
    teacher_train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=5, batch_size=4, num_evaluations=1)
    train: TrainConfig = TrainConfig(learning_rate=1e-3, num_epochs=3, batch_size=8)

    def __post_init__(self) -> None:
        require(self.k > 0, "k", "> 0", self.k)


SMOKE = replace(
    Config(),
    max_train=8,
    max_test=4,
    vocabulary_size=2000,
    teacher_layers=1,
    teacher_width=32,
    teacher_heads=2,
    num_layers=1,
    width=16,
    num_heads=2,
    teacher_train=replace(Config().teacher_train, max_steps=2),
    k=8,
    train=replace(Config().train, max_steps=2),
)


def main(config: Config, run: Run) -> None:
    """Store the teacher's signal, train the student on it, and test it."""
    # 1. What all contenders share: data, tokenizer, teacher that learned a little, new student
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
    base = models.new_language_model(
        tokenizer,
        hidden_size=config.teacher_width,
        num_layers=config.teacher_layers,
        num_heads=config.teacher_heads,
        max_length=config.max_length,
        seed=config.teacher_seed,
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

    teacher = run.phase(
        "teacher",
        teachers.fine_tune,
        base,
        train_rows,
        losses.next_token_loss,
        config.teacher_train,
        seed=config.teacher_seed,
        validation=validation,
        validate=perplexity.validation_of_rows(validation, compute=compute),
        compute=compute,
    )
    del base  # else it is part of the memory of what follows

    # 2. The contender
    def soft_loss(model: LanguageModel, batch: Batch) -> Tensor:
        states, labels = losses.next_tokens(model(**batch.inputs), batch.inputs["input_ids"], batch.targets)
        told = batch.teacher_top_k

        def of_chunk(logits: Tensor, chunk: slice) -> Tensor:
            return losses.top_k_distillation_loss(
                logits,
                told[chunk],
                labels[chunk],
                losses.kl_divergence,
                temperature=1.0,
                soft_weight=config.soft_weight,
            )

        return losses.by_chunks(states, model.output_layer, of_chunk)

    signals = run.phase(
        "cache",
        teachers.store_token_signals,
        teacher,
        train_rows,
        packing=teachers.Packing(config.k, (1.0,), config.vocabulary_size),
        compute=compute,
        cache=run.folder / "signals",  # the shared one would give the next run what this one has paid for
    )
    del teacher  # what it said is stored
    student = run.phase(
        "train",
        training.fit,
        student,
        train_rows.with_signals(signals),
        soft_loss,
        config.train,
        seed=config.seed,
        compute=compute,
    )

    # 3. What it learned; the learning rate was chosen on validation
    contenders = {"student": Contender(student, built_by=("cache", "train"), teacher_phases=("teacher",))}
    chosen_on, tested = (
        run.phase(name, perplexity.evaluate_rows, contenders, split, compute=compute)
        for name, split in (("validate", validation), ("evaluate", test))
    )
    run.finish(
        student,
        title=f"{config.num_layers}-layer language model of {splits.source.name}, distilled with smallmodels",
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
