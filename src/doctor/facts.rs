//! What the kernel says of a machine and of the disk below a directory. Numbers and texts as they were read: what they are
//! good for is `findings`'. What could not be read is `None`, or empty.

use std::time::Duration;

use crate::bench::json::Json;

/// A machine, as a directory on it sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// The machine itself.
    pub host: HostFacts,
    /// The filesystem of the directory.
    pub filesystem: FilesystemFacts,
    /// The disk below it; none below a RAM disk or a network.
    pub disk: Option<DiskFacts>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFacts {
    /// The kernel's release.
    pub kernel: String,
    /// What the processor calls itself.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: Vec<usize>,
    /// Cores that the scheduler leaves alone (`isolcpus=`).
    pub isolated_cores: String,
    /// Whether it is a virtual machine.
    pub is_virtual: bool,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of swap.
    pub swap_bytes: u64,
    /// What tells the time, and what else could.
    pub clock_source: String,
    /// What else could.
    pub clock_sources: String,
    /// Frequency governors of the cores, each once; empty if the frequency is not the kernel's affair.
    pub governors: Vec<String>,
    /// Nanoseconds for which a virtual machine's idle core looks for work before it is given back to the host; `None` where
    /// the kernel has no such rule.
    pub halt_poll_nanos: Option<u64>,
    /// `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// Why io_uring cannot be used, if it cannot.
    pub ring_obstacle: Option<String>,
    /// Operations that io_uring knows.
    pub ring_operations: usize,
    /// Feature bits that io_uring tells at set-up.
    pub ring_features: u32,
    /// Bytes that may be locked, soft and hard.
    pub memlock: (u64, u64),
    /// Files that may be open, soft and hard.
    pub descriptors: (u64, u64),
    /// Connections that may wait to be accepted.
    pub somaxconn: Option<u64>,
    /// How eagerly memory is swapped.
    pub swappiness: Option<u64>,
    /// Whether a daemon moves interrupts about.
    pub has_irqbalance: bool,
}

/// A filesystem.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilesystemFacts {
    /// Its type, such as `ext4`.
    pub kind: String,
    /// Its device's name.
    pub source: String,
    /// How it is mounted.
    pub options: String,
    /// Bytes free.
    pub free_bytes: u64,
    /// Whether it is memory (or on a disk of memory): nothing is durable there.
    pub is_memory: bool,
    /// Whether it takes O_DIRECT.
    pub takes_direct: Option<bool>,
    /// Alignment that O_DIRECT asks for: of memory, of offsets. Zeros if the kernel does not say.
    pub direct_align: (u32, u32),
}

/// A disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiskFacts {
    /// Such as `nvme0n1`.
    pub name: String,
    /// What it calls itself.
    pub model: String,
    /// Its queue's settings by name, as below `/sys/block/NAME/queue`.
    pub queue: Vec<(String, String)>,
    /// Bytes from the disk's start to the partition's; `None` without a partition.
    pub partition_start: Option<u64>,
    /// Hardware queues.
    pub queues: usize,
    /// Cores that its interrupts are delivered to.
    pub interrupt_cores: Vec<usize>,
    /// The core that a server would choose as home.
    pub home_core: usize,
    /// Whether it was chosen for the interrupts.
    pub home_serves_disk: bool,
}

impl DiskFacts {
    /// A setting of its queue.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let found = self.queue.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The chosen one of a list such as `none [mq-deadline] kyber`.
    pub fn scheduler(&self) -> Option<&str> {
        chosen(self.setting("scheduler")?)
    }

    /// Whether writes rest in a cache of the device until it is told to flush.
    pub fn has_write_cache(&self) -> Option<bool> {
        self.setting("write_cache").map(|cache| cache == "write back")
    }

    /// Whether one write can be made durable without flushing all others.
    pub fn has_fua(&self) -> Option<bool> {
        self.setting("fua").map(|fua| fua == "1")
    }
}

