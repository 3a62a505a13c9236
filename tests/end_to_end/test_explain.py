"""``treetune explain`` over a small tuned run: each way to ask, each way to show."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treetune.core.errors import EXIT_DATA, EXIT_USAGE


def test_a_label_in_the_terminal_as_json_and_as_a_page(
    runs: Callable[[str], Path], cli: Callable[..., Any], tmp_path: Path
) -> None:
    run = runs("sentiment")
    shown = cli("explain", run, "--text", "A long but lovely film.", "--method", "occlusion")
    assert shown.code == 0, shown.err
    assert "rather than" in shown.out
    assert "Not measured yet" in shown.out
    found = cli("explain", run, "--text", "A long but lovely film.", "--method", "gradient_x_input", "--training-rows",
                "--json").json
    assert {word["part"] for word in found["words"]} == {"source", "instruction"}
    assert len(found["training_rows"]["nearest"]) == 5
    assert 0 <= found["coverage"]["density"] <= 1
    assert found["lens"]["layers"]
    page = tmp_path / "why.html"
    assert cli("explain", run, "--text", "好看的电影", "--method", "occlusion", "--output", "html", "--output-file",
               page).code == 0
    assert "<mark" in page.read_text("utf-8")


def test_written_answers_name_the_words_of_each_token(
    runs: Callable[[str], Path], cli: Callable[..., Any], rows_file: Callable[[str, int], Path]
) -> None:
    found = cli("explain", runs("translation"), "--data", rows_file("translation", 2), "--row", "1", "--method",
                "gradient_x_input", "--json")
    assert found.code == 0, found.err
    assert len(found.json["tokens"][0]["values"]) == len(found.json["varied_words"])
    asked = cli("explain", runs("question_answering"), "--text", "Paris is in France.", "--field",
                "question=Where is Paris?", "--method", "occlusion", "--json")
    assert asked.code == 0, asked.err
    assert {"question", "source"} <= {word["part"] for word in asked.json["words"]}


def test_faithfulness_goes_into_the_report(
    runs: Callable[[str], Path], cli: Callable[..., Any], rows_file: Callable[[str, int], Path]
) -> None:
    run = runs("sentiment")
    found = cli("explain", run, "--faithfulness", "--data", rows_file("sentiment", 6), "--rows", "4", "--method",
                "occlusion,gradient_x_input", "--json")
    assert found.code == 0, found.err
    assert found.json["faithfulness"]["rows"] == 4
    assert json.loads((run / "explain.json").read_text("utf-8"))["best"] == found.json["best"]
    assert 'id="explanations"' in (run / "report.html").read_text("utf-8")


def test_suspects_and_contamination(
    runs: Callable[[str], Path], cli: Callable[..., Any], rows_file: Callable[[str, int], Path]
) -> None:
    run = runs("sentiment")
    found = cli("explain", run, "--suspects", "--top", "3", "--json").json["suspects"]
    assert [each["rank"] for each in found] == [1, 2, 3]
    assert len((run / "suspects.jsonl").read_text("utf-8").splitlines()) == 3
    hit = cli("explain", run, "--contamination", "--data", rows_file("sentiment", 5), "--json").json
    assert (hit["rows"], hit["contaminated"]) == (5, 0)
    assert cli("explain", runs("translation"), "--suspects", "--method", "neighbours").code == EXIT_USAGE


def test_wrong_questions_are_refused(
    runs: Callable[[str], Path], cli: Callable[..., Any], rows_file: Callable[[str, int], Path]
) -> None:
    run = runs("sentiment")
    assert cli("explain", run).code == EXIT_USAGE
    assert cli("explain", run, "--text", "a", "--suspects").code == EXIT_USAGE
    assert cli("explain", run, "--text", "a", "--output", "pdf").code == EXIT_USAGE
    assert cli("explain", run, "--row", "99", "--data", rows_file("sentiment", 2)).code == EXIT_DATA
