"""Text of a page: fetch, where it is a URL → decode → detect lines → turn them upright → recognise.

Models and the arithmetic before and after them are RapidOCR's (PP-OCR for onnxruntime, in its wheel); the
text is that of `RapidOCR()(image)`. What differs is how the parts run: detection, classification and
recognition of different requests side by side, each line a sample of its own, memory arenas on.

    pip install 'asyncline[ocr]'
    asyncline serve ops.ocr:graph --config config/ocr.yml
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import rapidocr
from PIL import Image as Pillow
from rapidocr.ch_ppocr_cls import TextClassifier
from rapidocr.ch_ppocr_cls.utils import ClsPostProcess
from rapidocr.ch_ppocr_det import TextDetector
from rapidocr.ch_ppocr_det.utils import DBPostProcess, DetPreProcess
from rapidocr.ch_ppocr_rec import TextRecognizer
from rapidocr.ch_ppocr_rec.utils import CTCLabelDecode
from rapidocr.utils.load_image import LoadImage
from rapidocr.utils.process_img import (
    ResizeImgError,
    apply_vertical_padding,
    get_rotate_crop_image,
    map_boxes_to_original,
    resize_image_within_bounds,
)

from asyncline import BadImage, Each, Graph, Image, Op, Request, Skip, op
from asyncline.backends import OnnxSession
from asyncline.images import Decode, Fetch

MODELS = Path(rapidocr.__file__).parent / "models"

# RapidOCR's config.yaml, which it reads only together with models of its own.
MIN_SIDE, MAX_SIDE = 30, 2000
WIDTH_HEIGHT_RATIO, MIN_HEIGHT = 8, 30
DETECT_SIDE = 736
CLASSIFY = SimpleNamespace(cls_image_shape=[3, 48, 192])
RECOGNISE = SimpleNamespace(rec_image_shape=[3, 48, 320])
TURNED_SCORE, TEXT_SCORE = 0.9, 0.5
GROUP = 6

MAX_DETECT_PIXELS = 8_000_000
"""The detector sees the short side at 736 pixels or more, so a thin strip becomes a giant: 20 x 2000
pixels would become 736 x 69184 and take 13 GB. A page of ordinary proportions stays below 4.5 million."""


@dataclass(frozen=True)
class Frame:
    """A page as the detector sees it."""

    image: np.ndarray
    """BGR, uint8, [height, width, 3]: within bounds, and padded where it is very wide."""
    record: dict[str, Any]
    """How to get back to the page that was sent; RapidOCR's form."""
    height: int
    width: int


@dataclass(frozen=True)
class Lines:
    """The lines found on a page, in reading order."""

    boxes: np.ndarray
    """float32, [n, 4, 2]: corners in pixels of the page that was sent."""
    crops: list[np.ndarray]
    """BGR, uint8: each line cut out and made level."""
    frame: Frame


class Page(Decode):
    """Decodes a page and brings it within the detector's bounds."""

    def preprocess(self, data: bytes) -> Frame:
        page = super().preprocess(data)
        height, width = page.shape[:2]
        check_proportions(height, width)
        try:
            image, ratio_h, ratio_w = resize_image_within_bounds(page, MIN_SIDE, MAX_SIDE)
        except ResizeImgError:
            raise BadImage(f"a page of {width} x {height} pixels is too thin to read") from None
        record = {"preprocess": {"ratio_h": ratio_h, "ratio_w": ratio_w}}
        image, record = apply_vertical_padding(image, record, WIDTH_HEIGHT_RATIO, MIN_HEIGHT)
        return Frame(image, record, height, width)

    def flatten(self, image: Pillow.Image) -> np.ndarray:
        """RapidOCR puts light text on black and dark text on white."""
        bgr: np.ndarray = LoadImage().convert_img(np.asarray(image), bytes)
        return bgr[:, :, ::-1]


class Detect(Op):
    """Finds the lines of one page."""

    cpu = "thread"

    def init_op(self) -> None:
        self.to_tensor = DetPreProcess(DETECT_SIDE, "min", [0.5] * 3, [0.5] * 3)
        # A pixel has 256 values: what RapidOCR computes in double precision for each, looked up (21 ms → 3 ms).
        values = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2)
        self.normalised = self.to_tensor.normalize(values).astype(np.float32)[0, :, 0].copy()
        self.find_boxes = DBPostProcess(0.3, 0.5, 1000, 1.6, "fast", use_dilation=True)

    def load_model(self, device: str) -> OnnxSession:
        return OnnxSession(MODELS / "PP-OCRv6_det_small.onnx", device, threads=self.settings.session_threads)

    def preprocess(self, frame: Frame) -> np.ndarray | Skip:
        image = self.to_tensor.resize(frame.image)
        if image is None:
            return Skip(None)
        return np.stack([cv2.LUT(channel, self.normalised) for channel in cv2.split(image)])

    def bucket(self, sample: np.ndarray) -> tuple[int, ...]:
        return sample.shape

    def process(self, batch: list[np.ndarray]) -> Any:
        return self.model.run(batch)

    def postprocess(self, heatmap: np.ndarray | None, frame: Frame) -> Lines:
        boxes = [] if heatmap is None else self.find_boxes(heatmap[None], frame.image.shape[:2])[0]
        if len(boxes) == 0:
            return Lines(np.empty((0, 4, 2), np.float32), [], frame)
        boxes = TextDetector.sorted_boxes(boxes)
        crops = [get_rotate_crop_image(frame.image, box.copy()) for box in boxes]
        # In place, so from a copy; and back to the pixels of the page that was sent.
        boxes = map_boxes_to_original(boxes.copy(), frame.record, frame.height, frame.width)
        return Lines(boxes, crops, frame)


