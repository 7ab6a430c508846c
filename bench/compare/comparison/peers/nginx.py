"""nginx to curl over TLS 1.3: what everybody has, tuned for decades, no hashing of the content."""

import os
import re
import shlex
from pathlib import Path

from ..meter import RECEIVER, SENDER, Meter, Sample
from ..processes import Process, Stage, free_port, until_listening
from .peer import Peer, find, first_line

CONFIG = """\
daemon off;
{user}
worker_processes auto;
{main}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    ssl_certificate {folder}/cert.pem;
    ssl_certificate_key {folder}/key.pem;
    ssl_protocols TLSv1.3;
    {http}
}}
"""


def start(stage: Stage, folder: Path, connections: int, http: list[str], main: str = "") -> Process:
    """An nginx in `folder` with a certificate of its own, and these lines in the two parts of its configuration."""
    stage.call(["openssl", "req", "-x509", "-newkey", "ed25519", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                "-keyout", folder / "key.pem", "-out", folder / "cert.pem"])
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, connections=connections, main=main, http="\n    ".join(http),
                                    user="user root;" if os.geteuid() == 0 else ""), encoding="utf-8")
    return stage.start([find("nginx"), "-p", folder, "-e", folder / "error.log", "-c", config])


class Nginx(Peer):
    """Server: nginx with its defaults and Debian's sendfile settings. Client: one curl per transfer."""

    name = "nginx → curl"
    needs = ("nginx", "curl", "openssl", "tar")

    def version(self) -> str:
        curl = " ".join(re.findall(r"^curl \S+|OpenSSL/\S+", first_line("curl", "--version")))
        return f"{first_line('nginx', '-v').removeprefix('nginx version: ')}, {curl}"

    def start(self, stage: Stage) -> None:
        folder = stage.folder / "nginx"
        (folder / "www").mkdir(parents=True)
        self._stage, self._folder = stage, folder
        self._key, self._cert = folder / "key.pem", folder / "cert.pem"
        self._port, self._mutual_port = free_port(), free_port()
        self.server = start(stage, folder, 256, [
            "default_type application/octet-stream;", "sendfile on;", "tcp_nopush on;", f"root {folder}/www;",
            f"server {{ listen 127.0.0.1:{self._port} ssl; }}",
            f"server {{ listen 127.0.0.1:{self._mutual_port} ssl; ssl_verify_client optional_no_ca; keepalive_timeout 0; }}",
        ])
        until_listening(self.server, self._port)

    def send_file(self, file: Path, into: Path, number: int) -> Sample:
        served = self._folder / "www" / file.name
        if not served.exists():
            os.link(file, served)
        target = into / file.name
        with Meter() as meter:
            meter.server(SENDER, self.server)
            meter.begin()
            curl = meter.command(RECEIVER, self._stage.start(
                [*self._curl(), "-w", "%{time_total}", "-o", target, self._url(file.name)]))
            curl.expect_success(self._stage.timeout)
            meter.end(curl)
            return meter.sample(target.stat().st_size, float(curl.out.read_text()))

    def send_folder(self, source: Path, into: Path, size: int) -> Sample:
        """`tar` writes the archive, nginx serves it, curl pipes it into `tar`: all of it is timed."""
        archive = self._folder / "www" / "folder.tar"
        target = into / source.name
        target.mkdir()
        with Meter() as meter:
            meter.server(SENDER, self.server)
            meter.begin()
            pack = meter.command(SENDER, self._stage.start(["tar", "-C", source, "-cf", archive, "."]))
            pack.expect_success(self._stage.timeout)
            pull = shlex.join([*self._curl(), self._url(archive.name)])
            unpack = shlex.join(["tar", "-C", str(target), "-xf", "-"])
            shell = meter.command(RECEIVER, self._stage.start(["sh", "-c", f"{pull} | {unpack}"]))
            shell.expect_success(self._stage.timeout)
            meter.end(shell)
            sample = meter.sample(size, pack_seconds=(pack.ended or 0) - pack.started)
        archive.unlink()
        return sample

    def first_bytes(self, count: int) -> tuple[list[float], float, Sample]:
        """Milliseconds to the first byte of `count` fresh connections from one curl.

        Both sides present an Ed25519 certificate and no session is resumed, as between two nodes.
        Returned too: processor milliseconds of both sides per connection.
        """
        (self._folder / "www" / "byte").write_bytes(b"!")
        url = f"https://127.0.0.1:{self._mutual_port}/byte?[1-{count}]"
        with Meter() as meter:
            meter.server(SENDER, self.server)
            meter.begin()
            curl = meter.command(RECEIVER, self._stage.start(
                [*self._curl(), "--no-sessionid", "--cert", self._cert, "--key", self._key,
                 "-w", "%{stderr}%{time_starttransfer} %{num_connects}\n", "-o", os.devnull, url]))
            curl.expect_success(self._stage.timeout)
            meter.end(curl)
            sample = meter.sample(count)
        lines = [line.split() for line in curl.err.read_text().splitlines()]
        if len(lines) != count or any(connects != "1" for _, connects in lines):
            raise curl.failure("a connection was not fresh")
        milliseconds = [float(seconds) * 1000 for seconds, _ in lines]
        return milliseconds, sum(sample.cpu_seconds.values()) * 1000 / count, sample

    def _curl(self) -> list[str]:
        return ["curl", "-q", "-sS", "-k", "-f", "--http1.1", "--tlsv1.3", "--noproxy", "*"]

    def _url(self, name: str) -> str:
        return f"https://127.0.0.1:{self._port}/{name}"
