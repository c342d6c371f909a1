#!/usr/bin/env python3
"""Sends real packets through deploy/nftables/model-segment.nft, in network namespaces that are made for it and removed.

Three namespaces: the enclave host, the router with the rules, and the world with everyone else's addresses. Without the rules every
flow must pass, so a flow that does not pass with them is the rules' work. One line a flow on stdout; exit 1 if any is wrong.
Usage: segment.py (as root). `segment.py ask|answer …` is what it runs in the namespaces.
"""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RULES = Path(__file__).resolve().parent.parent / "nftables"
HOST, ROUTER, WORLD = (f"mvault-segment-{os.getpid()}-{name}" for name in ("host", "router", "world"))
SEGMENT = {HOST: ["10.86.0.10/26", "10.86.0.50/26", "fd86::10/64"], ROUTER: ["10.86.0.1/26", "fd86::1/64"]}
UPLINK = {ROUTER: ["192.0.2.1/24", "fd00::1/64"], WORLD: ["192.0.2.2/24", "fd00::2/64"]}
CLIENT, STRANGER, S3, KMS, STS, BROKER, INTERNET = (
    "10.1.0.7", "10.3.0.7", "10.86.1.10", "10.86.1.11", "10.86.1.12", "10.2.0.5", "203.0.113.9",
)  # fmt: skip
ENCLAVE_HOST, OTHER_HOST, GATEWAY = "10.86.0.10", "10.86.0.50", "10.86.0.1"
PORTS = {"tcp": [22, 53, 80, 443, 5432, 8443, 9443], "udp": [53, 123, 443]}
UDP = [ENCLAVE_HOST, INTERNET, GATEWAY]
PATIENCE = 1.0

# What it is, where it begins, its source, its destination, protocol, port.
ALLOWED = [
    ("enclave host to S3's endpoint", HOST, ENCLAVE_HOST, S3, "tcp", 443),
    ("enclave host to KMS's endpoint", HOST, ENCLAVE_HOST, KMS, "tcp", 443),
    ("enclave host to STS's endpoint", HOST, ENCLAVE_HOST, STS, "tcp", 443),
    ("enclave host to the broker", HOST, ENCLAVE_HOST, BROKER, "tcp", 8443),
    ("client to the TLS port", WORLD, CLIENT, ENCLAVE_HOST, "tcp", 8443),
]
REFUSED = [
    ("enclave host to the internet", HOST, ENCLAVE_HOST, INTERNET, "tcp", 443),
    ("enclave host to the internet over QUIC", HOST, ENCLAVE_HOST, INTERNET, "udp", 443),
    ("enclave host to a name server, UDP", HOST, ENCLAVE_HOST, INTERNET, "udp", 53),
    ("enclave host to a name server, TCP", HOST, ENCLAVE_HOST, INTERNET, "tcp", 53),
    ("enclave host to a time server", HOST, ENCLAVE_HOST, INTERNET, "udp", 123),
    ("enclave host to S3's endpoint in plain http", HOST, ENCLAVE_HOST, S3, "tcp", 80),
    ("enclave host to the broker's admin port", HOST, ENCLAVE_HOST, BROKER, "tcp", 9443),
    ("enclave host to the broker's database", HOST, ENCLAVE_HOST, BROKER, "tcp", 5432),
    ("enclave host to the broker's address on 443", HOST, ENCLAVE_HOST, BROKER, "tcp", 443),
    ("enclave host to a client", HOST, ENCLAVE_HOST, CLIENT, "tcp", 8443),
    ("enclave host to the router", HOST, ENCLAVE_HOST, GATEWAY, "tcp", 22),
    ("enclave host to the router, UDP", HOST, ENCLAVE_HOST, GATEWAY, "udp", 53),
    ("enclave host to the internet, ping", HOST, ENCLAVE_HOST, INTERNET, "icmp", 0),
    ("enclave host to S3's endpoint, ping", HOST, ENCLAVE_HOST, S3, "icmp", 0),
    ("enclave host to the world, IPv6", HOST, "fd86::10", "fd00::2", "tcp", 443),
    ("another machine of the segment to KMS's endpoint", HOST, OTHER_HOST, KMS, "tcp", 443),
    ("another machine of the segment to the broker", HOST, OTHER_HOST, BROKER, "tcp", 8443),
    ("client to ssh", WORLD, CLIENT, ENCLAVE_HOST, "tcp", 22),
    ("client to metrics", WORLD, CLIENT, ENCLAVE_HOST, "tcp", 9443),
    ("client to the TLS port over UDP", WORLD, CLIENT, ENCLAVE_HOST, "udp", 443),
    ("client to another machine of the segment", WORLD, CLIENT, OTHER_HOST, "tcp", 8443),
    ("client, ping", WORLD, CLIENT, ENCLAVE_HOST, "icmp", 0),
    ("stranger to the TLS port", WORLD, STRANGER, ENCLAVE_HOST, "tcp", 8443),
    ("internet to the TLS port", WORLD, INTERNET, ENCLAVE_HOST, "tcp", 8443),
    ("broker to the TLS port", WORLD, BROKER, ENCLAVE_HOST, "tcp", 8443),
    ("S3's endpoint to the TLS port", WORLD, S3, ENCLAVE_HOST, "tcp", 8443),
    ("world to the TLS port, IPv6", WORLD, "fd00::2", "fd86::10", "tcp", 8443),
    ("router to ssh of the enclave host", ROUTER, GATEWAY, ENCLAVE_HOST, "tcp", 22),
]
# Not the segment's: these rules leave it alone.
ELSEWHERE = [("client to the broker, past the segment", WORLD, "192.0.2.2", "192.0.2.1", "tcp", 22)]


