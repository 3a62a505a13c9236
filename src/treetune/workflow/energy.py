"""Energy as the machine's own counters show it, or codecarbon's word; nothing where there is neither."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from treetune.core.errors import UsageError

RAPL = Path("/sys/class/powercap")
JOULES_A_KWH = 3.6e6


class EnergyMeter:
    """Counts from its making on."""

    def __init__(self, backend: str = "auto") -> None:
        """Raises: UsageError E2059 codecarbon is asked for and not installed."""
        self.tracker = _codecarbon() if backend == "codecarbon" else None
        self.domains = _rapl_domains() if self.tracker is None else []
        self.gpus = _nvml_handles() if self.tracker is None else []
        self.last = {path: _read(path / "energy_uj") or 0 for path in self.domains}
        self.joules = 0.0
        self.gpu_start = sum(_nvml_millijoules(handle) for handle in self.gpus)

    @property
    def source(self) -> str:
        """``codecarbon``, ``rapl``, ``nvml``, ``rapl+nvml``; ``""`` where nothing can be read."""
        if self.tracker is not None:
            return "codecarbon"
        return "+".join(name for name, there in (("rapl", self.domains), ("nvml", self.gpus)) if there)

    def kwh(self) -> float | None:
        """Energy since the start; None where nothing can be read. Call at least every few minutes: counters wrap."""
        if self.tracker is not None:
            self.tracker.flush()  # measure now; only its private data tell energy before the end
            return float(self.tracker._prepare_emissions_data().energy_consumed)
        if not self.source:
            return None
        for path in self.domains:
            now = _read(path / "energy_uj")
            if now is not None:
                passed = now - self.last[path]
                self.joules += (passed if passed >= 0 else passed + (_read(path / "max_energy_range_uj") or 0)) / 1e6
                self.last[path] = now
        gpu = (sum(_nvml_millijoules(handle) for handle in self.gpus) - self.gpu_start) / 1e3
        return (self.joules + gpu) / JOULES_A_KWH

    def close(self) -> None:
        """End codecarbon's thread."""
        if self.tracker is not None:
            self.tracker.stop()


def _rapl_domains() -> list[Path]:
    """Packages, not their parts; none where the kernel lets only root read."""
    found = sorted(RAPL.glob("intel-rapl:*")) if RAPL.is_dir() else []
    return [path for path in found if path.name.count(":") == 1 and _read(path / "energy_uj") is not None]


def _read(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _nvml_handles() -> list[Any]:
    """One a GPU whose driver counts energy; [] without pynvml or a GPU."""
    try:
        import pynvml  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return []
    handles: list[Any] = []
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            handles.append(handle)
    return handles


def _nvml_millijoules(handle: Any) -> float:
    import pynvml

    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def _codecarbon() -> Any:
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError as error:
        raise UsageError("E2059", "codecarbon is not installed", where="energy_meter", found="codecarbon",
                         do="pip install 'treetune[energy]'") from error
    tracker = OfflineEmissionsTracker(country_iso_code="USA", tracking_mode="process", save_to_file=False,
                                      log_level="error", allow_multiple_runs=True)
    tracker.start()
    return tracker
