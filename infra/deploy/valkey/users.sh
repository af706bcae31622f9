#!/bin/sh
# Prints the users of the broker for Valkey or Redis 7 (an `aclfile`): who may do what with which stream. Passwords come
# from the environment, BROKER_PASSWORD_QUOTA and so on. What each command is for: streams/redis/commands.py.
set -eu

streams() { for topic in "$@"; do printf '~%s ~{%s.* ' "$topic" "$topic"; done; } # one stream, or one for each partition
user() { name=$1; shift; eval "password=\${BROKER_PASSWORD_$(echo "$name" | tr a-z A-Z):?}"; echo "user $name on >$password resetkeys -@all $*"; }

SCRIPTS='+evalsha +eval'
READ="$SCRIPTS +xgroup|create +xgroup|delconsumer +xreadgroup +xpending +xclaim +xack +xinfo|consumers +exists +xinfo|groups +time +xtrim"
WRITE="$SCRIPTS +xadd"
COUNT="$SCRIPTS +exists +xinfo|stream +xinfo|groups +xpending +time"
OWN="$SCRIPTS +set +get +pttl +pexpire +del +xadd +xread" # the leader's lock, and the word that something was handed back
ONWARD='job-accepted' # where runs go on after quota; whoever releases runs or passes them on writes each
ALL="job-requests $ONWARD job-accepted-priority job-events dead-letters"

# What a stage reads, what it writes, what is its own; and all streams may be counted, for /metrics.
rights() { echo "${2:+"($(streams $2)$READ) "}($(streams $3)$WRITE) (~$1:* $OWN)"; }
worker() { user "$1" "+select +client|id +client|unblock" "$2" "($(streams $ALL)$COUNT)"; }
stage() { worker "$1" "$(rights "$@")"; }
each_stage() {
    "$1" quota 'job-requests job-events' "$ONWARD job-events dead-letters"
    "$1" generation 'job-accepted job-accepted-priority' "$ONWARD job-events dead-letters"
    "$1" projection 'job-requests job-events' 'dead-letters'
    "$1" failures 'dead-letters' 'job-events dead-letters'
    "$1" webhooks 'job-events' 'dead-letters'
    "$1" schedule '' "$ALL"
}

echo 'user default off'
user admin '~* &* +@all'
# With +xadd come MAXLEN and an ID of one's own: whoever is not trusted with the stream sends requests over HTTP.
user upstream "+select $(streams job-requests)+xadd"
user api "+select ($(streams $ALL)$WRITE) ($(streams $ALL)$COUNT)"
user operator "+select +ping ($(streams $ALL)$WRITE) ($(streams $ALL)$COUNT)"
each_stage stage
# One worker that runs all stages; printed where it has a password.
test -z "${BROKER_PASSWORD_ALL-}" || worker all "$(each_stage rights | tr '\n' ' ')"
