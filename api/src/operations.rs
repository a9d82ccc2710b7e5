//! The requests that there are: the one table that the daemon's routes, what each role may do, and the OpenAPI
//! description are made from.

use crate::Role;

/// A method of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `DELETE`
    Delete,
}

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Hand in a manifest.
    Manifest,
    /// Hand in a manifest with its images.
    Bundle,
    /// What a manifest would do.
    Plan,
    /// The trust document in force.
    Trust,
    /// Hand in trust documents.
    TakeTrust,
    /// The host.
    Status,
    /// Its containers.
    Containers,
    /// All about one container.
    Inspect,
    /// Numbers for Prometheus.
    Metrics,
    /// Whether all is well, as a status code.
    Health,
    /// The images in the store.
    Images,
    /// The volumes.
    Volumes,
    /// The snapshots of a volume.
    Snapshots,
    /// Take one.
    TakeSnapshot,
    /// Remove one.
    RemoveSnapshot,
    /// Put one in the place of the volume.
    RestoreVolume,
    /// What is in a volume.
    ExportVolume,
    /// Put something else into it.
    ImportVolume,
    /// Files of a container.
    Files,
    /// Why the host has not updated.
    Why,
    /// Keep what is on trial.
    Confirm,
    /// Let what waits go on.
    Approve,
    /// Go back.
    Rollback,
    /// Begin again.
    Rebirth,
    /// The generations.
    History,
    /// What changes of generations have come to.
    Receipts,
    /// What happened.
    Events,
    /// What was written.
    Logs,
    /// Run a command and read what it writes.
    Exec,
    /// Run a command and talk with it.
    Talk,
    /// Open a shell of another image beside a container.
    DebugShell,
    /// What a plan is made of.
    Dump,
    /// This description.
    OpenApi,
}

impl Operation {
    /// All of them, in the order of the description.
    pub const ALL: [Self; 33] = [
        Self::Manifest,
        Self::Bundle,
        Self::Plan,
        Self::Trust,
        Self::TakeTrust,
        Self::Status,
        Self::Containers,
        Self::Inspect,
        Self::Metrics,
        Self::Health,
        Self::Images,
        Self::Volumes,
        Self::Snapshots,
        Self::TakeSnapshot,
        Self::RemoveSnapshot,
        Self::RestoreVolume,
        Self::ExportVolume,
        Self::ImportVolume,
        Self::Files,
        Self::Why,
        Self::Confirm,
        Self::Approve,
        Self::Rollback,
        Self::Rebirth,
        Self::History,
        Self::Receipts,
        Self::Events,
        Self::Logs,
        Self::Exec,
        Self::Talk,
        Self::DebugShell,
        Self::Dump,
        Self::OpenApi,
    ];

