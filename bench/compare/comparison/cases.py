"""The three cases: what is sent, in which order the peers take turns, and what is checked."""

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import data, directory
from .meter import Sample
from .peers import Iperf, Kith, Nginx, Scp, Sendme, Wormhole
from .peers.peer import Peer
from .processes import Failed, Stage

BASELINE = Nginx.name
TAR = "tar, nginx → curl, tar"
MIN_TIMEOUT_SECONDS, SLOWEST_BYTES_PER_SECOND = 60, 10_000_000


@dataclass
class Options:
    """What the command line said."""

    runs: int
    warm_ups: int
    size: int  # bytes of the one file
    pings: int  # connections in a round of `first-byte`
    limit: float  # seconds for one case
    kith: Path
    only: list[str] | None  # parts of peers' names
    seconds: float = 5  # of a round of the directory's cases, for each row
    sets: tuple[int, ...] = (1000, 1_000_000)  # sizes of zones
    connections: int = 1000  # of `announce`
    disk: str = "/var/tmp"  # where `announce` keeps its database


@dataclass
class Contestant:
    """A peer in a case, with the one thing it does there."""

    name: str
    peer: Peer
    act: Callable[[int], Sample]


@dataclass
class Result:
    """A case with everything that was measured: `rounds[i][name]`, absent where it failed."""

    case: str
    what: str
    baseline: str
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # name -> why it did not take part
    failed: dict[str, str] = field(default_factory=dict)  # name -> what went wrong
    rounds: list[dict[str, Sample]] = field(default_factory=list)

    def to_json(self) -> dict:
        """Plain values; the samples with everything in them."""
        return asdict(self)


def send(options: Options) -> Result:
    """One incompressible file."""
    result = Result("send", f"one file of {options.size >> 20} MiB, incompressible", BASELINE)
    peers = [Nginx(), Iperf(), Scp(), Wormhole(), Sendme(), Kith(options.kith, "tcp"), Kith(options.kith, "quic")]
    with data.memory_folder(options.size * 4) as folder, _stage(folder, options.size) as stage:
        file = folder / "file.bin"
        data.make_file(file, options.size)
        expected = data.file_hash(file)

        def act(peer: Peer, number: int) -> Sample:
            with _inbox(folder) as inbox:
                sample = peer.send_file(file, inbox, number)
                if peer.leaves_a_copy and data.file_hash(inbox / file.name) != expected:
                    raise Failed("the received file differs")
                return sample

        contestants = [Contestant(p.name, p, lambda n, p=p: act(p, n)) for p in peers]
        _run_rounds(result, contestants, stage, options)
    return result


def small(options: Options) -> Result:
    """Many small files, against `tar` through the baseline's server and client."""
    result = Result("small", f"{data.FILES} files of {data.FILE_BYTES >> 10} KiB in "
                    f"{data.FILES // data.FILES_PER_FOLDER} folders", TAR)
    nginx = Nginx()
    kiths = [Kith(options.kith, "tcp"), Kith(options.kith, "quic")]
    with data.memory_folder(1 << 30) as folder, _stage(folder, 0) as stage:
        source = folder / "small"
        size = data.make_folder(source)
        expected = data.tree_hash(source)

        def act(move: Callable[[Path, Path, int], Sample]) -> Sample:
            with _inbox(folder) as inbox:
                sample = move(source, inbox, size)
                if data.tree_hash(inbox / source.name) != expected:
                    raise Failed("the received folder differs")
                return sample

        contestants = [Contestant(TAR, nginx, lambda _: act(nginx.send_folder))]
        contestants += [Contestant(p.name, p, lambda _, p=p: act(p.send)) for p in kiths]
        _run_rounds(result, contestants, stage, options)
    return result


def first_byte(options: Options) -> Result:
    """From the wish to the first application byte, over a fresh connection each time."""
    result = Result("first-byte", f"{options.pings} fresh connections in each round, "
                    "both sides authenticated, record set cached", BASELINE)
    peers: list[Nginx | Kith] = [Nginx(), Kith(options.kith, "tcp"), Kith(options.kith, "quic")]

    def act(peer: Nginx | Kith) -> Sample:
        milliseconds, cpu, sample = peer.first_bytes(options.pings)
        sample.extra |= {"first_byte_ms": milliseconds, "cpu_ms_per_connection": cpu}
        return sample

    with data.memory_folder(64 << 20) as folder, _stage(folder, 0) as stage:
        contestants = [Contestant(p.name, p, lambda _, p=p: act(p)) for p in peers]
        _run_rounds(result, contestants, stage, options)
    return result


CASES = {"send": send, "small": small, "first-byte": first_byte,
         "dns": directory.dns, "https": directory.https, "announce": directory.announce}


def _run_rounds(result: Result, contestants: list[Contestant], stage: Stage, options: Options) -> None:
    """A, B, C, A, B, C …; who fails is out from then on, so that the others' rounds stay whole."""
    deadline = time.monotonic() + options.limit
    running = [c for c in contestants if _starts(result, c, stage, options)]
    for number in range(options.warm_ups + options.runs):
        if time.monotonic() > deadline:
            say(f"{result.case}: stopped after {options.limit:g}s")
            break
        samples: dict[str, Sample] = {}
        for contestant in list(running):
            try:
                samples[contestant.name] = contestant.act(number)
            except (Failed, OSError, ValueError, KeyError) as error:
                running.remove(contestant)
                _fail(result, contestant.name, error)
        warm_up = number < options.warm_ups
        say(f"{result.case}: {'warm-up' if warm_up else f'round {number - options.warm_ups + 1}'}: "
            + ", ".join(f"{name} {sample.seconds:.2f}s" for name, sample in samples.items()))
        if samples and not warm_up:
            result.rounds.append(samples)


def _starts(result: Result, contestant: Contestant, stage: Stage, options: Options) -> bool:
    name = contestant.name
    if options.only and name != result.baseline and not any(part in name for part in options.only):
        return False
    missing = contestant.peer.missing()
    if missing:
        result.absent[name] = missing
        say(f"{result.case}: without {name}: {missing}")
        return False
    try:
        contestant.peer.start(stage)
    except (Failed, OSError) as error:
        _fail(result, name, error)
        return False
    result.versions[name] = contestant.peer.version()
    return True


def _fail(result: Result, name: str, error: Exception) -> None:
    result.failed[name] = str(error) or type(error).__name__
    say(f"{result.case}: {name} failed: {result.failed[name]}")


def say(text: str) -> None:
    """Progress; standard output is for the tables."""
    print(text, file=sys.stderr, flush=True)


def _stage(folder: Path, size: int) -> Stage:
    stage = folder / "stage"
    stage.mkdir()
    return Stage(stage, MIN_TIMEOUT_SECONDS + size / SLOWEST_BYTES_PER_SECOND)


class _inbox:
    """An empty folder for what is received, removed with it, outside of what is timed."""

    def __init__(self, folder: Path):
        self._path = folder / "inbox"

    def __enter__(self) -> Path:
        self._path.mkdir()
        return self._path

    def __exit__(self, *_exception) -> None:
        shutil.rmtree(self._path)
