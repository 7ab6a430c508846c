"""iperf3: bytes over one bare TCP connection, the ceiling of this machine."""

import json
from pathlib import Path

from ..meter import RECEIVER, SENDER, Meter, Sample
from ..processes import Stage, free_port, until_listening
from .peer import Peer, find, first_line


class Iperf(Peer):
    """No file, no encryption, no check: memory to memory."""

    name = "iperf3 (ceiling)"
    needs = ("iperf3",)
    leaves_a_copy = False

    def version(self) -> str:
        return first_line("iperf3", "--version")

    def start(self, stage: Stage) -> None:
        self._stage, self._port = stage, free_port()
        self._server = stage.start([find("iperf3"), "-s", "-B", "127.0.0.1", "-p", str(self._port)])
        until_listening(self._server, self._port)

    def send_file(self, file: Path, into: Path, number: int) -> Sample:
        size = file.stat().st_size
        with Meter() as meter:
            meter.server(RECEIVER, self._server)
            meter.begin()
            client = meter.command(SENDER, self._stage.start(
                ["iperf3", "-c", "127.0.0.1", "-p", str(self._port), "-n", str(size), "-J"]))
            client.expect_success(self._stage.timeout)
            meter.end(client)
            received = json.loads(client.out.read_text())["end"]["sum_received"]
            return meter.sample(size, size * 8 / received["bits_per_second"])
