"""Use the model of a run from the command line: classify texts, search, let it write, and say what that cost."""

import csv
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from smallmodels import energy, evaluation, files, generation, models, records
from smallmodels.data.completions import Template
from smallmodels.data.tables import Table, read_table
from smallmodels.data.text_classification import TEXT_COLUMNS
from smallmodels.errors import InputError
from smallmodels.models import LanguageModel, TextModel
from smallmodels.text import inert_cell, printable, shorten

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
FILE_SUFFIXES = (".txt", *TABLE_SUFFIXES)
_LONGEST_ANSWER = 256
SHOWN_LABELS = 3
"""Labels printed for a text; a file gets them all."""

Kind: TypeAlias = Literal["classifier", "embedder", "language model"]


def predict(
    run: str,
    text_or_file: str,
    *,
    second: str | None = None,
    text_column: str | None = None,
    second_column: str | None = None,
    output: Path | None = None,
    batch_size: int = 32,
) -> int:
    """Print what a model says of texts: a class, labels, spans or a score; or write it as CSV or JSON Lines.

    Args:
        run: Run folder of a classifier, or its model folder.
        text_or_file: A text, or a .txt, .csv, .jsonl or .parquet file.
        second: The other text, where the model reads pairs.
        text_column: Column with the texts; guessed from the usual names if None.
        second_column: Column with the second texts of a file.
        output: A .csv or .jsonl file; None prints.
        batch_size: Texts at once.

    Returns: 0.
    Raises: InputError if the run has no classifier, or a file cannot be read or written.
    """
    texts = read_texts(text_or_file, text_column)
    seconds = _read_seconds(text_or_file, second, second_column)
    write = _writer(output, text_or_file)
    with energy.Meter() as meter:
        with meter.phase("setup"):
            model = _load_model(run, "classifier")
            _require_pairs(run, evaluation.reads_pairs(model), texts, seconds)
            compute = models.choose_compute()
            meter.set_synchronize(compute.synchronize)
        with meter.phase("inference") as measured:
            answers = evaluation.answer_texts(model, texts, seconds, batch_size=batch_size, compute=compute)
    write(Answered(evaluation.kind_of(model), texts, answers, seconds))
    print(cost_sentence(len(texts), "text", measured.reading), file=sys.stderr)
    return 0


def _read_seconds(text_or_file: str, second: str | None, column: str | None) -> list[str] | None:
    """The other texts: the one that is given, those of a column, or None."""
    if second is not None and column is not None:
        raise InputError("the second texts should come from one place: give --second or --second-column, not both")
    if column is None:
        return None if second is None else [second]
    if not _is_table(text_or_file):
        raise InputError(
            f"--second-column needs a file with columns ({', '.join(TABLE_SUFFIXES)}), got "
            f"{shorten(text_or_file, 60)!r}: give the other text with --second TEXT"
        )
    return read_texts(text_or_file, column, flag="--second-column")


def _require_pairs(run: str, reads_pairs: bool, texts: Sequence[str], seconds: Sequence[str] | None) -> None:
    if reads_pairs and seconds is None:
        raise InputError(
            f"{run} reads two texts at once: give the other with --second TEXT, or --second-column of a file"
        )
    if not reads_pairs and seconds is not None:
        raise InputError(f"{run} reads one text at a time: leave out --second and --second-column")
    if seconds is not None and len(seconds) != len(texts):
        raise InputError(
            f"there should be a second text for each of {len(texts)}, got {len(seconds)}: use --second-column"
        )


def search(run: str, question: str, top: int) -> int:
    """Print the documents of a run's index that fit a question best.

    Returns: 0.
    Raises: InputError if the run has no embedder or no index, or the question is empty.
    """
    if not question.strip():
        raise InputError('the question should have words, but is empty: ask something like "run a command"')
    folder = Path(run) / "index"
    if not folder.is_dir():
        _load_model(run, "embedder")  # says so where there is none
        raise InputError(f"{run} holds an embedder but no index of texts to search in: {_embed_with(run)}")
    with energy.Meter() as meter:
        with meter.phase("setup"):
            model, index = _load_model(run, "embedder"), evaluation.SearchIndex.load(folder)
            compute = models.choose_compute()
            meter.set_synchronize(compute.synchronize)
        with meter.phase("inference") as measured:
            hits = index.search(model, question, top=top, compute=compute)
    for hit in hits:
        print(f"{hit.score:6.3f}  {shorten(hit.text, 72)}")
    print(cost_sentence(1, "question", measured.reading), file=sys.stderr)
    return 0


