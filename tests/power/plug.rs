//! The disk is a process of its own, outside the namespace with the mounts: whichever of the two processes ends first, the
//! kernel can let go of the other's part. (A process that holds both the disk and the last reference to a filesystem on it
//! can never end: the kernel waits for it to answer.)
//!
//! The disk's standard input is FUSE's device, its standard output a socket for orders; the answer to each is three numbers.

use std::{
    env,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    disk::{Damage, Disk},
    fuse,
    model::Random,
};

/// Tells this program to be the disk.
pub const ARGUMENT: &str = "--be-the-disk";
/// Room for the log's segments, those prepared ahead and the tree.
const DISK_BYTES: usize = 768 << 20;

/// The disk's side: carries out orders until nobody gives any, and answers the kernel until the file is unmounted.
pub fn serve() {
    let device = File::from(io::stdin().as_fd().try_clone_to_owned().expect("FUSE's device"));
    let orders = UnixStream::from(io::stdout().as_fd().try_clone_to_owned().expect("a socket"));
    let disk = Arc::new(Mutex::new(Disk::new(DISK_BYTES)));
    let mut kernel = None;
    for line in BufReader::new(&orders).lines() {
        let Ok(line) = line else { break };
        let mut words = line.split(' ');
        let order = words.next().unwrap_or_default();
        let number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        if order == "serve" {
            let (device, disk) = (device.try_clone().expect("FUSE's device"), disk.clone());
            kernel = Some(thread::spawn(move || fuse::serve(&device, &disk)));
        }
        let answer = carry_out(order, number, &disk);
        if writeln!(&orders, "{} {} {}", answer[0], answer[1], answer[2]).is_err() {
            break;
        }
    }
    if let Some(kernel) = kernel {
        let _ = kernel.join();
    }
}

fn carry_out(order: &str, number: u64, disk: &Mutex<Disk>) -> [u64; 3] {
    let mut disk = disk.lock().expect("the disk's lock");
    match order {
        "serve" => {}
        "reset" => disk.reset(),
        "on" => disk.power_on(),
        "traffic" => return [disk.flushes, disk.writes, 0],
        "cut" => {
            let damage = disk.cut(&mut Random::new(number));
            return [damage.kept, damage.torn, damage.lost];
        }
        other => panic!("no order is called {other:?}"),
    }
    [0; 3]
}

/// The other side: the hand on the plug.
pub struct Plug {
    orders: UnixStream,
    child: Child,
}

impl Plug {
    /// Starts a disk that will speak through `device`.
    pub fn new(device: &File) -> io::Result<Plug> {
        let (orders, theirs) = UnixStream::pair()?;
        let child = Command::new(env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::from(device.try_clone()?))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Plug { orders, child })
    }

    fn order(&mut self, order: &str) -> [u64; 3] {
        writeln!(self.orders, "{order}").expect("the disk listens");
        let mut answer = Vec::new();
        while answer.last() != Some(&b'\n') {
            let mut byte = [0];
            self.orders.read_exact(&mut byte).expect("the disk answers");
            answer.push(byte[0]);
        }
        let text = String::from_utf8(answer).expect("text");
        let mut numbers = text.split_whitespace().map(|word| word.parse().expect("a number"));
        std::array::from_fn(|_| numbers.next().expect("three numbers"))
    }

    /// The device is mounted now.
    pub fn serve(&mut self) {
        self.order("serve");
    }

    /// A disk full of zeros, with power.
    pub fn reset(&mut self) {
        self.order("reset");
    }

    pub fn power_on(&mut self) {
        self.order("on");
    }

    /// Takes the power away; `seed` decides what becomes of each unflushed write.
    pub fn cut(&mut self, seed: u64) -> Damage {
        let [kept, torn, lost] = self.order(&format!("cut {seed}"));
        Damage { kept, torn, lost }
    }

    /// Flushes and writes that the disk has seen.
    pub fn traffic(&mut self) -> (u64, u64) {
        let [flushes, writes, _] = self.order("traffic");
        (flushes, writes)
    }

    /// Waits for the disk's end; its file is unmounted.
    pub fn end(mut self) {
        drop(self.orders);
        let _ = self.child.wait();
    }
}
