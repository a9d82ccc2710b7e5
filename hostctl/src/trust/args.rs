//! The command line of `trust`.

use std::path::PathBuf;
use std::str::FromStr;

use bennu_manifests::Role;
use clap::{Args, Subcommand};
use jiff::Timestamp;

#[derive(Debug, Subcommand)]
pub(crate) enum Trust {
    /// Write the first trust document
    ///
    ///     hostctl trust init --key ana=ana.pub --key ben=ben.pub --threshold 2 trust.toml
    #[command(verbatim_doc_comment)]
    Init(Init),
    /// Add keys to a trust document, as its next version
    ///
    ///     hostctl trust add-key trust.toml --key cleo=cleo.pub --role deploy,os
    ///
    /// As `rotate`, which says what becomes of the version before.
    #[command(verbatim_doc_comment)]
    AddKey(AddKey),
    /// Remove or replace keys and change thresholds, as the next version of a trust document
    ///
    ///     hostctl trust rotate trust.toml --remove ana --replace ben=ben-new.pub
    ///     hostctl sign --trust-document --key KEY trust.toml      each of those who are named
    ///     hostctl trust push trust.1.toml trust.2.toml trust.toml --host ADDR
    ///
    /// The version before, and its signatures, are kept beside it, as trust.1.toml: hosts take
    /// versions one by one. While the new one lacks signatures it is a draft, and changed again
    /// without another version. Prints who must sign, and whether the signatures suffice.
    #[command(verbatim_doc_comment)]
    Rotate(Rotate),
    /// Show a trust document: its keys, roles and thresholds, and who has signed it
    Show(Show),
    /// Write the keys as `ssh-keygen -Y verify` reads them (ALLOWED SIGNERS in ssh-keygen(1))
    ///
    ///     hostctl trust export-allowed-signers trust.toml > allowed
    ///     ssh-keygen -Y verify -f allowed -I ana -n bennu-manifest -s host.toml.sig < host.toml
    ///
    /// OpenSSH checks one signature at a time and knows no thresholds.
    #[command(verbatim_doc_comment)]
    ExportAllowedSigners {
        /// The trust document
        file: PathBuf,
    },
    /// Hand trust documents to a host: all the versions that it has missed
    ///
    /// Reads each FILE and FILE.sig; those that the host has are left out. It takes all of them or
    /// none, and what runs there goes on running.
    #[command(verbatim_doc_comment)]
    Push {
        /// The trust documents, in any order
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Where to write it; a file that is there is left alone
    #[arg(default_value = "trust.toml")]
    pub(crate) file: PathBuf,
    /// A key: the name of its owner, and the file of the public key (as ~/.ssh/id_ed25519.pub)
    #[arg(long = "key", value_name = "NAME=PUBFILE", required = true)]
    pub(crate) keys: Vec<String>,
    /// How many of the keys must have signed, in each role (trust, os, deploy)
    #[arg(long, default_value_t = 1)]
    pub(crate) threshold: u32,
}

#[derive(Debug, Args)]
pub(crate) struct AddKey {
    /// The trust document
    pub(crate) file: PathBuf,
    /// A key: the name of its owner, and the file of the public key
    #[arg(long = "key", value_name = "NAME=PUBFILE", required = true)]
    pub(crate) keys: Vec<String>,
    /// What it may decide: deploy, os, trust
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', required = true)]
    pub(crate) roles: Vec<RoleName>,
}

#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// The trust document
    pub(crate) file: PathBuf,
    /// Take this key out, and out of its roles
    #[arg(long, value_name = "NAME")]
    pub(crate) remove: Vec<String>,
    /// Put another key in the place of the one with this name
    #[arg(long, value_name = "NAME=PUBFILE")]
    pub(crate) replace: Vec<String>,
    /// How many keys of a role must have signed, as os=2
    #[arg(long, value_name = "ROLE=N")]
    pub(crate) threshold: Vec<String>,
    /// Until when anything is newly accepted by it, or `never` [default: as before]
    #[arg(long, value_name = "RFC3339")]
    pub(crate) expires: Option<Expires>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The trust document; its signatures are in FILE.sig
    pub(crate) file: PathBuf,
    /// The version before, whose keys must have signed, too [default: as `rotate` keeps it, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) previous: Option<PathBuf>,
}

/// A role, by its name in the document.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoleName(pub(crate) Role);

impl FromStr for RoleName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == name);
        role.map(Self).ok_or_else(|| "a role is deploy, os or trust".to_owned())
    }
}

/// When a document expires.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expires(pub(crate) Option<Timestamp>);

impl FromStr for Expires {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|time| Self(Some(time)))
            .map_err(|_| "write `never`, or as 2030-01-31T00:00:00Z".to_owned())
    }
}
