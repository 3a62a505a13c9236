"""How Sphinx makes the pages: MyST for the text, docstrings for the reference, settings from their schema."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import treetune  # noqa: E402
from treetune.core import settings as schemas  # noqa: E402

project = "treetune"
author = "the treetune authors"
release = version = treetune.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_title = "treetune"
html_theme_options = {"description": "Fine-tune a language model, and know when its answers can be trusted.",
                      "page_width": "1080px"}
html_show_sourcelink = False
default_role = "code"  # docstrings name things in single backquotes
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True  # attributes stand in the class's own text; listed once
suppress_warnings = ["myst.header"]  # decisions count their own headings


class SettingsTable(Directive):
    """``{settings} NAME``: flag, default and meaning of every field of a settings class."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        fields = getattr(schemas, self.arguments[0]).model_fields
        table, group = nodes.table(), nodes.tgroup(cols=3)
        group += [nodes.colspec(colwidth=width) for width in (3, 2, 7)]
        head, body = nodes.thead(), nodes.tbody()
        head += row(["setting", "default", "meaning"])
        for name, field in fields.items():
            default = "needed" if field.is_required() else repr(field.get_default(call_default_factory=True))
            body += row([nodes.literal(text=name), nodes.literal(text=default), field.description or ""])
        group += [head, body]
        table += group
        return [table]


def row(cells: list[Any]) -> nodes.row:
    """One line of a table; a cell is text or a node."""
    made = nodes.row()
    for cell in cells:
        entry, paragraph = nodes.entry(), nodes.paragraph()
        paragraph += nodes.Text(cell) if isinstance(cell, str) else cell
        entry += paragraph
        made += entry
    return made


def link_out(app: Any, document: Any) -> None:
    """Files of the repository that are no pages (SECURITY.md, recipes) are shown by name, not copied."""
    for reference in list(document.findall(lambda node: node.get("reftype") == "myst" if isinstance(
            node, nodes.Element) else False)):
        target = str(reference.get("reftarget", ""))
        if target.startswith("../") and not (Path(app.srcdir) / reference["refdoc"]).parent.joinpath(
                target).resolve().is_relative_to(Path(app.srcdir)):
            reference.replace_self(nodes.literal(text=target.removeprefix("../")))


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("settings", SettingsTable)
    app.connect("doctree-read", link_out)
    return {"parallel_read_safe": True}
