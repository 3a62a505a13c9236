"""How threads of torch's and of numpy's products wait for each other, on a machine that others use, too."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

SPINS, FEW = "GOMP_SPINCOUNT", 5000
"""How often a waiting thread of torch looks before it falls asleep; some tens of microseconds."""
CYCLES, SOME = "OPENBLAS_THREAD_TIMEOUT", 14
"""The same of numpy's: 2 to this power, in cycles of the processor; a few microseconds."""
POLICY = "OMP_WAIT_POLICY"


def wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Let threads that wait fall asleep soon; to be called before torch and numpy are loaded, which read it then.

    GNU OpenMP's threads spin for milliseconds, OpenBLAS's for tens of them. Where another program has one of the
    cores, every wait lasts as long as its turn there: on two busy cores the shipped base answered 51 rows a second, and
    answers 145 this way; where nothing else runs, no difference was seen. The user's own values stay.
    """
    if POLICY not in environment:
        environment.setdefault(SPINS, str(FEW))
    environment.setdefault(CYCLES, str(SOME))


def sleep_soon(environment: Mapping[str, str]) -> bool:
    """Whether threads of both fall asleep soon, so that the two can take turns on the same cores."""
    try:
        few = environment.get(POLICY, "").upper() == "PASSIVE" or int(environment[SPINS]) <= FEW
        return few and int(environment[CYCLES]) <= SOME
    except (KeyError, ValueError):
        return False
