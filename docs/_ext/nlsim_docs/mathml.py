"""Formulas as MathML, which browsers draw themselves: the site needs no script and no network."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_NAMESPACE = "http://www.w3.org/1998/Math/MathML"
_ACCENTS = set("˙¨~^¯˜ˆ→")


def add_renderer(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))


def _visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node, is_block=False))
    raise nodes.SkipNode


def _visit_block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_mathml(node, is_block=True)}</div>\n')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, is_block: bool) -> str:
    tex = node.astext()
    try:
        return with_subscripts_beside(latex2mathml.tex2mathml(tex, as_block=is_block))
    except MathError as failure:
        logging.getLogger(__name__).warning("formula %r: %s", tex, failure, location=node)
        return ""


def with_subscripts_beside(mathml: str) -> str:
    """Move the index of an accented letter from below it to its side, where docutils should have put it."""
    ElementTree.register_namespace("", _NAMESPACE)
    root = ElementTree.fromstring(mathml)
    for each in root.iter(f"{{{_NAMESPACE}}}munderover"):
        letter, index, accent = list(each)
        if (accent.text or "") in _ACCENTS:
            accented = ElementTree.Element(f"{{{_NAMESPACE}}}mover", accent="true")
            accented.extend([letter, accent])
            each.tag = f"{{{_NAMESPACE}}}msub"
            each[:] = [accented, index]
    return ElementTree.tostring(root, encoding="unicode")
