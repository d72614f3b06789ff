#!/bin/bash
# What runs in the guest for a suite. Its first word says what to do:
#   packages ARTIFACTS KIND PACKAGE...     see that they are installed
#   clone URL DIRECTORY VERSION            fetch a repository; prints an archive of its fmf files
#   test ARTIFACTS KIND NAME DIRECTORY must|may SECONDS COMMAND SAVE...
#                                          run one test; prints an archive of what it left
# Standard output is for the archive alone.
set -u
export LC_ALL=${LC_ALL:-C.UTF-8}
half_a_log=$((8 << 20))

say() { printf '%s\n' "$*" >&2; }

packages() {
    local kind=$2 package manager missing=()
    shift 2
    if [ "$kind" = beakerlib ]; then
        [ -e /usr/share/beakerlib/beakerlib.sh ] || set -- "$@" beakerlib
    fi
    for package; do
        rpm -q --whatprovides "$package" > /dev/null 2>&1 || rpm -q "$package" > /dev/null 2>&1 || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        manager=$(command -v dnf || command -v yum || command -v microdnf) ||
            { say "${missing[*]}; the guest has no dnf to install them with"; return 1; }
        # An isolated guest reaches no repository but those on its own disk; it must not wait for the others.
        timeout -k 10 900 "$manager" -y --setopt=timeout=20 --setopt=retries=1 install "${missing[@]}" \
            < /dev/null > /tmp/.distgate-install.log 2>&1 ||
            { say "${missing[*]}; $manager: $(tail -n 5 /tmp/.distgate-install.log)"; return 1; }
    fi
    [ "$kind" != beakerlib ] || old_names
}

# Tests of years ago read beakerlib under the names of RHTS; what cannot be written is not needed.
old_names() {
    local name
    for name in /usr/bin/rhts-environment.sh /usr/share/rhts-library/rhtslib.sh /usr/lib/beakerlib/beakerlib.sh; do
        [ ! -e "$name" ] || continue
        mkdir -p "${name%/*}" 2> /dev/null || continue
        case $name in
            */rhts-environment.sh) : > "$name" ;;
            *) printf '. /usr/share/beakerlib/beakerlib.sh\n' > "$name" ;;
        esac 2> /dev/null
    done
    return 0
}

clone() {
    local url=$1 directory=$2 version=$3
    command -v git > /dev/null || { say "the guest has no git"; return 1; }
    export GIT_TERMINAL_PROMPT=0
    timeout -k 10 300 git clone -q "$url" "$directory" < /dev/null > /dev/null || return 1
    [ -z "$version" ] || git -C "$directory" checkout -q "$version" > /dev/null || return 1
    (cd "$directory" && find . -name '*.fmf' -type f -print0 | tar -czf - --null -T -)
}

quoted() { printf "'%s'" "${1//\'/\'\'}"; }

# Sets result and reason from what is left of a test that ended with the status $2.
judge() {
    local kind=$1 status=$2 said
    reason=
    if [ "$status" = 124 ] || [ "$status" = 137 ] && [ "$seconds" -gt 0 ] && [ "$SECONDS" -ge "$seconds" ]; then
        result=error reason="killed after $seconds s"
    elif [ "$kind" = beakerlib ]; then
        # The status says nothing here: a script that found failures ends with 0.
        said=$BEAKERLIB_DIR/TestResults
        if [ ! -f "$said" ]; then
            result=error reason="beakerlib left no TestResults (status $status)"
        elif ! grep -qx 'TESTRESULT_STATE="\?complete"\?' "$said"; then
            result=error reason="the test ended before its journal was complete (status $status)"
        elif grep -qx 'TESTRESULT_RESULT_STRING="\?PASS"\?' "$said"; then
            result=pass
        else
            result=fail
        fi
    elif [ "$status" = 0 ]; then
        result=pass
    else
        result=fail reason="status $status"
    fi
}

# A log that is too long loses its middle.
shorten() {
    local size
    size=$(stat -c %s "$1") || return 0
    [ "$size" -gt $((2 * half_a_log)) ] || return 0
    {
        head -c "$half_a_log" "$1"
        printf '\n[%s bytes were dropped here]\n' "$((size - 2 * half_a_log))"
        tail -c "$half_a_log" "$1"
    } > "$1.short" && mv "$1.short" "$1"
}

one_test() {
    local artifacts=$1 kind=$2 name=$3 directory=$4 needed=$5 seconds=$6 command=$7 result reason log file status
    shift 7
    local plain=${name//[^A-Za-z0-9._+-]/-} limit=()
    mkdir -p "$artifacts/.distgate"
    log=$artifacts/$plain.log
    [ -d "$directory" ] || [ "$needed" = must ] || directory=.
    if cd "$directory" 2> "$log"; then
        [ "$seconds" -eq 0 ] || limit=(timeout -k 10 "$seconds")
        export TEST_ARTIFACTS=$artifacts
        [ "$kind" != beakerlib ] || { BEAKERLIB_DIR=$(mktemp -d /var/tmp/beakerlib-XXXXXX); export BEAKERLIB_DIR; }
        SECONDS=0
        "${limit[@]}" bash -c "$command" < /dev/null > "$log" 2>&1
        status=$?
        judge "$kind" "$status"
    else
        result=error reason="there is no directory $directory"
    fi
    [ -z "$reason" ] || printf '%s\n' "$reason" >> "$log"
    shorten "$log"
    mv "$log" "$artifacts/${result^^}_$plain.log"
    log=${result^^}_$plain.log
    [ -e "$artifacts/results.yml" ] || printf 'results:\n' > "$artifacts/results.yml"
    printf -- '- test: %s\n  result: %s\n  logs:\n  - %s\n' "$(quoted "$name")" "$result" "$(quoted "$log")" \
        >> "$artifacts/results.yml"
    printf '%s %s\n' "${result^^}" "$name" >> "$artifacts/test.log"
    printf '%s\n' "$result" > "$artifacts/.distgate/result"
    local saved=()
    for file; do
        mkdir -p "$artifacts/$plain" && cp -rL "$file" "$artifacts/$plain/" 2>> "$artifacts/$log" && saved=("$plain")
    done
    cd "$artifacts" && tar -czf - .distgate/result results.yml test.log "$log" "${saved[@]}"
}

verb=$1
shift
case $verb in
    packages | clone) "$verb" "$@" ;;
    test) one_test "$@" ;;
    *) say "there is no $verb"; exit 2 ;;
esac
