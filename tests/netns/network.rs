//! Namespaces of the network, one for each node, on a bridge in one more; and what goes wrong between them.
//!
//! ```text
//! PREFIXs  bridge 10.77.0.254 ─┬─ a ═veth═ eth0 10.77.0.1  PREFIXa
//!          the test itself     ├─ b ═veth═ eth0 10.77.0.2  PREFIXb
//!                              └─ c ═veth═ eth0 10.77.0.3  PREFIXc
//! ```
//!
//! Nothing is made outside them but their names. One direction of a link is cut at its sender, which is given a wrong address of
//! the other's card: what it sends goes out, and nobody takes it.

use super::cluster::{NAMES, Place};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

const INSIDE: &str = "SEAWALL_NETNS_INSIDE";
const NOBODY: &str = "02:00:00:00:00:99";

pub(crate) struct Network {
    prefix: String,
    /// Whether it goes when this is dropped.
    is_made_here: bool,
}

fn ip(args: &str) -> std::io::Result<Output> {
    Command::new("ip").args(args.split_whitespace()).output()
}

fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

impl Network {
    /// Why there can be none, in words.
    fn make() -> Result<Network, String> {
        let network = Network { prefix: format!("sw{}", std::process::id()), is_made_here: true };
        network.build()?;
        Ok(network)
    }

    fn build(&self) -> Result<(), String> {
        let prefix = &self.prefix;
        let mut steps = vec![
            format!("netns add {prefix}s"),
            format!("-n {prefix}s link add name bridge type bridge"),
            format!("-n {prefix}s addr add 10.77.0.254/24 dev bridge"),
            format!("-n {prefix}s link set dev bridge up"),
            format!("-n {prefix}s link set dev lo up"),
        ];
        for (node, name) in NAMES.iter().enumerate() {
            steps.extend([
                format!("netns add {prefix}{name}"),
                format!("-n {prefix}s link add name {name} type veth peer name eth0 netns {prefix}{name}"),
                format!("-n {prefix}s link set dev {name} master bridge up"),
                format!("-n {prefix}{name} addr add {}/24 dev eth0", address(node)),
                format!("-n {prefix}{name} link set dev eth0 up"),
                format!("-n {prefix}{name} link set dev lo up"),
            ]);
        }
        steps.iter().try_for_each(|step| match ip(step) {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!("ip {step}: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("ip, of iproute2: {error}")),
        })
    }

    #[track_caller]
    fn succeed(&self, args: &str) {
        let output = ip(args).unwrap();
        assert!(output.status.success(), "ip {args}: {output:?}");
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        let place = |(node, name)| {
            let at = |port| format!("{}:{port}", address(node)).parse().unwrap();
            Place { ships: at(7410), serves: at(7400), namespace: Some(format!("{}{name}", self.prefix)) }
        };
        NAMES.iter().enumerate().map(place).collect()
    }

    /// The node's cable, pulled or not.
    pub(crate) fn plug(&self, node: usize, is_plugged: bool) {
        let to = if is_plugged { "up" } else { "down" };
        self.succeed(&format!("-n {}s link set dev {} {to}", self.prefix, NAMES[node]));
    }

    /// From now on nothing that `from` sends reaches `to`.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let (prefix, name, to) = (&self.prefix, NAMES[from], address(to));
        self.succeed(&format!("-n {prefix}{name} neigh replace {to} lladdr {NOBODY} dev eth0 nud permanent"));
    }

    pub(crate) fn heal(&self, from: usize, to: usize) {
        let (prefix, name, to) = (&self.prefix, NAMES[from], address(to));
        self.succeed(&format!("-n {prefix}{name} neigh del {to} dev eth0"));
    }

    /// Both directions between a node and others.
    pub(crate) fn isolate(&self, node: usize, from: &[usize]) {
        from.iter().for_each(|&other| {
            self.cut(node, other);
            self.cut(other, node);
        });
    }

    pub(crate) fn reunite(&self, node: usize, with: &[usize]) {
        with.iter().for_each(|&other| {
            self.heal(node, other);
            self.heal(other, node);
        });
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.is_made_here {
            for name in ["s"].iter().chain(&NAMES) {
                let _ = ip(&format!("netns del {}{name}", self.prefix));
            }
        }
    }
}

/// Runs a test of this name with a network of its own: in a process that is on its bridge. Where there can be none it is left
/// out, and that is said, unless `SEAWALL_NETNS=required`.
pub(crate) fn with_network(test: &str, body: impl FnOnce(&Network)) {
    if let Ok(prefix) = std::env::var(INSIDE) {
        return body(&Network { prefix, is_made_here: false });
    }
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let network = match Network::make() {
        Ok(network) => network,
        Err(why) => {
            let is_required = std::env::var("SEAWALL_NETNS").is_ok_and(|text| text == "required");
            assert!(!is_required, "no namespaces of the network: {why}");
            return println!("{test}: left out, for there are no namespaces of the network here: {why}");
        }
    };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &format!("{}s", network.prefix)]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(INSIDE, &network.prefix);
    let output = command.output().unwrap();
    let said = [&output.stdout[..], &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    println!("{}", said.concat());
    let has_run = said[0].contains("1 passed");
    assert!(output.status.success() && has_run, "{test}, in its network: {}", output.status);
}
