//! Connections between simulated machines: two pipes each, in which bytes travel in order and take time. TCP's promises
//! hold: what arrives is a prefix of what was sent. What is lost on the way is late (retransmission), so that a cut link
//! shows as silence, after which everything arrives, unless an end has given up or crashed meanwhile.
//!
//! ```text
//!   writer ──poll_write──▶ [under way: (time, bytes) …] ──link up?──▶ [arrived bytes] ──poll_read──▶ reader
//!            waits when under way + arrived = pipe_bytes
//! ```

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use super::world::{MachineId, Wait, World, digest};
use crate::host::{Listener, Net, Stream};

/// Connections that may wait to be accepted.
const BACKLOG_CONNECTIONS: usize = 4096;
/// Time between two attempts to connect over a cut link.
const RETRY_NANOS: u64 = 50_000_000;

/// What all machines share.
#[derive(Default)]
pub(super) struct Network {
    listeners: BTreeMap<SocketAddr, Rc<RefCell<Backlog>>>,
    /// Who listened last at an address: a machine that is down does not refuse, it is silent.
    owners: BTreeMap<SocketAddr, MachineId>,
    cut: BTreeSet<(MachineId, MachineId)>,
    pipes: Vec<Weak<RefCell<Pipe>>>,
    next_pipe: u64,
}

struct Backlog {
    owner: (MachineId, u64),
    waiting: VecDeque<(SimStream, SocketAddr)>,
    acceptor: Option<Waker>,
}

/// One end's machine and life.
type End = (MachineId, u64);

enum Item {
    Bytes(Vec<u8>),
    /// The writer has ended its direction.
    Finish,
    /// The connection is broken.
    Reset,
}

/// One direction of a connection.
struct Pipe {
    id: u64,
    /// The other direction.
    partner: Weak<RefCell<Pipe>>,
    writer: End,
    reader: End,
    under_way: VecDeque<(u64, Item)>,
    arrived: VecDeque<u8>,
    occupied: usize,
    is_finishing: bool,
    is_finished: bool,
    is_reset: bool,
    /// The reader has gone: what still arrives is answered by a reset.
    is_abandoned: bool,
    /// Nothing arrives any more, and nobody is told.
    is_silent: bool,
    read_waker: Option<Waker>,
    write_waker: Option<Waker>,
}

/// Sockets of one life of a machine.
#[derive(Clone)]
pub struct SimNet {
    pub(super) world: Rc<World>,
    pub(super) machine: MachineId,
    pub(super) incarnation: u64,
}

/// A bound socket.
pub struct SimListener {
    net: SimNet,
    address: SocketAddr,
    backlog: Rc<RefCell<Backlog>>,
}

/// A connection.
pub struct SimStream {
    world: Rc<World>,
    outgoing: Rc<RefCell<Pipe>>,
    incoming: Rc<RefCell<Pipe>>,
}

impl Network {
    fn is_cut(&self, from: MachineId, to: MachineId) -> bool {
        from != to && self.cut.contains(&(from, to))
    }

    /// The pipes that are still in use.
    fn live_pipes(&mut self) -> Vec<Rc<RefCell<Pipe>>> {
        self.pipes.retain(|pipe| pipe.strong_count() > 0);
        self.pipes.iter().filter_map(Weak::upgrade).collect()
    }
}

impl World {
    /// Whether the way from one machine to another is cut.
    pub(super) fn is_cut(&self, from: MachineId, to: MachineId) -> bool {
        self.network.borrow().is_cut(from, to)
    }

    /// Cuts or mends the way from one machine to another.
    pub(super) fn set_cut(&self, from: MachineId, to: MachineId, is_cut: bool) {
        let mut network = self.network.borrow_mut();
        if is_cut {
            network.cut.insert((from, to));
            return;
        }
        network.cut.remove(&(from, to));
        let waiting = network.live_pipes();
        drop(network);
        for pipe in waiting {
            let is_of_link = {
                let pipe = pipe.borrow();
                pipe.writer.0 == from && pipe.reader.0 == to
            };
            if is_of_link {
                let nanos = self.wire_nanos(from, to);
                self.after(nanos, move |world| pump(world, &pipe));
            }
        }
    }

