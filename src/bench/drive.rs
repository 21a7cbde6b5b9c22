//! Carries a thread's part of the load out: connects, moves bytes, waits. One task for each connection, and one that moves
//! the thread from phase to phase.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use futures_lite::future::or;

use super::{
    control::Control,
    crew::{Crew, Phase},
    plan::Plan,
    session::Session,
    tally::Tally,
};
use crate::{
    base::Monotonic,
    host::{Host, Net, Notify, Stream},
};

/// How often a thread looks whether its phase has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How long requests or events may be missing before the run has failed.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Memory of one read, shared by the connections of a thread.
const READ_BYTES: usize = 256 * 1024;
/// Memory that a connection may keep for input.
const INPUT_KEPT_BYTES_MAX: usize = 4096;

/// What a thread measured.
pub struct Measured {
    /// The figures.
    pub tally: Tally,
    /// From the start of what is measured to the last answer.
    pub elapsed: Duration,
    /// Processor time that the thread used for it, warm-up included.
    pub processor_time: Duration,
    /// What the server says it is; empty but from the first thread.
    pub server_version: String,
    /// Requests that belong to the processor time.
    pub requests: u64,
}

/// One thread's part of a run. `processor_time` tells what this thread has used.
///
/// # Errors
/// What went wrong first, for the operator: then there is no result.
pub async fn crew<H: Host>(
    host: H,
    plan: Arc<Plan>,
    addresses: Arc<Vec<SocketAddr>>,
    thread: u32,
    control: Arc<Control>,
    processor_time: fn() -> Duration,
) -> Result<Measured, String> {
    let mut run = Run {
        host,
        plan,
        addresses,
        thread,
        control,
        processor_time,
        counted: (0, 0),
    };
    let result = run.run().await;
    if result.is_err() {
        run.control.abort();
    }
    result
}

struct Run<H> {
    host: H,
    plan: Arc<Plan>,
    addresses: Arc<Vec<SocketAddr>>,
    thread: u32,
    control: Arc<Control>,
    processor_time: fn() -> Duration,
    /// What of this thread's answers the control knows.
    counted: (u64, u64),
}

impl<H: Host> Run<H> {
    async fn run(&mut self) -> Result<Measured, String> {
        let numbers: Vec<u32> = (self.thread..self.plan.connections)
            .step_by(self.plan.threads as usize)
            .collect();
        let clients_of = |number: u32| {
            let (clients, connections) = (self.plan.clients, self.plan.connections);
            clients / connections + u32::from(clients % connections > number)
        };
        let clients = numbers.iter().map(|&number| clients_of(number)).sum();
        let crew = Crew::new(self.plan.clone(), self.thread, clients);
        let scratch = Rc::new(RefCell::new(vec![0; READ_BYTES]));
        let mut next_client = 0;
        for &number in &numbers {
            let count = clients_of(number);
            self.connect(&crew, number, next_client..next_client + count, &scratch)
                .await?;
            next_client += count;
        }
        self.prepare(&crew).await?;
        let used_before = (self.processor_time)();
        self.load(&crew).await?;
        let processor_time = (self.processor_time)() - used_before;
        self.drain_events(&crew).await?;
        let mut crew = crew.borrow_mut();
        crew.phase = Phase::Over;
        Ok(Measured {
            elapsed: crew.last_ended.since(crew.record_from),
            processor_time,
            server_version: std::mem::take(&mut crew.server_version),
            tally: std::mem::take(&mut crew.tally),
            requests: crew.ended,
        })
    }

    async fn connect(
        &self,
        crew: &Rc<RefCell<Crew>>,
        number: u32,
        clients: std::ops::Range<u32>,
        scratch: &Rc<RefCell<Vec<u8>>>,
    ) -> Result<(), String> {
        let at = number as usize % self.addresses.len();
        let (address, name) = (self.addresses[at], &self.plan.endpoints[at]);
        let (host, timeout) = (&self.host, self.plan.dial_timeout);
        let connecting = async { host.net().connect(address).await.map_err(|error| error.to_string()) };
        let stream = or(connecting, async {
            host.sleep_until(host.now() + timeout).await;
            Err(format!("no answer within {timeout:?}"))
        });
        let stream = stream
            .await
            .map_err(|reason| format!("cannot reach {name}: {reason}"))?;
        let notify = Rc::new(Notify::new());
        crew.borrow_mut().notifies.push(notify.clone());
        let session = Session::new(crew.clone(), number, clients, name, self.host.now());
        let mut driver = Driver {
            host: self.host.clone(),
            stream,
            session,
            notify,
            scratch: scratch.clone(),
            input: BytesMut::new(),
            timer: None,
        };
        self.host
            .spawn(async move { poll_fn(|context| driver.poll(context)).await });
        Ok(())
    }

    /// Loads keys, then opens streams; waits for the other threads.
    async fn prepare(&mut self, crew: &Rc<RefCell<Crew>>) -> Result<(), String> {
        for phase in [Phase::Load, Phase::Watch] {
            crew.borrow_mut().phase = phase;
            crew.borrow().wake_all();
            // The connections take their turn first.
            self.host.sleep_until(self.host.now() + LOOK_INTERVAL).await;
            self.until(crew, |crew, _| {
                crew.are_jobs_sent() && crew.in_flight == 0 && crew.watching.unmade == 0
            })
            .await?;
        }
        crew.borrow_mut().phase = Phase::Ready;
        self.control.prepared(self.host.now());
        let control = self.control.clone();
        self.until(crew, |_, _| control.start().is_some()).await?;
        let start = self.control.start().expect("just seen");
        self.host.sleep_until(start).await;
        crew.borrow_mut().run_from(start);
        crew.borrow().wake_all();
        Ok(())
    }

