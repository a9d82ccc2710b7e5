//! The command line: what can be asked for, and how it is explained.

use std::net::SocketAddr;
use std::path::PathBuf;

use bennu_api::{Cursor, Role};
use bennu_manifests::model::Digest;
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;

pub(crate) use crate::bundle::args::Bundle;
use crate::reach::Reach;
pub(crate) use crate::store::args::Store;
pub(crate) use crate::trust::args::Trust;
pub(crate) use crate::volumes::args::Volumes;

/// Describes, signs and hands over what a Bennu host is to be, and looks at what it is.
///
/// A host is what one signed TOML manifest says, and nothing else. Write the manifest, pin its
/// images, sign it with an SSH key, and push it:
///
///     hostctl pin host.toml
///     hostctl sign --key ~/.ssh/id_ed25519 host.toml
///     hostctl plan host.toml --host https://203.0.113.7:7443
///     hostctl push host.toml --host https://203.0.113.7:7443 --wait
///
/// Exit codes:
///
///     0  done
///     1  failed
///     2  usage, or a document that is not valid
///     3  refused for security: signature, trust, serial, expiry, digest
///     4  waiting, or not converged in time
///     5  not found
#[derive(Debug, Parser)]
#[command(name = "hostctl", version, verbatim_doc_comment, max_term_width = 100, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Print JSON on standard output, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The host: https://HOST:PORT, or the path of a Unix socket [default: /run/bennu/hostd.sock if it is there]
    #[arg(long, global = true, value_name = "ADDR", env = "BENNU_HOST", hide_env_values = true)]
    pub(crate) host: Option<String>,
    /// The folder of ca.crt, client.crt and client.key for https [default: ~/.config/bennu]
    #[arg(long, global = true, value_name = "DIR", env = "BENNU_IDENTITY", hide_env_values = true)]
    pub(crate) identity: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a manifest, offline; errors point into the file
    ///
    /// Exit code 2 where it is not valid. What it names (registries, hosts, keys) is not asked for anything.
    /// Beside errors it tells what is probably not meant, and what hosts of this release do not carry out (they refuse
    /// such a manifest as a whole).
    Check(Check),
    /// Print the JSON Schema of manifests, for editors
    Schema,
    /// Pin images: ask their registries what each tag means now, and write the digests into the file
    ///
    /// Only the strings of images are changed; comments and layout stay. Images that have a digest are left as they
    /// are unless --update is given. The file is replaced at once or not at all.
    Pin(Pin),
    /// Put a manifest's tables, keys and spaces in order; comments and values stay
    ///
    /// The file is replaced at once or not at all. Its signatures are void after that: lay out before you sign.
    Fmt(Fmt),
    /// Make a manifest of what you have: Compose files, Quadlet units, `docker run` command lines
    ///
    /// What cannot be carried over is named on standard error, each with its place and with what to do instead.
    /// Images are not pinned and secrets not encrypted yet: `pin`, `check` and `sign` come next.
    #[command(subcommand)]
    Import(Import),
    /// Sign a document with an SSH key, into FILE.sig
    ///
    /// Runs `ssh-keygen -Y sign`, so agents, hardware tokens and passphrases work as everywhere else. The signature
    /// is added to those that are there; signatures by the same key, or over other bytes, are replaced.
    Sign(Sign),
    /// Say whether a host that trusts TRUST would take FILE with FILE.sig now, and which rule refuses it
    ///
    /// Exit code 0 or 3.
    Verify(Verify),
    /// Say whom hosts trust: write trust documents, change keys, hand them over
    #[command(subcommand)]
    Trust(Trust),
    /// Encrypt secrets for hosts
    #[command(subcommand)]
    Secret(Secret),
    /// Say whether an image carries signatures by enough of some keys, as a host with an image policy would
    ///
    ///     hostctl verify-image registry.example/web:1.4 --key ana=cosign.pub --key ben=ben.pub --threshold 2
    ///
    /// Signatures are those of cosign, beside the image in its registry: under its tag sha256-….sig, or among its
    /// referrers. Keys are SSH public keys (ssh-ed25519, ecdsa-sha2-nistp256) or PEM files, as
    /// `cosign generate-key-pair` writes them. In a manifest a policy names keys of the trust document, which is made
    /// of SSH keys; `ssh-keygen -i -m PKCS8 -f cosign.pub` prints that of a PEM file. Exit code 0, 3, or 5 where there
    /// is no such image.
    #[command(verbatim_doc_comment)]
    VerifyImage(VerifyImage),
    /// Make certificates for a new host, and the document that tells it whom to trust
    ///
    /// The operators' authority and client certificate are made once in DIR/operator and used again for further
    /// hosts. The document holds the host's private key: it is written with mode 0600, and is to reach the host in no
    /// way that others can read.
    Provision(Provision),
    /// Make a client certificate for one more person or program, with a role
    ///
    ///     hostctl identity --dir fleet --name ana --role operate ana
    ///     hostctl --identity ana --host https://203.0.113.7:7443 status
    ///
    /// The certificate is signed by the operators' authority that `provision` has made in DIR/operator.
    #[command(verbatim_doc_comment)]
    Identity(Identity),
    /// Show what a manifest would do: what is fetched, started, stopped, destroyed; nothing is changed
    ///
    /// Behind the steps it tells what is interrupted (none, restart, reboot), how much is fetched, which volumes survive, what
    /// is destroyed, and what was written outside of declared volumes and by whom. The last line is the plan's digest: with
    /// `push --require-plan` a host carries out this plan or none.
    Plan(Plan),
    /// Hand a manifest and its signatures to a host
    ///
    /// Reads FILE and FILE.sig. The host takes it whole or not at all.
    Push(Push),
    /// Whether the host is what its manifest says, and what it is doing
    Status,
    /// Why the host has not updated: one answer, and each gate with what it says and when it is asked again
    Why,
    /// Say yes to the pending generation, where its manifest asks for approval
    Approve,
    /// Say that the generation on trial is good, where its manifest asks for that with `confirm-within`
    Confirm,
    /// Go back to the generation before: OS, containers and all; what is given up is not tried again
    Rollback,
    /// Start the machine anew with the generation that it has: what is not declared is gone, and cannot be read any more
    ///
    /// Volumes that are kept survive. What is lost, and who wrote it, is in the receipt (`hostctl receipt`). No gate is asked. While
    /// a generation is on trial this is refused, since a boot would count against it.
    Rebirth,
    /// What `check --host-facts` has to know of a host: architecture, labels, memory, processors
    Facts,
    /// The containers that are there
    Ps(Ps),
    /// What containers wrote; NAME `hostd` is the daemon itself
    Logs(Logs),
    /// What happened on the host
    ///
    /// With --json each event bears a cursor, behind which --since goes on. Where events are missing in between, because the
    /// host was booted or too many have happened since, the first event says so: `gap`.
    Events(Events),
    /// All about one container: what is declared, and what came of it; values of secrets and variables are not shown
    Inspect {
        /// The container
        name: String,
    },
    /// The manifests that were accepted, and what became of them
    History,
    /// What a change of generations has come to: what was fetched, interrupted, destroyed, what survived, and how long it took
    ///
    /// There is one for each time that a generation became the active one or was taken back. Exit code 5 where there is none.
    Receipt {
        /// The generation [default: the newest that has a receipt]
        generation: Option<u64>,
    },
    /// The images in the host's store
    Images,
    /// The volumes on the host: list them, take and restore snapshots, carry data out and in
    Volumes {
        #[command(subcommand)]
        command: Option<Volumes>,
    },
    /// Run a command inside a container; its exit code becomes this one's
    ///
    ///     hostctl exec web -- nginx -T
    ///     hostctl exec -it web -- sh
    ///
    /// A command that a signal ended has the code 128 and the signal's number. When the connection is lost the command ends,
    /// too. Exit code 5 where there is no such container.
    #[command(verbatim_doc_comment)]
    Exec(Exec),
    /// Open a shell of another image beside a container, for one without a shell of its own
    ///
    ///     hostctl debug-shell web --image registry.example/tools:1@sha256:...
    ///
    /// It is in the container's namespaces of processes, network and IPC, with its users and under its limits; what the
    /// container has at / is at /target, read-only. It may do no more than the container, but look into its processes. It is
    /// gone when it ends, and an event tells that it was opened. The image is one that the host has or can pull.
    #[command(verbatim_doc_comment)]
    DebugShell(DebugShell),
    /// Copy files out of a running container
    ///
    ///     hostctl cp web:/etc/nginx .
    ///     hostctl cp web:/var/log/app.log - | tar -xO
    ///
    /// What is copied is what the container sees, with what is mounted there. Links are copied as links; only those on the
    /// way to the path are followed, within the container. Nothing that is there is overwritten. Hosts take no files in:
    /// what a container is to hold is in its image, its volumes, its configs and its secrets.
    #[command(verbatim_doc_comment)]
    Cp {
        /// The container and the path in it
        #[arg(value_name = "NAME:PATH")]
        source: String,
        /// Where to: a directory that is there, a name that is not, or - for a tar on standard output
        #[arg(value_name = "DEST")]
        target: PathBuf,
    },
    /// What a plan is made of, as JSON, for `hostctl plan --state`
    Dump,
    /// All that a manifest needs in one file, for sites without a network
    #[command(subcommand)]
    Bundle(Bundle),
    /// Look into an image store on this machine, without a daemon
    Store(Store),
    /// Low-level entries for test suites: the real code, nothing else
    #[command(subcommand)]
    Debug(Debug),
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The manifest
    pub(crate) file: PathBuf,
    /// Check it for one host, too: a file that `hostctl --json facts` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) host_facts: Option<PathBuf>,
    /// Exit with code 2 where there is anything to remark
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// The manifest
    pub(crate) file: PathBuf,
    /// Ask for a registry at another address, as 10.0.2.2:5000=127.0.0.1:5000; what is written keeps its name
    #[arg(long, value_name = "REGISTRY=ADDR")]
    pub(crate) via: Vec<String>,
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Ask again for images that have a tag and a digest
    #[arg(long)]
    pub(crate) update: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Fmt {
    /// The manifest
    pub(crate) file: PathBuf,
    /// Only say whether it is laid out; exit code 1 where it is not
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// A Compose file: every service becomes a container
    ///
    /// Files that it names (env_file, configs, extends, small bind mounts) are read beside it, and so is `.env`.
    Compose(ImportCompose),
    /// Quadlet units: .container, .volume, .network, .image, .timer
    Quadlet(ImportQuadlet),
    /// A command line of `docker run`, `docker create` or `podman run`
    ///
    ///   hostctl import run 'docker run -d -p 8080:80 --name web nginx:1.27'
    ///   hostctl import run docker run -d -p 8080:80 --name web nginx:1.27
    #[command(verbatim_doc_comment)]
    Run(ImportRun),
}

