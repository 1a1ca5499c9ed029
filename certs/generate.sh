#!/usr/bin/env bash
#
# Makes a small certificate authority and a server certificate signed by it, both ECDSA P-256.
#
#   certs/generate.sh FOLDER [NAME...]
#
# NAME is a host name or an IP address that clients will use; without any: localhost 127.0.0.1 ::1.
# FOLDER gets ca.pem and ca.key (made once, then reused), server.pem and server.key (new each time). Keys have mode 0600.
# A folder that git would track is refused: a key must never be committed.

set -euo pipefail

readonly CA_DAYS=3650
# Browsers refuse server certificates that are valid for longer.
readonly SERVER_DAYS=397

fail() {
    printf 'generate.sh: %s\n' "$1" >&2
    exit 1
}

usage() {
    sed -n 's/^#   certs/usage: certs/p' "${BASH_SOURCE[0]}" >&2
    exit 64
}

# The absolute path of $1, of which the last parts need not exist yet.
absolute() {
    local existing=$1 rest=''
    while [[ ! -d $existing ]]; do
        [[ -e $existing || -L $existing ]] && fail "$existing is not a folder"
        rest="/$(basename -- "$existing")$rest"
        existing=$(dirname -- "$existing")
    done
    [[ "$rest/" == */../* ]] && fail "$1: name the folder without .."
    existing=$(cd -P -- "$existing" && pwd)
    printf '%s%s\n' "${existing%/}" "$rest"
}

# Refuses a folder in this repository, or in any other, unless git ignores it.
refuse_tracked() {
    local folder=$1 repository existing=$1
    while [[ ! -d $existing ]]; do existing=$(dirname -- "$existing"); done
    repository=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
    # --no-index: a folder with tracked files in it counts as ignored only if its rule says so.
    if command -v git >/dev/null && git -C "$existing" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git -C "$existing" check-ignore --quiet --no-index -- "$folder" ||
            fail "$folder is inside a git repository and not ignored; keys belong outside of it"
    elif [[ $folder/ == "$repository"/* ]]; then
        fail "$folder is inside the sources; keys belong outside of them"
    fi
}

# The subjectAltName of all names, such as DNS:localhost,IP:127.0.0.1.
alternative_names() {
    local name kind list=''
    for name in "$@"; do
        if [[ $name == *:* && $name =~ ^[0-9A-Fa-f:.]+$ ]] || [[ $name =~ ^[0-9]+(\.[0-9]+){3}$ ]]; then
            kind=IP
        elif [[ $name =~ ^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$ ]]; then
            kind=DNS
        else
            fail "$name is neither a host name nor an IP address"
        fi
        list+=",$kind:$name"
    done
    printf '%s\n' "${list#,}"
}

new_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

serial() {
    printf '0x%s\n' "$(openssl rand -hex 16)"
}

[[ $# -ge 1 && $1 != -* && -n $1 ]] || usage
command -v openssl >/dev/null || fail 'openssl is needed'

# Nothing below is readable by others unless it is opened up on purpose.
umask 077
folder=$(absolute "$1")
shift
[[ $# -gt 0 ]] || set -- localhost 127.0.0.1 ::1
names=$(alternative_names "$@")
refuse_tracked "$folder"

mkdir -p -- "$folder"
work=$(mktemp -d "$folder/.new.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
cd -- "$folder"

cat >"$work/openssl.cnf" <<EOF
[req]
distinguished_name = name
prompt = no
[name]
CN = odometer CA
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = $names
EOF

if [[ -e ca.pem && -e ca.key ]]; then
    printf 'using the CA that is there: %s\n' "$folder/ca.pem"
elif [[ -e ca.pem || -e ca.key ]]; then
    fail "$folder has one of ca.pem and ca.key but not the other"
else
    new_key "$work/ca.key"
    openssl req -new -x509 -sha256 -key "$work/ca.key" -config "$work/openssl.cnf" -extensions ca \
        -days "$CA_DAYS" -set_serial "$(serial)" -out "$work/ca.pem"
    chmod 0644 "$work/ca.pem"
    mv -- "$work/ca.key" ca.key
    mv -- "$work/ca.pem" ca.pem
fi

new_key "$work/server.key"
openssl req -new -sha256 -key "$work/server.key" -config "$work/openssl.cnf" -subj '/CN=odometer' -out "$work/server.csr"
openssl x509 -req -sha256 -in "$work/server.csr" -CA ca.pem -CAkey ca.key -set_serial "$(serial)" \
    -days "$SERVER_DAYS" -extfile "$work/openssl.cnf" -extensions server -out "$work/server.pem" 2>"$work/log" ||
    fail "the certificate could not be signed: $(tail -n 1 "$work/log")"
openssl verify -CAfile ca.pem "$work/server.pem" >/dev/null || fail 'the new certificate does not verify'
chmod 0644 "$work/server.pem"
mv -- "$work/server.key" server.key
mv -- "$work/server.pem" server.pem

cat <<EOF
certificate  $folder/server.pem  ($names, $SERVER_DAYS days)
key          $folder/server.key
clients need $folder/ca.pem

odometer serve --tls-cert $folder/server.pem --tls-key $folder/server.key
curl --cacert $folder/ca.pem https://localhost:8443/livez
EOF
