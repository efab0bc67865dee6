"""XMP packets: what programs read first of how a picture or a video was made."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from serve.provenance.statement import SOFTWARE, VERSION, Label, Statement

MAX_PACKET_BYTES = 2**20
"""The largest packet that is read."""
MAX_TEXT_CHARS = 300
"""The number of characters up to which a value of somebody else's packet is kept."""
MAX_INGREDIENTS = 20
"""The number of ingredients that are read."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NAMESPACES = {
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
}
_NAMES = {
    "digital_source_type": "Iptc4xmpExt:DigitalSourceType",
    "software": "xmp:CreatorTool",
    "system": "Iptc4xmpExt:AISystemUsed",
    "made_at": "xmp:CreateDate",
    "request_id": "dc:identifier",
    "aigc": "TC260:AIGC",
    "document_id": "xmpMM:DocumentID",
    "instance_id": "xmpMM:InstanceID",
    "creator": "dc:creator",
    "credit": "photoshop:Credit",
    "rights": "dc:rights",
}
"""The properties that are read, by the names that we give them."""
_KEPT = {
    "document_id": "stRef:documentID",
    "instance_id": "stRef:instanceID",
    "digital_source_type": "Iptc4xmpExt:DigitalSourceType",
    "creator": "dc:creator",
    "credit": "photoshop:Credit",
    "rights": "dc:rights",
    "aigc": "TC260:AIGC",
}
"""The properties of a source that are kept, and what they are called there."""
_TYPE = "digital_source_type"
_START = re.compile(b"<x:xmpmeta|<rdf:RDF")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Properties:
    """The properties of a packet by our names, and those of its ingredients."""

    values: dict[str, str]
    ingredients: tuple[dict[str, str], ...] = ()


def write_packet(
    statement: Statement,
    *,
    request: bool,
    described: bool = True,
    label: Label | None = None,
    sources: Sequence[Properties] = (),
) -> bytes:
    """Return the packet for a result, which has ``sources`` whose own packets were these.

    The same arguments give the same bytes. Time and request id are part of it only if ``request``
    is set, and unless it is ``described``, it has the ``label`` alone. A result that is unchanged
    is still of the type of its source.
    """
    values: dict[str, str] = {}
    if described:
        values["software"] = f"{SOFTWARE} {VERSION}"
        if statement.source_type is not None:
            values |= {"digital_source_type": statement.source_type, "system": ", ".join(statement.models)}
        elif types := [source.values[_TYPE] for source in sources if _TYPE in source.values]:
            values[_TYPE] = types[0]
    if request and described:
        values |= {"made_at": statement.made_at.isoformat(timespec="seconds"), "request_id": statement.request_id}
    if label is not None:
        values["aigc"] = aigc_json(label)
    properties = "".join(_element(_NAMES[name], value) for name, value in values.items())
    kept = [{name: source.values[name] for name in _KEPT if name in source.values} for source in sources]
    if described and (items := "".join(_ingredient(values) for values in kept if values)):
        properties += f"<xmpMM:Ingredients><rdf:Bag>{items}</rdf:Bag></xmpMM:Ingredients>"
    namespaces = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in _NAMESPACES.items() if f"<{prefix}:" in properties)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about=""{namespaces}>{properties}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def aigc_json(label: Label) -> str:
    """Return the fields of GB 45438-2025, Appendix E; 1 stands for content that AI has made."""
    fields = {
        "Label": "1",
        "ContentProducer": label.producer,
        "ProduceID": label.number,
        "ReservedCode1": "",
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def read_packet(packet: bytes) -> Properties | None:
    """Return what a packet says, as far as we know its properties; None if it cannot be read."""
    if len(packet) > MAX_PACKET_BYTES or b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return None
    start = _START.search(packet)
    text = packet[start.start() :] if start else packet
    close = b"</" + start[0][1:] + b">" if start else b""
    end = text.find(close) if close else -1
    try:
        return _properties(ElementTree.fromstring(text if end < 0 else text[: end + len(close)]))
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return None


def _properties(root: ElementTree.Element) -> Properties:
    """Return what the descriptions at the top of a packet say; for each name, the first counts.

    Ingredients can have descriptions of their own, which say nothing of the file.
    """
    values: dict[str, str] = {}
    ingredients: list[dict[str, str]] = []
    tops = [root] if root.tag == f"{{{_RDF}}}RDF" else root.findall(f"{{{_RDF}}}RDF")
    for description in (found for top in tops for found in top.findall(f"{{{_RDF}}}Description")):
        for name, value in _read(description, _NAMES).items():
            values.setdefault(name, value)
        items = description.findall(f"{_tag('xmpMM:Ingredients')}/{{{_RDF}}}Bag/{{{_RDF}}}li")
        ingredients += [_read(item, _KEPT) for item in items[: MAX_INGREDIENTS - len(ingredients)]]
    return Properties(values, tuple(item for item in ingredients if item))


def _read(node: ElementTree.Element, names: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, qualified in names.items():
        value = node.get(_tag(qualified))
        child = node.find(_tag(qualified))
        if child is not None:
            value = child.get(f"{{{_RDF}}}resource") or "; ".join(text for part in child.itertext() if (text := part.strip()))
        if value and value.strip():
            found[name] = value.strip()[: MAX_TEXT_CHARS if name != "aigc" else 10 * MAX_TEXT_CHARS]
    return found


def _tag(qualified: str) -> str:
    prefix, name = qualified.split(":")
    return f"{{{_NAMESPACES[prefix]}}}{name}"


def _element(name: str, value: str) -> str:
    text = escape(_NOT_XML.sub("?", value))
    if name == "dc:creator":
        text = f"<rdf:Seq><rdf:li>{text}</rdf:li></rdf:Seq>"
    if name == "dc:rights":
        text = f'<rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt>'
    return f"<{name}>{text}</{name}>"


def _ingredient(values: dict[str, str]) -> str:
    return (
        f'<rdf:li rdf:parseType="Resource">{"".join(_element(_KEPT[name], value) for name, value in values.items())}</rdf:li>'
    )
