"""Processes that the comparison starts, waits for and stops, each by its own id."""

import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path


class Failed(Exception):
    """A peer did not do its job; the text says which command and what it printed last."""


class Process:
    """A program in a session of its own; standard output and error go to files."""

    def __init__(self, argv, log: Path, cwd: Path, env: dict[str, str]):
        self.argv = [str(word) for word in argv]
        self.out, self.err = log.with_suffix(".out"), log.with_suffix(".err")
        self.exit_code: int | None = None
        self.usage = None  # resource usage of it and the children it waited for
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.started = time.monotonic()
            self._popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                cwd=cwd, env=env, start_new_session=True,
            )
        self.pid = self._popen.pid
        self.ended: float | None = None

    def wait(self, timeout: float) -> None:
        """Waits until it has exited, killing it after `timeout` seconds; `ended` is exact."""
        if self.exit_code is not None:
            return
        watchdog = threading.Timer(timeout, self._signal, [signal.SIGKILL])
        watchdog.start()
        try:
            self._reap(0)
        finally:
            watchdog.cancel()

    def poll(self) -> bool:
        """Whether it still runs."""
        if self.exit_code is None:
            self._reap(os.WNOHANG)
        return self.exit_code is None

    def expect_success(self, timeout: float) -> None:
        """Waits, and raises `Failed` unless it exited with 0."""
        self.wait(timeout)
        if self.exit_code != 0:
            raise self.failure(f"exit code {self.exit_code}")

    def failure(self, what: str) -> Failed:
        """A `Failed` with the last lines of what the program printed."""
        text = (self.err.read_text(errors="replace") or self.out.read_text(errors="replace")).strip()
        said = " / ".join(text.splitlines()[-3:])[-400:]
        return Failed(f"{Path(self.argv[0]).name}: {what}: {said or 'it printed nothing'}")

    def stop(self, how: int = signal.SIGTERM, patience: float = 5) -> None:
        """Asks it to end, and kills it and what it started after `patience` seconds."""
        deadline = time.monotonic() + patience
        if self.poll():
            self._signal(how, group=False)
        while self.poll() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.poll():
            self._signal(signal.SIGKILL)
            self._reap(0)

    def _reap(self, flags: int) -> None:
        pid, status, usage = os.wait4(self.pid, flags)
        if pid != 0:
            self.ended = time.monotonic()
            self.exit_code = self._popen.returncode = os.waitstatus_to_exitcode(status)
            self.usage = usage

    def _signal(self, number: int, group: bool = True) -> None:
        try:
            (os.killpg if group else os.kill)(self.pid, number)
        except ProcessLookupError:
            pass


class Stage:
    """Temporary folder, environment and processes of one case; leaving it stops and removes all."""

    def __init__(self, folder: Path, timeout: float):
        self.folder = folder
        self.timeout = timeout  # seconds for one command
        self._processes: list[Process] = []
        self._afterwards = []
        self._count = 0
        for name in ("home", "log"):
            (folder / name).mkdir()
        self.env = {
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
            "HOME": str(folder / "home"), "LANG": "C.UTF-8", "NO_COLOR": "1",
        }

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_exception) -> None:
        for process in reversed(self._processes):
            process.stop()
        for clean in reversed(self._afterwards):
            clean()

    def afterwards(self, clean) -> None:
        """Has `clean()` called once everything is stopped."""
        self._afterwards.append(clean)

    def start(self, argv, cwd: Path | None = None) -> Process:
        """Starts a program that ends with the stage, if not before."""
        self._count += 1
        log = self.folder / "log" / f"{self._count:04}-{Path(str(argv[0])).name}"
        process = Process(argv, log, cwd or self.folder, self.env)
        self._processes = [known for known in self._processes if known.exit_code is None]
        self._processes.append(process)
        return process

    def call(self, argv, cwd: Path | None = None) -> str:
        """Runs a program to its end and returns what it printed."""
        process = self.start(argv, cwd)
        process.expect_success(self.timeout)
        return process.out.read_text().strip()


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, process: Process, what: str, patience: float = 15):
    """Waits until `condition()` is true, while `process` lives; returns its value."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if not process.poll():
            raise process.failure(f"ended before it was {what}")
        if time.monotonic() > deadline:
            raise process.failure(f"not {what} after {patience:g}s")
        time.sleep(0.01)


def until_listening(process: Process, port: int) -> None:
    """Waits until a TCP port of 127.0.0.1 answers."""

    def answers() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers, process, "listening")
