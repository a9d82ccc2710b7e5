//! Words of closed lists, as readers.

use crate::document::Item;
use crate::language::{Form, Reader, spec};
use crate::values::{MAX_LABEL, MAX_SPEC};
use crate::words::{is_dangerous, read_arch, read_capability, read_signal};

/// An architecture.
pub(crate) fn arch() -> impl Reader<Out = String> {
    spec("an architecture", "in the words of OCI, as `amd64` or `arm64`", "^[a-z0-9]+$", MAX_LABEL, read_arch)
}

/// A capability.
pub(crate) fn capability() -> impl Reader<Out = String> {
    spec(
        "a capability",
        "as capabilities(7) calls it, without `CAP_`",
        "^[A-Z_]+$",
        MAX_SPEC,
        read_capability,
    )
}

/// A capability that is added; some need the `os` role.
pub(crate) fn added_capability() -> impl Reader<Out = String> {
    struct Added<R>(R);
    impl<R: Reader<Out = String>> Reader for Added<R> {
        type Out = String;

        fn form(&self) -> Form {
            self.0.form()
        }

        fn read(&self, item: &Item<'_>) -> Option<String> {
            let capability = self.0.read(item)?;
            if is_dangerous(&capability) {
                item.faults.needs_os(&item.span, &format!("{}: capability {capability}", item.path));
            }
            Some(capability)
        }
    }
    Added(capability())
}

/// A signal.
pub(crate) fn signal() -> impl Reader<Out = String> {
    spec(
        "a signal",
        "its name, as `SIGTERM` or `SIGRTMIN+3`",
        "^SIG[A-Z0-9]+(\\+[0-9]+)?$",
        MAX_SPEC,
        read_signal,
    )
}

/// What happens when something that a container uses has changed.
pub(crate) fn on_change() -> impl Reader<Out = String> {
    spec("a consequence", "`restart`, or the name of a signal", "", MAX_SPEC, |text| match text {
        "restart" => Ok(text.to_owned()),
        signal => read_signal(signal),
    })
}
