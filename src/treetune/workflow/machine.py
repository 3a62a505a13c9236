"""What this machine is and can do, measured in a blink and without torch."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treetune.core.processor import processor_text
from treetune.plan.devices import DEVICES, Device, processor

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor: its name, its cores, memory in bytes, and what was measured of it with ``threads`` threads."""

    name: str
    cores: int
    memory: int
    free: int
    threads: int
    peak: float
    bandwidth: float
    gpu: Device | None = None

    def device(self) -> Device:
        """What a run here computes on, as the plan has it: a GPU where there is one."""
        return self.gpu or processor(self.peak, self.memory, self.bandwidth, self.threads)

    def as_dict(self) -> dict[str, Any]:
        return {"processor": self.name, "cores": self.cores, "memory_bytes": self.memory, "free_bytes": self.free,
                "threads": self.threads, "matmul_flops": self.peak, "copy_bytes_a_second": self.bandwidth,
                "gpu": self.gpu.name if self.gpu else None}


def this_machine(threads: int = 0) -> Machine:
    """Look and measure; about a tenth of a second.

    Args:
        threads: a run will use; 0: one a core. What was measured with others is scaled.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = threads or int(os.environ.get("OMP_NUM_THREADS") or 0) or cores
    measured = int(os.environ.get("OMP_NUM_THREADS") or 0) or cores
    peak, bandwidth = matmul_peak() * wanted / measured, copy_bandwidth()
    total, free = memory()
    return Machine(processor_name(), cores, total, free, wanted, peak, bandwidth, gpu())


def matmul_peak(size: int = 768, tries: int = 6) -> float:
    """Operations a second of the best of some float32 matrix products, as numpy makes them."""
    import numpy as np

    left = np.random.default_rng(0).random((size, size), dtype=np.float32)
    out = np.empty_like(left)
    np.matmul(left, left, out=out)
    best = 0.0
    for _ in range(tries):
        began = time.perf_counter()
        np.matmul(left, left, out=out)
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def copy_bandwidth(size: int = 1 << 25, tries: int = 4) -> float:
    """Bytes a second read and written, of the best of some copies too large for the caches."""
    import numpy as np

    left = np.ones(size // 4, dtype=np.float32)
    right = np.empty_like(left)
    best = 0.0
    for _ in range(tries):
        began = time.perf_counter()
        np.copyto(right, left)
        best = max(best, 2 * size / (time.perf_counter() - began))
    return best


def memory() -> tuple[int, int]:
    """(bytes there are, bytes free), as the control group of a container allows; (0, 0) where it is not known."""
    found = {}
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, rest = line.partition(":")
            found[name] = int(rest.split()[0]) * 1024 if rest.split() else 0
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return pages, pages
    total, free = found.get("MemTotal", 0), found.get("MemAvailable", 0)
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
        total = min(total or int(text), int(text))
        free = min(free, total)
    return total, free


def processor_name() -> str:
    """As the kernel gives it."""
    for line in processor_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_bytes() -> int:
    """The most memory this process has ever held, children not counted; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if platform.system() == "Darwin" else size * 1024


def gpu() -> Device | None:
    """The first NVIDIA GPU, as its driver's tool names it; None without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        said = subprocess.run([tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"], timeout=10,
                              capture_output=True, text=True, check=True).stdout.splitlines()
        name, megabytes = said[0].rsplit(",", 1)
        return gpu_device(name.strip(), int(megabytes) << 20)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def gpu_device(name: str, memory_bytes: int) -> Device:
    """The device of the table whose name stands in the driver's name; else one of that memory with an A100's rest."""
    plain = name.lower().replace(" ", "").replace("geforce", "")
    for known, device in DEVICES.items():
        if known in plain:
            return device
    base = DEVICES["a100"]
    return Device(name, base.peak, memory_bytes, base.bandwidth, base.watts, None, base.reached, base.drawn)
