"""Fine-tune a language model on prompts and completions: all weights, or low-rank adapters (LoRA, DoRA, QLoRA).

Source:    loss on completions alone: Ouyang et al. 2022, arXiv:2203.02155, section 3.5; LoRA: Hu et al. 2021,
           arXiv:2106.09685; DoRA: Liu et al. 2024, arXiv:2402.09353; QLoRA: Dettmers et al. 2023, arXiv:2305.14314;
           GSM8K: Cobbe et al. 2021, arXiv:2110.14168.
Run:       smallmodels run finetune_language_model
Expected:  a lower perplexity of the completions than before; the share of right answers is that of a small model.
Measured:  arithmetic.csv: exact match 67.6 %, one seed, flags as in its record; 8 min 36 s and 975 CPU-s on AMD EPYC, 2
           cores, bf16.
Licences:  GSM8K is MIT, SmolLM2 Apache-2.0; the result inherits its base model's.

The saved model is whole, with adapters merged into it. They are also left by themselves in the run's `adapter/`, which
`peft.PeftModel.from_pretrained(base_model, folder)` puts on the base model: one base in memory, many of them on disk.
"""

from dataclasses import dataclass, replace
from typing import Literal

from smallmodels import cli, data, distilling, generation, losses, models, perplexity, training
from smallmodels.errors import require
from smallmodels.evaluation import Contender
from smallmodels.runs import Run
from smallmodels.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to fine-tune, on what, and how."""

    dataset: str = "openai/gsm8k"
    """Hub id (`org/name@revision` pins it), or a local CSV, JSON Lines or Parquet file."""
    dataset_config: str | None = "main"
    """Configuration of a hub data set that has several; the default goes with the default data set alone."""
    prompt_column: str = "question"
    """Column with what the model is asked."""
    completion_column: str = "answer"
    """Column with what it shall say: right is its number after `####`, or where it has none its words."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str | None = None
    """Split to choose on; a tenth of train if there is none."""
    test_split: str = "test"
    """Split that is read once, at the end; a tenth of train if there is none."""
    drop_overlap: bool = True
    """Drop training prompts that also stand in validation or test."""
    drop_bad_texts: bool = False
    """Leave out rows whose text is empty, null or a megabyte long, instead of refusing the data."""
    max_train: int | None = None
    """Train on so many examples only."""
    max_test: int | None = 200
    """Validate and test on so many examples only, because each is answered; None takes all."""
    base_model: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Causal language model, from the hub or a local folder."""
    template: data.Template = "chat"
    """`chat`: the model's own form of a dialogue; `plain`: prompt, line break, completion."""
    adapter: Literal["none", "lora", "dora", "qlora"] = "lora"
    """Train all weights, or adapters, which are merged into the saved model and kept beside it; `qlora` keeps the
    weights under them in 4 bits while it trains, and needs bitsandbytes and a GPU with CUDA, on which it has not been
    tried yet. All weights of a pretrained model take a smaller learning rate than adapters, such as 5e-5."""
    lora_rank: int = 16
    """Of the adapters."""
    max_length: int = 384
    """Tokens after which an example is cut."""
    max_new_tokens: int = 256
    """Longest answer in the evaluation."""
    seed: int = 0
    """Of the adapters and the training."""
    split_seed: int = 0
    """Of the examples that are held out."""
    train: TrainConfig = TrainConfig(learning_rate=5e-4, num_epochs=2, batch_size=16)

    def __post_init__(self) -> None:
        require(self.lora_rank > 0, "lora_rank", "> 0", self.lora_rank)
        require(self.max_length > 2, "max_length", "> 2", self.max_length)
        require(self.max_new_tokens > 0, "max_new_tokens", "> 0", self.max_new_tokens)


METRICS = ("exact_match", "perplexity", "next_token_accuracy")
SMOKE = replace(
    Config(),
    max_train=50,
    max_test=8,
    max_new_tokens=8,
    train=replace(Config().train, max_steps=2, num_evaluations=1),
)


def main(config: Config, run: Run) -> None:
    """Fine-tune on completions, and see how many answers are right before and after."""
    if config.adapter == "qlora":
        models.require_four_bit(run.compute.get("device", "auto"))

    # 1. Examples and model
    dataset_name, base_name = run.pin((config.dataset, "dataset"), (config.base_model, "model"))
    splits = run.phase(
        "data",
        data.load_texts,
        dataset_name,
        config=config.dataset_config,
        text_columns=(config.prompt_column,),
        completion_column=config.completion_column,
        train_split=config.train_split,
        validation_split=config.validation_split,
        test_split=config.test_split,
        split_seed=config.split_seed,
        drop_overlap=config.drop_overlap,
        drop_bad_texts=config.drop_bad_texts,
        max_train=config.max_train,
        max_test=config.max_test,
    )
    run.add_source(splits.source)
    base, fetched = models.load_language_model(base_name, max_length=config.max_length, role="base_model")
    run.add_source(fetched.source)

    rows = distilling.cut_answers(run, splits, base.tokenizer, template=config.template, max_length=base.max_length)
    generation.require_room([base], splits.test.texts, template=config.template, max_new_tokens=config.max_new_tokens)
    compute = run.phase(
        "setup",
        models.choose_compute,
        model=base,
        tokens=rows.train.tokens,
        batch_size=config.train.batch_size,
        **run.compute,
    )

    # 2. Train on the completions
    adapted = base.copy()
    if config.adapter == "qlora":
        adapted, _ = models.load_language_model(fetched, max_length=config.max_length, four_bit=True)
    if config.adapter != "none":
        adapted = models.add_lora(adapted, rank=config.lora_rank, seed=config.seed, dora=config.adapter == "dora")
    student, adapter = run.phase(
        "train",
        training.fit_with_adapter,
        adapted,
        rows.train,
        losses.next_token_loss,
        config.train,
        seed=config.seed,
        validate=perplexity.validation_of_rows(rows.validation, compute=compute),
        compute=compute,
    )

    # 3. The test split is read here, once
    contenders = {
        "student": Contender(student, built_by=("train",)),
        "untrained_student": Contender(base),
    }
    compared = distilling.compare_answers(
        run,
        contenders,
        splits,
        rows.test,
        template=config.template,
        max_new_tokens=config.max_new_tokens,
        compute=compute,
    )
    if adapter is not None:
        run.keep("adapter", adapter)
    run.finish(
        student,
        title=f"{fetched.source.name}, fine-tuned on {splits.source.name}",
        curve=training.curve(student),
        curve_of="perplexity",
        model={**models.describe(student, compute), "template": config.template},
        **compared,
    )


if __name__ == "__main__":
    cli.run_recipe(main, Config, SMOKE)
