"""Pages of printed English to read: the same bytes for the same arguments, no font or corpus on disk."""

import io
import random

from PIL import Image, ImageDraw, ImageFilter, ImageFont

_WORDS = """account advance agreed amount annual balance bank before branch budget carrier charge clerk copy credit
customer daily date delivery deposit desk discount document due duty early export figure final freight garden gross
handling hours house import insured interest invoice item journey keeper label ledger letter limit lower market meter
method monthly net note number office open order packing paid paper payment period pieces port price quarter quantity
rate receipt refund regular rent reply sample seller service ship signed station stock street subtotal supply tax terms
total transfer unit upper value vessel warehouse weekly weight window within yard"""
WORDS = _WORDS.split()
SIZE = 1000, 1400  # pixels: width, height
MARGIN = 50


def text_line(rng: random.Random, longest: int = 70) -> str:
    """One line as an invoice, a letter or a table has it, of 1 to `longest` characters."""
    code = f"{rng.choice('ABCDEFHKLMNPRT')}{rng.choice('ABCDEFHKLMNPRT')}-{rng.randint(100, 99999)}"
    amount = f"{rng.randint(1, 9999):,}.{rng.randint(0, 99):02d}"
    day = f"{rng.randint(1, 28):02d}/{rng.randint(1, 12):02d}/20{rng.randint(10, 29)}"
    words = " ".join(rng.choices(WORDS, k=rng.randint(2, 11)))
    word = rng.choice(WORDS)
    kinds = [
        str(rng.randint(0, 9)),
        amount,
        day,
        word.upper(),
        f"{word.capitalize()}: {amount} EUR",
        f"{code}  {words}",
        f"{rng.randint(1, 40)} x {words} @ {amount}",
        f"{words.capitalize()}.",
        f"{words.capitalize()}, {word} {day} ({code}).",
    ]
    return rng.choices(kinds, weights=[1, 2, 1, 2, 4, 4, 4, 6, 4])[0][:longest].strip()


def photograph(image: Image.Image, rng: random.Random) -> Image.Image:
    """The page as a hand-held camera sees it: mild perspective, uneven light, noise, a little blur."""
    width, height = image.size
    desk = Image.new("L", image.size, 105)
    corners = [(0, 0), (0, height), (width, height), (width, 0)]  # the order QUAD wants; from outside the page inwards
    sides = [(c, s) for corner in corners for c, s in zip(corner, image.size, strict=True)]
    quad = [c + rng.uniform(-0.018, 0.006) * s * (1 if c == 0 else -1) for c, s in sides]
    inside = Image.new("L", image.size, 255).transform(
        image.size, Image.Transform.QUAD, quad, Image.Resampling.BILINEAR
    )
    paper = image.transform(image.size, Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
    shot = Image.composite(paper, desk, inside)
    light = Image.new("L", (2, 2))
    light.putdata([rng.randint(170, 255) for _ in range(4)])
    shade = light.resize(image.size, Image.Resampling.BICUBIC)
    black = Image.new("L", image.size)
    shot = Image.composite(shot, black, shade).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    grain = Image.frombytes("L", (256, 256), bytes(min(255, max(0, int(rng.gauss(128, 8)))) for _ in range(1 << 16)))
    noise = Image.new("L", image.size)
    for left in range(0, width, 256):
        for top in range(0, height, 256):
            noise.paste(grain, (left, top))
    return Image.blend(shot, noise, 0.15)


def page(lines: int, seed: int, photo: bool = False) -> bytes:
    """A JPEG of `lines` printed lines on one page of SIZE; `photo` makes it look photographed."""
    rng = random.Random(seed * 1000 + lines)
    image = Image.new("L", SIZE, 250)
    draw = ImageDraw.Draw(image)
    pitch = (SIZE[1] - 2 * MARGIN) / max(lines, 25)
    for n in range(lines):
        font = ImageFont.load_default(pitch * rng.uniform(0.55, 0.7))
        text = text_line(rng)
        while draw.textlength(text, font) > SIZE[0] - 2 * MARGIN:
            text = text[:-1].strip()
        draw.text((MARGIN, MARGIN + n * pitch), text, fill=rng.randint(0, 70), font=font)
    out = io.BytesIO()
    (photograph(image, rng) if photo else image).convert("RGB").save(out, "JPEG", quality=85 if photo else 92)
    return out.getvalue()
