//! How a command ends: exit codes, and the one printer of errors.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::process::ExitCode;

use bennu_api::{Problem, ProblemKind};
use bennu_image_store::Fault;
use serde::Serialize;

/// Exit codes that other programs rely on. `exec` ends with the code of the command that it ran instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
    /// 0: done.
    Done,
    /// 1: it failed.
    Failed,
    /// 2: usage, or a document that is not valid.
    Invalid,
    /// 3: refused for security: signature, trust, serial, expiry, digest.
    Refused,
    /// 4: still waiting, or not converged in time.
    Waiting,
    /// 5: what was asked for is not there.
    NotFound,
}

impl Code {
    /// The number.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        code.number().into()
    }
}

/// Why a command was not carried out, and which exit code that is.
#[derive(Debug)]
pub(crate) struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    rule: String,
    message: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
    detail: String,
    advice: Option<String>,
    faults: Vec<bennu_manifests::Fault>,
}

/// What a command comes to: its exit code, or why it was not carried out.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// A failure; `message` says what was being done and to what, in lower case and without a full stop.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            code,
            rule: String::new(),
            message: message.into(),
            cause: None,
            detail: String::new(),
            advice: None,
            faults: Vec::new(),
        }))
    }

    /// Something failed (exit code 1).
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    /// Usage, or a document that is not valid (exit code 2).
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// Refused for security by the rule with this stable code (exit code 3).
    pub(crate) fn refused(rule: &str, message: impl Into<String>) -> Self {
        let mut failure = Self::new(Code::Refused, message);
        failure.0.rule = rule.to_owned();
        failure
    }

    /// Not there (exit code 5).
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// With what caused it.
    pub(crate) fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// With what to do about it.
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// With lines that say more, above the message.
    pub(crate) fn detail(mut self, detail: String) -> Self {
        self.0.detail = detail;
        self
    }

    /// With errors that point into the document `text`, which people know as `file`.
    pub(crate) fn faults(mut self, file: &str, text: &str, invalid: bennu_manifests::Invalid) -> Self {
        self.0.detail = invalid.render(file, text);
        self.0.faults = invalid.errors;
        self
    }

    /// The exit code.
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// For people: what, why, where, and what to do.
    pub(crate) fn text(&self) -> String {
        let mut text = self.0.detail.clone();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "hostctl: {self}");
        if !self.0.rule.is_empty() {
            let _ = write!(text, " [{}]", self.0.rule);
        }
        text.push('\n');
        if let Some(advice) = &self.0.advice {
            let _ = writeln!(text, "  help: {advice}");
        }
        text
    }

    /// For programs: one JSON object.
    pub(crate) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Report<'a> {
            error: Body<'a>,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            kind: Code,
            #[serde(skip_serializing_if = "str::is_empty")]
            rule: &'a str,
            message: String,
            #[serde(skip_serializing_if = "str::is_empty")]
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            advice: Option<&'a str>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [bennu_manifests::Fault],
        }
        let body = Body {
            kind: self.0.code,
            rule: &self.0.rule,
            message: self.to_string(),
            detail: &self.0.detail,
            advice: self.0.advice.as_deref(),
            errors: &self.0.faults,
        };
        serde_json::to_string_pretty(&Report { error: body }).expect("strings and numbers always become JSON")
    }
}

/// The message and the chain of its causes, each once.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        let mut last = self.0.message.clone();
        let mut cause = self.0.cause.as_deref().map(|e| e as &dyn Error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat their cause in their own message.
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl From<Fault> for Code {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Invalid => Self::Invalid,
            Fault::Refused => Self::Refused,
            Fault::Missing => Self::NotFound,
            Fault::Failed => Self::Failed,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = match problem.kind {
            ProblemKind::Invalid => Code::Invalid,
            ProblemKind::Refused => Code::Refused,
            ProblemKind::NotFound => Code::NotFound,
            ProblemKind::Failed => Code::Failed,
        };
        let clean = |text: &str| crate::render::printable(text);
        let mut failure = Self::new(code, clean(&problem.message));
        failure.0.rule = clean(&problem.rule);
        failure.0.detail = clean(&problem.detail);
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_documented_numbers() {
        let codes = [Code::Done, Code::Failed, Code::Invalid, Code::Refused, Code::Waiting, Code::NotFound];
        assert_eq!(codes.map(Code::number), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_chain_of_causes_is_printed_once() {
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let failure = Failure::refused("sig.missing", "read host.toml.sig").because(cause).advice("sign it");
        assert_eq!(
            failure.text(),
            "hostctl: read host.toml.sig: no such file [sig.missing]\n  help: sign it\n"
        );
        let json: serde_json::Value = serde_json::from_str(&failure.json()).expect("it is JSON");
        assert_eq!(json["error"]["kind"], "refused");
        assert_eq!(json["error"]["rule"], "sig.missing");
    }

    #[test]
    fn what_a_host_says_cannot_move_the_terminal() {
        let problem = Problem::new(ProblemKind::Refused, "a\u{1b}[2Jb");
        assert!(!Failure::from(problem).text().contains('\u{1b}'));
    }
}
