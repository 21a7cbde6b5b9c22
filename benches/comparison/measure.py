"""Takes measurements, a pair at a time, and keeps each pair as a line of `raw.jsonl` as soon as it is there."""
import json, math, os, re, shutil, signal, subprocess, time

from comparison.cases import BY_NAME, LISTED, MANY
from comparison.servers import FrozenDisk, Failed, PeakOfAnon, Server, differences, end_with_parent, mean_of, probe, resting_connections, stolen_seconds

FIGURES = ("mean_us", "p50_us", "p99_us", "p99.9_us", "max_us", "per_second", "count")

# What `ringd bench` is given: it ends by itself when a server says nothing for a minute.
TOO_LONG_SECONDS = 150


class Generator:
    """`ringd bench`, and what the kernel and the server say of the time in which it ran."""

    def __init__(self, ringd, directory):
        self.ringd, self.directory = ringd, directory

    def bench(self, server, words):
        """What `ringd bench` says: it refuses to report a run in which a request failed or the server died."""
        command = [self.ringd, "bench", *words.split(), "--endpoints", f"127.0.0.1:{server.port}", "-w", "json"]
        prefix = os.path.join(self.directory, "curve")
        command += ["--server-pid", str(server.process.pid), "--save", prefix]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TOO_LONG_SECONDS, preexec_fn=end_with_parent)
        except subprocess.TimeoutExpired:
            raise Failed(f"{server.name}: ringd bench {words}: no end within {TOO_LONG_SECONDS} s")
        if done.returncode != 0:
            raise Failed(f"{server.name}: ringd bench {words}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def begin(self, command):
        # A group of its own, so that what a shell started ends with it.
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=end_with_parent)

    def measured(self, server, words, operation):
        before = server.metrics()
        result = self.bench(server, words)
        series = result["operations"].get(operation)
        if not series:
            raise Failed(f"{server.name}: {words}: no {operation} ended in time")
        figures = {name: series[name] for name in FIGURES}
        used = result["server_processor_seconds"] * 1e6
        figures["server_us"] = used / max(result["requests"], 1)
        figures["resident_mib"] = result["server_resident_bytes_max"] / (1 << 20)
        figures["refusals"] = result["refusals"]
        figures["generator_busy"] = result["generator_busy_share"]
        figures["generator_late_us"] = result.get("own_delay", {}).get("p99.9_us", 0.0)
        if "event" in result["operations"]:
            figures["server_us_event"] = used / max(result["operations"]["event"]["count"], 1)
        figures |= differences(before, server.metrics())
        figures["curve"] = curve(os.path.join(self.directory, f"curve.{operation}.hgrm"))
        return figures


