//! A virtual machine as data: what QEMU is told.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::Error;
use crate::agent;
use crate::error::IoContext;

/// The port of the host's API in the guest.
pub const API: u16 = 7443;

/// The credential with the provisioning document.
pub(crate) const PROVISION: &str = "bennu.provision";

/// The address under which the guest reaches the loopback address of the machine that runs it (QEMU manual,
/// "Using the user mode network stack").
pub const HOST_FROM_GUEST: &str = "10.0.2.2";

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By translation: slower by a factor of 10 to 20.
    Tcg,
}

/// Bytes that systemd in the guest gets as a credential (systemd.system-credentials(7)), through a string of the
/// firmware's SMBIOS table: unlike `fw_cfg` it needs no kernel module and bears names of any length.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its name.
    pub name: String,
    /// Its content; secret for some.
    pub bytes: Vec<u8>,
}

impl Credential {
    /// A credential.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), bytes }
    }
}

/// Without the content.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A virtual machine before it runs.
///
/// A snapshot fits only a machine that is told the same: everything here but the host's side of the ports.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Memory in MiB.
    pub memory: u32,
    /// Processors.
    pub cpus: u32,
    /// How instructions are run.
    pub accelerator: Accelerator,
    /// UEFI firmware, mapped read-only.
    pub firmware: PathBuf,
    /// Whether it has System Management Mode, without which the firmware's Secure Boot builds do not start.
    pub secure_boot: bool,
    /// Whether it has a TPM 2.0 (swtpm), and a serial line that can be typed at.
    pub tpm: bool,
    /// By how many bytes its disk is larger than what it is made from.
    pub room: u64,
    /// What the credentials of systemd say.
    pub credentials: Vec<Credential>,
    /// TCP ports of the guest that get a free port on the loopback address; [`API`] among them.
    pub ports: Vec<u16>,
    /// Whether every write to its disk is recorded, in [`Files::log`].
    pub recorded: bool,
    /// Further arguments, as QEMU takes them.
    pub extra: Vec<String>,
}

impl Machine {
    /// A host: 2 GiB, 2 processors, the API and the ports that the tests' manifests publish, the test agent.
    pub fn host(firmware: &Path, accelerator: Accelerator) -> Self {
        Self {
            memory: 2048,
            cpus: 2,
            accelerator,
            firmware: firmware.to_owned(),
            secure_boot: false,
            tpm: false,
            room: 0,
            credentials: agent::credentials(),
            ports: vec![API, 8080, 8081, 8082],
            recorded: false,
            extra: Vec::new(),
        }
    }

    /// The same machine, told its provisioning document at first start.
    pub fn provisioned(mut self, document: Vec<u8>) -> Self {
        self.credentials.push(Credential::new(PROVISION, document));
        self
    }

    /// Writes the files that [`Machine::arguments`] names for the credentials.
    pub(crate) fn write_credentials(&self, files: &Files) -> Result<(), Error> {
        for (number, credential) in self.credentials.iter().enumerate() {
            let path = files.credential(number);
            let value = BASE64_STANDARD.encode(&credential.bytes);
            let text = format!("io.systemd.credential.binary:{}={value}", credential.name);
            std::fs::write(&path, text).doing("write", &path)?;
        }
        Ok(())
    }

    /// QEMU's arguments. `forwards` are pairs of a port here and one in the guest; `incoming` waits for a snapshot.
    pub(crate) fn arguments(&self, files: &Files, forwards: &[(u16, u16)], incoming: bool) -> Vec<OsString> {
        let mut arguments = Arguments::default();
        let (accelerator, cpu) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            // What is there to make things fast makes them slow where it is translated: wide vectors, a fifth level of page tables, more
            // registers to save at each switch, and copying by `rep movsb`, which is done byte by byte. Without them, and with one
            // processor, boots side by side take a quarter of the time less.
            Accelerator::Tcg => (
                "tcg,thread=multi,tb-size=512",
                "max,-avx,-avx2,-la57,-xsave,-xsaveopt,-xgetbv1,-pku,-erms,-fsrm",
            ),
        };
        arguments.flags("-nodefaults -no-user-config -display none");
        match self.secure_boot {
            false => arguments.pair("-machine", "q35,usb=off,vmport=off"),
            // Variables are written by System Management Mode alone, and suspending would lead around it (OVMF, `README`).
            true => {
                arguments.pair("-machine", "q35,usb=off,vmport=off,smm=on");
                arguments.flags("-global driver=cfi.pflash01,property=secure,value=on");
                arguments.flags("-global ICH9-LPC.disable_s3=1");
            }
        }
        arguments.pair("-accel", accelerator);
        arguments.pair("-cpu", cpu);
        arguments.pair("-m", self.memory);
        arguments.pair("-smp", self.cpus);
        arguments.pair("-rtc", "base=utc");

        let flash = |unit: u32, read_only: &str, path: &Path| {
            format!("if=pflash,format=raw,unit={unit},readonly={read_only},file={}", escape(path))
        };
        arguments.pair("-drive", flash(0, "on", &self.firmware));
        arguments.pair("-drive", flash(1, "off", &files.variables()));
        let (disk, log) = (escape(&files.disk()), escape(&files.log()));
        let node = if self.recorded { "below" } else { "disk" };
        arguments.pair(
            "-blockdev",
            format!("driver=qcow2,node-name={node},discard=unmap,file.driver=file,file.filename={disk}"),
        );
        if self.recorded {
            arguments.pair("-blockdev", format!("driver=file,node-name=log,filename={log}"));
            let recorder = "driver=blklogwrites,node-name=disk,file=below,log=log,log-sector-size=512";
            arguments.pair("-blockdev", recorder);
        }
        // Merged requests may have as many pieces as the system takes in one call (1,024), and the log adds two: the guest would be told
        // of an error that it has not made, and the log would have a hole. As the guest asks, it is also cut between its requests.
        let merging = if self.recorded { "off" } else { "on" };
        arguments.pair("-device", format!("virtio-blk-pci,drive=disk,bootindex=1,request-merging={merging}"));