def main():
    servers = []
    try:
        network()
        servers = [in_namespace(n, "answer", stdout=subprocess.PIPE) for n in (HOST, ROUTER, WORLD)]
        for server in servers:
            demand(server.stdout.readline() == b"ready\n", "a server does not start")
        # Links and neighbours take a moment to find each other. Datagrams are counted, so they wait.
        warming = [flow for flow in ALLOWED + REFUSED + ELSEWHERE if flow[4] != "udp"]
        for _ in range(10):
            if all(passed for _, passed in asked(warming)):
                break
        mute = [flow[0] for flow, passed in asked(ALLOWED + REFUSED + ELSEWHERE) if not passed]
        demand(not mute, f"without rules these do not pass, so they would say nothing: {', '.join(mute)}")
        print(f"without rules: all {len(ALLOWED + REFUSED + ELSEWHERE)} flows pass")
        load = ["ip", "netns", "exec", ROUTER, "nft", "-I", str(RULES), "-f", str(RULES / "model-segment.nft")]
        run(load)
        run(load)  # again: it replaces itself
        wrong = 0
        for flows, wanted in (ALLOWED + ELSEWHERE, True), (REFUSED, False):
            for flow, passed in asked(flows):
                wrong += passed != wanted
                verdict = "passes" if passed else "is refused"
                print(f"{verdict}: {flow[0]} ({flow[2]} to {flow[3]} {flow[4]} {flow[5] or 'echo'})" + ("  WRONG" if passed != wanted else ""))
        demand(wrong == 0, f"{wrong} flows are wrong")
        # An answer that is dropped would hide a question that is not.
        arrived = sum(stopped(server).count(b"got ") for server in servers)
        sent = sum(flow[4] == "udp" for flow in REFUSED)
        demand(arrived == sent, f"{arrived - sent} of {sent} datagrams arrived though no answer did")
        print(f"with rules: none of {sent} refused datagrams arrived")
    finally:
        for server in servers:
            stopped(server)
        for namespace in HOST, ROUTER, WORLD:
            subprocess.run(["ip", "netns", "delete", namespace], stderr=subprocess.DEVNULL, check=False)


