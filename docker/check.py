"""Checks what fits together in this folder, and with the program's source and documents. Called by check.sh.

Each function that main() lists is one check: its name is what it claims, and it yields what is wrong. Written on the way, for
check.sh: SCRATCH/board.yml (the board's questions as rules), SCRATCH/scrape.yml and SCRATCH/kubernetes.toml (the ConfigMap's settings).
"""

import json
import re
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
SCRATCH = Path(sys.argv[1])
ROLES = ["collect", "aggregate", "query"]


def text(path):
    return (ROOT / path).read_text()


def load(path):
    return yaml.safe_load(text(path))


def manifests():
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def find(kind, name=None):
    return [d for _, d in manifests() if d["kind"] == kind and name in (None, d["metadata"]["name"])]


# --- Metrics


def shown_metrics():
    """The names that /metrics shows, read from where they are registered, with the suffixes that the encoder adds."""
    names = set()

    def add(name, kind):
        suffixes = {"Counter": ["_total"], "Gauge": [""], "Histogram": ["_bucket", "_sum", "_count"]}[kind]
        names.update(name + suffix for suffix in suffixes)

    for source in [ROOT / "aggregator/src/metrics.rs", *sorted((ROOT / "src").rglob("*.rs"))]:
        code = source.read_text().split("#[cfg(test)]")[0]
        totals = re.search(r"const TOTALS.*?\n\];", code, re.S)
        counted = set(re.findall(r'"(tallymark_\w+)"', totals[0])) if totals else set()
        counted |= set(re.findall(r'encode_descriptor\(\s*"(tallymark_\w+)"[^;]*?MetricType::Counter', code))
        for name in re.findall(r'"(tallymark_\w+)"', code):
            add(name, "Counter" if name in counted else "Gauge")
    for source in ["ingest/src/collect/metrics.rs", "query/src/metrics.rs", "src/guard/metrics.rs"]:
        code = text(source)
        prefix = re.search(r'sub_registry_with_prefix\("(\w+)"\)', code)[1]
        kinds = {field: re.search(r"Counter|Gauge|Histogram", kind)[0] for field, kind in re.findall(r"^    (?:pub\S* )?(\w+): (.*),$", code, re.M) if re.search(r"Counter|Gauge|Histogram", kind)}
        for with_unit, name, rest in re.findall(r'registry\.register(_with_unit)?\(\s*"(\w+)",(.*?)\);', code, re.S):
            unit = "_" + re.search(r"Unit::(\w+)", rest)[1].lower() if with_unit else ""
            add(f"tallymark_{prefix}_{name}{unit}", kinds[re.search(r"self\.(\w+)\.clone", rest)[1]])
    return names


def rules():
    return [rule for group in load("docker/prometheus/alerts.yml")["groups"] for rule in group["rules"]]


def board():
    return json.loads(text("docker/grafana/boards/tallymark.json"))


def questions():
    return [(panel["title"], target["expr"]) for panel in board()["panels"] for target in panel.get("targets", [])]


def every_metric_that_is_asked_for_is_shown_by_the_program():
    shown = shown_metrics()
    if len(shown) < 30:
        yield f"only {len(shown)} names were found in the source: the way they are registered has changed, and this check with it"
    asked = [(rule["alert"], rule["expr"]) for rule in rules()]
    asked += [(f"board: {title}", expr) for title, expr in questions()]
    asked += [("alerts_test.yml", text("docker/prometheus/alerts_test.yml"))]
    asked += [("prometheus-adapter.yml", re.sub(r"(?m)^ *as: .*$", "", text("docker/kubernetes/prometheus-adapter.yml")))]
    for where, expression in asked:
        for name in sorted(set(re.findall(r"tallymark_\w+", expression)) - shown):
            yield f"{where}: no process shows {name}"


