"""Train the classifier of `tagging.py` and write `tagging.onnx`: six minutes on two cores.

    pip install -e '.[onnx]' 'torch==2.13.0' 'onnx>=1.19'
    python -m ops.tagging_train

The pictures are drawn (`tagging_pictures.py`), then go through JPEG, `decode` and `resize` as they do in service.
The same machine writes the same file. Serving and tests need neither torch nor onnx.
"""

from __future__ import annotations

import io
import logging
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from asyncline.backends import OnnxSession
from asyncline.images import decode, resize
from ops.tagging import MODEL, SIDE
from ops.tagging_pictures import CATEGORIES, PATTERNS, picture

QUESTIONS = {"category": CATEGORIES, "pattern": PATTERNS}
TRAINING = range(20_000)
HELD_OUT = range(1_000_000, 1_004_000)
"""Seeds of pictures."""
EPOCHS, BATCH, LEARNING_RATE = 12, 128, 4e-3
CORES = 2

Array = np.ndarray[Any, Any]
log = logging.getLogger("tagging")


class Classifier(nn.Module):
    """A few convolutions, and a softmax for each question."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _block(3, 16, 2), _block(16, 32, 2), _block(32, 64, 2), _block(64, 96, 1), _block(96, 96, 2)
        )
        self.heads = nn.ModuleList(nn.Linear(2 * 96, len(labels)) for labels in QUESTIONS.values())

    def logits(self, images: torch.Tensor) -> list[torch.Tensor]:
        """uint8 [n, SIDE, SIDE, 3] → of each question, float32 [n, labels]."""
        features = self.features(images.permute(0, 3, 1, 2).float() / 127.5 - 1)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        return [head(pooled) for head in self.heads]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Scores, which sum to 1 for each question."""
        return tuple(logits.softmax(1) for logits in self.logits(images))


def _block(channels: int, wider: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, wider, 3, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU(inplace=True)
    )


def sample(seed: int) -> tuple[Array, list[int]]:
    """A picture as the model sees it, and the places of its labels."""
    rng = np.random.default_rng([seed, 1])
    drawn = picture(seed, side=int(rng.integers(150, 300)))
    seen = resize(decode(drawn.jpeg(quality=int(rng.integers(60, 96)))), SIDE, SIDE)
    return seen, [CATEGORIES.index(drawn.category), PATTERNS.index(drawn.pattern)]


def samples(seeds: range) -> tuple[Array, Array]:
    """uint8 [n, SIDE, SIDE, 3] and int64 [n, questions]."""
    with ProcessPoolExecutor(CORES) as pool:
        images, labels = zip(*pool.map(sample, seeds, chunksize=100), strict=True)
    return np.stack(images), np.array(labels)


def train(images: Array, labels: Array) -> Classifier:
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(CORES)
    model = Classifier()
    data, truth = torch.from_numpy(images), torch.from_numpy(labels)
    steps = len(data) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, EPOCHS * steps)
    for epoch in range(EPOCHS):
        order, total = torch.randperm(len(data)), 0.0
        for step in range(steps):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            batch = data[chosen]
            if torch.rand(()) < 0.5:
                batch = batch.flip(2)
            loss = torch.stack(
                [nn.functional.cross_entropy(out, truth[chosen, i]) for i, out in enumerate(model.logits(batch))]
            ).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        log.info("epoch %d of %d: loss %.4f", epoch + 1, EPOCHS, total / steps)
    return model.eval()


def write(model: Classifier) -> None:
    """Write the ONNX file; its metadata has the labels of each output."""
    file: Any = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8),),
        file,
        dynamo=False,  # the newer exporter needs onnxscript
        input_names=["image"],
        output_names=list(QUESTIONS),
        dynamic_axes={name: {0: "n"} for name in ("image", *QUESTIONS)},
    )
    made = onnx.load_from_string(file.getvalue())
    onnx.helper.set_model_props(made, {name: " ".join(labels) for name, labels in QUESTIONS.items()})
    onnx.save(made, MODEL)


def accuracy(images: Array, labels: Array) -> dict[str, float]:
    """The share of right answers of the file, for each question."""
    session = OnnxSession(MODEL, threads=CORES)
    found = np.array([[scores.argmax() for scores in row] for row in session.run(images)])
    return dict(zip(QUESTIONS, (found == labels).mean(axis=0).tolist(), strict=True))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write(train(*samples(TRAINING)))
    for name, share in accuracy(*samples(HELD_OUT)).items():
        log.info("%s: %.1f %% of %d held out", name, 100 * share, len(HELD_OUT))
    log.info("%s: %d bytes", MODEL.name, MODEL.stat().st_size)


if __name__ == "__main__":
    main()