    /// Breaks the connections of a machine's life. After a power failure its peers hear nothing; when a process is killed
    /// the system closes its sockets.
    pub(super) fn end_sockets(&self, end: End, is_power_failure: bool) {
        let mut network = self.network.borrow_mut();
        network.listeners.retain(|_, backlog| backlog.borrow().owner != end);
        let pipes = network.live_pipes();
        drop(network);
        for pipe in pipes {
            let (is_writer, is_reader) = {
                let pipe = pipe.borrow();
                (pipe.writer == end, pipe.reader == end)
            };
            if is_reader {
                pipe.borrow_mut().is_abandoned = true;
            }
            if is_writer && !is_power_failure {
                send(self, &pipe, Item::Reset, 0);
            }
            if is_writer && is_power_failure {
                // What it had handed to its system and not yet sent is gone.
                pipe.borrow_mut().under_way.clear();
            }
        }
    }

    /// Peers of a machine that is up again find out when they send.
    pub(super) fn wake_links(&self, machine: MachineId) {
        let pipes = self.network.borrow_mut().live_pipes();
        for pipe in pipes {
            if pipe.borrow().reader.0 == machine {
                let nanos = self.wire_nanos(pipe.borrow().writer.0, machine);
                self.after(nanos, move |world| pump(world, &pipe));
            }
        }
    }

    fn wire_nanos(&self, from: MachineId, to: MachineId) -> u64 {
        let timing = self.timing.borrow();
        let range = if from == to {
            timing.local_nanos.clone()
        } else {
            timing.wire_nanos.clone()
        };
        self.chaos.borrow_mut().within(range)
    }

    fn new_pipe(&self, writer: End, reader: End) -> Rc<RefCell<Pipe>> {
        let mut network = self.network.borrow_mut();
        let id = network.next_pipe;
        network.next_pipe += 1;
        let pipe = Rc::new(RefCell::new(Pipe {
            id,
            partner: Weak::new(),
            writer,
            reader,
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            occupied: 0,
            is_finishing: false,
            is_finished: false,
            is_reset: false,
            is_abandoned: false,
            is_silent: false,
            read_waker: None,
            write_waker: None,
        }));
        if network.pipes.len() >= 1024 && network.pipes.len().is_power_of_two() {
            network.live_pipes();
        }
        network.pipes.push(Rc::downgrade(&pipe));
        pipe
    }
}

/// Sends something off: it arrives after what was sent before it.
fn send(world: &World, pipe: &Rc<RefCell<Pipe>>, item: Item, extra_nanos: u64) {
    let (writer, reader) = (pipe.borrow().writer, pipe.borrow().reader);
    let nanos = world.wire_nanos(writer.0, reader.0) + extra_nanos;
    let mut at = world.now_nanos() + nanos;
    let mut this = pipe.borrow_mut();
    if let Some((before, _)) = this.under_way.back() {
        at = at.max(*before);
    }
    this.under_way.push_back((at, item));
    drop(this);
    let pipe = Rc::clone(pipe);
    world.at(at, move |world| pump(world, &pipe));
}

