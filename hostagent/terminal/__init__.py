"""What the commands `hostagent` and `netemu` share: how they read durations, print, and end.

Runs in a command's own process. Never talks to an agent or a lab.
"""
