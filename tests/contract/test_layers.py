"""The house: layers, no circles, no torch above the models, nothing that runs foreign code."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import treetune

ROOT = Path(treetune.__file__).parent
LAYERS = [["core"], ["data", "metrics", "plan", "trees"], ["tasks"],
          ["models", "evaluate", "decide", "audit", "report"], ["predict", "explain"], ["train"], ["workflow"],
          ["serve"], ["cli", "verbs"]]
RANK = {folder: rank for rank, layer in enumerate(LAYERS) for folder in layer}
HEAVY = {"torch", "transformers", "peft"}
MAY_BE_HEAVY = {"models", "predict", "explain", "train"}
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def folder_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def at_module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run on import: not inside functions, not under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_module_level(node)


def imports(nodes: Iterator[ast.AST]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
    return found


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_the_layers_here_are_those_the_package_writes_down() -> None:
    written = " ".join((treetune.__doc__ or "").split())
    drawn = " > ".join(", ".join(layer) for layer in reversed(LAYERS))
    assert drawn in written
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert folders <= set(RANK), "a folder without a layer"


def test_a_file_imports_only_from_lower_layers_and_never_from_a_neighbour() -> None:
    wrong = []
    for module, path in MODULES.items():
        own = folder_of(module)
        for target in imports(ast.walk(parsed(path))):
            if own in ("", "__main__") or not target.startswith("treetune.") or folder_of(target) == own:
                continue
            if folder_of(target) not in RANK or RANK[folder_of(target)] >= RANK[own]:
                wrong.append(f"{module} -> {target}")
    assert not wrong


def test_torch_is_imported_at_module_level_only_where_tensors_live() -> None:
    wrong = []
    for module, path in MODULES.items():
        if folder_of(module) in MAY_BE_HEAVY:
            continue
        heavy = {name for name in imports(at_module_level(parsed(path))) if name.split(".")[0] in HEAVY}
        wrong += [f"{module} -> {name}" for name in sorted(heavy)]
    assert not wrong


def test_nothing_but_the_workflow_pulls_torch_in_through_another_module() -> None:
    wrong = []
    for module, path in MODULES.items():
        if folder_of(module) in MAY_BE_HEAVY | {"workflow"}:
            continue
        for target in imports(at_module_level(parsed(path))):
            if target.startswith("treetune.") and any(
                name.split(".")[0] in HEAVY for name in reached(target)
            ):
                wrong.append(f"{module} -> {target}")
    assert not wrong


def reached(start: str) -> set[str]:
    """Everything that importing ``start`` imports at module level."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            waiting += imports(at_module_level(parsed(MODULES[name])))
    return seen


def refuse_circles(graph: dict[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_modules_do_not_import_each_other_in_circles() -> None:
    refuse_circles({name: imports(at_module_level(parsed(path))) & set(MODULES) for name, path in MODULES.items()})


def test_no_circle_is_closed_inside_a_function_either() -> None:
    # but through the face of the package, which hands names on when asked and whose version is asked for from below
    rooms = set(MODULES) - {"treetune"}
    refuse_circles({name: imports(ast.walk(parsed(MODULES[name]))) & rooms - {name} for name in sorted(rooms)})


def test_no_module_has_a_name_that_says_nothing() -> None:
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not names & {"utils", "util", "helpers", "helper", "misc", "common"}


def test_importing_the_package_loads_no_torch() -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import treetune"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT.parent)},
    )
    loaded = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines()}
    assert "treetune" in loaded
    assert not {name for name in loaded if name.split(".")[0] in HEAVY | {"numpy", "pydantic"}}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_unpickles_or_runs_text(path: Path) -> None:
    tree = parsed(path)
    modules = {name.split(".")[0] for name in imports(ast.walk(tree))}
    assert not modules & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {each.arg: ast.unparse(each.value) for each in node.keywords}
        assert called not in {"eval", "exec", "compile", "torch.load", "torch.save", "yaml.unsafe_load",
                              "yaml.full_load", "yaml.load_all", "os.system"}, called
        assert keywords.get("allow_pickle", "False") == "False"
        assert keywords.get("trust_remote_code", "False") == "False"
        assert keywords.get("shell", "False") == "False"
        if called == "yaml.load":
            assert keywords.get("Loader") == "_UniqueKeyLoader"
