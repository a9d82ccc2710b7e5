//! The provisioning document: what a new host is told once, before it can be told anything else.
//!
//! TOML, handed over by a channel that the operator trusts with the host's private key (systemd credential
//! `bennu.provision`, from SMBIOS, fw_cfg or the ESP). The first start writes it to the state partition; from then
//! on what is there counts, and the credential is not read again.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The name of the systemd credential that carries it.
pub const CREDENTIAL: &str = "bennu.provision";

/// The largest provisioning document, in bytes.
pub const MAX_SIZE: usize = 256 << 10;

/// What a new host is told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Provision {
    /// The version of this format: 1.
    pub schema: u32,
    /// The host's name: its host name and the name in its certificate.
    pub name: bennu_manifests::model::Name,
    /// Labels that manifests select hosts by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What the host seals its state by, at its first boot.
    #[serde(default)]
    pub seal: Option<Seal>,
    /// The text of the first trust document.
    pub trust: String,
    /// The API over the network; without it there is the Unix socket alone.
    pub api: Option<ProvisionApi>,
}

/// What a host's state is sealed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seal {
    /// The machine's TPM 2.0, which gives the key to boot images that its owner has signed the measurements of.
    Tpm2,
}

/// The API over the network, under mutual TLS.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProvisionApi {
    /// Where it listens, as `0.0.0.0:7443`.
    pub listen: SocketAddr,
    /// The host's certificate, PEM.
    pub certificate: String,
    /// The host's private key, PEM (PKCS #8).
    pub key: String,
    /// The authority whose client certificates are let in, PEM.
    pub client_ca: String,
}

/// Without the private key.
impl std::fmt::Debug for ProvisionApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProvisionApi").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Without the private key.
impl std::fmt::Debug for Provision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provision").field("name", &self.name).field("api", &self.api).finish_non_exhaustive()
    }
}
