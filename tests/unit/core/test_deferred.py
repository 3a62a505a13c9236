"""What a library takes and nobody calls: imported when it is called, and only then."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from treetune.core.deferred import import_when_called

IMPORTER, WANTED = "deferring_importer", "deferred_wanted"


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / f"{IMPORTER}.py").write_text(f"from {WANTED} import doubled\n", encoding="utf-8")
    (tmp_path / f"{WANTED}.py").write_text("def doubled(value):\n    return 2 * value\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in (IMPORTER, WANTED):
        sys.modules.pop(name, None)


def test_a_function_is_imported_when_it_is_called() -> None:
    import_when_called(IMPORTER, WANTED)
    importer = __import__(IMPORTER)
    assert WANTED not in sys.modules
    assert importer.doubled(4) == 8
    assert WANTED in sys.modules


def test_everybody_else_gets_the_module_itself() -> None:
    import_when_called(IMPORTER, WANTED)
    __import__(IMPORTER)
    wanted = __import__(WANTED)
    assert wanted.__file__
    assert wanted.doubled(1) == 2


def test_what_was_imported_before_stays_as_it_is() -> None:
    wanted = __import__(WANTED)
    import_when_called(IMPORTER, WANTED)
    assert __import__(IMPORTER).doubled is wanted.doubled

    finders = list(sys.meta_path)
    import_when_called(IMPORTER, WANTED)
    assert sys.meta_path == finders


def test_the_importer_looks_as_if_nothing_had_been_done() -> None:
    before = list(sys.meta_path)
    import_when_called(IMPORTER, WANTED)
    importer = __import__(IMPORTER)
    assert type(importer.__loader__).__name__ == "SourceFileLoader"
    assert importer.__spec__.loader is importer.__loader__
    assert sys.meta_path == before


def test_an_importer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / f"{IMPORTER}.py").write_text(f"from {WANTED} import doubled\n1 / 0\n", encoding="utf-8")
    import_when_called(IMPORTER, WANTED)
    with pytest.raises(ZeroDivisionError):
        __import__(IMPORTER)
    assert WANTED not in sys.modules
