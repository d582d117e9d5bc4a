"""What the reviews of `ensemble_reviews.py` are put together from: words of opinion, and phrases around them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrase:
    """One opinion: `{word}` has the sign that `turn` asks for, `{other}` the opposite one."""

    text: str
    turn: float = 1.0
    """What the phrase makes of the word's opinion: at 1 it stays, below 0 it is turned round."""
    words: str = "adjectives"
    """A key of WORDS."""

    @property
    def twisted(self) -> bool:
        """Whether a word of opinion in it is not what the reviewer thinks."""
        return self.turn < 0 or "{other}" in self.text


WORDS: dict[str, dict[int, tuple[str, ...]]] = {
    "adjectives": {
        2: (
            "wonderful", "brilliant", "superb", "excellent", "amazing", "fantastic", "outstanding", "perfect",
            "magnificent", "awesome", "great", "gorgeous", "stunning", "masterful", "unforgettable", "terrific",
            "splendid", "marvellous", "exceptional", "incredible",
        ),
        1: (
            "good", "nice", "pleasant", "charming", "funny", "clever", "enjoyable", "solid", "touching", "fresh",
            "witty", "warm", "likeable", "entertaining", "interesting", "engaging", "beautiful", "moving", "gripping",
            "original", "fun", "smart", "lovely", "convincing", "exciting",
        ),
        -1: (
            "bad", "boring", "dull", "weak", "slow", "silly", "tedious", "lame", "predictable", "shallow", "clumsy",
            "annoying", "bland", "flat", "stupid", "forgettable", "messy", "cheap", "stale", "confusing", "ugly",
            "lifeless", "disappointing", "mediocre", "poor",
        ),
        -2: (
            "terrible", "awful", "horrible", "dreadful", "atrocious", "abysmal", "unwatchable", "pathetic",
            "disgusting", "appalling", "ridiculous", "worthless", "painful", "unbearable", "horrendous", "laughable",
            "insulting", "disastrous", "hopeless", "miserable",
        ),
    },
    "verbs": {
        2: ("love", "adore", "treasure"),
        1: ("like", "enjoy", "admire", "appreciate", "recommend", "praise"),
        -1: ("dislike", "regret", "resent", "pity", "mock"),
        -2: ("hate", "despise", "loathe", "detest"),
    },
    "past": {
        2: ("loved", "adored", "treasured"),
        1: ("liked", "enjoyed", "admired", "appreciated", "recommended", "praised"),
        -1: ("disliked", "regretted", "resented", "pitied", "mocked"),
        -2: ("hated", "despised", "loathed", "detested"),
    },
    "nouns": {
        2: ("masterpiece", "triumph", "gem", "delight", "treat", "miracle"),
        1: ("success", "pleasure", "surprise", "joy", "classic", "winner"),
        -1: ("failure", "letdown", "bore", "mistake", "disappointment", "mess"),
        -2: ("disaster", "catastrophe", "insult", "disgrace", "nightmare", "embarrassment"),
    },
}  # fmt: skip
"""Words of opinion, by sign and strength."""

DEGREES = {
    "": 1.0, "very": 1.5, "really": 1.5, "so": 1.5, "truly": 1.5, "absolutely": 2.0, "extremely": 2.0, "just": 1.0,
    "quite": 0.8, "rather": 0.7, "fairly": 0.7, "somewhat": 0.5, "a bit": 0.4, "a little": 0.4,
}  # fmt: skip
"""What strengthens or weakens an opinion, and how much."""

STRAIGHT = (
    Phrase("{thing} is {degree} {word}"),
    Phrase("{thing} was {degree} {word}"),
    Phrase("i found {thing} {degree} {word}"),
    Phrase("{thing} felt {degree} {word} to me"),
    Phrase("i have to say that {thing} is {degree} {word}"),
    Phrase("{degree} {word}"),
    Phrase("a {word} {part}"),
    Phrase("what a {word} {part}", 1.5),
    Phrase("one of the most {word} films of the year", 1.5),
    Phrase("i {word} {thing}", words="verbs"),
    Phrase("you will {word} {thing}", words="verbs"),
    Phrase("i {word} {thing}", words="past"),
    Phrase("we all {word} {thing}", words="past"),
    Phrase("{thing} is a {word}", words="nouns"),
    Phrase("what a {word}", words="nouns"),
)
"""The opinion is that of the word."""

