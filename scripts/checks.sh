# Sourced by scripts whose checks each are a line: passed, or failed with what was found; a tool that is missing is counted as skipped.
passed=0 failed=0 skipped=0

check() { # title, file with what was found: passes when that is empty
    if [ -s "$2" ]; then
        failed=$((failed + 1))
        echo "failed: $1"
        head -n 30 "$2" | cut -c 1-240 | sed 's/^/    /'
    else
        passed=$((passed + 1))
        echo "passed: $1"
    fi
}
have() { # tool, title
    command -v "$1" >/dev/null 2>&1 && return
    skipped=$((skipped + 1))
    echo "skipped: $2: no $1"
    return 1
}
finish() { # the last line of the output; fails when a check has
    [ "$skipped" -eq 0 ] || echo "$skipped skipped"
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
