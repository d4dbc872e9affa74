"""The lab from inside: everything that runs in the sandbox, as its PID 1.

`boot` enters the sandbox and brings the lab up; `nodes` are bridges, ports, claims and the nodes'
own services; `guests` is what hangs on a port; `control` carries events out, moves guests and keeps
the lab's event log. When this process ends, in whatever way, the kernel takes back every process,
namespace, wire and mount of the lab. It never imports `netemu.client`.
"""
