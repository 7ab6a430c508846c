"""sendme (iroh): QUIC with BLAKE3, direct; no relay, no discovery, the ticket holds addresses."""

import re
import signal
import time
from pathlib import Path

from ..meter import RECEIVER, SENDER, Meter, Sample, until_idle
from ..processes import Stage, until
from .peer import PEERS, Peer, first_line

OPTIONS = ["--relay", "disabled", "--no-progress", "--magic-ipv4-addr", "127.0.0.1:0"]
UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


class Sendme(Peer):
    """`sendme send` hashes the file before it hands out a ticket; timed is the whole `sendme receive`.

    The time of the hashing stands beside it as `prepare_seconds`.
    """

    name = "sendme"
    needs = (PEERS / "sendme",)

    def version(self) -> str:
        return first_line(PEERS / "sendme", "--version")

    def start(self, stage: Stage) -> None:
        self._stage = stage
        self._folder = stage.folder / "sendme"
        self._folder.mkdir()

    def send_file(self, file: Path, into: Path, number: int) -> Sample:
        with Meter() as meter:
            sender = meter.command(SENDER, self._stage.start(
                [PEERS / "sendme", "send", file, "--ticket-type", "addresses", *OPTIONS], self._folder))
            ticket = until(lambda: re.search(r"sendme receive (\S+)\n", sender.out.read_text()),
                           sender, "ready", self._stage.timeout).group(1)
            prepared = time.monotonic() - sender.started
            until_idle(sender)
            meter.begin()
            receiver = meter.command(RECEIVER, self._stage.start(
                [PEERS / "sendme", "receive", ticket, "-v", *OPTIONS], into))
            receiver.expect_success(self._stage.timeout)
            meter.end(receiver)
            sender.stop(signal.SIGINT)
            size = file.stat().st_size
            return meter.sample(size, _reported(receiver.out.read_text(), size), prepare_seconds=prepared)




def _reported(text: str, size: int) -> float | None:
    """Seconds, from the rate in `downloaded 1 files, 1.00 GiB. took 3 seconds (300.00 MiB/s)`."""
    found = re.search(r"\(([0-9.]+) (Ki|Mi|Gi|)B/s\)", text)
    return size / (float(found.group(1)) * UNITS[found.group(2)]) if found else None
