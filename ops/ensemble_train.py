"""Train the models of `ensemble.py` and write `ensemble_bow.onnx` and `ensemble_cnn.onnx`: a minute on one core.

    pip install -e '.[onnx]' 'torch==2.13.0' 'onnx>=1.19'
    python -m ops.ensemble_train

The reviews are made up (`ensemble_reviews.py`). The same machine writes the same files. Serving and tests need
neither torch nor onnx.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from asyncline import Engine
from ops.ensemble import BOW, CNN, UNKNOWN, graph, number_words, numbers, split
from ops.ensemble_reviews import Review, review

TRAINING = range(60_000)
HELD_OUT = range(1_000_000, 1_010_000)
"""Seeds of reviews."""
LEAST_SEEN = 300
"""How often a word has to occur to be known. Typing errors are rarer."""
EPOCHS, BATCH, LEARNING_RATE = 8, 128, 4e-3
DIMENSIONS, FEATURES = 32, 64

log = logging.getLogger("ensemble")


class Sentiment(nn.Module):
    """From words, int64 [n, length], and lengths, int64 [n], to logits, float32 [n]."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, DIMENSIONS)

    def embed(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [n, DIMENSIONS, length], zero where there is padding; and [n, 1, length], one where not."""
        real = (torch.arange(words.shape[1]) < lengths[:, None]).float()[:, None]
        return self.embedding(words).transpose(1, 2) * real, real


class BagOfWords(Sentiment):
    """The mean of all words, then two dense layers: their order is lost."""

    def __init__(self, words: int) -> None:
        super().__init__(words)
        self.head = nn.Sequential(nn.Linear(DIMENSIONS, FEATURES), nn.ReLU(), nn.Linear(FEATURES, 1))

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        embedded, _ = self.embed(words, lengths)
        logits: Tensor = self.head(embedded.sum(2) / lengths[:, None])[:, 0]
        return logits


class Convolution(Sentiment):
    """Features of every five words in a row; of each the mean and the strongest."""

    def __init__(self, words: int) -> None:
        super().__init__(words)
        self.features = nn.Conv1d(DIMENSIONS, FEATURES, 5, padding=2)
        self.head = nn.Linear(2 * FEATURES, 1)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        embedded, real = self.embed(words, lengths)
        features = self.features(embedded).relu() * real
        logits: Tensor = self.head(torch.cat([features.sum(2) / lengths[:, None], features.amax(2)], 1))[:, 0]
        return logits


class Served(nn.Module):
    """A model that gives probabilities."""

    def __init__(self, model: Sentiment) -> None:
        super().__init__()
        self.model = model

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        probabilities: Tensor = self.model(words, lengths).sigmoid()
        return probabilities


def known_words(reviews: Sequence[Review]) -> list[str]:
    seen = Counter(word for each in reviews for word in split(each.text))
    return sorted(word for word, times in seen.items() if times >= LEAST_SEEN)


def train(model: Sentiment, texts: Sequence[Tensor], positive: Tensor) -> Sentiment:
    """:param texts: numbers of words, int64 [length] each."""
    rng = np.random.default_rng(0)
    lengths = torch.tensor([len(text) for text in texts])
    steps = -(-len(texts) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, EPOCHS * steps)
    for epoch in range(EPOCHS):
        # Texts of about one length together, so that little of a batch is padding.
        order, total = np.argsort(lengths.numpy() + rng.uniform(0, 8, len(texts))), 0.0
        for step in rng.permutation(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            words = nn.utils.rnn.pad_sequence([texts[place] for place in chosen], batch_first=True)
            loss = nn.functional.binary_cross_entropy_with_logits(model(words, lengths[chosen]), positive[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        log.info("epoch %d of %d: loss %.4f", epoch + 1, EPOCHS, total / steps)
    return model.eval()


def write(model: Sentiment, known: Sequence[str], path: Path) -> None:
    """Write the ONNX file; its metadata has the words that it knows."""
    file: Any = io.BytesIO()
    torch.onnx.export(
        Served(model),
        (torch.ones(1, 8, dtype=torch.int64), torch.tensor([8])),
        file,
        dynamo=False,  # the newer exporter needs onnxscript
        input_names=["words", "lengths"],
        output_names=["positive"],
        dynamic_axes={"words": {0: "n", 1: "length"}, "lengths": {0: "n"}, "positive": {0: "n"}},
    )
    made = onnx.load_from_string(file.getvalue())
    onnx.helper.set_model_props(made, {"words": " ".join(known)})
    onnx.save(made, path)


async def answers(reviews: Sequence[Review]) -> list[dict[str, float]]:
    """What the pipeline says of each."""
    found: list[dict[str, float]] = []
    async with Engine(graph) as engine:
        for start in range(0, len(reviews), BATCH):
            some = reviews[start : start + BATCH]
            found += await asyncio.gather(*(engine.submit({"text": each.text}) for each in some))
    return found


def accuracy(reviews: Sequence[Review]) -> dict[str, float]:
    """The share of right answers of each model and of their mean."""
    found = asyncio.run(answers(reviews))
    return {
        name: float(
            np.mean([(answer[name] > 0.5) == each.positive for answer, each in zip(found, reviews, strict=True)])
        )
        for name in found[0]
    }


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # the models are so small that more would wait for each other
    reviews = list(map(review, TRAINING))
    known = known_words(reviews)
    places = number_words(known)
    texts = [torch.from_numpy(numbers(each.text, places)) for each in reviews]
    positive = torch.tensor([float(each.positive) for each in reviews])
    for kind, path in ((BagOfWords, BOW), (Convolution, CNN)):
        torch.manual_seed(0)
        write(train(kind(len(known) + UNKNOWN + 1), texts, positive), known, path)
        log.info("%s: %d words, %d bytes", path.name, len(known), path.stat().st_size)
    held_out = list(map(review, HELD_OUT))
    for name, some in {"all": held_out, "twisted": [each for each in held_out if each.twisted]}.items():
        for model, share in accuracy(some).items():
            log.info("%s: %.1f %% of %d held out, %s", model, 100 * share, len(some), name)


if __name__ == "__main__":
    main()
