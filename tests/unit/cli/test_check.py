"""What ``treetune check`` prints of its examples."""

from treetune.cli.check import SHOWN, both_ends


def test_of_a_long_prompt_both_ends_are_shown() -> None:
    assert both_ends("a" * 2 * SHOWN) == "a" * 2 * SHOWN
    assert both_ends("Judge it. " + "a" * 2 * SHOWN + "\nSentiment:") == (
        "Judge it. " + "a" * (SHOWN - 10) + " […] " + "a" * (SHOWN - 11) + "\nSentiment:")
