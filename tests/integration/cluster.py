"""Real processes for the integration tests: `essor` commands and `essor serve` clusters.

Nothing here sleeps without a bound, and every process started is ended with the test.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ESSOR_BIN", ROOT / "build/release/bin"))
sys.path.insert(0, os.environ.get("ESSOR_PROTO_PYTHON", str(ROOT / "build/release/proto_python")))
NANO = ROOT / "tests/data/nano"
GOLDEN = ROOT / "tests/data/golden"
TIMEOUT_S = 90  # of one command; sanitizer builds are several times slower


def essor(*args, stdin=None, timeout=TIMEOUT_S, env=None):
    """Runs one `essor` command to its end; output as text."""
    return subprocess.run([str(BIN / "essor"), *map(str, args)], input=stdin, text=True,
                          capture_output=True, timeout=timeout, check=False,
                          env={**os.environ, **(env or {})})


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def with_context(directory, name, tokens):
    """A nano checkpoint whose context has `tokens` tokens, in `directory`."""
    target = pathlib.Path(directory) / name
    shutil.copytree(NANO / name, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "max_position_embeddings": tokens}))
    return target


def resident_bytes(pid):
    """What a process holds of the machine's memory."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"process {pid} holds no memory")


@contextlib.contextmanager
def ids_file(sequences):
    """A file for --tokens."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(sequences, file)
        file.flush()
        yield file.name


def wait_until(condition, timeout=20.0, interval=0.02):
    """The first true value of `condition`, or an AssertionError."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(interval)
    raise AssertionError(f"not true within {timeout} s: {condition}")


def children_of(pid):
    """{pid: command name} of the live children of a process."""
    found = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        name = text[text.index("(") + 1:text.rindex(")")]
        state, parent = text[text.rindex(")") + 2:].split()[:2]
        if int(parent) == pid and state != "Z":
            found[int(stat.parent.name)] = name
    return found


class Serve:
    """`essor serve` on free ports, ready when the constructor returns."""

    def __init__(self, model, *flags, ready_timeout=TIMEOUT_S, env=None):
        self.log = tempfile.NamedTemporaryFile("r", suffix=".log")
        log = open(self.log.name, "w")
        self.process = subprocess.Popen(
            [str(BIN / "essor"), "serve", "--model", str(model), "--listen-grpc", "127.0.0.1:0",
             "--listen-http", "127.0.0.1:0", "--listen-cluster", "127.0.0.1:0",
             *map(str, flags)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            env={**os.environ, **(env or {})})
        log.close()
        os.set_blocking(self.process.stdout.fileno(), False)
        text = b""

        def ready_line():
            nonlocal text
            text += self.process.stdout.read() or b""
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.poll()}: {self.logged()}")
            return b"\n" in text

        wait_until(ready_line, ready_timeout)
        ports = dict(part.split("=") for part in text.decode().split()[1:])
        self.grpc, self.http, self.cluster = ports["grpc"], ports["http"], ports["cluster"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()
        self.log.close()

    def logged(self):
        return pathlib.Path(self.log.name).read_text()

    def children(self, kind):
        """pids of the children whose name begins with essor-KIND, ascending. The kernel keeps 15
        characters of a name: the coordinator's ends in "coordinat"."""
        return sorted(pid for pid, name in children_of(self.process.pid).items()
                      if name.startswith(f"essor-{kind}"))

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, timeout=30):
        """Drains; the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    # HTTP ---------------------------------------------------------------------------------------

    def request(self, path, body=None, timeout=TIMEOUT_S, headers=None, method=None):
        """(status, headers, body bytes); errors too are answers."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.http}{path}", data=data, method=method,
                                         headers={"content-type": "application/json",
                                                  **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def post(self, path, body, **kwargs):
        status, _, answer = self.request(path, body, **kwargs)
        return status, json.loads(answer)

    def metric(self, name):
        _, _, text = self.request("/metrics")
        for line in text.decode().splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(f"no metric {name}")

    def idle(self):
        """Whether no request runs or waits, and no KV block is anybody's."""
        return all(self.metric(f"essor_{name}") == 0
                   for name in ["requests_running", "requests_waiting", "kv_blocks_used"])

    # gRPC ---------------------------------------------------------------------------------------

    def channel(self):
        import grpc
        return grpc.insecure_channel(self.grpc,
                                     options=[("grpc.max_receive_message_length", 64 << 20)])
