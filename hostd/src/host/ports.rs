//! The firewall with the published ports, and knowing whether it is as it was made.
//!
//! The kernel numbers the states of its whole rule set. While that number is what it was, so is what is published: a
//! look at a host at rest costs two small messages instead of a program. How the kernel tells of the rules that were made is
//! remembered right after they were made, so that a rule that somebody changed shows as a difference.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bennu_image_store::sha256;
use bennu_planner::Published;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::process::Command;

use super::command::{CommandError, run};
use super::{record, ruleset};

/// How long `nft` has.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why ports were not published, or it is not known which are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// `nft` did not do it; nothing has changed then.
    #[error("change the firewall")]
    Change(#[source] CommandError),
    /// The rules can't be read.
    #[error("read the firewall")]
    Read(#[source] CommandError),
    /// What was made can't be written down or read.
    #[error("look at what is known of networks and their firewall")]
    Remember(#[source] io::Error),
    /// What the kernel needs beside the rules can't be set.
    #[error("let the kernel forward between networks")]
    Setting(#[source] io::Error),
}

/// The firewall. Nobody else changes its table.
#[derive(Debug)]
pub(super) struct Ports {
    /// Where it is remembered how the rules were made.
    made: PathBuf,
    seen: Mutex<Option<(u32, Looked)>>,
}

/// What the kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Looked {
    published: BTreeSet<Published>,
    rules: String,
}

/// What the rules were made from, and how the kernel told of them then; digests in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    structure: String,
    rules: String,
}

impl Made {
    fn of(internal: &BTreeSet<String>, rules: &str) -> Self {
        let digest = |text: &str| sha256::digest(text.as_bytes()).hex();
        Self { structure: digest(&ruleset::structure(internal)), rules: digest(rules) }
    }
}

impl Ports {
    /// The firewall whose making is remembered in this file, on a memory-backed file system.
    pub(super) fn new(made: PathBuf) -> Self {
        Self { made, seen: Mutex::default() }
    }

    /// Publishes exactly these ports, in one transaction that makes all rules as they should be; `internal` are the bridges
    /// that lead nowhere but to themselves.
    ///
    /// # Errors
    /// Where `nft` fails; nothing has changed then.
    pub(super) async fn publish(
        &self,
        internal: &BTreeSet<String>,
        ports: &[Published],
    ) -> Result<(), PublishError> {
        self.change(internal, &ruleset::transaction(internal, ports)).await
    }

    /// Makes the chains that keep containers apart; what is published stays.
    ///
    /// # Errors
    /// Where `nft` fails.
    pub(super) async fn prepare(&self, internal: &BTreeSet<String>) -> Result<(), PublishError> {
        self.change(internal, &ruleset::structure(internal)).await
    }

    /// What is published, and whether the rules are not those that were made for these internal bridges.
    ///
    /// # Errors
    /// Where `nft` can't be run or does not answer.
    pub(super) async fn look(
        &self,
        internal: &BTreeSet<String>,
    ) -> Result<(BTreeSet<Published>, bool), PublishError> {
        // Asked before the listing: a change between the two is then seen the next time.
        let number = generation().ok();
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let looked = match known.filter(|(then, _)| Some(*then) == number) {
            Some((_, looked)) => looked,
            None => {
                let looked = list().await?;
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
                    number.map(|number| (number, looked.clone()));
                looked
            }
        };
        // What can't be read is as none: the rules are made anew.
        let made = record::read::<Made>(&self.made).unwrap_or_default();
        Ok((looked.published, is_changed(made.as_ref(), internal, &looked.rules)))
    }

    async fn change(&self, internal: &BTreeSet<String>, transaction: &str) -> Result<(), PublishError> {
        let mut command = Command::new("nft");
        command.args(["--file", "-"]);
        run(command, transaction.as_bytes(), DEADLINE).await.map_err(PublishError::Change)?;
        let made = Made::of(internal, &list().await?.rules);
        record::write(&self.made, &made).map_err(PublishError::Remember)
    }
}

/// Whether the rules are others than those that were made. On a host that never made any there are none.
fn is_changed(made: Option<&Made>, internal: &BTreeSet<String>, rules: &str) -> bool {
    match made {
        Some(made) => *made != Made::of(internal, rules),
        None => !rules.is_empty(),
    }
}

async fn list() -> Result<Looked, PublishError> {
    let mut command = Command::new("nft");
    // All tables of the family: naming one that is not there would be an error like any other.
    command.args(["--json", "list", "ruleset", ruleset::FAMILY]);
    let listing = run(command, b"", DEADLINE).await.map_err(PublishError::Read)?;
    // What is no listing names nothing, so the next plan makes all anew.
    let listing: Value = serde_json::from_slice(&listing).unwrap_or_default();
    Ok(Looked { published: ruleset::published(&listing), rules: ruleset::rules(&listing) })
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

    #[test]
    fn rules_are_changed_where_they_are_not_those_that_were_made_for_these_networks() {
        let (none, one) = (BTreeSet::new(), BTreeSet::from(["bn-a".to_owned()]));
        let made = Made::of(&none, "rules");
        assert!(!is_changed(Some(&made), &none, "rules"));
        assert!(is_changed(Some(&made), &none, ""), "the table is gone");
        assert!(is_changed(Some(&made), &none, "other rules"));
        assert!(is_changed(Some(&made), &one, "rules"), "another network is internal now");
        assert!(!is_changed(None, &none, ""), "nothing was made yet");
        assert!(is_changed(None, &none, "rules"), "somebody else made a table of this name");
    }

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
