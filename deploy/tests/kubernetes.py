#!/usr/bin/env python3
"""Judges deploy/kubernetes/broker.yaml: Kubernetes' schemas, the "restricted" Pod Security Standard, names that refer to each other.

Usage: kubernetes.py                    one line a check on stdout; exit 1 at the first that fails
       kubernetes.py words STEP...      a list of words of the pod, one a line: `words containers 0 args`
       kubernetes.py volumes SOURCES TO  lays the deployment's volumes out as a kubelet does, with the links that it makes; secrets and
                                         config maps that are not in the file come from SOURCES/NAME/KEY
"""

import copy
import os
import re
import sys
from pathlib import Path

import kubernetes_validate
import yaml

MANIFEST = Path(__file__).resolve().parent.parent / "kubernetes" / "broker.yaml"
# What some pods of a cluster may do and these may not: https://kubernetes.io/docs/concepts/security/pod-security-standards/
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
GROUP = 65532


class Wrong(Exception):
    """A check that failed."""


def main():
    documents = read()
    for name, check in CHECKS.items():
        print(f"kubernetes: {name}: {check(documents)}")
    for what, caught_by, change in MISTAKES:
        changed = copy.deepcopy(documents)
        change(changed)
        try:
            CHECKS[caught_by](changed)
        except (Wrong, kubernetes_validate.ValidationError) as e:
            print(f"kubernetes: mistake found: {what}: {str(e).splitlines()[0]}")
        else:
            raise Wrong(f"the mistake was not found: {what}")


def read():
    return {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))}


def schemas(documents):
    for document in documents.values():
        kubernetes_validate.validate(document, "1.37", strict=True)
    return f"{len(documents)} objects, of Kubernetes 1.37, nothing unknown in them"


def restricted(documents):
    labels = documents["Namespace", "mvault"]["metadata"]["labels"]
    demand(labels.get("pod-security.kubernetes.io/enforce") == "restricted", "the namespace does not enforce it")
    pod = pod_of(documents)
    demand(not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), "a namespace of the host")
    whole = pod["securityContext"]
    demand(whole["runAsNonRoot"] is True and whole["runAsUser"] > 0, "may run as root")
    demand(whole["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost"), "no seccomp profile")
    for volume in pod["volumes"]:
        demand(set(volume) - {"name"} <= VOLUMES, f"volume {volume['name']}: {sorted(set(volume) - {'name'})}")
    for c in containers(pod):
        own = c["securityContext"]
        demand(own.get("allowPrivilegeEscalation") is False, f"{c['name']}: may gain privileges")
        demand(own["capabilities"] == {"drop": ["ALL"]}, f"{c['name']}: capabilities {own['capabilities']}")
        demand(own.get("readOnlyRootFilesystem") is True, f"{c['name']}: writes to its image (ours, not the standard's)")
        demand("privileged" not in own and not any("hostPort" in p for p in c.get("ports", [])), f"{c['name']}: privileged, or a port of the host")
        demand("memory" in c["resources"]["limits"], f"{c['name']}: no limit of memory (ours, not the standard's)")
    demand(pod["automountServiceAccountToken"] is False, "a token of the API in the pod (ours, not the standard's)")
    return "broker and tunnel, and beyond it: read-only images, limits of memory, no token of the API"


def availability(documents):
    deployment, pdb = documents["Deployment", "mvault-broker"]["spec"], documents["PodDisruptionBudget", "mvault-broker"]["spec"]
    demand(2 <= pdb["minAvailable"] < deployment["replicas"], "the disruption budget leaves one broker, or no room to drain a node")
    demand(deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, "a roll-out takes a broker away first")
    broker = container(documents, "broker")
    admin = re.search(r'^admin = "(.*)"$', config(documents, "broker.toml"), re.M).group(1)
    for probe, path in ("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz"):
        demand(broker[probe]["exec"]["command"] == ["/usr/bin/probe", admin, path], f"{probe}: {broker[probe]['exec']}")
    demand("startupProbe" in container(documents, "tunnel"), "the broker does not wait for the tunnel")
    demand(broker["lifecycle"]["preStop"]["sleep"]["seconds"] + 30 <= pod_of(documents)["terminationGracePeriodSeconds"], "killed while it answers")
    return f"{deployment['replicas']} replicas, {pdb['minAvailable']} at least; probes ask the admin port"


def names(documents):
    label = {"app.kubernetes.io/name": "mvault-broker"}
    deployment = documents["Deployment", "mvault-broker"]["spec"]
    selectors = [deployment["template"]["metadata"]["labels"], deployment["selector"]["matchLabels"]]
    selectors += [documents["Service", "mvault-broker"]["spec"]["selector"], documents["PodDisruptionBudget", "mvault-broker"]["spec"]["selector"]["matchLabels"]]
    selectors += [documents["NetworkPolicy", "mvault-broker"]["spec"]["podSelector"]["matchLabels"]]
    demand(all(s == label for s in selectors), f"a selector selects something else: {selectors}")
    demand(all(d["metadata"].get("namespace", "mvault") == "mvault" for d in documents.values()), "an object in another namespace")
    pod = pod_of(documents)
    volumes = {v["name"] for v in pod["volumes"]}
    mounts = {m["name"] for c in containers(pod) for m in c["volumeMounts"]}
    demand(volumes == mounts, f"volumes {volumes}, mounts {mounts}")
    operator = {m["name"] for m in container(documents, "tunnel")["volumeMounts"]} & {"broker", "operator"}
    demand(not operator, "the tunnel reads the broker's keys")
    demand(not any(d["kind"] == "Secret" for d in documents.values()), "a secret in the file")
    port = int(re.search(r'^listen = ".*:(\d+)"$', config(documents, "broker.toml"), re.M).group(1))
    demand(documents["Service", "mvault-broker"]["spec"]["ports"][0]["port"] == port == container(documents, "broker")["ports"][0]["containerPort"], "ports")
    return "selectors, volumes and ports agree; no secret; the tunnel has none of the broker's keys"