/// What every import takes.
#[derive(Debug, Args)]
pub(crate) struct ImportOut {
    /// The name of the manifest [default: that of the project or container]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Write the manifest here, and not to standard output; a file that is there is left alone
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Write nothing unless everything is carried over as it was; exit code 2
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportCompose {
    /// The Compose file
    pub(crate) file: PathBuf,
    /// A variable for ${NAME} in the file, NAME=VALUE; any number of them, they come before those of `.env`
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub(crate) environment: Vec<String>,
    #[command(flatten)]
    pub(crate) out: ImportOut,
}

#[derive(Debug, Args)]
pub(crate) struct ImportQuadlet {
    /// The units that belong together
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) out: ImportOut,
}

#[derive(Debug, Args)]
pub(crate) struct ImportRun {
    #[command(flatten)]
    pub(crate) out: ImportOut,
    /// The command line, as one word or as its words
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The document
    pub(crate) file: PathBuf,
    /// The private key, or the public one where an agent or a token holds the other
    #[arg(long, value_name = "KEY")]
    pub(crate) key: PathBuf,
    /// Sign a trust document, not a manifest
    #[arg(long)]
    pub(crate) trust_document: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The manifest; its signatures are in FILE.sig
    pub(crate) file: PathBuf,
    /// The trust document
    #[arg(long, value_name = "TRUST")]
    pub(crate) trust: PathBuf,
    /// The time that counts as now [default: this machine's]
    #[arg(long, value_name = "RFC3339")]
    pub(crate) now: Option<Timestamp>,
    /// What the host has accepted before: its floors, as JSON
    #[arg(long, value_name = "FLOORS")]
    pub(crate) floors: Option<PathBuf>,
    /// A label that the host carries, KEY=VALUE
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// The host's architecture, in the words of OCI [default: any]
    #[arg(long)]
    pub(crate) arch: Option<String>,
    /// Say of each rule why it is there, and what to do when it refuses
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyImage {
    /// `HOST[:PORT]/NAME[:TAG][@DIGEST]`
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// A key that may have signed, with a name for it; any number of them
    #[arg(long = "key", value_name = "[NAME=]PUBFILE", required = true)]
    pub(crate) keys: Vec<String>,
    /// How many of the keys must have signed
    #[arg(long, default_value_t = 1)]
    pub(crate) threshold: usize,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Encrypt a secret for hosts, as a table [secret.NAME] of a manifest
    ///
    ///     pwgen -s 32 1 | hostctl secret encrypt --recipient age1... --name db --in host.toml
    ///     hostctl secret encrypt --recipients-file hosts.txt tls.key
    ///
    /// Hosts make their own identity; `hostctl status` shows the recipient (age1…) to encrypt for. A
    /// secret has at most 64 KiB and is taken as it is: a line break at its end is part of it. The
    /// format is that of age-encryption.org, version 1: `age --armor` makes the same.
    #[command(verbatim_doc_comment)]
    Encrypt(SecretEncrypt),
}

#[derive(Debug, Args)]
pub(crate) struct SecretEncrypt {
    /// The secret: a file, or - for standard input
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// A host that can open it, as `hostctl status` shows it; any number of them
    #[arg(long = "recipient", value_name = "age1…", required_unless_present = "recipients_file")]
    pub(crate) recipients: Vec<String>,
    /// A file of recipients, one a line; empty lines and those that begin with # are passed over
    #[arg(long, value_name = "FILE")]
    pub(crate) recipients_file: Option<PathBuf>,
    /// What the manifest calls it [default: the name of the file without its extension]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Put the table into this manifest, in place of one of that name, and leave all else as it is
    #[arg(long = "in", value_name = "MANIFEST")]
    pub(crate) manifest: Option<PathBuf>,
}

/// What a host's state is sealed by.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Seal {
    /// A TPM 2.0
    Tpm2,
}

