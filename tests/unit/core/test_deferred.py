"""What a library takes and nobody uses: imported when it is used, and only then."""

import importlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from treetune.core.deferred import StandIn, import_when_used, spec_of

IMPORTER, WANTED = "deferring.importer", "deferred.wanted"


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in {
        "deferring/__init__": "",
        "deferring/importer": f"""
from {WANTED} import Counted, Lost, doubled

def tried(fail):
    try:
        fail()
    except Lost:
        return "lost"
    except RuntimeError:
        return "otherwise"

def taken_in_a_function():
    from {WANTED} import Lost as found
    return found
""",
        "deferred/__init__": "",
        "deferred/wanted": """
class Lost(RuntimeError):
    pass

class Counted:
    kind = "counted"

def doubled(value):
    return 2 * value
""",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("deferring", "deferred")]:
        del sys.modules[name]


def defer() -> None:
    import_when_used(WANTED, ["deferring"], errors=["Lost"])


def is_imported() -> bool:
    return WANTED in sys.modules and not isinstance(sys.modules[WANTED], StandIn)


def test_a_function_is_imported_when_it_is_called() -> None:
    defer()
    importer = importlib.import_module(IMPORTER)
    assert not is_imported()
    assert importer.doubled(4) == 8
    assert is_imported()


def test_a_class_is_imported_when_it_is_asked_for_an_attribute_or_an_object() -> None:
    defer()
    importer = importlib.import_module(IMPORTER)
    given = importer.Counted
    assert not is_imported()
    assert given.kind == "counted"
    assert type(given()) is importer.Counted


def test_an_error_is_caught_as_ever_before_and_after() -> None:
    def fail() -> None:
        raise RuntimeError

    defer()
    importer = importlib.import_module(IMPORTER)
    assert importer.tried(fail) == "otherwise"
    assert not is_imported()
    wanted = importlib.import_module(WANTED)

    def lose() -> None:
        raise wanted.Lost

    assert importer.tried(lose) == "lost"


def test_once_it_is_there_the_importer_has_what_it_would_have_had() -> None:
    defer()
    importer = importlib.import_module(IMPORTER)
    importer.doubled(1)
    wanted = sys.modules[WANTED]
    assert (importer.doubled, importer.Counted, importer.Lost) == (wanted.doubled, wanted.Counted, wanted.Lost)


def test_a_function_of_the_importer_gets_the_real_thing() -> None:
    defer()
    found = importlib.import_module(IMPORTER).taken_in_a_function()
    assert is_imported()
    assert issubclass(found, RuntimeError)


@pytest.mark.parametrize("how", [f"from {WANTED} import Lost", f"import {WANTED}\nLost = {WANTED}.Lost",
                                 "from deferred import wanted\nLost = wanted.Lost"])
def test_everybody_else_gets_the_module_itself(how: str) -> None:
    defer()
    importlib.import_module(IMPORTER)
    names: dict[str, type] = {}
    exec(how, names)
    assert issubclass(names["Lost"], RuntimeError)
    assert sys.modules["deferred"].wanted is sys.modules[WANTED]
    assert is_imported()


def test_what_was_imported_before_stays_as_it_is() -> None:
    wanted = importlib.import_module(WANTED)
    defer()
    assert importlib.import_module(IMPORTER).doubled is wanted.doubled


def test_the_importer_looks_as_if_nothing_had_been_done() -> None:
    before = list(sys.meta_path)
    defer()
    importer = importlib.import_module(IMPORTER)
    assert type(importer.__loader__).__name__ == "SourceFileLoader"
    assert importer.__spec__ is not None
    assert importer.__spec__.loader is importer.__loader__
    assert sys.meta_path == before


def test_an_importer_that_fails_leaves_nothing_behind(modules: Path) -> None:
    whole = (modules / "deferring/importer.py").read_text(encoding="utf-8")
    (modules / "deferring/importer.py").write_text(f"from {WANTED} import doubled\n1 / 0\n", encoding="utf-8")
    defer()
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(IMPORTER)
    assert IMPORTER not in sys.modules
    assert not is_imported()
    (modules / "deferring/importer.py").write_text(whole, encoding="utf-8")
    importlib.invalidate_caches()
    importer = importlib.import_module(IMPORTER)
    assert importer.doubled(2) == 4
    assert importer.doubled is sys.modules[WANTED].doubled


def test_nothing_stands_in_for_a_module_that_cannot_be_found() -> None:
    for name in ("deferred.nowhere", "nowhere", "nowhere.at_all"):
        import_when_used(name, ["deferring"])
        assert name not in sys.modules


def test_a_spec_is_found_without_importing_the_package() -> None:
    spec = spec_of("deferring.importer")
    assert spec is not None
    assert spec.name == "deferring.importer"
    assert "deferring" not in sys.modules


def test_threads_that_use_it_at_once_import_it_once(modules: Path) -> None:
    (modules / "deferred/wanted.py").write_text(
        "import time, deferred\n"
        "deferred.times = getattr(deferred, 'times', 0) + 1\n"
        "time.sleep(0.05)\n"
        "class Lost(Exception): pass\n"
        "class Counted: pass\n"
        "def doubled(value): return 2 * value\n", encoding="utf-8")
    defer()
    importer = importlib.import_module(IMPORTER)
    doubled = importer.doubled
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(doubled, range(8))) == [2 * value for value in range(8)]
    assert sys.modules["deferred"].times == 1


def test_a_module_that_fails_says_so_when_it_is_used_and_again(modules: Path) -> None:
    (modules / "deferred/wanted.py").write_text("1 / 0\n", encoding="utf-8")
    defer()
    importer = importlib.import_module(IMPORTER)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            importer.doubled(1)


def test_python_s_own_tools_may_look_at_all_modules() -> None:
    defer()
    assert not hasattr(sys.modules[WANTED], "__file__")
    assert importlib.util.find_spec(WANTED) is not None
    assert not is_imported()
