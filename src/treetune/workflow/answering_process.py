"""One of several processes that answer: ``python -m treetune.workflow.answering_process WORDS``.

A line with the scope first, then for each line of examples that comes one of predictions; ends when no more come.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from treetune.core.errors import TreetuneError
from treetune.core.language import choose_language
from treetune.workflow.engines import open_engine
from treetune.workflow.processes import example_of


def main(words: dict[str, Any]) -> None:
    """Args:
        words: ``run``, ``engine``, ``model`` as `treetune.workflow.engines.open_engine` has them; ``language``.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not be taken for a reply
    choose_language(words["language"])

    def reply(value: dict[str, Any]) -> None:
        replies.write(json.dumps(value) + "\n")
        replies.flush()

    try:
        opened = open_engine(words["run"], words["engine"], words["model"])
        reply({"scope": opened.scope})
        for line in sys.stdin:
            found = opened.engine.predict([example_of(each) for each in json.loads(line)])
            reply({"predictions": [asdict(each) for each in found]})
    except TreetuneError as error:
        reply({"error": {**error.as_dict(), "exit_code": error.exit_code}})
    except BrokenPipeError:
        pass  # nobody waits any more


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