def ask(
    run: str,
    prompt: str,
    *,
    template: Template | None = None,
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> int:
    """Print what a language model answers.

    Args:
        run: Run folder of a language model, or its model folder.
        prompt: What it is asked.
        template: How the prompt is written; None is as the run wrote it in training, `plain` where it had no prompts.
        max_new_tokens: Longest answer; None is 256, or what the model has room for after the prompt.
        temperature: 0 takes the most likely token each time; above, tokens are drawn.
        seed: Of the draws.

    Returns: 0.
    Raises: InputError if the run has no language model, or prompt and answer do not fit into it.
    """
    if not prompt.strip():
        raise InputError('the prompt should have words, but is empty: ask something like "What is asthma?"')
    with energy.Meter() as meter:
        with meter.phase("setup"):
            model = _load_model(run, "language model")
            compute = models.choose_compute()
            meter.set_synchronize(compute.synchronize)
        with meter.phase("inference") as measured:
            form = template or _template_of(run)
            found = generation.answer(
                model,
                [prompt],
                template=form,
                max_new_tokens=max_new_tokens or generation.room_after(model, prompt, form, at_most=_LONGEST_ANSWER),
                temperature=temperature,
                seed=seed,
                compute=compute,
            )
    print(*map(printable, found.texts[0].strip().splitlines()), sep="\n")
    print(cost_sentence(1, "answer", measured.reading), file=sys.stderr)
    return 0


def _template_of(run: str) -> Template:
    """How the run wrote its prompts, as its record says."""
    folders = (Path(run), Path(run).resolve().parent)  # it may be the folder of its model
    path = next((path for folder in folders if (path := folder / records.RECORD_NAME).is_file()), None)
    return "chat" if path and records.read_record(path).template == "chat" else "plain"


def _model_folder(run: str) -> Path:
    folder = Path(run) / "model"
    return folder if folder.is_dir() else Path(run)


def _embed_with(run: str) -> str:
    """What to do with an embedder that no index belongs to."""
    return f'embed texts in Python with SentenceTransformer("{_model_folder(run)}")'


_LACKS = {"classifier": "has no labels", "embedder": "cannot search", "language model": "writes no answers"}
"""What a model cannot do that is not of this kind."""


def _kind_of(model: TextModel) -> Kind:
    if isinstance(model.model, LanguageModel):
        return "language model"
    return "embedder" if evaluation.is_embedder(model.model) else "classifier"


def _load_model(run: str, wanted: Kind) -> TextModel:
    folder = _model_folder(run)
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise InputError(f"{run} should be the folder of a complete run, but holds no model: check the path")
    model = TextModel.load(folder)
    found = _kind_of(model)
    if found != wanted:
        has_index = (Path(run) / "index").is_dir()
        instead = {
            "classifier": f"use `smallmodels predict {run} TEXT`",
            "embedder": f"use `smallmodels search {run} QUESTION`" if has_index else _embed_with(run),
            "language model": f"use `smallmodels ask {run} PROMPT`",
        }
        article = "an" if found == "embedder" else "a"
        raise InputError(f"{run} holds {article} {found}, which {_LACKS[wanted]}: {instead[found]}")
    return model


def cost_sentence(num_uses: int, unit: str, reading: energy.EnergyReading) -> str:
    """What so many uses cost, with joules per 1,000 where the window was long enough to know."""
    what = f"{num_uses:,} {unit}{'' if num_uses == 1 else 's'}"
    took = f"{what} took {reading.duration_s:.2f} s and {reading.cpu_s:.2f} CPU-seconds"
    joules = reading.energy_j_per(num_uses)
    if joules is None:
        return f"{took}; that is too short for a reading of joules."
    kind = "measured" if reading.label in records.COUNTED_LABELS else "an estimate, not a measurement"
    return f"{took}; 1,000 take {1000 * joules:,.1f} J ({kind})."


# Texts in


def read_texts(text_or_file: str, text_column: str | None = None, *, flag: str = "--text-column") -> list[str]:
    """The texts of a file, or the one text itself.

    Args:
        text_or_file: A text, or a file of `FILE_SUFFIXES`.
        text_column: Column of the file; guessed from the usual names if None.
        flag: What an error tells to set where there is no such column.

    Raises: InputError if the file has no such column, no texts, or cannot be read; or if the text is empty.
    """
    path = Path(text_or_file)
    suffix = path.suffix.lower()
    if suffix not in FILE_SUFFIXES or not _is_file(path):
        if suffix in FILE_SUFFIXES and " " not in text_or_file:
            raise InputError(f"there is no file {text_or_file}: check the path")
        if not text_or_file.strip():
            raise InputError("the text to classify should have words, but is empty: give a text or a file")
        return [text_or_file]
    texts = _read_lines(path) if suffix == ".txt" else _column(read_table(path), text_column, path, flag)
    if not texts:
        raise InputError(f"{path} should hold texts, but holds none: check the file")
    if blank := [number for number, text in enumerate(texts, start=1) if not text.strip()]:
        raise InputError(f"every row of {path} should hold a text, but {len(blank)} are empty (row {blank[0]} first)")
    return texts


def _is_table(text_or_file: str) -> bool:
    path = Path(text_or_file)
    return path.suffix.lower() in TABLE_SUFFIXES and _is_file(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text may be longer than a path can be
        return False


def _column(table: Table, name: str | None, path: Path, flag: str) -> list[str]:
    names = list(table.columns)
    chosen = name or next((usual for usual in TEXT_COLUMNS if usual in names), None)
    if chosen is None or chosen not in names:
        wanted = f"a column {name!r}" if name else "a column called text"
        raise InputError(f"{path} should have {wanted}, but has {', '.join(names)}: set {flag}")
    return ["" if value is None else str(value) for value in table.columns[chosen]]


def _read_lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} should be a readable text file in UTF-8, but is not: {error}") from error


# Answers out


@dataclass(frozen=True)
class Answered:
    """Texts with what a model says of each."""

    kind: evaluation.Kind
    texts: Sequence[str]
    answers: Sequence[Sequence[evaluation.Answer]]
    """For each text, the surest first."""
    seconds: Sequence[str] | None = None
    """The other text of each pair."""

    def inputs(self, number: int) -> dict[str, str]:
        """The text or the two texts of an answer, by name."""
        one = {"text": self.texts[number]}
        return one if self.seconds is None else {**one, "second": self.seconds[number]}


_Write = Callable[[Answered], None]


def _writer(output: Path | None, source: str) -> _Write:
    """What writes the answers; checked before anything is loaded."""
    if output is None:
        return _print_answers
    writers: dict[str, Callable[[Answered], str]] = {".csv": to_csv, ".jsonl": to_jsonl}
    to_text = writers.get(output.suffix.lower())
    if to_text is None:
        raise InputError(f"--output should end in .csv or .jsonl, got {output.name}: rename it")
    if not output.parent.is_dir() or output.is_dir():
        raise InputError(f"--output should be a file in a folder that exists, got {output}: choose another")
    records.require_outside_runs(output, "--output")
    if output.exists() and output.resolve() == Path(source).resolve():
        raise InputError(f"--output should not be the file that is read, got {output}: choose another")

    def write(answered: Answered) -> None:
        files.write_bytes(output, to_text(answered).encode(errors="replace"))
        print(output)

    return write


def _print_answers(answered: Answered) -> None:
    is_one = len(answered.texts) == 1
    for text, answers in zip(answered.texts, answered.answers, strict=True):
        shown = answers[: SHOWN_LABELS if is_one else 1] if answered.kind == "classes" else answers
        if is_one:
            for answer in shown:
                words = "" if answer.text is None else f"  {shorten(answer.text, 40)}"
                print(f"{answer.score:6.3f}  {shorten(answer.label, 30)}{words}")
            if not shown:
                print("nothing found")
        else:
            score = max((answer.score for answer in shown), default=0.0)
            print(f"{score:6.3f}  {shorten(_in_a_cell(shown), 30):<30}  {shorten(text, 40)}")


def _in_a_cell(answers: Sequence[evaluation.Answer]) -> str:
    return "; ".join(a.label if a.text is None else f"{a.label}: {a.text}" for a in answers)


def to_csv(answered: Answered) -> str:
    """One row per text: the best class with its probability, the labels, the spans or the score.

    A cell that a spreadsheet would run as a formula gets a quote.
    """
    columns = {
        "classes": ["label", "probability"],
        "labels": ["labels"],
        "words": ["spans"],
        "score": ["score"],
    }[answered.kind]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*(["text"] if answered.seconds is None else ["text", "second"]), *columns])
    for number, answers in enumerate(answered.answers):
        cells = [inert_cell(text) for text in answered.inputs(number).values()]
        if answered.kind == "score":
            cells.append(f"{answers[0].score:.6f}")
        elif answered.kind == "classes":
            cells += [inert_cell(answers[0].label), f"{answers[0].score:.6f}"]
        else:
            cells.append(inert_cell(_in_a_cell(answers)))
        writer.writerow(cells)
    return buffer.getvalue()


def to_jsonl(answered: Answered) -> str:
    """One object per text, with all that the model says of it."""
    lines = []
    for number, answers in enumerate(answered.answers):
        said: dict[str, Any]
        if answered.kind == "score":
            said = {"score": round(answers[0].score, 6)}
        elif answered.kind == "words":
            spans = [{"type": a.label, "text": a.text, "probability": round(a.score, 6)} for a in answers]
            said = {"spans": spans}
        else:
            every = {answer.label: round(answer.score, 6) for answer in answers}
            said = {"labels": list(every), "probabilities": every}
            if answered.kind == "classes":
                best = answers[0].label
                said = {"label": best, "probability": every[best], "probabilities": every}
        lines.append(json.dumps({**answered.inputs(number), **said}, ensure_ascii=False))
    return "\n".join(lines) + "\n"
