//! What the host is, in numbers for Prometheus (its text format, version 0.0.4).

use std::fmt::Write as _;

use bennu_api::{Container, ForwardStatus, Status, Volume};
use bennu_planner::{Health, State};

/// The type of the answer.
pub(super) const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One page of metrics.
pub(super) fn page(
    status: &Status,
    containers: &[Container],
    volumes: &[Volume],
    images: u64,
    image_bytes: u64,
) -> String {
    let mut page = Page::default();
    let os =
        [("version", status.version.as_str()), ("os", &status.os.version), ("kernel", &status.os.kernel)];
    page.family("bennu_info", "gauge", "What runs on the host; always 1.");
    page.sample("bennu_info", &os, 1);
    page.family("bennu_converged", "gauge", "Whether everything declared is there and does its work.");
    page.sample("bennu_converged", &[], status.converged.into());
    page.family("bennu_stale", "gauge", "Whether the active manifest has expired.");
    page.sample("bennu_stale", &[], status.stale.into());
    page.family("bennu_failing", "gauge", "Whether something keeps the host from converging.");
    page.sample("bennu_failing", &[], status.failure.is_some().into());
    page.family("bennu_generation", "gauge", "The active generation; 0 before the first.");
    page.sample("bennu_generation", &[], status.generation.as_ref().map_or(0, |active| active.number));
    page.family("bennu_manifest_serial", "gauge", "The serial of the active manifest.");
    page.sample("bennu_manifest_serial", &[], status.generation.as_ref().map_or(0, |active| active.serial));
    page.family("bennu_images", "gauge", "Images in the store.");
    page.sample("bennu_images", &[], images);
    page.family(
        "bennu_image_bytes",
        "gauge",
        "Bytes of the layers of all images; shared ones count once each.",
    );
    page.sample("bennu_image_bytes", &[], image_bytes);
    page.family("bennu_rejections", "gauge", "Versions of containers that were tried and given up.");
    page.sample("bennu_rejections", &[], status.rejected.len() as u64);
    page.forwards(status);
    page.containers(containers);
    page.volumes(volumes);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn containers(&mut self, containers: &[Container]) {
        type Value = fn(&Container) -> u64;
        let running: Value = |one| (one.state == State::Running).into();
        let healthy: Value = |one| (one.health == Health::Healthy).into();
        let families: [(&str, &str, &str, Value); 10] = [
            ("bennu_container_running", "gauge", "Whether its program runs.", running),
            ("bennu_container_healthy", "gauge", "Whether its health check holds.", healthy),
            ("bennu_container_restarts_total", "counter", "How often it was started again.", |one| {
                one.restarts.into()
            }),
            ("bennu_container_cpu_microseconds_total", "counter", "Time of processors.", |one| {
                one.usage.cpu_usec
            }),
            ("bennu_container_throttled_microseconds_total", "counter", "Time it was held back.", |one| {
                one.usage.throttled_usec
            }),
            ("bennu_container_memory_bytes", "gauge", "Memory in use.", |one| one.usage.memory),
            ("bennu_container_oom_kills_total", "counter", "Programs ended for want of memory.", |one| {
                one.usage.oom_kills
            }),
            ("bennu_container_processes", "gauge", "Processes and threads.", |one| one.usage.pids),
            ("bennu_container_read_bytes_total", "counter", "Bytes read from disks.", |one| {
                one.usage.read_bytes
            }),
            ("bennu_container_written_bytes_total", "counter", "Bytes written to disks.", |one| {
                one.usage.written_bytes
            }),
        ];
        for (name, kind, help, value) in families {
            // A check that nobody declared neither holds nor fails.
            let told = containers
                .iter()
                .filter(|one| name != "bennu_container_healthy" || one.health != Health::Unchecked);
            self.family(name, kind, help);
            for one in told {
                let labels = [("container", one.name.as_str()), ("instance", &one.instance)];
                self.sample(name, &labels, value(one));
            }
        }
    }

    fn volumes(&mut self, volumes: &[Volume]) {
        type Value = fn(&Volume) -> Option<u64>;
        let families: [(&str, &str, Value); 3] = [
            ("bennu_volume_used_bytes", "Bytes in the volume, where the host counts them.", |one| one.used),
            ("bennu_volume_size_bytes", "The most bytes that it may hold, where it has a size.", |one| {
                one.size
            }),
            ("bennu_volume_snapshots", "Snapshots of it.", |one| Some(one.snapshots)),
        ];
        for (name, help, value) in families {
            self.family(name, "gauge", help);
            for (volume, value) in volumes.iter().filter_map(|one| Some((one, value(one)?))) {
                self.sample(name, &[("volume", volume.name.as_str())], value);
            }
        }
    }

    fn forwards(&mut self, status: &Status) {
        type Value = fn(&ForwardStatus) -> u64;
        let families: [(&str, &str, &str, Value); 4] = [
            ("bennu_forward_lines_total", "counter", "Lines that a receiver of logs took.", |one| one.sent),
            ("bennu_forward_dropped_lines_total", "counter", "Lines that it did not get.", |one| one.dropped),
            ("bennu_forward_waiting_bytes", "gauge", "Bytes that wait for it.", |one| one.waiting),
            ("bennu_forward_failing", "gauge", "Whether it takes none now.", |one| {
                one.failure.is_some().into()
            }),
        ];
        // A family without samples says nothing.
        for (name, kind, help, value) in families.into_iter().filter(|_| !status.forwards.is_empty()) {
            self.family(name, kind, help);
            for (receiver, one) in &status.forwards {
                self.sample(name, &[("receiver", receiver.as_str())], value(one));
            }
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if number == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_one_line_whatever_its_labels_hold() {
        let mut page = Page::default();
        page.sample("a", &[], 1);
        page.sample("b", &[("x", "q\"\\\n"), ("y", "z")], 2);
        assert_eq!(page.0, "a 1\nb{x=\"q\\\"\\\\\\n\",y=\"z\"} 2\n");
    }
}
