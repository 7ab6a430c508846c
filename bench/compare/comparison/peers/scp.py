"""scp to an sshd of our own: the usual way to send a file to another machine."""

import os
import pwd
from pathlib import Path

from ..meter import RECEIVER, SENDER, Meter, Sample
from ..processes import Stage, free_port, until_listening
from .peer import Peer, find, first_line

PRIVILEGE_SEPARATION = Path("/run/sshd")  # compiled into Debian's sshd; empty, only root needs it
CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


class Scp(Peer):
    """Defaults of OpenSSH: SFTP protocol, its preferred cipher, no compression.

    The SFTP server is the one inside sshd, so that no login shell with its start-up files counts.
    """

    name = "scp"
    needs = ("scp", "sshd", "ssh-keygen")

    def version(self) -> str:
        return first_line("ssh", "-V")

    def start(self, stage: Stage) -> None:
        folder = stage.folder / "ssh"
        folder.mkdir()
        for name in ("host", "user"):
            stage.call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name])
        if os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists():
            PRIVILEGE_SEPARATION.mkdir(mode=0o755)
            stage.afterwards(PRIVILEGE_SEPARATION.rmdir)
        self._stage, self._port, self._key = stage, free_port(), folder / "user"
        config = folder / "sshd_config"
        config.write_text(CONFIG.format(port=self._port, folder=folder))
        self._server = stage.start([find("sshd"), "-D", "-e", "-f", config])
        until_listening(self._server, self._port)

    def send_file(self, file: Path, into: Path, number: int) -> Sample:
        user = pwd.getpwuid(os.geteuid()).pw_name
        with Meter() as meter:
            meter.server(RECEIVER, self._server)
            meter.begin()
            scp = meter.command(SENDER, self._stage.start([
                "scp", "-q", "-F", "none", "-i", self._key, "-P", str(self._port), "-o", "BatchMode=yes",
                "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                file, f"{user}@127.0.0.1:{into}/"]))
            scp.expect_success(self._stage.timeout)
            meter.end(scp)
            return meter.sample(file.stat().st_size)
