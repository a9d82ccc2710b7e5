//! Signers in software: keys from a seed, and tokens that sign whatever they are told to say of themselves.
//!
//! The forms are those of OpenSSH's PROTOCOL.sshsig and PROTOCOL.u2f; that they are, `ssh-keygen -Y verify` says in
//! `tokens.rs`. Here alone `ring` signs; a signature takes microseconds, so a test may make thousands.

use base64::prelude::{BASE64_STANDARD, Engine};
use bennu_manifests::{PublicKey, Trust, check_trust};
use ring::digest::{SHA256, SHA512, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

/// The application of tokens, as `ssh-keygen -t ed25519-sk` sets it.
pub(crate) const APPLICATION: &str = "ssh:";

enum Secret {
    Ed25519(Ed25519KeyPair),
    P256(Box<EcdsaKeyPair>),
}

/// A key, held by software or by a token.
pub(crate) struct Soft {
    secret: Secret,
    application: Option<String>,
}

/// What a token says of itself: as it signs it, and as it stands in the signature file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Says {
    pub(crate) flags: u8,
    pub(crate) counter: u32,
}

/// A touch, and a count.
pub(crate) const TOUCHED: Says = Says { flags: 1, counter: 7 };

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes(), bytes].concat()
}

/// A positive `mpint` (RFC 4251, section 5).
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).expect("not zero");
    let magnitude = &bytes[start..];
    if magnitude[0] & 0x80 == 0 { string(magnitude) } else { string(&[&[0], magnitude].concat()) }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

impl Soft {
    /// The Ed25519 key of this name; the same in each run.
    pub(crate) fn new(name: &str) -> Self {
        let seed = sha256(name.as_bytes());
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed has 32 bytes");
        Self { secret: Secret::Ed25519(pair), application: None }
    }

    /// A new P-256 key.
    pub(crate) fn p256() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random);
        Self { secret: Secret::P256(Box::new(pair.expect("it was just made"))), application: None }
    }

    /// The same key, held by a token for this application.
    pub(crate) fn on_token(self, application: &str) -> Self {
        Self { application: Some(application.to_owned()), ..self }
    }

    fn key_type(&self) -> &'static str {
        match (&self.secret, &self.application) {
            (Secret::Ed25519(_), None) => "ssh-ed25519",
            (Secret::Ed25519(_), Some(_)) => "sk-ssh-ed25519@openssh.com",
            (Secret::P256(_), None) => "ecdsa-sha2-nistp256",
            (Secret::P256(_), Some(_)) => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    fn wire(&self) -> Vec<u8> {
        let mut wire = string(self.key_type().as_bytes());
        match &self.secret {
            Secret::Ed25519(pair) => wire.extend(string(pair.public_key().as_ref())),
            Secret::P256(pair) => {
                wire.extend(string(b"nistp256"));
                wire.extend(string(pair.public_key().as_ref()));
            }
        }
        wire.extend(self.application.iter().flat_map(|application| string(application.as_bytes())));
        wire
    }

    /// As in `~/.ssh/*.pub`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.key_type(), BASE64_STANDARD.encode(self.wire()))
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.line().parse().expect("it is of a kind that is taken")
    }

    /// The armoured signature.
    pub(crate) fn sign(&self, namespace: &str, message: &[u8]) -> Vec<u8> {
        self.sign_saying(namespace, message, TOUCHED, TOUCHED)
    }

    /// As [`Soft::sign`], of a token that signs one thing and whose signature file says another.
    pub(crate) fn sign_saying(&self, namespace: &str, message: &[u8], signed: Says, told: Says) -> Vec<u8> {
        let hash = digest(&SHA512, message);
        let fields = [namespace.as_bytes(), b"", b"sha512", hash.as_ref()];
        let mut data = b"SSHSIG".to_vec();
        data.extend(fields.iter().flat_map(|field| string(field)));
        if let Some(application) = &self.application {
            let counter = signed.counter.to_be_bytes();
            data = [&sha256(application.as_bytes())[..], &[signed.flags], &counter, &sha256(&data)].concat();
        }
        let raw = match &self.secret {
            Secret::Ed25519(pair) => pair.sign(&data).as_ref().to_vec(),
            Secret::P256(pair) => {
                let both = pair.sign(&SystemRandom::new(), &data).expect("it signs");
                let (r, s) = both.as_ref().split_at(32);
                [mpint(r), mpint(s)].concat()
            }
        };
        let mut inner = [string(self.key_type().as_bytes()), string(&raw)].concat();
        if self.application.is_some() {
            inner.push(told.flags);
            inner.extend(told.counter.to_be_bytes());
        }
        let mut blob = [b"SSHSIG", &1u32.to_be_bytes()[..]].concat();
        for field in [&self.wire(), namespace.as_bytes(), b"", b"sha512", &inner] {
            blob.extend(string(field));
        }
        armour(&blob).into_bytes()
    }
}

/// As OpenSSH writes it: 70 characters a line.
fn armour(blob: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(blob);
    let lines: Vec<&str> =
        text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
}

/// The signatures of the Ed25519 keys of these names, one after the other.
pub(crate) fn sign(names: &[&str], namespace: &str, text: &str) -> Vec<u8> {
    names.iter().flat_map(|name| Soft::new(name).sign(namespace, text.as_bytes())).collect()
}

/// A role: who has it, and how many of them must agree.
pub(crate) type Holders<'a> = (&'a str, &'a [&'a str], usize);

/// A trust document whose keys are those that its roles name.
pub(crate) fn trust_text(version: u64, roles: &[Holders<'_>]) -> String {
    let mut names: Vec<&str> = roles.iter().flat_map(|(_, names, _)| names.iter().copied()).collect();
    names.sort_unstable();
    names.dedup();
    let keys: String =
        names.iter().map(|name| format!("[key.{name}]\npublic = \"{}\"\n", Soft::new(name).line())).collect();
    let roles: String = roles
        .iter()
        .map(|(role, names, threshold)| format!("[role.{role}]\nkeys = {names:?}\nthreshold = {threshold}\n"))
        .collect();
    format!("schema = 1\nversion = {version}\n{keys}{roles}")
}

/// As [`trust_text`], read.
pub(crate) fn trust(version: u64, roles: &[Holders<'_>]) -> Trust {
    let text = trust_text(version, roles);
    check_trust(text.as_bytes()).unwrap_or_else(|invalid| panic!("{}", invalid.render("trust.toml", &text)))
}