TURNED = (
    Phrase("{thing} is not {word}", -0.7),
    Phrase("{thing} isn't {word} at all", -1),
    Phrase("{thing} was not {degree} {word}", -0.7),
    Phrase("{thing} wasn't {word} in the least", -1),
    Phrase("not {word}", -0.7),
    Phrase("not {word} at all", -1),
    Phrase("not a {word} {part}", -0.7),
    Phrase("{thing} is never {word}", -1),
    Phrase("{thing} is hardly {word}", -0.7),
    Phrase("{thing} is far from {word}", -1),
    Phrase("{thing} is anything but {word}", -1),
    Phrase("there is nothing {word} about {thing}", -1),
    Phrase("nobody could call {thing} {word}", -1),
    Phrase("i would not say that {thing} is {word}", -0.7),
    Phrase("i don't think {thing} is {word}", -0.7),
    Phrase("{thing} moves along without being {word}", -0.5),
    Phrase("i can't {word} {thing}", -0.7, "verbs"),
    Phrase("i didn't {word} {thing} at all", -1, "verbs"),
    Phrase("i would never {word} {thing}", -1, "verbs"),
    Phrase("i never {word} {thing}", -1, "past"),
    Phrase("there is little to {word} in {thing}", -0.7, "verbs"),
    Phrase("{thing} is no {word}", -0.7, "nouns"),
    Phrase("hardly a {word}", -0.7, "nouns"),
    Phrase("{thing} is anything but a {word}", -1, "nouns"),
)
"""Something beside the word turns its opinion round."""

DECOYS = (
    Phrase("{thing} is not only {word} but also {degree} {word}", 1.5),
    Phrase("{thing} couldn't be more {word}", 2),
    Phrase("i have never seen anything so {word}", 2),
    Phrase("without a doubt {thing} is {degree} {word}", 1.2),
    Phrase("i can't say often enough how {word} {thing} is", 1.5),
    Phrase("nothing here is as {word} as {thing}"),
    Phrase("i expected {thing} to be {other}, but it was {degree} {word}"),
    Phrase("everybody told me that {thing} is {other}, i found it {degree} {word}"),
    Phrase("{thing} is {degree} {word}, though the critics called it {other}"),
    Phrase("{thing} was {degree} {word}, and i had hoped for something {other}"),
    Phrase("where others are {other}, this {part} is {degree} {word}"),
    Phrase("not {other}, but {degree} {word}", 1.2),
    Phrase("you wouldn't think so, but i {word} it", words="past"),
    Phrase("my friends {other} {thing}, i {word} it", words="past"),
)
"""A negation that turns nothing round, or a word of opinion that is somebody else's."""

NEUTRAL = (
    "i saw it on a {day} with my {who}",
    "it runs for {number} minutes",
    "it is set in {place} in the {number}s",
    "we watched it at home last {day}",
    "my {who} bought the tickets",
    "the cinema was half empty",
    "it is based on a book that i have not read",
    "there are {number} scenes in {place}",
    "it came out on a {day}",
    "the story begins in {place}, where a {who} meets a stranger",
)

LINKS = ("and {}", "also, {}", "in the end {}", "well, {}", "to be honest, {}", "still, {}", "for me {}")

EMOJI = {1: ("👍", "🙂", "😍", "🎉", "😀"), -1: ("👎", "😡", "🙁", "🤮", "😴")}

PARTS = (
    "film", "movie", "plot", "story", "acting", "music", "score", "ending", "script", "dialogue", "cast",
    "camera work", "pacing", "humour", "lead actor", "heroine", "villain", "director", "second half",
    "opening scene", "soundtrack", "editing", "costume design", "animation", "romance", "action", "sequel", "remake",
    "picture", "last hour",
)  # fmt: skip

FILLERS = {
    "part": PARTS,
    "thing": tuple(f"the {part}" for part in PARTS) + 4 * ("it", "this film", "this movie"),
    "day": ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    "who": ("brother", "sister", "mother", "father", "friend", "neighbour", "daughter", "son", "wife", "husband"),
    "place": ("paris", "london", "new york", "a small town", "berlin", "tokyo", "the desert", "space", "a hotel"),
    "number": tuple(map(str, range(10, 200, 10))),
}
"""What has no opinion."""
