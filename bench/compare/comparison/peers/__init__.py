"""One module per program that is compared; each runs the real program with a set-up of its own."""

from .iperf import Iperf
from .kith import Kith
from .nginx import Nginx
from .scp import Scp
from .sendme import Sendme
from .wormhole import Wormhole

__all__ = ["Iperf", "Kith", "Nginx", "Scp", "Sendme", "Wormhole"]