def every_alert_has_a_scenario_an_entry_for_operators_and_a_severity():
    tests = text("docker/prometheus/alerts_test.yml")
    fires = set(re.findall(r'alertname="(\w+)"', tests))
    entries = set(re.findall(r"^#+ (\w+)$", text("docs/operators.md"), re.M))
    names = [rule["alert"] for rule in rules()]
    for rule in rules():
        name = rule["alert"]
        if name not in fires:
            yield f"{name}: no scenario of alerts_test.yml fires it"
        if name not in entries:
            yield f"{name}: docs/operators.md has no heading of that name"
        if rule["annotations"].get("runbook") != f"docs/operators.md#{name.lower()}":
            yield f"{name}: its runbook is not docs/operators.md#{name.lower()}"
        if rule["labels"].get("severity") not in ("page", "ticket"):
            yield f"{name}: its severity is neither page nor ticket"
    yield from (f"docs/operators.md explains {name}, and there is no such alert" for name in sorted(entries - set(names)) if name.startswith("Tallymark"))


def the_jobs_of_prometheus_are_the_roles_of_compose():
    services = load("docker/compose.yaml")["services"]
    for job in load("docker/prometheus/prometheus.yml")["scrape_configs"]:
        role = job["job_name"].removeprefix("tallymark-")
        targets = [target.split(":")[0] for config in job["static_configs"] for target in config["targets"]]
        if role in ROLES and sorted(targets) != sorted(name for name, service in services.items() if service.get("command") == [role]):
            yield f"{job['job_name']} asks {targets}"


def prometheus_finds_every_pod_in_kubernetes():
    """Writes SCRATCH/scrape.yml, for a promtool that knows no Kubernetes."""
    config = load("docker/kubernetes/prometheus-scrape.yml")
    for job in config["scrape_configs"]:
        discovery = job.pop("kubernetes_sd_configs")
        job["static_configs"] = [{"targets": ["localhost:8080"]}]
        if discovery != [{"role": "pod", "namespaces": {"names": ["tallymark"]}}]:
            yield "it looks for other things than pods of the namespace tallymark"
        keep = next(step["regex"] for step in job["relabel_configs"] if step.get("action") == "keep")
        for name, pod in pods():
            ports = [port["name"] for container in pod["containers"] for port in container.get("ports", [])]
            if name in ROLES and not any(re.fullmatch(keep, f"tallymark;{port}") for port in ports):
                yield f"{name}: no port of its pods is asked"
    (SCRATCH / "scrape.yml").write_text(yaml.safe_dump(config))


