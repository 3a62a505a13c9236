"""Which message ids the source holds: literal texts given to ``say`` and to the errors."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "treetune"
ERRORS = {"TreetuneError", "UsageError", "ModelError", "DataError", "RunError", "TrainingError", "Interrupted",
          "row_error"}


def literals(node: ast.expr | None) -> list[str]:
    """Texts that an expression may be: a literal, or either side of a conditional."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return [*literals(node.body), *literals(node.orelse)]
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in literals(value)]
    return []


def ids_of_call(call: ast.Call) -> list[str]:
    """Message ids in one call."""
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    if name == "say":
        return literals(call.args[0]) if call.args else []
    if name not in ERRORS:
        return []
    place = 3 if name == "row_error" else 1
    found = literals(call.args[place]) if len(call.args) > place else []
    return found + [text for keyword in call.keywords if keyword.arg == "do" for text in literals(keyword.value)]


def message_ids() -> dict[str, str]:
    """Id -> file it was first seen in."""
    found: dict[str, str] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                for text in ids_of_call(node):
                    if text:
                        found.setdefault(text, str(path.relative_to(SOURCE)))
    return found