#[derive(Debug, Args)]
pub(crate) struct Provision {
    /// Where to write; the operators' identity is made in DIR/operator
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The host's name
    #[arg(long)]
    pub(crate) name: String,
    /// An address or DNS name that operators reach it at; any number of them
    #[arg(long = "address", value_name = "IP-or-DNS")]
    pub(crate) addresses: Vec<String>,
    /// The first trust document
    #[arg(long, value_name = "TRUST")]
    pub(crate) trust: PathBuf,
    /// A label that the host carries, KEY=VALUE; any number of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Have the host encrypt its state at its first boot, with a key that its TPM gives to boot images which are signed for it
    #[arg(long, value_name = "BY")]
    pub(crate) seal: Option<Seal>,
    /// Where the host listens
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:7443")]
    pub(crate) listen: SocketAddr,
    /// Write the document here [default: DIR/provision.toml]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The manifest
    pub(crate) file: PathBuf,
    /// Plan here, for the host that this dump was taken from (`hostctl dump`)
    #[arg(long, value_name = "DUMP")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The manifest; its signatures are in FILE.sig
    pub(crate) file: PathBuf,
    /// FILE is a bundle: the host takes the images from it, too, and needs no registry
    #[arg(long)]
    pub(crate) bundle: bool,
    /// Only by the plan with this digest, which `plan` has shown; exit code 3 where the host would carry out another one
    ///
    /// The host looks when it takes the manifest, and once more right before the generation becomes the active one: where
    /// something has changed by then, it gives the generation up, and what runs goes on running.
    #[arg(long, value_name = "DIGEST")]
    pub(crate) require_plan: Option<Digest>,
    /// Wait until the host is what the manifest says
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: for how long, in seconds; exit code 4 after that
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The container [default: all of them]
    pub(crate) name: Option<String>,
    /// How many lines of the past
    #[arg(short = 'n', long, default_value_t = 100)]
    pub(crate) lines: u32,
    /// Go on with what is written from now
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Nothing older: a moment as 2026-01-31T12:00:00Z, or a time before now as 90s, 10m, 2h or 3d
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Since>,
    /// Nothing newer, in the same words
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    pub(crate) until: Option<Since>,
    /// Only what matches this Perl-compatible regular expression; upper case counts where the pattern has some
    #[arg(long, value_name = "PATTERN")]
    pub(crate) grep: Option<String>,
}