class Measurer(Generator):
    def __init__(self, options, etcdctl):
        super().__init__(options.ringd, options.dir)
        self.options, self.ctl = options, etcdctl
        self.servers = [Server("ringd", options.ringd, options.dir), Server("etcd", options.etcd, options.dir)]
        self.stalled = Server("ringd", options.ringd, os.path.join(options.dir, "stalled"))
        many = os.path.join(options.dir, "many")
        os.makedirs(many, exist_ok=True)
        self.many = [Server(server.name, server.binary, many) for server in self.servers]
        self.disk = None

    def pair(self, case, turn):
        """Figures by server's name, of one measurement of each."""
        seconds = case.seconds[1 if self.options.quick else 0]
        words = case.words.replace("SECONDS", str(seconds))
        order = 1 if turn % 2 == 0 else -1
        measured = {}
        if case.kind == "stalled":
            measured["ringd"] = self.while_stalled(words, case.operation)
            return measured
        for server in (self.many if case.kind in ("keys", "beside") else self.servers)[::order]:
            stolen, began = stolen_seconds(), time.monotonic()
            try:
                figures = getattr(self, case.kind)(server, case, words, seconds)
            finally:
                server.stop()
            figures["stolen_share"] = (stolen_seconds() - stolen) / (time.monotonic() - began) / os.cpu_count()
            measured[server.name] = figures
        return measured

    def close(self):
        for server in [*self.servers, *self.many, self.stalled]:
            server.stop()
        if self.disk:
            self.disk.remove()
            self.disk = None

    def load(self, server, case, words, seconds):
        server.start()
        return self.measured(server, words, case.operation)

    def lone(self, server, case, words, seconds):
        server.start()
        probes = probe(self.options.dir)
        figures = self.measured(server, words, case.operation)
        probes += probe(self.options.dir)
        figures["device_us"] = mean_of(probes)
        figures["device_p99_us"] = sorted(probes)[len(probes) * 99 // 100]
        return figures

    def clients(self, server, case, words, seconds):
        server.start()
        with PeakOfAnon(server) as anon:
            figures = self.measured(server, words, case.operation)
        figures["anon_peak_mib"] = anon.peak
        server.stop()
        server.start()
        figures["resting_bytes"] = resting_connections(server, 16_000)
        return figures

    def while_stalled(self, words, operation):
        self.disk = FrozenDisk(self.options.dir)
        server = self.stalled
        try:
            server.start()
            self.bench(server, words.split(" --duration")[0].replace("range", "range --load") + " --total 1000")
            self.disk.freeze()
            puts = self.begin([self.options.ringd, "bench", "put", "--clients", "20", "--total", "20", "--endpoints", f"127.0.0.1:{server.port}"])
            time.sleep(0.3)
            figures = self.measured(server, words, operation)
            if puts.poll() is not None:
                raise Failed("puts ended on a stalled disk: it was none")
            self.disk.thaw()
            if puts.wait(30) != 0:
                raise Failed(f"puts that waited for a stalled disk failed: {puts.stderr.read().decode().strip()}")
            return figures
        finally:
            self.disk.thaw()
            server.stop()
            self.disk.remove()
            self.disk = None

    def fill(self, server):
        """Starts a server on the store with many keys, which is filled once; seconds until it answered."""
        count, mark = self.options.keys, os.path.join(server.directory, "filled")
        is_filled = os.path.exists(mark) and open(mark).read() == str(count)
        took = server.start(fresh=not is_filled)
        if not is_filled:
            self.bench(server, f"put --clients 500 --conns 5 --total {count} --sequential-keys --key-space-size {count} {MANY}")
            with open(mark, "w") as out:
                out.write(str(count))
        return took

    def keys(self, server, case, words, seconds):
        self.fill(server)
        time.sleep(seconds)
        server.stop()
        restart = server.start(fresh=False)
        time.sleep(seconds)
        quiet = server.memory_mib("RssAnon")
        with PeakOfAnon(server) as anon:
            listed = self.bench(server, f"range {LISTED} /registry0 --total 3")
        figures = {"anon_mib": quiet, "anon_listing_mib": anon.peak, "restart_s": restart, "resident_mib": server.memory_mib("VmHWM")}
        figures["list_ms"] = listed["operations"]["range"]["p50_us"] / 1000
        return figures

    def beside(self, server, case, words, seconds):
        self.fill(server)
        # What a start leaves to be done is done, and what it dirtied is written.
        time.sleep(1)
        other = self.begin(self.meanwhile(server, *case.meanwhile, seconds)) if case.meanwhile else None
        try:
            figures = self.measured(server, words, case.operation)
            if other and other.poll() not in (None, 0):
                raise Failed(f"{server.name}: what was to go on meanwhile failed: {other.stderr.read().decode().strip()}")
        finally:
            if other:
                end(other)
        return figures

    def meanwhile(self, server, who, words, seconds):
        if who == "BENCH":
            words = words.replace("COUNT", str(self.options.keys))
            # Longer than what is measured: it is ended.
            return [self.options.ringd, "bench", *words.split(), "--duration", f"{seconds + 30}s", "--endpoints", f"127.0.0.1:{server.port}"]
        if not os.access(self.ctl, os.X_OK):
            raise Failed(f"there is no etcdctl beside {self.options.etcd}")
        file = os.path.join(self.options.dir, "snapshot.db")
        call = f"'{self.ctl}' --endpoints 127.0.0.1:{server.port} {words.replace('FILE', file)}"
        return ["sh", "-c", f"while rm -f '{file}'; do {call} || exit 1; sleep 0.2; done"]

    def h2load(self, server, case, words, seconds):
        """h2load believes in HTTP's 200, which gRPC's refusals have too: the server's own count of OKs must agree."""
        if not shutil.which("h2load"):
            raise Failed("h2load is not there: it comes with nghttp2 (Debian: nghttp2-client)")
        server.start()
        clients, connections = (int(re.search(rf"--{name} (\d+)", words).group(1)) for name in ("clients", "conns"))
        is_put = case.operation == "put"
        message = b"\x0a\x10" + b"0" * 16 + (b"\x12\x80\x01" + b"v" * 128 if is_put else b"")
        body = os.path.join(self.options.dir, "body.bin")
        with open(body, "wb") as out:
            out.write(b"\0" + len(message).to_bytes(4, "big") + message)
        ours = [self.measured(server, words, case.operation)]
        requests = int(ours[0]["per_second"] * seconds)
        command = ["h2load", "-n", str(requests), "-c", str(connections), "-m", str(clients // connections), "-d", body, "-H", "te: trailers"]
        command += ["-H", "content-type: application/grpc", f"http://127.0.0.1:{server.port}/etcdserverpb.KV/{'Put' if is_put else 'Range'}"]
        before = server.metrics()
        output = subprocess.run(command, capture_output=True, text=True).stdout
        answers = differences(before, server.metrics())
        if (answers["answered_ok"], answers["answered_otherwise"]) != (requests, 0):
            raise Failed(f"{server.name}: of {requests} requests of h2load {answers['answered_ok']:.0f} ended with status OK")
        # Between two of ours, so that a machine that becomes slower does not look like a difference.
        ours.append(self.measured(server, words, case.operation))
        theirs = float(re.search(r"([\d.]+) req/s", output).group(1))
        mine = sum(run["per_second"] for run in ours) / 2
        return {"per_second": mine, "h2load_per_second": theirs, "h2load_ratio": mine / theirs}


def end(process):
    try:
        os.killpg(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
    process.wait()


def curve(path):
    """Points (1 / (1 - percentile), microseconds) of an .hgrm file: as many as a drawing needs."""
    points = []
    for line in open(path):
        words = line.split()
        if len(words) >= 3 and not line.startswith("#") and words[0] != "Value":
            count = float(words[2])
            odds = float(words[3]) if len(words) > 3 else math.inf
            points.append((max(min(odds, count), 1.0), float(words[0])))
    kept = []
    for x, y in points:
        if not kept or x >= kept[-1][0] * 1.08 or y >= kept[-1][1] * 1.3 or (x, y) == points[-1]:
            kept.append((round(x, 3), y))
    return kept


class Notes:
    """The pairs that are there, in `raw.jsonl`: of this directory, and of others when a table is made of several."""

    def __init__(self, directories):
        self.path = os.path.join(directories[0], "raw.jsonl")
        self.runs, self.pairs, self.failures = [], [], []
        for directory in directories:
            path = os.path.join(directory, "raw.jsonl")
            if os.path.exists(path):
                for line in open(path):
                    # A run that was cut in the middle of a line loses that line.
                    try:
                        self.take(json.loads(line))
                    except json.JSONDecodeError:
                        continue

    def take(self, note):
        {"run": self.runs, "pair": self.pairs, "failure": self.failures}[note["is"]].append(note)

    def add(self, note):
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path, "a") as out:
            out.write(json.dumps(note) + "\n")
            out.flush()
            os.fsync(out.fileno())
        self.take(note)

    def has(self, case, turn):
        return any((pair["case"], pair["turn"]) == (case.name, turn) for pair in self.pairs)

    def seconds(self, case, quick):
        """What a pair takes: as it took before, or as it is thought to."""
        took = [pair["took_s"] for pair in self.pairs if pair["case"] == case.name]
        servers = 1 if case.kind == "stalled" else 2
        length = case.seconds[1 if quick else 0] * (3 if case.kind == "h2load" else 1)
        return max(took) if took else servers * (length + 1.5) + case.besides

    def failed(self):
        """The failures that no later pair has made good."""
        good = {pair["case"] for pair in self.pairs}
        return {failure["case"]: failure["why"] for failure in self.failures if failure["case"] not in good}


def chosen(only, extra):
    """The cases that are wanted, in order; a name may end in * for all that begin so."""
    if not only:
        return [case for case in BY_NAME.values() if extra or not case.extra]
    wanted = []
    for name in only:
        found = [case for case in BY_NAME.values() if case.name == name or (name.endswith("*") and case.name.startswith(name[:-1]))]
        if not found:
            raise Failed(f"--only {name}: there is no such case (--list shows them)")
        wanted += [case for case in found if case not in wanted]
    return wanted
