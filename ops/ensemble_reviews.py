"""Reviews of films, made up: the same text for the same seed, nothing on disk.

Some opinions, one after the other: a phrase around a word of opinion, which it may strengthen, weaken or turn
round, among phrases that say nothing, with typing errors. Whether a review is positive follows from the sum of its
opinions, so that the order of words matters: a word of praise may stand in a phrase that denies it, or be
somebody else's. What `ensemble_train.py` learns from, and what the tests send.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from ops.ensemble_phrases import DECOYS, DEGREES, EMOJI, FILLERS, LINKS, NEUTRAL, STRAIGHT, TURNED, WORDS, Phrase

_LEAST_SCORE = 0.7
"""Of a review's opinions together; which way those below it lean is hard to say."""
_ONE_SIDED = 0.75
"""Share of opinions that agree with the review's leaning."""
_MISSPELT = 0.02
"""Share of words with a typing error."""


@dataclass(frozen=True)
class Review:
    text: str
    positive: bool
    twisted: bool
    """Whether a word of opinion in it is not what the reviewer thinks."""


def review(seed: int) -> Review:
    """Make up the review of `seed`."""
    rng = Random(seed)
    while True:
        sentences, score, twisted = [], 0.0, False
        leaning = rng.choice((1, -1))
        for _ in range(rng.choice((1, 1, 2, 2, 3, 3, 4, 5, 6))):
            phrase = rng.choice(rng.choices((STRAIGHT, TURNED, DECOYS), (10, 7, 3))[0])
            text, opinion = _opinion(rng, phrase, leaning if rng.random() < _ONE_SIDED else -leaning)
            sentences.append(text)
            score += opinion
            twisted |= phrase.twisted
            if rng.random() < 0.3:
                sentences.append(_filled(rng, rng.choice(NEUTRAL)))
        if abs(score) >= _LEAST_SCORE:
            return Review(_written(rng, sentences, score > 0), score > 0, twisted)


def _opinion(rng: Random, phrase: Phrase, sign: int) -> tuple[str, float]:
    """A phrase with an opinion of that sign; and the opinion."""
    words = WORDS[phrase.words]
    strength = rng.choice((1, 1, 2))
    towards = sign if phrase.turn > 0 else -sign
    degree = rng.choice(list(DEGREES)) if "{degree}" in phrase.text else ""
    text = phrase.text.replace("{degree}", degree)
    while "{word}" in text:
        text = text.replace("{word}", rng.choice(words[towards * strength]), 1)
    text = _filled(rng, text.replace("{other}", rng.choice(words[-towards * rng.choice((1, 2))])))
    if rng.random() < 0.2:
        text = rng.choice(LINKS).format(text)
    return text, sign * strength * abs(phrase.turn) * DEGREES[degree]


def _filled(rng: Random, text: str) -> str:
    return text.format(**{name: rng.choice(options) for name, options in FILLERS.items()})


def _written(rng: Random, sentences: list[str], positive: bool) -> str:
    """The sentences as somebody types them."""
    end = rng.choice((".", ".", "!", "!!", "...", ""))
    case = rng.choices((str.capitalize, str.lower, str.upper), (6, 3, 1))[0]
    text = f"{end or ','} ".join(case(" ".join(sentence.split())) for sentence in sentences) + end
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    text = " ".join(_misspelt(rng, word) if rng.random() < _MISSPELT else word for word in text.split())
    if rng.random() < 0.1:
        # One in ten of those is irony.
        text += " " + rng.choice(EMOJI[1 if positive == (rng.random() < 0.9) else -1])
    return text


def _misspelt(rng: Random, word: str) -> str:
    """A letter swapped with the next, left out, or typed twice."""
    place = rng.randrange(len(word))
    before, letter, after = word[:place], word[place], word[place + 1 :]
    return rng.choice((before + after[:1] + letter + after[1:], before + after, before + letter + letter + after))
