"""What a transfer cost: wall time, processor seconds and peak memory, for both sides."""

import os
import resource
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from .processes import Process

SENDER, RECEIVER = "sender", "receiver"
SAMPLE_SECONDS = 0.05
EAGER_SAMPLES, EAGER_SECONDS = 10, 0.01  # after a command starts, for those that end at once
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass
class Sample:
    """One measured run."""

    seconds: float  # wall time of the timed command
    bytes: int  # payload
    reported_seconds: float | None = None  # as the program itself says
    cpu_seconds: dict[str, float] = field(default_factory=dict)  # by side
    memory: dict[str, dict[str, int]] = field(default_factory=dict)  # side -> "name pid" -> peak bytes
    foreign_share: float = 0.0  # of all processors, what programs outside of the comparison took
    extra: dict = field(default_factory=dict)

    def peak_bytes(self, side: str) -> int:
        """Sum of the peaks of all processes of a side: an upper bound of the side's peak."""
        return sum(self.memory.get(side, {}).values())


class Meter:
    """Watches the processes of both sides from `with` to the end of it.

    A server that lives on has its peak reset and its processor time counted from here; a command
    counts whole, also what it did before `begin`. Memory is VmHWM (the kernel's own peak, so
    sampling loses at most what grew in a program's last 50 ms), and the peak told at exit where
    that is the greater and certainly not inherited from us.
    """

    def __init__(self):
        self._servers: list[tuple[str, Process, float, set[int]]] = []
        self._commands: list[tuple[str, Process]] = []
        self._peaks: dict[tuple[str, int, int], tuple[str, int]] = {}
        self._over = False
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._begin = self._end = 0.0
        self._own_before = self._busy_before = self._busy = 0.0
        self._eager = 0

    def __enter__(self) -> "Meter":
        self._thread.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._over = True
        self._wake.set()
        self._thread.join()

    def server(self, side: str, process: Process) -> None:
        """Counts a long-lived process, with its descendants, to a side."""
        tree = _tree(process.pid)
        for pid in tree:
            _reset_peak(pid)
        with self._lock:
            self._servers.append((side, process, _cpu_of_tree(tree), set(tree)))

    def command(self, side: str, process: Process) -> Process:
        """Counts a process started for this run to a side."""
        with self._lock:
            self._commands.append((side, process))
            self._eager = EAGER_SAMPLES
        self._wake.set()
        return process

    def begin(self) -> None:
        """The timed part starts."""
        self._own_before = sum(_cpu_of_tree(_tree(process.pid)) for _, process in self._commands)
        self._busy_before = _busy_seconds()
        self._begin = time.monotonic()

    def end(self, process: Process) -> None:
        """The timed part ended when `process` exited."""
        self._end = process.ended or time.monotonic()
        self._busy = _busy_seconds() - self._busy_before

    def sample(self, size: int, reported_seconds: float | None = None, **extra) -> Sample:
        """The result, once every command has ended; waits for servers' children to be gone."""
        self._settle_servers()
        self._look()
        sample = Sample(self._end - self._begin, size, reported_seconds, extra=extra)
        for side, process, before, _ in self._servers:
            self._add_cpu(sample, side, _cpu_of_tree(_tree(process.pid)) - before)
        for side, process in self._commands:
            usage = process.usage
            if usage is None:
                raise RuntimeError(f"still running: {process.argv}")
            self._add_cpu(sample, side, usage.ru_utime + usage.ru_stime)
            self._peak_at_exit(side, process, usage.ru_maxrss * 1024)
        own = sum(sample.cpu_seconds.values()) - self._own_before
        share = (self._busy - own) / (sample.seconds * (os.cpu_count() or 1))
        sample.foreign_share = min(max(share, 0.0), 1.0)
        for (side, _root, pid), (name, peak) in self._peaks.items():
            sample.memory.setdefault(side, {})[f"{name} {pid}"] = peak
        return sample

    @staticmethod
    def _add_cpu(sample: Sample, side: str, seconds: float) -> None:
        sample.cpu_seconds[side] = sample.cpu_seconds.get(side, 0.0) + seconds

    def _peak_at_exit(self, side: str, process: Process, peak: int) -> None:
        mine = [key for key in self._peaks if key[0] == side and key[1] == process.pid]
        inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        alone = all(pid == process.pid for _, _, pid in mine)
        if alone and peak > inherited:
            key = side, process.pid, process.pid
            name, seen = self._peaks.get(key, (Path(process.argv[0]).name, 0))
            self._peaks[key] = (name, max(seen, peak))

    def _settle_servers(self) -> None:
        deadline = time.monotonic() + 2
        for _, process, _, before in self._servers:
            while not set(_tree(process.pid)) <= before and time.monotonic() < deadline:
                time.sleep(0.01)

    def _watch(self) -> None:
        while not self._over:
            self._wake.wait(EAGER_SECONDS if self._eager > 0 else SAMPLE_SECONDS)
            self._wake.clear()
            self._eager -= 1
            self._look()

    def _look(self) -> None:
        with self._lock:
            roots = [(side, process) for side, process, _, _ in self._servers]
            roots += [(side, process) for side, process in self._commands if process.exit_code is None]
            for side, process in roots:
                for pid in _tree(process.pid):
                    seen = _name_and_peak(pid)
                    if seen:
                        self._peaks[side, process.pid, pid] = seen


def until_idle(process: Process, quiet: float = 0.25, patience: float = 10) -> None:
    """Waits until a process and its children have used no processor time for `quiet` seconds."""
    deadline = time.monotonic() + patience
    last, since = -1.0, time.monotonic()
    while time.monotonic() < deadline:
        now, cpu = time.monotonic(), _cpu_of_tree(_tree(process.pid))
        if cpu != last:
            last, since = cpu, now
        elif now - since >= quiet:
            return
        time.sleep(0.02)


def _tree(root: int) -> list[int]:
    """A process and its descendants."""
    found, rest = [], [root]
    while rest:
        pid = rest.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                rest += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
        except OSError:
            continue
    return found


def _cpu_of_tree(tree: list[int]) -> float:
    """Processor seconds of processes and of the children they have waited for."""
    ticks = 0
    for pid in tree:
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS_PER_SECOND


def _busy_seconds() -> float:
    """Processor seconds of everything on this machine, without interrupts (loopback's are ours)."""
    user, nice, system, _idle, _wait, _irq, _softirq, steal = map(int, _read("/proc/stat").split()[1:9])
    return (user + nice + system + steal) / TICKS_PER_SECOND


def _name_and_peak(pid: int) -> tuple[str, int] | None:
    lines = dict(line.split(":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":" in line)
    if "VmHWM" not in lines:
        return None
    return lines["Name"].strip(), int(lines["VmHWM"].split()[0]) * 1024


def _reset_peak(pid: int) -> None:
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass  # then the peak since its start is told: too high, never too low


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
