//! The system bus: systemd's manager and its units. Nothing else here names the bus.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use systemd_zbus::{ManagerProxy, Mode};
use tokio::sync::broadcast;
use zbus::message::Type;
use zbus::names::InterfaceName;
use zbus::proxy::CacheProperties;
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value as Variant};

use super::unit::{Command, Property, Value};

/// How long systemd has to forget a unit that has stopped.
const FORGET: Duration = Duration::from_secs(10);

/// How often it is looked whether it has.
const FORGET_LOOK: Duration = Duration::from_millis(20);

/// How long systemd has to answer anything that it does not need to wait for.
const ANSWER: Duration = Duration::from_secs(30);

/// How many ends of jobs may be told while somebody who waits for one does not look; far above what may be under way.
const ENDS: usize = 4096;

const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
const SERVICE_INTERFACE: &str = "org.freedesktop.systemd1.Service";

/// systemd, as it is reached over the bus.
#[derive(Debug)]
pub(super) struct Bus {
    connection: zbus::Connection,
    manager: ManagerProxy<'static>,
    ends: broadcast::Sender<End>,
}

/// How a job of systemd ended.
#[derive(Debug, Clone)]
struct End {
    job: OwnedObjectPath,
    result: String,
}

/// A job that systemd has taken on.
#[derive(Debug)]
pub(super) struct Job {
    what: String,
    path: OwnedObjectPath,
    ends: broadcast::Receiver<End>,
}

/// A unit, as `ListUnitsByPatterns` tells of it. Its words are kept as text: systemd adds new ones now and then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitStatus {
    /// Its name.
    pub name: String,
    /// `active`, `activating`, `deactivating`, `failed`, `inactive`, …
    pub active: String,
    /// What exactly, as `running` or `auto-restart`.
    pub sub: String,
    /// What is queued for it, as `stop`; empty where nothing is.
    pub job: String,
}

/// What is asked of a running service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ServiceDetails {
    /// Its main process; 0 where there is none.
    pub pid: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// Bytes of memory, where that is counted.
    pub memory: Option<u64>,
    /// Since when it is in its state.
    pub since: Option<Timestamp>,
}

/// Why systemd did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The bus, or systemd, said no.
    #[error("ask systemd to {what}")]
    Call {
        /// What it was asked.
        what: String,
        /// What it said.
        source: Box<zbus::Error>,
    },
    /// It did what it was asked, and that did not succeed.
    #[error("{what}: systemd says {result:?}")]
    Job {
        /// What it was asked.
        what: String,
        /// The result of the job (`org.freedesktop.systemd1(5)`, `JobRemoved`).
        result: String,
    },
    /// It did not answer or did not finish in time.
    #[error("{what}: not done within {} s", within.as_secs())]
    Deadline {
        /// What it was asked.
        what: String,
        /// How long it had.
        within: Duration,
    },
}

impl Bus {
    /// Connects to the system bus. systemd tells whoever asked for a job of its end; who subscribes besides is told of every change of every
    /// unit that a start touches, some thirty messages (`org.freedesktop.systemd1(5)`, `Subscribe()`).
    ///
    /// # Errors
    /// Where there is no bus, or no systemd on it.
    pub(super) async fn connect() -> Result<Self, BusError> {
        let what = "connect to the system bus";
        within(what, ANSWER, async {
            let connection = zbus::Connection::system().await?;
            // What is asked for is asked anew each time: a cache would have the bus send every change of every unit.
            let manager =
                ManagerProxy::builder(&connection).cache_properties(CacheProperties::No).build().await?;
            let ends = ends_of_jobs(&connection).await?;
            Ok(Self { connection, manager, ends })
        })
        .await
    }

