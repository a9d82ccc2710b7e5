//! What an image's configuration may say of the process that is to run: data, and only such as a process can be given.

use oci_spec::image::{Config, ImageConfiguration};

use super::document::DocumentError;

/// The longest argument or variable, in bytes, with the zero behind it (`MAX_ARG_STRLEN` of Linux, `include/uapi/linux/binfmts.h`).
const MAX_STRING: usize = 128 << 10;
/// Bytes of all arguments and variables together: what the kernel takes with a stack of 8 MiB (`execve(2)`, "Limits on size of
/// arguments and environment").
const MAX_STRINGS: usize = 2 << 20;
/// The longest path, user or signal, in bytes (`PATH_MAX`).
const MAX_WORD: usize = 4096;
/// The most labels, and bytes of all of them: nobody is given them, so this bounds what is kept.
const MAX_LABELS: usize = 4096;
const MAX_LABEL_BYTES: usize = 1 << 20;

/// Refuses a configuration that could not be passed on as it is: with a NUL, which would end a string early for the kernel, or with
/// more than a process can be given. Whatever else stands in it is data; what becomes of it is for its users to say.
///
/// # Errors
/// [`DocumentError::Config`]
pub fn check(image: &ImageConfiguration) -> Result<(), DocumentError> {
    let Some(config) = image.config() else { return Ok(()) };
    let refuse = |what, fault| Err(DocumentError::Config { what, fault });
    let mut total = 0;
    for (what, strings) in lists(config) {
        for string in strings {
            total += string.len() + 1;
            if string.contains('\0') {
                return refuse(what, "contains a NUL");
            }
            if string.len() >= MAX_STRING || total > MAX_STRINGS {
                return refuse(what, "is longer than a process can be given");
            }
        }
    }
    for (what, word) in
        [("User", config.user()), ("WorkingDir", config.working_dir()), ("StopSignal", config.stop_signal())]
    {
        match word {
            Some(word) if word.contains('\0') => return refuse(what, "contains a NUL"),
            Some(word) if word.len() > MAX_WORD => return refuse(what, "is too long"),
            _ => {}
        }
    }
    let labels = config.labels().iter().flatten();
    let bytes: usize = labels.clone().map(|(name, value)| name.len() + value.len()).sum();
    if labels.count() > MAX_LABELS || bytes > MAX_LABEL_BYTES {
        return refuse("Labels", "is too long");
    }
    Ok(())
}

/// What becomes arguments and variables.
fn lists(config: &Config) -> [(&'static str, &[String]); 3] {
    fn of(list: &Option<Vec<String>>) -> &[String] {
        list.as_deref().unwrap_or_default()
    }
    [("Entrypoint", of(config.entrypoint())), ("Cmd", of(config.cmd())), ("Env", of(config.env()))]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn image(config: Value) -> ImageConfiguration {
        let image = json!({ "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": [] } });
        serde_json::from_value(image).expect("a configuration")
    }

    #[test]
    fn t16_a_configuration_with_a_nul_or_more_than_a_process_takes_is_refused() {
        let long = "x".repeat(MAX_STRING);
        let many = vec!["x".repeat(1000); 2200];
        let labels: serde_json::Map<String, Value> =
            (0..=MAX_LABELS).map(|i| (i.to_string(), Value::from(""))).collect();
        for (config, what) in [
            (json!({ "Cmd": ["a", "b\0c"] }), "Cmd"),
            (json!({ "Entrypoint": ["\0"] }), "Entrypoint"),
            (json!({ "Env": ["A=b\0LD_PRELOAD=/x"] }), "Env"),
            (json!({ "User": "root\0" }), "User"),
            (json!({ "WorkingDir": "/\0" }), "WorkingDir"),
            (json!({ "StopSignal": "TERM\0" }), "StopSignal"),
            (json!({ "Cmd": [long] }), "Cmd"),
            (json!({ "Env": many }), "Env"),
            (json!({ "WorkingDir": "/".repeat(MAX_WORD + 1) }), "WorkingDir"),
            (json!({ "User": "1:".repeat(MAX_WORD) }), "User"),
            (json!({ "Labels": labels }), "Labels"),
            (json!({ "Labels": { "a": "x".repeat(MAX_LABEL_BYTES) } }), "Labels"),
        ] {
            match check(&image(config)) {
                Err(DocumentError::Config { what: found, .. }) => assert_eq!(found, what),
                other => panic!("{what}: {other:?}"),
            }
        }
        check(&image(json!({ "Cmd": ["x".repeat(MAX_STRING - 1)] }))).expect("just as long as it may be");
        check(&image(Value::Null)).expect("nothing to say");
    }
}