class Classify(Op):
    """Turns lines that stand on their head."""

    cpu = "thread"

    def init_op(self) -> None:
        self.labels = ClsPostProcess(["0", "180"])

    def load_model(self, device: str) -> OnnxSession:
        file = MODELS / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"
        return OnnxSession(file, device, threads=self.settings.session_threads)

    def preprocess(self, lines: Lines) -> Each:
        return Each(TextClassifier.resize_norm_img(CLASSIFY, crop) for crop in lines.crops)

    def process(self, batch: list[np.ndarray]) -> list[tuple[str, float]]:
        return self.labels(self.model.run(batch))

    def postprocess(self, labels: list[tuple[str, float]], lines: Lines) -> list[np.ndarray]:
        return [
            cv2.rotate(crop, cv2.ROTATE_180) if label == "180" and score > TURNED_SCORE else crop
            for (label, score), crop in zip(labels, lines.crops, strict=True)
        ]


class Recognise(Op):
    """Reads lines: a text and a score for each."""

    cpu = "thread"

    def load_model(self, device: str) -> tuple[OnnxSession, CTCLabelDecode]:
        session = OnnxSession(MODELS / "PP-OCRv6_rec_small.onnx", device, threads=self.settings.session_threads)
        return session, CTCLabelDecode(session.metadata["character"].splitlines())

    def preprocess(self, crops: list[np.ndarray]) -> Each:
        widths = padded_widths(crops)
        return Each(
            TextRecognizer.resize_norm_img(RECOGNISE, crop, width / 48)
            for crop, width in zip(crops, widths, strict=True)
        )

    def bucket(self, sample: np.ndarray) -> int:
        return sample.shape[-1]

    def process(self, batch: list[np.ndarray]) -> list[tuple[str, float]]:
        session, decode = self.model
        # Decoded here: the probabilities of one line take 3 MB and more, its text a few bytes.
        texts: list[tuple[str, float]] = decode(session.run(batch))[0]
        return texts


@op(cpu="inline")
def answer(texts: list[tuple[str, float]], lines: Lines) -> dict[str, Any]:
    """What a client gets: the lines with a text, in reading order."""
    return {
        "lines": [
            {"text": text, "score": score, "box": box}
            for (text, score), box in zip(texts, lines.boxes, strict=True)
            if text.strip() and score >= TEXT_SCORE
        ],
        "width": lines.frame.width,
        "height": lines.frame.height,
    }


def padded_widths(crops: list[np.ndarray]) -> np.ndarray:
    """The width, int [n], that RapidOCR pads each line of a page to, at height 48: the widest of its group of six.

    The recogniser's text depends on it: at a line's own width one in twenty lines gains or loses a space.
    """
    ratios = np.array([crop.shape[1] / crop.shape[0] for crop in crops])
    order = np.argsort(ratios)
    widths = np.zeros(len(crops), dtype=int)
    for first in range(0, len(crops), GROUP):
        group = order[first : first + GROUP]
        widths[group] = int(48 * max(320 / 48, ratios[group].max()))
    return widths


def check_proportions(height: int, width: int) -> None:
    """Refuse a page that the detector would blow up; follows `resize_image_within_bounds`, padding and `DetPreProcess`.

    :raises BadImage: it would have more than MAX_DETECT_PIXELS.
    """
    shrink = min(1.0, MAX_SIDE / max(height, width))
    h, w = max(1.0, height * shrink), max(1.0, width * shrink)
    grow = max(1.0, MIN_SIDE / min(h, w))
    h, w = h * grow, w * grow
    if h <= MIN_HEIGHT or w / h > WIDTH_HEIGHT_RATIO:
        h = 2 * max(w / WIDTH_HEIGHT_RATIO, MIN_HEIGHT)
    scale = max(1.0, DETECT_SIDE / min(h, w))
    if h * w * scale * scale > MAX_DETECT_PIXELS:
        raise BadImage(f"a page of {width} x {height} pixels is too thin to read")


request = Request(image=Image(url=True, description="a page, photographed or printed", example="loadtest/page.jpg"))
page = Page(Fetch(request.image), name="decode", colour="BGR")
lines = Detect(page)
upright = Classify(lines)
texts = Recognise(upright)
graph = Graph("ocr", answer(texts, lines))
