//! Registries, and whose signatures images must carry.

use super::Name;
use crate::language::{
    each, flag, integer, later, needed, optional, or_empty, otherwise, sub_table, table, text,
};
use crate::values::{MAX_ENTRIES, mirror, name};

table! {
    /// How to reach one registry.
    #[derive(Default)]
    pub struct Registry {
        /// Speak HTTP without TLS. What is pulled is still checked against the signed digest.
        pub plain_http: bool = "plain-http", otherwise(flag(), false, "false"), "true";
        /// Where else the same content is: `HOST[:PORT][/PATH]`, asked in this order before the registry itself.
        pub mirrors: Vec<String> = "mirrors", later(or_empty(each(mirror(), 16))), "[\"mirror.example/hub\"]";
        /// How to log in.
        pub credentials: Option<Credentials> = "credentials", later(optional(sub_table::<Credentials>("registry.\"HOST\".credentials"))), "{ username = \"ci\", password = \"registry-password\" }";
        /// The config with the certificates (PEM) that its own is signed by.
        pub ca: Option<Name> = "ca", later(optional(name())), "\"registry-ca\"";
        /// The config with the certificate (PEM) that the host shows.
        pub client_certificate: Option<Name> = "client-certificate", later(optional(name())), "\"registry-client\"";
        /// The secret with that certificate's key (PEM).
        pub client_key: Option<Name> = "client-key", later(optional(name())), "\"registry-client-key\"";
    }
}

table! {
    /// How to log in to a registry.
    pub struct Credentials {
        /// The user.
        pub username: String = "username", needed(text("a user", 256)), "\"ci\"";
        /// The secret with the password or token.
        pub password: Name = "password", needed(name()), "\"registry-password\"";
    }
}

table! {
    /// Whose signatures images must carry. The signatures are those that `cosign sign --key` makes.
    pub struct ImagePolicy {
        /// Keys of the trust document.
        pub keys: Vec<Name> = "keys", needed(crate::language::deny_empty(each(name(), MAX_ENTRIES), "name the keys")), "[\"ci\", \"release\"]";
        /// How many of them must have signed.
        pub threshold: u64 = "threshold", otherwise(integer(1..=64), 1, "1"), "2";
    }
}
