#!/bin/bash
# conversions.sh DIR: run every check, write DIR/test.log and DIR/results.yml. A failed check is a result, not an error.
mkdir -p "$1" && cd "$1" || exit 1
exec 3>results.yml >test.log 2>&1
echo "results:" >&3

check() {
    local name=$1 result=pass
    shift
    echo ":: $name: $*"
    "$@" || result=fail
    echo "${result^^} $name"
    printf -- '- test: %s\n  result: %s\n  logs: [test.log]\n' "$name" "$result" >&3
}

printf 'one\ntwo\n' >unix.txt
printf 'one\r\ntwo\r\n' >dos.txt
printf 'one\rtwo\r' >mac.txt

dos_becomes_unix() { dos2unix -n dos.txt out.txt && cmp out.txt unix.txt; }
unix_becomes_dos() { unix2dos -n unix.txt out.txt && cmp out.txt dos.txt; }
mac_becomes_unix() { mac2unix -n mac.txt out.txt && cmp out.txt unix.txt; }
binary_is_left_alone() { printf 'a\000\r\n' >binary && cp binary before && { dos2unix binary; cmp binary before; }; }
version_is_packaged() { [ "$(dos2unix --version | sed -n '1s/^dos2unix \([0-9.]*\).*/\1/p')" = "$(rpm -q --qf '%{VERSION}' dos2unix)" ]; }

check dos-becomes-unix dos_becomes_unix
check unix-becomes-dos unix_becomes_dos
check mac-becomes-unix mac_becomes_unix
check binary-is-left-alone binary_is_left_alone
check version-is-packaged version_is_packaged
