#!/usr/bin/env python3
"""Deploys deploy/aws/vault.yaml to emulators of AWS and judges what their APIs say of it; then makes mistakes, which must be found.

Usage: aws.py MVAULT MINISTACK [LOCALSTACK-PYTHON]   (programs)
LocalStack knows every resource, but ignores the rules of security groups; MiniStack keeps those, and knows no instances, no object
lock, and no groups of endpoints. What an emulator does not know is not judged there. One line a check on stdout; exit 1 at the first that fails.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import boto3
from botocore.exceptions import ClientError
from cfnlint.decode import cfn_yaml

TEMPLATE = Path(__file__).resolve().parent.parent / "aws" / "vault.yaml"
ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/"
PCRS = [["a0" * 48, "a1" * 48, "a2" * 48], ["b0" * 48, "b1" * 48, "b2" * 48]]
PARAMETERS = {
    "VaultPrefix": "team/prod",
    "AdminArn": ROLE + "key-admin",
    "PublisherArn": ROLE + "ci",
    "PullerArn": ROLE + "data",
    "Pcr0": PCRS[0][0],
    "Pcr1": PCRS[0][1],
    "Pcr2": PCRS[0][2],
    "ClientCidr": "10.1.0.0/16",
    "BrokerCidr": "10.2.0.5/32",
    "ImageId": "ami-12345678",
}
SECOND = {"NextPcr0": PCRS[1][0], "NextPcr1": PCRS[1][1], "NextPcr2": PCRS[1][2]}
# What each emulator cannot be asked about.
UNKNOWN = {"LocalStack": {"security groups"}, "MiniStack": {"object lock", "network", "instance"}}


class Wrong(Exception):
    """A check that failed."""


def main():
    mvault, ministack, localstack = sys.argv[1], sys.argv[2], (sys.argv[3:] or [None])[0]
    text = TEMPLATE.read_text(encoding="utf-8")
    judge_text(text)
    with tempfile.TemporaryDirectory(prefix="mvault-deploy-") as folder:
        servers = []
        try:
            servers.append(Server("MiniStack", [ministack], Path(folder, "ministack")))
            if localstack:
                servers.append(Server("LocalStack", [localstack, "-m", "localstack.runtime.main"], Path(folder, "localstack")))
            else:
                print("skipped: LocalStack, which needs Python 3.13: object lock and instance are judged by the template's text alone")
            for server in servers:
                server.wait()
                judge(server, text, mvault, Path(folder))
        finally:
            for server in servers:
                server.stop()


def judge(server, text, mvault, folder):
    def checks():
        return {name: check for name, check in CHECKS.items() if name not in UNKNOWN[server.name]}

    stack = server.deploy("right", text, {})
    for name, check in checks().items():
        say(server, f"{name}: {check(Deployed(server, stack, mvault, folder, PCRS[:1]))}")
    stack = server.deploy("two", text, SECOND)
    say(server, f"second release: {key_policy(Deployed(server, stack, mvault, folder, PCRS))}")
    for number, (what, caught_by, change) in enumerate(MISTAKES):
        if caught_by in UNKNOWN[server.name]:
            continue
        deployed = Deployed(server, server.deploy(f"wrong{number}", change(text), {}), mvault, folder, PCRS[:1])
        found = {}
        for name, check in checks().items():
            try:
                check(deployed)
            except (Wrong, ClientError) as e:
                found[name] = str(e)
        demand(caught_by in found, f"{server.name}: the mistake was not found: {what} (found: {found})")
        say(server, f"mistake found: {what}: {found[caught_by]}")


# Checks: each asks the emulator, and returns what it saw in a few words or raises Wrong.


def versioning(d):
    status = d.server.s3.get_bucket_versioning(Bucket=d.bucket).get("Status")
    demand(status == "Enabled", f"versioning is {status}")
    return "enabled"


def object_lock(d):
    lock = d.server.s3.get_object_lock_configuration(Bucket=d.bucket)["ObjectLockConfiguration"]
    rule = lock["Rule"]["DefaultRetention"]
    demand(lock["ObjectLockEnabled"] == "Enabled" and rule["Days"] >= 1, f"object lock is {lock}")
    return f"{rule['Mode'].lower()}, {rule['Days']} days"


def public_access(d):
    block = d.server.s3.get_public_access_block(Bucket=d.bucket)["PublicAccessBlockConfiguration"]
    demand(len(block) == 4 and all(block.values()), f"public access is blocked in part only: {block}")
    return "blocked in all four ways"


def bucket_policy(d):
    statements = by_sid(json.loads(d.server.s3.get_bucket_policy(Bucket=d.bucket)["Policy"]))
    demand(all(s["Effect"] == "Deny" for s in statements.values()), "the bucket's policy allows something")
    whole = [f"arn:aws:s3:::{d.bucket}", f"arn:aws:s3:::{d.bucket}/*"]
    tls = statements.get("TlsOnly")
    right = {"Effect": "Deny", "Principal": "*", "Action": ["s3:*"], "Resource": whole, "Condition": {"Bool": {"aws:SecureTransport": ["false"]}}}
    demand(tls == right, f"TlsOnly is {tls}")
    prefix = statements.get("NothingBesideThePrefix", {})
    inside = [f"arn:aws:s3:::{d.bucket}/{PARAMETERS['VaultPrefix']}/*"]
    demand(prefix.get("NotResource") == inside and {"s3:GetObject", "s3:PutObject"} <= set(prefix["Action"]), f"NothingBesideThePrefix is {prefix}")
    writers = statements["PublishersWrite"]["Condition"]["StringNotEquals"]["aws:PrincipalArn"]
    demand(sorted(writers) == sorted([d.output("PublisherRoleArn"), PARAMETERS["AdminArn"]]), f"who may write: {writers}")
    host = statements["EnclaveHostsFromTheSegment"]
    demand(host["Principal"] == {"AWS": [d.output("EnclaveHostRoleArn")]} and host["Action"] == ["s3:*"], f"EnclaveHostsFromTheSegment is {host}")
    return "TLS only, the prefix only, publishers write, hosts by their endpoint, administrators erase"


def key_policy(d):
    text = d.server.kms.get_key_policy(KeyId=d.output("KeyArn"), PolicyName="default")["Policy"]
    releases = "".join(
        f'[[release]]\nname = "{n}"\n' + "".join(f'pcr{i} = "{pcr}"\n' for i, pcr in enumerate(pcrs)) for n, pcrs in enumerate(d.pcrs, 1)
    )
    policy = d.file("policy.toml", f'version = 1\nname = "deploy"\nplatform = "aws-nitro"\nmax_age_s = 300\n{releases}')
    lint = d.mvault("policy", "lint", d.file("key-policy.json", text), "--policy", policy)
    demand(lint.returncode == 0, f"mvault policy lint: {lint.stdout.strip() or lint.stderr.strip()}".splitlines()[0])
    wanted = d.mvault("policy", "kms", policy, "-q", "--admin", PARAMETERS["AdminArn"], "--principal", d.output("EnclaveHostRoleArn"),
                      "--sealer", d.output("PublisherRoleArn"))  # fmt: skip
    demand(wanted.returncode == 0, wanted.stderr)
    same(by_sid(json.loads(text)), by_sid(json.loads(wanted.stdout)), "mvault policy kms")
    for number, pcrs in enumerate(d.pcrs, 1):
        condition = by_sid(json.loads(text))[f"OpenInRelease{number}"]["Condition"]["StringEqualsIgnoreCase"]
        demand(condition == {f"kms:RecipientAttestation:PCR{i}": [pcr] for i, pcr in enumerate(pcrs)}, f"OpenInRelease{number}: {condition}")
    return f"attestation of PCR0, 1, 2 in {len(d.pcrs)} release(s); the statements of mvault policy kms; mvault policy lint finds nothing"


def roles(d):
    vault, key = f"s3://{d.bucket}/{PARAMETERS['VaultPrefix']}", d.output("KeyArn")
    # who, what `mvault iam` is asked, and what the key's policy denies in any case, so that it is not granted either
    for output, arguments, less in [
        ("PublisherRoleArn", ["--role", "publisher", "--vault", vault, "--kms", key], {"kms:Decrypt"}),
        ("PullerRoleArn", ["--role", "puller", "--vault", vault], set()),
        ("EnclaveHostRoleArn", ["--role", "puller", "--vault", vault, "--kms", key], set()),
    ]:
        name, iam = d.output(output).rsplit("/", 1)[1], d.server.iam
        demand(iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == [], f"{output}: more policies are attached")
        (policy,) = iam.list_role_policies(RoleName=name)["PolicyNames"]
        wanted = by_sid(json.loads(d.mvault("iam", *arguments).stdout))
        for statement in wanted.values():
            statement["Action"] = [action for action in statement["Action"] if action not in less]
        same(by_sid(iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]), wanted, f"mvault iam, for {output}")
    return "publisher, puller and enclave host have what mvault iam prints, and publishers no kms:Decrypt"


def security_groups(d):
    host, endpoint = d.output("HostSecurityGroupId"), d.output("EndpointSecurityGroupId")
    wanted = {
        (host, "in", "tcp", 8443, 8443, PARAMETERS["ClientCidr"]),
        (host, "out", "tcp", 443, 443, endpoint),
        (host, "out", "tcp", 8443, 8443, PARAMETERS["BrokerCidr"]),
        (endpoint, "in", "tcp", 443, 443, "10.86.0.0/26"),
        (endpoint, "out", "tcp", 1, 1, "127.0.0.1/32"),
    }
    seen = set()
    for group in d.server.ec2.describe_security_groups(GroupIds=[host, endpoint])["SecurityGroups"]:
        for way, rules in ("in", group["IpPermissions"]), ("out", group["IpPermissionsEgress"]):
            for r in rules:
                peers = [p["CidrIp"] for p in r.get("IpRanges", [])] + [p["CidrIpv6"] for p in r.get("Ipv6Ranges", [])]
                peers += [p["GroupId"] for p in r.get("UserIdGroupPairs", [])] + [p["PrefixListId"] for p in r.get("PrefixListIds", [])]
                seen |= {(group["GroupId"], way, r["IpProtocol"], r.get("FromPort"), r.get("ToPort"), peer) for peer in peers}
    public = [f"{way} {peer}" for _, way, _, _, _, peer in seen if peer in ("0.0.0.0/0", "::/0")]
    demand(not public, f"open to everyone: {', '.join(public)}")
    demand(seen == wanted, f"rules too many {sorted(seen - wanted, key=str)}, missing {sorted(wanted - seen, key=str)}")
    return "clients to 8443, hosts to the endpoints and the broker, nothing else"


def network(d):
    ec2, vpc = d.server.ec2, d.resource("Vpc")
    mine = [{"Name": "vpc-id", "Values": [vpc]}]
    gateways = ec2.describe_internet_gateways(Filters=[{"Name": "attachment.vpc-id", "Values": [vpc]}])["InternetGateways"]
    routes = [r for table in ec2.describe_route_tables(Filters=mine)["RouteTables"] for r in table["Routes"]]
    ways = [r for r in routes if r.get("GatewayId") != "local"]
    demand(not gateways and not ways, f"a way out: {gateways} {ways}")
    endpoints = ec2.describe_vpc_endpoints(Filters=mine)["VpcEndpoints"]
    services = sorted(e["ServiceName"].rsplit(".", 1)[1] for e in endpoints)
    demand(services == ["kms", "s3", "sts"], f"endpoints: {services}")
    for e in endpoints:
        demand([g["GroupId"] for g in e["Groups"]] == [d.output("EndpointSecurityGroupId")], f"{e['ServiceName']}: groups {e['Groups']}")
        policy = e["PolicyDocument"]
        for s in by_sid(json.loads(policy) if isinstance(policy, str) else policy).values():
            demand(s["Principal"] == {"AWS": [d.output("EnclaveHostRoleArn")]}, f"{e['ServiceName']}: for {s['Principal']}")
            demand(not any("*" in action for action in s["Action"]), f"{e['ServiceName']}: allows {s['Action']}")
    return "no gateway, local routes only; endpoints of S3, KMS and STS, each for the enclave host's role alone"


def instance(d):
    (it,) = d.server.ec2.describe_instances(InstanceIds=[d.output("EnclaveHostId")])["Reservations"][0]["Instances"]
    demand(it["InstanceType"] == "m6i.xlarge", f"instance type {it['InstanceType']}")
    return f"launched, {it['InstanceType']} (LocalStack does not show its enclave options, metadata options and groups: the text is judged)"


CHECKS = {
    "versioning": versioning,
    "object lock": object_lock,
    "public access": public_access,
    "bucket policy": bucket_policy,
    "key policy": key_policy,
    "roles": roles,
    "security groups": security_groups,
    "network": network,
    "instance": instance,
}


def judge_text(text):
    """What no emulator shows, and what parameters refuse."""
    template, problems = cfn_yaml.loads(text), []
    host = template["Resources"]["EnclaveHost"]["Properties"]
    demand(host["EnclaveOptions"] == {"Enabled": True}, "EnclaveOptions")
    demand(host["MetadataOptions"]["HttpTokens"] == "required" and host["MetadataOptions"]["HttpPutResponseHopLimit"] == 1, "MetadataOptions")
    demand(all(disk["Ebs"]["Encrypted"] is True for disk in host["BlockDeviceMappings"]), "a disk is not encrypted")
    demand(host["SecurityGroupIds"] == [{"Fn::GetAtt": ["HostSecurityGroup", "GroupId"]}] and "NetworkInterfaces" not in host, "SecurityGroupIds")
    print("text: enclaves enabled, IMDSv2 with one hop, disks encrypted, one security group")
    for name, values in {
        "Pcr0": {"0" * 96: False, "a0" * 48: True, "a0" * 47: False},
        "NextPcr2": {"": True, "0" * 96: False, "a0" * 48: True},
        "ClientCidr": {"0.0.0.0/0": False, "10.0.0.0/8": True, "10.0.0.0/1": False},
        "BrokerCidr": {"0.0.0.0/0": False, "10.0.0.1/32": True, "10.0.0.0/16": False},
        "AdminArn": {f"arn:aws:iam::{ACCOUNT}:root": False, "*": False, ROLE + "a/b": True},
        "VaultPrefix": {"a/b": True, "": False, "*": False, "a/": False},
    }.items():
        pattern = template["Parameters"][name]["AllowedPattern"]
        problems += [f"{name}: {value!r}" for value, good in values.items() if bool(re.fullmatch(pattern, value)) != good]
    demand(not problems, f"parameters: {problems}")
    print("text: parameters refuse zeros as PCRs, everyone as clients, whole networks as broker, root as administrator")


def replaced(old, new):
    def change(text):
        demand(text.count(old) >= 1, f"the template has no {old!r}")
        return text.replace(old, new, 1)

    return change


def without(first, last):
    """The template without the lines from the first to before the last."""

    def change(text):
        start = text.index(first)
        return text[:start] + text[text.index(last, start) :]

    return change


MISTAKES = [
    ("no versioning", "versioning", without("      VersioningConfiguration:", "      PublicAccessBlockConfiguration:")),
    ("no object lock", "object lock", without("      ObjectLockEnabled: true", "      PublicAccessBlockConfiguration:")),
    ("a bucket policy that allows plain http", "bucket policy", without("          - Sid: TlsOnly", "          - Sid: ModernTlsOnly")),
    ("a key policy without the attestation condition", "key policy",
     without("              StringEqualsIgnoreCase:", "              StringEquals:")),
    ("a key policy that does not deny opening without evidence", "key policy",
     without("          - Sid: NoOpeningWithoutEvidence", "          - Sid: NoSealingByOthers")),
    ("a public security group", "security groups", replaced("CidrIp: !Ref ClientCidr", "CidrIp: 0.0.0.0/0")),
    ("a security group that lets everything out", "security groups", without("      SecurityGroupEgress:", "  EndpointSecurityGroup:")),
    ("publishers that may open", "roles", replaced("Action: [kms:GenerateDataKey]", "Action: [kms:GenerateDataKey, kms:Decrypt]")),
    ("an endpoint for everyone", "network",
     replaced("- Sid: EnclaveHostsDecrypt\n            Effect: Allow\n            Principal:\n              AWS: !GetAtt EnclaveHostRole.Arn",
              "- Sid: EnclaveHostsDecrypt\n            Effect: Allow\n            Principal:\n              AWS: '*'")),
]  # fmt: skip


class Server:
    """An emulator of AWS on a port of this machine, which ends with us."""

    def __init__(self, name, command, folder):
        self.name, self.folder = name, folder
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_") and k != "PYTHONPATH"}
        environment |= {"TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"GATEWAY_PORT": str(self.port), "BIND_HOST": "127.0.0.1", "IOT_MTLS_ENABLED": "0", "S3_DATA_DIR": str(folder / "s3")}
        environment |= {"GATEWAY_LISTEN": f"127.0.0.1:{self.port}", "LOCALSTACK_VOLUME_DIR": str(folder / "data"), "ACTIVATE_PRO": "0"}
        environment |= {"DISABLE_EVENTS": "1", "SKIP_SSL_CERT_DOWNLOAD": "1", "DNS_ADDRESS": "0", "EAGER_SERVICE_LOADING": "0"}
        environment |= {"SERVICES": "cloudformation,ec2,iam,kms,s3,sts"}
        self.log = open(folder / "log", "wb")
        self.process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True
        )
        options = {"endpoint_url": f"http://127.0.0.1:{self.port}", "region_name": "eu-west-1"}
        # The emulators take any key of the account; nothing secret.
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test")
        self.cloudformation, self.s3, self.kms, self.iam, self.ec2 = (
            session.client(service, **options) for service in ("cloudformation", "s3", "kms", "iam", "ec2")
        )

    def wait(self):
        ends = time.monotonic() + 90
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < ends and self.process.poll() is None:
            try:
                opener.open(f"http://127.0.0.1:{self.port}/_localstack/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        raise Wrong(f"{self.name} does not start: {(self.folder / 'log').read_text(errors='replace')[-2000:]}")

    def deploy(self, name, text, more):
        if "instance" in UNKNOWN[self.name]:
            text = without("  EnclaveHost:\n", "Outputs:")(text)
            text = replaced("  EnclaveHostId:\n    Value: !Ref EnclaveHost\n", "")(text)
        parameters = PARAMETERS | {"BucketName": f"vault-{name}"} | more
        cloudformation = self.cloudformation
        cloudformation.create_stack(
            StackName=name, TemplateBody=text, Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
        )  # fmt: skip
        ends = time.monotonic() + 60
        while True:
            (stack,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
            if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                break
            demand(time.monotonic() < ends, f"{self.name}: {name} is still {stack['StackStatus']}")
            time.sleep(0.3)
        resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        bad = [r["LogicalResourceId"] for r in resources if r["ResourceStatus"] != "CREATE_COMPLETE" or "not supported" in r.get("ResourceStatusReason", "")]
        demand(stack["StackStatus"] == "CREATE_COMPLETE" and not bad, f"{self.name}: {name} is {stack['StackStatus']}: {bad}")
        if name == "right":
            say(self, f"deployed, {len(resources)} resources")
        return stack, {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources}, parameters["BucketName"]

    def stop(self):
        """Ends its session: the emulator and what it started."""
        for signal_ in signal.SIGTERM, signal.SIGKILL:
            try:
                os.killpg(self.process.pid, signal_)
                self.process.wait(10)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                pass
        self.process.wait()
        self.log.close()


class Deployed:
    """A stack on an emulator, and what it is compared with."""

    def __init__(self, server, stack, mvault, folder, pcrs):
        self.server, (self.stack, self.resources, self.bucket) = server, stack
        self.program, self.folder, self.pcrs = mvault, folder, pcrs

    def output(self, name):
        return next(o["OutputValue"] for o in self.stack["Outputs"] if o["OutputKey"] == name)

    def resource(self, name):
        return self.resources[name]

    def file(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder / name

    def mvault(self, *arguments):
        return subprocess.run([self.program, *arguments], capture_output=True, text=True, check=False)


def by_sid(policy):
    """A policy's statements by their names; what may be one string or a list of one is a list."""

    def lists(value):
        if isinstance(value, dict):
            return {k: lists(v) for k, v in value.items()}
        return sorted(map(str, value)) if isinstance(value, list) else [str(value)]

    def statement(s):
        principal = s.get("Principal")
        return {k: v if k in ("Effect", "Sid") or v == "*" == principal else lists(v) for k, v in s.items() if k != "Sid"}

    return {s["Sid"]: statement(s) for s in policy["Statement"]}


def same(seen, wanted, what):
    differ = sorted(sid for sid in seen.keys() | wanted.keys() if seen.get(sid) != wanted.get(sid))
    demand(not differ, f"not what {what} prints: {', '.join(differ)}")


def demand(true, message):
    if not true:
        raise Wrong(message)


def say(server, text):
    print(f"{server.name}: {text}", flush=True)


if __name__ == "__main__":
    # so that what was started is ended
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except Wrong as e:
        sys.exit(f"aws.py: error: {e}")