    /// All loaded units whose names match.
    ///
    /// # Errors
    /// Where systemd can't be asked.
    pub(super) async fn units(&self, pattern: &str) -> Result<Vec<UnitStatus>, BusError> {
        // (name, description, load, active, sub, following, unit, job number, job type, job)
        type Row =
            (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
        let states: &[&str] = &[];
        let rows: Vec<Row> = within("list units", ANSWER, async {
            self.manager.inner().call("ListUnitsByPatterns", &(states, &[pattern][..])).await
        })
        .await?;
        let known = rows.into_iter().filter(|row| row.2 == "loaded");
        Ok(known.map(|row| UnitStatus { name: row.0, active: row.3, sub: row.4, job: row.8 }).collect())
    }

    /// Has systemd start a unit that exists for as long as it runs.
    ///
    /// # Errors
    /// Where it does not take that on.
    pub(super) async fn start(&self, unit: &str, properties: &[Property]) -> Result<Job, BusError> {
        let variants: Vec<_> = properties.iter().map(|p| (p.name, variant(&p.value))).collect();
        let what = format!("start {unit}");
        self.begin(&what, self.manager.start_transient_unit(unit, Mode::Fail, &variants, &[])).await
    }

    /// Stops a unit, waits until it has stopped, and has systemd forget it. One that is not there is no error.
    ///
    /// # Errors
    /// Where it does not stop within the deadline.
    pub(super) async fn stop(&self, unit: &str, deadline: Duration) -> Result<(), BusError> {
        let what = format!("stop {unit}");
        match self.job(&what, deadline, self.manager.stop_unit(unit, Mode::Replace)).await {
            Err(BusError::Call { source, .. }) if is_missing(&source) => return Ok(()),
            other => other?,
        }
        match within(&what, ANSWER, self.manager.reset_failed_unit(unit)).await {
            Err(BusError::Call { source, .. }) if is_missing(&source) => {}
            other => other?,
        }
        self.forgotten(unit).await
    }

    /// Stops what a unit runs, starts it again, and waits until it has started.
    ///
    /// # Errors
    /// Where it does not start within the deadline.
    pub(super) async fn restart(&self, unit: &str, deadline: Duration) -> Result<(), BusError> {
        self.job(&format!("restart {unit}"), deadline, self.manager.restart_unit(unit, Mode::Replace)).await
    }

    /// Stops all units and starts the machine again.
    ///
    /// # Errors
    /// Where systemd does not take it.
    pub(super) async fn reboot(&self) -> Result<(), BusError> {
        // The manager's own `Reboot` ends all processes at once, without stopping a unit (org.freedesktop.systemd1(5)).
        let orderly = ("reboot.target", "replace-irreversibly");
        let job = async { self.manager.inner().call::<_, _, OwnedObjectPath>("StartUnit", &orderly).await };
        within("start the machine again", ANSWER, job).await.map(drop)
    }

    /// Sends a signal to the main process of a unit.
    ///
    /// # Errors
    /// Where it has none, or systemd can't be asked.
    pub(super) async fn signal(&self, unit: &str, signal: i32) -> Result<(), BusError> {
        self.kill(unit, "main", signal).await
    }

    /// Ends all processes of a unit.
    ///
    /// # Errors
    /// Where systemd can't be asked.
    pub(super) async fn kill_all(&self, unit: &str) -> Result<(), BusError> {
        self.kill(unit, "all", nix::sys::signal::Signal::SIGKILL as i32).await
    }

    async fn kill(&self, unit: &str, whom: &str, signal: i32) -> Result<(), BusError> {
        let what = format!("send signal {signal} to {unit}");
        within(&what, ANSWER, async { self.manager.inner().call("KillUnit", &(unit, whom, signal)).await })
            .await
    }

    /// The signal by which a service is stopped.
    ///
    /// # Errors
    /// Where it is not there, or systemd can't be asked.
    pub(super) async fn stop_signal(&self, unit: &str) -> Result<i32, BusError> {
        within(&format!("tell how {unit} stops"), ANSWER, async {
            let path = self.manager.get_unit(unit).await?;
            let properties = self.properties(path).await?;
            let service = InterfaceName::from_static_str_unchecked(SERVICE_INTERFACE);
            Ok(properties.get(service, "KillSignal").await?.try_into()?)
        })
        .await
    }

    /// Has systemd-networkd read its files again, and configure the interfaces whose files are other ones (networkctl(1), `reload`).
    ///
    /// # Errors
    /// Where it can't be told.
    pub(super) async fn reload_networks(&self) -> Result<(), BusError> {
        within("read the configuration of interfaces again", ANSWER, async {
            let (name, path) = ("org.freedesktop.network1", "/org/freedesktop/network1");
            let manager = Some("org.freedesktop.network1.Manager");
            self.connection.call_method(Some(name), path, manager, "Reload", &()).await.map(drop)
        })
        .await
    }

    /// Whether the machine stops, or starts again (`SystemState`, `org.freedesktop.systemd1(5)`).
    ///
    /// # Errors
    /// Where systemd can't be asked.
    pub(super) async fn machine_stops(&self) -> Result<bool, BusError> {
        let state: String = within("tell whether the machine stops", ANSWER, async {
            self.manager.inner().get_property("SystemState").await
        })
        .await?;
        Ok(state == "stopping")
    }

    async fn properties(&self, path: OwnedObjectPath) -> zbus::Result<zbus::fdo::PropertiesProxy<'_>> {
        zbus::fdo::PropertiesProxy::builder(&self.connection)
            .destination(SERVICE)?
            .path(path)?
            .cache_properties(CacheProperties::No)
            .build()
            .await
    }