        let mut network = "user,id=net".to_owned();
        for (here, there) in forwards {
            network.push_str(&format!(",hostfwd=tcp:127.0.0.1:{here}-:{there}"));
        }
        arguments.pair("-netdev", network);
        arguments.pair("-device", "virtio-net-pci,netdev=net,romfile=");
        arguments.pair("-device", "virtio-rng-pci");

        let socket = |path: &Path| format!("path={},server=on,wait=off", escape(path));
        arguments.pair("-device", "virtio-serial-pci");
        arguments.pair("-chardev", format!("socket,id=agent,{}", socket(&files.agent())));
        arguments.pair("-device", format!("virtserialport,chardev=agent,name={}", agent::PORT));
        let serial = escape(&files.serial());
        match self.tpm {
            false => arguments.pair("-chardev", format!("file,id=serial,append=on,path={serial}")),
            true => {
                let typed = socket(&files.keyboard());
                arguments.pair("-chardev", format!("socket,id=serial,{typed},logfile={serial},logappend=on"));
                arguments.pair("-chardev", format!("socket,id=tpm,path={}", escape(&files.tpm_socket())));
                arguments.pair("-tpmdev", "emulator,id=tpm0,chardev=tpm");
                arguments.pair("-device", "tpm-crb,tpmdev=tpm0");
            }
        }
        arguments.pair("-serial", "chardev:serial");
        arguments.pair("-chardev", format!("socket,id=qmp,{}", socket(&files.qmp())));
        arguments.pair("-mon", "chardev=qmp,mode=control");

        for number in 0..self.credentials.len() {
            arguments.pair("-smbios", format!("type=11,path={}", escape(&files.credential(number))));
        }
        arguments.0.extend(self.extra.iter().map(OsString::from));
        if incoming {
            arguments.pair("-incoming", "defer");
        }
        arguments.0
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flags(&mut self, words: &str) {
        self.0.extend(words.split(' ').map(OsString::from));
    }

    fn pair(&mut self, option: &str, value: impl std::fmt::Display) {
        self.0.extend([option.into(), value.to_string().into()]);
    }
}

/// A path inside a list of QEMU options, where a comma is written twice.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// The files of one running machine, all in one directory with a short name: the path of a Unix socket has at most
/// 107 bytes (unix(7)).
#[derive(Debug, Clone)]
pub struct Files(pub(crate) PathBuf);

impl Files {
    /// The files of the machine in this directory.
    pub fn of(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The machine's own overlay, qcow2.
    pub fn disk(&self) -> PathBuf {
        self.0.join("disk.qcow2")
    }

    /// What was asked of the disk, in order, where the machine is recorded.
    pub fn log(&self) -> PathBuf {
        self.0.join("disk.log")
    }

    /// The firmware's variables.
    pub fn variables(&self) -> PathBuf {
        self.0.join("variables.fd")
    }

    /// What the guest wrote to its serial line, over all its boots.
    pub fn serial(&self) -> PathBuf {
        self.0.join("serial.log")
    }

    /// What is typed at its serial line, where it has a TPM.
    pub fn keyboard(&self) -> PathBuf {
        self.0.join("keyboard")
    }

    /// What its TPM remembers.
    pub fn tpm(&self) -> PathBuf {
        self.0.join("tpm")
    }

    /// Where QEMU reaches the TPM.
    pub(crate) fn tpm_socket(&self) -> PathBuf {
        self.0.join("tpm.sock")
    }

    /// What QEMU itself said.
    pub fn messages(&self) -> PathBuf {
        self.0.join("qemu.log")
    }

    /// The control socket.
    pub fn qmp(&self) -> PathBuf {
        self.0.join("qmp")
    }

    /// The test agent's socket.
    pub fn agent(&self) -> PathBuf {
        self.0.join("agent")
    }

    fn credential(&self, number: usize) -> PathBuf {
        self.0.join(format!("credential-{number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(incoming: bool) -> String {
        let machine = Machine::host(Path::new("/fw,4m.fd"), Accelerator::Tcg).provisioned(b"secret".to_vec());
        let words = machine.arguments(&Files("/run/m".into()), &[(40001, API), (40002, 8080)], incoming);
        words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ports_are_open_on_the_loopback_address_alone() {
        assert!(line(false).contains("hostfwd=tcp:127.0.0.1:40001-:7443,hostfwd=tcp:127.0.0.1:40002-:8080"));
        assert!(!line(false).contains("hostfwd=tcp:0") && !line(false).contains("hostfwd=tcp::"));
    }

    #[test]
    fn a_comma_in_a_path_does_not_end_the_option() {
        assert!(line(false).contains("file=/fw,,4m.fd"));
    }

    #[test]
    fn secrets_are_files_and_not_written_on_the_command_line() {
        assert!(line(false).contains("-smbios type=11,path=/run/m/credential-2"));
        assert!(!line(false).contains("secret") && !line(false).contains(&BASE64_STANDARD.encode("secret")));
    }

    #[test]
    fn only_a_restored_machine_waits_for_a_snapshot() {
        assert!(line(true).ends_with("-incoming defer") && !line(false).contains("-incoming"));
    }
}
