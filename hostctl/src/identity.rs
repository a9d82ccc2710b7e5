//! `identity`: a client certificate for one more person or program.

use jiff::Timestamp;
use serde::Serialize;

use bennu_api::Role;
use bennu_manifests::model::Name;

use crate::authority::Authority;
use crate::cli::Identity;
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::provision::MAX_PEM;
use crate::render::{Out, facts};

/// What was written.
#[derive(Debug, Serialize)]
struct Issued {
    name: Name,
    role: Role,
    /// The folder for `--identity`.
    identity: String,
}

/// Makes and writes it.
pub(crate) fn run(args: &Identity, now: Timestamp, out: &mut Out) -> Outcome {
    let name: Name =
        args.name.parse().map_err(|e| Failure::invalid(format!("'{}' is no name", args.name)).because(e))?;
    let operator = args.dir.join("operator");
    let failed = |e| Failure::failed("use the operators' authority").because(e);
    let certificate = files::read_text(&operator.join("ca.crt"), MAX_PEM)?;
    let key = files::read_text(&operator.join("ca.key"), MAX_PEM)?;
    let authority = Authority::load(certificate, &key, now).map_err(failed)?;
    let folder = &args.out;
    if folder.join("client.key").exists() {
        return Err(Failure::failed(format!("{} holds an identity already", folder.display()))
            .advice("name another folder, or remove that one"));
    }
    std::fs::create_dir_all(folder)
        .map_err(|e| Failure::failed(format!("make the folder {}", folder.display())).because(e))?;
    let issued = authority.client(name.as_str(), args.role, now).map_err(failed)?;
    files::replace(&folder.join("ca.crt"), authority.certificate().as_bytes(), 0o644)?;
    files::replace_secret(&folder.join("client.key"), issued.key.as_bytes())?;
    files::replace(&folder.join("client.crt"), issued.certificate.as_bytes(), 0o644)?;
    let issued = Issued { name, role: args.role, identity: folder.display().to_string() };
    out.result(&issued, |issued| {
        facts(&[
            ("name", issued.name.to_string()),
            ("role", issued.role.to_string()),
            ("identity", format!("{} (it holds a private key)", issued.identity)),
        ])
    })?;
    Ok(0)
}
