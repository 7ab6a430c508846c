"""What every peer in a comparison does."""

import shutil
import subprocess
from pathlib import Path

from ..meter import Sample
from ..processes import Stage

BENCH = Path(__file__).resolve().parents[3]
VENV = BENCH / ".venv" / "bin"
PEERS = BENCH / ".peers" / "bin"
PROJECT = BENCH.parent


class Peer:
    """A program, or a pair of programs, that brings bytes from one side to the other."""

    name = ""  # in tables
    needs: tuple[str | Path, ...] = ()
    leaves_a_copy = True  # False: it moves bytes and keeps none, so there is nothing to check

    def missing(self) -> str | None:
        """Which needed program is not there."""
        for program in self.needs:
            if not find(program):
                return f"{Path(program).name} is not installed (bench/compare/install)"
        return None

    def version(self) -> str:
        """The versions of what takes part, in one line."""
        raise NotImplementedError

    def start(self, stage: Stage) -> None:
        """Starts servers; they end with the stage."""

    def send_file(self, file: Path, into: Path, number: int) -> Sample:
        """Moves one file into a folder; `number` is different for every run."""
        raise NotImplementedError


def find(program: str | Path) -> str | None:
    """Where a program is; system folders are searched even for ordinary users."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def first_line(*argv: str | Path) -> str:
    """First non-empty line that a program prints, on either stream."""
    program = find(argv[0])
    if not program:
        return f"{Path(argv[0]).name}: not installed"
    ran = subprocess.run([program, *argv[1:]], capture_output=True, text=True, timeout=30, check=False)
    return next((line.strip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip()), "")