/// A moment, or a time before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    Moment(jiff::Timestamp),
    Ago(jiff::SignedDuration),
}

impl Since {
    /// The moment that is meant.
    pub(crate) fn before(self, now: jiff::Timestamp) -> jiff::Timestamp {
        match self {
            Self::Moment(moment) => moment,
            Self::Ago(time) => now.checked_sub(time).unwrap_or(jiff::Timestamp::MIN),
        }
    }
}

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write it as 2026-01-31T12:00:00Z, or as 90s, 10m, 2h or 3d".to_owned();
        if let Ok(moment) = text.parse() {
            return Ok(Self::Moment(moment));
        }
        let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| text.ends_with(*unit)).ok_or_else(wrong)?;
        let number: i64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
        let time = number.checked_mul(seconds).filter(|time| *time >= 0).ok_or_else(wrong)?;
        Ok(Self::Ago(jiff::SignedDuration::from_secs(time)))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on with what happens from now; where the connection is lost, behind what was shown last
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Nothing up to this one: the cursor of an event, as 1f2e3d4c:17; or nothing older: a time as for `logs`
    #[arg(long, value_name = "CURSOR|TIME")]
    pub(crate) since: Option<EventsSince>,
}

/// Behind which event, or from when on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EventsSince {
    Cursor(Cursor),
    Time(Since),
}

