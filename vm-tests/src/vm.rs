//! A running virtual machine.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::agent::{Agent, Output};
use crate::error::{IoContext, run, tail};
use crate::machine::{Files, Machine};
use crate::qmp::Qmp;
use crate::{Error, wait};

/// How long the guest may take from power on to the agent's first answer, translated on a busy machine.
pub const BOOT: Duration = Duration::from_secs(240);

/// How long a command in the guest may take where the caller does not say.
pub const COMMAND: Duration = Duration::from_secs(120);

/// The largest log of a machine that is recorded, in bytes; sparse.
const MAX_LOG: u64 = 8 << 30;

/// Where in the disk marks go, in bytes from its beginning: between the partition table and the first partition.
pub const MARK: u64 = 512 << 10;

/// What a machine starts from: a disk, and perhaps the memory that belongs to it.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The disk under the machine's own overlay; never written.
    pub disk: PathBuf,
    /// The firmware's variables to begin with.
    pub variables: PathBuf,
    /// The memory that [`Qmp::save`] wrote, where it is not to boot.
    pub memory: Option<PathBuf>,
}

/// A running virtual machine. It is ended when this value is dropped, and its directory removed.
#[derive(Debug)]
pub struct Vm {
    machine: Machine,
    files: Files,
    ports: BTreeMap<u16, u16>,
    running: Option<Running>,
    detached: bool,
}

#[derive(Debug)]
struct Running {
    child: Child,
    tpm: Option<Child>,
    qmp: Qmp,
    agent: Agent,
}

impl Vm {
    /// Starts a machine on an overlay of its own, and waits for nothing but QEMU itself.
    ///
    /// # Errors
    /// Where QEMU or `qemu-img` is missing or refuses.
    pub fn start(machine: Machine, origin: &Origin) -> Result<Self, Error> {
        let directory = tempfile::Builder::new().prefix("bennu-vm-").tempdir();
        let files = Files(directory.doing("make a directory in", std::env::temp_dir())?.keep());
        // From here on the directory belongs to the machine, whatever fails.
        let mut vm = Self { machine, files, ports: BTreeMap::new(), running: None, detached: false };
        overlay(&origin.disk, &vm.files.disk())?;
        fs::copy(&origin.variables, vm.files.variables()).doing("copy", &origin.variables)?;
        if vm.machine.room > 0 {
            vm.enlarge_disk(vm.machine.room)?;
        }
        vm.machine.write_credentials(&vm.files)?;
        if vm.machine.recorded {
            let log = vm.files.log();
            File::create(&log).and_then(|log| log.set_len(MAX_LOG)).doing("make", &log)?;
        }
        vm.power_on(origin.memory.as_deref())?;
        Ok(vm)
    }

    /// Starts QEMU on the files as they are: from `memory` where it is given, else through the firmware.
    ///
    /// # Errors
    /// Where QEMU refuses, with what it said.
    pub fn power_on(&mut self, memory: Option<&Path>) -> Result<(), Error> {
        // A port that was free a moment ago may be taken when QEMU asks for it: choose again then.
        for _ in 0..4 {
            self.choose_ports()?;
            match self.try_power_on(memory) {
                Err(Error::Gone { serial, .. }) if serial.contains("host forwarding rule") => {
                    self.ports.clear()
                }
                other => return other,
            }
        }
        self.choose_ports()?;
        self.try_power_on(memory)
    }

    fn try_power_on(&mut self, memory: Option<&Path>) -> Result<(), Error> {
        for socket in [self.files.qmp(), self.files.agent()] {
            let _absent_at_first = fs::remove_file(socket);
        }
        let forwards: Vec<_> = self.ports.iter().map(|(guest, here)| (*here, *guest)).collect();
        let path = self.files.messages();
        let messages = OpenOptions::new().create(true).append(true).open(&path).doing("open", &path)?;
        let clone = messages.try_clone().doing("share", &path)?;
        let mut tpm = self.machine.tpm.then(|| start_tpm(&self.files)).transpose()?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(self.machine.arguments(&self.files, &forwards, memory.is_some()));
        command.stdin(Stdio::null()).stdout(clone).stderr(messages);
        let mut child = command
            .spawn()
            .map_err(|source| Error::Start { program: "qemu-system-x86_64".into(), source })?;
        let connected = wait::until("QEMU to open its sockets", Duration::from_secs(30), || {
            if let Some(status) = child.try_wait().doing("wait for", "qemu-system-x86_64")? {
                return Err(self.gone(status));
            }
            Ok(Some((Qmp::connect(&self.files.qmp())?, Agent::connect(&self.files.agent())?)))
        });
        match connected {
            Ok((qmp, agent)) => {
                let running = self.running.insert(Running { child, tpm, qmp, agent });
                memory.map_or(Ok(()), |memory| running.qmp.load(memory))
            }
            Err(error) => {
                end(&mut child);
                tpm.iter_mut().for_each(end);
                Err(error)
            }
        }
    }