def network():
    for namespace in HOST, ROUTER, WORLD:
        run(["ip", "netns", "add", namespace])
        run(["ip", "-n", namespace, "link", "set", "lo", "up"])
    for left, right, names, addresses in (HOST, ROUTER, ("eth0", "seg0"), SEGMENT), (ROUTER, WORLD, ("up0", "eth0"), UPLINK):
        run(["ip", "-n", left, "link", "add", names[0], "type", "veth", "peer", "name", names[1], "netns", right])
        for namespace, link in zip((left, right), names, strict=True):
            for address in addresses[namespace]:
                run(["ip", "-n", namespace, "addr", "add", address, "dev", link, *(["nodad"] if ":" in address else [])])
            run(["ip", "-n", namespace, "link", "set", link, "up"])
    for address in CLIENT, STRANGER, S3, KMS, STS, BROKER, INTERNET:
        run(["ip", "-n", WORLD, "addr", "add", address + "/32", "dev", "lo"])
    run(["ip", "-n", HOST, "route", "add", "default", "via", GATEWAY])
    run(["ip", "-n", HOST, "route", "add", "default", "via", "fd86::1"])
    run(["ip", "-n", ROUTER, "route", "add", "default", "via", "192.0.2.2"])
    run(["ip", "-n", WORLD, "route", "add", "10.86.0.0/26", "via", "192.0.2.1"])
    run(["ip", "-n", WORLD, "route", "add", "fd86::/64", "via", "fd00::1"])
    # Its own namespace's alone: the machine's forwarding stays as it is.
    for switch in "ipv4/ip_forward", "ipv6/conf/all/forwarding":
        run(["ip", "netns", "exec", ROUTER, "sh", "-c", f"echo 1 >/proc/sys/net/{switch}"])


def asked(flows):
    """Each flow and whether an answer came, in order."""

    def ask(flow):
        return in_namespace(flow[1], "ask", *map(str, flow[2:])).wait() == 0

    with ThreadPoolExecutor(8) as pool:
        return list(zip(flows, pool.map(ask, flows), strict=True))


def stopped(server):
    """Ends a server; what it said."""
    server.kill()
    server.wait()
    return b"" if server.stdout.closed else server.communicate()[0]


def in_namespace(namespace, *words, **options):
    return subprocess.Popen(["ip", "netns", "exec", namespace, sys.executable, __file__, *words], stdin=subprocess.DEVNULL, **options)


def ask(source, destination, protocol, port):
    """Exit 0 when the other side answered, 1 when nothing came."""
    if protocol == "icmp":
        return ping(source, destination)
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as s:
        s.settimeout(PATIENCE)
        s.bind((source, 0))
        try:
            s.connect((destination, int(port)))
            s.send(b"?")
            return s.recv(1) != b"!"
        except OSError:
            return True


def ping(source, destination):
    name, rest = struct.pack("!H", os.getpid() & 0xFFFF), b"\0\1mvault"
    words = struct.unpack("!6H", b"\x08\0" + name + rest)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        s.bind((source, 0))
        s.sendto(b"\x08\0" + struct.pack("!H", ~total & 0xFFFF) + name + rest, (destination, 0))
        ends = time.monotonic() + PATIENCE
        while (left := ends - time.monotonic()) > 0:
            s.settimeout(left)
            try:
                packet, (sender, _) = s.recvfrom(256)
            except OSError:
                break
            header = 4 * (packet[0] & 15)
            if sender == destination and packet[header] == 0 and packet[header + 4 : header + 6] == name:
                return False
    return True


def answer():
    """Answers on every port until it is killed."""
    sockets = {}
    # UDP by address, so that the answer comes from where the question went
    for protocol, family, address in [("tcp", socket.AF_INET, ""), ("tcp", socket.AF_INET6, "::")] + [("udp", socket.AF_INET, a) for a in UDP]:
        for port in PORTS[protocol]:
            s = socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                s.bind((address, port))
            except OSError:
                continue  # another namespace's
            if protocol == "tcp":
                s.listen(64)
            sockets[s.fileno()] = (s, protocol)
    print("ready", flush=True)
    while True:
        for number in select.select(list(sockets), [], [])[0]:
            s, protocol = sockets[number]
            if protocol == "tcp":
                connection, _ = s.accept()
                connection.sendall(b"!")
                connection.close()
            else:
                _, peer = s.recvfrom(16)
                print("got", peer[0], flush=True)
                s.sendto(b"!", peer)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    demand(done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}")


def demand(true, message):
    if not true:
        raise SystemExit(f"segment.py: error: {message}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ask", *words]:
            sys.exit(ask(*words))
        case ["answer"]:
            answer()
        case _:
            # so that what was made is removed
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            main()
