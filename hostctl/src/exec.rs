//! `exec`: a command inside a container, its output passed on byte for byte.

use std::io::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bennu_api::{Exec, ExecOutput};

use crate::client::Host;
use crate::exit::{Failure, Outcome};
use crate::host::container_name;
use crate::render::Out;

/// Runs `command` in `name`; its exit code is the outcome.
pub(crate) async fn run(host: &Host, name: &str, command: &[String], out: &mut Out) -> Outcome {
    let exec = Exec { container: container_name(name)?, command: command.to_vec() };
    let mut lines = host.post_lines("/v1/exec", &exec).await?;
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