    /// Types at the serial line of a machine with a TPM.
    ///
    /// # Errors
    /// Where QEMU does not take it.
    pub fn type_at_console(&mut self, text: &str) -> Result<(), Error> {
        let path = self.files.keyboard();
        let typed = UnixStream::connect(&path).and_then(|mut keyboard| {
            keyboard.write_all(text.as_bytes())?;
            // QEMU reads before it sees that nobody is there any more.
            keyboard.shutdown(std::net::Shutdown::Write)?;
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        });
        typed.doing("type at", &path)
    }

    /// Waits until the guest's agent answers.
    ///
    /// # Errors
    /// [`Error::Deadline`] or [`Error::Gone`].
    pub fn wait_for_agent(&mut self, within: Duration) -> Result<(), Error> {
        wait::until("the guest to answer", within, || {
            self.alive()?;
            // Asked anew every few seconds: a request that a restarting guest swallowed never gets its answer.
            self.running()?.agent.ask("true", Duration::from_secs(3)).map(Some)
        })
        .map(drop)
    }

    /// Runs a shell command in the guest, as root.
    ///
    /// # Errors
    /// [`Error::Deadline`] after [`COMMAND`], [`Error::Gone`] where the machine ended.
    pub fn guest(&mut self, command: &str) -> Result<Output, Error> {
        self.guest_within(command, COMMAND)
    }

    /// As [`Vm::guest`], with a deadline.
    ///
    /// # Errors
    /// As [`Vm::guest`].
    pub fn guest_within(&mut self, command: &str, within: Duration) -> Result<Output, Error> {
        self.alive()?;
        let answer = self.running()?.agent.ask(command, within);
        if answer.is_err() {
            self.alive()?;
        }
        answer
    }

    /// Runs a shell command in the guest that must succeed, and returns what it wrote, trimmed.
    ///
    /// # Errors
    /// As [`Vm::guest`], and [`Error::Answer`] where it fails.
    pub fn guest_ok(&mut self, command: &str) -> Result<String, Error> {
        let output = self.guest(command)?;
        if output.code == 0 {
            return Ok(output.text.trim().to_owned());
        }
        let text = format!("code {}: {}", output.code, tail(&output.text, 2000));
        Err(Error::Answer { who: format!("`{command}` in the guest"), text })
    }

    /// Whether QEMU still runs.
    ///
    /// # Errors
    /// [`Error::Gone`] with the end of the serial log.
    pub fn alive(&mut self) -> Result<(), Error> {
        match self.running()?.child.try_wait().doing("wait for", "qemu-system-x86_64")? {
            None => Ok(()),
            Some(status) => Err(self.gone(status)),
        }
    }

    /// The port on the loopback address that leads to a port of the guest.
    ///
    /// # Panics
    /// Where the machine was not given that port.
    pub fn port(&self, guest: u16) -> u16 {
        *self.ports.get(&guest).expect("a port of the machine's description")
    }

    /// The machine's files.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// What the machine is.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Tells QEMU more from the next time on when the power comes on.
    pub(crate) fn add_arguments(&mut self, arguments: [&str; 2]) {
        self.machine.extra.extend(arguments.map(str::to_owned));
    }

    /// Writes a sector of this byte to [`MARK`], past the guest, so that a recording says what came before it.
    ///
    /// # Errors
    /// [`Error::Qmp`] where QEMU can't write.
    pub fn mark(&mut self, byte: u8) -> Result<(), Error> {
        let qmp = &mut self.running()?.qmp;
        let disks = qmp.execute("query-block", serde_json::json!({}))?;
        let disk = disks.as_array().into_iter().flatten().find(|one| one["inserted"]["node-name"] == "disk");
        let device = disk.and_then(|disk| disk["qdev"].as_str()).unwrap_or_default();
        let line = format!("qemu-io -d {device} \"write -q -P {byte} {MARK} 512\"");
        let said = qmp.execute("human-monitor-command", serde_json::json!({ "command-line": line }))?;
        match said.as_str() {
            Some("") => Ok(()),
            _ => Err(Error::Qmp { command: line, reason: said.to_string() }),
        }
    }

