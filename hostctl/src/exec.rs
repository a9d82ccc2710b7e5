//! `exec` and `debug-shell`: a command inside a container or beside it, its output passed on byte for byte.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bennu_api::{Exec as Request, ExecOutput, Start, Terminal};
use bennu_manifests::model::ImageRef;

use crate::cli::{DebugShell, Exec};
use crate::client::Host;
use crate::exit::{Failure, Outcome};
use crate::host::container_name;
use crate::render::Out;
use crate::{talk, terminal};

/// Runs a command in a container; its exit code is the outcome.
pub(crate) async fn run(host: &Host, args: &Exec, out: &mut Out) -> Outcome {
    let container = container_name(&args.name)?;
    if !args.interactive && !args.tty {
        let request = Request { container, command: args.command.clone() };
        return listen(host, &args.name, &request, out).await;
    }
    let start = Start {
        container,
        command: args.command.clone(),
        input: args.interactive,
        terminal: wanted_terminal(args.tty, args.interactive, out)?,
        image: None,
    };
    talk::run(host, "/v1/exec", start, out).await
}

/// Opens a shell of another image beside a container; its exit code is the outcome.
pub(crate) async fn debug_shell(host: &Host, args: &DebugShell, out: &mut Out) -> Outcome {
    let image: ImageRef = args.image.parse().map_err(|e| {
        Failure::invalid(format!("'{}' is no image pinned by digest", args.image))
            .because(e)
            .advice("write it as HOST[:PORT]/NAME[:TAG]@DIGEST; `hostctl images` shows those that are there")
    })?;
    // As a shell is meant: with a terminal where there is one.
    let tty = terminal::is_there() && !out.json();
    let start = Start {
        container: container_name(&args.name)?,
        command: args.command.clone(),
        input: true,
        terminal: wanted_terminal(tty, true, out)?,
        image: Some(image),
    };
    talk::run(host, "/v1/debug-shell", start, out).await
}

fn wanted_terminal(tty: bool, interactive: bool, out: &Out) -> Result<Option<Terminal>, Failure> {
    if !tty {
        return Ok(None);
    }
    if out.json() {
        return Err(Failure::invalid("what a terminal shows is no JSON").advice("leave -t or --json away"));
    }
    if interactive && !terminal::is_there() {
        return Err(Failure::invalid("standard input is no terminal").advice("leave -t away"));
    }
    let name = std::env::var("TERM").unwrap_or_default();
    Ok(Some(Terminal { name, size: terminal::size() }))
}

/// Runs a command that gets no input.
async fn listen(host: &Host, name: &str, request: &Request, out: &mut Out) -> Outcome {
    let mut lines = host.post_lines("/v1/exec", request).await?;
    let lost = || Failure::failed(format!("the end of the command in {name} is not known"));
    let mut code = None;
    // What follows an exit would be a fault of the host; it is not waited for.
    while code.is_none() {
        let Some(output) = lines.next::<ExecOutput>().await.map_err(|e| lost().because(e.to_string()))?
        else {
            break;
        };
        if let ExecOutput::Exit { code: ended } = output {
            code = Some(ended);
        }
        if out.json() {
            out.item(&output, |_| String::new())?;
            continue;
        }
        let decode = |data: &str| BASE64_STANDARD.decode(data).map_err(|e| lost().because(e));
        match &output {
            ExecOutput::Stdout { data } => out.write(&decode(data)?)?,
            // There is nobody left to tell where standard error is closed.
            ExecOutput::Stderr { data } => drop(std::io::stderr().lock().write_all(&decode(data)?)),
            ExecOutput::Exit { .. } => {}
        }
    }
    let code = code.ok_or_else(|| lost().because("the host ended the stream before the command ended"))?;
    // As a shell would see it: the low byte.
    Ok(code.to_le_bytes()[0])
}
