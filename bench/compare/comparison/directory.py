"""The directory's cases: DNS against Knot and NSD, HTTPS against nginx, announces.

Every round asks all peers in turn, with the same names; ratios are taken within a round.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from . import data
from .peers.nginx import start as start_nginx
from .peers.peer import PROJECT, find, first_line
from .processes import Failed, Process, Stage, free_port, until_listening

AUTHORITY = "bench.example"
ZONE = f"0a.{AUTHORITY}"
EXAMPLES = PROJECT / "target" / "release" / "examples"
START_SECONDS = 180  # for a server to load a zone of a million names
FILL_SETS_PER_SECOND = 500  # far less than any store takes
ANNOUNCES_PER_SECOND = 16_000  # about what the directory takes, so that a round is as long as asked for


@dataclass
class Rates:
    """Rates by round and row: `rounds[i][row]` is a number a second."""

    case: str
    what: str
    unit: str
    aims: list[tuple[str, str | None, float]]  # row, compared with another row or with nothing, at least
    baselines: dict[str, str] = field(default_factory=dict)  # row -> row
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)

    def to_json(self) -> dict:
        """Plain values."""
        return asdict(self)


@dataclass
class Row:
    """One line of the table: a server, and what is asked of it."""

    name: str
    ask: Callable[[], float]
    baseline: str | None = None


def dns(options) -> Rates:
    """TXT answers over UDP and TCP, from zones of several sizes."""
    result = Rates("dns", f"dnsperf for {options.seconds:g} s in each round and row", "answers/s", [])
    with _stage(options) as stage:
        for sets in options.sets:
            zone = _fill(stage, options, sets)
            rows = []
            for transport in ("udp", "tcp"):
                knot = f"Knot, {transport}, {sets} sets"
                ask = lambda server, t=transport, z=zone: _dnsperf(stage, options, z, server[1], t)
                for name, start in (("Knot", _knot), ("NSD", _nsd), ("kith", _kith_dns)):
                    rows.append((name, start, f"{name}, {transport}, {sets} sets", ask, knot))
                result.aims.append((f"kith, {transport}, {sets} sets", knot, 0.5))
            _serve_and_ask(result, stage, options, zone, rows)
            shutil.rmtree(zone.folder)
    if len(options.sets) > 1:
        low, high = min(options.sets), max(options.sets)
        for transport in ("udp", "tcp"):
            result.aims.append((f"kith, {transport}, {high} sets", f"kith, {transport}, {low} sets", 0.8))
    return result


def https(options) -> Rates:
    """GET of record sets, over connections that are kept and over fresh ones."""
    sets = options.sets[-1] if options.sets[-1] <= 100_000 else 100_000
    result = Rates("https", f"GET of {sets} sets, wrk for {options.seconds:g} s in each round and row", "answers/s", [])
    with _stage(options) as stage:
        zone = _fill(stage, options, sets, bodies=True)
        rows = []
        for kind in ("kept", "fresh"):
            nginx = f"nginx, {kind}"
            ask = lambda server, k=kind: _wrk(stage, options, zone, server[1], k)
            rows.append(("nginx", _nginx, nginx, ask, nginx))
            rows.append(("kith", _kith_https, f"kith, {kind}", ask, nginx))
            result.aims.append((f"kith, {kind}", nginx, 0.5))
        _serve_and_ask(result, stage, options, zone, rows)
    return result


def announce(options) -> Rates:
    """Announces, verified and durable, with each store."""
    result = Rates("announce", f"{options.connections} connections, databases on {_filesystem(options)}", "announces/s", [])
    with _stage(options, on_disk=True) as stage:
        for kind, serve, least in (("redb", _kith_https, 3000.0), ("Redis", _kith_on_redis, 5000.0)):
            zone = Zone(stage.folder / kind, 0)
            zone.folder.mkdir()
            each = max(1, round(options.seconds * ANNOUNCES_PER_SECOND / options.connections))
            name = f"kith, {kind}"
            kept, fresh = f"{name}, connections kept", f"{name}, fresh mutual handshake each"
            result.aims.append((kept, None, least))
            _serve_and_ask(result, stage, options, zone, [
                (name, serve, kept, lambda s, e=each: _announce(stage, options, s, options.connections, e, ()), kept),
                (name, serve, fresh,
                 lambda s: _announce(stage, options, s, max(16, int(options.seconds * 2000)), 1, ("--fresh",)), kept),
            ])
    return result


@dataclass
class Zone:
    """A folder with the same sets for every server."""

    folder: Path
    sets: int
    store: str | None = None  # a URL; the embedded store where it is missing


def _serve_and_ask(result: Rates, stage: Stage, options, zone: Zone, rows) -> None:
    """Starts each server once, then asks in rounds; who fails is out."""
    servers: dict[str, tuple[Process, int]] = {}
    for name, start, *_ in rows:
        if name in servers or name in result.failed or name in result.absent:
            continue
        if options.only and not name.startswith("kith") and not any(part.lower() in name.lower() for part in options.only):
            result.absent[name] = "not asked for"
            continue
        try:
            result.versions[name], servers[name] = start(stage, options, zone)
        except (Failed, OSError) as error:
            result.failed[name] = str(error)
            _say(f"{result.case}: {name} failed: {error}")
    deadline = time.monotonic() + options.limit
    base = len(result.rounds)
    for number in range(options.warm_ups + options.runs):
        if time.monotonic() > deadline:
            _say(f"{result.case}: stopped after {options.limit:g}s")
            break
        rates: dict[str, float] = {}
        for name, _, row, ask, baseline in rows:
            if name not in servers or row in result.failed:
                continue
            try:
                rates[row] = ask(servers[name])
                if baseline != row:
                    result.baselines[row] = baseline
            except (Failed, OSError, ValueError) as error:
                result.failed[row] = str(error)
        _say(f"{result.case}: " + ", ".join(f"{row} {rate:.0f}" for row, rate in rates.items()))
        if number >= options.warm_ups:
            result.rounds.append(rates)
    # Rounds of several zones stand beside each other, not one after the other.
    later = result.rounds[base:]
    if base:
        for old, new in zip(result.rounds, later):
            old.update(new)
        result.rounds = result.rounds[:max(base, len(later))]
    for process, _ in servers.values():
        process.stop()


def _fill(stage: Stage, options, sets: int, bodies: bool = False) -> Zone:
    zone = Zone(stage.folder / f"zone-{sets}", sets)
    zone.folder.mkdir()
    home = _home(stage, options, zone)
    words = [EXAMPLES / "fill", home / "directory.redb", str(sets), "--authority", AUTHORITY,
             "--queries", zone.folder / "queries", "--paths", zone.folder / "paths", "--zone", zone.folder / "zone"]
    if bodies:
        words += ["--sample", str(sets), "--bodies", zone.folder / "www"]
    stage.timeout = max(stage.timeout, sets / FILL_SETS_PER_SECOND)
    _say(f"filling a zone with {sets} sets")
    stage.call(words)
    return zone


def _home(stage: Stage, options, zone: Zone) -> Path:
    home = zone.folder / "home"
    if not home.exists():
        stage.call([options.kith, "--home", home, "init", "--authority", AUTHORITY])
        config = home / "kith.toml"
        with config.open("a", encoding="utf-8") as file:
            file.write("\n[directory]\ndns-answers-per-second = 0\nannounces-per-minute = 0\n"
                       "network-announces-per-second = 0\nmax-connections = 8000\n"
                       "max-connections-per-network = 8000\n")
            if zone.store:
                file.write(f"store = {json.dumps(zone.store)}\n")
    return home


def _kith_dns(stage: Stage, options, zone: Zone):
    port = free_port()
    return _kith(stage, options, zone, port, ["--listen-dns", f"127.0.0.1:{port}", "--listen-https", "off"])


def _kith_https(stage: Stage, options, zone: Zone):
    port = free_port()
    return _kith(stage, options, zone, port, ["--listen-https", f"127.0.0.1:{port}", "--listen-dns", "off"])


def _kith_on_redis(stage: Stage, options, zone: Zone):
    """The same over a Redis server that keeps each write before it answers."""
    if not find("redis-server"):
        raise Failed("redis-server is not installed (bench/compare/install)")
    port, folder = free_port(), zone.folder / "redis"
    folder.mkdir()
    process = stage.start([find("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "",
                           "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"])
    until_listening(process, port)
    zone.store = f"redis://127.0.0.1:{port}"
    version, server = _kith_https(stage, options, zone)
    words = first_line("redis-server", "--version").split()
    return f"{version} over Redis {words[2].removeprefix('v=')}", server


def _kith(stage: Stage, options, zone: Zone, port: int, words: list[str]):
    home = _home(stage, options, zone)
    process = stage.start([options.kith, "--home", home, "directory", "serve", *words])
    until_listening(process, port)
    pin = stage.call([options.kith, "--home", home, "id"])
    process.pin = pin
    return first_line(options.kith, "--version"), (process, port)


def _knot(stage: Stage, options, zone: Zone):
    return _name_server(
        stage, zone, "knotd", "-V", lambda config: ["-c", config],
        lambda port, folder:
            f"server:\n  listen: 127.0.0.1@{port}\n  rundir: {folder}\n"
            f"database:\n  storage: {folder}\n"
            f"zone:\n - domain: {ZONE}\n   storage: {zone.folder}\n   file: zone\n   zonefile-load: whole\n"
            f"   journal-content: none\n")


def _nsd(stage: Stage, options, zone: Zone):
    return _name_server(
        stage, zone, "nsd", "-v", lambda config: ["-d", "-c", config],
        lambda port, folder:
            f"server:\n  ip-address: 127.0.0.1@{port}\n  server-count: {os.cpu_count()}\n  username: \"\"\n"
            f"  chroot: \"\"\n  zonesdir: \"{zone.folder}\"\n  pidfile: \"{folder}/pid\"\n  database: \"\"\n"
            f"  xfrdfile: \"{folder}/xfrd\"\n  zonelistfile: \"{folder}/list\"\n  xfrdir: \"{folder}\"\n"
            f"  tcp-count: 1000\n  reuseport: yes\n  rrl-ratelimit: 0\n"
            f"remote-control:\n  control-enable: no\n"
            f"zone:\n  name: \"{ZONE}\"\n  zonefile: \"zone\"\n")


def _name_server(stage: Stage, zone: Zone, program: str, version: str, words, text):
    """Starts a name server on the zone's file, with a configuration of its own."""
    if not find(program):
        raise Failed(f"{program} is not installed (bench/compare/install)")
    port, folder = free_port(), zone.folder / program
    folder.mkdir()
    config = folder / "conf"
    config.write_text(text(port, folder), encoding="utf-8")
    process = stage.start([find(program), *words(config)])
    _until_answering(stage, process, port, zone)
    return first_line(program, version), (process, port)


