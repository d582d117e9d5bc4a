"""The Open Inference Protocol's own clients, unmodified, ask the OCR pipeline, as served by the command line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from asyncline.client import AsyncClient
from tests.serving import ROOT, Server, serving

pytest.importorskip("rapidocr")
pytestmark = [pytest.mark.ocr, pytest.mark.timeout(240)]

TEXTS = ["Total amount", "1,234.56"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    config = ("--config", "config/ocr.yml", "--grpc-port", "0", "--tcp-port", "0")
    with serving("ops.ocr:graph", *config, cwd=ROOT) as running:
        yield running


@pytest.fixture(scope="module")
def addresses(server: Server) -> dict[str, str]:
    grpc = server.wait_for(r"on (grpc://\S+)")[1]
    return {"http": server.address, "grpc": grpc, "tcp": server.wait_for(r"on (tcp://\S+)")[1]}


@pytest.fixture(scope="module")
def page() -> bytes:
    image = Image.new("RGB", (600, 120), "white")
    ImageDraw.Draw(image).text((20, 30), " ".join(TEXTS), fill="black", font=ImageFont.load_default(40))
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def asked(module: Any, page: bytes) -> list[Any]:
    made = module.InferInput("image", [1], "BYTES")
    made.set_data_from_numpy(np.array([page], dtype=object))
    return [made]


def texts(answer: dict[str, Any]) -> list[str]:
    return [line["text"] for line in answer["lines"]]


def place(address: str) -> str:
    return address.partition("://")[2]


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_tritonclient_reads_a_page(addresses: dict[str, str], page: bytes, wire: str) -> None:
    module = pytest.importorskip(f"tritonclient.{wire}")
    client = module.InferenceServerClient(place(addresses[wire]))
    try:
        answer = client.infer("ocr", asked(module, page))
    finally:
        client.close()
    assert texts(json.loads(answer.as_numpy("output")[0])) == TEXTS


@pytest.mark.parametrize("wire", ["http", "grpc"])
async def test_tritonclient_reads_a_page_asynchronously(addresses: dict[str, str], page: bytes, wire: str) -> None:
    module = pytest.importorskip(f"tritonclient.{wire}.aio")
    async with module.InferenceServerClient(place(addresses[wire])) as client:
        answer = await client.infer("ocr", asked(module, page))
    assert texts(json.loads(answer.as_numpy("output")[0])) == TEXTS


@pytest.mark.parametrize("wire", ["http", "grpc", "tcp"])
async def test_our_own_client_reads_the_same(addresses: dict[str, str], page: bytes, wire: str) -> None:
    async with AsyncClient(addresses[wire]) as client:
        answer = await client("ocr", image=page, timeout=60)
    assert texts(answer) == TEXTS
