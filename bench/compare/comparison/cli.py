"""The command line of `bench/compare/run`."""

import argparse
import json
import os
import re
import signal
import sys
from pathlib import Path

from . import isolation, report
from .cases import CASES, Options, Result, say
from .peers.kith import DEFAULT_PROGRAM
from .peers.peer import PROJECT

DOCS = PROJECT / "docs" / "benchmarks.md"
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
BUSY_LOAD = 0.5


def main() -> int:
    """Parses, runs the cases in a network of their own where that is possible, prints the tables."""
    arguments = _parser().parse_args()
    if arguments.no_isolation or not isolation.is_possible():
        say("note: without a network namespace of its own; programs bind to loopback all the same")
        return _run(arguments)
    return isolation.run_isolated(lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/compare/run", description="kith and its peers, side by side")
    parser.add_argument("case", nargs="?", default="all", choices=[*CASES, "all"])
    parser.add_argument("--runs", type=int, default=7, metavar="N", help="rounds that count (7)")
    parser.add_argument("--warm-ups", type=int, default=1, metavar="N", help="rounds before, not counted (1)")
    parser.add_argument("--size", type=_size, default=1 << 30, metavar="SIZE", help="of the one file (1GiB)")
    parser.add_argument("--pings", type=int, default=100, metavar="N",
                        help="connections in a round of first-byte (100)")
    parser.add_argument("--limit", type=float, default=1200, metavar="SECONDS",
                        help="start no round after this, in each case (1200)")
    parser.add_argument("--only", metavar="NAME,…", help="parts of peers' names; the baseline always runs")
    parser.add_argument("--kith", type=Path, default=DEFAULT_PROGRAM, metavar="FILE",
                        help="program to measure (target/release/kith)")
    parser.add_argument("--seconds", type=float, default=5, metavar="N",
                        help="length of a round of dns, https and announce, for each row (5)")
    parser.add_argument("--sets", type=_numbers, default=(1000, 1_000_000), metavar="N,…",
                        help="sizes of the zones of dns, the last also of https, there 100000 at most (1000,1000000)")
    parser.add_argument("--connections", type=int, default=1000, metavar="N", help="of announce (1000)")
    parser.add_argument("--disk", default="/var/tmp", metavar="FOLDER", help="of announce's databases (/var/tmp)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--no-isolation", action="store_true", help="use the machine's own loopback")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    here = report.machine()
    if os.getloadavg()[0] > BUSY_LOAD:
        say("warning: this machine is busy; the numbers will be noise")
    options = Options(
        runs=arguments.runs, warm_ups=arguments.warm_ups, size=arguments.size, pings=arguments.pings,
        limit=arguments.limit, kith=arguments.kith.resolve(),
        only=arguments.only.split(",") if arguments.only else None,
        seconds=arguments.seconds, sets=arguments.sets, connections=arguments.connections,
        disk=arguments.disk,
    )
    names = list(CASES) if arguments.case == "all" else [arguments.case]
    try:
        results = [CASES[name](options) for name in names]
    except KeyboardInterrupt:
        say("stopped; everything that was started has ended")
        return 130
    except SystemExit as error:
        say(str(error))
        return 1
    return _tell(results, here, arguments)


def _tell(results: list[Result], here: dict[str, str], arguments: argparse.Namespace) -> int:
    blocks = {result.case: report.markdown(result, here) for result in results}
    for case, block in blocks.items():
        print(f"## {case}\n\n{block}\n")
    sys.stdout.flush()
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        whole = {"machine": here, "cases": [result.to_json() for result in results]}
        arguments.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.write_docs:
        report.write_docs(DOCS, blocks)
    return 1 if any(result.failed for result in results) else 0


def _stop(_number: int, _frame: object) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # once is enough: cleaning up must not be cut short
    raise KeyboardInterrupt


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]+)([KMG]iB)?", text)
    if not found or int(found.group(1)) == 0:
        raise argparse.ArgumentTypeError(f"not a size: {text} (like 64MiB or 1GiB)")
    return int(found.group(1)) * UNITS[found.group(2) or ""]
