"""Tables in Markdown, and their place in docs/benchmarks.md."""

import os
import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from . import directory
from .cases import Result
from .data import available_bytes
from .meter import RECEIVER, SENDER, Sample

# (case, contestant, compared with, at least this ratio of speeds)
RATIO_AIMS = [
    ("send", "kith, tcp", "nginx → curl", 0.8),
    ("send", "kith, quic", "sendme", 2.0),
    ("small", "kith, tcp", "tar, nginx → curl, tar", 1.0),
    ("small", "kith, quic", "tar, nginx → curl, tar", 1.0),
]
FIRST_BYTE_AIM_MS = 3.0
MEMORY_AIM_BYTES = 64 << 20


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "cores": f"{os.cpu_count()} cores",
        "memory": f"{available_bytes() >> 30} GiB free",
        "kernel": f"Linux {platform.release().partition('-')[0]}",
        "load": f"load {os.getloadavg()[0]:.2f} at the start",
    }


def markdown(result: Result, here: dict[str, str]) -> str:
    """The whole block of one case: table, aims, versions."""
    if isinstance(result, directory.Rates):
        origin = f"{result.what}; {len(result.rounds)} rounds. " + ", ".join(here.values()) + "."
        lines = [f"- {line}" for line in directory.notes(result)]
        return "\n".join([origin, "", *directory.table(result), "", *lines])
    table = _first_byte_table(result) if result.case == "first-byte" else _speed_table(result)
    notes = [f"- {line}" for line in [*_aims(result), *_remarks(result)]]
    origin = f"{result.what}; {len(result.rounds)} rounds. " + ", ".join(here.values()) + "."
    return "\n".join([origin, "", *table, "", *notes])


def write_docs(path: Path, blocks: dict[str, str]) -> None:
    """Replaces what stands between `<!-- bench:CASE -->` and `<!-- /bench:CASE -->`."""
    text = path.read_text(encoding="utf-8")
    for case, block in blocks.items():
        begin, end = f"<!-- bench:{case} -->", f"<!-- /bench:{case} -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise SystemExit(f"error: {path} has no {begin} … {end}")
        text = f"{before}{begin}\n{block}\n{end}{after}"
    path.write_text(text, encoding="utf-8")


def _speed_table(result: Result) -> list[str]:
    lines = [
        f"| | MB/s | min–max | ratio to {result.baseline} | MB/s by its own clock "
        "| CPU s, sender + receiver | peak MiB, sender / receiver |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in _names(result):
        samples = _samples(result, name)
        speeds = [_speed(sample) for sample in samples]
        own = [s.bytes / 1e6 / s.reported_seconds for s in samples if s.reported_seconds]
        lines.append(_row(
            name, f"{median(speeds):.0f}", _spread(speeds, 0),
            _ratios_text(result, name, result.baseline),
            f"{median(own):.0f}" if own else "–",
            " + ".join(f"{_cpu(samples, side):.2f}" for side in (SENDER, RECEIVER)),
            _memory(samples),
        ))
    return lines


def _first_byte_table(result: Result) -> list[str]:
    lines = [
        f"| | ms, median | of the rounds, min–max | 90 % within ms | ratio to {result.baseline} "
        "| CPU ms per connection, both sides | peak MiB, target / initiator |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in _names(result):
        samples = _samples(result, name)
        every = sorted(ms for sample in samples for ms in sample.extra["first_byte_ms"])
        lines.append(_row(
            name, f"{median(every):.2f}", _spread([_latency(s) for s in samples], 2),
            f"{every[int(len(every) * 0.9)]:.2f}", _ratios_text(result, name, result.baseline),
            f"{median(s.extra['cpu_ms_per_connection'] for s in samples):.2f}", _memory(samples),
        ))
    return lines


def _aims(result: Result) -> list[str]:
    lines = []
    for case, name, other, least in RATIO_AIMS:
        ratios = _ratios(result, name, other) if case == result.case else []
        if ratios:
            lines.append(f"Aim: {name} at least {least:g} × {other}. "
                         f"{median(ratios):.2f} ({_spread(ratios, 2)}): {_verdict(median(ratios) >= least)}.")
    for name in _names(result):
        samples = _samples(result, name)
        if not name.startswith("kith"):
            continue
        if result.case == "first-byte":
            value = median(ms for s in samples for ms in s.extra["first_byte_ms"])
            lines.append(f"Aim: {name} first byte within {FIRST_BYTE_AIM_MS:g} ms. "
                         f"{value:.2f} ms: {_verdict(value <= FIRST_BYTE_AIM_MS)}.")
        else:
            peak = max(s.peak_bytes(side) for s in samples for side in (SENDER, RECEIVER))
            lines.append(f"Aim: {name} at most {MEMORY_AIM_BYTES >> 20} MiB on each side. "
                         f"{peak / 2**20:.0f} MiB in the worst round: {_verdict(peak <= MEMORY_AIM_BYTES)}.")
    return lines


def _remarks(result: Result) -> list[str]:
    lines = []
    for name in _names(result):
        samples = _samples(result, name)
        for key, what in (("prepare_seconds", "before the timed part, to hash the file"),
                          ("pack_seconds", "of the timed part, to write the archive")):
            spent = [s.extra[key] for s in samples if key in s.extra]
            if spent:
                lines.append(f"{name}: {median(spent):.2f} s {what}.")
    lines += [f"{name} is not in the table: {why}." for name, why in result.absent.items()]
    lines += [f"{name} failed: {why}." for name, why in result.failed.items()]
    foreign = [sample.foreign_share * 100 for samples in result.rounds for sample in samples.values()]
    if foreign:
        lines.append(f"Other programs took {median(foreign):.0f} % of the processors during the timed parts "
                     f"({max(foreign):.0f} % at most).")
    versions = sorted(set(result.versions.values()))
    return [*lines, "Versions: " + "; ".join(versions) + "."] if versions else lines


def _names(result: Result) -> list[str]:
    names: dict[str, None] = {}
    for samples in result.rounds:
        names |= dict.fromkeys(samples)
    return list(names)


def _samples(result: Result, name: str) -> list[Sample]:
    return [samples[name] for samples in result.rounds if name in samples]


def _speed(sample: Sample) -> float:
    return sample.bytes / 1e6 / sample.seconds


def _latency(sample: Sample) -> float:
    return median(sample.extra["first_byte_ms"])


def _ratios(result: Result, name: str, other: str) -> list[float]:
    """One ratio for each round in which both took part: of speeds, or of latencies."""
    measure = _latency if result.case == "first-byte" else _speed
    return [measure(s[name]) / measure(s[other]) for s in result.rounds if name in s and other in s]


def _ratios_text(result: Result, name: str, other: str) -> str:
    ratios = _ratios(result, name, other)
    if name == other or not ratios:
        return "1" if name == other else "–"
    return f"{median(ratios):.2f} ({_spread(ratios, 2)})"


def _cpu(samples: list[Sample], side: str) -> float:
    return median(sample.cpu_seconds.get(side, 0.0) for sample in samples)


def _memory(samples: list[Sample]) -> str:
    peaks = (median(s.peak_bytes(side) for s in samples) / 2**20 for side in (SENDER, RECEIVER))
    return " / ".join(f"{peak:.0f}" for peak in peaks)


def _spread(values: list[float], digits: int) -> str:
    return f"{min(values):.{digits}f}–{max(values):.{digits}f}"


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
