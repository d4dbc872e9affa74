"""Judges agents that watch for maintenance: each row is a story in guests of a lab.

- `spec`:     what is known of an agent: how it is started, and how it says what it does; pure
- `rows`:     the catalogue, files by cloud; `row`: one of them as a value
- `in_guest`: runs in a guest: starts the agent, and keeps the guest's journal outside of it
- `story`:    what a row does to its guests; `watch`: journals, the responders' log, events
- `records`, `judge`: what was seen, and the verdict; pure
- `play`:     labs for rows, all of a lab side by side; `prove`: bad agents, so that each row fails
- `agents`:   small programs of guests: the bad agents, and one that does it right
- `reporting`: outcomes as the suite's tables and pages show them; a timeline a row

Runs in the user's process, apart from `in_guest` and `agents`. All times are of one clock: no row
advances the metadata plane's, so it is the machine's.
"""
