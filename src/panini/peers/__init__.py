"""What Panini-Net is compared with and did not train: others' official weights, and PULSE."""

from panini.peers.pulse import PulseConfig, pulse_system
from panini.peers.spandrel import load_peer

__all__ = ["PulseConfig", "load_peer", "pulse_system"]