def network(documents):
    nothing = documents["NetworkPolicy", "nothing"]["spec"]
    demand(nothing == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "the namespace is not closed")
    spec = documents["NetworkPolicy", "mvault-broker"]["spec"]
    database = re.search(r"^connect = (.*):(\d+)$", config(documents, "stunnel.conf"), re.M)
    out = [{"to": [{"ipBlock": {"cidr": f"{database.group(1)}/32"}}], "ports": [{"port": int(database.group(2)), "protocol": "TCP"}]}]
    demand(spec["egress"] == out, f"egress {spec['egress']}, where stunnel.conf connects to {database.groups()}")
    for rule in spec["ingress"]:
        demand(rule["ports"] == [{"port": 8443, "protocol": "TCP"}] and rule["from"], f"ingress {rule}")
        demand(all("ipBlock" in peer and not peer["ipBlock"]["cidr"].endswith("/0") for peer in rule["from"]), f"ingress from {rule['from']}")
    return "closed but for the model segment to 8443, and PostgreSQL"


CHECKS = {"schemas": schemas, "restricted": restricted, "availability": availability, "names": names, "network": network}


def change(path, value):
    def it(documents):
        *parents, last = path
        here = documents
        for step in parents:
            here = here[step]
        if value is None:
            del here[last]
        else:
            here[last] = value

    return it


POD = (("Deployment", "mvault-broker"), "spec", "template", "spec")
MISTAKES = [
    ("a misspelt field", "schemas", change((*POD, "automountServiceAcountToken"), False)),
    ("a broker that may run as root", "restricted", change((*POD, "securityContext", "runAsNonRoot"), False)),
    ("a volume of the host", "restricted", change((*POD, "volumes", 1), {"name": "operator", "hostPath": {"path": "/"}})),
    ("capabilities kept", "restricted", change((*POD, "containers", 0, "securityContext", "capabilities"), {})),
    ("readiness that does not ask", "availability", change((*POD, "containers", 0, "readinessProbe", "exec", "command"), ["/usr/bin/mvault"])),
    ("one replica", "availability", change((("Deployment", "mvault-broker"), "spec", "replicas"), 1)),
    ("a service of other pods", "names", change((("Service", "mvault-broker"), "spec", "selector"), {"app": "x"})),
    ("the tunnel with the operator's key", "names", change((*POD, "initContainers", 0, "volumeMounts", 0, "name"), "operator")),
    ("brokers that reach everything", "network", change((("NetworkPolicy", "mvault-broker"), "spec", "egress"), [{}])),
    ("brokers that everyone reaches", "network",
     change((("NetworkPolicy", "mvault-broker"), "spec", "ingress", 0, "from", 0, "ipBlock", "cidr"), "0.0.0.0/0")),
]  # fmt: skip


def lay_out(sources, to):
    """The volumes, as a kubelet makes them: files of root and the pod's group, behind links that it can turn at once."""
    documents = read()
    mode = 0o440
    for volume in pod_of(documents)["volumes"]:
        parts = volume["projected"]["sources"] if "projected" in volume else [volume]
        data = to / volume["name"] / "..2026_01_01_00_00_00.1"
        for part in parts:
            kind = "configMap" if "configMap" in part else "secret"
            name = part[kind].get("name") or part[kind]["secretName"]
            there = documents.get(("ConfigMap", name), {}).get("data") if kind == "configMap" else None
            there = {key: text.encode() for key, text in there.items()} if there else {p.name: p.read_bytes() for p in (sources / name).iterdir()}
            for item in part[kind].get("items") or [{"key": key, "path": key} for key in there]:
                file = data / item["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(there[item["key"]])
                file.chmod(mode)
                os.chown(file, 0, GROUP)
        (to / volume["name"] / "..data").symlink_to(data.name)
        for top in data.iterdir():
            (to / volume["name"] / top.name).symlink_to(f"..data/{top.name}")


def pod_of(documents):
    return documents["Deployment", "mvault-broker"]["spec"]["template"]["spec"]


def containers(pod):
    return pod["containers"] + pod["initContainers"]


def container(documents, name):
    return next(c for c in containers(pod_of(documents)) if c["name"] == name)


def config(documents, name):
    return documents["ConfigMap", "mvault-broker"]["data"][name]


def demand(true, message):
    if not true:
        raise Wrong(message)


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["volumes"]:
            lay_out(Path(sys.argv[2]), Path(sys.argv[3]))
        elif sys.argv[1:2] == ["words"]:
            here = pod_of(read())
            for step in sys.argv[2:]:
                here = here[int(step) if step.isdigit() else step]
            print(*here, sep="\n")
        else:
            main()
    except Wrong as e:
        sys.exit(f"kubernetes.py: error: {e}")
