#!/bin/sh
# Tells Elasticsearch and Kibana what the logs look like: retention, index template, data view, searches and dashboard.
#
# Job: wait until both answer, put everything that lies beside this script, and say so. May be run again at any time: it
# overwrites what it put. Run it before the first line is shipped, since a template counts for indices that come after it.
# Must never: wait without end, go on after a failure, or print an address, which may hold a password.
#
#   ELASTICSEARCH_URL  http://elasticsearch:9200     KIBANA_URL  http://kibana:5601     (user:password@ before the host, if need be)
#   WAIT_SECONDS       300, for each of them
set -eu

elasticsearch=${ELASTICSEARCH_URL:-http://elasticsearch:9200}
kibana=${KIBANA_URL:-http://kibana:5601}
patience=${WAIT_SECONDS:-300}
here=$(cd "$(dirname "$0")" && pwd)

fail() {
    echo "setup: $1" >&2
    exit 1
}

# wait_for NAME URL: until the URL answers 200.
wait_for() {
    end=$(($(date +%s) + patience))
    until curl -fs -o /dev/null --max-time 10 "$2"; do
        [ "$(date +%s)" -lt "$end" ] || fail "$1 was not ready within $patience s"
        sleep 2
    done
}

# send WHAT CURL-ARGUMENTS…: prints the answer; whatever is no 2xx is a failure that quotes it.
send() {
    what=$1
    shift
    answer=$(curl -sS --max-time 60 -w '\n%{http_code}' "$@" 2>&1) || fail "$what: no answer"
    code=${answer##*
}
    body=${answer%
*}
    case $code in
        2??) printf '%s\n' "$body" ;;
        *) fail "$what: status $code: $(printf '%s' "$body" | tr '\n' ' ' | cut -c 1-500)" ;;
    esac
}

put() {
    send "$1" -X PUT -H 'Content-Type: application/json' --data-binary "@$here/elasticsearch/$3" "$elasticsearch/$2" >/dev/null
}

wait_for Elasticsearch "$elasticsearch/_cluster/health?wait_for_status=yellow&timeout=5s"
put 'the retention' _ilm/policy/odometer-logs retention.json
put 'the index template' _index_template/odometer-logs index-template.json

wait_for Kibana "$kibana/api/status"
imported=$(send "Kibana's objects" -X POST -H 'kbn-xsrf: odometer' -F "file=@$here/kibana/odometer.ndjson" \
    "$kibana/api/saved_objects/_import?overwrite=true")
case $imported in
    *'"success":true'*) ;;
    *) fail "Kibana's objects: $(printf '%s' "$imported" | tr '\n' ' ' | cut -c 1-500)" ;;
esac

echo 'setup: retention, index template, data view, searches and dashboard are in place'
