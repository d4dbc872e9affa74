"""Scenarios: labs with a story, played from beginning to end, and judged.

- `masked_reboot/`: the files of one, for people to open and to copy: lab file, HAProxy's
                    configuration, web server, load; and, by a link, so that an installed copy
                    has it, the drain agent of `netns-scripts/guest`
- `play`:           brings that lab up, reboots its guests in turn under load, and takes it down
- `requests`:       what the load has seen, as counts and as a verdict; pure
- `plot`:           the same as a picture

What this room never does: reach into a lab other than by `netemu.lab`, or leave one up. It imports
matplotlib only to draw.
"""
