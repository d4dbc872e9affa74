#!/bin/sh
# Is this VM in maintenance, or about to be? Tells syslog, once for each event. For cron:
#
#   * * * * * root /usr/local/bin/is-vm-in-maintenance.sh
#
# Asks Azure's metadata service of 2015, which answers {} when there is nothing to tell, and else
# {"EventID":"…","EventCreationTime":"9\/15\/2015 6:42:51 AM"}, from five minutes before.
#
# Exit codes, as grep's: 0 yes, 1 no, 2 it cannot be told.
set -u

url=http://169.254.169.254/metadata/v1/maintenance
# What syslog has been told. It need not outlive a reboot: no event does.
told=${RUNTIME_DIRECTORY:-${XDG_RUNTIME_DIR:-/run}}/is-vm-in-maintenance.told

if ! answer=$(curl --fail --silent --show-error --noproxy '*' --max-time 5 "$url"); then
    exit 2
fi

# The value of a member of the answer; slashes are escaped there.
member() {
    printf '%s\n' "$answer" | sed -n 's/.*"'"$1"'":"\([^"]*\)".*/\1/p' | sed 's,\\/,/,g'
}

event=$(member EventID)
if [ -z "$event" ]; then
    exit 1
fi

if ! grep -qxF -e "$event" "$told" 2>/dev/null; then
    logger -t is-vm-in-maintenance -p user.warning -- \
        "maintenance of this VM is imminent: event $event, created $(member EventCreationTime) UTC" ||
        exit 2
    printf '%s\n' "$event" >>"$told" || exit 2
fi
exit 0
