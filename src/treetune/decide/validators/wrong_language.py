"""The answer is in the language asked for: its script, and among languages of the Latin script its small words."""

from __future__ import annotations

from collections import Counter

from treetune.core.language import say
from treetune.core.records import Example, Prediction, Reason
from treetune.decide.validators.words import WORD, main_code, script_of

NAME = "wrong_language"
TASKS = ("translation", "summarization")
FLAG_ONLY = False
SCRIPT_OF = {"zh": "han", "ru": "cyrillic", "uk": "cyrillic", "bg": "cyrillic", "ar": "arabic", "fa": "arabic",
             "ja": "kana", "ko": "hangul", "el": "greek", "he": "hebrew", "th": "thai", "hi": "devanagari"}
LATIN = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "no", "pl", "cs", "ro", "tr", "vi", "id")
MIN_LETTERS = 4
MIN_SHARE = 0.3
MIN_HITS = 2
SMALL_WORDS = {
    "en": "the of and to in is are was were with on at by an that this for from it his her their as be has have not "
          "there who which we you they he she its or into while some two man woman people",
    "de": "der die das und ist sind ein eine einen einem einer mit auf von im in den dem des zu nicht es sie er "
          "für an bei aus wird werden war als auch vor über nach mann frau zwei während einige",
    "fr": "le la les un une des du de et est sont avec sur dans en au aux pour par pas il elle ils que qui ce cette "
          "son sa ses homme femme deux deux pendant quelques se ne",
    "es": "el la los las un una unos y es son con en de del al por para que no se su sus este esta hombre mujer dos",
}
SETS = {code: frozenset(words.split()) for code, words in SMALL_WORDS.items()}


def find(prediction: Prediction, example: Example) -> Reason | None:
    wanted = main_code(example.language)
    letters = Counter(script_of(each) for each in prediction.answer if each.isalpha())
    total = sum(letters.values())
    if total < MIN_LETTERS or not (wanted in SCRIPT_OF or wanted in LATIN):
        return None
    script = SCRIPT_OF.get(wanted, "latin")
    own = letters[script] + (letters["han"] if wanted == "ja" else 0)
    if own < MIN_SHARE * total:
        return Reason(NAME, say("the answer is not in the script of {language}", language=wanted), own / total,
                      MIN_SHARE, prediction.answer[:40], (0, min(40, len(prediction.answer))))
    return _small_words(prediction.answer, wanted) if wanted in SETS else None


def _small_words(answer: str, wanted: str) -> Reason | None:
    words = [word for word in WORD.findall(answer.lower()) if not word.isdigit()]
    hits = {code: sum(word in known for word in words) for code, known in SETS.items()}
    other = max((code for code in hits if code != wanted), key=lambda code: hits[code])
    if hits[other] < MIN_HITS or hits[other] < 2 * hits[wanted] + 1:
        return None
    evidence = [word for word in words if word in SETS[other]][:4]
    return Reason(NAME, say("the answer reads like {found}, not {language}", found=other, language=wanted),
                  float(hits[wanted]), float(hits[other]), " ".join(evidence), None)
