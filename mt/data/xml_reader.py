"""XML as a stream, for files from anywhere: no entities, no DTD, no network, constant memory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mt.data import archives
from mt.errors import DataError, printable
from mt.runtime import text_files

XML_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_ADVICE = "export it again, from the program that it comes from"


def read_elements(path: Path, units: Collection[str], heads: Collection[str] = ()) -> Iterator[Any]:
    """Yield the elements of a file, plain or compressed, in their order, then forget them.

    Args:
        path: the file.
        units: local names of elements that are yielded when they are whole.
        heads: local names of elements that are yielded where they begin, with attributes only.

    Raises:
        DataError: missing, or not well-formed; names the line.
    """
    from lxml import etree

    text_files.open_bytes(path).close()  # raises when the path is wrong
    with archives.open_text(path) as stream:
        try:
            for event, element in etree.iterparse(
                stream, events=("start", "end"), tag=[f"{{*}}{name}" for name in (*units, *heads)],
                resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False,
                remove_comments=True, remove_pis=True, collect_ids=False,
            ):  # fmt: skip
                name = local_name(element)
                if event == "start" and name in heads:
                    yield element
                elif event == "end" and name in units:
                    yield element
                    _forget(element)
        except etree.XMLSyntaxError as error:
            raise _not_well_formed(str(path), error) from None


def _forget(element: Any) -> None:
    """Free an element and those before it."""
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


def parse(stream: BinaryIO, name: str) -> Any:
    """Return the root element of a small file.

    Raises:
        DataError: not well-formed; names the line.
    """
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, collect_ids=False
    )
    try:
        return etree.parse(stream, parser).getroot()
    except etree.XMLSyntaxError as error:
        raise _not_well_formed(name, error) from None


def _not_well_formed(name: str, error: Any) -> DataError:
    what = f"not well-formed XML ({printable(error.msg, 120)})"
    return DataError("DATA-XML", f"{name}:{max(1, error.lineno)}", what, _ADVICE)


def local_name(element: Any) -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def text_of(element: Any, dropped: Collection[str], name: str) -> str:
    """Return the text of an element without its inline tags.

    Args:
        element: the element.
        dropped: local names of the tags whose content is no text, such as codes of a format.
        name: the file, for an error.

    Raises:
        DataError: an entity that is not one of the five of XML.
    """
    parts = [element.text or ""]
    for child in element:
        if not isinstance(child.tag, str):
            what = f"an entity that is not defined in XML: {printable(child.text, 50)}"
            raise DataError("DATA-XML", f"{name}:{child.sourceline}", what, _ADVICE)
        if local_name(child) not in dropped:
            parts.append(text_of(child, dropped, name))
        parts.append(child.tail or "")
    return "".join(parts)


def no_such_pair(path: Path, direction: Any, found: Collection[str]) -> DataError:
    """Return the error of a file in other languages than those of its direction."""
    what = f"no unit has {direction.source} and {direction.target}; "
    what += f"the languages are: {printable(', '.join(sorted(found)) or 'none', 150)}"
    return DataError("DATA-LANGUAGES", path, what, "see languages in the recipe")
