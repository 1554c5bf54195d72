#!/usr/bin/env python3
"""Draws the photos and writes the documents of this folder, which the README's commands use.

    python3 examples/make_examples.py            writes them
    python3 examples/make_examples.py --check    compares them with what it would write

Photos are compared pixel by pixel and packages part by part: compression differs between versions of zlib. Python 3.9 or
newer, standard library only.
"""

import io
import json
import struct
import sys
import zipfile
import zlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent

WIDTH, HEIGHT = 320, 240
# Pixels are drawn twice as fine and averaged, so that edges are smooth.
FINE = 2


class Canvas:
    """Rows of RGB bytes. Coordinates are those of the finished photo."""

    def __init__(self, sky, ground, horizon):
        self.rows = []
        for y in range(HEIGHT * FINE):
            top, bottom = (sky, ground) if y < horizon * FINE else (ground, tuple(c * 2 // 3 for c in ground))
            share = y / (HEIGHT * FINE)
            self.rows.append(bytearray(bytes(mix(top, bottom, share / 2)) * (WIDTH * FINE)))

    def ellipse(self, x, y, a, b, colour):
        """Fills an ellipse around (x, y) with the half axes a and b."""
        x, y, a, b = x * FINE, y * FINE, a * FINE, b * FINE
        for row in range(max(0, int(y - b)), min(len(self.rows), int(y + b) + 1)):
            half = a * max(0.0, 1 - ((row + 0.5 - y) / b) ** 2) ** 0.5
            self.span(row, x - half, x + half, colour)

    def triangle(self, corners, colour):
        """Fills a triangle."""
        corners = [(x * FINE, y * FINE) for x, y in corners]
        edges = list(zip(corners, corners[1:] + corners[:1]))
        heights = [y for _, y in corners]
        for row in range(max(0, int(min(heights))), min(len(self.rows), int(max(heights)) + 1)):
            middle = row + 0.5
            cuts = [x0 + (x1 - x0) * (middle - y0) / (y1 - y0) for (x0, y0), (x1, y1) in edges if (y0 > middle) != (y1 > middle)]
            if len(cuts) == 2:
                self.span(row, min(cuts), max(cuts), colour)

    def span(self, row, left, right, colour):
        left, right = max(0, round(left)), min(WIDTH * FINE, round(right))
        if left < right:
            self.rows[row][3 * left : 3 * right] = bytes(colour) * (right - left)

    def pixels(self):
        """The finished photo: rows of RGB bytes."""
        photo = []
        for upper, lower in zip(self.rows[::2], self.rows[1::2]):
            sums = [[u + l for u, l in zip(upper[c::3], lower[c::3])] for c in range(3)]
            channels = [[(a + b + 2) // 4 for a, b in zip(s[::2], s[1::2])] for s in sums]
            photo.append(bytes(value for pixel in zip(*channels) for value in pixel))
        return photo


def mix(one, other, share):
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other))


def face(canvas, x, y, fur, snout):
    """Eyes and nose around (x, y)."""
    for side in (-1, 1):
        canvas.ellipse(x + side * 20, y - 14, 7, 8, (250, 250, 245))
        canvas.ellipse(x + side * 20, y - 13, 4, 5, (20, 20, 25))
    canvas.ellipse(x, y + 14, 20, 15, snout)
    canvas.ellipse(x, y + 7, 7, 5, (30, 20, 25))
    canvas.ellipse(x, y + 22, 6, 2, mix(fur, (0, 0, 0), 0.6))


def dog(canvas, fur, ears, patch=None):
    canvas.ellipse(160, 190, 62, 60, fur)
    canvas.ellipse(160, 110, 52, 50, fur)
    for side in (-1, 1):
        canvas.ellipse(160 + side * 52, 112, 15, 38, ears)
        canvas.ellipse(160 + side * 30, 226, 17, 14, ears)
    if patch:
        canvas.ellipse(182, 94, 20, 24, patch)
    face(canvas, 160, 112, fur, mix(fur, (255, 255, 255), 0.5))


def cat(canvas, fur, stripes):
    canvas.ellipse(150, 186, 54, 56, fur)
    canvas.ellipse(232, 170, 12, 54, fur)
    canvas.ellipse(150, 106, 46, 42, fur)
    for side in (-1, 1):
        canvas.triangle([(150 + side * 44, 96), (150 + side * 38, 46), (150 + side * 10, 70)], fur)
        canvas.triangle([(150 + side * 38, 86), (150 + side * 35, 58), (150 + side * 19, 72)], (220, 150, 150))
    for step in range(5):
        canvas.ellipse(150, 150 + 18 * step, 40 - 3 * step, 4, stripes)
        canvas.ellipse(232, 128 + 18 * step, 11, 3, stripes)
    face(canvas, 150, 108, fur, (240, 235, 225))


def rabbit(canvas, fur):
    for side in (-1, 1):
        canvas.ellipse(170 + side * 20, 52, 12, 46, fur)
        canvas.ellipse(170 + side * 20, 56, 6, 34, (230, 170, 180))
    canvas.ellipse(170, 182, 56, 54, fur)
    canvas.ellipse(170, 118, 40, 38, fur)
    canvas.ellipse(222, 206, 16, 16, (250, 250, 250))
    face(canvas, 170, 120, fur, (250, 245, 240))


def parrot(canvas, body, wing):
    canvas.triangle([(120, 180), (160, 180), (96, 238)], wing)
    canvas.ellipse(160, 146, 40, 66, body)
    canvas.ellipse(136, 156, 20, 50, wing)
    canvas.ellipse(176, 76, 34, 32, body)
    canvas.triangle([(204, 62), (238, 86), (202, 92)], (70, 60, 60))
    canvas.ellipse(184, 70, 10, 10, (250, 250, 245))
    canvas.ellipse(186, 70, 5, 5, (20, 20, 25))


def tortoise(canvas, shell, skin):
    for x in (96, 208):
        canvas.ellipse(x, 204, 18, 22, skin)
    canvas.ellipse(258, 158, 28, 22, skin)
    canvas.ellipse(266, 150, 4, 5, (20, 20, 25))
    canvas.ellipse(152, 164, 92, 52, shell)
    for x, y in ((100, 166), (136, 142), (172, 142), (206, 166), (152, 174)):
        canvas.ellipse(x, y, 19, 14, mix(shell, (255, 240, 180), 0.35))


def photos():
    """The finished photos by name."""
    meadow, beach, room, dusk = (
        lambda: Canvas((150, 200, 240), (96, 160, 72), 150),
        lambda: Canvas((120, 190, 230), (228, 204, 150), 120),
        lambda: Canvas((216, 196, 172), (140, 92, 60), 190),
        lambda: Canvas((84, 60, 120), (60, 76, 60), 170),
    )
    drawn = {}
    for name, canvas, draw in (
        ("biscuit", meadow(), lambda c: dog(c, (202, 152, 92), (150, 100, 56))),
        ("domino", beach(), lambda c: dog(c, (240, 240, 238), (40, 40, 44), (40, 40, 44))),
        ("ginger", room(), lambda c: cat(c, (222, 140, 60), (176, 96, 32))),
        ("clover", dusk(), lambda c: rabbit(c, (176, 168, 160))),
        ("mango", meadow(), lambda c: parrot(c, (216, 48, 40), (40, 88, 200))),
        ("pebble", beach(), lambda c: tortoise(c, (96, 104, 48), (150, 156, 90))),
    ):
        draw(canvas)
        drawn[name] = canvas.pixels()
    return drawn


def cropped(photo):
    """The photo without its margins, as somebody else may have it."""
    return [row[3 * 12 : -3 * 8] for row in photo[6:-10]]


def png(photo):
    """The bytes of a PNG file; each row is stored as the difference to the pixel on its left."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def filtered(row):
        return b"\x01" + row[:3] + bytes((a - b) & 255 for a, b in zip(row[3:], row))

    header = struct.pack(">IIBBBBB", len(photo[0]) // 3, len(photo), 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(filtered(row) for row in photo), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


PACKAGES = "http://schemas.openxmlformats.org/package/2006"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
MAIN = "application/vnd.openxmlformats-officedocument"


def office(main_part, main_type, parts):
    """An office package: content types, relationships and the given parts."""
    overrides = "".join(f'<Override PartName="/{name}" ContentType="{MAIN}.{kind}+xml"/>' for name, kind in
                        [(main_part, main_type)] + [(name, kind) for name, (kind, _) in parts.items() if kind])
    types = (f'<Types xmlns="{PACKAGES}/content-types"><Default Extension="rels" '
             f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>{overrides}</Types>')
    root = (f'<Relationships xmlns="{PACKAGES}/relationships"><Relationship Id="r1" Type="{OFFICE}/officeDocument" '
            f'Target="{main_part}"/></Relationships>')
    return zipped({"[Content_Types].xml": types, "_rels/.rels": root, **{name: text for name, (_, text) in parts.items()}})


def zipped(parts):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in parts.items():
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n' + text)
    return out.getvalue()


def paragraph(text, bold=False):
    style = "<w:rPr><w:b/></w:rPr>" if bold else ""
    return f'<w:p><w:r>{style}<w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


def docx(*paragraphs):
    body = "".join(paragraphs) + '<w:sectPr><w:pgSz w:w="11906" w:h="16838"/></w:sectPr>'
    document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    return office("word/document.xml", "wordprocessingml.document.main", {"word/document.xml": (None, document)})


def xlsx(rows):
    def cell(value):
        return f"<c><v>{value}</v></c>" if isinstance(value, int) else f'<c t="inlineStr"><is><t>{value}</t></is></c>'

    lines = "".join(f"<row>{''.join(cell(value) for value in row)}</row>" for row in rows)
    sheet = f'<worksheet xmlns="{SHEET}"><sheetData>{lines}</sheetData></worksheet>'
    book = (f'<workbook xmlns="{SHEET}" xmlns:r="{OFFICE}"><sheets>'
            '<sheet name="Found" sheetId="1" r:id="r1"/></sheets></workbook>')
    rels = (f'<Relationships xmlns="{PACKAGES}/relationships"><Relationship Id="r1" Type="{OFFICE}/worksheet" '
            'Target="worksheets/sheet1.xml"/></Relationships>')
    return office("xl/workbook.xml", "spreadsheetml.sheet.main", {
        "xl/workbook.xml": (None, book),
        "xl/_rels/workbook.xml.rels": (None, rels),
        "xl/worksheets/sheet1.xml": ("spreadsheetml.worksheet", sheet),
    })


LETTER = docx(
    paragraph("Your {{ animal }} may have been found", bold=True),
    paragraph("Dear {{ name }},"),
    paragraph("{%p for place in places %}"),
    paragraph("somebody saw an animal like yours at {{ place }}."),
    paragraph("{%p endfor %}"),
    paragraph("Please call the shelter."),
)

POSTER = """#let data = json("data.json")
#set page(width: 148mm, height: 105mm)
#set text(size: 14pt)
= Lost: #data.animal
#for place in data.places [- last seen at #place]

Call #data.name.
"""

CONTEXTS = {
    "ada": {"name": "Ada", "animal": "dog", "places": ["the station", "the old bridge"]},
    "grace": {"name": "Grace", "animal": "parrot", "places": ["the harbour"]},
    "alan": {"name": "Alan", "animal": "rabbit", "places": []},
}

FOUND = [["animal", "place", "day"], ["dog", "station", 3], ["parrot", "harbour", 5], ["rabbit", "garden", 9]]


def files():
    """Every file by its path in this folder."""
    drawn = photos()
    yield from ((f"photos/{name}.png", png(photo)) for name, photo in drawn.items())
    yield "cropped.png", png(cropped(drawn["biscuit"]))
    yield "letter.docx", LETTER
    yield "poster.typ", POSTER.encode()
    yield "found.xlsx", xlsx(FOUND)
    yield from ((f"contexts/{name}.json", json.dumps(data).encode() + b"\n") for name, data in CONTEXTS.items())


def content(data):
    """What a file means, without its compression."""
    if data.startswith(b"\x89PNG"):
        begin = data.index(b"IDAT")
        length = struct.unpack(">I", data[begin - 4 : begin])[0]
        return data[: begin - 4], zlib.decompress(data[begin + 4 : begin + 4 + length])
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    return data


def differences():
    """The files that are missing or are not what this script writes."""
    found = []
    for name, data in files():
        path = FOLDER / name
        if not path.is_file() or content(path.read_bytes()) != content(data):
            found.append(name)
    return found


def main():
    if sys.argv[1:] == ["--check"]:
        wrong = differences()
        print("\n".join(f"{name} is not what examples/make_examples.py writes: run it" for name in wrong), end="")
        return 1 if wrong else 0
    for name, data in files():
        (FOLDER / name).parent.mkdir(exist_ok=True)
        (FOLDER / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
