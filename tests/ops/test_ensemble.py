"""The ensemble pipeline asks two models about a text, and gives both opinions and their mean."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from asyncline import BadRequest, Engine, RequestError
from asyncline.backends import OnnxSession, describe
from asyncline.settings import from_file, merge
from ops import ensemble
from ops.ensemble_phrases import NEUTRAL, WORDS
from ops.ensemble_reviews import review
from tests.serving import ROOT

pytest.importorskip("onnxruntime")

FRESH = [review(seed) for seed in range(3_000_000, 3_002_000)]
"""Reviews that the models were neither trained nor judged on."""
MODELS = {"bow": ensemble.BOW, "cnn": ensemble.CNN}
SETTINGS = merge(
    ensemble.graph.name,
    {op.name: op.code_settings for op in ensemble.graph.ops},
    from_file(ROOT / "config" / "ensemble.yml"),
)

Answer = dict[str, float]


def ask(texts: Sequence[Any], at_once: int = 250) -> list[Any]:
    """What the pipeline says of each, with so many in flight together; or its error."""

    async def main() -> list[Any]:
        async with Engine(ensemble.graph, SETTINGS) as engine:
            return [
                answer
                for start in range(0, len(texts), at_once)
                for answer in await asyncio.gather(
                    *(engine.submit({"text": text}) for text in texts[start : start + at_once]), return_exceptions=True
                )
            ]

    return asyncio.run(main())


@pytest.fixture(scope="module")
def opinions() -> list[Answer]:
    """Of the fresh reviews, in their order."""
    return ask([each.text for each in FRESH])


# -- the models


@pytest.mark.parametrize("which", ["all", "twisted"])
@pytest.mark.parametrize("name", ["bow", "cnn", "positive"])
def test_the_models_are_as_good_as_the_module_says_on_reviews_they_have_never_seen(
    name: str, which: str, opinions: list[Answer]
) -> None:
    stated = dict(
        zip(
            [(name, which) for which in ("all", "twisted") for name in ("bow", "cnn", "positive")],
            (float(percent) / 100 for percent in re.findall(r"([\d.]+)\s%", ensemble.__doc__ or "")),
            strict=True,
        )
    )[name, which]
    right = [
        (opinion[name] > 0.5) == each.positive
        for each, opinion in zip(FRESH, opinions, strict=True)
        if each.twisted or which == "all"
    ]
    # Within three standard errors.
    assert np.mean(right) == pytest.approx(stated, abs=3 * math.sqrt(stated * (1 - stated) / len(right)))


def test_both_models_number_the_same_words() -> None:
    known = [describe(file).metadata["words"].split() for file in MODELS.values()]
    assert known[0] == known[1]
    assert len(set(known[0])) == len(known[0]) > 300


def test_every_word_of_opinion_is_known_to_the_models() -> None:
    known = ensemble.number_words(describe(ensemble.BOW).metadata["words"].split())
    words = {word for kinds in WORDS.values() for some in kinds.values() for word in some}
    assert not words - known.keys()


def test_only_the_convolution_sees_the_order_of_words() -> None:
    praise, blame = ask(
        ["I expected it to be boring, but it was funny.", "I expected it to be funny, but it was boring."]
    )
    assert praise["bow"] == pytest.approx(blame["bow"], abs=0.0011)
    assert praise["cnn"] > 0.9
    assert blame["cnn"] < 0.1


@pytest.mark.parametrize("name", MODELS)
def test_what_a_text_is_filled_up_with_changes_nothing(name: str) -> None:
    session = OnnxSession(MODELS[name])
    rng = np.random.default_rng(1)
    words = rng.integers(ensemble.UNKNOWN, 300, (8, 20))
    alone = session.run_named({"words": words[:, :7], "lengths": np.full(8, 7)})["positive"]
    assert np.ptp(alone) > 0.5  # they differ, so that a wrong one would show
    filled = session.run_named({"words": words, "lengths": np.full(8, 7)})["positive"]
    assert filled == pytest.approx(alone, abs=1e-5)


def test_a_text_gets_the_same_answer_alone_as_among_others(opinions: list[Answer]) -> None:
    for alone, together in zip(ask([each.text for each in FRESH[:100]], at_once=1), opinions[:100], strict=True):
        assert alone == pytest.approx(together, abs=0.0011)  # the last digit may be rounded the other way


# -- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It ISN'T good,\n really!!", ["it", "is", "not", "good", ",", "really", "!", "!"]),
        ("didn’t", ["did", "not"]),
        ("the 80s_film", ["the", "80s", "film"]),
        ("super👍👎", ["super", "👍", "👎"]),
        ("Schöne Überraschung", ["schöne", "überraschung"]),
        (" \t\n", []),
    ],
)
def test_a_text_is_split_into_small_words_and_signs(text: str, words: list[str]) -> None:
    assert ensemble.split(text) == words


def test_words_that_are_not_known_have_one_number() -> None:
    known = ensemble.number_words(["film", "good"])
    assert ensemble.numbers("A good film!", known).tolist() == [1, 3, 2, 1]


# -- reviews


def test_a_review_is_the_same_for_the_same_seed() -> None:
    assert review(7) == review(7) != review(8)


def test_half_of_the_reviews_are_positive_and_most_are_twisted() -> None:
    assert np.mean([each.positive for each in FRESH]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([each.twisted for each in FRESH]) == pytest.approx(0.73, abs=0.04)


def test_a_review_that_only_praises_is_positive_unless_it_is_twisted() -> None:
    praise, blame = (
        {word for kinds in WORDS.values() for strength in (1, 2) for word in kinds[sign * strength]} for sign in (1, -1)
    )
    words = [(each, set(ensemble.split(each.text))) for each in FRESH]
    only_praise = [each for each, used in words if used & praise and not used & blame]
    assert all(each.positive for each in only_praise if not each.twisted)
    assert not all(each.positive for each in only_praise)


def test_what_says_nothing_holds_no_word_of_opinion() -> None:
    words = {word for kinds in WORDS.values() for some in kinds.values() for word in some}
    assert not words & {word for phrase in NEUTRAL for word in ensemble.split(phrase)}


# -- the graph

TEXTS: dict[str, Any] = {
    "praise": "I loved it!",
    "bytes of a raw body": b"I loved it!",
    "small letters": "i loved it!",
    "capitals": "I LOVED IT!",
    "an emoji": "👍🏽",
    "the longest": "great " * (ensemble.MAX_LENGTH // 6),
    "nothing but signs": "." * ensemble.MAX_LENGTH,
    "other writing": "今天 I loved it \x00 \u202e",
}
BAD: dict[str, tuple[Any, str]] = {
    "empty": ("", "op 'words' preprocess: the text has no word that the models know"),
    "blank": (" \n", "op 'words' preprocess: the text has no word that the models know"),
    "another language": ("Ein Meisterwerk", "op 'words' preprocess: the text has no word that the models know"),
    "100 kB": ("good " * 20_000, "field 'text': a text of 100000 characters is over the limit of 5000"),
    "no UTF-8": (b"\xff\xfe", "field 'text': the text is not UTF-8"),
    "a number": (5, "field 'text': expected a string, got a number"),
}


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """To all of these, which are in flight together."""
    return dict(zip([*TEXTS, *BAD], ask([*TEXTS.values(), *(text for text, _ in BAD.values())]), strict=True))


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_of_any_kind_is_answered_with_both_opinions_and_their_mean(name: str, answers: dict[str, Any]) -> None:
    answer = answers[name]
    assert not isinstance(answer, BaseException), answer
    assert list(answer) == ["positive", "bow", "cnn"]
    assert all(type(share) is float and 0 <= share <= 1 for share in answer.values())
    assert answer["positive"] == pytest.approx((answer["bow"] + answer["cnn"]) / 2, abs=0.0011)


@pytest.mark.parametrize("name", ["praise", "an emoji", "the longest"])
def test_praise_is_found_positive(name: str, answers: dict[str, Any]) -> None:
    assert answers[name]["positive"] > 0.9


@pytest.mark.parametrize("name", ["bytes of a raw body", "small letters", "capitals"])
def test_how_a_text_is_written_or_sent_makes_no_difference(name: str, answers: dict[str, Any]) -> None:
    assert answers[name] == pytest.approx(answers["praise"], abs=0.0011)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_judged_is_the_clients_fault(name: str, answers: dict[str, Any]) -> None:
    error: RequestError = answers[name]
    assert isinstance(error, BadRequest)
    assert str(error) == BAD[name][1]
