"""Personal data in the answer: e-mail, telephone, bank card, IBAN, Chinese identity number; those with check digits by
them. A flag: a summary of a letter may rightly name its sender.
"""

from __future__ import annotations

import re

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason

NAME = "personal"
TASKS = ("translation", "summarization", "question_answering")
FLAG_ONLY = True
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
IDENTITY = re.compile(r"(?<!\d)\d{17}[\dXx](?!\d)")
CARD = re.compile(r"(?<![\d-])\d(?:[ -]?\d){12,18}(?![\d-])")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
PHONE = re.compile(r"(?<![\w.])(?:\+\d{1,3}[ -]?(?:\(?\d{1,4}\)?[ -]?)\d{2,4}(?:[ -]?\d{2,4}){1,3}"
                   r"|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4}|1[3-9]\d(?:[ -]?\d{4}){2}|0\d{2,3}-\d{7,8})(?![\w])")
MIN_DIGITS = 7
ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def find(prediction: Prediction, example: Example) -> Reason | None:
    answer = prediction.answer
    if "@" not in answer and sum(each.isdigit() for each in answer) < MIN_DIGITS:
        return None
    for pattern, valid, name in KINDS:
        for match in pattern.finditer(answer):
            if valid(match[0]):
                text = {"email": say("an e-mail address"), "identity": say("a Chinese identity number"),
                        "card": say("a bank card number"), "iban": say("a bank account number"),
                        "phone": say("a telephone number")}[name]
                return Reason(NAME, text, 1.0, 0.0, match[0], match.span())
    return None


def passes_luhn(number: str) -> bool:
    """Luhn's check digit of payment cards (US patent 2,950,048)."""
    digits = [int(each) for each in number if each.isdigit()]
    doubled = [digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and sum(doubled) % 10 == 0 and len(set(digits)) > 1


def passes_identity(number: str) -> bool:
    """GB 11643: weighted sum modulo 11, and a month and day that exist."""
    total = sum(int(digit) * weight for digit, weight in zip(number, ID_WEIGHTS, strict=False))
    return ("10X98765432"[total % 11] == number[-1].upper() and 1 <= int(number[10:12]) <= 12
            and 1 <= int(number[12:14]) <= 31)


def passes_iban(number: str) -> bool:
    """ISO 13616: the number with its head at the end is 1 modulo 97."""
    text = number.replace(" ", "")
    return int("".join(str(int(each, 36)) for each in text[4:] + text[:4])) % 97 == 1


def always(number: str) -> bool:
    """No check digit to test."""
    return True


KINDS = ((EMAIL, always, "email"), (IDENTITY, passes_identity, "identity"), (CARD, passes_luhn, "card"),
         (IBAN, passes_iban, "iban"), (PHONE, always, "phone"))
