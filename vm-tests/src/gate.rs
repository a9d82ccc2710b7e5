//! A gate between a guest and a registry: lets a pull be stopped or broken at a chosen byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::{Error, IoContext};

/// How many bytes pass at once; a gate acts within this many bytes of where it was told to.
const CHUNK: usize = 16 << 10;

/// What the gate does with answers on their way to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// They pass.
    Open,
    /// This many bytes pass, then they are held until the rule changes: a link that stalls.
    HoldAfter(u64),
    /// This many bytes pass, then every connection is broken: a registry that dies.
    BreakAfter(u64),
}

#[derive(Debug)]
struct State {
    rule: Rule,
    /// Bytes that passed since the rule was set.
    passed: u64,
    /// How many chunks wait now.
    held: usize,
    closed: bool,
}

/// A listening gate; it stops listening and breaks its connections when it is dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Gate {
    /// Listens on a free port of the loopback address, and passes on to `to`.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot listen.
    pub fn open(to: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").doing("listen on", "127.0.0.1")?;
        let address = listener.local_addr().doing("ask the port of", "127.0.0.1")?;
        let state = State { rule: Rule::Open, passed: 0, held: 0, closed: false };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            for guest in listener.incoming().map_while(Result::ok) {
                if lock(&theirs).closed {
                    return;
                }
                let shared = Arc::clone(&theirs);
                // A connection that cannot be made is one that breaks, which the guest must bear anyway.
                thread::spawn(move || drop(pass(guest, to, &shared)));
            }
        });
        Ok(Self { address, shared })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on, another rule; bytes are counted anew.
    pub fn rule(&self, rule: Rule) {
        let mut state = lock(&self.shared);
        (state.rule, state.passed) = (rule, 0);
        self.shared.1.notify_all();
    }

    /// Whether bytes are being held now.
    pub fn holds(&self) -> bool {
        lock(&self.shared).held > 0
    }

    /// Bytes that passed since the rule was set.
    pub fn passed(&self) -> u64 {
        lock(&self.shared).passed
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        lock(&self.shared).closed = true;
        self.shared.1.notify_all();
        // Wakes the listening thread, which then sees that it is closed.
        let _awake = TcpStream::connect(self.address);
    }
}

fn lock(shared: &(Mutex<State>, Condvar)) -> MutexGuard<'_, State> {
    // Plain numbers are never left half changed.
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass(guest: TcpStream, to: SocketAddr, shared: &Arc<(Mutex<State>, Condvar)>) -> io::Result<()> {
    let registry = TcpStream::connect(to)?;
    let (mut from_guest, mut to_registry) = (guest.try_clone()?, registry.try_clone()?);
    thread::spawn(move || {
        // Ends when either side closes; the other direction notices by itself.
        let _ended = io::copy(&mut from_guest, &mut to_registry);
        let _ended = to_registry.shutdown(Shutdown::Write);
    });
    let (mut registry, mut guest) = (registry, guest);
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = registry.read(&mut buffer)?;
        if length == 0 || !allow(shared, length as u64) {
            let _closed_already = (guest.shutdown(Shutdown::Both), registry.shutdown(Shutdown::Both));
            return Ok(());
        }
        guest.write_all(&buffer[..length])?;
    }
}

/// Waits until `length` bytes may pass; `false` where the connection is to be broken.
fn allow(shared: &(Mutex<State>, Condvar), length: u64) -> bool {
    let mut state = lock(shared);
    loop {
        match state.rule {
            _ if state.closed => return false,
            Rule::BreakAfter(most) if state.passed + length > most => return false,
            Rule::HoldAfter(most) if state.passed + length > most => {
                state.held += 1;
                state = shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.held -= 1;
            }
            _ => {
                state.passed += length;
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends 64 KiB to whoever connects.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                client.write_all(&[7; 64 << 10]).expect("the gate reads");
            }
        });
        address
    }

    fn read(gate: &Gate) -> usize {
        let mut bytes = Vec::new();
        let mut client = TcpStream::connect(("127.0.0.1", gate.port())).expect("the gate listens");
        let _broken = client.read_to_end(&mut bytes);
        bytes.len()
    }

    #[test]
    fn an_open_gate_passes_everything() {
        assert_eq!(read(&Gate::open(server()).expect("a gate")), 64 << 10);
    }

    #[test]
    fn a_breaking_gate_passes_no_more_than_it_was_told() {
        let gate = Gate::open(server()).expect("a gate");
        gate.rule(Rule::BreakAfter(40 << 10));
        assert!(read(&gate) <= 40 << 10);
        assert!(!gate.holds());
    }

    #[test]
    fn a_holding_gate_passes_the_rest_when_it_is_opened() {
        let gate = Arc::new(Gate::open(server()).expect("a gate"));
        gate.rule(Rule::HoldAfter(20 << 10));
        let theirs = Arc::clone(&gate);
        let reader = thread::spawn(move || read(&theirs));
        crate::wait::until("the gate to hold", std::time::Duration::from_secs(10), || {
            Ok(gate.holds().then_some(()))
        })
        .expect("64 KiB are more than 20");
        assert!(gate.passed() <= 20 << 10);
        gate.rule(Rule::Open);
        assert_eq!(reader.join().expect("no panic"), 64 << 10);
    }
}
