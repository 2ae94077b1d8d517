"""Coordinator and workers on different hosts: three network namespaces joined by a bridge.

Between namespaces no memory is shared, so activations travel over TCP. Needs root; skipped with a
message where that, or network namespaces, are not to be had.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

from cluster import BIN, NANO, golden, ids_file, wait_until

PREFIX = f"essor{os.getpid() % 10000}"


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


class Network:
    """`count` namespaces, each with eth0 at 10.77.0.(i + 1), all on one bridge of their own."""

    def __init__(self, count):
        self.spaces = [f"{PREFIX}-{i}" for i in range(count)]
        self.hub = f"{PREFIX}-hub"
        commands = [["netns", "add", self.hub], ["-n", self.hub, "link", "add", "br0", "type", "bridge"],
                    ["-n", self.hub, "link", "set", "br0", "up"]]
        for i, space in enumerate(self.spaces):
            commands += [["netns", "add", space],
                         ["-n", self.hub, "link", "add", f"v{i}", "type", "veth", "peer", "name",
                          "eth0", "netns", space],
                         ["-n", self.hub, "link", "set", f"v{i}", "master", "br0", "up"],
                         ["-n", space, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0"],
                         ["-n", space, "link", "set", "eth0", "up"],
                         ["-n", space, "link", "set", "lo", "up"]]
        self.error = ""
        for command in commands:
            result = ip(*command)
            if result.returncode != 0:
                self.error = f"ip {' '.join(command)}: {result.stderr.strip()}"
                self.close()
                return

    def start(self, index, *argv):
        return subprocess.Popen(["ip", "netns", "exec", self.spaces[index], *map(str, argv)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def close(self):
        for space in [*self.spaces, self.hub]:
            ip("netns", "delete", space)


class NetworkNamespaceTest(unittest.TestCase):
    def setUp(self):
        self.network = Network(3)
        self.assertEqual(self.network.error, "")
        self.processes = []

    def tearDown(self):
        for process in self.processes:
            process.kill()
            process.communicate()
        self.network.close()

    def start(self, *arguments):
        self.processes.append(self.network.start(*arguments))

    def test_workers_on_two_hosts_give_the_tokens_of_one(self):
        with tempfile.TemporaryDirectory() as directory:
            ports = os.path.join(directory, "ports.json")
            self.start(0, BIN / "essor-coordinator", "--model", NANO / "mixtral", "--plan", "tp=2",
                       "--listen-grpc", "10.77.0.1:50051", "--listen-http", "10.77.0.1:8000",
                       "--listen-cluster", "10.77.0.1:50052", "--ports-file", ports)
            for host in (1, 2):
                self.start(host, BIN / "essor-worker", "--coordinator", "10.77.0.1:50052",
                           "--listen-data", f"10.77.0.{host + 1}", "--listen-health", "off")
            wait_until(lambda: os.path.exists(ports) and os.path.getsize(ports) > 0, 30)

            def status():
                answer = subprocess.run(
                    ["ip", "netns", "exec", self.network.spaces[0], BIN / "essor", "status",
                     "--server", "10.77.0.1:50051", "--json"],
                    capture_output=True, text=True, timeout=30, check=False)
                return answer.returncode == 0 and "READY" in answer.stdout.upper()

            wait_until(status, 60, 0.2)
            case = golden("mixtral")
            with ids_file([prompt["ids"] for prompt in case["prompts"]]) as ids:
                result = subprocess.run(
                    ["ip", "netns", "exec", self.network.spaces[0], BIN / "essor", "generate",
                     "--server", "10.77.0.1:50051", "--tokens", ids, "--ignore-eos",
                     "--max-new-tokens", "16", "--json"],
                    capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(result.returncode, 0, result.stderr)
            tokens = [sequence["token_ids"] for sequence in json.loads(result.stdout)["sequences"]]
            self.assertEqual(tokens, [prompt["greedy"] for prompt in case["prompts"]])


if __name__ == "__main__":
    probe = Network(1)
    probe.close()
    if probe.error:
        print(f"skipped: {probe.error}", file=sys.stderr)
        sys.exit(77)
    unittest.main()
