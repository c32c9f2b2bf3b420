"""Reading levels: no header that gives the level away, and no article on two sides."""

import csv
import re

import numpy as np
import pytest

from smallmodels import data
from smallmodels.data import reading_levels
from smallmodels.data.splits import Split
from smallmodels.errors import InputError

TOPICS = ("whales", "bridges", "violins", "volcanoes", "tractors", "lighthouses", "penguins", "sculptors")
HEADERS = {"ele": "", "int": "Intermediate \n", "adv": "ADVANCED LEVEL:\n"}
LOST = re.compile(r"""[^ -~]|['"`]""")  # what the intermediate texts of OneStopEnglish lack, and quotes


def article(number, level):
    """Sixty words about something of its own; the higher the level, the more of them change."""
    generator = np.random.default_rng(number)
    own = [f"{TOPICS[number % 8]}{number}x{i}" for i in range(60)]
    keep = {"ele": 60, "int": 56, "adv": 52}[level]
    return HEADERS[level] + " ".join(generator.permutation(own)[:keep]) + f" the story of level {len(level)}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "levels.csv"
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "level"])
        writer.writerows((article(number, level), level) for level in HEADERS for number in range(40))
    return path


def load(file, **options):
    return data.load_reading_levels(str(file), label_column="level", **options)


def number_of(text):
    return int(re.search(r"[a-z]+(\d+)x", text).group(1))


def test_no_text_begins_with_its_level(file):
    splits = load(file)
    for split in (splits.train, splits.validation, splits.test):
        assert not [text for text in split.texts if re.match(r"\s*(intermediate|advanced)", text, re.IGNORECASE)]
    assert sum(splits.source.notes["num_headers_removed"].values()) == 80


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Intermediate \nThe auction", "The auction"),
        ("Advanced level:\nThe auction", "The auction"),
        ("Intermediate results of the auction", "Intermediate results of the auction"),
        ("Advanced\n", ""),
        ("Hard times\nwere these", "Hard times\nwere these"),
    ],
)
def test_a_header_is_a_line_of_its_own(text, left):
    split, removed = reading_levels.without_headers(Split("train", ["0"], [text]))
    assert split.texts == [left]
    assert removed == (left != text)


def typographic(tmp_path, levels):
    """A file of articles that have quotes, dashes and accents at these levels, and at the others have lost them."""
    path = tmp_path / "typographic.csv"
    with path.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "level"])
        for level in HEADERS:
            for number in range(40):
                text = f"{article(number, level)} – it isn’t José’s, “he” said"
                writer.writerow([text if level in levels else text.encode("ascii", "ignore").decode(), level])
    return path


def test_no_level_is_told_by_characters_that_another_has_lost(tmp_path):
    splits = load(typographic(tmp_path, ("ele", "adv")))
    texts = [text for split in (splits.train, splits.validation, splits.test) for text in split.texts]
    assert {text.partition(" it isnt ")[2] for text in texts} == {"Joss, he said"}
    assert not any("  " in text or "\n" in text for text in texts)
    assert sum(splits.source.notes["num_texts_made_plain_ascii"].values()) == 80


@pytest.mark.parametrize("levels", [(), ("ele", "int", "adv")])
def test_levels_that_have_the_same_characters_keep_them(tmp_path, levels):
    splits = load(typographic(tmp_path, levels))
    assert all(("isn’t José’s" in text) == bool(levels) for text in splits.train.texts)
    assert "num_texts_made_plain_ascii" not in splits.source.notes


def test_a_level_with_hardly_any_such_text_has_lost_its_characters_too(tmp_path):
    path = typographic(tmp_path, ("ele", "adv"))
    path.write_text(f"{path.read_text(encoding='utf-8')}{TOPICS[0]}99x1 “stayed”,int\n", encoding="utf-8")
    splits = load(path)
    assert all(text.isascii() for split in (splits.train, splits.validation, splits.test) for text in split.texts)
    assert sum(splits.source.notes["num_texts_made_plain_ascii"].values()) == 81


