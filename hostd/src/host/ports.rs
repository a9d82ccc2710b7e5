//! Publishing ports, and knowing what is published.
//!
//! The kernel numbers the states of its whole rule set. While that number is what it was, so is what is published: a
//! look at a host at rest costs two small messages instead of a program.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bennu_planner::Published;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use tokio::process::Command;

use super::command::{CommandError, run};
use super::ruleset::{self, NotIpv4};

/// How long `nft` has.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why ports were not published, or it is not known which are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// One can't be published.
    #[error(transparent)]
    NotIpv4(#[from] NotIpv4),
    /// `nft` did not do it; nothing has changed then.
    #[error("change the table of published ports")]
    Change(#[source] CommandError),
    /// What is published can't be read.
    #[error("read the table of published ports")]
    Read(#[source] CommandError),
}

/// What was published when it was last looked, and the number of the rule set then.
#[derive(Debug, Default)]
pub(super) struct Ports {
    seen: Mutex<Option<(u32, BTreeSet<Published>)>>,
}

impl Ports {
    /// Publishes exactly these ports, in one transaction.
    ///
    /// # Errors
    /// Where one can't be published or `nft` fails; nothing has changed then.
    pub(super) async fn publish(&self, ports: &[Published]) -> Result<(), PublishError> {
        change(&ruleset::transaction(ports)?).await
    }

    /// Makes the chains that keep containers apart; what is published stays.
    ///
    /// # Errors
    /// Where `nft` fails.
    pub(super) async fn prepare(&self) -> Result<(), PublishError> {
        change(&ruleset::structure()).await
    }

    /// What is published.
    ///
    /// # Errors
    /// Where `nft` can't be run or does not answer.
    pub(super) async fn published(&self) -> Result<BTreeSet<Published>, PublishError> {
        // Asked before the listing: a change between the two is then seen the next time.
        let number = generation().ok();
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, published)) = known.filter(|(then, _)| Some(*then) == number) {
            return Ok(published);
        }
        let published = list().await.map_err(PublishError::Read)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            number.map(|number| (number, published.clone()));
        Ok(published)
    }
}

async fn change(transaction: &str) -> Result<(), PublishError> {
    let mut command = Command::new("nft");
    command.args(["--file", "-"]);
    run(command, transaction.as_bytes(), DEADLINE).await.map(drop).map_err(PublishError::Change)
}

async fn list() -> Result<BTreeSet<Published>, CommandError> {
    let mut command = Command::new("nft");
    // All tables of the family: naming one that is not there would be an error like any other.
    command.args(["--json", "list", "maps", "ip"]);
    let listing = run(command, b"", DEADLINE).await?;
    // What is no listing names nothing, so the next plan publishes anew.
    Ok(serde_json::from_slice(&listing).map(|listing| ruleset::published(&listing)).unwrap_or_default())
}

/// The number of the rule set's state: `NFT_MSG_GETGEN`, answered with the attribute `NFTA_GEN_ID`
/// (linux/netfilter/nf_tables.h).
fn generation() -> io::Result<u32> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
    sendto(socket.as_raw_fd(), &question(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    number(&answer[..length]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// `NFNL_SUBSYS_NFTABLES` in the high byte.
const SUBSYSTEM: u16 = 10 << 8;
const GET_GENERATION: u16 = SUBSYSTEM | 16;
const NEW_GENERATION: u16 = SUBSYSTEM | 15;
const ATTRIBUTE_ID: u16 = 1;

/// A netlink header (length, type, `NLM_F_REQUEST`, sequence, port) and a netfilter one (family, version, resource).
fn question() -> Vec<u8> {
    let mut message = Vec::with_capacity(20);
    message.extend(20u32.to_ne_bytes());
    message.extend(GET_GENERATION.to_ne_bytes());
    message.extend(1u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]);
    message
}

/// The number in an answer: among its attributes (length, type, value, padded to 4 bytes); numbers of netfilter are
/// big-endian.
fn number(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let mut rest = answer.get(20..).filter(|_| kind == NEW_GENERATION)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == ATTRIBUTE_ID {
            return Some(u32::from_be_bytes(value.try_into().ok()?));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        for (name, value) in attributes {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(name.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_number_is_found_among_the_attributes() {
        let bytes = answer(NEW_GENERATION, &[(3, b"hostd\0"), (1, &[0, 0, 1, 2])]);
        assert_eq!(number(&bytes), Some(258));
    }

    #[test]
    fn an_answer_that_is_none_or_cut_short_has_no_number() {
        let whole = answer(NEW_GENERATION, &[(3, b"hostd\0"), (1, &[0, 0, 1, 2])]);
        for length in 0..whole.len() {
            assert_eq!(number(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(number(&answer(2, &[(1, &[0, 0, 1, 2])])), None);
        assert_eq!(number(&answer(NEW_GENERATION, &[(3, b"")])), None);
    }
}
