#!/usr/bin/env bash
# Makes a development authority for the emulator's NSM: dev-root.sh FOLDER. root.pem is what --dangerous-dev-root takes; key.pem,
# leaf.pem and bundle.pem are what --dangerous-dev-signer takes. Whoever has key.pem can forge evidence of any enclave for those
# who trust root.pem. The chain has AWS's shape: root, one intermediate, leaf; ECDSA P-384 with SHA-384. Valid for 30 days.

source "$(dirname "$0")/common.sh"

(($# == 1)) || die "usage: dev-root.sh FOLDER"
[[ ! -e $1 ]] || die "$1 is there already"
folder=$1.new.$$
mkdir -m 700 "$folder"
trap 'rm -rf "$folder"' EXIT
(
    cd "$folder"
    for name in root middle leaf; do
        quietly openssl ecparam -name secp384r1 -genkey -noout -out "$name.key"
    done
    quietly openssl req -x509 -new -sha384 -key root.key -days 30 -subj "/O=mvault development/CN=not AWS" -out root.pem \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,digitalSignature,keyCertSign,cRLSign"
    # sign NAME ISSUER EXTENSION...
    sign() {
        quietly openssl req -new -sha384 -key "$1.key" -subj "/O=mvault development/CN=$1" -out "$1.csr"
        printf '%s\n' "${@:3}" >"$1.ext"
        quietly openssl x509 -req -sha384 -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -set_serial "0x01$(openssl rand -hex 12)" \
            -days 30 -extfile "$1.ext" -out "$1.pem"
    }
    sign middle root "basicConstraints=critical,CA:TRUE,pathlen:0" "keyUsage=critical,digitalSignature,keyCertSign,cRLSign"
    sign leaf middle "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature"
    cat root.pem middle.pem >bundle.pem
    mv leaf.key key.pem
    rm -f root.key middle.key ./*.csr ./*.ext middle.pem
)
mv "$folder" "$1"
