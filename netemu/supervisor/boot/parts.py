"""The parts of a lab that is wired, for what answers questions about it.

Runs in the supervisor. It makes none of them.
"""

from typing import NamedTuple

from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.faults import Faults
from netemu.supervisor.control.impact import Impact
from netemu.supervisor.control.links import Links
from netemu.supervisor.control.maintenance import Maintenance
from netemu.supervisor.control.placement import Placement
from netemu.supervisor.control.relocation import Relocation
from netemu.supervisor.nodes.hardware import Hardware


class Parts(NamedTuple):
    """The parts of a lab that is wired."""

    hardware: Hardware
    placement: Placement
    watching: AgentFeeds
    relocation: Relocation
    impact: Impact
    maintenance: Maintenance
    faults: Faults
    links: Links
