"""From the user's process to a lab that is up: the sandbox, PID 1, bring-up and readiness.

Runs in the sandbox. It decides the order in which a lab comes up and goes down, and nothing of what
happens to guests in between.
"""