def the_board_is_whole():
    taken = {}
    panels = board()["panels"]
    if len({panel["id"] for panel in panels}) != len(panels):
        yield "two panels have the same id"
    for panel in panels:
        at, title = panel["gridPos"], panel["title"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            if cell[0] >= 24 or cell in taken:
                yield f"{title!r} lies outside, or over {taken.get(cell)!r}"
                break
            taken[cell] = title
        if panel["type"] != "row" and (not panel.get("targets") or panel["datasource"]["uid"] != "${datasource}"):
            yield f"{title!r} asks nothing, or another datasource than the one that is chosen"
    written = {"groups": [{"name": "board", "rules": [{"record": f"q{n}", "expr": expr} for n, (_, expr) in enumerate(questions())]}]}
    (SCRATCH / "board.yml").write_text(yaml.safe_dump(written))


# --- Settings


def keys():
    return set(re.findall(r'^        name: "(\w+)",$', "\n".join(p.read_text() for p in (ROOT / "src/config").rglob("*.rs")), re.M))


def kubernetes_settings():
    return tomllib.loads(find("ConfigMap", "tallymark")[0]["data"]["tallymark.toml"])


def every_setting_that_is_given_is_one_of_the_program():
    known = keys()
    if len(known) < 20:
        yield f"only {len(known)} settings were found in the source: the way they are written has changed, and this check with it"
    config_map = find("ConfigMap", "tallymark")[0]["data"]["tallymark.toml"]
    (SCRATCH / "kubernetes.toml").write_text(config_map)
    # What is commented out is to be taken in as it stands.
    commented = set(re.findall(r"^# (\w+) = ", config_map + text("docker/tallymark.toml"), re.M))
    given = set(tomllib.loads(text("docker/tallymark.toml"))) | set(kubernetes_settings()) | commented
    yield from (f"there is no setting {name}" for name in sorted(given - known))
    variables = {name.lower() for name in re.findall(r"\bTALLYMARK_(\w+)", "".join(text(f"docker/{p}") for p in ["Dockerfile", "compose.yaml"]))}
    variables |= {e["name"].removeprefix("TALLYMARK_").lower() for _, pod in pods() for c in pod["containers"] for e in c.get("env", [])}
    yield from (f"there is no variable TALLYMARK_{name.upper()}" for name in sorted(variables - known - {"config"}))


# --- Compose


def compose_shows_nothing_beyond_this_machine_and_waits_for_what_it_needs():
    services = load("docker/compose.yaml")["services"]
    for name, service in services.items():
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name}: port {port} is reachable from other machines"
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN", key) and value:
                yield f"{name}: {key} is written in the open"
        if service["image"].endswith(":latest") or ":" not in service["image"]:
            yield f"{name}: {service['image']} may be another one tomorrow"
        own = service["image"] == "tallymark:local"
        if not own and "healthcheck" not in service:
            yield f"{name} has no health check"
        for other, how in service.get("depends_on", {}).items():
            one_shot = other == "migrate"
            if how["condition"] != ("service_completed_successfully" if one_shot else "service_healthy"):
                yield f"{name} does not wait until {other} {'is done' if one_shot else 'is well'}"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(".") and not (DOCKER / source).exists():
                yield f"{name}: there is no {source}"
        if own and service.get("command") != ["migrate"] and "migrate" not in service["depends_on"]:
            yield f"{name} does not wait for the tables"
    if "HEALTHCHECK" not in text("docker/Dockerfile"):
        yield "the image has no health check"


