#!/bin/sh
# What a web guest runs at boot: its web server, and beside it its drain agent.
# DRAIN=off leaves the agent out.
if [ "${DRAIN:-on}" != off ]; then
    python3 drain-agent.py lb:9999 "web/$(hostname)" http://localhost:8080/health &
fi
exec python3 web.py
