"""magic-wormhole between two processes, with a mailbox server of our own and no transit relay."""

import sys
from pathlib import Path

from ..meter import RECEIVER, SENDER, Meter, Sample, until_idle
from ..processes import Stage, free_port, until, until_listening
from .peer import VENV, Peer, first_line


class Wormhole(Peer):
    """The sender waits with its offer; timed is the whole `wormhole receive`."""

    name = "magic-wormhole"
    needs = (VENV / "wormhole", VENV / "twist")

    def version(self) -> str:
        return f"{first_line(VENV / 'wormhole', '--version')} (Python {sys.version.split()[0]})"

    def start(self, stage: Stage) -> None:
        folder = stage.folder / "wormhole"
        folder.mkdir()
        self._stage, port = stage, free_port()
        self._server = stage.start(
            [VENV / "twist", "wormhole-mailbox", f"--port=tcp:{port}:interface=127.0.0.1",
             f"--channel-db={folder}/channel.sqlite", f"--usage-db={folder}/usage.sqlite"], folder)
        until_listening(self._server, port)
        self._wormhole = [VENV / "wormhole", "--relay-url", f"ws://127.0.0.1:{port}/v1", "--transit-helper", ""]

    def send_file(self, file: Path, into: Path, number: int) -> Sample:
        code = f"{number + 100}-bench-code"
        with Meter() as meter:
            sender = meter.command(SENDER, self._stage.start(
                [*self._wormhole, "send", "--hide-progress", "--no-qr", "--code", code, file]))
            until(lambda: code in sender.err.read_text(), sender, "ready")
            until_idle(sender)
            meter.begin()
            receiver = meter.command(RECEIVER, self._stage.start(
                [*self._wormhole, "receive", "--hide-progress", "--accept-file", code], into))
            receiver.expect_success(self._stage.timeout)
            meter.end(receiver)
            sender.expect_success(self._stage.timeout)
            return meter.sample(file.stat().st_size)
