//! The command reference in `docs/hostctl.md` is what `--help` says; this test writes and compares it.

use clap::{Command, CommandFactory};

use crate::cli::Cli;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/hostctl.md");
/// Set this to write the file anew.
const UPDATE: &str = "UPDATE_REFERENCE";

fn reference() -> String {
    let mut text = String::from(
        "# hostctl\n\nEvery command as its `--help` shows it. This file is written from the program, and compared \
         with it by a test: `UPDATE_REFERENCE=1 cargo test -p hostctl reference` writes it anew.\n",
    );
    let mut root = Cli::command().term_width(100);
    root.build();
    section(&mut text, &mut root, "hostctl", 2);
    text
}

fn section(text: &mut String, command: &mut Command, path: &str, level: usize) {
    let help = command.clone().term_width(100).render_long_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    text.push_str(&format!("\n{} {path}\n\n```text\n{}\n```\n", "#".repeat(level), help.join("\n")));
    for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        section(text, sub, &path, level + 1);
    }
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_reference_is_what_help_says() {
    let now = reference();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(FILE, &now).expect("the reference can be written");
    }
    let written = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(written == now, "docs/hostctl.md is not what --help says: run the tests with {UPDATE}=1");
}