    /// Its method, path, the role that it needs, and what it does in one line.
    fn row(self) -> (Method, &'static str, Role, &'static str) {
        use Method::{Delete, Get, Post};
        use Role::{Deploy, Operate, View};
        match self {
            Self::Manifest => (Post, "/v1/manifest", Deploy, "Hand in a manifest with its signatures"),
            Self::Bundle => {
                (Post, "/v1/bundle", Deploy, "Hand in a bundle: a manifest with its signatures and images")
            }
            Self::Plan => {
                (Post, "/v1/plan", View, "What a manifest with its signatures would do; nothing changes")
            }
            Self::Trust => (Get, "/v1/trust", View, "The trust document in force"),
            Self::TakeTrust => (Post, "/v1/trust", Deploy, "Hand in trust documents with their signatures"),
            Self::Status => (Get, "/v1/status", View, "What the host is, and what it is doing"),
            Self::Containers => (Get, "/v1/containers", View, "The containers that are there"),
            Self::Inspect => {
                (Get, "/v1/containers/{name}", View, "What is declared of a container, and what came of it")
            }
            Self::Metrics => (Get, "/v1/metrics", View, "Numbers for Prometheus"),
            Self::Health => {
                (Get, "/v1/health", View, "200 where the host is what its manifest says, else 503")
            }
            Self::Images => (Get, "/v1/images", View, "The images in the store"),
            Self::Volumes => (Get, "/v1/volumes", View, "The volumes"),
            Self::Snapshots => (Get, "/v1/volumes/{volume}/snapshots", View, "The snapshots of a volume"),
            Self::TakeSnapshot => {
                (Post, "/v1/volumes/{volume}/snapshots", Operate, "Take a snapshot of a volume")
            }
            Self::RemoveSnapshot => (
                Delete,
                "/v1/volumes/{volume}/snapshots/{snapshot}",
                Operate,
                "Remove a snapshot of a volume",
            ),
            Self::RestoreVolume => {
                (Post, "/v1/volumes/{volume}/restore", Operate, "Put a snapshot in the place of a volume")
            }
            Self::ExportVolume => {
                (Get, "/v1/volumes/{volume}/export", Operate, "What is in a volume, as a tar")
            }
            Self::ImportVolume => (
                Post,
                "/v1/volumes/{volume}/import",
                Operate,
                "Put what is in a tar in the place of a volume",
            ),
            Self::Files => (Get, "/v1/files", Operate, "Files of a running container, as a tar"),
            Self::Why => (Get, "/v1/why", View, "Why the host has not updated"),
            Self::Confirm => (Post, "/v1/confirm", Operate, "Keep the generation that is on trial"),
            Self::Approve => (Post, "/v1/approve", Operate, "Let the generation that waits for it go on"),
            Self::Rollback => (Post, "/v1/rollback", Operate, "Go back to the generation before"),
            Self::Rebirth => (
                Post,
                "/v1/rebirth",
                Operate,
                "Start the machine anew from what is declared; all else is gone",
            ),
            Self::History => (Get, "/v1/history", View, "What became of the manifests handed in"),
            Self::Receipts => (Get, "/v1/receipts", View, "What changes of generations have come to"),
            Self::Events => (Get, "/v1/events", View, "What happened, and with `follow` what happens"),
            Self::Logs => (Get, "/v1/logs", View, "What was written, and with `follow` what is written"),
            Self::Exec => (Post, "/v1/exec", Operate, "Run a command in a container and read what it writes"),
            Self::Talk => (Get, "/v1/exec", Operate, "Run a command in a container and talk with it"),
            Self::DebugShell => {
                (Get, "/v1/debug-shell", Deploy, "Run a command of another image beside a container")
            }
            Self::Dump => (Get, "/v1/dump", View, "What a plan is made of, for planning offline"),
            Self::OpenApi => (Get, "/v1/openapi.json", View, "This description"),
        }
    }

    /// Its method.
    pub fn method(self) -> Method {
        self.row().0
    }

    /// Its path; what stands in braces is a part of it that is chosen.
    pub fn path(self) -> &'static str {
        self.row().1
    }

    /// The least role that may ask for it.
    pub fn needs(self) -> Role {
        self.row().2
    }

    /// What it does, in one line.
    pub fn summary(self) -> &'static str {
        self.row().3
    }

    /// Whether a client of this role may ask for it.
    pub fn allows(self, role: Role) -> bool {
        role >= self.needs()
    }

    /// What `method` and `path`, as in the table, ask for.
    pub fn find(method: Method, path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| (operation.method(), operation.path()) == (method, path))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_operations_are_the_same_request_and_each_is_found() {
        let requests: BTreeSet<_> =
            Operation::ALL.iter().map(|one| (format!("{:?}", one.method()), one.path())).collect();
        assert_eq!(requests.len(), Operation::ALL.len());
        for operation in Operation::ALL {
            assert_eq!(Operation::find(operation.method(), operation.path()), Some(operation));
        }
        assert_eq!(Operation::find(Method::Post, "/v1/status"), None);
    }

    #[test]
    fn each_role_may_do_what_the_table_says_and_no_more() {
        let may = |role: Role| -> Vec<Operation> {
            Operation::ALL.into_iter().filter(|operation| operation.allows(role)).collect()
        };
        use Operation::*;
        let look = [
            Plan, Trust, Status, Containers, Inspect, Metrics, Health, Images, Volumes, Snapshots, Why,
            History, Receipts, Events, Logs, Dump, OpenApi,
        ];
        assert_eq!(may(Role::View), look);
        let beyond = |role, less: Role| -> Vec<Operation> {
            may(role).into_iter().filter(|operation| !operation.allows(less)).collect()
        };
        let work = [
            TakeSnapshot,
            RemoveSnapshot,
            RestoreVolume,
            ExportVolume,
            ImportVolume,
            Files,
            Confirm,
            Approve,
            Rollback,
            Rebirth,
            Exec,
            Talk,
        ];
        assert_eq!(beyond(Role::Operate, Role::View), work);
        assert_eq!(beyond(Role::Deploy, Role::Operate), [Manifest, Bundle, TakeTrust, DebugShell]);
        assert_eq!(may(Role::Deploy), Operation::ALL);
    }
}
