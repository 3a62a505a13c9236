"""Counters of energy: read where they are there, wrapped around where they overflow, absent where they are not."""

import sys
from pathlib import Path

import pytest

from treetune.core.errors import UsageError
from treetune.workflow import energy
from treetune.workflow.energy import EnergyMeter


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One package with a part of it, as the kernel shows them."""
    for name in ("intel-rapl:0", "intel-rapl:0:0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text("900000")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000")
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    monkeypatch.setattr(energy, "_nvml_handles", list)
    return tmp_path


def test_packages_are_counted_once_and_a_wrap_is_seen(counters: Path) -> None:
    meter = EnergyMeter()
    assert meter.source == "rapl"
    (counters / "intel-rapl:0" / "energy_uj").write_text("100000")  # over the top of its range
    (counters / "intel-rapl:0:0" / "energy_uj").write_text("999999")
    assert meter.kwh() == pytest.approx(0.2 / 3.6e6)
    assert meter.kwh() == pytest.approx(0.2 / 3.6e6)


def test_without_counters_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "RAPL", tmp_path / "none")
    monkeypatch.setattr(energy, "_nvml_handles", list)
    meter = EnergyMeter()
    assert (meter.source, meter.kwh()) == ("", None)
    meter.close()


def test_codecarbon_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(UsageError, match="E2059") as caught:
        EnergyMeter("codecarbon")
    assert "treetune[energy]" in caught.value.do


@pytest.mark.filterwarnings("ignore")  # its own, of its own dependencies
def test_codecarbon_counts_something_while_it_runs() -> None:
    pytest.importorskip("codecarbon")
    meter = EnergyMeter("codecarbon")
    try:
        first = meter.kwh()
        sum(range(3_000_000))
        assert meter.source == "codecarbon"
        assert first is not None
        assert 0 <= first <= meter.kwh() < 0.01  # type: ignore[operator]
    finally:
        meter.close()
