"""The two servers, and what the kernel and they themselves say of what they use."""
import ctypes, mmap, os, re, resource, shutil, signal, socket, statistics, subprocess, threading, time, urllib.request


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def end_with_parent():
    """In a new process: it ends when this program does, also when this one is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Failed(Exception):
    """A measurement that is not reported, with the sentence why."""


class Server:
    def __init__(self, name, binary, directory, flags=()):
        self.name, self.binary, self.directory, self.flags, self.port = name, binary, os.path.join(directory, name), flags, 0
        self.process = None

    def start(self, fresh=True):
        """Seconds until it answers. With `fresh` on an empty directory."""
        if fresh:
            self.remove()
        self.port, peer_port = free_ports(2)
        url, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peer_port}"
        arguments = [self.binary, "--data-dir", self.directory, "--listen-client-urls", url, "--advertise-client-urls", url]
        arguments += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        arguments += ["--initial-cluster", f"default={peer}", "--log-level", "error", "--quota-backend-bytes", str(8 << 30), *self.flags]
        began = time.perf_counter()
        with open(self.directory + ".log", "a") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log, preexec_fn=end_with_parent)
        while time.perf_counter() - began < 60:
            if self.process.poll() is not None:
                last = [line for line in open(self.directory + ".log", errors="replace") if line.strip()][-1:]
                raise Failed(f"{self.name} ended before it was ready: {''.join(last).strip()}")
            try:
                urllib.request.urlopen(url + "/health", timeout=1).read()
                return time.perf_counter() - began
            except OSError:
                time.sleep(0.01)
        raise Failed(f"{self.name} was not ready within 60 s")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def remove(self):
        """Removes its files, and lets the disk get over it: removed blocks may be discarded."""
        if os.path.exists(self.directory):
            shutil.rmtree(self.directory)
            os.sync()
        if os.path.exists(self.directory + ".log"):
            os.remove(self.directory + ".log")

    def memory_mib(self, name):
        status = open(f"/proc/{self.process.pid}/status").read()
        return int(re.search(rf"{name}:\s+(\d+)", status).group(1)) / 1024

    def written_bytes(self):
        """What the process has had the disk write so far."""
        return int(re.search(r"write_bytes: (\d+)", open(f"/proc/{self.process.pid}/io").read()).group(1))

    def metrics(self):
        """The sum of each counter over its labels; of calls those with status OK apart."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30).read().decode()
        sums = {}
        for line in text.splitlines():
            if line.startswith("#") or " " not in line:
                continue
            name, value = line.rsplit(" ", 1)
            plain = name.split("{")[0]
            if plain.endswith("_bucket"):
                continue
            if plain == "grpc_server_handled_total":
                plain += " OK" if 'grpc_code="OK"' in name else " other"
            sums[plain] = sums.get(plain, 0.0) + float(value)
        return sums


def differences(before, after):
    """What etcd's own metrics say of the time between: calls answered, and means of the log's syncs and the tree's commits."""
    since = lambda name: after.get(name, 0.0) - before.get(name, 0.0)
    figures = {"answered_ok": since("grpc_server_handled_total OK"), "answered_otherwise": since("grpc_server_handled_total other")}
    for figure, name in [("wal_fsync", "etcd_disk_wal_fsync_duration_seconds"), ("backend_commit", "etcd_disk_backend_commit_duration_seconds")]:
        count = since(name + "_count")
        figures[figure + "_count"] = count
        figures[figure + "_us"] = 1e6 * since(name + "_sum") / count if count else 0.0
    return figures


class PeakOfAnon:
    """Looks at a server's own memory until it is left, and keeps the largest."""

    def __init__(self, server):
        self.server, self.peak, self.over = server, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.over.wait(0.004):
            try:
                self.peak = max(self.peak, self.server.memory_mib("RssAnon"))
            except (OSError, AttributeError):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def probe(directory, seconds=0.3):
    """The bare device: 4 KiB writes with O_DIRECT|O_DSYNC to a file written before, in microseconds."""
    path = os.path.join(directory, "probe")
    if not os.path.exists(path):
        with open(path, "wb") as out:
            out.write(bytes(16 << 20))
            os.fsync(out.fileno())
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
    except OSError as error:
        raise Failed(f"{directory} does not take O_DIRECT: {error.strerror}")
    block, times, end = mmap.mmap(-1, 4096), [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        os.pwrite(descriptor, block, len(times) % 4096 * 4096)
        times.append((time.perf_counter() - began) * 1e6)
    os.close(descriptor)
    return times


def stolen_seconds():
    """Processor time that the hypervisor gave to others."""
    return int(open("/proc/stat").readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def text(value):
    return bytes([len(value)]) + value.encode()


def resting_connections(server, count):
    """Connects clients, each of which reads one key and then rests: bytes of the server's own memory for each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 100:
        raise Failed(f"{count} connections need as many open files, and this session may open {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    headers = b"\x83\x86\x04" + text("/etcdserverpb.KV/Range") + b"\x01" + text("localhost")
    headers += b"\x0f\x10" + text("application/grpc") + b"\x00" + text("te") + text("trailers")
    message = b"\x0a\x01k"
    opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(4, 1, 0, b"") + frame(1, 4, 1, headers)
    opening += frame(0, 1, 1, b"\0" + len(message).to_bytes(4, "big") + message)
    before, sockets = server.memory_mib("RssAnon"), []
    try:
        for first in range(0, count, 200):
            for _ in range(min(200, count - first)):
                connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
                connection.sendall(opening)
                sockets.append(connection)
            for connection in sockets[first:]:
                if not ends_well(connection):
                    raise Failed(f"{server.name}: one of {count} connections that read one key was closed without an answer")
        time.sleep(1)
        return (server.memory_mib("RssAnon") - before) * (1 << 20) / count
    finally:
        for connection in sockets:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def ends_well(connection):
    """Reads frames until the one that ends stream 1."""
    data = b""
    while True:
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            length, kind, flags, stream = int.from_bytes(data[:3], "big"), data[3], data[4], int.from_bytes(data[5:9], "big")
            if stream == 1 and flags & 1 and kind in (0, 1):
                return True
            data = data[9 + length:]
        more = connection.recv(4096)
        if not more:
            return False
        data += more


class FrozenDisk:
    """An ext4 of its own in a file, whose writes can be made to wait (fsfreeze)."""

    def __init__(self, directory):
        if os.geteuid() != 0:
            raise Failed("a disk can be stalled by root alone")
        missing = [tool for tool in ("mkfs.ext4", "mount", "umount", "fsfreeze") if not shutil.which(tool)]
        if missing:
            raise Failed(f"a disk is stalled with {missing[0]}, which is not there")
        self.image, self.path, self.frozen = os.path.join(directory, "stalled.img"), os.path.join(directory, "stalled"), False
        os.makedirs(self.path, exist_ok=True)
        with open(self.image, "wb") as out:
            out.truncate(1 << 30)
        self.call("mkfs.ext4", "-q", "-F", self.image)
        self.call("mount", "-o", "loop", self.image, self.path)

    def call(self, *command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")

    def freeze(self):
        self.call("fsfreeze", "-f", self.path)
        self.frozen = True

    def thaw(self):
        if self.frozen:
            self.call("fsfreeze", "-u", self.path)
            self.frozen = False

    def remove(self):
        self.thaw()
        for _ in range(50):
            if subprocess.run(["umount", self.path], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        os.remove(self.image)


def mean_of(probes):
    return statistics.mean(probes) if probes else float("nan")