def _until_answering(stage: Stage, process: Process, port: int, zone: Zone) -> None:
    """Waits until a query for the first name is answered: a large zone takes long to load."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not process.poll():
            raise process.failure("ended before it answered")
        out = stage.call(["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", zone.folder / "queries",
                          "-n", "1", "-l", "1", "-c", "1", "-q", "1", "-t", "1", "-e"])
        if re.search(r"NOERROR [1-9]", out):
            return
        time.sleep(0.2)
    raise process.failure("did not answer in time")


def _dnsperf(stage: Stage, options, zone: Zone, port: int, transport: str) -> float:
    out = stage.call(["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", zone.folder / "queries", "-e",
                      "-l", f"{options.seconds:g}", "-c", "20", "-T", "1", "-q", "400", "-m", transport])
    codes = re.search(r"Response codes:\s*(.*)", out)
    if not codes or not re.match(r"NOERROR \d+ \((9[5-9]|100)", codes.group(1)):
        raise Failed(f"unexpected answers: {codes.group(1) if codes else out[-200:]}")
    return float(re.search(r"Queries per second:\s*([0-9.]+)", out).group(1))


def _nginx(stage: Stage, options, zone: Zone):
    if not find("nginx"):
        raise Failed("nginx is not installed (bench/compare/install)")
    port, folder = free_port(), zone.folder / "nginx"
    folder.mkdir()
    # Every file may stay open, as far as the system allows; connections need their own.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = 1 << 20 if limit == resource.RLIM_INFINITY else limit
    files = min(200_000, max(1000, limit - 20_000))
    process = start_nginx(stage, folder, 8192, [
        "default_type application/json;", f"open_file_cache max={files} inactive=600s;", "open_file_cache_valid 600s;",
        "keepalive_requests 1000000000;", f"root {zone.folder}/www;", f"server {{ listen 127.0.0.1:{port} ssl; }}",
    ], main=f"worker_rlimit_nofile {limit};")
    until_listening(process, port)
    return first_line("nginx", "-v").removeprefix("nginx version: "), (process, port)


LUA = """\
local paths = {{}}
for line in io.lines("{paths}") do paths[#paths + 1] = line end
local next = 0
request = function()
  next = next % #paths + 1
  return wrk.format("GET", paths[next], {{ Host = "{host}"{more} }})
end
"""


def _wrk(stage: Stage, options, zone: Zone, port: int, kind: str) -> float:
    script = zone.folder / f"{kind}.lua"
    more = ', Connection = "close"' if kind == "fresh" else ""
    script.write_text(LUA.format(paths=zone.folder / "paths", host=AUTHORITY, more=more), encoding="utf-8")
    out = stage.call(["wrk", "-t", "1", "-c", "64", "-d", f"{max(1, round(options.seconds))}s", "-s", script,
                      f"https://127.0.0.1:{port}"])
    if "Non-2xx" in out:
        raise Failed(f"other answers than 200: {out.strip()[-200:]}")
    return float(re.search(r"Requests/sec:\s*([0-9.]+)", out).group(1))


def _announce(stage: Stage, options, server, connections: int, each: int, more: tuple[str, ...]) -> float:
    process, port = server
    out = stage.call([EXAMPLES / "announce", f"127.0.0.1:{port}", process.pin, str(connections), str(each), *more])
    return float(json.loads(out)["per_second"])


@contextlib.contextmanager
def _stage(options, on_disk: bool = False) -> Iterator[Stage]:
    """A folder in memory; on the disk where durability is measured."""
    program = "announce" if on_disk else "fill"
    if not (EXAMPLES / program).exists():
        raise SystemExit(f"error: {program} is not built\n"
                         "hint: cargo build --release -p kith-directory --examples")
    if not Path(options.kith).exists():
        raise SystemExit(f"error: {options.kith} is not built\nhint: cargo build --release")
    if on_disk:
        folder = Path(options.disk) / f"kith-bench-{os.getpid()}"
        folder.mkdir(parents=True)
        try:
            with _stage_in(folder) as stage:
                yield stage
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    else:
        need = max(options.sets) * 4096 + (256 << 20)
        with data.memory_folder(need) as folder, _stage_in(folder) as stage:
            yield stage


def _stage_in(folder: Path) -> Stage:
    (folder / "stage").mkdir()
    return Stage(folder / "stage", 300)


def _filesystem(options) -> str:
    longest, kind = "", "an unknown file system"
    where = str(Path(options.disk).resolve())
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, name = line.split()[:3]
        if (where + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(longest):
            longest, kind = mount, name
    return kind


def table(result: Rates) -> list[str]:
    """The rows with median, spread and ratio."""
    lines = [f"| | {result.unit} | min–max | ratio |", "| --- | ---: | ---: | ---: |"]
    for row in dict.fromkeys(name for rates in result.rounds for name in rates):
        rates = [r[row] for r in result.rounds if row in r]
        other = result.baselines.get(row)
        lines.append(f"| {row} | {median(rates):.0f} | {min(rates):.0f}–{max(rates):.0f} | {_ratio(result, row, other)} |")
    return lines


def notes(result: Rates) -> list[str]:
    """Aims, who was absent, versions."""
    lines = []
    for row, other, least in result.aims:
        values = _values(result, row, other)
        if values:
            verdict = "met" if median(values) >= least else "**missed**"
            to = f"{least:g} × {other}" if other else f"{least:.0f} {result.unit}"
            digits = 2 if other else 0
            lines.append(f"Aim: {row} at least {to}. {median(values):.{digits}f} "
                         f"({min(values):.{digits}f}–{max(values):.{digits}f}): {verdict}.")
    lines += [f"{name} is not in the table: {why}." for name, why in result.absent.items()]
    lines += [f"{name} failed: {why}." for name, why in result.failed.items()]
    return [*lines, "Versions: " + "; ".join(sorted(set(result.versions.values()))) + "."]


def _values(result: Rates, row: str, other: str | None) -> list[float]:
    if other is None:
        return [r[row] for r in result.rounds if row in r]
    return [r[row] / r[other] for r in result.rounds if row in r and r.get(other)]


def _ratio(result: Rates, row: str, other: str | None) -> str:
    values = _values(result, row, other) if other else []
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})" if values else "1"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