impl std::str::FromStr for EventsSince {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = text.parse().map(Self::Time);
        time.or_else(|wrong: String| {
            let cursor = text.parse().map(Self::Cursor);
            cursor.map_err(|cursor: bennu_api::NotACursor| format!("{wrong}; or as a cursor: {cursor}"))
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The container
    pub(crate) name: String,
    /// Pass standard input on to the command
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DebugShell {
    /// The container
    pub(crate) name: String,
    /// The image of the shell: `HOST[:PORT]/NAME[:TAG]@DIGEST`
    #[arg(long, value_name = "REF")]
    pub(crate) image: String,
    /// The program and its arguments [default: the image's own]
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// Where `provision` has written the operators' authority: DIR/operator
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Who they are; hosts write it down where it matters
    #[arg(long)]
    pub(crate) name: String,
    /// What they may do: view, operate (also exec) or deploy (everything)
    #[arg(long, default_value_t = Role::View)]
    pub(crate) role: Role,
    /// The folder to write, for --identity
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// What they use instead of where they are
    #[arg(long)]
    pub(crate) stats: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Debug {
    /// Whether SIG holds a signature by KEY over FILE; exit code 0 or 3
    VerifySignature {
        /// The public key, as `ssh-ed25519 AAAA…`
        #[arg(long, value_name = "KEY")]
        key: String,
        /// What it was made for
        #[arg(long, value_name = "NS", default_value = bennu_manifests::MANIFEST_NAMESPACE)]
        namespace: String,
        /// The signed bytes
        file: PathBuf,
        /// The signatures
        sig: PathBuf,
    },
    /// Read TOML on standard input, write JSON in which each value names its type; exit code 2 where it is refused
    TomlJson,
    /// Everything in the layer on standard input, an uncompressed tar, as `store files` prints it;
    /// exit code 2 where it is refused
    Layer,
}