/// Lets arrive what is due, if the link is up and the reader's machine too.
fn pump(world: &World, pipe: &Rc<RefCell<Pipe>>) {
    loop {
        let mut this = pipe.borrow_mut();
        let (writer, reader) = (this.writer, this.reader);
        let is_due = this.under_way.front().is_some_and(|(at, _)| *at <= world.now_nanos());
        let is_reachable = world.with_machine(reader.0, |machine| machine.is_powered);
        if !is_due || this.is_silent || !is_reachable || world.network.borrow().is_cut(writer.0, reader.0) {
            return;
        }
        let (_, item) = this.under_way.pop_front().expect("looked at above");
        if this.is_abandoned {
            // Nobody knows the connection there any more.
            drop(this);
            world.record("net_refused", &[]);
            break_connection(pipe);
            return;
        }
        let waker = match item {
            Item::Bytes(bytes) => {
                world.record("net_arrived", &[this.id, digest(&bytes)]);
                this.arrived.extend(bytes);
                this.read_waker.take()
            }
            Item::Finish => {
                this.is_finished = true;
                this.read_waker.take()
            }
            Item::Reset => {
                drop(this);
                break_connection(pipe);
                return;
            }
        };
        drop(this);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Ends both directions, for whoever still has them.
fn break_connection(pipe: &Rc<RefCell<Pipe>>) {
    let partner = pipe.borrow().partner.upgrade();
    for pipe in [Some(Rc::clone(pipe)), partner].into_iter().flatten() {
        let wakers = pipe.borrow_mut().reset();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Pipe {
    fn reset(&mut self) -> [Option<Waker>; 2] {
        self.is_reset = true;
        self.arrived.clear();
        self.under_way.clear();
        self.occupied = 0;
        [self.read_waker.take(), self.write_waker.take()]
    }
}

impl SimNet {
    fn ip(&self) -> IpAddr {
        let number = self.machine.0 as u16 + 1;
        let [high, low] = number.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
    }

    fn next_port(&self) -> u16 {
        self.world.with_machine(self.machine, |machine| {
            machine.next_port = machine.next_port.checked_add(1).unwrap_or(20_000);
            machine.next_port
        })
    }

    fn end(&self) -> End {
        (self.machine, self.incarnation)
    }

    async fn pause(&self, nanos: u64) {
        Wait::until(&self.world, self.world.now_nanos() + nanos).await;
        if !self.world.is_alive(self.machine, self.incarnation) {
            std::future::pending::<()>().await;
        }
    }

    /// Who is to answer at an address: nobody (refused), or a machine, whether it is up or not.
    fn owner_of(&self, address: SocketAddr) -> Option<MachineId> {
        let network = self.world.network.borrow();
        if let Some(backlog) = network.listeners.get(&address) {
            return Some(backlog.borrow().owner.0);
        }
        let owner = network.owners.get(&address).copied()?;
        let is_down = !self.world.with_machine(owner, |machine| machine.is_powered);
        is_down.then_some(owner)
    }

    fn is_reachable(&self, owner: MachineId) -> bool {
        let network = self.world.network.borrow();
        let is_cut = network.is_cut(self.machine, owner) || network.is_cut(owner, self.machine);
        !is_cut && self.world.with_machine(owner, |machine| machine.is_powered)
    }
}

impl Net for SimNet {
    type Listener = SimListener;
    type Stream = SimStream;
    type Moved = SimStream;

    fn listen(&self, address: SocketAddr) -> io::Result<SimListener> {
        let ip = if address.ip().is_unspecified() {
            self.ip()
        } else {
            address.ip()
        };
        let port = if address.port() == 0 {
            self.next_port()
        } else {
            address.port()
        };
        let address = SocketAddr::new(ip, port);
        let mut network = self.world.network.borrow_mut();
        if network.listeners.contains_key(&address) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        let backlog = Rc::new(RefCell::new(Backlog {
            owner: self.end(),
            waiting: VecDeque::new(),
            acceptor: None,
        }));
        network.listeners.insert(address, Rc::clone(&backlog));
        network.owners.insert(address, self.machine);
        Ok(SimListener {
            net: self.clone(),
            address,
            backlog,
        })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<SimStream> {
        let timeout = self.world.timing.borrow().connect_timeout.as_nanos() as u64;
        let give_up = self.world.now_nanos().saturating_add(timeout);
        self.world
            .record("connect", &[self.machine.0 as u64, u64::from(address.port())]);
        loop {
            let Some(owner) = self.owner_of(address) else {
                self.pause(self.world.wire_nanos(self.machine, self.machine)).await;
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            if self.is_reachable(owner) {
                self.pause(self.world.wire_nanos(self.machine, owner)).await;
                if self.is_reachable(owner) {
                    return self.connect_arrived(address, owner).await;
                }
            }
            if self.world.now_nanos() >= give_up {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.pause(RETRY_NANOS).await;
        }
    }

    fn release(&self, stream: SimStream) -> SimStream {
        stream
    }

    fn adopt(&self, moved: SimStream) -> io::Result<SimStream> {
        Ok(moved)
    }
}

impl SimNet {
    /// The other machine answers.
    async fn connect_arrived(&self, address: SocketAddr, owner: MachineId) -> io::Result<SimStream> {
        let backlog = self.world.network.borrow().listeners.get(&address).cloned();
        let stream = match backlog {
            Some(backlog) if backlog.borrow().waiting.len() < BACKLOG_CONNECTIONS => {
                let server_end = backlog.borrow().owner;
                let outgoing = self.world.new_pipe(self.end(), server_end);
                let incoming = self.world.new_pipe(server_end, self.end());
                outgoing.borrow_mut().partner = Rc::downgrade(&incoming);
                incoming.borrow_mut().partner = Rc::downgrade(&outgoing);
                let stream = |outgoing: &Rc<RefCell<Pipe>>, incoming: &Rc<RefCell<Pipe>>| SimStream {
                    world: Rc::clone(&self.world),
                    outgoing: Rc::clone(outgoing),
                    incoming: Rc::clone(incoming),
                };
                let client = SocketAddr::new(self.ip(), self.next_port());
                let mut backlog = backlog.borrow_mut();
                backlog.waiting.push_back((stream(&incoming, &outgoing), client));
                if let Some(acceptor) = backlog.acceptor.take() {
                    acceptor.wake();
                }
                Some(stream(&outgoing, &incoming))
            }
            _ => None,
        };
        self.pause(self.world.wire_nanos(owner, self.machine)).await;
        stream.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
    }
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let share = self
            .net
            .world
            .with_machine(self.net.machine, |machine| machine.faults.net.accept_error);
        if self.net.world.strikes("accept error", share) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        std::future::poll_fn(|context| {
            let mut backlog = self.backlog.borrow_mut();
            match backlog.waiting.pop_front() {
                Some(accepted) => Poll::Ready(Ok(accepted)),
                None => {
                    backlog.acceptor = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut network = self.net.world.network.borrow_mut();
        let is_mine = network
            .listeners
            .get(&self.address)
            .is_some_and(|backlog| Rc::ptr_eq(backlog, &self.backlog));
        if is_mine {
            network.listeners.remove(&self.address);
        }
        drop(network);
        // Those who wait in the backlog are dropped, and their clients reset.
        let waiting = std::mem::take(&mut self.backlog.borrow_mut().waiting);
        drop(waiting);
    }
}

impl Stream for SimStream {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.incoming.borrow_mut();
        if pipe.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if pipe.arrived.is_empty() {
            if pipe.is_finished {
                return Poll::Ready(Ok(0));
            }
            pipe.read_waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let share = self
            .world
            .with_machine(pipe.reader.0, |machine| machine.faults.net.short_read);
        let count = self.shortened("short read", pipe.arrived.len().min(buffer.len()), share);
        // In two pieces at most: byte by byte this would be most of what a simulation does.
        let (first, second) = pipe.arrived.as_slices();
        let split = first.len().min(count);
        buffer[..split].copy_from_slice(&first[..split]);
        buffer[split..count].copy_from_slice(&second[..count - split]);
        pipe.arrived.drain(..count);
        pipe.occupied -= count;
        self.world.record("net_read", &[pipe.id, count as u64]);
        if let Some(waker) = pipe.write_waker.take() {
            waker.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let (faults, capacity) = {
            let mut pipe = self.outgoing.borrow_mut();
            if pipe.is_reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if pipe.is_finishing {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let capacity = self.world.timing.borrow().pipe_bytes;
            if pipe.occupied >= capacity {
                pipe.write_waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let faults = self
                .world
                .with_machine(pipe.writer.0, |machine| machine.faults.net.clone());
            (faults, capacity - pipe.occupied)
        };
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.world.strikes("reset", faults.reset) {
            self.world.record("net_reset", &[self.outgoing.borrow().id]);
            break_connection(&self.outgoing);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.world.strikes("half-open connection", faults.half_open) {
            self.world.record("net_silent", &[self.outgoing.borrow().id]);
            self.outgoing.borrow_mut().is_silent = true;
            self.incoming.borrow_mut().is_silent = true;
        }
        let count = self.shortened("short write", capacity.min(buffer.len()), faults.short_write);
        let is_late = self.world.strikes("late bytes", faults.delay);
        let extra = if is_late { faults.delay_for.as_nanos() as u64 } else { 0 };
        self.outgoing.borrow_mut().occupied += count;
        self.world
            .record("net_write", &[self.outgoing.borrow().id, digest(&buffer[..count])]);
        send(
            &self.world,
            &self.outgoing,
            Item::Bytes(buffer[..count].to_vec()),
            extra,
        );
        Poll::Ready(Ok(count))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.finish();
        Ok(())
    }
}

impl SimStream {
    fn shortened(&self, fault: &'static str, count: usize, share: f64) -> usize {
        if count > 1 && self.world.strikes(fault, share) {
            1 + self.world.chaos.borrow_mut().index(count - 1)
        } else {
            count
        }
    }

    fn finish(&self) {
        let is_open = !std::mem::replace(&mut self.outgoing.borrow_mut().is_finishing, true);
        if is_open && !self.outgoing.borrow().is_reset {
            send(&self.world, &self.outgoing, Item::Finish, 0);
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let (machine, incarnation) = self.outgoing.borrow().writer;
        if !self.world.is_alive(machine, incarnation) {
            return;
        }
        self.finish();
        let mut incoming = self.incoming.borrow_mut();
        incoming.is_abandoned = true;
        incoming.arrived.clear();
        incoming.occupied = 0;
        let writer = incoming.write_waker.take();
        drop(incoming);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}