    /// Waits until systemd does not know a unit any more: before, another one of that name can't be made.
    async fn forgotten(&self, unit: &str) -> Result<(), BusError> {
        let what = format!("forget {unit}");
        let gone = async {
            loop {
                match self.manager.get_unit(unit).await {
                    Err(error) if is_missing(&error) => return Ok(()),
                    other => other?,
                };
                tokio::time::sleep(FORGET_LOOK).await;
            }
        };
        within(&what, FORGET, gone).await
    }

    /// What there is to know of a running service.
    ///
    /// # Errors
    /// Where systemd can't be asked; a unit that is not there any more has no process.
    pub(super) async fn service(&self, unit: &str) -> Result<ServiceDetails, BusError> {
        let what = format!("tell of {unit}");
        let asked = within(&what, ANSWER, async {
            let path = self.manager.get_unit(unit).await?;
            let properties = self.properties(path).await?;
            let get = async |interface: &'static str, name: &str| -> zbus::Result<OwnedValue> {
                Ok(properties.get(InterfaceName::from_static_str_unchecked(interface), name).await?)
            };
            let since: u64 = get(UNIT_INTERFACE, "StateChangeTimestamp").await?.try_into()?;
            let memory: u64 = get(SERVICE_INTERFACE, "MemoryCurrent").await?.try_into()?;
            Ok(ServiceDetails {
                pid: get(SERVICE_INTERFACE, "MainPID").await?.try_into()?,
                restarts: get(SERVICE_INTERFACE, "NRestarts").await?.try_into()?,
                memory: Some(memory).filter(|&bytes| bytes != u64::MAX),
                since: i64::try_from(since)
                    .ok()
                    .filter(|&at| at > 0)
                    .and_then(|at| Timestamp::from_microsecond(at).ok()),
            })
        });
        match asked.await {
            Err(BusError::Call { source, .. }) if is_missing(&source) => Ok(ServiceDetails::default()),
            other => other,
        }
    }

    /// Asks for a job and waits for its end.
    async fn job(
        &self,
        what: &str,
        deadline: Duration,
        call: impl Future<Output = zbus::Result<OwnedObjectPath>>,
    ) -> Result<(), BusError> {
        self.begin(what, call).await?.ended(deadline).await
    }

    /// Asks for a job. Ends are listened for before, so that its own is not missed.
    async fn begin(
        &self,
        what: &str,
        call: impl Future<Output = zbus::Result<OwnedObjectPath>>,
    ) -> Result<Job, BusError> {
        let ends = self.ends.subscribe();
        Ok(Job { path: within(what, ANSWER, call).await?, what: what.to_owned(), ends })
    }
}

impl Job {
    /// Waits for its end.
    ///
    /// # Errors
    /// Where it does not succeed within the deadline.
    pub(super) async fn ended(mut self, deadline: Duration) -> Result<(), BusError> {
        let result = within(&self.what, deadline, async {
            loop {
                let end = self.ends.recv().await.map_err(|error| {
                    zbus::Error::InputOutput(std::sync::Arc::new(std::io::Error::other(error)))
                })?;
                if end.job == self.path {
                    return Ok(end.result);
                }
            }
        })
        .await?;
        match result.as_str() {
            "done" | "skipped" => Ok(()),
            _ => Err(BusError::Job { what: self.what, result }),
        }
    }
}