/// What else happened while somebody looked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// How long was looked.
    pub elapsed: Duration,
    /// Part of it in which the disk had something to do.
    pub disk_busy_share: f64,
    /// Reads from the disk in a second.
    pub disk_reads_per_second: f64,
    /// Writes to it.
    pub disk_writes_per_second: f64,
    /// Who read and wrote, most first: process, name, bytes a second.
    pub users: Vec<(u32, String, f64)>,
    /// Part of the time that each core was busy.
    pub core_busy_shares: Vec<(usize, f64)>,
    /// Part of the time that the hypervisor took from all cores.
    pub stolen_share: f64,
}

/// The item in brackets.
pub fn chosen(list: &str) -> Option<&str> {
    let start = list.find('[')? + 1;
    let end = start + list[start..].find(']')?;
    Some(&list[start..end])
}

impl Facts {
    /// One line on where something was measured.
    pub fn line(&self) -> String {
        let host = &self.host;
        let filesystem = &self.filesystem;
        let disk = self.disk.as_ref().map_or_else(
            || "no disk".to_owned(),
            |disk| {
                let cache = match (disk.has_write_cache(), disk.has_fua()) {
                    (Some(true), Some(true)) => "write cache, FUA",
                    (Some(true), _) => "write cache, no FUA",
                    (Some(false), _) => "no write cache",
                    (None, _) => "write cache unknown",
                };
                let model = if disk.model.is_empty() { "" } else { " " };
                let scheduler = disk.scheduler().unwrap_or("none");
                format!("{}{model}{}, {cache}, scheduler {scheduler}", disk.name, disk.model)
            },
        );
        let kind = if host.is_virtual { ", virtual" } else { "" };
        let memory = if filesystem.is_memory {
            " - A RAM DISK: nothing is durable, and no figure says anything of a disk"
        } else {
            ""
        };
        format!(
            "{} cores of {}{kind}, {} MiB; Linux {}; {} on {disk}{memory}",
            host.cores.len(),
            host.processor,
            host.memory_bytes >> 20,
            host.kernel,
            filesystem.kind,
        )
    }

    /// For programs.
    pub fn json(&self) -> Json {
        let text = |text: &str| Json::text(text);
        let number = |number: u64| Json::Number(number as f64);
        let cores = |cores: &[usize]| Json::Array(cores.iter().map(|core| Json::Number(*core as f64)).collect());
        let host = &self.host;
        let mut object = Json::object([
            ("kernel", text(&host.kernel)),
            ("processor", text(&host.processor)),
            ("cores", cores(&host.cores)),
            ("is_virtual", Json::Bool(host.is_virtual)),
            ("memory_bytes", number(host.memory_bytes)),
            ("clock_source", text(&host.clock_source)),
            (
                "governors",
                Json::Array(host.governors.iter().map(|name| text(name)).collect()),
            ),
            ("halt_poll_nanos", host.halt_poll_nanos.map_or(Json::Null, number)),
            ("huge_pages", host.huge_pages.as_deref().map_or(Json::Null, text)),
            ("ring_operations", number(host.ring_operations as u64)),
            ("ring_features", number(u64::from(host.ring_features))),
            ("filesystem", text(&self.filesystem.kind)),
            ("filesystem_source", text(&self.filesystem.source)),
            ("filesystem_options", text(&self.filesystem.options)),
            ("is_ram_disk", Json::Bool(self.filesystem.is_memory)),
            (
                "takes_direct",
                self.filesystem.takes_direct.map_or(Json::Null, Json::Bool),
            ),
            ("direct_memory_align", number(u64::from(self.filesystem.direct_align.0))),
            ("direct_offset_align", number(u64::from(self.filesystem.direct_align.1))),
        ]);
        if let Some(disk) = &self.disk {
            let settings = disk.queue.iter().map(|(name, value)| (name.clone(), text(value)));
            let disk = Json::object([
                ("name", text(&disk.name)),
                ("model", text(&disk.model)),
                ("queues", number(disk.queues as u64)),
                ("interrupt_cores", cores(&disk.interrupt_cores)),
                ("home_core", number(disk.home_core as u64)),
                ("partition_start", disk.partition_start.map_or(Json::Null, number)),
                ("queue", Json::Object(settings.collect())),
            ]);
            object.insert("disk", disk);
        }
        object
    }
}
