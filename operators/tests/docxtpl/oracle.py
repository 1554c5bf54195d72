"""Fills templates with docxtpl, and extracts the facts to compare from its documents and from ours with the same code.

`oracle.py FOLDER` reads every folder in FOLDER, which contains `template.docx`, `data.json`, `ours.docx` and
`options.json`. It prints one JSON object: by folder name `theirs` and `ours`, each with the facts that are compared.
"""

import base64
import io
import json
import sys
import zipfile
from pathlib import Path

from docx.shared import Mm
from docxtpl import DocxTemplate, InlineImage, Listing, RichText, RichTextParagraph
from lxml import etree

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
PROPERTIES = ["title", "subject", "creator", "description", "identifier", "language"]


def main():
    found = {}
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        theirs, ours = facts(fill(folder)), facts((folder / "ours.docx").read_bytes())
        if not ours["properties"]:
            # python-docx adds properties to a document that has none.
            del theirs["properties"], ours["properties"]
        found[folder.name] = {"theirs": theirs, "ours": ours}
    json.dump(found, sys.stdout)


def fill(folder):
    options = json.loads((folder / "options.json").read_text())
    template = DocxTemplate(str(folder / "template.docx"))
    data = typed(template, json.loads((folder / "data.json").read_text()))
    template.render(data, autoescape=options["autoescape"])
    out = io.BytesIO()
    template.save(out)
    return out.getvalue()


def typed(template, value):
    """Replaces our typed values by the corresponding objects of docxtpl."""
    if isinstance(value, list):
        return [typed(template, item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$type")
    if kind == "image":
        picture = io.BytesIO(base64.b64decode(value["src"].split(",", 1)[1]))
        sides = {side: Mm(value[f"{side}_mm"]) for side in ("width", "height") if f"{side}_mm" in value}
        return InlineImage(template, picture, anchor=value.get("link"), **sides)
    if kind == "listing":
        return Listing(value["text"])
    if kind == "rich_text":
        return rich(template, value["spans"])
    if kind == "rich_paragraph":
        paragraphs = RichTextParagraph()
        for paragraph in value["paragraphs"]:
            paragraphs.add(rich(template, paragraph["spans"]), parastyle=paragraph.get("style"))
        return paragraphs
    return {key: typed(template, item) for key, item in value.items()}


def rich(template, spans):
    text = RichText()
    for span in spans:
        span = {"text": span} if isinstance(span, str) else dict(span)
        if "link" in span:
            span["url_id"] = template.build_url_id(span.pop("link"))
        text.add(span.pop("text"), **span)
    return text


def facts(document):
    """The facts of a document. Its parts must be well-formed."""
    with zipfile.ZipFile(io.BytesIO(document)) as package:
        assert package.testzip() is None
        parts = {name: package.read(name) for name in package.namelist()}
    trees = {name: etree.fromstring(part) for name, part in parts.items() if name.endswith((".xml", ".rels"))}
    texts = {name: tree for name, tree in trees.items() if name.startswith("word/") and name.endswith(".xml")}
    found = {name: part_facts(tree) for name, tree in texts.items()}
    found["properties"] = properties(trees.get("docProps/core.xml"))
    return found


def part_facts(tree):
    local = [etree.QName(element).localname for element in tree.iter(etree.Element)]
    return {
        "paragraphs": [text_of(paragraph) for paragraph in tree.iter(W + "p")],
        "runs": [runs(paragraph) for paragraph in tree.iter(W + "p")],
        "styles": [style.get(W + "val") for style in tree.iter(W + "pStyle")],
        "tables": [table(element) for element in tree.iter(W + "tbl")],
        "images": local.count("blip"),
        "sizes": [(e.get("cx"), e.get("cy")) for e in tree.iter("{*}extent")],
        "links": local.count("hyperlink") + local.count("hlinkClick"),
        "drawings": [element.get("id") for element in tree.iter("{*}docPr")],
        "alternatives": [element.get("descr") for element in tree.iter("{*}docPr") if element.get("descr")],
    }


def text_of(paragraph):
    out = []
    for element in paragraph.iter(W + "t", W + "tab", W + "br"):
        if element.getparent().tag != W + "r" or owner(element) is not paragraph:
            continue
        if element.tag == W + "t":
            out.append(element.text or "")
        elif element.tag == W + "tab":
            out.append("\t")
        else:
            out.append("\f" if element.get(W + "type") == "page" else "\n")
    return "".join(out)


def owner(element):
    return next(element.iterancestors(W + "p"), None)


def runs(paragraph):
    """Text by formatting; neighbouring runs with the same formatting are joined."""
    out = []
    for run in paragraph.iter(W + "r"):
        text = "".join(piece.text or "" for piece in run.iter(W + "t"))
        properties = run.find(W + "rPr")
        names = () if properties is None else (described(child) for child in properties)
        format = sorted(names)
        if text and owner(run) is paragraph:
            if out and out[-1][1] == format:
                out[-1][0] += text
            else:
                out.append([text, format])
    return out


def described(child):
    name = etree.QName(child).localname
    values = {etree.QName(key).localname: value for key, value in child.attrib.items()}
    if name == "shd":
        # docxtpl omits attributes that the schema requires.
        values = {"fill": values.get("fill")}
    if name == "rtl":
        values = {}
    return f"{name} {sorted(values.items())}"


def table(element):
    return {
        "columns": len(element.findall(f"{W}tblGrid/{W}gridCol")),
        "rows": [[cell(one) for one in row.findall(W + "tc")] for row in element.findall(W + "tr")],
    }


def cell(element):
    def value(name, attribute="val"):
        child = element.find(f"{W}tcPr/{W}{name}")
        return None if child is None else child.get(W + attribute)

    text = "\n".join(text_of(paragraph) for paragraph in element.findall(W + "p"))
    return {"text": text, "span": value("gridSpan"), "merge": value("vMerge"), "shade": value("shd", "fill")}


def properties(core):
    if core is None:
        return {}
    texts = {etree.QName(element).localname: element.text or "" for element in core}
    return {name: texts.get(name, "") for name in PROPERTIES}


if __name__ == "__main__":
    main()
