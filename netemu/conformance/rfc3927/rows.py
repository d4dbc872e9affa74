"""The requirements, a row each: what it says, and the section that it is from."""

from typing import Final

from netemu.conformance.row import Row

PASS, FAIL = "pass", "fail"


def _row(row_id: str, section: str, title: str) -> Row:
    return Row(row_id, title, section, PASS)


ROWS: Final = tuple(
    ("RFC 3927", row)
    for row in (
        _row("R01", "2.2.1", "A probe is a broadcast request from 0.0.0.0 with its own MAC"),
        _row("R02", "2.1", "The candidate is in 169.254.1.0 - 169.254.254.255"),
        _row("R03", "2.1", "The same MAC draws the same address first (SHOULD)"),
        _row("R04", "2.1", "An address used before is the first candidate (SHOULD)"),
        _row("R05", "2.2", "Nothing is sent from the address before it is claimed"),
        _row("R06", "2.2.1", "PROBE_NUM probes, PROBE_MIN to PROBE_MAX apart, then ANNOUNCE_WAIT"),
        _row("R07", "2.2.1", "While probing: a reply from the candidate makes it choose again"),
        _row("R08", "2.2.1", "While probing: a request from the candidate makes it choose again"),
        _row("R09", "2.2.1", "While probing: another's probe for it makes it choose again"),
        _row("R10", "2.2.1", "While probing: an ordinary request for it is not a conflict"),
        _row("R11", "2.2.1", "After MAX_CONFLICTS: at most one new address a RATE_LIMIT_INTERVAL"),
        _row("R12", "2.4", "ANNOUNCE_NUM announcements, ANNOUNCE_INTERVAL apart"),
        _row("R13", "2.5", "A conflict is not ignored: it defends, or it moves"),
        _row("R14", "2.5", "A second one within DEFEND_INTERVAL makes it cease"),
        _row("R15", "2.5, 1.5", "One after DEFEND_INTERVAL is not ignored either"),
        _row("R16", "2.5", "Connections are reset before it moves (SHOULD)"),
        _row("R17", "2.5", "ARP with a link-local sender is sent by broadcast, replies too"),
        _row("R18", "2.6.2", "A link-local destination is asked for and sent to directly"),
        _row("R19", "2.6.2", "A link-local source is never sent through a router"),
        _row("R20", "1.9", "A routable address, where there is one, is used for new flows"),
        _row("R21", "2.8", "The prefix is 16 bits long"),
        _row("R22", "2.2, 4", "Nothing is sent periodically"),
        _row("R23", "2.7", "Its responder answers it: the node has its address for its port"),
        _row("R24", "2.7", "The node answers ARP for no address that nobody has"),
        _row("R25", "RFC 5227 2.4 c", "The node defends 169.254.169.254, and keeps it"),
    )
)