def test_plain_ascii_has_no_quotes_and_one_space_between_words():
    texts = ["José said:\x19 'no' – \"no\"\n\nand left. ", "plain\nas it is"]
    split, changed = reading_levels.in_plain_ascii(Split("train", ["0", "1"], texts))
    assert split.texts == ["Jos said: no no and left.", "plain as it is"]
    assert changed == 1


def test_versions_of_an_article_stay_on_one_side(file):
    splits = load(file, split_seed=3)
    sides = [{number_of(text) for text in split.texts} for split in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, sides)) == len(set().union(*sides)) == 40
    assert splits.source.notes["num_articles"] == 40
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [84, 12, 24]
    assert splits.source.splits == {"train": 84, "validation": 12, "test": 24}
    assert all(len(np.unique(split.class_labels)) == 3 for split in (splits.train, splits.validation, splits.test))


def test_train_is_limited_after_the_draw(file):
    splits = load(file, max_train=30, drop_overlap=True)
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [30, 12, 24]
    assert splits.source.notes["overlap"] == {"train/validation": 0, "train/test": 0}


def test_the_draw_follows_its_seed(file):
    assert load(file).test.fingerprint() == load(file).test.fingerprint() != load(file, split_seed=1).test.fingerprint()


def test_data_about_one_article_are_refused(tmp_path):
    path = tmp_path / "one.csv"
    rows = [f"whales and bridges and violins again, number {i} of {level}" for i in range(20) for level in ("a", "b")]
    path.write_text("text,level\n" + "".join(f'"{row}",{row[-1]}\n' for row in rows))
    with pytest.raises(InputError, match="should have texts of every level"):
        load(path)


@pytest.mark.hub
@pytest.mark.slow
def test_onestop_english_says_its_level_nowhere_and_is_drawn_by_article(hub, hub_home):
    *sizes, num_articles, num_removed = hub.evaluate(
        "(lambda s: [[len(p), sum(t.lower().lstrip().startswith(('intermediate', 'elementary', 'advanced')) "
        "for t in p.texts)] for p in (s.train, s.validation, s.test)] + [s.source.notes['num_articles'], "
        "sum(s.source.notes['num_headers_removed'].values())])(data.load_reading_levels('iastate/onestop_english'))",
        hub_home,
    ).get()
    assert [bad for _, bad in sizes] == [0, 0, 0]
    assert sum(size for size, _ in sizes) == 567
    assert num_removed == 189
    assert 180 <= num_articles <= 200


@pytest.mark.hub
@pytest.mark.slow
def test_onestop_english_has_no_character_that_tells_a_level(hub, hub_home):
    rows = hub.evaluate(
        "(lambda s: [[s.label_names[level], ''.join(sorted(set(text)))] for p in (s.train, s.validation, s.test) "
        "for level, text in zip(p.class_labels, p.texts)])(data.load_reading_levels('iastate/onestop_english'))",
        hub_home,
    ).get()
    has_lost = {level: [bool(LOST.search(found)) for name, found in rows if name == level] for level in HEADERS}
    assert {level: np.mean(found) for level, found in has_lost.items()} == {"ele": 0, "int": 0, "adv": 0}
    is_int = np.array([level == "int" for level, _ in rows])
    for character in set().union(*(found for _, found in rows)):
        has = np.array([character in found for _, found in rows])
        told = (has[is_int].mean() + (~has[~is_int]).mean()) / 2  # of a coin: 0.5
        assert 0.4 < told < 0.6, character


@pytest.mark.hub
@pytest.mark.slow
def test_topics_in_languages_are_joined_and_told_apart(hub, hub_home):
    sizes, languages, labels, first, codes = hub.evaluate(
        "(lambda s: [[len(p) for p in (s.train, s.validation, s.test)], "
        "{k: len(v) for k, v in data.by_language(s.test).items()}, s.label_names, s.test.ids[204], s.languages])"
        "(data.load_in_languages('Davlan/sib200', ('eng_Latn', 'swh_Latn'), max_train=100))",
        hub_home,
    ).get()
    assert sizes == [200, 198, 408]
    assert languages == {"eng_Latn": 204, "swh_Latn": 204}
    assert len(labels) == 7
    assert first == "swh_Latn/test/0"
    assert codes == ["en", "sw"]
