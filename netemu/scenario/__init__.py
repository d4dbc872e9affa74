"""Scenarios: labs that are run through a sequence of events and then judged. In the user's process.

- `masked_reboot/`: the files of one, to read and to copy: lab file, HAProxy's configuration, web
                    server, load, and a link to the drain agent of `netns-scripts/guest`
- `play`:           brings that lab up, reboots its guests in turn under load, and takes it down
- `requests`:       counts and judges the load's requests; pure
- `plot`:           draws them
- `events`:         what clouds do to machines, by name, with published times; in a running lab

This package uses a lab only through the public API, and never leaves one up. It imports matplotlib
only to draw.
"""