    /// Waits for the last answer.
    async fn load(&mut self, crew: &Rc<RefCell<Crew>>) -> Result<(), String> {
        self.until(crew, |crew, now| crew.is_exhausted(now) && crew.in_flight == 0)
            .await?;
        crew.borrow_mut().phase = Phase::Drain;
        self.control.finished();
        Ok(())
    }

    /// Waits for the events that acknowledged writes must lead to.
    async fn drain_events(&mut self, crew: &Rc<RefCell<Crew>>) -> Result<(), String> {
        let control = self.control.clone();
        let mut last_seen = 0;
        let mut since = self.host.now();
        loop {
            self.count(crew);
            let (expected, seen) = control.events();
            if control.all_finished() && seen >= expected {
                return Ok(());
            }
            if seen != last_seen || !control.all_finished() {
                (last_seen, since) = (seen, self.host.now());
            }
            if self.host.now().since(since) > STALL_MAX {
                let missing = expected - seen;
                return Err(format!(
                    "{missing} of {expected} events did not come within {STALL_MAX:?}"
                ));
            }
            self.check(crew)?;
            self.host.sleep_until(self.host.now() + LOOK_INTERVAL).await;
        }
    }

    /// Looks from time to time until something holds; fails when the run does, or when nothing moves for too long.
    async fn until(
        &mut self,
        crew: &Rc<RefCell<Crew>>,
        holds: impl Fn(&Crew, Monotonic) -> bool,
    ) -> Result<(), String> {
        let mut since = self.host.now();
        loop {
            self.check(crew)?;
            let now = self.host.now();
            if self.count(crew) {
                since = now;
            }
            {
                let crew = crew.borrow();
                if holds(&crew, now) {
                    return Ok(());
                }
                let missing = crew.in_flight + crew.watching.unmade;
                if missing == 0 {
                    since = now;
                } else if now.since(since) > STALL_MAX {
                    return Err(format!("{missing} requests have had no answer for {STALL_MAX:?}"));
                }
            }
            self.host.sleep_until(now + LOOK_INTERVAL).await;
        }
    }

    fn check(&self, crew: &Rc<RefCell<Crew>>) -> Result<(), String> {
        if let Some(failure) = &crew.borrow().failure {
            return Err(failure.clone());
        }
        match self.control.is_aborted() {
            true => Err(String::new()),
            false => Ok(()),
        }
    }

    /// Tells the control what is new; whether anything is.
    fn count(&mut self, crew: &Rc<RefCell<Crew>>) -> bool {
        let mut crew = crew.borrow_mut();
        let (expected, seen) = crew.watching.take_counts();
        self.control.add_events(expected, seen);
        let (jobs, ended) = self.counted;
        self.control.add_progress(crew.jobs_done - jobs, crew.ended - ended);
        self.counted = (crew.jobs_done, crew.ended);
        self.counted != (jobs, ended)
    }
}

type Timer = Pin<Box<dyn Future<Output = ()>>>;

/// Moves a connection's bytes.
struct Driver<H, S> {
    host: H,
    stream: S,
    session: Session,
    notify: Rc<Notify>,
    scratch: Rc<RefCell<Vec<u8>>>,
    input: BytesMut,
    timer: Option<(Monotonic, Timer)>,
}

impl<H: Host, S: Stream> Driver<H, S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.poll_until_lost(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(reason) => {
                self.session.lost(&reason);
                Poll::Ready(())
            }
        }
    }

    fn poll_until_lost(&mut self, context: &mut Context<'_>) -> Poll<String> {
        loop {
            let is_due = self.poll_timer(context);
            if self.notify.poll_notified(context).is_ready() || is_due {
                self.session.turn(self.host.now());
            }
            if let Err(reason) = self.poll_write(context) {
                return Poll::Ready(reason);
            }
            if self.session.is_finished() {
                return Poll::Ready("it is of no more use".to_owned());
            }
            match self.poll_read(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(reason)) => return Poll::Ready(reason),
                // What the turn changed may have moved the time to wake.
                Poll::Pending if self.is_timer_stale() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), String> {
        while !self.session.output().is_empty() {
            match self.stream.poll_write(context, self.session.output()) {
                Poll::Ready(Ok(count)) => self.session.output().advance(count),
                Poll::Ready(Err(error)) => return Err(error.to_string()),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut scratch = self.scratch.borrow_mut();
        let count = match self.stream.poll_read(context, &mut scratch) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => return Poll::Ready(Err("it sent its last byte".to_owned())),
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
        };
        self.input.extend_from_slice(&scratch[..count]);
        drop(scratch);
        self.session.receive(&mut self.input, self.host.now());
        if self.input.is_empty() && self.input.capacity() > INPUT_KEPT_BYTES_MAX {
            self.input = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn is_timer_stale(&self) -> bool {
        self.timer.as_ref().map(|(at, _)| *at) != self.session.next_deadline()
    }

    /// Whether something is due.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> bool {
        let Some(at) = self.session.next_deadline() else {
            self.timer = None;
            return false;
        };
        if self.timer.as_ref().is_none_or(|(known, _)| *known != at) {
            self.timer = Some((at, Box::pin(self.host.sleep_until(at))));
        }
        let (_, timer) = self.timer.as_mut().expect("just set");
        let is_due = timer.as_mut().poll(context).is_ready();
        if is_due {
            self.timer = None;
        }
        is_due
    }
}