def the_image_runs_without_rights():
    dockerfile = text("docker/Dockerfile")
    last = dockerfile.rsplit("\nFROM ", 1)[1]
    if not re.search(r"^USER 65532:65532$", last, re.M):
        yield "the last stage does not run as 65532:65532"
    channel = re.search(r'channel = "([\d.]+)"', text("rust-toolchain.toml"))[1]
    if f"RUSTUP_TOOLCHAIN={channel} " not in dockerfile or f"rust:{channel.rsplit('.', 1)[0]}-" not in dockerfile:
        yield f"it is not built by the toolchain of the repository, {channel}"
    members = re.search(r"members = \[(.*?)\]", text("Cargo.toml"), re.S)[1]
    taken = {line[1:].split("/")[0] for line in text("docker/Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    for member in re.findall(r'"([^"]+)"', members):
        if member.split("/")[0] not in taken:
            yield f"the workspace has the member {member}, which Dockerfile.dockerignore keeps from the build"


# --- Kubernetes


def pods():
    return [(d["metadata"]["name"], d["spec"]["template"]["spec"]) for kind in ("Deployment", "Job") for d in find(kind)]


def seconds(value):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)?", str(value)).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, None: 1}[unit]


def pods_have_no_rights_and_stop_in_peace():
    settings = kubernetes_settings()
    stop = seconds(settings["stop_delay"]) + 3 * seconds(settings["drain_timeout"])
    for name, pod in pods():
        security = pod["securityContext"]
        if not security.get("runAsNonRoot") or security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name}: the pod may run as root or without seccomp"
        if pod.get("enableServiceLinks") is not False or pod.get("automountServiceAccountToken") is not False:
            yield f"{name}: service links or a token of the API are given to the pod"
        for container in pod["containers"]:
            rights = container["securityContext"]
            if rights.get("allowPrivilegeEscalation") is not False or not rights.get("readOnlyRootFilesystem") or rights["capabilities"]["drop"] != ["ALL"]:
                yield f"{name}: its container may get more rights or write to its image"
            if not {"cpu", "memory"} <= set(container["resources"]["requests"]) or "memory" not in container["resources"]["limits"]:
                yield f"{name}: its container does not say what it needs"
            if name in ROLES:
                if container["args"] != [name]:
                    yield f"{name} runs {container['args']}"
                paths = [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")]
                if paths != ["/livez", "/livez", "/readyz"]:
                    yield f"{name}: its probes ask {paths}"
        if name in ROLES and pod["terminationGracePeriodSeconds"] < stop + 10:
            yield f"{name}: killed after {pod['terminationGracePeriodSeconds']} s, while a stop may take {stop} s"


def each_role_is_deployed_spread_guarded_and_scaled():
    settings = kubernetes_settings()
    for role in ROLES:
        labels = {"app.kubernetes.io/name": "tallymark", "app.kubernetes.io/component": role}
        deployment = find("Deployment", role)[0]["spec"]
        pod = deployment["template"]
        selectors = [deployment["selector"], find("PodDisruptionBudget", role)[0]["spec"]["selector"]]
        selectors += [spread["labelSelector"] for spread in pod["spec"]["topologySpreadConstraints"]]
        if pod["metadata"]["labels"] != labels or any(selector["matchLabels"] != labels for selector in selectors):
            yield f"{role}: labels and selectors do not agree"
        scaler = find("HorizontalPodAutoscaler", role)[0]["spec"]
        if scaler["scaleTargetRef"]["name"] != role or scaler["minReplicas"] < 2:
            yield f"{role}: its autoscaler scales another one, or down to one"
        if role == "aggregate" and scaler["maxReplicas"] > settings["sources"]:
            yield f"aggregate: up to {scaler['maxReplicas']} pods for {settings['sources']} partitions: some would have nothing to do"
        lag = [m["external"]["metric"]["name"] for m in scaler["metrics"] if m["type"] == "External"]
        if role == "aggregate" and lag != re.findall(r"(?m)^ *as: (\w+)$", text("docker/kubernetes/prometheus-adapter.yml")):
            yield f"aggregate: its autoscaler asks for {lag}, which the adapter does not make"
        services = [s["spec"] for s in find("Service", role)]
        if role != "aggregate" and (len(services) != 1 or services[0]["selector"] != labels):
            yield f"{role}: there is no service for it"


def the_network_keeps_others_out_while_there_is_no_key():
    denies = [p for p in find("NetworkPolicy") if p["spec"]["podSelector"] == {} and set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"} and not p["spec"].get("ingress")]
    if kubernetes_settings().get("insecure") and not denies:
        yield "insecure = true, and no policy that shuts everyone out first"
    for policy in find("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            if not rule.get("from"):
                yield f"{policy['metadata']['name']} lets everybody in"


def kustomization_names_every_manifest():
    named = set(load("docker/kubernetes/kustomization.yaml")["resources"])
    there = {path.name for path in (DOCKER / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    yield from (f"{name}" for name in sorted(named ^ there))
    for name, document in manifests():
        if document["kind"] not in ("Kustomization", "Namespace") and document["metadata"].get("namespace") != "tallymark":
            yield f"{name}: {document['kind']} {document['metadata']['name']} is in no namespace"


def main():
    checks = [
        every_metric_that_is_asked_for_is_shown_by_the_program,
        every_alert_has_a_scenario_an_entry_for_operators_and_a_severity,
        the_jobs_of_prometheus_are_the_roles_of_compose,
        prometheus_finds_every_pod_in_kubernetes,
        the_board_is_whole,
        every_setting_that_is_given_is_one_of_the_program,
        compose_shows_nothing_beyond_this_machine_and_waits_for_what_it_needs,
        the_image_runs_without_rights,
        pods_have_no_rights_and_stop_in_peace,
        each_role_is_deployed_spread_guarded_and_scaled,
        the_network_keeps_others_out_while_there_is_no_key,
        kustomization_names_every_manifest,
    ]
    wrong = False
    for check in checks:
        name = check.__name__.replace("_", " ")
        faults = list(check())
        wrong |= bool(faults)
        print(f"{'FAILED  ' if faults else 'ok      '} {name}", *(f"         {fault}" for fault in faults), sep="\n")
    sys.exit(wrong)


main()
