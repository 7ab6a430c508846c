"""kith itself: a zone and two nodes on loopback, as in the README's first session."""

import json
import time
from pathlib import Path

from ..meter import RECEIVER, SENDER, Meter, Sample, until_idle
from ..processes import Failed, Process, Stage, free_port, until_listening
from .peer import PROJECT, Peer, first_line

DEFAULT_PROGRAM = PROJECT / "target" / "release" / "kith"


class Kith(Peer):
    """`north` sends, `south` receives; timed is the whole `kith send`, with `kith receive` waiting."""

    def __init__(self, program: Path, via: str):
        self.name = f"kith, {via}"
        self.needs = (program,)
        self._program, self._via = program, via

    def missing(self) -> str | None:
        if super().missing():
            return f"{self._program} is not built (cargo build --release)"
        return None

    def version(self) -> str:
        return first_line(self._program, "--version")

    def start(self, stage: Stage) -> None:
        self._stage = stage
        self._homes = stage.folder / f"kith-{self._via}"
        self._homes.mkdir()
        https, dns = free_port(), free_port()
        authority = f"localhost:{https}"
        self._call("zone", "init", "--authority", authority)
        zone = self._start("zone", "directory", "serve", "--listen-https", f"127.0.0.1:{https}",
                           "--listen-dns", f"127.0.0.1:{dns}")
        until_listening(zone, https)
        pin = self._call("zone", "id")
        for name in ("north", "south"):
            self._call(name, "init", "--authority", authority, "--pin", pin, "--resolver", f"127.0.0.1:{dns}")
        self._call("north", "contact", "add", "south", self._call("south", "id"))
        self._call("south", "contact", "add", "north", self._call("north", "id"))
        listen = ("--listen", "quic://127.0.0.1:0", "--listen", "tcp://127.0.0.1:0")
        self.nodes = {name: self._start(name, "up", *listen) for name in ("north", "south")}
        for name in self.nodes:
            self._call(name, "status", "--wait")

    def send_file(self, file: Path, into: Path, number: int) -> Sample:
        return self.send(file, into, file.stat().st_size)

    def send(self, path: Path, into: Path, size: int) -> Sample:
        """Sends a file or a folder of `size` payload bytes."""
        with Meter() as meter:
            meter.server(SENDER, self.nodes["north"])
            meter.server(RECEIVER, self.nodes["south"])
            receive = meter.command(RECEIVER, self._start(
                "south", "--json", "receive", "--from", "north", "--into", str(into), "--yes"))
            until_idle(receive)
            meter.begin()
            send = meter.command(SENDER, self._start(
                "north", "--json", "send", str(path), "--to", "south", "--via", self._via))
            send.expect_success(self._stage.timeout)
            meter.end(send)
            _wait_or_stop(receive)
            done = _last_line(send)
            if not done.get("done") or done.get("bytes") != size:
                raise Failed(f"kith send: unexpected last line: {done}")
            return meter.sample(size, done["seconds"], path=done.get("path"))

    def first_bytes(self, count: int) -> tuple[list[float], float, Sample]:
        """Milliseconds to the first application byte of `count` fresh connections, and the
        processor milliseconds of both nodes per connection. The record set is cached by a
        connection made before."""
        self._call("north", "ping", "south")
        with Meter() as meter:
            meter.server(SENDER, self.nodes["south"])
            meter.server(RECEIVER, self.nodes["north"])
            meter.begin()
            ping = self._start("north", "--json", "ping", "south", "--count", str(count), "--fresh",
                               "--interval", "0s", "--via", self._via)
            ping.expect_success(self._stage.timeout)
            meter.end(ping)
            sample = meter.sample(count)
        lines = [json.loads(line) for line in ping.out.read_text().splitlines() if line.strip()]
        milliseconds = [line["first_byte_ms"] for line in lines if "first_byte_ms" in line]
        if len(milliseconds) < count:
            raise ping.failure(f"{len(milliseconds)} of {count} answers")
        told = [line["handshake_cpu_ms"] for line in lines if "handshake_cpu_ms" in line]
        if told:
            sample.extra["handshake_cpu_ms"] = told
        return milliseconds, sum(sample.cpu_seconds.values()) * 1000 / count, sample

    def _argv(self, home: str, *words: str) -> list[str]:
        return [str(self._program), "--home", str(self._homes / home), *words]

    def _start(self, home: str, *words: str) -> Process:
        return self._stage.start(self._argv(home, *words))

    def _call(self, home: str, *words: str) -> str:
        return self._stage.call(self._argv(home, *words))


def _wait_or_stop(receive: Process, patience: float = 5) -> None:
    """It ends with the transfer; it is no part of what is timed."""
    deadline = time.monotonic() + patience
    while receive.poll() and time.monotonic() < deadline:
        time.sleep(0.01)
    receive.stop()
    if receive.exit_code != 0:
        raise receive.failure(f"exit code {receive.exit_code}")


def _last_line(process: Process, patience: float = 2) -> dict:
    deadline = time.monotonic() + patience
    while True:
        lines = process.out.read_text().strip().splitlines()
        if lines or time.monotonic() > deadline:
            return json.loads(lines[-1]) if lines else {}
        time.sleep(0.01)
