//! What happens to machines: reboots, power cuts, killed daemons.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::error::Error;
use crate::host::Host;
use crate::vm::{BOOT, Vm};
use crate::wait;

/// Something that happens to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing: what holds after the others must hold before them.
    Nothing,
    /// The guest restarts in order.
    Reboot,
    /// The power is cut, and comes back.
    PowerCut,
    /// `hostd` is killed, and systemd starts it again.
    HostdKilled,
    /// `hostd` is restarted by systemd.
    HostdRestarted,
}

/// Lets one thing after the other happen to a host, and checks the same after each of them.
///
/// # Errors
/// The first error of an action or of `check`, with the action named.
pub fn lifecycle<E: From<Error> + std::fmt::Display>(
    host: &mut Host,
    actions: &[Action],
    mut check: impl FnMut(&mut Host) -> Result<(), E>,
) -> Result<(), E> {
    for action in actions {
        host.act(*action)?;
        check(host).map_err(|error| Error::Answer {
            who: format!("the check after {action:?}"),
            text: error.to_string(),
        })?;
    }
    Ok(())
}

impl Host {
    /// Lets something happen, and waits until the host can be asked again.
    ///
    /// # Errors
    /// Where it does not come back in time.
    pub fn act(&mut self, action: Action) -> Result<(), Error> {
        match action {
            Action::Nothing => return Ok(()),
            Action::Reboot => self.vm.reboot()?,
            Action::PowerCut => self.vm.power_cut()?,
            Action::HostdKilled => self.replace_hostd("systemctl kill --signal=KILL hostd.service")?,
            Action::HostdRestarted => self.replace_hostd("systemctl restart hostd.service")?,
        }
        self.wait_for_api()
    }

    fn replace_hostd(&mut self, command: &str) -> Result<(), Error> {
        let process = "systemctl show --property=MainPID --value hostd.service";
        let before = self.vm.guest_ok(process)?;
        self.vm.guest_ok(command)?;
        let other = |now: &String| *now != before && now != "0";
        wait::until_good("another hostd", Duration::from_secs(60), || self.vm.guest_ok(process), other)
            .map(drop)
    }
}

impl Vm {
    /// Restarts the guest in order.
    ///
    /// # Errors
    /// [`Error::Deadline`] where it does not come back.
    pub fn reboot(&mut self) -> Result<(), Error> {
        let before = self.boot_id()?;
        // The agent may be stopped before it can say that it has asked.
        let _late = self.guest_within("systemctl --no-block reboot", Duration::from_secs(10));
        self.wait_for_boot(&before)
    }

    /// Waits until the guest has booted after the boot of this id.
    ///
    /// # Errors
    /// [`Error::Deadline`] where it does not come back.
    pub fn wait_for_boot(&mut self, before: &str) -> Result<(), Error> {
        wait::until("another boot", BOOT, || {
            self.alive()?;
            self.wait_for_agent(Duration::from_secs(5))?;
            Ok((self.boot_id()? != before).then_some(()))
        })?;
        self.set_clock()
    }

    /// Cuts the power and starts the machine again from what is on its disk.
    ///
    /// # Errors
    /// [`Error::Deadline`] where it does not come back.
    pub fn power_cut(&mut self) -> Result<(), Error> {
        self.power_cycle()?;
        self.set_clock()
    }

    fn power_cycle(&mut self) -> Result<(), Error> {
        self.power_off();
        self.power_on(None)?;
        self.wait_for_agent(BOOT)
    }

    /// Cuts the power, and starts a machine from what is on the disk whose clock stands at `time` (UTC, as 1999-12-31T23:59:59), and is not
    /// set right.
    ///
    /// # Errors
    /// [`Error::Deadline`] where it does not come back.
    pub fn power_cut_until(&mut self, time: &str) -> Result<(), Error> {
        self.add_arguments(["-rtc", &format!("base={time}")]);
        self.power_cycle()
    }

    /// Cuts the power, and starts a machine from what is on the disk whose watchdog (the TCO timer of the chipset) may reset it:
    /// QEMU's does not otherwise (QEMU, `hw/isa/lpc_ich9.c`, "noreboot").
    ///
    /// # Errors
    /// [`Error::Deadline`] where it does not come back.
    pub fn power_on_with_watchdog(&mut self) -> Result<(), Error> {
        self.add_arguments(["-global", "ICH9-LPC.noreboot=off"]);
        self.power_cut()
    }

    /// Cuts the power, and starts a machine on which everything runs but `hostd` and what is started for it.
    ///
    /// # Errors
    /// [`Error::Deadline`] where it does not come back.
    pub fn power_on_without_hostd(&mut self) -> Result<(), Error> {
        let never = BASE64_STANDARD.encode("[Unit]\nConditionPathExists=!/\n");
        for unit in ["hostd", "bennu-modules"] {
            let credential = format!("systemd.unit-dropin.{unit}.service");
            let value = format!("type=11,value=io.systemd.credential.binary:{credential}={never}");
            self.add_arguments(["-smbios", &value]);
        }
        self.power_cut()
    }

    /// Sets the guest's clock to the time here. A snapshot brings the time back at which it was taken.
    ///
    /// # Errors
    /// Where the guest does not answer.
    pub fn set_clock(&mut self) -> Result<(), Error> {
        let now = jiff::Timestamp::now().as_second();
        self.guest_ok(&format!("date --set=@{now}")).map(drop)
    }

    /// A value that is another one after each boot (random(4)).
    ///
    /// # Errors
    /// Where the guest does not answer.
    pub fn boot_id(&mut self) -> Result<String, Error> {
        let output = self.guest_within("cat /proc/sys/kernel/random/boot_id", Duration::from_secs(10))?;
        Ok(output.text.trim().to_owned())
    }
}
