"""Writers of triples as JSON Lines, N-Triples or GraphML. Entities with equal names are one node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from retrograd.report.ntriples import format_n_triples, require_rdflib
from retrograd.studies.extract import Triple
from retrograd.types import UserError
from retrograd.util.files import atomic_file
from retrograd.util.text_files import write_jsonl

__all__ = ["require_writable", "write_triples"]

_BASE = "urn:retrograd:"
_IRI_START = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:([^\x00-\x20<>\"{}|^`\\]*[/#:])?")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def write_triples(triples: Sequence[Triple], out: Path, iri_prefix: str = _BASE) -> None:
    """Write ``.jsonl``, ``.nt`` or ``.graphml``, whole or not at all; ``iri_prefix`` begins the IRIs of N-Triples.

    Raises `UserError` as `require_writable` does.
    """
    require_writable(out, iri_prefix)
    out.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[out.suffix](triples, out, iri_prefix)


def require_writable(out: Path, iri_prefix: str = _BASE) -> None:
    """Raise `UserError` where `write_triples` could not write; call it before a model works for nothing."""
    if out.suffix not in _WRITERS:
        raise UserError(f"{out}: triples are written as {', '.join(_WRITERS)}; name a file with one of these endings")
    if out.exists():
        raise UserError(f"{out} exists; choose another file with --out, or remove it first")
    if out.suffix == ".graphml":
        _require_networkx()
    if out.suffix == ".nt":
        require_rdflib()
        if not _IRI_START.fullmatch(iri_prefix):
            raise UserError(
                f"--base {iri_prefix!r} cannot begin an IRI; expected a scheme, no spaces, and / # or : at the end, as "
                f"in https://example.org/"
            )


def _require_networkx() -> None:
    if find_spec("networkx") is None:
        raise UserError("GraphML needs networkx; install it with: pip install 'retrograd[graph]'")


def _write_jsonl(triples: Sequence[Triple], out: Path, _: str) -> None:
    write_jsonl(out, (triple.record() for triple in triples))


def _write_ntriples(triples: Sequence[Triple], out: Path, iri_prefix: str) -> None:
    text = format_n_triples(triples, lambda kind, name: f"{iri_prefix}{kind}:{quote(name, safe='')}")
    with atomic_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_graphml(triples: Sequence[Triple], out: Path, _: str) -> None:
    """Write a directed multigraph: an edge for each triple, what is known of it as the edge's attributes."""
    import networkx as nx

    graph = nx.MultiDiGraph()
    for number, triple in enumerate(triples):
        for name, kind in ((triple.head, triple.head_type), (triple.tail, triple.tail_type)):
            graph.add_node(_clean_xml(name), **({"type": _clean_xml(kind)} if kind else {}))
        graph.add_edge(
            _clean_xml(triple.head),
            _clean_xml(triple.tail),
            key=number,  # becomes the edge's id, which some readers want to be the only one in the whole file
            relation=_clean_xml(triple.relation),
            score=triple.score,
            sentence=_clean_xml(triple.sentence),
            source=_clean_xml(triple.id),
            neighbours=_clean_xml(" ".join(passage.id for passage in triple.neighbours)),
        )
    with atomic_file(out) as temporary:
        nx.write_graphml(graph, temporary)


def _clean_xml(text: str) -> str:
    """Return a text with U+FFFD for characters that XML cannot hold, such as control characters."""
    return _NO_XML.sub("\ufffd", text)


_WRITERS = {".jsonl": _write_jsonl, ".nt": _write_ntriples, ".graphml": _write_graphml}
