//! Registries, and whose signatures images must carry.

use super::Name;
use crate::document::Wrong;
use crate::language::{
    Reader, each, flag, integer, needed, optional, or_empty, otherwise, section_of, sub_table, table, text,
};
use crate::values::{MAX_ENTRIES, mirror, name, registry_name};

table! {
    /// How to reach one registry.
    #[derive(Default)]
    pub struct Registry {
        /// Speak HTTP without TLS. What is pulled is still checked against the signed digest.
        pub plain_http: bool = "plain-http", otherwise(flag(), false, "false"), "true";
        /// Where else the same content is: `HOST[:PORT][/PATH]`, asked in this order before the registry itself. A mirror that
        /// fails or gives something else is passed over for a while. It may have an entry of its own; what this one says does
        /// not count for it.
        pub mirrors: Vec<String> = "mirrors", or_empty(each(mirror(), 16)), "[\"mirror.example/hub\"]";
        /// How to log in. They are sent over TLS, or where `plain-http` says that it does not matter, to the registry and to a
        /// token server of its domain.
        pub credentials: Option<Credentials> = "credentials", optional(sub_table::<Credentials>("registry.\"HOST\".credentials")), "{ username = \"ci\", password = \"registry-password\" }";
        /// Token servers of other domains, `HOST[:PORT]`, that the registry may send its users to.
        pub token_servers: Vec<String> = "token-servers", or_empty(each(registry_name(), 16)), "[\"sso.example\"]";
        /// The config with the certificates (PEM) of the authorities that its own comes from; no others are believed then.
        pub ca: Option<Name> = "ca", optional(name()), "\"registry-ca\"";
        /// The config with the certificate (PEM) that the host shows.
        pub client_certificate: Option<Name> = "client-certificate", optional(name()), "\"registry-client\"";
        /// The secret with that certificate's key (PEM).
        pub client_key: Option<Name> = "client-key", optional(name()), "\"registry-client-key\"";
    }
}

table! {
    /// Through whom the host reaches registries.
    pub struct Proxy {
        /// Where it is. One that asks for a user and a password cannot be used.
        pub url: String = "url", needed(crate::values::url()), "\"http://proxy.example:3128\"";
        /// Who is reached directly: domains (`example.org`, with all below it; `.example.org`, those below it alone), addresses, networks
        /// (`192.0.2.0/24`), each with `:PORT` where only that is meant. This machine itself always is.
        pub except: Vec<String> = "except", or_empty(each(text("an exception", 256), MAX_ENTRIES)), "[\"registry.example.org\", \"192.0.2.0/24\"]";
    }
}

pub(crate) fn registry_reader() -> impl Reader<Out = Registry> {
    section_of::<Registry>("registry.\"HOST\"", |registry| {
        match (&registry.client_certificate, &registry.client_key) {
            (Some(_), None) => {
                Err(Wrong::new("a certificate is shown with its key").hint("name it as `client-key`"))
            }
            (None, Some(_)) => {
                Err(Wrong::new("a key is for a certificate").hint("name it as `client-certificate`"))
            }
            _ => Ok(()),
        }
    })
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