/// Has systemd's word of each job that ends (`org.freedesktop.systemd1(5)`, `JobRemoved`) passed on. The bus is asked for it once: that takes
/// as long as the start of a unit.
async fn ends_of_jobs(connection: &zbus::Connection) -> zbus::Result<broadcast::Sender<End>> {
    let rule = zbus::MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(SERVICE)?
        .interface(MANAGER_INTERFACE)?
        .member("JobRemoved")?
        .build();
    let mut told = zbus::MessageStream::for_match_rule(rule, connection, None).await?;
    let (ends, _) = broadcast::channel(ENDS);
    let listeners = ends.clone();
    tokio::spawn(async move {
        while let Some(message) = told.next().await {
            // (number, job, unit, result)
            type Arguments = (u32, OwnedObjectPath, String, String);
            let arguments = message.and_then(|message| message.body().deserialize::<Arguments>());
            match arguments {
                // Nobody may be waiting.
                Ok((_, job, _, result)) => drop(listeners.send(End { job, result })),
                Err(error) => tracing::warn!("the end of a job is told in words that are not known: {error}"),
            }
        }
    });
    Ok(ends)
}

async fn within<T>(
    what: &str,
    deadline: Duration,
    call: impl Future<Output = zbus::Result<T>>,
) -> Result<T, BusError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => {
            answer.map_err(|source| BusError::Call { what: what.to_owned(), source: Box::new(source) })
        }
        Err(_) => Err(BusError::Deadline { what: what.to_owned(), within: deadline }),
    }
}

impl BusError {
    /// Whether there is a unit of that name already (systemd, `bus-common-errors.h`).
    pub(super) fn is_taken(&self) -> bool {
        let Self::Call { source, .. } = self else { return false };
        matches!(&**source, zbus::Error::MethodError(name, ..) if name.as_str() == "org.freedesktop.systemd1.UnitExists")
    }
}

/// Whether systemd says that it has no such unit.
fn is_missing(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::MethodError(name, ..) => name.as_str() == "org.freedesktop.systemd1.NoSuchUnit",
        zbus::Error::FDO(error) => matches!(**error, zbus::fdo::Error::UnknownObject(_)),
        _ => false,
    }
}

fn variant(value: &Value) -> Variant<'_> {
    match value {
        Value::Text(text) => Variant::new(text.as_str()),
        Value::Texts(texts) => Variant::new(texts.clone()),
        Value::Flag(flag) => Variant::new(*flag),
        Value::Signed(number) => Variant::new(*number),
        Value::Number(number) => Variant::new(*number),
        Value::Large(number) => Variant::new(*number),
        Value::Bytes(lists) => Variant::new(lists.clone()),
        Value::Mask(bytes) => Variant::new(bytes.clone()),
        Value::Pairs(pairs) => Variant::new(pairs.clone()),
        Value::Commands(commands) => Variant::new(
            commands
                .iter()
                .map(|Command { program, arguments, may_fail }| {
                    (program.display().to_string(), arguments.clone(), *may_fail)
                })
                .collect::<Vec<_>>(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_signatures_that_systemd_expects() {
        let command =
            Command { program: "/bin/true".into(), arguments: vec!["true".into()], may_fail: false };
        for (value, signature) in [
            (Value::Text("x".into()), "s"),
            (Value::Texts(vec![]), "as"),
            (Value::Flag(true), "b"),
            (Value::Signed(-1), "i"),
            (Value::Number(1), "u"),
            (Value::Large(1), "t"),
            (Value::Bytes(vec![vec![1]]), "aay"),
            (Value::Mask(vec![1]), "ay"),
            (Value::Pairs(vec![]), "a(ss)"),
            (Value::Commands(vec![command]), "a(sasb)"),
        ] {
            assert_eq!(variant(&value).value_signature().to_string(), signature, "{value:?}");
        }
    }
}
