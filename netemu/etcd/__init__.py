"""A small client of etcd, by its JSON gateway. Runs in any process, on asyncio.

`messages` is what is said, as values, without I/O; `http` carries it; `client` asks the servers in
turn and resumes watches; `together` has those who make keys at once share transactions. Nothing
here knows of labs, and no lab imports it that keeps its commands on one machine.

Every request may be repeated: when an answer is lost, the next server is asked the same. So write
what is the same when it is written twice, and compare before what is not.
"""

from netemu.etcd.client import Client, Compacted, Refused, Unreachable
from netemu.etcd.messages import Change, Entry, Held, Put, Removal, Version
from netemu.etcd.together import Together

__all__ = [
    "Change",
    "Client",
    "Compacted",
    "Entry",
    "Held",
    "Put",
    "Refused",
    "Removal",
    "Together",
    "Unreachable",
    "Version",
]
