"""Messages in the language in force, with English as the fallback."""

import pytest

from treetune.core import language as module
from treetune.core.language import choose_language, language, say


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch):
    for key in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(key, raising=False)
    choose_language("")
    yield
    choose_language("")


def test_a_message_without_translation_falls_back_to_its_id() -> None:
    choose_language("zh")
    assert say("no such message {x}", x=3) == "no such message 3"


def test_a_translation_is_used_and_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "catalog", lambda name: {"found {x}": "找到 {x}"} if name == "zh" else {})
    choose_language("zh")
    assert say("found {x}", x=3) == "找到 3"
    choose_language("en")
    assert say("found {x}", x=3) == "found 3"


def test_a_message_without_values_keeps_its_braces() -> None:
    assert say("a {b}") == "a {b}"


def test_an_unknown_language_is_refused_and_changes_nothing() -> None:
    choose_language("zh")
    with pytest.raises(ValueError, match="fr"):
        choose_language("fr")
    assert language() == "zh"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, "en"), ({"LANG": "zh_CN.UTF-8"}, "zh"), ({"LANG": "de_DE"}, "en"),
     ({"LANG": "zh_CN", "LC_ALL": "C"}, "en"), ({"LANG": "en_US", "LC_MESSAGES": "zh_TW"}, "zh"),
     ({"LANG": "zh_CN", "LC_ALL": ""}, "zh")],
)
def test_without_a_choice_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert language() == expected


def test_a_choice_stands_above_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "zh_CN")
    choose_language("en")
    assert language() == "en"


def test_the_chinese_catalog_can_be_read() -> None:
    assert all(isinstance(text, str) for text in module.catalog("zh").values())


def test_another_language_is_spoken_inside_and_only_there() -> None:
    from threading import Thread

    choose_language("en")
    elsewhere: list[str] = []
    with module.speaking("zh"):
        assert language() == "zh"
        with module.speaking(""), module.speaking("xx"):
            assert language() == "zh"
        thread = Thread(target=lambda: elsewhere.append(language()))
        thread.start()
        thread.join()
        with module.speaking("en"):
            assert language() == "en"
    assert elsewhere == ["en"]
    assert language() == "en"
