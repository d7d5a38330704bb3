//! Policies that change under a running server: swapped whole, a bad set refused whole, the last good one
//! kept.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says where and stops"
)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use devgrant::decision::{PolicySet, Settings};
use devgrant::metrics::Metrics;
use devgrant::policies::watch::Watch;
use devgrant::policies::{self, Location};
use devgrant::server::LivePolicies;
use tokio::time::sleep;

mod support {
    pub(crate) mod mount;
}
use support::mount::Mount;

const FUSE: &str = "
apiVersion: devgrant/v1alpha1
kind: DevicePolicy
metadata: { name: fuse }
spec:
  device: fuse
  defaultMode: mount
  modes:
    mount: { resources: [{ name: smarter-devices/fuse }] }
";
const KVM: &str = "
apiVersion: devgrant/v1alpha1
kind: DevicePolicy
metadata: { name: kvm }
spec:
  device: kvm
  defaultMode: plain
  modes:
    plain: { resources: [{ name: smarter-devices/kvm }] }
";

/// A server's policies with somebody who watches their folder.
struct Watched {
    live: Arc<LivePolicies>,
    metrics: Arc<Metrics>,
    watch: Watch,
}

impl Watched {
    fn start(folder: impl Into<PathBuf>, allow_empty: bool) -> Self {
        let location = Location::Folders { paths: vec![folder.into()], allow_empty };
        let sources = policies::read(&location).unwrap();
        let first = PolicySet::compile(&sources, Settings::default()).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let live = Arc::new(LivePolicies::new(first, Arc::clone(&metrics)));
        let watch = Watch::new(location, Settings::default(), Arc::clone(&live));
        Self { live, metrics, watch }
    }

    /// Looks, and says what is in force then and what was counted.
    async fn look(&mut self) -> Now {
        self.watch.look().await;
        self.now()
    }