    /// QEMU's process.
    ///
    /// # Errors
    /// [`Error::Gone`] where the machine is off.
    pub fn process(&mut self) -> Result<u32, Error> {
        Ok(self.running()?.child.id())
    }

    /// The control socket.
    ///
    /// # Errors
    /// [`Error::Gone`] where the machine is off.
    pub fn qmp(&mut self) -> Result<&mut Qmp, Error> {
        Ok(&mut self.running()?.qmp)
    }

    /// Cuts the power: QEMU is killed. What the guest had handed to its disk is there, nothing else.
    pub fn power_off(&mut self) {
        if let Some(mut running) = self.running.take() {
            end(&mut running.child);
            running.tpm.iter_mut().for_each(end);
        }
    }

    /// Makes the disk of a machine that is off larger, by so many bytes.
    ///
    /// # Errors
    /// Where `qemu-img` refuses.
    pub fn enlarge_disk(&self, bytes: u64) -> Result<(), Error> {
        let mut command = Command::new("qemu-img");
        run(command.args(["resize", "-q", "-f", "qcow2"]).arg(self.files.disk()).arg(format!("+{bytes}")))
            .map(drop)
    }

    /// Asks the guest to power off, and waits until it has; cuts the power where it does not.
    ///
    /// # Errors
    /// Where the state of QEMU's process cannot be learnt.
    pub fn shut_down(&mut self) -> Result<(), Error> {
        // A guest that cannot be asked is one whose power is cut.
        let _asked = self.guest_within("systemctl --no-block poweroff", Duration::from_secs(10));
        let ended = wait::until("the guest to power off", Duration::from_secs(60), || {
            let child = &mut self.running()?.child;
            Ok(child.try_wait().doing("wait for", "qemu-system-x86_64")?.map(drop))
        });
        self.power_off();
        match ended {
            Ok(()) | Err(Error::Deadline { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Leaves the machine running when this value is dropped; whoever calls takes care of its process and directory.
    pub fn detach(mut self) {
        self.detached = true;
    }

    fn choose_ports(&mut self) -> Result<(), Error> {
        // All are held open until the last one is chosen, so that none is chosen twice.
        let mut held = Vec::new();
        for guest in &self.machine.ports {
            if !self.ports.contains_key(guest) {
                let socket = TcpListener::bind("127.0.0.1:0").doing("listen on", "127.0.0.1")?;
                let port = socket.local_addr().doing("ask the port of", "127.0.0.1")?.port();
                self.ports.insert(*guest, port);
                held.push(socket);
            }
        }
        Ok(())
    }

    fn running(&mut self) -> Result<&mut Running, Error> {
        let off = Error::Gone { status: "power off".into(), serial: String::new() };
        self.running.as_mut().ok_or(off)
    }

    fn gone(&self, status: std::process::ExitStatus) -> Error {
        let read =
            |path| fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        let (serial, messages) = (read(self.files.serial()), read(self.files.messages()));
        Error::Gone { status: status.to_string(), serial: format!("{}\n{messages}", tail(&serial, 3000)) }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if !self.detached {
            self.power_off();
            let _best_effort = fs::remove_dir_all(&self.files.0);
        }
    }
}

/// Makes an overlay: writes go to `overlay`, what was not written is read from `base`.
pub(crate) fn overlay(base: &Path, overlay: &Path) -> Result<(), Error> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]).arg(base).arg(overlay);
    run(&mut command)?;
    File::open(overlay).doing("open", overlay).map(drop)
}

/// Starts a TPM that remembers what it was told in the machine's directory.
fn start_tpm(files: &Files) -> Result<Child, Error> {
    let (state, socket) = (files.tpm(), files.tpm_socket());
    fs::create_dir_all(&state).doing("make", &state)?;
    let _absent_at_first = fs::remove_file(&socket);
    let mut command = Command::new("swtpm");
    command.args(["socket", "--tpm2", "--tpmstate"]).arg(format!("dir={}", state.display()));
    command.arg("--ctrl").arg(format!("type=unixio,path={}", socket.display()));
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .map_err(|source| Error::Start { program: "swtpm".into(), source })?;
    let there =
        wait::until("the TPM to listen", Duration::from_secs(30), || Ok(socket.exists().then_some(())));
    if there.is_err() {
        end(&mut child);
    }
    there.map(|()| child)
}

fn end(child: &mut Child) {
    // Killing fails only where it has ended by itself; waiting then still takes its status.
    let _ended_already = child.kill();
    let _status = child.wait();
}