    fn now(&self) -> Now {
        let text = self.metrics.text();
        let counted = |result: &str| {
            let name = format!("devgrant_policy_reload_total{{result=\"{result}\"}} ");
            let count = text.lines().find_map(|line| line.strip_prefix(&name));
            count.map_or(0, |count| count.parse().unwrap())
        };
        let current = self.live.current();
        let in_force = format!("devgrant_policy_info{{digest=\"{}\"}} 1", current.digest());
        assert!(text.contains(&in_force), "{in_force} is not in\n{text}");
        Now {
            devices: current.devices().map(str::to_owned).collect::<Vec<_>>().join(" "),
            swapped: counted("swapped"),
            kept: counted("kept"),
            refused: self.live.refused().map(|problem| problem.to_string()),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Now {
    devices: String,
    swapped: u32,
    kept: u32,
    refused: Option<String>,
}

impl Now {
    #[track_caller]
    fn is(&self, devices: &str, swapped: u32, kept: u32, refused: Option<&str>) {
        assert_eq!(
            (self.devices.as_str(), self.swapped, self.kept),
            (devices, swapped, kept),
            "{self:?}"
        );
        match (&self.refused, refused) {
            (None, None) => {}
            (Some(found), Some(part)) if found.contains(part) && !found.contains('\n') => {}
            _ => panic!("refused: {:?}, and not {refused:?}", self.refused),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_mounted_config_map_is_followed() {
    let mut mount = Mount::new(&[("fuse.yaml", FUSE)]);
    let mut watched = Watched::start(mount.path(), false);
    let mut refusals = watched.live.refusals();
    watched.look().await.is("fuse", 0, 0, None);

    mount.swap(&[("fuse.yaml", FUSE), ("kvm.yaml", KVM)]);
    watched.look().await.is("fuse kvm", 1, 0, None);
    watched.look().await.is("fuse kvm", 1, 0, None);
    assert!(!refusals.has_changed().unwrap());

    // One that is wrong refuses both, and is counted once, however often it is looked at.
    let wrong = KVM.replace("defaultMode", "defaultMood");
    mount.swap(&[("kvm.yaml", &wrong)]);
    for _ in 0..3 {
        let problem = "kvm.yaml:6: `spec` lacks the field `defaultMode` (and 1 more)";
        watched.look().await.is("fuse kvm", 1, 1, Some(problem));
    }
    assert!(refusals.has_changed().unwrap());
    assert_eq!(*refusals.borrow_and_update(), watched.live.refused());

    mount.swap(&[("kvm.yaml", KVM)]);
    watched.look().await.is("kvm", 2, 1, None);
    assert!(refusals.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_changes_no_decision_changes_nothing() {
    let mut mount = Mount::new(&[("fuse.yaml", FUSE)]);
    let mut watched = Watched::start(mount.path(), false);
    mount.swap(&[("other-name.yaml", &format!("# a comment{FUSE}"))]);
    watched.look().await.is("fuse", 0, 0, None);
    // What was in force all the time is not refused any more.
    mount.swap(&[("fuse.yaml", "kind: nonsense")]);
    watched.look().await.is("fuse", 0, 1, Some("fuse.yaml:1: "));
    mount.swap(&[("fuse.yaml", FUSE)]);
    watched.look().await.is("fuse", 1, 1, None);
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_empty_or_gone_keeps_the_last_set() {
    let mut mount = Mount::new(&[("fuse.yaml", FUSE)]);
    let mut watched = Watched::start(mount.path(), false);
    mount.swap(&[("notes.md", "none")]);
    watched.look().await.is("fuse", 0, 1, Some("holds no *.yaml"));
    let elsewhere = mount.path().with_extension("gone");
    fs::rename(mount.path(), &elsewhere).unwrap();
    watched.look().await.is("fuse", 0, 2, Some("cannot read the policy folder"));
    fs::rename(&elsewhere, mount.path()).unwrap();
    watched.look().await.is("fuse", 0, 3, Some("holds no *.yaml"));
    mount.swap(&[("kvm.yaml", KVM)]);
    watched.look().await.is("kvm", 1, 3, None);
}

#[tokio::test(start_paused = true)]
async fn an_empty_folder_is_a_set_where_that_is_allowed() {
    let mut mount = Mount::new(&[("fuse.yaml", FUSE)]);
    let mut watched = Watched::start(mount.path(), true);
    mount.swap(&[]);
    watched.look().await.is("", 1, 0, None);
    fs::rename(mount.path(), mount.path().with_extension("gone")).unwrap();
    watched.look().await.is("", 1, 1, Some("cannot read the policy folder"));
    fs::rename(mount.path().with_extension("gone"), mount.path()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_half_written_is_not_judged() {
    let mut mount = Mount::new(&[("fuse.yaml", FUSE)]);
    let mut watched = Watched::start(mount.path(), false);
    watched.look().await.is("fuse", 0, 0, None);

    // The kubelet has swapped, and not yet removed the link to what is gone.
    mount.begin(&[("kvm.yaml", KVM)]);
    let later = async {
        sleep(Duration::from_millis(500)).await;
        mount.finish();
    };
    tokio::join!(watched.watch.look(), later);
    watched.now().is("kvm", 1, 0, None);

    // Somebody copies into the folder, and takes some time.
    let file = mount.path().join("slow.yaml");
    let (half, _) = FUSE.split_at(FUSE.len() / 2);
    fs::write(&file, half).unwrap();
    let later = async {
        sleep(Duration::from_millis(500)).await;
        fs::write(&file, FUSE).unwrap();
    };
    tokio::join!(watched.watch.look(), later);
    watched.now().is("fuse kvm", 2, 0, None);

    // And one who never comes to an end is left alone.
    let forever = async {
        for round in 0.. {
            // Whole each time, so that no two readings agree by seeing nothing yet.
            let new = mount.path().join("..new");
            fs::write(&new, format!("{half}# {round}")).unwrap();
            fs::rename(&new, &file).unwrap();
            sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        () = watched.watch.look() => {}
        () = forever => {}
    }
    watched.now().is("fuse kvm", 2, 0, None);
    fs::write(&file, FUSE.replace("fuse", "tun")).unwrap();
    watched.look().await.is("kvm tun", 3, 0, None);
}

#[tokio::test(start_paused = true)]
async fn a_running_watch_sees_a_swap_by_itself() {
    let mut mount = Mount::new(&[("fuse.yaml", FUSE)]);
    let Watched { live, watch, .. } = Watched::start(mount.path(), false);
    let running = tokio::spawn(watch.run());
    mount.swap(&[("fuse.yaml", FUSE), ("kvm.yaml", KVM)]);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(live.current().devices().collect::<Vec<_>>(), ["fuse", "kvm"]);
    running.abort();
}
